"""Finds the commands that this project prints: in pages, docstrings and messages."""

from __future__ import annotations

import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("experiments", "configs", "rlcd_jax")
SOURCES = sorted(
    path.relative_to(ROOT)
    for path in [ROOT / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]
    + [*(ROOT / "experiments").rglob("*.md")]
    + [p for f in FOLDERS for e in ("py", "toml") for p in (ROOT / f).rglob(f"*.{e}")]
)
START = "python -m experiments."


def commands_of(text: str) -> list[str]:
    """Return the commands that begin a line, a comment or a quotation."""
    text = re.sub(r"\\\s*\n[\s#]*", " ", text)  # lines that go on
    text = re.sub(r'"\n\s+f?"', "", text)  # literals of Python that go on
    found = []
    for line in text.splitlines():
        for part in re.findall(rf"{re.escape(START)}[^`]*", line):
            words = re.split(r"\s{3,}|\\n|\s#|\"(?=[,)]|$)| && ", part)[0]
            found.append(" ".join(words.split()).rstrip(".,;"))
    return found


def collect() -> list[tuple[str, str]]:
    """Return each printed command once, with the first file that prints it."""
    found: dict[str, str] = {}
    for path in SOURCES:
        for printed in commands_of((ROOT / path).read_text("utf-8")):
            if re.match(rf"{re.escape(START)}[a-z]", printed):
                found.setdefault(printed, str(path))
    return [(where, printed) for printed, where in found.items()]


PRINTED = collect()


def words_of(printed: str) -> tuple[str, list[str]]:
    """Return a command's module and words, with all that is optional."""
    printed = re.sub(r"\[(-[^\]]*)\]", r"\1", printed)
    name, *words = shlex.split(printed.removeprefix("python -m "))
    return name.removeprefix("experiments."), words
