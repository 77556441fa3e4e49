"""Rows of AlpacaFarm's preference files: instruction, input, two outputs, the better.

RLCD's scripts make the same columns as CSV, `instruction` being the whole dialogue, and
add `win2_prob`, the soft label, where a model has scored the pairs.

Source: AlpacaFarm (arXiv 2305.14387) and the released code of RLCD.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rlcd_jax import records, row_files
from rlcd_jax.text import dialogue_format

SOFT = "win2_prob"
NEEDED = ("instruction", "output_1", "output_2", "preference")
COLUMNS = (*NEEDED, "input", SOFT)
Taken = tuple[tuple[records.Turn, ...], str, str, float]


def take(row: Mapping[str, Any]) -> Taken:
    """Return turns, both replies, and the label: the soft one where there is one.

    Raises:
      ValueError: it names the field that is wrong.
    """
    texts = [_text(row, name) for name in ("instruction", "output_1", "output_2")]
    more = _text(row, "input") if row.get("input") is not None else ""
    instruction, first, second = texts
    joined = "\n\n".join(filter(None, (instruction, more.strip())))
    turns = dialogue_format.read_prompt(joined if more.strip() else instruction)
    preference = _number(row, "preference")
    if preference not in (1, 2):
        raise ValueError(
            f"field 'preference' is {row_files.show(row['preference'])}; accepted: 1 "
            "or 2, the number of the better reply"
        )
    if row.get(SOFT) in (None, ""):
        return turns, first.strip(), second.strip(), float(preference - 1)
    prob_2 = _number(row, SOFT)
    if not 0 <= prob_2 <= 1:
        raise ValueError(
            f"field {SOFT!r} is {row_files.show(row[SOFT])}; accepted: a probability "
            "in [0, 1]"
        )
    if prob_2 != 0.5 and (prob_2 > 0.5) != (preference == 2):
        raise ValueError(
            f"fields 'preference' ({preference:g}) and {SOFT!r} ({prob_2:g}) name "
            "different replies as the better; correct one"
        )
    return turns, first.strip(), second.strip(), prob_2


def _text(row: Mapping[str, Any], name: str) -> str:
    if not isinstance(row[name], str):
        raise ValueError(
            f"field {name!r} is {row_files.show(row[name])}; accepted: a text"
        )
    return row[name]


def _number(row: Mapping[str, Any], name: str) -> float:
    """Return a number, which CSV holds as text."""
    value = row[name]
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"field {name!r} is {row_files.show(value)}; accepted: a finite number"
        )
    return number


def as_row(row: records.Pair | records.HumanPair, soft: bool) -> dict[str, Any]:
    """Return a pair as a row, with the column of soft labels or without it."""
    columns = {
        "instruction": row.prompt,
        "input": "",
        "output_1": row.reply_1,
        "output_2": row.reply_2,
        "preference": 2 if row.prob_2 > 0.5 else 1,
    }
    return columns | ({SOFT: row.prob_2} if soft else {})
