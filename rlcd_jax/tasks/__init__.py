"""Tasks are data: loading task files and the prompts that belong to them.

`load_task("cheerful")` reads a task of this package, `load_task("my/task.toml")` one
of the user's. `load_prompts(task, "train")` reads its prompts. `template.toml` beside
this file shows every field of a task file with its default.
"""

import dataclasses
import functools
import json
import pathlib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from rlcd_jax.tasks import fields, layout
from rlcd_jax.tasks import official as official_wording
from rlcd_jax.tasks.layout import (
    SPLITS,
    CleanupRules,
    JudgeWording,
    PromptSet,
    Task,
)
from rlcd_jax.tasks.prompt_sets import (
    load_prompts,
    parse_prompts,
    part_of,
    split_of,
    split_prompts,
)

__all__ = [
    "NAMES",
    "SPLITS",
    "TEMPLATE",
    "CleanupRules",
    "JudgeWording",
    "PromptSet",
    "Task",
    "describe",
    "load_prompts",
    "load_task",
    "parse_prompts",
    "part_of",
    "split_of",
    "split_prompts",
    "with_format",
    "write_template",
]

NAMES = ("harmless", "helpful", "outline", "cheerful")
TEMPLATE = "template.toml"  # of this package; no task, a form to fill in
_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def load_task(
    name_or_path: str | pathlib.Path,
    official: str | pathlib.Path | None = None,
    strengths: Sequence[str] = (fields.MIDDLE,),
) -> Task:
    """Load a task of this package by name, or a task file by its path.

    Args:
      name_or_path: one of `NAMES`, or a path that ends in ".toml".
      official: folder of a checkout of the code released with the paper. Its affix
        pairs and scoring instructions then replace those of the task file.
      strengths: of the affix pairs that the task shall have; those of the release are
        all "middle".

    Returns:
      The task.

    Raises:
      ValueError: for an unknown name, a file that is not a task (with a line for
        each thing that is wrong with it), or a checkout without the wording of
        this task.
    """
    name = str(name_or_path)
    if name.endswith(".toml"):
        path = pathlib.Path(name)
        if not path.is_file():
            raise ValueError(
                f"no task file at '{name}'; give the path of a .toml file or one of "
                f"the names {', '.join(NAMES)}."
            )
        folder, where, stem = str(path.parent), name, path.stem
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ValueError(f"{where}: cannot be read ({error}).") from error
    elif name in NAMES:
        where, stem, folder = f"{name}.toml", name, None
        data = resources.files(__name__).joinpath(where).read_bytes()
    else:
        raise ValueError(
            f"unknown task {name!a}; accepted are {', '.join(NAMES)}, or the path of "
            "a task file that ends in .toml."
        )
    strengths, wrong = tuple(strengths), []
    try:
        task = _parse(data, where, folder, stem, strengths)
    except ValueError as error:
        wrong.append(str(error))
    if official is not None and strengths != (fields.MIDDLE,):
        wrong.append(
            f"{where}: affix pairs of strength {', '.join(strengths)} are asked for, "
            "and the official wording has one strength alone; accepted with it: "
            f"{fields.MIDDLE}."
        )
    if wrong:
        raise ValueError("\n".join(wrong))
    return task if official is None else with_official(task, official)


@functools.lru_cache(maxsize=16)
def _parse(
    data: bytes, where: str, folder: str | None, stem: str, strengths: tuple[str, ...]
) -> Task:
    """Return the task of a file's bytes; each stage, and each run of a table, asks."""
    table = _parse_toml(data, where)
    wrong = []
    try:
        task = layout.parse_task(table, where, folder, strengths)
    except ValueError as error:
        wrong.append(str(error))
    named = table.get("name")
    if isinstance(named, str) and named.strip() and named != stem:
        wrong.append(
            f"{where}: field 'name' is '{named}'; accepted is the name of the file, "
            f"'{stem}'. Rename one of the two."
        )
    if wrong:
        raise ValueError("\n".join(wrong))
    return task


def _parse_toml(data: bytes, where: str) -> Mapping[str, Any]:
    """Return what the bytes of a TOML file say."""
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        seems = _MARKS.get(data[:2], "")
        raise ValueError(
            f"{where}, line {line}: not UTF-8{seems and f' but {seems}'} "
            f"({error.reason}). Save the file as UTF-8."
        ) from error
    except RecursionError as error:
        raise ValueError(
            f"{where}: not a TOML file of this kind: lists or tables are nested too "
            "deeply to read. Correct it."
        ) from error
    except ValueError as error:  # of TOML, and numbers too long for Python
        raise ValueError(f"{where}: not a TOML file: {error}. Correct it.") from error


def write_template(path: pathlib.Path) -> pathlib.Path:
    """Write the form of a task file, with the name of the file as the task's.

    Args:
      path: a new file that ends in ".toml".

    Returns:
      The path.

    Raises:
      ValueError: the path has another ending, or there is something already.
    """
    if path.suffix != ".toml" or path.exists():
        raise ValueError(
            f"'{path}' {'exists' if path.exists() else 'does not end in .toml'}; "
            "accepted is the path of a new .toml file."
        )
    form = resources.files(__name__).joinpath(TEMPLATE).read_text(encoding="utf-8")
    text = form.replace('name = "template"', f"name = {json.dumps(path.stem)}")
    path.write_text(text.replace("YOURNAME", path.stem), encoding="utf-8")
    return path


def describe(task: Task) -> str:
    """Return what a task is, for a reader: its texts, its prompts, its defaults.

    Args:
      task: a task.

    Returns:
      Lines of text.

    Raises:
      ValueError: its prompts cannot be read.
    """
    lines = [f"task {task.name}: {task.description}"]
    positive, negative = task.affixes[0]
    lines.append(f"affix pairs: {len(task.affixes)}, first ({positive}) / ({negative})")
    lines.append(f"strengths of affix pairs: {', '.join(task.strengths)}")
    asked, shots = len(task.all_instructions), len(task.shots)
    lines.append(f"questions for scored labels: {asked}, solved examples: {shots}")
    for scale in task.scales:
        ends = f"({scale.affixes[0]}) to ({scale.affixes[-1]})"
        grades = ", ".join(f"{grade:g}" for grade in scale.grades)
        lines.append(f"scale of grades {grades}: {ends}")
    if task.prompts.file or task.prompts.texts:
        parts = {split: len(load_prompts(task, split)) for split in SPLITS}
        counts = ", ".join(f"{split} {count}" for split, count in parts.items())
        lines.append(f"prompts: {sum(parts.values())} ({counts})")
    if task.hh_config:
        lines.append(f"prompts of hh-rlhf: {task.hh_config}")
    for name, question in task.judge_questions.items():
        lines.append(f"judge question {name}: {question}")
    lexicon = task.lexicon
    measured = f"{lexicon.name} for {lexicon.attribute!r}" if lexicon else "none"
    lines.append(f"lexicon: {measured}")
    lines.append(f"left to defaults: {', '.join(task.defaults) or 'nothing'}")
    return "\n".join(lines)


def with_format(task: Task, format: str) -> Task:
    """Return the same task in another conversation format.

    The chat format has no stop strings, because the end-of-turn token of the model
    ends a reply; the dialogue format stops at the next human turn.

    Args:
      task: a task.
      format: "dialogue" or "chat".

    Returns:
      The task with `format` and `stop_strings` replaced.

    Raises:
      ValueError: there is no such format.
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
    """Return the task with the wording of the released code: prompts, scoring, judge.

    Args:
      task: a task.
      checkout: folder of a checkout of the released code, named by the user.

    Returns:
      The task with `affixes`, `scoring_instructions`, `scoring_opening`,
      `judge_questions`, `judge_wording` and their `source` replaced, and without
      `more_instructions` and `shots`, of which the release has none.

    Raises:
      ValueError: a file or a text is missing, or the official wording has another
        number of affix pairs.
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
        scoring_opening=wording.opening,
        judge_questions=wording.questions,
        judge_wording=wording.judge,
        more_instructions=(),
        shots=(),
        source={
            **task.source,
            "affixes": origin,
            "scoring": origin,
            "judge_questions": f"the released code, {official_wording.JUDGE}",
        },
    )
