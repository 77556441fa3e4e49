"""human.reading: answers are unblinded, and every problem is named."""

import csv
import io
import json

import pytest
from human_study import answer_all, likes_first, make_study

from rlcd_jax.human import reading, sheets

SYSTEMS = ("sunny-v1", "pale-v2")


@pytest.fixture
def folder(tmp_path):
    made, written = make_study()
    sheets.write_study(tmp_path, made, written)
    return tmp_path


def test_read_study_unblinds(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first)
    found, judgments = reading.read_study(folder)
    assert found == made
    assert len(judgments) == 3 * 27
    assert {j.score_2 for j in judgments if j.kind != "gold"} == {2}
    assert {j.score_2 for j in judgments if j.kind == "gold"} == {7}
    assert {j.rating for j in judgments} == {2, 7}


def test_unblind_sums_to_nine():
    for rating in range(1, 9):
        assert reading.unblind(rating, "B") == rating
        assert reading.unblind(rating, "A") + reading.unblind(rating, "B") == 9


@pytest.mark.parametrize(
    ("delimiter", "form"), [(",", "{}"), (";", "{}.0"), ("\t", " {}")]
)
def test_read_study_reads_sheets_that_spreadsheets_saved(folder, delimiter, form):
    made, written = make_study()
    for sheet in written:
        stem = folder / "annotators" / sheet.annotator
        text = stem.with_suffix(".csv").read_text("utf-8-sig")
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
        first, *rows = csv.reader(io.StringIO(text))
        writer.writerow(first)
        for row, line in zip(rows, sheet.key, strict=True):
            writer.writerow([*row[:-1], form.format(likes_first(line))])
        path = folder / "answers" / f"{sheet.annotator}.CSV"
        path.write_bytes(out.getvalue().encode("utf-8-sig"))
    _, judgments = reading.read_study(folder)
    assert [j.rating for j in judgments] == [
        likes_first(line) for sheet in written for line in sheet.key
    ]


def test_read_study_names_all_problems(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first, names=["annotator-1", "annotator-2"])
    items = [line.item for line in written[2].key]
    lines = ["study,item,note,answer,seconds", f'{made.id},{items[0]},"two\nlines",9,']
    lines += [f"{made.id},{items[1]},,2.5,", f"{made.id},{items[2]},,,"]
    lines += [f"{made.id},{items[3]},,3,-1", f"{made.id},{items[4]},,3,"]
    lines += [
        f"{made.id},{items[4]},,3,",
        f"{made.id},nobody-1,,3,",
        f"x,{items[5]},,3,",
    ]
    lines += [f"{made.id},{items[6]},,good,"]
    (folder / "answers" / "c.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError) as error:
        reading.read_study(folder)
    text = str(error.value)
    assert "10 problems" not in text and "9 problems" in text
    for part in (
        f"answers/c.csv:2: field 'answer' of {items[0]} is '9'",
        f"answers/c.csv:4: field 'answer' of {items[1]} is '2.5'",
        f"answers/c.csv:5: field 'answer' of {items[2]} is empty",
        f"answers/c.csv:6: field 'seconds' of {items[3]} is '-1'",
        f"answers/c.csv:8: field 'item' is '{items[4]}', which answers/c.csv:7 answers too",
        "answers/c.csv:9: field 'item' is 'nobody-1'",
        f"answers/c.csv:10: field 'study' is 'x'; accepted: '{made.id}'",
        f"answers/c.csv:11: field 'answer' of {items[6]} is 'good'",
        f"annotator-3 has no answer to 20 items ({items[7]}, ",
    ):
        assert part in text


@pytest.mark.parametrize("answer", [0, 9, 4.5, "", None, True, [3], float("nan")])
def test_read_study_refuses_wrong_json_answers(folder, answer):
    made, written = make_study()
    answer_all(folder, made, written, likes_first)
    path = folder / "answers" / "annotator-2.json"
    value = json.loads(path.read_text())
    value["answers"][5]["answer"] = answer
    path.write_text(json.dumps(value))
    with pytest.raises(
        ValueError, match=r"annotator-2.json: answers\[5\]: field 'answer'"
    ):
        reading.read_study(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "a.json: cannot be read: it has no list 'answers'"),
        ("a.json", '{"answers": [3]}', r"answers\[0\] is not an object"),
        ("a.json", "{", "a.json: cannot be read"),
        (
            "a.json",
            '{"answers": [{"item": [1]}]}',
            r"answers\[0\]: field 'study' is None",
        ),
        ("a.csv", "item,answer\nx,3\n", "line 1 has no column 'study'"),
        ("a.csv", b"\xff\xfe", "a.csv: cannot be read"),
    ],
)
def test_read_study_names_unreadable_files(folder, name, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "answers" / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        reading.read_study(folder, partial=True)


def test_read_study_needs_answers_and_a_key(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no .csv or .json file"):
        reading.read_study(folder)
    with pytest.raises(ValueError, match="study.json is not there"):
        reading.read_study(tmp_path / "elsewhere")


def test_read_study_partial_accepts_what_is_there(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first, names=["annotator-2"])
    with pytest.raises(ValueError, match="annotator-1 has no answer to 27 items"):
        reading.read_study(folder)
    _, judgments = reading.read_study(folder, partial=True)
    assert {j.annotator for j in judgments} == {"annotator-2"}
