"""The fields of a config as `--help` lists them, one line each.

What a field accepts is in the one table that the checks ask, `rlcd_jax.checks.fields`;
the rest of a line is the comment that stands beside the field in its config file.
"""

from __future__ import annotations

import io
import os
import pathlib
import tokenize
from collections.abc import Collection
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import dotted
from rlcd_jax.checks import fields, kinds

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
TUPLE = "a tuple"


def of_runs(file: str | os.PathLike[str]) -> str:
    """Return the fields of a run: what each accepts, and its comment.

    Args:
      file: which sets all of them, with the comments.
    """
    told = comments(file)
    lines = [
        _line(f"--config.{name}", _accepted(field), told.get(name, ""))
        for name, field in fields.FIELDS.items()
    ]
    return "\n".join(
        [
            'Fields of the config, each set by --config.field=value; "method" beside '
            "one: its value in size=paper is the paper's",
            *lines,
        ]
    )


def of_tables(
    config: ConfigDict,
    file: str | os.PathLike[str],
    *,
    run_file: str | os.PathLike[str],
    arguments: Collection[str],
    set_by_tables: Collection[str],
) -> str:
    """Return the fields of the paper's tables, and those of each of their runs.

    Args:
      config: of the tables; its section `run` has the fields of their runs.
      file: that sets its fields, with the comments.
      run_file: the same for the fields of a run.
      arguments: fields that are set by the config's argument.
      set_by_tables: fields of a run that are not for the user to set.
    """
    of_run = comments(run_file)
    told = of_run | comments(file)  # some sections are those of a run
    values = dotted.flatten(config.to_dict())
    lines = [
        _line(f"--config.{name}", _kind(name, value, arguments), told.get(name, ""))
        for name, value in values.items()
        if not name.startswith("run.")
    ]
    inner = {name.removeprefix("run.") for name in values if name.startswith("run.")}
    runs = [
        _line(f"--config.run.{name}", _accepted(field), of_run.get(name, ""))
        for name, field in fields.FIELDS.items()
        if name in inner and name not in set_by_tables
    ]
    return "\n".join(
        [
            "Fields of the config, each set by --config.field=value; values are those "
            "of scale=smollm2-135m:",
            *lines,
            "",
            "Fields of every run; one that is not set keeps the run's own value:",
            *runs,
        ]
    )


def comments(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the comments of a config file by the fields that they stand beside.

    A field is set in a statement `config.NAME = …`, `config.SECTION.NAME = …` or
    `SECTION.NAME = …`; its comment ends that line, or fills the lines above it.

    Args:
      path: of the Python file.

    Returns:
      From dotted names to comments; the first statement of a field counts.
    """
    source = pathlib.Path(path).read_text("utf-8")
    told: dict[str, str] = {}
    above: list[str] = []
    words: list[str] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if words:  # it ends a line of the statement
                above = [text]
            else:
                above.append(text)
        elif token.type == tokenize.NEWLINE:
            name = "".join(words).partition("=")[0].removeprefix("config.")
            if above and "=" in words:
                told.setdefault(name, " ".join(above))
            above, words = [], []
        elif token.type == tokenize.NL and not token.line.strip():
            above = []
        elif token.string.strip():
            words.append(token.string)
    return told


def _accepted(field: kinds.Field) -> str:
    """Return what a field accepts, or what sets it together with others."""
    words = kinds.accepted(field)
    if field.argument == "config file":
        return f"set by the config file ({field.what})"
    if field.argument:
        return f"{words}; set by the config's argument, {field.argument}=…"
    return words


def _kind(name: str, value: Any, arguments: Collection[str]) -> str:
    """Return the type of a field of the tables, and its value."""
    if name in arguments:
        return f"set by the config's argument, {name}=…"
    if value is None:
        return "a number; not set"
    return f"{KINDS.get(type(value), TUPLE)}; {value!r}"


def _line(flag: str, accepted: str, comment: str) -> str:
    return f"  {flag}  {accepted}" + (f"  # {comment}" if comment else "")
