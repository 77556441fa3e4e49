"""What only a site knows: values that its scripts must be given, each a flag."""

from __future__ import annotations

import dataclasses
import re
import shlex
from collections.abc import Mapping
from typing import Any

PLAIN = re.compile(r"[^\n\r]*")


def value(default: str | int, told: str, *, pattern: str = "", least: int = 0) -> Any:
    """Return a field of a site.

    Args:
      default: what it is unless the user says otherwise.
      told: what it means, for people.
      pattern: of a text, in full; "": any of one line.
      least: of a number.
    """
    more = {"told": told, "pattern": pattern, "least": least}
    return dataclasses.field(default=default, metadata=more)


def flags(kind: type) -> dict[str, str]:
    """Return the flags of a target's `Site`, and what argparse tells of each."""
    return {
        f"--{field.name}": f"{field.metadata['told']} ({field.default!r})".replace(
            "%", "%%"
        )
        for field in dataclasses.fields(kind)
    }


def read(kind: type, typed: Mapping[str, Any]) -> Any:
    """Return a site of a target from what was typed.

    Args:
      kind: the target's `Site`.
      typed: by name, the texts of those fields that the user gave, None of others;
        more names may stand there, which are none of its fields.

    Raises:
      ValueError: a value is not accepted.
    """
    values = {}
    for field in dataclasses.fields(kind):
        text, about = typed.get(field.name), field.metadata
        if text is None:
            continue
        if isinstance(field.default, int):
            if not text.isdecimal() or int(text) < about["least"]:
                raise ValueError(
                    f"--{field.name}={text}; accepted: a whole number from "
                    f"{about['least']} ({about['told']})"
                )
            values[field.name] = int(text)
        else:
            pattern = about["pattern"] or PLAIN.pattern
            if not re.fullmatch(pattern, text):
                raise ValueError(
                    f"--{field.name}={text!r}; accepted: {about['told']}, such as "
                    f"{field.default!r}"
                )
            values[field.name] = text
    return kind(**values)


def listed(site: Any) -> list[str]:
    """Return a comment for each value of a site, so that none is hidden."""
    lines = []
    for field in dataclasses.fields(site):
        own = getattr(site, field.name)
        state = "default" if own == field.default else "given"
        shown = shlex.quote(str(own))
        lines.append(f"#   --{field.name}={shown}  ({state}) {field.metadata['told']}")
    return lines


def head(command: str, site: Any, *told: str) -> list[str]:
    """Return the comments that a script begins with.

    Args:
      command: that has made it.
      site: whose values are listed.
      *told: more lines for people.
    """
    return [
        *(f"# {line}" for line in told),
        f"# Made by: {command}",
        "# What only your site knows, each a flag of that command:",
        *listed(site),
    ]
