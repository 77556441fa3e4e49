"""Task files, their checks and the official wording."""

import dataclasses
import itertools
import pathlib
import re
import tomllib
from importlib import resources

import pytest

from rlcd_jax import tasks
from rlcd_jax.tasks import layout, official

PACKAGE = resources.files("rlcd_jax.tasks")
PROMPT_LINE = '{"id": "a/1", "turns": [{"role": "human", "text": "Hello there"}]}'


def task_text(name):
    return PACKAGE.joinpath(f"{name}.toml").read_text(encoding="utf-8")


def task_table(name="cheerful"):
    return tomllib.loads(task_text(name))


# Task files


@pytest.mark.parametrize("name", tasks.NAMES)
def test_load_task_loads_every_shipped_task(name):
    task = tasks.load_task(name)
    assert task.name == name
    assert task.folder is None
    assert set(task.source) == set(layout.TEXT_GROUPS)
    assert all(task.source.values())
    assert len(task.affixes) == len(task.systems) == len(task.scoring_instructions)
    assert task.forbidden_strings == ("\\", "\\\\", "`", "```")
    assert (task.prompt_tokens, task.reply_tokens) == (192, 300)
    assert task.stop_strings == ("\n\nHuman:",)
    assert name in task.judge_questions
    dataclasses.asdict(task)  # a run writes its task into its records


def test_names_are_the_shipped_files():
    files = {f.name for f in PACKAGE.iterdir() if f.name.endswith(".toml")}
    assert files == {f"{name}.toml" for name in tasks.NAMES}


def test_shipped_tasks_have_the_facts_of_the_paper():
    harmless, helpful = tasks.load_task("harmless"), tasks.load_task("helpful")
    assert len(harmless.affixes) == 16
    assert harmless.affixes[4][1] == harmless.affixes[15][1]
    assert helpful.affixes == (
        ("giving a helpful response", "giving an unhelpful response"),
    )
    assert harmless.hh_config == "harmless-base"
    assert helpful.hh_config == "helpful-base"
    assert set(harmless.judge_questions) == {"harmless", "harmless_helpful"}
    assert tasks.load_task("cheerful").hh_config is None


def test_outline_lead_in_announces_a_numbered_outline():
    outline = tasks.load_task("outline")
    assert len(outline.affixes) == 3
    assert "possible outline" in outline.lead_in
    assert outline.lead_in.endswith("\n\n1.")
    assert "not published" in outline.source["affixes"]


@pytest.mark.parametrize("name", ["cheerful", "helpful", "outline"])
def test_affixes_have_matched_surface_forms(name):
    task = tasks.load_task(name)
    for positive, negative in (*task.affixes, *task.systems):
        assert positive != negative
        gap = abs(len(positive.split()) - len(negative.split()))
        assert gap <= 1, (positive, negative)
        assert abs(len(positive) - len(negative)) <= 12, (positive, negative)


@pytest.mark.parametrize("name", tasks.NAMES)
def test_texts_of_a_task_are_bare_and_distinct(name):
    task = tasks.load_task(name)
    texts = [*itertools.chain(*task.affixes, *task.systems)]
    texts += [*task.scoring_instructions, *task.judge_questions.values()]
    for text in texts:
        assert text == text.strip()
        assert "\n" not in text
        assert not text.startswith("(")
    assert len(set(task.affixes)) == len(task.affixes)
    assert len(set(task.systems)) == len(task.systems)
    assert len(set(task.scoring_instructions)) == len(task.scoring_instructions)


def test_with_format_swaps_the_stop_strings():
    task = tasks.load_task("helpful")
    chat = tasks.with_format(task, "chat")
    assert (chat.format, chat.stop_strings) == ("chat", ())
    assert tasks.with_format(chat, "dialogue") == task
    assert tasks.with_format(task, "dialogue") is task
    with pytest.raises(ValueError, match="'story'.*dialogue, chat"):
        tasks.with_format(task, "story")


# Errors of task files


def test_load_task_unknown_name_lists_the_names():
    with pytest.raises(ValueError, match="'gloomy'.*harmless, helpful, outline, cheer"):
        tasks.load_task("gloomy")


def test_load_task_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ValueError, match="absent.toml"):
        tasks.load_task(tmp_path / "absent.toml")


def test_load_task_broken_toml_names_the_file(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("name = ")
    with pytest.raises(ValueError, match="broken.toml: not a TOML file"):
        tasks.load_task(path)


def test_load_task_name_must_be_that_of_the_file(tmp_path):
    path = tmp_path / "other.toml"
    path.write_text(task_text("cheerful"))
    with pytest.raises(ValueError, match="'name' is 'cheerful'.*'other'"):
        tasks.load_task(path)


@pytest.mark.parametrize("field", sorted(layout.LAYOUT))
def test_parse_task_missing_field_is_named(field):
    table = task_table()
    del table[field]
    with pytest.raises(ValueError, match=rf"t\.toml: missing field '{field}'"):
        layout.parse_task(table, "t.toml", None)


TABLES = [
    (group, field)
    for group, fields in layout.LAYOUT.items()
    if isinstance(fields, dict)
    for field in fields
]


@pytest.mark.parametrize(("group", "field"), TABLES)
def test_parse_task_missing_nested_field_is_named(group, field):
    table = task_table()
    del table[group][field]
    with pytest.raises(ValueError, match=rf"missing field '{group}\.{field}'"):
        layout.parse_task(table, "t.toml", None)


@pytest.mark.parametrize(("group", "field"), [*TABLES, (None, "name")])
def test_parse_task_wrong_type_is_named(group, field):
    table = task_table()
    (table[group] if group else table)[field] = {"a": 1}
    name = f"{group}.{field}" if group else field
    with pytest.raises(ValueError, match=re.escape(f"t.toml: field '{name}' is {{")):
        layout.parse_task(table, "t.toml", None)


def test_parse_task_unknown_fields_are_named():
    table = task_table() | {"colour": "red"}
    with pytest.raises(ValueError, match="unknown field 'colour'.*'affixes'"):
        layout.parse_task(table, "t.toml", None)
    table = task_table()
    table["cleanup"]["strictness"] = 3
    with pytest.raises(ValueError, match=r"unknown field 'cleanup\.strictness'"):
        layout.parse_task(table, "t.toml", None)


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        (None, "format", "story", "'format' is 'story'.*'dialogue', 'chat'"),
        (None, "prompt_tokens", 0, "'prompt_tokens' is 0.*integer above 0"),
        (None, "reply_tokens", True, "'reply_tokens' is True.*integer"),
        (None, "affixes", "none", "'affixes' is 'none'.*'positive'"),
        (None, "prompt_template", "no place", "'prompt_template'.*exactly once"),
        (None, "judges", ["oracle"], "'judges' is 'oracle'.*'lexicon'"),
        (None, "judges", [], "'judges' is .*non-empty list"),
        (None, "stop_strings", [""], "'stop_strings'.*non-empty strings"),
        (None, "judge_questions", {"source": "own"}, "'judge_questions'.*question"),
        ("affixes", "positive", ["a", 1], "'affixes.positive'.*list"),
        ("cleanup", "mode", "loose", "'cleanup.mode'.*'corrected', 'released'"),
        ("cleanup", "role_names", ["Human"], "'cleanup.role_names'.*two names"),
        ("prompts", "train", 1.5, "'prompts.train' is 1.5.*from 0 to 1"),
        ("prompts", "train", 0.5, "train/dev/test.*add up to 1"),
    ],
)
def test_parse_task_wrong_value_says_what_is_accepted(group, field, value, message):
    table = task_table()
    (table[group] if group else table)[field] = value
    with pytest.raises(ValueError, match=message):
        layout.parse_task(table, "t.toml", None)


@pytest.mark.parametrize(
    ("group", "field"),
    [
        ("affixes", "negative"),
        ("systems", "positive"),
        ("systems", "negative"),
        ("scoring", "instructions"),
    ],
)
def test_parse_task_uneven_lists_are_named(group, field):
    table = task_table()
    table[group][field].pop()
    with pytest.raises(
        ValueError, match=rf"uneven lists: '{group}\.{field}' has 5 .* has 6"
    ):
        layout.parse_task(table, "t.toml", None)


def test_parse_task_chat_format_refuses_stop_strings():
    with pytest.raises(ValueError, match="'stop_strings'.*empty list"):
        layout.parse_task(task_table() | {"format": "chat"}, "t.toml", None)


def test_load_task_new_attribute_needs_only_files(tmp_path):
    text = task_text("cheerful").replace('name = "cheerful"', 'name = "polite"')
    text = text.replace("prompts/cheerful.jsonl", "polite.jsonl")
    (tmp_path / "polite.toml").write_text(text)
    (tmp_path / "polite.jsonl").write_text(PROMPT_LINE + "\n")
    task = tasks.load_task(tmp_path / "polite.toml")
    assert task.folder == str(tmp_path)
    assert [prompt.id for prompt in tasks.load_prompts(task)] == ["a/1"]


# The official wording


def write_checkout(folder, num_harmless=16):
    script = pathlib.Path(folder) / official.SCRIPT
    script.parent.mkdir(parents=True)
    lines = ["import os", "X = os.getcwd()", "raise SystemExit('never run')"]
    for task, num in (("HARMLESS", num_harmless), ("HELPFUL", 1)):
        for kind in ("POSITIVE_AFFIXES", "NEGATIVE_AFFIXES", "SOME_INSTRUCTIONS"):
            texts = [f"({task} {kind} {i})" for i in range(num)]
            lines.append(f"{task}_{kind} = {texts!r}")
    script.write_text("\n".join(lines))
    return folder


def test_load_task_official_replaces_affixes_and_instructions(tmp_path):
    task = tasks.load_task("harmless", official=write_checkout(tmp_path))
    assert task.affixes[3] == (
        "HARMLESS POSITIVE_AFFIXES 3",
        "HARMLESS NEGATIVE_AFFIXES 3",
    )
    assert len(task.scoring_instructions) == 16
    assert task.scoring_instructions[15] == "(HARMLESS SOME_INSTRUCTIONS 15)"
    assert official.SCRIPT in task.source["scoring"]
    assert task.systems == tasks.load_task("harmless").systems


def test_load_task_official_needs_the_lists_of_the_task(tmp_path):
    write_checkout(tmp_path)
    with pytest.raises(ValueError, match="OUTLINE_.*covers harmless and helpful"):
        tasks.load_task("outline", official=tmp_path)


def test_load_task_official_needs_as_many_pairs_as_the_task(tmp_path):
    write_checkout(tmp_path, num_harmless=2)
    with pytest.raises(ValueError, match="2 affix pairs .* which has 16"):
        tasks.load_task("harmless", official=tmp_path)


def test_read_wording_absent_script_is_named(tmp_path):
    with pytest.raises(ValueError, match="no file .*simulate_preference_data.py"):
        official.read_wording(tmp_path, "harmless")


def test_read_wording_uneven_or_broken_script_is_an_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "HELPFUL_POSITIVE: list = ['a', 'b']\n"
        "HELPFUL_NEGATIVE = ('c',)\n"
        "HELPFUL_INSTRUCTION = ['d']\n"
    )
    with pytest.raises(ValueError, match="uneven: 2 positive, 1 negative, 1 instr"):
        official.read_wording(script, "helpful")
    script.write_text("def")
    with pytest.raises(ValueError, match="not a Python file"):
        official.read_wording(script, "helpful")
