"""Rows of texts to page through: replies of systems, of policy steps, pairs, drops.

All browsers show the same kind of row, so one script serves them: a title, a prompt,
cells side by side, and provenance to unfold. A text with `fold` is hidden until the
reader opens it; all that was sampled from, or shown to, a negative prompt has it.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import records
from rlcd_jax.report import reading, table_files
from rlcd_jax.statistics.estimates import Missing

MAX_PROMPTS = 300  # of the sample browsers, so that the page stays small
SHOWN_PAIRS = 40  # random ones
MOST_CERTAIN = 12  # held-out pairs on which a training is surest, and least sure
BUDGET = 160_000  # letters of all rows of a browser
MOST_LETTERS = 3000  # of a text
SEED = 0  # of the random choice of pairs
FOLDED = "from the negative prompt: unfold to read"


def samples(runs: Mapping[str, reading.Run]) -> dict[str, Any] | Missing:
    """Return a row for each prompt, with the replies of all systems of all runs."""
    rows: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        if isinstance(run.samples, Missing):
            continue
        said = _scores(run)
        for sample in run.samples:
            row = rows.setdefault(_title(sample), _row(sample))
            facts = [sample.get("finish"), _count(sample.get("num_tokens"), "tokens")]
            facts += _away(sample.get("divergence"), sample.get("num_tokens"))
            facts += said.get((_title(sample), sample["system"]), [])
            head = " · ".join(part for part in (label, sample["system"]) if part)
            row["cells"].append(_cell(head, sample["reply"], facts))
        for title, lines in _verdicts(run, label).items():
            if title in rows:
                rows[title]["facts"] += lines
    if not rows:
        first = next(iter(runs.values())).samples
        is_told = isinstance(first, Missing)
        return first if is_told else Missing("evaluate/samples.jsonl is empty")
    kept = list(rows.values())[:MAX_PROMPTS]
    return _browser({"": kept}, "prompts", len(rows))


def policy_samples(run: reading.Run) -> dict[str, Any] | Missing:
    """Return a row for each prompt, with the policy's replies over steps."""
    if isinstance(run.policy_samples, Missing):
        return run.policy_samples
    rows: dict[str, dict[str, Any]] = {}
    for step, drawn in run.policy_samples.items():
        for sample in drawn:
            row = rows.setdefault(_title(sample), _row(sample))
            score = sample.get("score")
            facts = [f"reward {score:.3g}" if isinstance(score, int | float) else ""]
            facts += [_count(sample.get("num_tokens"), "tokens")]
            facts += _away(sample.get("kl"), sample.get("num_tokens"))
            row["cells"].append(_cell(f"step {step}", sample["reply"], facts))
    kept = list(rows.values())[:MAX_PROMPTS]
    return _browser({"": kept}, "prompts", len(rows))


def pairs(run: reading.Run) -> dict[str, Any] | Missing:
    """Return pairs with their provenance: the surest, the least sure, random ones."""
    if isinstance(run.pairs, Missing):
        return run.pairs
    if not run.pairs:
        return Missing("pairs/pairs.jsonl is empty")
    views = {
        f"{name} {len(chosen)}": [_pair(pair, read) for pair, read in chosen]
        for name, chosen in _by_certainty(run).items()
    }
    if len(run.pairs) > SHOWN_PAIRS:
        chosen = random.Random(SEED).sample(run.pairs, SHOWN_PAIRS)
        views[f"random {SHOWN_PAIRS}"] = list(map(_pair, chosen))
    else:
        views["all"] = list(map(_pair, run.pairs))
    return _browser(views, "pairs", len(run.pairs))


def _by_certainty(
    run: reading.Run,
) -> dict[str, list[tuple[records.Pair, records.HeldOutPair | None]]]:
    """Return the pairs that are surest and least sure, by what says how sure.

    By the margin of the rewards of held-out pairs where a stage left them, else by
    labels between 0 and 1; labels of 0 and 1 alone say nothing, and give no views.
    """
    known = {pair.id: pair for pair in run.pairs}
    for read in run.held_out.values():
        there = [] if isinstance(read, Missing) else [r for r in read if r.id in known]
        if there:
            there.sort(key=lambda one: -abs(one.reward_2 - one.reward_1))
            return _ends([(known[one.id], one) for one in there])
    soft = [pair for pair in run.pairs if pair.prob_2 not in (0.0, 1.0)]
    soft.sort(key=lambda pair: -abs(pair.prob_2 - 0.5))
    return _ends([(pair, None) for pair in soft])


def _ends(ordered: list[Any]) -> dict[str, list[Any]]:
    """Return both ends of a list, the last one first in its own."""
    most = min(MOST_CERTAIN, len(ordered) // 2)
    if not most:
        return {}
    return {"most certain": ordered[:most], "least certain": ordered[: -most - 1 : -1]}


def dropped(run: reading.Run) -> dict[str, Any] | Missing:
    """Return the first dropped sides with what was sampled for them."""
    if isinstance(run.dropped, Missing):
        return run.dropped
    if not run.dropped:
        return Missing("nothing was dropped")
    rows = []
    for drop in run.dropped[:SHOWN_PAIRS]:
        reasons = list(drop.reasons) + [drop.reason] * len(drop.raws)
        fold = FOLDED if drop.side == "negative" else ""
        cells = [
            _cell(f"try {n}", raw, [reason], fold=fold)
            for n, (raw, reason) in enumerate(
                zip(drop.raws, reasons, strict=False), start=1
            )
        ]
        facts = [f"side: {drop.side}", f"reason: {drop.reason}"]
        facts += [f"tries: {drop.tries}", f"sampling: {drop.sampling}"]
        rows.append(
            {
                "title": records.key_of(drop),
                "facts": facts,
                "prompt": "",
                "cells": cells,
            }
            | {"more": []}
        )
    return _browser({"": rows}, "dropped sides", len(run.dropped))


def _pair(
    pair: records.Pair, read: records.HeldOutPair | None = None
) -> dict[str, Any]:
    """Return the row of a pair; what the negative prompt gave or was is folded."""
    cells, more = [], []
    for n, prob in (("1", 1 - pair.prob_2), ("2", pair.prob_2)):
        field = {
            name: getattr(pair, f"{name}_{n}")
            for name in ("reply", "side", "source_prompt", "raw", "tries", "finish")
        }
        fold = FOLDED if field["side"] == "negative" else ""
        facts = [f"reward {getattr(read, f'reward_{n}'):.3g}"] if read else []
        facts += [f"better: {prob:.3g}", f"tries {field['tries']}", field["finish"]]
        facts.append(_count(getattr(pair, f"num_tokens_{n}"), "tokens"))
        grade = getattr(pair, f"grade_{n}")
        facts += [] if grade is None else [f"grade {grade:g}"]
        tag = "better" if prob > 0.5 else ""
        head = f"reply_{n} · {field['side']}"
        cells.append(_cell(head, field["reply"], facts, fold=fold, tag=tag))
        shown = (("source_prompt", "prompt shown for"), ("raw", "raw text of"))
        for name, what in shown:
            label = f"{what} reply_{n} ({field['side']})"
            more.append({"label": label, "text": field[name], "fold": bool(fold)})
    facts = [f"label: {pair.labels}", f"sampling: {pair.sampling}"]
    facts += [f"affix {pair.affix_index}"] if pair.affix_index is not None else []
    drawn = f"{pair.generator}, seed {pair.seed}, temperature {pair.temperature:g}"
    drawn += f", top_p {pair.top_p:g}, top_k {pair.top_k}, alpha {pair.alpha:g}"
    more.insert(0, {"label": "drawn with", "text": drawn, "fold": False})
    if read:
        margin = read.reward_2 - read.reward_1
        agrees = margin * (read.prob_2 - 0.5)
        facts.append(f"margin {abs(margin):.3g}")
        facts.append("right" if agrees > 0 else "undecided" if not agrees else "wrong")
    if pair.scoring:
        facts += [f"{name} {_number(v)}" for name, v in pair.scoring.items()]
    row = {"title": pair.id, "facts": facts, "prompt": pair.prompt}
    return row | {"cells": cells, "more": more}


def _verdicts(run: reading.Run, label: str) -> dict[str, list[str]]:
    """Return what the judges said, a line a verdict, by prompt."""
    if isinstance(run.verdicts, Missing):
        return {}
    lines: dict[str, list[str]] = {}
    for v in run.verdicts:
        one, two = v["system_1"], v["system_2"]
        said = {"1": f"{one} > {two}", "2": f"{two} > {one}", "tie": f"{one} = {two}"}
        text = f"{v['judge']}: {said.get(v['winner'], f'{one}, {two} not read')}"
        lines.setdefault(_title(v), []).append(f"{label} · {text}" if label else text)
    return lines


def _scores(run: reading.Run) -> dict[tuple[str, str], list[str]]:
    """Return what judges that score single replies said, by prompt and system."""
    told: dict[tuple[str, str], dict[str, None]] = {}
    for v in [] if isinstance(run.verdicts, Missing) else run.verdicts:
        for n in "12":
            if table_files.is_number(score := v.get(f"score_{n}")):
                key = (_title(v), v[f"system_{n}"])
                told.setdefault(key, {})[f"{v['judge']} {score:.3g}"] = None
    return {key: list(lines) for key, lines in told.items()}


def _away(nats: float | None, tokens: float | None) -> list[str]:
    """Return how far a reply is from the reference: a token, and in all."""
    if not nats:
        return []
    whole = f"KL {nats:.3g} nats"
    return [f"KL {nats / tokens:.3g} a token", whole] if tokens else [whole]


def _title(row: Mapping[str, Any]) -> str:
    """Return the name of the draw of a prompt that a reply or a verdict is of."""
    return records.draw_key(row["prompt_id"], row.get("draw"))


def _row(sample: Mapping[str, Any]) -> dict[str, Any]:
    row = {"title": _title(sample), "facts": [], "prompt": sample["prompt"]}
    return row | {"cells": [], "more": []}


def _cell(
    head: str, text: str, facts: Sequence[Any], *, fold: str = "", tag: str = ""
) -> dict[str, Any]:
    shown = [str(fact) for fact in facts if fact]
    return {"head": head, "text": text, "facts": shown, "fold": fold, "tag": tag}


def _count(value: Any, unit: str) -> str:
    return f"{value} {unit}" if value is not None else ""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _browser(
    views: dict[str, list[dict[str, Any]]], unit: str, total: int
) -> dict[str, Any]:
    """Return what the page's script needs, and a note when there is more."""
    fitted: dict[str, list[dict[str, Any]]] = {}
    room = BUDGET
    for place, (name, rows) in enumerate(views.items()):
        fitted[name] = _fitting(rows, room // (len(views) - place))
        room -= len(json.dumps(fitted[name]))
    shown = max(map(len, fitted.values()))
    names = ", ".join(filter(None, fitted)) or f"the first {shown}"
    note = f"Of {total} {unit}: {names}. The file has all." if shown < total else ""
    left = sum(len(rows) - len(fitted[name]) for name, rows in views.items())
    if left and any(views):
        note += f" {left} of these were left out, so that the page stays small."
    return {
        "views": [{"name": name, "rows": rows} for name, rows in fitted.items()],
        "unit": unit,
        "note": note,
    }


def _fitting(rows: Sequence[dict[str, Any]], budget: int) -> list[dict[str, Any]]:
    """Return the first rows, as many as fit a number of letters; long texts are cut."""
    kept: list[dict[str, Any]] = []
    for row in map(_cut, rows):
        budget -= len(json.dumps(row))
        if budget < 0 and kept:
            break
        kept.append(row)
    return kept


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    parts = {
        name: [part | {"text": _short(part["text"])} for part in row[name]]
        for name in ("cells", "more")
    }
    return row | {"prompt": _short(row["prompt"])} | parts


def _short(text: str) -> str:
    more = len(text) - MOST_LETTERS
    return text if more <= 0 else f"{text[:MOST_LETTERS]} … ({more} letters more)"
