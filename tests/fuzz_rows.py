"""Pairs of others in files of rows, a checkout's script, a chat template, damaged."""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import damage
import pyarrow as pa
import pyarrow.parquet as pq
import strictly as s
from fuzz_records import Case
from hypothesis import strategies as st

from rlcd_jax.datasets import comparisons
from rlcd_jax.tasks import official
from rlcd_jax.text import chat_templates

ROWS = [
    {"prompt": f"How was day {n}?", "chosen": f"Lovely, {n}.", "rejected": "Long."}
    for n in range(3)
]
SCORED = [
    {"instruction": f"Say {n}", "input": "", "output_1": f"{n}.", "output_2": "No."}
    | {"preference": 1 + n % 2, "win2_prob": 0.25 + 0.5 * (n % 2)}
    for n in range(3)
]


def _read(path: pathlib.Path, form: str) -> list:
    """Return each comparison as its better and its worse reply, with the label."""
    found = comparisons.read(f"{form}:{path}", seed=0).rows
    return [
        [*((r.reply_1, r.reply_2) if r.prob_2 < 0.5 else (r.reply_2, r.reply_1))]
        + [max(r.prob_2, 1 - r.prob_2)]
        for r in found
    ]


def _kept(rows: list) -> list:
    """Return the rows that compare something; none at all is to be refused."""
    kept = [
        row for row in rows if row[0] != row[1] and not any(map(s.is_blank, row[:2]))
    ]
    s.need(kept)
    return kept


def _preferred(rows: list[Any]) -> list:
    for row in rows:
        s.need(isinstance(row, dict))
        (
            s.filled(row.get("prompt")),
            s.text(row.get("chosen")),
            s.text(row.get("rejected")),
        )
    return _kept([[r["chosen"].strip(), r["rejected"].strip(), 1.0] for r in rows])


def _scored(rows: list[dict]) -> list:
    made = []
    for row in rows:
        s.filled(row.get("instruction")), s.maybe(s.text)(row.get("input"))
        replies = [s.text(row.get(name)).strip() for name in ("output_1", "output_2")]

        def number(name: str, row: dict = row) -> float:
            value = row.get(name)
            s.need(type(value) in (int, float, str))
            try:
                found = float(value)
            except (ValueError, OverflowError) as error:
                raise s.Refuse(name) from error
            s.need(math.isfinite(found))
            return found

        better = number("preference")
        s.need(better in (1.0, 2.0))
        prob = better - 1
        if row.get("win2_prob") not in (None, ""):
            prob = number("win2_prob")
            s.need(0 <= prob <= 1)
            s.need(prob == 0.5 or (prob > 0.5) == (better == 2))
        ordered = replies if prob < 0.5 else replies[::-1]
        made.append([*ordered, max(prob, 1 - prob)])
    return _kept(made)


def trl_jsonl(folder: pathlib.Path) -> Case:
    path = folder / "pairs.jsonl"
    return Case(
        path,
        damage.lines(ROWS),
        lambda: _read(path, comparisons.TRL),
        lambda data: _preferred(s.lines(data)),
        exact=False,  # a text with headers is a dialogue of several turns
        said="pairs",
    )


def trl_json(folder: pathlib.Path) -> Case:
    path = folder / "pairs.json"

    def oracle(data: bytes) -> list:
        found = s.value(s.decoded(data))
        s.need(isinstance(found, list))
        return _preferred(found)

    changed = damage.values(ROWS).map(lambda one: damage.dumps(one).encode())
    content = damage.contents(json.dumps(ROWS).encode())
    return Case(
        path,
        st.one_of(changed, content),
        lambda: _read(path, comparisons.TRL),
        oracle,
        exact=False,
        said="pairs",
    )


def alpaca_csv(folder: pathlib.Path) -> Case:
    path = folder / "pairs.csv"
    out = io.StringIO()
    table = csv.DictWriter(out, list(SCORED[0]))
    table.writeheader()
    table.writerows(SCORED)

    def oracle(data: bytes) -> list:
        text = s.decoded(data)
        try:
            read = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        except csv.Error as error:
            raise s.Refuse(str(error)) from error
        s.need(read and len(set(read[0])) == len(read[0]))
        s.need(all(len(cells) == len(read[0]) for cells in read))
        return _scored([dict(zip(read[0], cells, strict=True)) for cells in read[1:]])

    return Case(
        path,
        damage.contents(out.getvalue().encode()),
        lambda: _read(path, comparisons.ALPACA_FARM),
        oracle,
        exact=False,
        said="pairs",
    )


def trl_parquet(folder: pathlib.Path) -> Case:
    path = folder / "pairs.parquet"
    out = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ROWS), out)

    def oracle(data: bytes) -> list:
        """Return what pyarrow reads at once of an own copy of the bytes."""
        try:
            rows = pq.read_table(io.BytesIO(data)).to_pylist()
        except Exception as error:
            raise s.Refuse(str(error)) from error
        return _preferred(rows)

    return Case(
        path,
        damage.contents(out.getvalue().to_pybytes()),
        lambda: _read(path, comparisons.TRL),
        oracle,
        exact=False,
        said="pairs",
    )


SCRIPT = '''"""A script of another project."""
import os

HELPFUL_POSITIVE_AFFIXES = ["(kind)", "(wise)"]
HELPFUL_NEGATIVE_AFFIXES: list = ["(rude)", "(foolish)"]
HELPFUL_INSTRUCTIONS = ("Which is kinder?", "Which is wiser?")
OTHER = {"a": [1, -2.5, "x" "y"], **{}}
print(os.environ)
texts.append("Read this:" + "x")
'''
JUDGE = """
MESSAGES = [{"role": "system", "content": "Be fair."}]
prompt = "Below:" + "x"
if task == "helpful":
    prompt += "Two replies:\\n(A)" + "x"
    prompt += "Which helps?"
"""


def official_wording(folder: pathlib.Path) -> Case:
    path = folder / official.SCRIPT
    path.parent.mkdir(parents=True, exist_ok=True)
    (folder / official.JUDGE).write_text(JUDGE)

    def oracle(data: bytes) -> bool:
        """Refuse what Python itself does not take for a script."""
        try:
            compile(data, "script", "exec", dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise s.Refuse(str(error)) from error
        return True

    def read() -> bool:
        found = official.read_wording(folder, "helpful")
        return len(found.affixes) == len(found.instructions) > 0

    return Case(
        path, damage.contents(SCRIPT.encode()), read, oracle, exact=False, said="script"
    )


TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "[INST] {{ message['content'] | trim }} [/INST]{% elif message['role'] == "
    "'assistant' %}{{ message['content'] }}{{ eos_token }}{% else %}"
    "{{ raise_exception('no system') }}{% endif %}{% endfor %}"
)


def chat_template(folder: pathlib.Path) -> Case:
    """What closes an assistant's turn, by a template that is foreign code."""
    path = folder / "chat_template.jinja"
    names = {"bos_token": "<s>", "eos_token": "</s>"}

    def read() -> bool:
        try:
            text = path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"chat template: {error}") from error
        found = chat_templates.closing_token(
            text, names, tokens=("</s>", "<s>"), ends=("</s>",)
        )
        return found in ("</s>", "<s>", None)

    return Case(
        path,
        damage.contents(TEMPLATE.encode()),
        read,
        lambda data: True,
        exact=False,
        said="chat template",
    )


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    one.__name__: one
    for one in (
        *(trl_jsonl, trl_json, alpaca_csv, trl_parquet),
        *(official_wording, chat_template),
    )
}
