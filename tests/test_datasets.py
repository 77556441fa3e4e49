"""datasets: the official layout, file order, human pairs, and pairs through TFDS."""

import dataclasses
import gzip
import json
import subprocess
import sys

import pytest
import runs
import tensorflow_datasets as tfds

from rlcd_jax import record_files, records, tasks
from rlcd_jax.datasets import hh_rlhf, hh_rlhf_files, simulated_pairs
from rlcd_jax.pairs import contrast
from rlcd_jax.text import dialogue_format

TASK = tasks.load_task("harmless")


def dialogue(number, reply):
    start = f"\n\nHuman: Question {number} é?\n\nAssistant: Hm.\n\nHuman: And?"
    return f"{start}\n\nAssistant: {reply}"


def rows(num):
    return [
        {"chosen": dialogue(i, f"Good {i}."), "rejected": dialogue(i, f"Bad {i}.")}
        for i in range(num)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in the official layout, with the odd lines of the real one."""
    path = tmp_path_factory.mktemp("hh-rlhf")
    odd = [
        {
            "chosen": "\n\nHuman: a\nAssistant: b",
            "rejected": "Human: a\n\nAssistant: c",
        },
        {"chosen": dialogue(98, "Same."), "rejected": dialogue(98, "Same.")},
        {"chosen": dialogue(99, "One."), "rejected": dialogue(97, "Two.")},
        {"chosen": dialogue(96, ""), "rejected": dialogue(96, "Two.")},
    ]
    runs.write_hh(path / "harmless-base" / "test.jsonl.gz", rows(40) + odd)
    runs.write_hh(path / "helpful-base" / "train.jsonl.gz", rows(3))
    runs.write_hh(path / "helpful-base" / "test.jsonl.gz", rows(2))
    return path


@pytest.fixture(scope="module")
def places(folder, tmp_path_factory):
    return {"manual_dir": folder, "data_dir": tmp_path_factory.mktemp("tfds")}


def test_load_prompts_keeps_the_order_and_the_turns(places):
    loaded = hh_rlhf.load_prompts("harmless-base", "test", **places)
    assert [p.id for p in loaded] == [f"harmless-base/test/{i:06d}" for i in range(44)]
    assert [t.text for t in loaded[7].turns] == ["Question 7 é?", "Hm.", "And?"]
    assert [t.text for t in loaded[40].turns] == ["a"]  # no blank line before the reply
    for prompt, row in zip(loaded[:40], rows(40), strict=True):
        text = dialogue_format.plain_prompt(prompt, TASK)
        assert (
            row["chosen"].strip() == f"{text} {row['chosen'].split('Assistant: ')[-1]}"
        )
        positive, negative = contrast.contrast_prompts(prompt, TASK, 0)
        good, bad = TASK.affixes[0]
        assert positive.index(bad) < positive.index(good)
        assert negative.index(good) < negative.index(bad)


def test_load_prompts_takes_slices_and_limits(places):
    part = hh_rlhf.load_prompts("harmless-base", "test[10:20]", **places)
    assert [p.id[-2:] for p in part] == [str(i) for i in range(10, 20)]
    assert (
        hh_rlhf.load_prompts("harmless-base", "test[10:20]", limit=3, **places)
        == (part[:3])
    )
    assert len(hh_rlhf.load_prompts("helpful-base", "train", limit=9, **places)) == 3


def test_load_human_pairs_swaps_by_key_and_leaves_out_what_compares_nothing(places):
    pairs = hh_rlhf.load_human_pairs("harmless-base", "test", seed=0, **places)
    assert len(pairs) == 41  # 44 lines less: same reply, two prompts, empty reply
    assert all(pair.chosen.startswith(("Good", "b")) for pair in pairs)
    assert all(pair.rejected.startswith(("Bad", "c")) for pair in pairs)
    seconds = sum(pair.prob_2 for pair in pairs)
    assert 10 < seconds < 31 and {p.prob_2 for p in pairs} == {0.0, 1.0}
    part = hh_rlhf.load_human_pairs("harmless-base", "test[5:9]", seed=0, **places)
    assert part == pairs[5:9]
    other = hh_rlhf.load_human_pairs("harmless-base", "test", seed=1, **places)
    assert [p.prob_2 for p in other] != [p.prob_2 for p in pairs]
    shown = hh_rlhf.load_human_pairs(
        "harmless-base",
        "test",
        seed=0,
        render=lambda prompt: dialogue_format.plain_prompt(prompt, TASK),
        **places,
    )
    assert shown == pairs  # the format of the data set is the task's


def test_builder_offers_the_splits_that_are_there(places):
    builder = hh_rlhf.prepare("harmless-base", **places)
    assert list(builder.info.splits) == ["test"]
    assert set(hh_rlhf.prepare("helpful-base", **places).info.splits) == {
        "train",
        "test",
    }
    source = builder.as_data_source(split="test")
    assert source[3]["prompt"].decode().endswith("\n\nAssistant:")
    assert source[3]["chosen"].decode() == dialogue(3, "Good 3.")
    with pytest.raises(ValueError, match=r"'train' of .*; offered: test, or a slice"):
        hh_rlhf.load_prompts("harmless-base", "train", **places)


def test_prepare_never_takes_a_part_for_the_whole(places, tmp_path):
    runs.write_hh(tmp_path / "helpful-base" / "test.jsonl.gz", rows(1))
    data_dir = places["data_dir"]
    loaded = hh_rlhf.load_prompts(
        "helpful-base", "test", manual_dir=tmp_path, data_dir=data_dir
    )
    assert len(loaded) == 1
    assert len(hh_rlhf.load_prompts("helpful-base", "test", **places)) == 2


def test_builder_without_a_folder_asks_for_the_official_files(tmp_path, folder):
    class Manager:
        def download(self, urls):
            self.urls = urls
            return {s: folder / "helpful-base" / f"{s}.jsonl.gz" for s in urls}

    builder = hh_rlhf.HhRlhf(config="helpful-base", data_dir=tmp_path)
    manager = Manager()
    examples = dict(builder._split_generators(manager))
    assert manager.urls["train"].endswith(
        "/hh-rlhf/resolve/main/helpful-base/train.jsonl.gz"
    )
    assert [key for key, _ in examples["train"]] == [0, 1, 2]


@pytest.mark.parametrize(
    "line, words",
    [
        ("{", ["test.jsonl.gz:2", "accepted: a JSON object"]),
        ('{"chosen": "x"}', ["test.jsonl.gz:2", "'rejected'"]),
        ("[1]", ["test.jsonl.gz:2", "accepted: a JSON object"]),
        (
            '{"chosen": "no dialogue", "rejected": ""}',
            ["test.jsonl.gz:2", "'chosen'", "starts with 'no dialogue'"],
        ),
    ],
)
def test_prepare_names_file_and_line_of_a_broken_row(tmp_path, line, words):
    path = tmp_path / "hh" / "harmless-base" / "test.jsonl.gz"
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt") as file:
        file.write(json.dumps(rows(1)[0]) + "\n" + line + "\n")
    with pytest.raises(ValueError) as error:
        hh_rlhf.prepare("harmless-base", tmp_path / "hh", tmp_path / "data")
    for word in words:
        assert word in str(error.value)


def packed(text, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text if isinstance(text, bytes) else text.encode()))


ROW = json.dumps(rows(1)[0]) + "\n"


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "the file holds no line"),
        (ROW + "null\n", "gz:2: the line is None"),
        (ROW + "\n" + ROW, "gz:2: not JSON"),
        (ROW + '{"chosen": 7, "rejected": "x"}\n', "gz:2: 'chosen' is 7"),
        (ROW + '{"chosen": "x", "rejected": null}\n', "gz:2: 'rejected' is None"),
        (ROW + '{"chosen": "x", "chosen": "y"}\n', "gz:2: field 'chosen' is there tw"),
        (ROW.encode() + b'{"chosen": "\xff"}\n', "gz:2: not JSON"),
        (ROW.encode("utf-16"), "gz:1: not JSON"),
        (ROW + ROW[:40], "gz:2: not JSON"),
    ],
)
def test_read_rows_names_file_and_line(tmp_path, text, words):
    packed(text, tmp_path / "test.jsonl.gz")
    with pytest.raises(ValueError) as error:
        list(hh_rlhf_files.read_rows(tmp_path / "test.jsonl.gz"))
    assert "test.jsonl.gz" in str(error.value) and words in str(error.value)


def test_read_rows_refuses_what_is_no_whole_gzip_file(tmp_path):
    path = tmp_path / "test.jsonl.gz"
    whole = gzip.compress(ROW.encode() * 50)
    for broken in (whole[:-20], whole[:40] + b"\0" * 9 + whole[49:], ROW.encode()):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="test.jsonl.gz:.*no whole gzip file"):
            list(hh_rlhf_files.read_rows(path))


def test_read_rows_expands_within_bounds(tmp_path, monkeypatch):
    path = tmp_path / "test.jsonl.gz"
    packed(ROW + "0" * (1 << 26), path)
    with pytest.raises(ValueError, match="test.jsonl.gz:2: the file expands beyond"):
        list(hh_rlhf_files.read_rows(path))
    monkeypatch.setattr(hh_rlhf_files, "MAX_FILE_BYTES", 10 * len(ROW))
    packed(ROW * 11, path)
    with pytest.raises(ValueError, match="test.jsonl.gz:11: the file expands beyond"):
        list(hh_rlhf_files.read_rows(path))


def test_read_rows_takes_files_of_windows(tmp_path):
    path = tmp_path / "test.jsonl.gz"
    packed(b"\xef\xbb\xbf" + ROW.replace("\n", "\r\n").encode() * 2, path)
    assert list(hh_rlhf_files.read_rows(path)) == [tuple(rows(1)[0].values())] * 2


def test_prepare_sees_other_content_of_equal_size(tmp_path):
    path = tmp_path / "hh" / "harmless-base" / "test.jsonl.gz"
    chosen = []
    for line in (ROW, ROW.replace("Good", "Evil")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(line.encode(), compresslevel=0))
        (pair,) = hh_rlhf.load_human_pairs(
            "harmless-base",
            "test",
            seed=0,
            manual_dir=tmp_path / "hh",
            data_dir=tmp_path / "data",
        )
        chosen.append(pair.chosen)
    assert chosen == ["Good 0.", "Evil 0."]


def test_prepare_goes_on_after_a_kill_and_a_loss(tmp_path):
    path = tmp_path / "hh" / "harmless-base" / "test.jsonl.gz"
    packed(ROW, path)
    places = (tmp_path / "hh", tmp_path / "data")
    builder = hh_rlhf.prepare("harmless-base", *places)
    (folder,) = (p for p in (tmp_path / "data").iterdir() if p.is_dir())
    left = folder.with_name(f".{folder.name}-killed")
    (left / "part").mkdir(parents=True)
    for file in builder.data_path.glob("*array_record*"):
        file.unlink()
    again = hh_rlhf.prepare("harmless-base", *places)
    assert len(hh_rlhf.read_examples(again, "test")) == 1
    assert not left.exists()
    with pytest.raises(ValueError, match="'gs://bucket' is an address; accepted"):
        hh_rlhf.prepare("harmless-base", tmp_path / "hh", "gs://bucket")


def test_prepare_names_configs_and_files(tmp_path):
    with pytest.raises(ValueError, match="accepted: harmless-base, helpful-base"):
        hh_rlhf.prepare("harmless", tmp_path)
    with pytest.raises(
        ValueError, match=r"harmless-base/train.jsonl.gz or .* is needed"
    ):
        hh_rlhf.prepare("harmless-base", tmp_path)


def test_join_turns_is_what_parse_dialogue_reads():
    turns = (records.Turn("human", ""), records.Turn("assistant", "a\n\nb"))
    turns += (records.Turn("human", "c"),)
    text = hh_rlhf_files.join_turns(turns)
    assert text == "Human:\n\nAssistant: a\n\nb\n\nHuman: c\n\nAssistant:"
    assert dialogue_format.parse_dialogue(text) == (turns, "")


def a_pair(number, **changes):
    values = {str: f"text {number} é", int: number + 1}
    values |= {float: number / 16}  # exact in float32
    values |= {records.Side: "plain", records.Finish: "stop"}
    values |= {records.Sampling: "same", records.Labels: "scoring"}
    values |= {dict | None: {"logit_a": 0.1}, int | None: None, float | None: None}
    fields = {f.name: values[f.type] for f in dataclasses.fields(records.Pair)}
    return records.Pair(**{**fields, **changes})


def test_simulated_pairs_give_every_record_back(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs = [a_pair(i) for i in range(5)] + [a_pair(5, affix_index=0, scoring=None)]
    graded = {"sampling": "graded", "side_1": "positive", "side_2": "negative"}
    graded |= {"grade_1": 0.0, "grade_2": -1.0, "scale_index": 0}
    pairs.append(a_pair(6, **graded))
    record_files.write_jsonl(path, pairs)
    builder = simulated_pairs.prepare(path, tmp_path / "data")
    source = builder.as_data_source(split="train")
    assert [simulated_pairs.to_pair(source[i]) for i in range(len(source))] == pairs
    by_name = {"data_dir": builder.data_path.parent.parent, "split": "train"}
    named = tfds.data_source("simulated_pairs", **by_name)
    assert [simulated_pairs.to_pair(row) for row in named] == pairs
    with pytest.raises(ValueError, match="holds no prepared pairs; prepare a run's"):
        tfds.data_source("simulated_pairs", data_dir=tmp_path, split="train")
    record_files.write_jsonl(path, pairs[:2])  # another file is another data set
    builder = simulated_pairs.prepare(path, tmp_path / "data")
    assert builder.info.splits["train"].num_examples == 2
    with pytest.raises(ValueError, match="run the stage 'simulate' first"):
        simulated_pairs.prepare(tmp_path / "none.jsonl", tmp_path)


def test_datasets_import_neither_tensorflow_nor_jax():
    code = (
        "import sys; from rlcd_jax.datasets import hh_rlhf, simulated_pairs; "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'jax')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
