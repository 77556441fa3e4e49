"""record_files: broken lines are named, files are written whole or not at all."""

import dataclasses
import json

import pytest
from made_pair import make_pair

from rlcd_jax import record_files, records, schema


def test_read_jsonl_refuses_a_draw_that_is_in_the_id(tmp_path):
    path = tmp_path / "pairs.jsonl"
    old = {k: v for k, v in schema.to_dict(make_pair()).items() if k != "draw"}
    record_files.write_jsonl(path, [old])
    assert record_files.read_jsonl(path, records.Pair) == [make_pair()]
    record_files.write_jsonl(path, [old, {**old, "prompt_id": "p0#1"}])
    with pytest.raises(ValueError, match=r"pairs.jsonl:2: missing field 'draw'.*p0#1"):
        record_files.read_jsonl(path, records.Pair)
    new = make_pair(prompt_id="issue#12")
    record_files.write_jsonl(path, [new])
    assert record_files.read_jsonl(path, records.Pair) == [new]


def test_jsonl_round_trip_keeps_every_record(tmp_path):
    dropped = records.Dropped(
        "p1", "t", "same", "plain", "empty", 2, ("empty", "empty"), ("", "é\u2028 ")
    )
    prompt = records.Prompt("p2", (records.Turn("human", "line\nline"),))
    for record in (make_pair(scoring={"logit_a": 0.5}), dropped, prompt):
        path = tmp_path / "x.jsonl"
        record_files.write_jsonl(path, [record])
        assert record_files.read_jsonl(path, type(record)) == [record]


def test_a_record_that_is_there_twice_is_refused(tmp_path):
    dropped = records.Dropped("p1", "t", "same", "plain", "", 1, ("",), ("",))
    path = tmp_path / "x.jsonl"
    for record, other in ((make_pair(), {"id": "q"}), (dropped, {"draw": 1})):
        again = dataclasses.replace(record, **other)
        record_files.write_jsonl(path, [record, again])
        assert record_files.read_jsonl(path, type(record)) == [record, again]
        record_files.write_jsonl(path, [record, again, record])
        with pytest.raises(ValueError, match=r"x.jsonl:3: line 1 has a record of .*p"):
            record_files.read_jsonl(path, type(record))


@pytest.mark.parametrize(
    "line, words",
    [
        ("{not json", ["not JSON"]),
        ("[1]", ["list", "accepted: an object"]),
        (json.dumps({"id": "a"}), ["missing", "'turns'"]),
        (json.dumps({"id": "a", "turns": [], "x": 1}), ["unknown", "'x'", "id, turns"]),
        (
            json.dumps({"id": "a", "turns": [{"role": "bot", "text": ""}]}),
            ["'turns[0].role'", "'bot'", "'human', 'assistant'"],
        ),
        (json.dumps({"id": 7, "turns": []}), ["'id'", "7", "text"]),
        (json.dumps({"id": "a", "turns": ["hi"]}), ["'turns[0]'", "'hi'", "Turn"]),
    ],
)
def test_read_jsonl_names_file_line_and_field(tmp_path, line, words):
    good = json.dumps({"id": "a", "turns": [{"role": "human", "text": "hi"}]})
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(ValueError) as error:
        record_files.read_jsonl(path, records.Prompt)
    assert f"{path}:3: " in str(error.value)
    for word in words:
        assert word in str(error.value)


def test_read_jsonl_reports_a_truncated_last_line(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": "ü')
    with pytest.raises(ValueError, match=r"x\.jsonl:3: the last line is cut short"):
        record_files.read_jsonl(path)
    assert record_files.read_jsonl(path, drop_truncated=True) == [{"a": 1}, {"a": 2}]
    path.write_bytes('{"a": 1}\n{"a": "ü'.encode()[:-1])  # cut inside a character
    assert record_files.read_jsonl(path, drop_truncated=True) == [{"a": 1}]
    path.write_text('{"a": 1\n{"a": 2}\n')  # a broken line that is not the last
    with pytest.raises(ValueError, match=r":1: not JSON"):
        record_files.read_jsonl(path, drop_truncated=True)


def test_write_jsonl_is_atomic(tmp_path):
    path = tmp_path / "x.jsonl"
    record_files.write_jsonl(path, [{"a": 1}])

    def rows():
        yield {"a": 2}
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        record_files.write_jsonl(path, rows())
    with pytest.raises(ValueError):
        record_files.write_jsonl(path, [{"a": float("nan")}])
    assert record_files.read_jsonl(path) == [{"a": 1}]
    assert [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]
