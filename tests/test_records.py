"""records and schema: broken values are named, files are atomic, keys are stable."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import done_mark, record_files, records, schema, seeds


def make_pair(**changes) -> records.Pair:
    fields = dict(
        id="p0",
        task="t",
        prompt_id="p0",
        prompt="Human: hi\n\nAssistant:",
        reply_1="Hello.",
        reply_2="Go away.",
        prob_2=0.0,
        side_1="positive",
        side_2="negative",
        source_prompt_1="Human: hi\n\nAssistant (kind):",
        source_prompt_2="Human: hi\n\nAssistant (unkind):",
        raw_1=" Hello.\n\nHuman:",
        raw_2=" Go away.\n\nHuman:",
        tries_1=1,
        tries_2=2,
        finish_1="stop",
        finish_2="eos",
        num_tokens_1=4,
        num_tokens_2=5,
        affix_index=0,
        sampling="contrast",
        labels="construction",
        scoring=None,
        generator="tiny",
        seed=0,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        alpha=1.0,
    )
    return records.Pair(**{**fields, **changes})


@pytest.mark.parametrize(
    "field, value, accepted",
    [
        ("prob_2", 1.5, "from 0.0 to 1.0"),
        ("prob_2", float("nan"), "finite number"),
        ("prob_2", True, "finite number"),
        ("side_1", "pos", "'positive', 'negative', 'plain'"),
        ("finish_2", None, "'eos', 'stop', 'length'"),
        ("tries_1", 0, "at least 1"),
        ("tries_1", 1.5, "whole number"),
        ("affix_index", -1, "at least 0"),
        ("affix_index", "3", "whole number or null"),
        ("reply_1", "  ", "text"),
        ("reply_2", 3, "text"),
        ("scoring", [1], "object or null"),
    ],
)
def test_pair_names_the_wrong_field(field, value, accepted):
    with pytest.raises(ValueError) as error:
        make_pair(**{field: value})
    message = str(error.value)
    assert f"'{field}'" in message and accepted in message and "\n" not in message


def test_prompt_must_end_with_the_human():
    turns = (records.Turn("human", "a"), records.Turn("assistant", "b"))
    with pytest.raises(ValueError, match="ends with assistant"):
        records.Prompt("x", turns)
    with pytest.raises(ValueError, match="ends with nothing"):
        records.Prompt("x", ())


ids = st.text("p#1 /.\n\u00e9", min_size=1, max_size=5).filter(str.strip)
draws = st.none() | st.integers(0, 11)


@given(st.tuples(ids, draws), st.tuples(ids, draws))
@settings(max_examples=300, deadline=None)
def test_draw_key_is_another_for_every_other_draw(one, two):
    assert (records.draw_key(*one) == records.draw_key(*two)) == (one == two)


def test_draw_key_of_plain_ids_is_fixed_forever():
    assert records.draw_key("cheerful/0001", None) == "cheerful/0001"
    assert records.draw_key("cheerful/0001", 3) == "cheerful/0001#3"
    assert records.draw_key("issue#3", None) == "issue##3"
    prompt = records.Prompt("p", (records.Turn("human", "a"),), 2)
    assert prompt.key == records.key_of(make_pair(prompt_id="p", draw=2)) == "p#2"


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


@pytest.mark.parametrize("prompt_id", ["", " ", "\n\t"])
def test_prompt_has_an_id(prompt_id):
    with pytest.raises(
        ValueError, match="field 'id' is .*; accepted: text that is not"
    ):
        records.Prompt(prompt_id, (records.Turn("human", "a"),))


def test_jsonl_round_trip_keeps_every_record(tmp_path):
    dropped = records.Dropped(
        "p1", "t", "same", "plain", "empty", 2, ("empty", "empty"), ("", "é\u2028 ")
    )
    prompt = records.Prompt("p2", (records.Turn("human", "line\nline"),))
    for record in (make_pair(scoring={"logit_a": 0.5}), dropped, prompt):
        path = tmp_path / "x.jsonl"
        record_files.write_jsonl(path, [record, record])
        assert record_files.read_jsonl(path, type(record)) == [record, record]


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


def test_done_mark_skips_or_names_the_difference(tmp_path):
    config = {"ppo": {"lr": 1e-5, "layers": (1, 2)}, "task": "harmless"}
    assert not done_mark.check_done(tmp_path, config)
    with pytest.raises(ValueError, match="run that stage first"):
        done_mark.read_summary(tmp_path)
    done_mark.mark_done(tmp_path, config, {"pairs": 3})
    reordered = {"task": "harmless", "ppo": {"layers": [1, 2], "lr": 1e-5}}
    assert done_mark.check_done(tmp_path, reordered)
    assert done_mark.read_summary(tmp_path) == {"pairs": 3}
    with pytest.raises(ValueError) as error:
        done_mark.check_done(
            tmp_path,
            {"ppo": {"lr": 3e-5, "layers": [1, 2]}, "task": "harmless", "x": 1},
        )
    assert "ppo.lr: was 1e-05, now 3e-05" in str(error.value)
    assert "x: was absent, now 1" in str(error.value)
    assert "task" not in str(error.value)


def test_seed_words_are_fixed_forever():
    # Golden: blake2b of '[0, "simulate", "p0", "positive", 0]', 8 bytes, little-endian.
    assert seeds.seed_words(0, "simulate", "p0", "positive", 0) == (
        3549542969,
        3643997465,
    )
    assert seeds.seed_words(0, "a", 1) != seeds.seed_words(0, "a", "1")
    assert seeds.seed_words(0, "ab", "c") != seeds.seed_words(0, "a", "bc")
    with pytest.raises(TypeError):
        seeds.seed_words(0, 1.5)


def test_seed_words_do_not_collide_and_seed_choice_is_uniform():
    keys = {seeds.seed_words(0, "p", i, s) for i in range(2000) for s in ("a", "b")}
    assert len(keys) == 4000
    counts = [0] * 16
    for i in range(4000):
        counts[seeds.seed_choice(16, 0, "affix", f"p{i}")] += 1
    chi_square = sum((c - 250) ** 2 / 250 for c in counts)
    assert chi_square < 37.7  # 99.9 % quantile of 15 degrees of freedom
    with pytest.raises(ValueError, match="0 things"):
        seeds.seed_choice(0, 0, "x")


def test_to_dict_of_a_mapping_is_a_copy():
    row = {"a": 1}
    assert schema.to_dict(row) == row and schema.to_dict(row) is not row
