"""The commands under one name: which there are, a line each, and which is meant."""

from __future__ import annotations

import ast
import difflib
import pathlib
from collections.abc import Mapping, Sequence


def read_lines(folder: pathlib.Path, names: Sequence[str]) -> dict[str, str]:
    """Return what each command says of itself first; nothing is imported for it.

    Args:
      folder: of the commands' modules.
      names: of the modules, in the order in which they are shown.

    Returns:
      From names to the first lines of the modules' docstrings.
    """
    lines = {}
    for name in names:
        text = (folder / f"{name}.py").read_text("utf-8")
        told = ast.get_docstring(ast.parse(text)) or ""
        lines[name] = told.partition("\n")[0]
    return lines


def overview(program: str, lines: Mapping[str, str]) -> str:
    """Return all commands, a line each, and how one is typed.

    Args:
      program: the word that they all stand behind.
      lines: from names to what they say.
    """
    width = max(map(len, lines))
    listed = [f"  {name.ljust(width)}  {line}" for name, line in lines.items()]
    return "\n".join(
        [
            f"usage: {program} COMMAND [flags]; {program} COMMAND --help lists them",
            "",
            *listed,
            "",
            "RLCD_JAX_TRACE=1 in the environment shows where a message came from.",
        ]
    )


def check(word: str, names: Sequence[str]) -> None:
    """Refuse a word that is no command, and name the one that is near it.

    Args:
      word: that was typed.
      names: of all commands.
    """
    if word in names:
        return
    near = difflib.get_close_matches(word.replace("-", "_"), names, n=1, cutoff=0.5)
    meant = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"no command {word!r}{meant}; accepted: {', '.join(names)}")
