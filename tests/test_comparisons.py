"""Pairs of others: read, written, and trained on by a run."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import runs

from experiments import pairs as launcher
from rlcd_jax import record_files, records, row_files
from rlcd_jax.datasets import comparisons
from rlcd_jax.job import workspace

PROMPT = "Human: How are you?\n\nAssistant: Well.\n\nHuman: Why?\n\nAssistant:"
TURNS = (
    records.Turn("human", "How are you?"),
    records.Turn("assistant", "Well."),
    records.Turn("human", "Why?"),
)
MESSAGES = [
    {"role": "user", "content": "How are you?"},
    {"role": "assistant", "content": "Well."},
    {"role": "user", "content": "Why?"},
]


def reply(text):
    return [{"role": "assistant", "content": text}]


TRL_ROWS = {
    "texts": {"prompt": PROMPT, "chosen": " The sun.", "rejected": " Dunno."},
    "messages": {
        "prompt": MESSAGES,
        "chosen": reply("The sun."),
        "rejected": reply("Dunno."),
    },
    "whole messages beside a prompt": {
        "prompt": MESSAGES,
        "chosen": MESSAGES + reply("The sun."),
        "rejected": MESSAGES + reply("Dunno."),
    },
    "implicit texts": {
        "chosen": f"{PROMPT} The sun.",
        "rejected": f"\n\n{PROMPT} Dunno.",
    },
    "implicit messages": {
        "chosen": MESSAGES + reply("The sun."),
        "rejected": MESSAGES + reply("Dunno."),
    },
}


def pair(number=0, prob_2=0.0, prompt=PROMPT):
    return records.HumanPair(
        f"f/{number}", f"p{number}", prompt, "The sun.", "Dunno.", prob_2
    )


def better(row):
    replies = (row.reply_1, row.reply_2)
    return replies[::-1] if row.prob_2 > 0.5 else replies


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("kind", TRL_ROWS)
def test_each_form_of_trl_says_the_same(tmp_path, kind, ending):
    path = tmp_path / f"theirs{ending}"
    row_files.write(path, [TRL_ROWS[kind]] * 20)
    found = comparisons.read(f"trl:{path}", seed=0)
    assert len(found.rows) == 20 and not found.said()
    assert {row.turns for row in found.rows} == {TURNS}
    assert {better(row) for row in found.rows} == {("The sun.", "Dunno.")}
    # Which stands first is a coin of the row, not always the chosen one.
    assert {row.prob_2 for row in found.rows} == {0.0, 1.0}
    assert comparisons.read(f"trl:{path}", seed=0) == found
    assert comparisons.read(f"trl:{path}", seed=1) != found


def test_a_text_that_is_no_dialogue_is_one_human_turn(tmp_path):
    path = tmp_path / "a.jsonl"
    row_files.write(path, [{"prompt": "Why?", "chosen": "a", "rejected": "b"}])
    (row,) = comparisons.read(f"trl:{path}", seed=0).rows
    assert row.turns == (records.Turn("human", "Why?"),)


@pytest.mark.parametrize("ending", [".json", ".csv", ".jsonl", ".parquet"])
def test_alpaca_farm_and_the_released_csv(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    rows = [
        {
            "instruction": PROMPT,
            "input": "",
            "output_1": 'The "sun",\nyes',
            "output_2": "Dunno.",
            "preference": label,
            "win2_prob": soft,
        }
        for label, soft in ((1, 0.25), (2, 0.75), (1, 0.5))
    ]
    row_files.write(path, rows)
    found = comparisons.read(f"alpaca_farm:{path}", seed=0).rows
    assert [row.prob_2 for row in found] == [0.25, 0.75, 0.5]
    assert {row.reply_1 for row in found} == {'The "sun",\nyes'}
    assert found[0].turns == TURNS
    hard = [{k: v for k, v in row.items() if k != "win2_prob"} for row in rows]
    row_files.write(path, hard)
    found = comparisons.read(f"alpaca_farm:{path}", seed=0).rows
    assert [row.prob_2 for row in found] == [0.0, 1.0, 0.0]


def test_an_input_follows_its_instruction(tmp_path):
    path = tmp_path / "a.json"
    row = {"instruction": "Add.", "input": "1 2", "output_1": "3", "output_2": "4"}
    row_files.write(path, [row | {"preference": 1}])
    (found,) = comparisons.read(f"alpaca_farm:{path}", seed=0).rows
    assert found.turns == (records.Turn("human", "Add.\n\n1 2"),)


def test_what_compares_nothing_and_what_is_not_read_is_said(tmp_path):
    path = tmp_path / "a.jsonl"
    good = {"prompt": "Why?", "chosen": "a", "rejected": "b", "score": 3}
    rows = [good, good | {"rejected": "a"}, good | {"chosen": " "}, good]
    row_files.write(path, rows)
    found = comparisons.read(f"trl:{path}", seed=0)
    assert len(found.rows) == 2
    assert found.said() == (
        "1 with two equal replies; 1 with an empty reply; columns not read: score"
    )


TRL_ROW = {"prompt": "Why?", "chosen": "a", "rejected": "b"}
FARM_ROW = {"instruction": "a", "output_1": "b", "output_2": "c", "preference": 1}


@pytest.mark.parametrize(
    ("form", "row", "message"),
    [
        ("trl", {"prompt": "a", "chosen": "b"}, "no 'rejected' among the columns"),
        ("trl", TRL_ROW | {"chosen": 3}, "'chosen' is 3; accepted: a text"),
        ("trl", TRL_ROW | {"chosen": "Why? a"}, "begins with the whole prompt"),
        ("trl", TRL_ROW | {"chosen": []}, r"'chosen' is \[\]"),
        ("trl", TRL_ROW | {"chosen": MESSAGES}, "no reply to the prompt"),
        (
            "trl",
            TRL_ROW | {"prompt": [{"role": "system", "content": "x"}]},
            "a system message has no place",
        ),
        ("trl", TRL_ROW | {"prompt": reply("a")}, "ends with assistant"),
        ("trl", TRL_ROW | {"prompt": [{"role": "user"}]}, "fields role and content"),
        ("trl", {"chosen": "a", "rejected": "b"}, "without a 'prompt'"),
        (
            "trl",
            {"chosen": f"{PROMPT} a", "rejected": "Human: b\n\nAssistant: c"},
            "do not begin with the same dialogue",
        ),
        ("alpaca_farm", FARM_ROW | {"preference": 3}, "accepted: 1 or 2"),
        ("alpaca_farm", FARM_ROW | {"preference": True}, "'preference' is true"),
        ("alpaca_farm", FARM_ROW | {"output_1": None}, "'output_1' is null"),
        ("alpaca_farm", FARM_ROW | {"win2_prob": 2}, r"a probability in \[0, 1\]"),
        ("alpaca_farm", FARM_ROW | {"win2_prob": 0.9}, "name different replies"),
    ],
)
def test_a_wrong_row_is_named_with_its_place(tmp_path, form, row, message):
    path = tmp_path / "a.jsonl"
    good = TRL_ROW if form == "trl" else FARM_ROW
    row_files.write(path, [good, row])
    with pytest.raises(ValueError, match=rf"a\.jsonl:2: .*{message}"):
        comparisons.read(f"{form}:{path}", seed=0)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.txt", b"", "the ending '.txt' is no table's"),
        ("a.json", b"{}", "holds a dict; accepted: a list"),
        ("a.json", b"[1]", "row 1: a int; accepted: an object"),
        ("a.json", b"[", "a.json: not JSON"),
        ("a.csv", b"a,b\n1\n", "a.csv:2: 1 cells, and the first line names 2"),
        ("a.csv", b"a,a\n1,2\n", "the names of the columns, each once"),
        ("a.csv", b'a\n"x"y\n', "not CSV"),
        ("a.csv", b"\xff", "not text in UTF-8"),
        ("a.parquet", b"PAR1 is not all", "not a whole Parquet file"),
        ("a.jsonl", b"", "none of its 0 rows is a comparison"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        comparisons.read(f"trl:{path}", seed=0)
    with pytest.raises(ValueError, match=r"none\.csv cannot be read"):
        comparisons.read(f"trl:{tmp_path / 'none.csv'}", seed=0)


def test_parquet_of_two_columns_of_one_name_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    column = pa.array(["x"])
    pq.write_table(pa.Table.from_arrays([column] * 2, names=["prompt", "prompt"]), path)
    with pytest.raises(ValueError, match="'prompt' is there twice"):
        comparisons.read(f"trl:{path}", seed=0)


@pytest.mark.parametrize("name", ["trl", "trl:", "csv:a", "a.jsonl"])
def test_a_name_needs_format_and_file(name):
    with pytest.raises(ValueError, match="accepted: a format and a file, trl, alp"):
        comparisons.read(name, seed=0)


@pytest.mark.parametrize("to", ["trl:a.jsonl", "trl:a.parquet", "alpaca_farm:a.csv"])
@pytest.mark.parametrize("conversational", [False, True])
def test_what_is_written_reads_back(tmp_path, to, conversational):
    if conversational and not to.startswith("trl"):
        pytest.skip("messages are TRL's")
    form, name = comparisons.split_name(to)
    there = f"{form}:{tmp_path / name}"
    rows = [pair(number, float(number % 2)) for number in range(6)]
    made = comparisons.write(there, rows, conversational=conversational)
    assert made == comparisons.Written(6, 0)
    found = comparisons.read(there, seed=3)
    assert not found.said()
    assert [better(row) for row in found.rows] == [better(row) for row in rows]
    assert {row.turns for row in found.rows} == {TURNS}


def test_ties_and_soft_labels(tmp_path):
    rows = [pair(0, 0.5), pair(1, 0.75)]
    there = f"trl:{tmp_path / 'a.jsonl'}"
    assert comparisons.write(there, rows) == comparisons.Written(1, 1)
    assert "1 ties" in comparisons.write(there, rows).said("a")
    farm = f"alpaca_farm:{tmp_path / 'a.csv'}"
    assert comparisons.write(farm, rows) == comparisons.Written(2, 0)
    assert [r.prob_2 for r in comparisons.read(farm, seed=0).rows] == [0.5, 0.75]


def test_messages_need_a_dialogue(tmp_path):
    there = f"trl:{tmp_path / 'a.jsonl'}"
    with pytest.raises(ValueError, match="no dialogue of turns"):
        comparisons.write(there, [pair(prompt="<s>[INST]")], conversational=True)
    with pytest.raises(ValueError, match="messages are TRL's"):
        comparisons.write(
            f"alpaca_farm:{tmp_path / 'a.csv'}", [pair()], conversational=True
        )
    assert not list(tmp_path.iterdir())


def test_a_runs_pairs_go_out_and_come_back(finished_run, tmp_path, capsys):
    out = f"trl:{tmp_path / 'out.parquet'}"
    launcher.main(["export", str(finished_run), "--out", out, "--conversational"])
    own = record_files.read_jsonl(finished_run / "pairs/pairs.jsonl", records.Pair)
    assert capsys.readouterr().out == f"wrote {len(own)} pairs to {out}\n"
    back = tmp_path / "back.jsonl"
    launcher.main(["import", out, "--out", str(back)])
    said = capsys.readouterr().out
    assert f"{len(own)} pairs of" in said and "wrote" in said
    rows = comparisons.read_records(back)
    assert [better(row) for row in rows] == [better(row) for row in own]
    assert [" ".join(row.prompt.split()) for row in rows] == [
        " ".join(row.prompt.split()) for row in own
    ]


def test_a_run_starts_from_somebodys_pairs_and_ends_with_a_table(tmp_path):
    path = tmp_path / "theirs.jsonl"
    asked = "sun rain tea cat dog sea hill road town bird tree lake".split()
    rows = [
        {
            "prompt": f"What of the {word}?",
            "chosen": f"I love the {word}!",
            "rejected": "No.",
        }
        for word in asked
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = runs.tiny_config(
        preference__data=f"trl:{path}",
        stages=("preference", "policy", "evaluate"),
        evaluate__systems=("base", "policy"),
    )
    with runs.devices_by_mesh():
        runs.run_checked(config, tmp_path / "run", config.stages)
    summary = workspace.summary(tmp_path / "run", "preference")
    assert summary["train_pairs"] + summary["held_out_pairs"] == len(asked)
    assert "rlcd" in (tmp_path / "run/evaluate/table.md").read_text()
    assert not (tmp_path / "run/pairs").exists()
    path.write_text(path.read_text().replace("love", "hate"))
    with runs.devices_by_mesh(), pytest.raises(ValueError, match="data=.* has changed"):
        runs.run_checked(config, tmp_path / "run", ("preference",))


def test_wrong_pairs_end_before_the_first_stage(tmp_path):
    path = tmp_path / "theirs.jsonl"
    path.write_text('{"prompt": "a", "chosen": 1, "rejected": "b"}\n')
    config = runs.tiny_config(preference__data=f"trl:{path}")
    with runs.devices_by_mesh(), pytest.raises(ValueError, match=r"jsonl:1: .*chosen"):
        runs.run_checked(config, tmp_path / "run", config.stages)
    assert not (tmp_path / "run/pairs").exists()
