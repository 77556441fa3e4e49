"""human.sheets: blind sheets, whose page and table hold the same and run nothing."""

import csv
import dataclasses
import io
import json
import re

import pytest
from human_study import make_study

from rlcd_jax.human import sheets

SYSTEMS = ("sunny-v1", "pale-v2")


@pytest.fixture
def folder(tmp_path):
    made, written = make_study()
    sheets.write_study(tmp_path, made, written)
    return tmp_path


def page_data(text):
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL
    )
    return json.loads(found[1])


def test_write_study_sheets_are_blind(folder):
    files = sorted((folder / "annotators").iterdir())
    assert len(files) == 6
    for file in files:
        text = file.read_text("utf-8")
        for word in (*SYSTEMS, "side_2", "prompt_id", "repeat_of", '"gold'):
            assert word not in text
        assert not re.search(r"https?://|src=|@import|url\(", text)
    data = page_data((folder / "annotators/annotator-1.html").read_text("utf-8"))
    assert data["question"] == "Which reply is in the more cheerful mood?"
    assert {key for item in data["items"] for key in item} == {
        "item",
        "turns",
        "a",
        "b",
    }
    assert data["items"][0]["turns"][0]["role"] == "human"


def test_write_study_page_and_table_hold_the_same(folder):
    made, written = make_study()
    for sheet in written:
        stem = folder / "annotators" / sheet.annotator
        items = page_data(stem.with_suffix(".html").read_text("utf-8"))["items"]
        text = stem.with_suffix(".csv").read_text("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [i["item"] for i in items] == [r["item"] for r in rows]
        assert [i["a"] for i in items] == [r["reply_a"] for r in rows]
        assert all(row["answer"] == "" and row["study"] == made.id for row in rows)
        assert "8 (B is much better)" in rows[0]["question"]


def test_page_cannot_be_left_by_a_text():
    made, written = make_study()
    trap = "</script><script>alert(1)</script><!-- {{ 1 }} \u2028 \ud800"
    sheet = written[0]
    item = dataclasses.replace(sheet.items[0], reply_a=trap)
    text = sheets.page(made, dataclasses.replace(sheet, items=(item,)))
    assert text.count("</script>") == 2 and "<!-- {{" not in text
    assert page_data(text)["items"][0]["a"][:10] == trap[:10]


def test_table_does_not_compute():
    made, written = make_study()
    item = dataclasses.replace(written[0].items[0], reply_a="=1+1", reply_b="- one")
    text = sheets.table(made, dataclasses.replace(written[0], items=(item,)))
    row = next(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert (row["reply_a"], row["reply_b"]) == ("'=1+1", "'- one")


def test_write_study_never_overwrites(folder):
    with pytest.raises(ValueError, match="holds a study already"):
        sheets.write_study(folder, *make_study())


def test_shown_turns_show_other_texts_as_they_are():
    assert sheets.shown_turns("Premise: a picnic") == [
        {"role": "", "text": "Premise: a picnic"}
    ]
    turns = sheets.shown_turns("\n\nHuman: Hi\n\nAssistant: First,")
    assert turns[-1] == {"role": "assistant", "text": "First, …"}
