"""What the sections of the page say: config, stages, counts of pairs, cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import dotted, phases
from rlcd_jax.job import roles
from rlcd_jax.pairs import cut_counts, length_counts
from rlcd_jax.report import reading, table_files
from rlcd_jax.statistics.estimates import Missing

ABSENT = "absent"


def is_estimate(value: Any) -> bool:
    """Say whether a JSON value is an estimate with its interval."""
    bounds = ("value", "low", "high")
    return isinstance(value, Mapping) and all(
        table_files.is_number(value.get(name)) for name in bounds
    )


def flatten(tree: Any) -> dict[str, Any]:
    """Return the leaves of nested objects by dotted name; an estimate is a leaf."""
    return dotted.flatten(tree, is_estimate)


def show(value: Any) -> str:
    """Return a JSON value as a person would write it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value or '""'
    if isinstance(value, list | tuple):
        return ", ".join(map(show, value)) or "none"
    if is_estimate(value):
        return "{value:.4g} [{low:.4g}, {high:.4g}]".format(**value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {show(v)}" for key, v in value.items()) or "none"
    return str(value)


def duration(seconds: float) -> str:
    """Return a duration as `2 h 05 min`, `3 min 20 s` or `4.1 s`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def title(run: reading.Run) -> str:
    """Return the name of a run: its method and task, else its folder."""
    if reading.is_missing(run.config):
        return run.folder.resolve().name
    config = flatten(run.config)
    parts = [config.get("name"), config.get("task"), _models(run.config)]
    return " · ".join(str(part) for part in parts if part) or run.folder.resolve().name


def _models(config: Mapping[str, Any]) -> str | None:
    """Return the model of a run, of each role if they are several; None: not said."""
    model = config.get("model")
    if not isinstance(model, Mapping) or not model.get(roles.MODEL):
        return None
    return roles.told(model)


def changes(
    run: reading.Run, preset: Mapping[str, Any] | None
) -> list[tuple[str, str, str]] | Missing:
    """Return (field, in the preset, in this run) of each field that differs."""
    if preset is None:
        return Missing("no preset was given to compare with")
    return differences(dict(preset), run.config)


def differences(
    *parts: dict[str, Any] | Missing,
) -> list[tuple[str, ...]] | Missing:
    """Return (name, value in each of the objects) where they are not all the same."""
    for part in parts:
        if isinstance(part, Missing):
            return part
    flat = [flatten(json.loads(json.dumps(part))) for part in parts]
    rows = []
    for name in sorted({name for one in flat for name in one}):
        held = [one[name] for one in flat if name in one]
        if len(held) == len(flat) and all(value == held[0] for value in held):
            continue
        rows.append((name, *(show(f[name]) if name in f else ABSENT for f in flat)))
    return rows


def config_groups(
    config: dict[str, Any] | Missing,
) -> list[tuple[str, list[tuple[str, str]]]] | Missing:
    """Return the fields of a config by section; those without one come first."""
    if isinstance(config, Missing):
        return config
    plain = {k: v for k, v in config.items() if not isinstance(v, Mapping)}
    groups = [("run", key_values(plain))]
    groups += [
        (name, key_values(section))
        for name, section in config.items()
        if isinstance(section, Mapping)
    ]
    return [(name, rows) for name, rows in groups if rows]


def key_values(part: Mapping[str, Any] | Missing) -> list[tuple[str, str]] | Missing:
    """Return the leaves of an object as (name, text)."""
    if isinstance(part, Missing):
        return part
    return [(name, show(value)) for name, value in flatten(part).items() if name]


def plan(part: Mapping[str, Any] | Missing) -> dict[str, Any] | Missing:
    """Return what a plan of the run shows: notes, tables, verdicts.

    Args:
      part: plan.json, which `experiments.plan --workdir` has left.
    """
    if isinstance(part, Missing):
        return part
    try:
        shown = part["shown"]
        grids = [shown[name] for name in ("table", "compiled")]
        return {
            "notes": [str(line) for line in shown["notes"]],
            "tables": [
                ([str(one) for one in grid["headings"]], _texts(grid["rows"]))
                for grid in grids
                if grid["rows"]
            ],
            "verdicts": [str(line) for line in shown["verdicts"]],
        }
    except (KeyError, TypeError) as error:
        return Missing(f"plan.json holds no table ({error}); plan with --workdir again")


def _texts(rows: list[list[Any]]) -> list[list[str]]:
    return [[str(cell) for cell in row] for row in rows]


def stages(run: reading.Run) -> list[dict[str, Any]]:
    """Return what there is to say on each stage."""
    return [
        {
            "name": stage.name,
            "folder": f"{stage.folder}/",
            "makes": stage.makes,
            "state": stage.state,
            "summary": key_values(_without_table(stage.summary)),
        }
        for stage in run.stages
    ]


def _without_table(summary: dict[str, Any] | Missing) -> dict[str, Any] | Missing:
    """Leave out the table of an evaluation, which has a section of its own."""
    if isinstance(summary, Missing):
        return summary
    return {name: value for name, value in summary.items() if name != "table"}


def tiles(run: reading.Run) -> list[tuple[str, str]]:
    """Return how far the run is and how large; only those figures that are there.

    Each is (what, figure).
    """
    done = sum(stage.state == "finished" for stage in run.stages)
    asked = sum(stage.state != "not part of this run" for stage in run.stages)
    shown = [("stages finished", f"{done} of {asked}")]
    pairs = run.stage("simulate").summary
    if not reading.is_missing(pairs):
        for key, what in (("pairs", "pairs"), ("prompts_dropped", "prompts dropped")):
            if key in pairs:
                shown.append((what, show(pairs[key])))
    elif not reading.is_missing(run.pairs):
        shown.append(("pairs", str(len(run.pairs))))
    if not reading.is_missing(run.metrics):
        steps = [row["step"] for row in run.metrics if row["stage"] == "policy"]
        shown += [("policy steps", str(max(steps)))] if steps else []
    spent = [seconds for stage in run.stages if (seconds := _seconds(stage))]
    if spent:
        shown.append(("time in finished stages", duration(sum(spent))))
    return shown


def too_long(run: reading.Run) -> list[tuple[str, str, list[int]]]:
    """Return what became of texts that are too long: (stage, texts, counts).

    The counts are as in `length_counts.COUNTED`; stages that left none are out.
    """
    return _counted(run, length_counts.SUMMARY, length_counts.COUNTED)


def cut(run: reading.Run) -> list[tuple[str, str, list[int]]]:
    """Return what became of replies that were cut: (stage, replies, counts).

    The counts are as in `cut_counts.COUNTED`; stages that draw none are out.
    """
    return _counted(run, cut_counts.SUMMARY, cut_counts.COUNTED)


def _counted(
    run: reading.Run, field: str, counted: Sequence[str]
) -> list[tuple[str, str, list[int]]]:
    """Return the counts that summaries have in a field, by stage and kind of text."""
    rows = []
    for stage in run.stages:
        summary = None if reading.is_missing(stage.summary) else stage.summary
        kinds = (summary or {}).get(field)
        for what, counts in kinds.items() if isinstance(kinds, Mapping) else ():
            if isinstance(counts, Mapping) and counts.keys() >= {*counted}:
                shown = [counts[name] for name in counted]
                rows.append((stage.name, what, shown))
    return rows


def drops(run: reading.Run) -> dict[str, Any] | Missing:
    """Return a count of each reason for which a side gave no reply.

    A dict with `sides`, `rows` of (reason, counts in the order of the sides),
    their `totals`, the number of `prompts` that gave no pair, and how many pairs were
    `filtered`, left out by their scores, as text.
    """
    summary = run.stage("simulate").summary
    if reading.is_missing(summary):
        return summary
    by_side = summary.get("dropped_by_side")
    if not isinstance(by_side, dict):
        return Missing("pairs/summary.json has no field 'dropped_by_side'")
    sides = sorted(by_side, key=lambda side: ("positive", "negative").count(side) == 0)
    reasons = sorted({reason for counts in by_side.values() for reason in counts})
    rows = [(r, [by_side[side].get(r, 0) for side in sides]) for r in reasons]
    return {
        "sides": sides,
        "rows": rows,
        "totals": [sum(by_side[side].values()) for side in sides],
        "prompts": summary.get("prompts_dropped"),
        "filtered": show(summary["filtered"]) if summary.get("filtered") else "",
    }


def pair_cells(run: reading.Run) -> list[dict[str, str]] | Missing:
    """Return tries, finishes and lengths of each side of each kind of pair."""
    summary = run.stage("simulate").summary
    if reading.is_missing(summary):
        return summary
    cells = summary.get("cells")
    if not isinstance(cells, dict):
        return Missing("pairs/summary.json has no field 'cells'")
    return [
        {"kind": kind, "pairs": show(cell.get("pairs")), "side": side}
        | {name: show(value) for name, value in figures.items()}
        for kind, cell in cells.items()
        for side, figures in cell.get("sides", {}).items()
    ]


def cost(runs: Mapping[str, reading.Run]) -> list[dict[str, Any]]:
    """Return the time that stages took, and what they say they cost.

    `seconds` is the stage's own figure; `span` is from its first to its last line
    of metrics, pauses included; `where` has its phases, with their share of them all.
    """
    rows = []
    for label, run in runs.items():
        for stage in run.stages:
            row = {"run": label, "stage": stage.name, "seconds": "", "span": ""}
            if seconds := _seconds(stage):
                row["seconds"] = duration(seconds)
            lines = [] if reading.is_missing(run.metrics) else run.metrics
            lines = [line for line in lines if line["stage"] == stage.name]
            times = [line["wall_time"] for line in lines if "wall_time" in line]
            if len(times) > 1:
                row["span"] = duration(max(times) - min(times))
            row["where"] = _where(stage, lines)
            row["costs"] = _costs(stage)
            if row["seconds"] or row["span"] or row["where"] or row["costs"]:
                rows.append(row)
    return rows


def _seconds(stage: reading.StageState) -> float | None:
    if reading.is_missing(stage.summary):
        return None
    value = stage.summary.get("seconds")
    return value if isinstance(value, int | float) else None


def _where(
    stage: reading.StageState, lines: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return what a stage's time went to: phases with `share` and `text`, by size.

    A finished stage says it in its summary, others in their metrics. What took less
    than a hundredth is left to the rest.
    """
    summary = {} if reading.is_missing(stage.summary) else stage.summary
    spent = phases.of(summary) or phases.of(phases.added(lines))
    whole = sum(spent.values())
    long = {name: one for name, one in spent.items() if one >= 0.01 * whole > 0}
    long.pop(phases.OTHER, None)
    if left := sum(one for name, one in spent.items() if name not in long):
        long[phases.OTHER] = left
    return [
        {
            "name": name,
            "share": round(100.0 * seconds / whole, 1),
            "text": f"{name} {duration(seconds)} ({100.0 * seconds / whole:.0f} %)",
        }
        for name, seconds in sorted(
            long.items(), key=lambda item: (item[0] == phases.OTHER, -item[1])
        )
    ]


def _costs(stage: reading.StageState) -> str:
    """Return the fields of a summary whose name speaks of cost."""
    if reading.is_missing(stage.summary):
        return ""
    flat = flatten(stage.summary)
    return ", ".join(f"{k}: {show(v)}" for k, v in flat.items() if "cost" in k)
