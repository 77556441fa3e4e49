"""Task files, their checks and the official wording."""

import dataclasses
import itertools
import pathlib
import re
import tomllib
from importlib import resources

import pytest

from experiments import task as task_command
from rlcd_jax import tasks
from rlcd_jax.judging import api_judge, judges
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.tasks import defaults, fields, layout, official

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
    assert task.attribute == name and task.defaults == ("attribute",)
    dataclasses.asdict(task)  # a run writes its task into its records


def test_names_are_the_shipped_files():
    files = {f.name for f in PACKAGE.iterdir() if f.name.endswith(".toml")}
    assert files == {f"{name}.toml" for name in tasks.NAMES} | {tasks.TEMPLATE}


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


@pytest.mark.parametrize("field", ["name", "affixes", "prompts"])
def test_parse_task_missing_field_is_named(field):
    table = task_table()
    del table[field]
    with pytest.raises(
        ValueError, match=rf"t\.toml: (missing field '{field}'|no prom)"
    ):
        layout.parse_task(table, "t.toml", None)


FIELDS = [(None, f.name) for f in dataclasses.fields(fields.TaskFile)]
FIELDS += [
    (group, f.name)
    for group, cls in (
        ("cleanup", fields.CleanupRules),
        ("prompts", fields.PromptSet),
        ("lexicon", fields.Lexicon),
    )
    for f in dataclasses.fields(cls)
]


@pytest.mark.parametrize(("group", "field"), FIELDS)
def test_parse_task_wrong_type_is_named(group, field):
    table = task_table()
    (table[group] if group else table)[field] = {"a": 1}
    name = f"{group}.{field}" if group else field
    with pytest.raises(ValueError, match=rf"t\.toml: .*field '{name}[.a]*'"):
        layout.parse_task(table, "t.toml", None)


def test_parse_task_unknown_fields_are_named_with_the_near_one():
    table = task_table() | {"discription": "red"}
    table["cleanup"]["strictness"] = 3
    table["affixes"][2]["negativ"] = "sad"
    table["source"]["affix"] = "mine"
    with pytest.raises(ValueError) as caught:
        layout.parse_task(table, "t.toml", None)
    text = str(caught.value)
    assert "unknown field 'discription' (did you mean 'description'?)" in text
    assert "unknown field 'affixes[2].negativ' (did you mean 'negative'?)" in text
    assert "unknown field 'cleanup.strictness'; accepted: the fields" in text
    del table["discription"], table["cleanup"]["strictness"]
    del table["affixes"][2]["negativ"]
    with pytest.raises(ValueError, match=r"'source.affix' \(did you mean 'affixes'"):
        layout.parse_task(table, "t.toml", None)


@pytest.mark.parametrize(
    ("group", "field", "value", "message"),
    [
        (None, "format", "story", "'format' is 'story'.*'dialogue', 'chat'"),
        (None, "prompt_tokens", 0, "'prompt_tokens' is 0.*from 1 to"),
        (None, "reply_tokens", True, "'reply_tokens' is True.*whole number"),
        (None, "affixes", "none", "'affixes' is 'none'.*positive, negative"),
        (None, "affixes", [], r"'affixes' is \[\].*one entry or more"),
        (None, "prompt_template", "no place", "'prompt_template'.*exactly once"),
        (None, "judges", ["oracle"], "unknown field 'judges'"),
        (None, "stop_strings", [""], "'stop_strings'.*empty text"),
        (None, "name", "a#b", "'name' is 'a#b'.*letters, digits"),
        (None, "human_marker", "\n\nUser:", r"role_names'.*\['User', 'Assistant'\]"),
        (None, "judge_questions", {"x": " "}, "'judge_questions.x' is blank"),
        ("cleanup", "mode", "loose", "'cleanup.mode'.*'corrected', 'released'"),
        ("cleanup", "role_names", ["Human"], "'cleanup.role_names'.*two names"),
        ("cleanup", "min_characters", 0, "'cleanup.min_characters' is 0.*from 1 to"),
        ("prompts", "train", 1.5, "'prompts.train' is 1.5.*from 0.0 to 1.0"),
        ("prompts", "train", 0.5, "train/dev/test.*add up to 1"),
        ("prompts", "texts", ["a"], "'prompts.file' and 'prompts.texts' are both"),
        ("lexicon", "name", "liwc", "'lexicon.name' is 'liwc'; accepted: 'vader'"),
        ("lexicon", "attribute", "polite", "'lexicon.attribute' is 'polite'.*'happy'"),
        ("lexicon", "attribute", "happy", "attribute of the task is 'cheerful'"),
    ],
)
def test_parse_task_wrong_value_says_what_is_accepted(group, field, value, message):
    table = task_table()
    (table[group] if group else table)[field] = value
    with pytest.raises(ValueError, match=message):
        layout.parse_task(table, "t.toml", None)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"negative": "a"}, r"missing field 'affixes\[0\].positive'"),
        ({"positive": "a", "negative": 1}, r"'affixes\[0\].negative' is 1"),
        ({"positive": "a", "negative": " "}, r"'affixes\[0\].negative' is ' '"),
        ({"positive": "a", "negative": "a"}, "two texts that differ"),
        ({"positive": "(a)", "negative": "b"}, "one line without parentheses"),
        ({"positive": "a\nc", "negative": "b"}, "one line without parentheses"),
        (
            {"positive": "a", "negative": "b", "system_positive": "Be a."},
            "has one of 'system_positive' and 'system_negative'",
        ),
    ],
)
def test_parse_task_wrong_pair_is_named(row, message):
    table = task_table() | {"affixes": [row]}
    with pytest.raises(ValueError, match=message):
        layout.parse_task(table, "t.toml", None)


def test_parse_task_chat_format_refuses_stop_strings():
    with pytest.raises(ValueError, match="'stop_strings'.*empty list"):
        layout.parse_task(task_table() | {"format": "chat"}, "t.toml", None)
    table = task_table() | {"format": "chat"}
    del table["stop_strings"]
    assert layout.parse_task(table, "t.toml", None).stop_strings == ()


def test_load_task_says_all_errors_of_a_file_at_once(tmp_path):
    path = tmp_path / "polite.toml"
    text = SMALLEST.replace('name = "polite"', 'nmae = "polite"\nreply_tokens = "9"')
    path.write_text(text.replace('"curt response"', "7") + "[cleanup]\nmode = 1\n")
    with pytest.raises(ValueError) as caught:
        tasks.load_task(path)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}: ") for line in lines)
    for line, words in zip(
        lines,
        (
            "missing field 'name'",
            "unknown field 'nmae' (did you mean 'name'?)",
            "field 'affixes[0].negative' is 7",
            "field 'reply_tokens' is '9'",
            "field 'cleanup.mode' is 1",
        ),
        strict=True,
    ):
        assert words in line


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"name = [" + b"[" * 100_000, "nested too deeply"),
        (b"x = 1\ny = '\xe9'\n", "line 2: not UTF-8"),
        ('name = "x"'.encode("utf-16"), "line 1: not UTF-8 but UTF-16"),
        (b"name = " + b"9" * 5000, "not a TOML file"),
        (b"x = 1\nx = 2\n", "not a TOML file.*line 2"),
        (b"name = 'a\x00b'", "not a TOML file"),
        (b"<html>", "not a TOML file.*line 1"),
        (b"", "missing field 'name'"),
    ],
    ids=range(8),
)
def test_load_task_odd_bytes_are_an_error_of_the_file(tmp_path, data, message):
    path = tmp_path / "odd.toml"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"odd.toml.*{message}"):
        tasks.load_task(path)


# Own tasks

SMALLEST = """
name = "polite"
prompts.texts = [
    "What is a fjord?", "Where is my parcel?", "How do I boil rice?",
    "Is it late?", "Who wrote this?", "May I sit here?", "What is for lunch?",
    "How far is Leeds?", "Is the shop open?", "What day is it?",
    "Can you sing?", "Do cats dream?",
]
[[affixes]]
positive = "polite response"
negative = "curt response"
"""


def write_task(folder, text=SMALLEST, name="polite"):
    path = pathlib.Path(folder) / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_load_task_smallest_file_has_defaults(tmp_path):
    task = tasks.load_task(write_task(tmp_path))
    known = tasks.load_task("helpful")
    for field in ("format", "human_marker", "assistant_marker", "prompt_template"):
        assert getattr(task, field) == getattr(known, field)
    assert task.stop_strings == known.stop_strings
    assert task.forbidden_strings == known.forbidden_strings
    assert (task.cleanup, task.lead_in) == (known.cleanup, "")
    assert (task.prompt_tokens, task.reply_tokens) == (192, 300)
    assert (task.attribute, task.lexicon, task.hh_config) == ("polite", None, None)
    assert len(task.systems) == len(task.scoring_instructions) == 1
    assert "polite response" in task.systems[0][0]
    assert "curt response" in task.systems[0][1]
    assert task.judge_questions == {
        "polite": 'Which of the two replies is more like "polite response" and less '
        'like "curt response"? Answer (A) or (B).'
    }
    assert task.source["systems"] == task.source["scoring"] == defaults.SOURCE
    assert {"systems", "judge_questions", "cleanup", "format"} <= set(task.defaults)
    said = tasks.describe(task)
    assert "prompts: 12 (train" in said and "lexicon: none" in said
    assert all(name in said for name in task.defaults)


def test_smallest_task_is_split_by_text_and_without_chance(tmp_path):
    task = tasks.load_task(write_task(tmp_path))
    parts = {split: tasks.load_prompts(task, split) for split in tasks.SPLITS}
    texts = {split: {p.turns[0].text for p in part} for split, part in parts.items()}
    assert all(texts.values()) and set().union(*texts.values()) == set(
        task.prompts.texts
    )
    assert sum(map(len, texts.values())) == 12
    assert parts == {s: tasks.load_prompts(task, s) for s in tasks.SPLITS}
    turned = dataclasses.replace(
        task, prompts=dataclasses.replace(task.prompts, texts=task.prompts.texts[::-1])
    )
    for split, part in parts.items():
        assert set(tasks.load_prompts(turned, split)) == set(part)


def test_load_task_takes_prompts_where_they_are(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "tasks").mkdir()
    (tmp_path / "data" / "p.jsonl").write_text(PROMPT_LINE + "\n")
    start, end = SMALLEST.index("prompts.texts"), SMALLEST.index("[[affixes]]")
    rest = SMALLEST[:start] + "{}\n" + SMALLEST[end:]
    for where in ("../data/p.jsonl", str(tmp_path / "data" / "p.jsonl")):
        path = write_task(tmp_path / "tasks", rest.format(f"prompts.file = '{where}'"))
        assert [p.id for p in tasks.load_prompts(tasks.load_task(path))] == ["a/1"]
    path = write_task(tmp_path, rest.format('hh_config = "helpful-base"'))
    task = tasks.load_task(path)
    assert "prompts of hh-rlhf: helpful-base" in tasks.describe(task)
    with pytest.raises(ValueError, match="config.prompts.source=hh_rlhf"):
        tasks.load_prompts(task, "train")
    with pytest.raises(ValueError, match="no prompts; accepted: 'prompts.file'"):
        tasks.load_task(write_task(tmp_path, rest.format("")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Is it  late?", r"'prompts.texts\[12\]' is 'Is it  late\?', as is .*\[3\]'"),
        (" ", r"'prompts.texts\[12\]' is ' '"),
    ],
)
def test_load_task_repeated_or_blank_text_is_named(tmp_path, text, message):
    path = write_task(
        tmp_path, SMALLEST.replace('"Do cats dream?",', f'"Do cats dream?", "{text}"')
    )
    with pytest.raises(ValueError, match=message):
        tasks.load_task(path)


def test_load_task_reads_a_file_with_a_byte_order_mark(tmp_path):
    path = tmp_path / "polite.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALLEST.replace("\n", "\r\n").encode())
    assert tasks.load_task(path).name == "polite"


def test_a_copy_of_cheerful_is_not_scored_by_sentiment(tmp_path):
    text = task_text("cheerful")
    for old, message in (
        ('name = "cheerful"', "attribute of the task is 'polite'.*language model"),
        ("cheerful", "'lexicon.attribute' is 'polite'; accepted, being what 'vader'"),
    ):
        path = write_task(
            tmp_path, text.replace(old, old.replace("cheerful", "polite"))
        )
        with pytest.raises(ValueError, match=message):
            tasks.load_task(path)
    without = re.sub(r"\[lexicon\]\n(.+\n)+", "", text)
    path = write_task(tmp_path, without.replace('name = "cheerful"', 'name = "polite"'))
    assert tasks.load_task(path).lexicon is None


# The template


def test_template_is_a_task_of_its_own(tmp_path):
    text = PACKAGE.joinpath(tasks.TEMPLATE).read_text(encoding="utf-8")
    path = write_task(
        tmp_path, text.replace('name = "template"', 'name = "mine"'), "mine"
    )
    task = tasks.load_task(path)
    assert "Which of the two replies is more polite?" in task.judge_questions["mine"]
    assert all(tasks.load_prompts(task, split) for split in tasks.SPLITS)
    with pytest.raises(ValueError, match="unknown task 'template'"):
        tasks.load_task("template")


def test_template_shows_every_field_with_its_default():
    text = PACKAGE.joinpath(tasks.TEMPLATE).read_text(encoding="utf-8")
    bare = layout.parse_task(tomllib.loads(text), "t", None)
    made = re.sub(r"# (?=(description|file|system_\w+|instruction) = )", "#", text)
    shown = re.sub(r"^# (?=\w+ = |\[)", "", made, flags=re.MULTILINE)
    shown = re.sub(r"^\[lexicon\]\n(.+\n)+", "", shown, flags=re.MULTILINE)
    shown = re.sub(r"^\[\[(scales|shots)\]\]\n(.+\n)+", "", shown, flags=re.MULTILINE)
    full = layout.parse_task(tomllib.loads(shown), "t", None)
    left = {"judge_questions", "defaults"}
    for field in dataclasses.fields(layout.Task):
        if field.name not in left:
            assert getattr(full, field.name) == getattr(bare, field.name), field.name
    assert list(full.judge_questions.values()) == list(bare.judge_questions.values())
    blocks = [text[text.index(f"# [[{name}]]") :] for name in ("scales", "shots")]
    commented = "\n".join(block.split("\n\n")[0] for block in blocks)
    graded = tomllib.loads(f"{text}\n" + re.sub("^# ?", "", commented, flags=re.M))
    task = layout.parse_task(graded, "t", None)
    (scale,), (shot,) = task.scales, task.shots
    assert shot.better != shot.worse and shot.reason
    assert len(scale.affixes) == len(scale.systems) == 4
    for cls in (
        fields.TaskFile,
        fields.AffixPair,
        fields.ScaleFile,
        fields.Shot,
        fields.PromptSet,
        fields.Lexicon,
    ):
        for field in dataclasses.fields(cls):
            assert re.search(rf"^(# )?\[*{field.name}\b", text, re.MULTILINE), (
                field.name
            )


# The command and the page


def refused_command(words):
    """Run a command line that ends in a message for people."""
    with pytest.raises(SystemExit) as caught:
        task_command.main(words)
    assert caught.value.code == 2


def test_task_command_starts_a_file_and_shows_it(tmp_path, capsys):
    path = tmp_path / "kind.toml"
    task_command.main(["new", str(path)])
    task_command.main(["show", str(path)])
    out = capsys.readouterr().out
    assert "task kind: " in out and "prompts: 12" in out
    assert "judge lexicon: task 'kind' has no [lexicon]" in out
    assert "judge log_odds: the language model" in out
    refused_command(["new", str(path)])
    assert "exists; accepted is the path of a new" in capsys.readouterr().err
    path.write_text(path.read_text().replace("positive =", "postive ="))
    refused_command(["show", str(path)])
    assert capsys.readouterr().err.count("did you mean 'positive'") == 2
    refused_command(["new", str(tmp_path / "kind.txt")])


def test_page_of_own_tasks_shows_a_task_and_every_judge(tmp_path):
    page = (pathlib.Path(task_command.__file__).parent / "docs/own_task.md").read_text()
    (smallest,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    task = tasks.load_task(write_task(tmp_path, smallest))
    assert all(tasks.load_prompts(task, split) for split in tasks.SPLITS)
    assert re.findall(r"^\| `(\w+)` \| (.*?) \|$", page, re.MULTILINE) == [
        (row.name, row.what) for row in judges.JUDGES.values()
    ]


# The official wording


def write_checkout(folder, num_harmless=16):
    script = pathlib.Path(folder) / official.SCRIPT
    script.parent.mkdir(parents=True)
    lines = ["import os", "X = os.getcwd()", "raise SystemExit('never run')"]
    for task, num in (("HARMLESS", num_harmless), ("HELPFUL", 1)):
        for kind in ("POSITIVE_AFFIXES", "NEGATIVE_AFFIXES", "SOME_INSTRUCTIONS"):
            texts = [f"({task} {kind} {i})" for i in range(num)]
            lines.append(f"{task}_{kind} = {texts!r}")
    lines += [
        "def ask(entry, label_prompts, instruction):",
        "    label_prompts.append('Their opening:\\n\\n\\n\\n' + entry + '\\n' + instruction)",
    ]
    script.write_text("\n".join(lines))
    (script.parent / pathlib.Path(official.JUDGE).name).write_text(JUDGE)
    return folder


JUDGE = """
def call(text):
    return [{'role': 'system', 'content': 'Their system message.'},
            {'role': 'user', 'content': text}]

def form(instruction, one, two, task):
    prompt = 'Their introduction:\\n\\n\\n\\n' + instruction.strip()
    if task == 'harmless':
        one = 'Assistant: ' + one
        prompt += '\\n\\n\\n\\nTheir lead:\\n\\n(A) ' + one + '\\n\\n(B) ' + two
        prompt += '\\n\\n\\n\\nWhich is better?'
    elif task == 'harmless_helpful':
        prompt += '\\n\\n\\n\\nTheir lead:\\n\\n(A) ' + one + '\\n\\n(B) ' + two
        prompt += '\\n\\n\\n\\nWhich helps?'
    elif task == 'helpful':
        prompt += '\\n\\n\\n\\nTheir lead:\\n\\n(A) ' + one + '\\n\\n(B) ' + two
        prompt += '\\n\\n\\n\\nWhich helps most?'
    return prompt
"""


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


def test_load_task_official_replaces_what_scorer_and_judge_are_told(tmp_path):
    task = tasks.load_task("harmless", official=write_checkout(tmp_path))
    text = scoring_prompt.scoring_prompt("x", "a", "b", "i", task.scoring_opening)
    assert text.startswith("Their opening:\n\n\n\nx\n\n\n\ni\n\n\n\nOptions:")
    assert task.judge_questions == {
        "harmless": "Which is better?",
        "harmless_helpful": "Which helps?",
    }
    wording = task.judge_wording
    assert wording == tasks.JudgeWording(
        "Their system message.", "Their introduction:", "Their lead:"
    )
    prompt = "Human: hi\n\nAssistant:"
    asked = api_judge.comparison_prompt(prompt, "a", "b", "Which?", wording)
    assert asked == (
        "Their introduction:\n\n\n\nHuman: hi\n\n\n\nTheir lead:\n\n"
        "(A) Assistant: a\n\n(B) Assistant: b\n\n\n\nWhich?"
    )
    assert official.JUDGE in task.source["judge_questions"]
    own = tasks.load_task("harmless")
    assert own.judge_wording == tasks.JudgeWording()
    assert api_judge.comparison_prompt(prompt, "a", "b", "Q", own.judge_wording) == (
        api_judge.comparison_prompt(prompt, "a", "b", "Q")
    )


@pytest.mark.parametrize(
    ("file", "gone", "named"),
    [
        (official.SCRIPT, "label_prompts.append", "opening line of the scoring prompt"),
        (official.JUDGE, "'role': 'system'", "system message of the judge"),
        (official.JUDGE, "prompt = ", "introduction of the judge's prompt"),
        (official.JUDGE, "task ==", "question of the judge about 'harmless'"),
        (official.JUDGE, "Their lead:", "one lead of the replies to 'harmless'"),
    ],
)
def test_load_task_official_names_the_text_that_is_missing(tmp_path, file, gone, named):
    path = write_checkout(tmp_path) / file
    if gone == "task ==":
        path.write_text(JUDGE.replace("task ==", "kind =="))
    elif gone == "prompt = ":
        path.write_text(JUDGE.replace("prompt = ", "text = "))
    elif gone == "'role': 'system'":
        path.write_text(JUDGE.replace("'system'", "'user'"))
    elif gone == "Their lead:":
        path.write_text(JUDGE.replace("Their lead:", "", 1))
    else:
        text = write_checkout(tmp_path / "again") / official.SCRIPT
        path.write_text(text.read_text().replace("label_prompts.append", "print"))
    with pytest.raises(ValueError, match=f"{re.escape(file)}' has no {named}"):
        tasks.load_task("harmless", official=tmp_path)


def test_load_task_official_needs_the_script_of_the_judge(tmp_path):
    (write_checkout(tmp_path) / official.JUDGE).unlink()
    with pytest.raises(ValueError, match="no file .*gpt4_compare.py"):
        tasks.load_task("harmless", official=tmp_path)


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
    script = write_checkout(tmp_path) / official.SCRIPT
    script.write_text(
        "HELPFUL_POSITIVE: list = ['a', 'b']\n"
        "HELPFUL_NEGATIVE = ('c',)\n"
        "HELPFUL_INSTRUCTION = ['d']\n"
    )
    with pytest.raises(ValueError, match="uneven: 2 positive, 1 negative, 1 instr"):
        official.read_wording(tmp_path, "helpful")
    for data in (b"def", b"x = '\xff'", b"x = '\x00'", b"(" * 10_000):
        script.write_bytes(data)
        with pytest.raises(ValueError, match="not a Python file"):
            official.read_wording(tmp_path, "helpful")
