"""The prompts of a task: reading them, checking them, and splitting them.

Splits: a prompt belongs to train, dev or test by a hash of its id alone (`split_of`),
so that added or removed prompts never move the others. Two exceptions, both of which
the file itself decides: prompts of one text go where the first of them goes, so that no
text is in two parts; and in a set so small that a part would be empty, the part takes
the prompt nearest to it (`split_prompts`).
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Literal

from rlcd_jax import jsonl, records, schema
from rlcd_jax.tasks import layout

MOST_SAID = 20  # wrong lines of a prompt file that are named
_ROLES = ("human", "assistant")


@dataclasses.dataclass(frozen=True)
class TurnLine:
    """A turn in a line of a prompt file."""

    role: Literal["human", "assistant"]
    text: str = schema.filled()

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class PromptLine:
    """A line of a prompt file."""

    id: str = schema.filled()
    turns: tuple[TurnLine, ...] = schema.filled()

    def __post_init__(self):
        schema.validate(self)


def load_prompts(
    task: layout.Task,
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
      ValueError: naming the file, each line and field that is wrong; or a split that
        has a share and no prompt.
    """
    if path is None and task.prompts.texts:
        prompts, where = inline_prompts(task), f"the texts of task '{task.name}'"
    else:
        prompts, where = _read_file(task, path)
    return part_of(prompts, task, split, where)


def part_of(
    prompts: Sequence[records.Prompt], task: layout.Task, split: str | None, where: str
) -> tuple[records.Prompt, ...]:
    """Return the prompts of one split of a set.

    Args:
      prompts: all of them.
      task: gives the shares of the splits.
      split: "train", "dev" or "test"; None for all.
      where: what the set is, for the message.

    Raises:
      ValueError: the split is none, or has a share and no prompt.
    """
    if split is not None and split not in layout.SPLITS:
        raise ValueError(
            f"unknown split '{split}'; accepted are {', '.join(layout.SPLITS)}, or "
            "None."
        )
    if split is None:
        return tuple(prompts)
    parts = split_prompts(prompts, task.prompts)
    if not parts[split] and getattr(task.prompts, split) > 0:
        raise ValueError(
            f"{where}: {len(prompts)} prompts are too few for the part '{split}', "
            f"whose share is {getattr(task.prompts, split):g}; add prompts, or give "
            "the part the share 0."
        )
    return parts[split]


def _read_file(
    task: layout.Task, path: str | pathlib.Path | None
) -> tuple[tuple[records.Prompt, ...], str]:
    """Return the prompts of a file, and its name as errors say it."""
    if path is not None:
        source, where = pathlib.Path(path), str(path)
    elif not task.prompts.file:
        raise ValueError(
            f"task '{task.name}' has no prompts of its own, only those of hh-rlhf "
            f"('{task.hh_config}'); take them by --config.prompts.source=hh_rlhf."
        )
    elif task.folder is None:
        where = task.prompts.file
        source = resources.files("rlcd_jax.tasks").joinpath(where)
    else:
        where = task.prompts.file
        source = pathlib.Path(task.folder) / pathlib.Path(where).expanduser()
    if not source.is_file():
        raise ValueError(
            f"no prompt file at '{source}'; a prompt file is a JSONL file with the "
            "fields id and turns. Name one that exists."
        )
    try:
        data = source.read_bytes().rstrip()
    except OSError as error:
        raise ValueError(f"{where}: cannot be read ({error}).") from error
    return _parse_file(data, where), where


@functools.lru_cache(maxsize=8)
def _parse_file(data: bytes, where: str) -> tuple[records.Prompt, ...]:
    """Return the prompts in the bytes of a file, for which all stages ask again."""
    return parse_prompts(jsonl.split_lines(data) if data else [], where)


def inline_prompts(task: layout.Task) -> tuple[records.Prompt, ...]:
    """Return the prompts that stand in the task file itself.

    The id is made of the text, so that a text added or removed moves no other one.
    """
    prompts = []
    for text in task.prompts.texts:
        words = " ".join(text.split())
        digest = hashlib.blake2b(words.encode("utf-8"), digest_size=6).hexdigest()
        turn = records.Turn(role="human", text=_with_plain_ends(text).strip())
        prompts.append(records.Prompt(id=f"{task.name}/{digest}", turns=(turn,)))
    return tuple(prompts)


def split_of(prompt_id: str, prompts: layout.PromptSet) -> str:
    """Return the split of a prompt, from its id alone.

    The first 8 bytes of blake2b(id) are a number u in [0, 1); the split is train for
    u < train, dev for u < train + dev, else test.

    Args:
      prompt_id: the id of the prompt.
      prompts: the shares of the splits.

    Returns:
      "train", "dev" or "test".
    """
    draw = _draw(prompt_id)
    if draw < prompts.train:
        return "train"
    return "dev" if draw < prompts.train + prompts.dev else "test"


def _draw(prompt_id: str) -> float:
    digest = hashlib.blake2b(prompt_id.encode("utf-8"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2.0**64


def split_prompts(
    prompts: Sequence[records.Prompt], shares: layout.PromptSet
) -> dict[str, tuple[records.Prompt, ...]]:
    """Return the prompts of each split, in their order.

    Args:
      prompts: all prompts of a task.
      shares: the shares of the splits.

    Returns:
      Prompts by "train", "dev" and "test". No text is in two of them.
    """
    return dict(_split(tuple(prompts), shares))


@functools.lru_cache(maxsize=8)
def _split(
    prompts: tuple[records.Prompt, ...], shares: layout.PromptSet
) -> dict[str, tuple[records.Prompt, ...]]:
    """Do what `split_prompts` does; stages, and nodes of a table, ask again."""
    first: dict[str, str] = {}  # of a text, the id that decides
    for prompt in prompts:
        first.setdefault(_text(prompt), prompt.id)
    chosen = {id: split_of(id, shares) for id in first.values()}
    for split, middle in _empty_parts(chosen, shares):
        spare = [id for id in chosen if _count(chosen, chosen[id]) > 1]
        if spare:
            nearest = min(spare, key=lambda id: (abs(_draw(id) - middle), id))
            chosen[nearest] = split
    parts: dict[str, list[records.Prompt]] = {split: [] for split in layout.SPLITS}
    for prompt in prompts:
        parts[chosen[first[_text(prompt)]]].append(prompt)
    return {split: tuple(part) for split, part in parts.items()}


def _empty_parts(
    chosen: dict[str, str], shares: layout.PromptSet
) -> list[tuple[str, float]]:
    """Return each part that has a share and no prompt, and the middle of its draws."""
    low, empty = 0.0, []
    for split in layout.SPLITS:
        share = getattr(shares, split)
        if share > 0 and not _count(chosen, split):
            empty.append((split, low + share / 2))
        low += share
    return empty


def _count(chosen: dict[str, str], split: str) -> int:
    return sum(part == split for part in chosen.values())


def _text(prompt: records.Prompt) -> str:
    """Return what makes two prompts the same: the words of all turns, with headers.

    A turn whose own words hold the header of another reads as two turns do.
    """
    turns = (f"{turn.role.capitalize()}: {turn.text}" for turn in prompt.turns)
    return " ".join(" ".join(turns).split())


def parse_prompts(
    lines: Iterable[str | bytes], where: str
) -> tuple[records.Prompt, ...]:
    """Check the lines of a prompt file and make prompts of them.

    Args:
      lines: the lines, each one JSON object.
      where: name of the file, for the errors.

    Returns:
      The prompts, at least one.

    Raises:
      ValueError: with a line for each thing that is wrong.
    """
    prompts: list[records.Prompt] = []
    wrong: list[str] = []  # the first of them, which a message names
    num_wrong = 0
    first_seen: dict[str, int] = {}

    def tell(*told: str) -> None:
        nonlocal num_wrong
        num_wrong += len(told)
        wrong.extend(told[: max(0, MOST_SAID - len(wrong))])

    for number, line in enumerate(lines, start=1):
        here = f"{where}, line {number}"
        try:
            row = jsonl.parse(line, here)
        except ValueError as error:
            tell(
                f"{error}; accepted is one object with the fields id and turns. "
                "Correct or remove the line."
            )
            continue
        try:
            prompt = _parse_prompt(row)
        except ValueError as error:
            told = getattr(error, "lines", lambda error=error: [str(error)])()
            tell(*(f"{here}: {what}" for what in told))
            continue
        if prompt.id in first_seen:
            tell(
                f"{here}: field 'id' is '{prompt.id}', which line "
                f"{first_seen[prompt.id]} has too; ids are unique. Rename one."
            )
        first_seen.setdefault(prompt.id, number)
        prompts.append(prompt)
    if wrong:
        more = num_wrong - len(wrong)
        rest = [f"{where}: and {more} more"] if more else []
        raise ValueError("\n".join(wrong + rest))
    if not prompts:
        raise ValueError(f"{where}: no prompts; accepted is at least one line.")
    return tuple(prompts)


def _parse_prompt(row: Any) -> records.Prompt:
    line = schema.from_dict(PromptLine, row)
    for index, turn in enumerate(line.turns):
        # Turns alternate and the last one is human, so the roles follow from the end.
        role = _ROLES[(len(line.turns) - 1 - index) % 2]
        if turn.role != role:
            raise ValueError(
                f"field 'turns[{index}].role' is {turn.role!r}; accepted is '{role}', "
                "because turns alternate and the last one is human."
            )
    turns = tuple(records.Turn(t.role, _with_plain_ends(t.text)) for t in line.turns)
    return records.Prompt(id=line.id, turns=turns)


def _with_plain_ends(text: str) -> str:
    r"""Return a text whose lines end in "\n", not as Windows or old Macs end them."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
