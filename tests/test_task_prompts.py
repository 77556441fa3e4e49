"""The prompts that ship with the tasks, their splits, and the check of prompt files."""

import dataclasses
import importlib
import itertools
import json
import re
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.tasks import layout

PACKAGE = resources.files("rlcd_jax.tasks")
DIALOGUE_TASKS = ("harmless", "helpful", "cheerful")


def words(text):
    return frozenset(re.findall(r"[a-z0-9']+", text.lower()))


def human_text(prompt):
    return " ".join(turn.text for turn in prompt.turns if turn.role == "human")


def prompt_line(id="a/1", turns=(("human", "Hello there"),)):
    turns = [{"role": role, "text": text} for role, text in turns]
    return json.dumps({"id": id, "turns": turns})


# Prompts that ship with the package


@pytest.mark.parametrize("name", tasks.NAMES)
def test_load_prompts_sizes_of_the_splits(name):
    task = tasks.load_task(name)
    everything = tasks.load_prompts(task)
    parts = {split: tasks.load_prompts(task, split) for split in tasks.SPLITS}
    assert len(everything) >= 288
    assert len(parts["train"]) >= 192
    assert len(parts["dev"]) >= 32
    assert len(parts["test"]) >= 48
    ids = [prompt.id for part in parts.values() for prompt in part]
    assert sorted(ids) == sorted(prompt.id for prompt in everything)
    assert all(isinstance(prompt, records.Prompt) for prompt in everything)
    assert all(prompt.id.startswith(name + "/") for prompt in everything)


def test_shipped_prompts_have_no_near_duplicates():
    prompts = [p for n in tasks.NAMES for p in tasks.load_prompts(tasks.load_task(n))]
    bags = [(prompt.id, words(human_text(prompt))) for prompt in prompts]
    normalised = [
        " ".join(re.findall(r"[a-z0-9']+", human_text(p).lower())) for p in prompts
    ]
    assert len(set(normalised)) == len(normalised)
    for (id_1, bag_1), (id_2, bag_2) in itertools.combinations(bags, 2):
        if min(len(bag_1), len(bag_2)) < 0.8 * max(len(bag_1), len(bag_2)):
            continue  # Sizes alone keep the overlap below 0.8.
        overlap = len(bag_1 & bag_2) / len(bag_1 | bag_2)
        assert overlap < 0.8, (id_1, id_2)


@pytest.mark.parametrize("name", DIALOGUE_TASKS)
def test_shipped_prompts_share_of_dialogues(name):
    prompts = tasks.load_prompts(tasks.load_task(name))
    share = sum(len(prompt.turns) > 1 for prompt in prompts) / len(prompts)
    assert 0.10 <= share <= 0.15


@pytest.mark.parametrize("name", tasks.NAMES)
def test_shipped_prompts_are_clean_text(name):
    task = tasks.load_task(name)
    for prompt in tasks.load_prompts(task):
        for turn in prompt.turns:
            assert turn.text == turn.text.strip()
            assert "\n" not in turn.text
            assert not re.search(r"(Human|Assistant)\b.*:", turn.text)
            assert not any(text in turn.text for text in task.forbidden_strings)
            assert 1 <= len(turn.text.split()) <= 60


def test_outline_premises_are_single_sentences_of_one_turn():
    for prompt in tasks.load_prompts(tasks.load_task("outline")):
        (turn,) = prompt.turns
        assert 8 <= len(turn.text.split()) <= 35
        assert turn.text.endswith(".")


def test_split_of_depends_on_the_id_only():
    task = tasks.load_task("cheerful")
    before = {
        p.id: tasks.split_of(p.id, task.prompts) for p in tasks.load_prompts(task)
    }
    assert before["cheerful/0001"] == tasks.split_of("cheerful/0001", task.prompts)
    everything = dataclasses.replace(task.prompts, train=1.0, dev=0.0, test=0.0)
    assert tasks.split_of("cheerful/0001", everything) == "train"
    nothing = dataclasses.replace(task.prompts, train=0.0, dev=0.0, test=1.0)
    assert tasks.split_of("cheerful/0001", nothing) == "test"


def test_split_of_is_pinned():
    # Golden values: a prompt that changes its split would leak test into training.
    shares = layout.PromptSet(file="x", train=0.66, dev=0.13, test=0.21)
    ids = [f"cheerful/{number:04d}" for number in range(1, 9)]
    assert [tasks.split_of(id, shares) for id in ids] == [
        "dev",
        "train",
        "dev",
        "train",
        "train",
        "train",
        "train",
        "train",
    ]


def test_package_data_are_found_through_importlib_resources():
    for name in tasks.NAMES:
        assert PACKAGE.joinpath(f"{name}.toml").is_file()
        assert PACKAGE.joinpath("prompts").joinpath(f"{name}.jsonl").is_file()


def test_package_data_do_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    assert len(tasks.load_prompts(tasks.load_task("cheerful"))) >= 288


# Errors of prompt files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", ": not JSON"),
        ("", ": not JSON"),
        ("[]", ": the line is a list"),
        ("[" * 100_000, ": lists and objects are more than"),
        ('{"id": ' + "9" * 5000 + "}", ": Exceeds"),
        ('{"id": "\\ud800", "turns": []}', ": a text holds half of a surrogate"),
        ('{"id": "b"}', ": missing field 'turns'"),
        ('{"id": "b", "turns": [], "x": 1}', ": unknown field 'x'"),
        (prompt_line(id=""), ": field 'id' is ''"),
        (prompt_line(id=7), ": field 'id' is 7"),
        (prompt_line(id="b", turns=()), r": field 'turns' is \[\]"),
        (prompt_line(), ": field 'id' is 'a/1', which line 1 has"),
        (prompt_line("b", [("human", " \n")]), r": field 'turns\[0\].text'"),
        (prompt_line("b", [("human", 3)]), r": field 'turns\[0\].text' is 3"),
        (prompt_line("b", [("robot", "Hi")]), r"'turns\[0\].role' is 'robot'"),
        ('{"id": "b", "turn": [], "turns": []}', r"'turn' \(did you mean 'turns'"),
        (
            prompt_line("b", [("human", "Hi"), ("assistant", "Hi")]),
            r"'turns\[0\].role' is 'human'; .*last one is human",
        ),
        (prompt_line("b", [("assistant", "Hi")]), "last one is human"),
        ('{"id": "b", "turns": ["Hi"]}', r"'turns\[0\]' is 'Hi'"),
        ('{"id": "b", "turns": [{"role": "human"}]}', r"missing .*'turns\[0\].text'"),
    ],
)
def test_load_prompts_wrong_line_is_named(tmp_path, line, message):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([prompt_line(), line, prompt_line(id="z")]) + "\n")
    with pytest.raises(ValueError, match="mine.jsonl, line 2.*" + message):
        tasks.load_prompts(tasks.load_task("cheerful"), path=path)


def test_load_prompts_empty_or_absent_file_is_an_error(tmp_path):
    task, path = tasks.load_task("cheerful"), tmp_path / "empty.jsonl"
    with pytest.raises(ValueError, match="no prompt file at .*empty.jsonl"):
        tasks.load_prompts(task, path=path)
    path.write_text("\n")
    with pytest.raises(ValueError, match="empty.jsonl: no prompts"):
        tasks.load_prompts(task, path=path)


def test_load_prompts_unknown_split_lists_the_splits():
    with pytest.raises(ValueError, match="'valid'.*train, dev, test"):
        tasks.load_prompts(tasks.load_task("cheerful"), "valid")


def test_load_prompts_keeps_line_marks_inside_a_text(tmp_path):
    path = tmp_path / "mine.jsonl"
    turns = [{"role": "human", "text": "one\u2028two\nthree"}]
    line = json.dumps({"id": "a", "turns": turns}, ensure_ascii=False)
    path.write_text(line + "\n", encoding="utf-8")
    (prompt,) = tasks.load_prompts(tasks.load_task("cheerful"), path=path)
    assert prompt.turns[-1].text == "one\u2028two\nthree"


def test_load_prompts_says_all_wrong_lines(tmp_path):
    path = tmp_path / "mine.jsonl"
    good = [prompt_line(id=f"g{i}").encode() for i in range(2)]
    path.write_bytes(b"\n".join([good[0], b"x", b'{"id": "\xe9"}', good[1], b"[]"]))
    with pytest.raises(ValueError) as caught:
        tasks.load_prompts(tasks.load_task("cheerful"), path=path)
    said = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in said] == [
        f"{path}, line {number}" for number in (2, 3, 5)
    ]
    assert "'utf-8' codec" in said[1]
    path.write_bytes(b"\n".join([b"x"] * 50))
    with pytest.raises(ValueError, match="and 30 more"):
        tasks.load_prompts(tasks.load_task("cheerful"), path=path)


def test_load_prompts_keeps_a_text_in_one_split(tmp_path):
    path = tmp_path / "mine.jsonl"
    task = tasks.load_task("cheerful")
    lines = [
        prompt_line(f"p{i}", [("human", f"text  {i // 8}"[: 6 + i % 2] + str(i // 8))])
        for i in range(320)
    ]
    path.write_text("\n".join(lines))
    parts = [tasks.load_prompts(task, split, path) for split in tasks.SPLITS]
    texts = [{" ".join(p.turns[0].text.split()) for p in part} for part in parts]
    assert sum(map(len, parts)) == 320 and all(texts)
    for one, two in itertools.combinations(texts, 2):
        assert not one & two


@given(st.sets(st.text("abcdef0123", min_size=1, max_size=6), min_size=3, max_size=30))
def test_split_prompts_leaves_no_part_empty_and_moves_little(ids):
    shares = layout.PromptSet(file="x")
    prompts = [records.Prompt(i, (records.Turn("human", i),)) for i in sorted(ids)]
    parts = tasks.split_prompts(prompts, shares)
    assert all(parts.values())
    assert sorted(p.id for part in parts.values() for p in part) == sorted(ids)
    moved = [p for s, part in parts.items() for p in part]
    moved = [p for p in moved if p not in parts[tasks.split_of(p.id, shares)]]
    assert len(moved) <= 2
    assert parts["dev"] == tasks.split_prompts(prompts[::-1], shares)["dev"][::-1]


def test_load_prompts_refuses_a_set_too_small_for_its_shares(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text(prompt_line())
    task = tasks.load_task("cheerful")
    sizes = []
    for split in tasks.SPLITS:
        try:
            sizes.append(len(tasks.load_prompts(task, split, path)))
        except ValueError as error:
            assert "1 prompts are too few for the part" in str(error)
    assert sizes == [1]


@pytest.mark.parametrize("end", ["\r\n", "\r", "\n"])
def test_texts_end_their_lines_in_one_way(tmp_path, end):
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "human", "text": f"one{end}two"}]
    path.write_text(json.dumps({"id": "a", "turns": turns}) + "\n")
    (prompt,) = tasks.load_prompts(tasks.load_task("cheerful"), None, path)
    assert prompt.turns[0].text == "one\ntwo"
