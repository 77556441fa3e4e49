"""What a task file holds, and the check that it holds exactly that.

A task is one TOML file. Every field is required and no other field is accepted, so
that a misspelt name is an error and never a silent default. One index serves the
affix pairs, the system-message pairs and the scoring instructions, so the three lists
have the same length.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

FORMATS = ("dialogue", "chat")
CLEANUP_MODES = ("corrected", "released")
UNFINISHED = ("reject", "cut_sentence", "keep")
JUDGES = ("preference", "log_odds", "lexicon")
TEXT_GROUPS = ("affixes", "systems", "scoring", "judge_questions", "prompts")
SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class CleanupRules:
    """How a raw reply becomes a reply, or is rejected.

    Attributes:
        mode: "corrected" (role markers count only at the start of a line, a reply
            that ended by itself is accepted) or "released" (the rule of the code
            published with the paper, kept for comparison).
        role_names: names that open a turn, human first, without the colon.
        unfinished: what becomes of a reply that hit the token limit: "reject" (as in
            the paper), "cut_sentence" (kept up to its last whole sentence) or "keep".
        min_characters: a shorter reply is rejected as empty.
    """

    mode: str
    role_names: tuple[str, str]
    unfinished: str
    min_characters: int


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """The prompts that ship with a task, and how they are split.

    Attributes:
        file: JSONL file, relative to the folder of the task file.
        train: share of the ids that belong to training, in [0, 1].
        dev: share used for choices between runs.
        test: share used for the final table; the three add up to 1.
    """

    file: str
    train: float
    dev: float
    test: float


@dataclasses.dataclass(frozen=True)
class Task:
    """One attribute to train for: every text and number that defines it.

    Attributes:
        name: the name of the task, equal to the name of its file.
        description: one or two sentences for a reader.
        format: "dialogue" (role markers, affix in the last header) or "chat" (the
            chat template of the tokenizer, contrast in the system message).
        human_marker: text that opens a human turn in the dialogue format.
        assistant_marker: text that opens an assistant turn in the dialogue format.
        prompt_template: what the last human turn becomes; holds "{text}" once.
        lead_in: text after the last assistant marker that the reply continues.
        affixes: (positive, negative) pairs, without parentheses.
        systems: (positive, negative) system messages, aligned with `affixes`.
        scoring_instructions: questions for scored labels, aligned with `affixes`.
        judge_questions: question by name, for the judges of the final table.
        judges: judges that apply to the task, in the order of the table.
        stop_strings: texts that end a reply; none in the chat format.
        forbidden_strings: texts that are never sampled.
        cleanup: how raw replies are cleaned.
        prompt_tokens: longest prompt, in tokens.
        reply_tokens: longest reply, in tokens.
        hh_config: the hh-rlhf subset with prompts for the task, or None.
        prompts: the prompts that ship with the task.
        source: for each text group, where its wording is from.
        folder: the folder of the task file, or None for a task of this package.
    """

    name: str
    description: str
    format: str
    human_marker: str
    assistant_marker: str
    prompt_template: str
    lead_in: str
    affixes: tuple[tuple[str, str], ...]
    systems: tuple[tuple[str, str], ...]
    scoring_instructions: tuple[str, ...]
    judge_questions: dict[str, str] = dataclasses.field(hash=False)
    judges: tuple[str, ...]
    stop_strings: tuple[str, ...]
    forbidden_strings: tuple[str, ...]
    cleanup: CleanupRules
    prompt_tokens: int
    reply_tokens: int
    hh_config: str | None
    prompts: PromptSet
    source: dict[str, str] = dataclasses.field(hash=False)
    folder: str | None


# The layout of a task file. A dict is a table; "strings" is a non-empty list of
# non-empty strings, "strings?" may be empty, "text?" may be the empty string.
LAYOUT: dict[str, Any] = {
    "name": "text",
    "description": "text",
    "format": FORMATS,
    "human_marker": "text",
    "assistant_marker": "text",
    "prompt_template": "text",
    "lead_in": "text?",
    "stop_strings": "strings?",
    "forbidden_strings": "strings?",
    "prompt_tokens": "count",
    "reply_tokens": "count",
    "hh_config": "text?",
    "judges": "strings",
    "affixes": {"source": "text", "positive": "strings", "negative": "strings"},
    "systems": {"source": "text", "positive": "strings", "negative": "strings"},
    "scoring": {"source": "text", "instructions": "strings"},
    "judge_questions": "questions",
    "cleanup": {
        "mode": CLEANUP_MODES,
        "role_names": "strings",
        "unfinished": UNFINISHED,
        "min_characters": "count",
    },
    "prompts": {
        "source": "text",
        "file": "text",
        "train": "share",
        "dev": "share",
        "test": "share",
    },
}


def parse_task(table: Mapping[str, Any], where: str, folder: str | None) -> Task:
    """Check a parsed task file and make the task of it.

    Args:
        table: what `tomllib` read.
        where: name of the file, for the errors.
        folder: folder of the file, or None for a task of this package.

    Returns:
        The task.

    Raises:
        ValueError: naming the file, the field, the value and what is accepted.
    """
    check_table(table, LAYOUT, where, "")
    check_rules(table, where)
    cleanup, prompts = table["cleanup"], table["prompts"]
    questions = dict(table["judge_questions"])
    source = {group: table[group]["source"] for group in TEXT_GROUPS}
    del questions["source"]
    return Task(
        name=table["name"],
        description=table["description"],
        format=table["format"],
        human_marker=table["human_marker"],
        assistant_marker=table["assistant_marker"],
        prompt_template=table["prompt_template"],
        lead_in=table["lead_in"],
        affixes=_pairs(table["affixes"]),
        systems=_pairs(table["systems"]),
        scoring_instructions=tuple(table["scoring"]["instructions"]),
        judge_questions=questions,
        judges=tuple(table["judges"]),
        stop_strings=tuple(table["stop_strings"]),
        forbidden_strings=tuple(table["forbidden_strings"]),
        cleanup=CleanupRules(
            mode=cleanup["mode"],
            role_names=tuple(cleanup["role_names"]),
            unfinished=cleanup["unfinished"],
            min_characters=cleanup["min_characters"],
        ),
        prompt_tokens=table["prompt_tokens"],
        reply_tokens=table["reply_tokens"],
        hh_config=table["hh_config"] or None,
        prompts=PromptSet(
            file=prompts["file"],
            train=float(prompts["train"]),
            dev=float(prompts["dev"]),
            test=float(prompts["test"]),
        ),
        source=source,
        folder=folder,
    )


def check_table(
    table: Mapping[str, Any], layout: Mapping[str, Any], where: str, prefix: str
) -> None:
    """Raise ValueError when a table is not exactly what its layout says."""
    for field in table:
        if field not in layout:
            raise ValueError(
                f"{where}: unknown field '{prefix}{field}'; accepted fields are "
                f"{_listed(prefix + name for name in layout)}. Remove or rename it."
            )
    for field, kind in layout.items():
        name = prefix + field
        if field not in table:
            raise ValueError(
                f"{where}: missing field '{name}'; every field is required. "
                f"Add it ({_wanted(kind)})."
            )
        if isinstance(kind, Mapping):
            if not isinstance(table[field], Mapping):
                _refuse(where, name, table[field], kind)
            check_table(table[field], kind, where, name + ".")
        elif not _fits(table[field], kind):
            _refuse(where, name, table[field], kind)


def check_rules(table: Mapping[str, Any], where: str) -> None:
    """Raise ValueError when fields that are each well formed do not fit together."""
    num_pairs = len(table["affixes"]["positive"])
    lists = {
        "affixes.negative": table["affixes"]["negative"],
        "systems.positive": table["systems"]["positive"],
        "systems.negative": table["systems"]["negative"],
        "scoring.instructions": table["scoring"]["instructions"],
    }
    for field, values in lists.items():
        if len(values) != num_pairs:
            raise ValueError(
                f"{where}: uneven lists: '{field}' has {len(values)} entries and "
                f"'affixes.positive' has {num_pairs}; one index serves both. "
                "Give them the same length."
            )
    if len(table["cleanup"]["role_names"]) != 2:
        _refuse(where, "cleanup.role_names", table["cleanup"]["role_names"], "two")
    if table["prompt_template"].count("{text}") != 1:
        _refuse(where, "prompt_template", table["prompt_template"], "template")
    if table["format"] == "chat" and table["stop_strings"]:
        _refuse(where, "stop_strings", table["stop_strings"], "none in chat")
    for judge in table["judges"]:
        if judge not in JUDGES:
            _refuse(where, "judges", judge, JUDGES)
    shares = [table["prompts"][split] for split in SPLITS]
    if abs(sum(shares) - 1.0) > 1e-9:
        _refuse(where, "prompts.train/dev/test", shares, "shares that add up to 1")


def _pairs(table: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(zip(table["positive"], table["negative"], strict=True))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(value: Any, kind: Any) -> bool:
    if isinstance(kind, tuple):
        return value in kind
    if kind == "text":
        return _is_text(value)
    if kind == "text?":
        return isinstance(value, str)
    if kind in ("strings", "strings?"):
        if not isinstance(value, list) or not all(map(_is_text, value)):
            return False
        return bool(value) or kind == "strings?"
    if kind == "count":
        return _is_number(value) and isinstance(value, int) and value > 0
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "share":
        return _is_number(value) and 0.0 <= value <= 1.0
    if kind == "questions":
        return (
            isinstance(value, Mapping)
            and "source" in value
            and len(value) > 1
            and all(map(_is_text, value.values()))
        )
    raise AssertionError(f"layout kind {kind!r}")


def _wanted(kind: Any) -> str:
    if isinstance(kind, Mapping):
        return f"a table with the fields {_listed(kind)}"
    if isinstance(kind, tuple):
        return f"one of {_listed(kind)}"
    words = {
        "text": "a non-empty string",
        "text?": "a string, may be empty",
        "strings": "a non-empty list of non-empty strings",
        "strings?": "a list of non-empty strings, may be empty",
        "count": "an integer above 0",
        "flag": "true or false",
        "share": "a number from 0 to 1",
        "questions": "a table with 'source' and at least one question, all strings",
        "two": "two names, human first",
        "template": "a string that holds '{text}' exactly once",
        "none in chat": "an empty list when format is 'chat'",
    }
    return words.get(kind, kind)


def _listed(names: Any) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _refuse(where: str, field: str, value: Any, kind: Any) -> None:
    raise ValueError(
        f"{where}: field '{field}' is {value!r} ({type(value).__name__}); "
        f"accepted is {_wanted(kind)}."
    )
