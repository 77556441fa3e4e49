"""Pairs of replies in the formats of others, read and written.

`trl` and `alpaca_farm` have files of their own; `rlcd` are records of this package: a
run's `pairs.jsonl`, or what `experiments.pairs import` has written.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import statistics
from collections.abc import Mapping, Sequence

from etils import epath

from rlcd_jax import record_files, records, row_files, schema, seeds
from rlcd_jax.datasets import alpaca_farm_rows, hh_rlhf_files, trl_rows
from rlcd_jax.text import dialogue_format

TRL, ALPACA_FARM, RLCD = FORMATS = ("trl", "alpaca_farm", "rlcd")
ROWS = {TRL: trl_rows, ALPACA_FARM: alpaca_farm_rows}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two replies to a dialogue, and the probability that the second is the better."""

    id: str
    turns: tuple[records.Turn, ...]
    reply_1: str
    reply_2: str
    prob_2: float


@dataclasses.dataclass(frozen=True)
class Read:
    """What a file holds.

    Attributes:
      rows: the comparisons, in the order of the file.
      lost: how many rows compare nothing, by why.
      unread: columns that mean nothing here.
    """

    rows: tuple[Comparison, ...]
    lost: Mapping[str, int]
    unread: tuple[str, ...]

    def said(self) -> str:
        """Return all that was not taken, in words; "" if nothing."""
        told = [f"{count} {why}" for why, count in self.lost.items()]
        if self.unread:
            told.append(f"columns not read: {', '.join(self.unread)}")
        return "; ".join(told)


@dataclasses.dataclass(frozen=True)
class Written:
    """How many pairs a file has, and how many ties it has no place for."""

    rows: int
    ties: int

    def said(self, name: str) -> str:
        """Return it in words."""
        lost = f"; {self.ties} ties, of which neither is chosen, are not in it"
        return f"{self.rows} pairs to {name}{lost * bool(self.ties)}"


def is_named(data: str) -> bool:
    """Say whether `preference.data` names a file, and no pairs that are known."""
    return data not in ("pairs", "hh_rlhf")


def split_name(name: str) -> tuple[str, str]:
    """Return format and path of a text such as "trl:pairs.jsonl"."""
    form, colon, path = name.partition(":")
    if not colon or form not in FORMATS or not path:
        raise ValueError(
            f"{name!r}; accepted: a format and a file, {', '.join(FORMATS)} and its "
            "path with a colon between, as in trl:pairs.jsonl"
        )
    return form, path


def read(name: str, *, seed: int) -> Read:
    """Return the comparisons of "FORMAT:FILE".

    Rows of two equal replies, or of an empty one, compare nothing and are counted.

    Args:
      name: as `split_name` takes it.
      seed: root seed of the coins by which a chosen reply stands first or second.

    Raises:
      ValueError: it names the file, the row and the field that is wrong.
    """
    form, path = split_name(name)
    if form == RLCD:
        return Read(tuple(map(_of_record, read_records(path))), {}, ())
    rows, columns = row_files.read(path), ROWS[form]
    made: list[Comparison] = []
    lost, unread = collections.Counter(), {}
    for number, (where, row) in enumerate(rows):
        unread |= dict.fromkeys(
            column for column in row if column not in columns.COLUMNS
        )
        if missing := [name for name in columns.NEEDED if name not in row]:
            raise ValueError(
                f"{where}: no {', '.join(map(repr, missing))} among the columns "
                f"{row_files.show(list(row))}; accepted for {form!r}: "
                f"{', '.join(columns.COLUMNS)}"
            )
        try:
            turns, reply_1, reply_2, prob_2 = columns.take(row)
            records.Prompt("p", turns)
            if all(schema.is_blank(turn.text) for turn in turns):
                raise ValueError(
                    "the prompt is blank; accepted: text, so that the replies answer it"
                )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        if schema.is_blank(reply_1) or schema.is_blank(reply_2):
            lost["with an empty reply"] += 1
            continue
        if reply_1 == reply_2:
            lost["with two equal replies"] += 1
            continue
        own = f"{epath.Path(path).stem}/{number}"
        if form == TRL and seeds.seed_choice(2, seed, "comparison", own):
            reply_1, reply_2, prob_2 = reply_2, reply_1, 1.0 - prob_2
        made.append(Comparison(own, turns, reply_1, reply_2, prob_2))
    if not made:
        raise ValueError(f"{path}: none of its {len(rows)} rows is a comparison")
    return Read(tuple(made), dict(lost), tuple(unread))


def to_pair(row: Comparison, prompt: str) -> records.HumanPair:
    """Return the record of a comparison, whose prompt is the text that is given.

    Rows of one prompt have one prompt id, which is made of the dialogue.
    """
    words = hh_rlhf_files.join_turns(row.turns)
    digest = hashlib.blake2b(words.encode(), digest_size=8).hexdigest()
    return records.HumanPair(
        row.id, digest, prompt, row.reply_1, row.reply_2, row.prob_2
    )


def write(
    name: str,
    rows: Sequence[records.Pair | records.HumanPair],
    *,
    conversational: bool = False,
) -> Written:
    """Write pairs as "FORMAT:FILE", and return how many.

    Args:
      name: as `split_name` takes it; the file's ending says what is written.
      rows: the pairs.
      conversational: prompt and replies as lists of messages; TRL's format alone.

    Raises:
      ValueError: nothing would be left, or a prompt is no dialogue where messages are
        asked for.
    """
    form, path = split_name(name)
    row_files.check_ending(path)
    if conversational and form != TRL:
        raise ValueError(f"messages are TRL's, and the format asked for is {form!r}")
    ties = sum(row.prob_2 == 0.5 for row in rows) if form == TRL else 0
    if form == RLCD:
        written = [dataclasses.asdict(row) for row in rows]
    elif form == TRL:
        make = trl_rows.as_messages if conversational else trl_rows.as_texts
        written = [make(row) for row in rows if row.prob_2 != 0.5]
    else:
        soft = any(row.prob_2 not in (0.0, 1.0) for row in rows)
        written = [alpaca_farm_rows.as_row(row, soft) for row in rows]
    row_files.write(path, written)
    return Written(len(written), ties)


def read_records(path: epath.PathLike) -> list[records.Pair | records.HumanPair]:
    """Return the records of this package in a file: simulated pairs, or imported ones.

    Raises:
      ValueError: it names the file, the row and the field that is wrong.
    """
    made = []
    for where, row in row_files.read(path):
        cls = records.Pair if "side_1" in row else records.HumanPair
        try:
            made.append(schema.from_dict(cls, record_files.completed(cls, row)))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
    return made


def _of_record(row: records.Pair | records.HumanPair) -> Comparison:
    turns = dialogue_format.read_prompt(row.prompt)
    return Comparison(row.id, turns, row.reply_1, row.reply_2, row.prob_2)


def as_records(found: Read) -> list[records.HumanPair]:
    """Return comparisons as records whose prompts are in the format of hh-rlhf."""
    return [to_pair(row, hh_rlhf_files.join_turns(row.turns)) for row in found.rows]


def describe(found: Read) -> str:
    """Return in a few lines what a file holds."""
    rows = found.rows
    prompts = len({row.turns for row in rows})
    second = sum(row.prob_2 > 0.5 for row in rows)
    soft = sum(row.prob_2 not in (0.0, 1.0) for row in rows)
    words = [len(reply.split()) for row in rows for reply in (row.reply_1, row.reply_2)]
    turns = [len(row.turns) for row in rows]
    lines = [
        f"{len(rows)} pairs of {prompts} prompts; the second reply is the better one "
        f"in {second}; {soft} labels are probabilities",
        f"turns of a prompt: {min(turns)} to {max(turns)}; words of a reply: "
        f"{min(words)} to {max(words)}, median {statistics.median(words):g}",
    ]
    lines += [f"not taken: {found.said()}"] * bool(found.said())
    return "\n".join(lines)
