"""Rows of texts to page through: replies of systems, of policy steps, pairs, drops.

All browsers show the same kind of row, so one script serves them: a title, a prompt,
cells side by side, and provenance to unfold. A text with `fold` is hidden until the
reader opens it; all that was sampled from, or shown to, a negative prompt has it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import records
from rlcd_jax.report import reading
from rlcd_jax.statistics.estimates import Missing

MAX_PROMPTS = 300  # of the sample browsers, so that the page stays small
SHOWN_PAIRS = 40  # first ones, and random ones
SEED = 0  # of the random choice of pairs
FOLDED = "from the negative prompt: unfold to read"


def samples(runs: Mapping[str, reading.Run]) -> dict[str, Any] | Missing:
    """Return a row for each prompt, with the replies of all systems of all runs."""
    rows: dict[str, dict[str, Any]] = {}
    for label, run in runs.items():
        if isinstance(run.samples, Missing):
            continue
        for sample in run.samples:
            row = rows.setdefault(_title(sample), _row(sample))
            facts = [sample.get("finish"), _count(sample.get("num_tokens"), "tokens")]
            if sample.get("divergence"):
                facts.append(f"KL {sample['divergence']:.3g} nats")
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
            facts = [f"score {score:.3g}" if isinstance(score, int | float) else ""]
            row["cells"].append(_cell(f"step {step}", sample["reply"], facts))
    kept = list(rows.values())[:MAX_PROMPTS]
    return _browser({"": kept}, "prompts", len(rows))


def pairs(run: reading.Run) -> dict[str, Any] | Missing:
    """Return the first pairs and a random choice of pairs, with their provenance."""
    if isinstance(run.pairs, Missing):
        return run.pairs
    if not run.pairs:
        return Missing("pairs/pairs.jsonl is empty")
    views = {f"first {SHOWN_PAIRS}": run.pairs[:SHOWN_PAIRS]}
    if len(run.pairs) > SHOWN_PAIRS:
        chosen = random.Random(SEED).sample(run.pairs, SHOWN_PAIRS)
        views[f"random {SHOWN_PAIRS}"] = chosen
    else:
        views = {"all": run.pairs}
    shown = {name: [_pair(pair) for pair in several] for name, several in views.items()}
    return _browser(shown, "pairs", len(run.pairs))


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


def _pair(pair: records.Pair) -> dict[str, Any]:
    """Return the row of a pair; what the negative prompt gave or was is folded."""
    cells, more = [], []
    for n, prob in (("1", 1 - pair.prob_2), ("2", pair.prob_2)):
        field = {
            name: getattr(pair, f"{name}_{n}")
            for name in ("reply", "side", "source_prompt", "raw", "tries", "finish")
        }
        fold = FOLDED if field["side"] == "negative" else ""
        facts = [f"better: {prob:.3g}", f"tries {field['tries']}", field["finish"]]
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
    shown = max(len(rows) for rows in views.values())
    names = " and ".join(name for name in views if name) or f"the first {shown}"
    more = f"Of {total} {unit}: {names}. The file has all."
    return {
        "views": [{"name": name, "rows": rows} for name, rows in views.items()],
        "unit": unit,
        "note": more if shown < total else "",
    }
