"""Prompts of others: each form says the same, what is no prompt is counted or named."""

import json

import made_pair
import pyarrow as pa
import pytest
import runs

from rlcd_jax import record_files, records, row_files, tasks
from rlcd_jax.datasets import prompt_rows, simulated_pairs
from rlcd_jax.job import contents, prompt_parts

TEXTS = ("Why?", "How are you?\tWell", "Human: Hi\n\nAssistant: Yes\n\nHuman: So\n\n"
         "Assistant:")  # fmt: skip
TURNS = [
    (records.Turn("human", "Why?"),),
    (records.Turn("human", "How are you?\tWell"),),
    (
        records.Turn("human", "Hi"),
        records.Turn("assistant", "Yes"),
        records.Turn("human", "So"),
    ),
]
ROLES = {"human": "user", "assistant": "assistant"}


def as_messages(turns):
    return [{"role": ROLES[turn.role], "content": turn.text} for turn in turns]


def save_as_datasets_does(folder, rows, splits=()):
    """Write what `Dataset.save_to_disk` of HF datasets writes, in two files."""
    folder.mkdir()
    if splits:
        (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
        for split in splits:
            save_as_datasets_does(folder / split, rows)
        return folder
    names = ["data-00000-of-00002.arrow", "data-00001-of-00002.arrow"]
    for name, some in zip(names, (rows[:2], rows[2:]), strict=True):
        table = pa.Table.from_pylist(some)
        with pa.OSFile(str(folder / name), "wb") as file:
            with pa.ipc.new_stream(file, table.schema) as stream:
                stream.write_table(table)
    state = {"_data_files": [{"filename": name} for name in names]}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def prepare_as_tfds_does(folder):
    """Write a data set of TFDS that has a text `prompt`: a run's pairs."""
    rows = [made_pair.make_pair(id=str(n), prompt=t) for n, t in enumerate(TEXTS)]
    record_files.write_jsonl(folder / "pairs.jsonl", rows)
    return simulated_pairs.prepare(folder / "pairs.jsonl", folder).data_path


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet"])
@pytest.mark.parametrize("kind", ["texts", "messages"])
def test_each_file_of_rows_gives_the_same_prompts(ending, kind, tmp_path):
    if (ending, kind) == ("csv", "messages"):
        pytest.skip("a cell of CSV is a text")
    path = tmp_path / f"p.{ending}"
    values = TEXTS if kind == "texts" else map(as_messages, TURNS)
    row_files.write(path, [{"prompt": value, "score": 1} for value in values])
    assert prompt_rows.is_of_others(path)
    found = prompt_rows.read(path)
    assert [prompt.turns for prompt in found.prompts] == TURNS
    assert len({prompt.id for prompt in found.prompts}) == 3
    assert found.said() == "3 prompts; columns not read: score"


def test_folders_of_datasets_and_of_tfds_give_the_same_prompts(tmp_path):
    rows = [{"prompt": text} for text in TEXTS]
    saved = save_as_datasets_does(tmp_path / "saved", rows)
    prepared = prepare_as_tfds_does(tmp_path)
    for folder in (saved, prepared):
        assert prompt_rows.is_of_others(folder)
        found = prompt_rows.read(folder)
        assert {one.turns for one in found.prompts} == {*TURNS}
    assert found.said().startswith("3 prompts; columns not read: affix_index, ")
    several = save_as_datasets_does(tmp_path / "d", rows, ("train", "test"))
    with pytest.raises(ValueError, match="several splits; name one of them: .*d/train"):
        prompt_rows.read(several)
    assert len(prompt_rows.read(several / "train").prompts) == 3
    (saved / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(ValueError, match="accepted: files of the folder"):
        prompt_rows.read(saved)
    with pytest.raises(ValueError, match="a folder without state.json; accepted"):
        prompt_rows.read(tmp_path)


def test_text_is_a_prompt_a_line_and_what_is_none_is_counted(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfWhy?\r\n\n  \nHow are you?\tWell\nWhy?\n")
    found = prompt_rows.read(path)
    assert [prompt.turns for prompt in found.prompts] == TURNS[:2]
    assert found.said() == ("2 prompts; 2 blank rows; 1 rows that were there before")
    path.write_bytes(b"Why?\n\xff\n")
    with pytest.raises(ValueError, match=r"p.txt:2: not text in UTF-8"):
        prompt_rows.read(path)
    path.write_bytes(b"\n \n")
    with pytest.raises(ValueError, match="p.txt: no prompts; accepted is at least one"):
        prompt_rows.read(path)


def test_an_id_is_kept_and_else_made_of_the_text(tmp_path):
    path = tmp_path / "p.jsonl"
    row_files.write(path, [{"id": 7, "prompt": "a"}, {"id": "x", "prompt": "b"}])
    assert [one.id for one in prompt_rows.read(path).prompts] == ["7", "x"]
    row_files.write(path, [{"prompt": "b"}, {"prompt": "a"}])
    later = {one.turns: one.id for one in prompt_rows.read(path).prompts}
    row_files.write(path, [{"prompt": "a"}])
    (first,) = prompt_rows.read(path).prompts
    assert later[first.turns] == first.id and first.id.startswith("p/")


def test_wrong_rows_are_named_all_of_them(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"prompt": "Why?", "id": "a"},
        {"text": "Why?"},
        {"prompt": 3},
        {"prompt": [{"role": "system", "content": "x"}]},
        {"prompt": as_messages(TURNS[2])[:2]},
        {"prompt": "Other", "id": "a"},
        {"prompt": "Other", "id": 0.5},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError) as caught:
        prompt_rows.read(path)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        f"{path}:{number}" for number in range(2, 8)
    ]
    for line, words in zip(
        lines,
        (
            "no 'prompt' among the columns ['text']",
            "field 'prompt' is 3; accepted: a text, or a list of messages",
            'message of role "system"',
            "ends with assistant; accepted: one or more turns, the last one 'human'",
            "field 'id' is 'a', which another row has",
            "field 'id' is 0.5; accepted: a text",
        ),
        strict=True,
    ):
        assert words in line
    path.write_text('{"prompt": 1}\n' * 50)
    with pytest.raises(ValueError, match="p.jsonl: and 30 more$"):
        prompt_rows.read(path)


def test_our_own_lines_stay_our_own(tmp_path):
    path = tmp_path / "p.jsonl"
    turns = [{"role": "human", "text": "Why?"}]
    path.write_text("\n" + json.dumps({"id": "a", "turns": turns}) + "\n")
    assert not prompt_rows.is_of_others(path)
    assert not prompt_rows.is_of_others(tmp_path / "none.jsonl")
    path.write_text("no json")
    assert not prompt_rows.is_of_others(path)


def test_a_run_takes_them_and_knows_them_again(tmp_path):
    path = tmp_path / "p.txt"
    path.write_text("".join(f"Question {n}?\n" for n in range(60)))
    config = runs.tiny_config(prompts__source=str(path))
    task = tasks.load_task("cheerful")
    parts = [
        prompt_parts.load_prompts(config, task, part, limit=0)
        for part in ("train", "dev", "test")
    ]
    assert sum(map(len, parts)) == 60 and all(parts)
    before = contents.inputs(config, tmp_path, "simulate")
    path.write_text(path.read_text() + "More?\n")
    (line,) = contents.changed(before, contents.inputs(config, tmp_path, "simulate"))
    assert line == f"prompts.source={path} has changed"
    path.write_text("One?\n")
    with pytest.raises(ValueError, match="p.txt: 1 prompts are too few for the part"):
        prompt_parts.load_prompts(config, task, "dev")


def test_wrong_prompts_end_before_the_first_stage(tmp_path):
    path = tmp_path / "p.txt"
    config = runs.tiny_config(prompts__source=str(path))
    path.write_bytes(b"Why?\n\xff\n")
    with runs.devices_by_mesh(), pytest.raises(ValueError, match="txt:2: not text in"):
        runs.run_checked(config, tmp_path / "run", config.stages)
    assert not (tmp_path / "run/pairs").exists()
