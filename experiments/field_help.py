"""The fields of a config as `--help` lists them, one line each.

What a field accepts is in the one table that the checks ask, `rlcd_jax.checks.fields`;
the rest of a line is the comment that stands beside the field in its config file.
"""

from __future__ import annotations

import io
import pathlib
import tokenize
from typing import Any

from ml_collections import ConfigDict

from configs import common, paper
from rlcd_jax.checks import fields, kinds

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "a text"}
TUPLE = "a tuple"


def of_runs() -> str:
    """Return the fields of a run: what each accepts, and its comment."""
    told = comments(common.__file__)
    lines = [
        _line(f"--config.{name}", _accepted(field), told.get(name, ""))
        for name, field in fields.FIELDS.items()
    ]
    return "\n".join(
        ["Fields of the config, each set by --config.field=value:", *lines]
    )


def of_tables() -> str:
    """Return the fields of the paper's tables, and those of each of their runs."""
    config, told = paper.get_config(), comments(paper.__file__)
    lines = [
        _line(f"--config.{name}", _kind(name, value), told.get(name, ""))
        for name, value in flatten(config)
        if not name.startswith("run.")
    ]
    of_run = comments(common.__file__)
    inner = {name.removeprefix("run.") for name, _ in flatten(config)}
    runs = [
        _line(f"--config.run.{name}", _accepted(field), of_run.get(name, ""))
        for name, field in fields.FIELDS.items()
        if name in inner and name not in paper.SET_BY_TABLES
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


def comments(path: str | pathlib.Path) -> dict[str, str]:
    """Return the comments of a config file by the fields that they stand beside.

    A field is set in a statement `config.NAME = …`, `config.SECTION.NAME = …` or
    `SECTION.NAME = …`; its comment ends that line, or fills the lines above it.

    Args:
      path: of the Python file.

    Returns:
      From dotted names to comments; the first statement of a field counts.
    """
    source = pathlib.Path(path).read_text("utf-8")
    found: dict[str, str] = {}
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
                found.setdefault(name, " ".join(above))
            above, words = [], []
        elif token.type == tokenize.NL and not token.line.strip():
            above = []
        elif token.string.strip():
            words.append(token.string)
    return found


def _accepted(field: kinds.Field) -> str:
    """Return what a field accepts, or what sets it together with others."""
    words = kinds.accepted(field)
    if field.argument == "config file":
        return f"set by the config file ({field.what})"
    if field.argument:
        return f"{words}; set by the config's argument, {field.argument}=…"
    return words


def _kind(name: str, value: Any) -> str:
    """Return the type of a field of the tables, and its value."""
    if name in paper.ARGUMENTS:
        return f"set by the config's argument, {name}=…"
    if value is None:
        return "a number; not set"
    return f"{KINDS.get(type(value), TUPLE)}; {value!r}"


def flatten(config: ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    """Return each field's dotted name and value, in the order of the file."""
    found = []
    for name in config.keys():  # noqa: SIM118  a ConfigDict iterates otherwise
        value = config[name]
        if isinstance(value, ConfigDict):
            found += flatten(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _line(flag: str, accepted: str, comment: str) -> str:
    return f"  {flag}  {accepted}" + (f"  # {comment}" if comment else "")
