"""Tasks are data: loading task files and the prompts that ship with them.

`load_task("cheerful")` reads a task of this package, `load_task("my/task.toml")` one
of the user's. `load_prompts(task, "train")` reads its prompts.

Splits: a prompt belongs to train, dev or test by a hash of its id alone
(`split_of`), so that added or removed prompts never move the others.
"""

import dataclasses
import hashlib
import pathlib
import tomllib
from collections.abc import Iterable
from importlib import resources
from typing import Any

from rlcd_jax import jsonl, records
from rlcd_jax.tasks import layout
from rlcd_jax.tasks import official as official_wording
from rlcd_jax.tasks.layout import SPLITS, CleanupRules, PromptSet, Task

__all__ = [
    "NAMES",
    "SPLITS",
    "CleanupRules",
    "PromptSet",
    "Task",
    "load_prompts",
    "load_task",
    "parse_prompts",
    "split_of",
    "with_format",
]

NAMES = ("harmless", "helpful", "outline", "cheerful")

_PROMPT_FIELDS = ("id", "turns")
_TURN_FIELDS = ("role", "text")
_ROLES = ("human", "assistant")


def load_task(
    name_or_path: str | pathlib.Path,
    official: str | pathlib.Path | None = None,
) -> Task:
    """Load a task of this package by name, or a task file by its path.

    Args:
        name_or_path: one of `NAMES`, or a path that ends in ".toml".
        official: folder of a checkout of the code released with the paper. Its affix
            pairs and scoring instructions then replace those of the task file.

    Returns:
        The task.

    Raises:
        ValueError: for an unknown name, a file that is not a task, or a checkout
            without the wording of this task.
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        path = pathlib.Path(name)
        if not path.is_file():
            raise ValueError(
                f"no task file at '{name}'; give the path of a .toml file or one of "
                f"the names {', '.join(NAMES)}."
            )
        folder, text = str(path.parent), path.read_text(encoding="utf-8")
        where, stem = name, path.stem
    elif name in NAMES:
        where, stem, folder = f"{name}.toml", name, None
        text = resources.files(__name__).joinpath(where).read_text(encoding="utf-8")
    else:
        raise ValueError(
            f"unknown task '{name}'; accepted are {', '.join(NAMES)}, or the path of "
            "a task file that ends in .toml."
        )
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{where}: not a TOML file: {error}. Correct it.") from error
    task = layout.parse_task(table, where, folder)
    if task.name != stem:
        raise ValueError(
            f"{where}: field 'name' is '{task.name}'; accepted is the name of the "
            f"file, '{stem}'. Rename one of the two."
        )
    return task if official is None else with_official(task, official)


def with_format(task: Task, format: str) -> Task:
    """Return the same task in another conversation format.

    The chat format has no stop strings, because the end-of-turn token of the model
    ends a reply; the dialogue format stops at the next human turn.

    Args:
        task: a task.
        format: "dialogue" or "chat".

    Returns:
        The task with `format` and `stop_strings` replaced.
    """
    if format not in layout.FORMATS:
        raise ValueError(
            f"unknown format '{format}'; accepted are {', '.join(layout.FORMATS)}."
        )
    if format == task.format:
        return task
    stop_strings = () if format == "chat" else (task.human_marker,)
    return dataclasses.replace(task, format=format, stop_strings=stop_strings)


def with_official(task: Task, checkout: str | pathlib.Path) -> Task:
    """Return the task with the affixes and instructions of the released code.

    Args:
        task: a task.
        checkout: folder of a checkout of the released code, named by the user.

    Returns:
        The task with `affixes`, `scoring_instructions` and their `source` replaced.
    """
    wording = official_wording.read_wording(checkout, task.name)
    if len(wording.affixes) != len(task.affixes):
        raise ValueError(
            f"{wording.file}: {len(wording.affixes)} affix pairs for task "
            f"'{task.name}', which has {len(task.affixes)}; the system messages of "
            "the task are aligned with them. Name a checkout of the release."
        )
    origin = f"the released code, read from {wording.file}"
    return dataclasses.replace(
        task,
        affixes=wording.affixes,
        scoring_instructions=wording.instructions,
        source={**task.source, "affixes": origin, "scoring": origin},
    )


def split_of(prompt_id: str, prompts: PromptSet) -> str:
    """Return the split of a prompt, from its id alone.

    The first 8 bytes of blake2b(id) are a number u in [0, 1); the split is train for
    u < train, dev for u < train + dev, else test.

    Args:
        prompt_id: the id of the prompt.
        prompts: the shares of the splits.

    Returns:
        "train", "dev" or "test".
    """
    digest = hashlib.blake2b(prompt_id.encode("utf-8"), digest_size=8).digest()
    draw = int.from_bytes(digest, "big") / 2.0**64
    if draw < prompts.train:
        return "train"
    return "dev" if draw < prompts.train + prompts.dev else "test"


def load_prompts(
    task: Task,
    split: str | None = None,
    path: str | pathlib.Path | None = None,
) -> tuple[records.Prompt, ...]:
    """Load the prompts of a task.

    Args:
        task: a task.
        split: "train", "dev" or "test"; None for all.
        path: a JSONL file of the user's to read in place of the task's own. Each line
            is {"id": ..., "turns": [{"role": "human", "text": ...}, ...]}.

    Returns:
        The prompts in the order of the file.

    Raises:
        ValueError: naming the file, the line and the field that is wrong.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(
            f"unknown split '{split}'; accepted are {', '.join(SPLITS)}, or None."
        )
    if path is None and task.folder is None:
        source = resources.files(__name__).joinpath(task.prompts.file)
    elif path is None:
        source = pathlib.Path(task.folder) / task.prompts.file
    else:
        source = pathlib.Path(path)
    if not source.is_file():
        raise ValueError(
            f"no prompt file at '{source}'; a prompt file is a JSONL file with the "
            "fields id and turns. Name one that exists."
        )
    data = source.read_bytes().rstrip()
    lines = jsonl.split_lines(data) if data else []
    prompts = parse_prompts(lines, str(path or task.prompts.file))
    if split is None:
        return prompts
    return tuple(p for p in prompts if split_of(p.id, task.prompts) == split)


def parse_prompts(
    lines: Iterable[str | bytes], where: str
) -> tuple[records.Prompt, ...]:
    """Check the lines of a prompt file and make prompts of them.

    Args:
        lines: the lines, each one JSON object.
        where: name of the file, for the errors.

    Returns:
        The prompts, at least one.
    """
    prompts, first_seen = [], {}
    for number, line in enumerate(lines, start=1):
        here = f"{where}, line {number}"
        try:
            row = jsonl.parse(line, here)
        except ValueError as error:
            raise ValueError(
                f"{error}; accepted is one object with the fields id and turns. "
                "Correct or remove the line."
            ) from error
        prompt = _parse_prompt(row, here)
        if prompt.id in first_seen:
            raise ValueError(
                f"{here}: field 'id' is '{prompt.id}', which line "
                f"{first_seen[prompt.id]} has too; ids are unique. Rename one."
            )
        first_seen[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise ValueError(f"{where}: no prompts; accepted is at least one line.")
    return tuple(prompts)


def _parse_prompt(row: Any, here: str) -> records.Prompt:
    _check_object(row, _PROMPT_FIELDS, here, "")
    _check_text(row["id"], here, "id")
    turns = row["turns"]
    if not isinstance(turns, list) or not turns:
        raise ValueError(
            f"{here}: field 'turns' is {turns!r}; accepted is a non-empty list."
        )
    for index, turn in enumerate(turns):
        field = f"turns[{index}]"
        _check_object(turn, _TURN_FIELDS, here, field + ".")
        _check_text(turn["text"], here, field + ".text")
        # Turns alternate and the last one is human, so the roles follow from the end.
        role = _ROLES[(len(turns) - 1 - index) % 2]
        if turn["role"] != role:
            raise ValueError(
                f"{here}: field '{field}.role' is {turn['role']!r}; accepted is "
                f"'{role}', because turns alternate and the last one is human."
            )
    return records.Prompt(
        id=row["id"],
        turns=tuple(records.Turn(role=t["role"], text=t["text"]) for t in turns),
    )


def _check_object(row: Any, fields: tuple[str, ...], here: str, prefix: str) -> None:
    names = ", ".join(fields)
    if not isinstance(row, dict):
        raise ValueError(
            f"{here}: '{prefix.rstrip('.') or 'the line'}' is {row!r}; accepted is an "
            f"object with the fields {names}."
        )
    for field in fields:
        if field not in row:
            raise ValueError(
                f"{here}: missing field '{prefix}{field}'; required are {names}."
            )
    for field in row:
        if field not in fields:
            raise ValueError(
                f"{here}: unknown field '{prefix}{field}'; accepted are {names}."
            )


def _check_text(value: Any, here: str, field: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{here}: field '{field}' is {value!r}; accepted is a string that is not "
            "empty or blank."
        )
