"""A plan as plain data and as text for people, in GiB a device and in hours."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax.planning import advice, chips, compiled, passes, plan

GAP = "  "  # between columns


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that is said of a plan.

    Attributes:
      plan: of all stages.
      change: what to change where it does not work; None: nothing, or nothing helps.
      measured: the compiler's figures by stage, where it was asked.
      problems: what the run's own first checks refuse in the config.
      price: of one chip for one hour, in any currency; 0: not known.
    """

    plan: plan.Plan
    change: advice.Advice | None = None
    measured: Mapping[str, compiled.Measured] = dataclasses.field(default_factory=dict)
    problems: Sequence[str] = ()
    price: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.price < float("inf"):
            raise ValueError(
                f"price {self.price}; accepted: of one chip for one hour, or 0"
            )

    @property
    def works(self) -> bool:
        """Whether a run would start, and fit."""
        return self.plan.works and not self.problems


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain data; an unknown figure is left out."""
    made = report.plan
    chip = made.topology.chip
    return {
        "topology": made.topology.text,
        "model": made.model,
        "parameters": made.num_params,
        "mesh": made.mesh,
        "heads": made.heads,
        "usable_gib": chip.usable_gib,
        "margin": chips.MARGIN,
        "source": chip.source,
        "product_share": made.efficiency,
        "bandwidth_share": chips.BANDWIDTH_SHARE,
        "train_prompts": made.train_prompts,
        "test_prompts": made.test_prompts,
        "works": report.works,
        "problems": list(report.problems),
        "change": report.change.as_flags() if report.change else "",
        **_spent(report, made.total_hours),
        "stages": {stage.name: _stage_json(report, stage) for stage in made.stages},
    }


def _stage_json(report: Report, stage: plan.StagePlan) -> dict[str, Any]:
    made = report.plan
    if stage.problem:
        shown: dict[str, Any] = {"verdict": plan.REFUSED, "problem": stage.problem}
    else:
        shown = {
            "verdict": made.verdict(stage),
            "largest_program": stage.largest.name,
            "needs_gib": _gib(stage.largest.total),
            **_spent(report, made.hours(stage)),
            "programs": {one.name: _program_json(made, one) for one in stage.programs},
        }
    if stage.name in report.measured:
        shown["compiled"] = dataclasses.asdict(report.measured[stage.name])
    return shown


def _program_json(made: plan.Plan, one: passes.Program) -> dict[str, Any]:
    seconds = made.seconds(one)
    sizes = {name: _gib(size) for name, size in one.sizes.items() if size}
    hours = {} if seconds is None else {"hours": round(seconds / 3600, 3)}
    return {**sizes, "total": _gib(one.total), "model_flops": one.flops, **hours}


def _spent(report: Report, hours: float | None) -> dict[str, float]:
    """Return hours and, where there is a price, their cost; nothing if not known."""
    if hours is None:
        return {}
    spent = {"hours": round(hours, 3)}
    if report.price:
        spent["cost"] = round(report.plan.cost(hours, report.price), 2)
    return spent


def _gib(size: float) -> float:
    return round(size / chips.GIB, 3)


def as_text(report: Report) -> str:
    """Return a report for people: lines as wide as they need to be, nothing cut."""
    made = report.plan
    lines = [*_heading(made), "", *align(*programs_grid(report)), ""]
    lines += [f"the run's own checks refuse: {one}" for one in report.problems]
    for stage in made.stages:
        lines.append(f"{stage.name}: {_verdict_text(made, stage)}")
        if stage.name in report.measured:
            lines.append(measured_text(stage, report.measured[stage.name]))
    lines += _total_text(report)
    if report.change:
        lines.append(f"all stages fit with  {report.change.as_flags()}")
    elif any(made.verdict(stage) == plan.REFUSED for stage in made.stages):
        lines.append("no mesh or batch changes what is refused: mend that first")
    elif not made.works:
        lines.append("no mesh, batch or number of slots fits: use larger chips")
    return "\n".join(lines)


def _heading(made: plan.Plan) -> list[str]:
    chip = made.topology.chip
    room = "unknown memory"
    if chip.usable_gib is not None:
        room = f"{chip.usable_gib:.4g} GiB usable each, {chips.MARGIN:.0%} left free"
    mesh = ", ".join(f"{name}={size}" for name, size in made.mesh.items())
    return [
        f"{made.model} ({made.num_params / 1e9:.3g}B parameters) on "
        f"{made.topology.text}: {made.topology.num_devices} x {chip.name}, {room}",
        f"mesh: {mesh}",
        *filter(None, [made.heads]),
        f"chip: {chip.source}",
        f"prompts: {made.train_prompts} to train, {made.test_prompts} held out",
        "",
        "GiB a device, at the worst moment of each program; hours: replies as long as "
        "allowed,",
        f"{made.efficiency:.0%} of the peak rate, {chips.BANDWIDTH_SHARE:.0%} of the "
        "bandwidth in decoding; host time and communication left out",
    ]


def programs_grid(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the headings and cells of the table of all programs.

    A blank row ends each stage; columns in which all cells are empty are left out.
    """
    made, priced = report.plan, bool(report.price)
    headings = ["program", *passes.SIZES, "total", "PFLOP", "hours"]
    headings += ["cost"] * priced
    rows: list[list[str]] = []
    for stage in made.stages:
        if rows and stage.programs:
            rows.append([""] * len(headings))
        for one in stage.programs:
            seconds = made.seconds(one)
            hours = None if seconds is None or not one.flops else seconds / 3600
            sizes = [one.sizes.get(name, 0) for name in passes.SIZES]
            cells = [f"{size / chips.GIB:.2f}" if size else "" for size in sizes]
            cells += [f"{one.total / chips.GIB:.2f}"]
            cells += [f"{one.flops / 1e15:,.0f}" if one.flops else ""]
            cells += ["" if hours is None else f"{hours:,.2f}"]
            if priced:
                cost = None if hours is None else made.cost(hours, report.price)
                cells.append("" if cost is None else f"{cost:,.2f}")
            rows.append([f"{stage.name} {one.name}", *cells])
    used = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in rows)]
    return [headings[i] for i in used], [[row[i] for i in used] for row in rows]


def align(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
        return GAP.join([first, *rest]).rstrip()

    rule = GAP.join("-" * width for width in widths)
    return [line(headings), rule, *map(line, rows)]


def _verdict_text(made: plan.Plan, stage: plan.StagePlan) -> str:
    found, limit = made.verdict(stage), made.topology.chip.limit_gib
    if found == plan.REFUSED:
        return f"{found}: {stage.problem}"
    need = f"{stage.largest.total / chips.GIB:.2f} GiB for {stage.largest.name}"
    of = "" if limit is None else f", of {limit:.2f} GiB"
    return f"{found}: {need}{of}"


def _total_text(report: Report) -> list[str]:
    """Return what each stage and all of them take, in hours and money."""
    made = report.plan
    known = [(stage.name, made.hours(stage)) for stage in made.stages]
    known.append(("in all", made.total_hours))
    parts = []
    for name, hours in known:
        if hours is not None:
            cost = ""
            if report.price:
                cost = f" (cost {made.cost(hours, report.price):,.2f})"
            parts.append(f"{name} {hours:,.2f} h{cost}")
    if not parts:
        return []
    missing = [name for name, hours in known[:-1] if hours is None]
    left = f"; without {', '.join(missing)}" if missing else ""
    return [f"time by the clock: {', '.join(parts)}{left}"]


def measured_text(stage: plan.StagePlan, found: compiled.Measured) -> str:
    """Return one line on what the compiler said, beside the plan's own figures."""
    if found.problem:
        return f"  the compiler refuses: {found.problem}"
    update = next((one for one in stage.programs if one.name == "update"), None)
    beside = ""
    if update:
        own = [n for n in passes.SIZES if n not in ("frozen", "decode", "cache")]
        estimate = sum(update.sizes.get(name, 0) for name in own)
        beside = (
            f"; estimates: peak {estimate / chips.GIB:.3f}, "
            f"arguments {update.arguments / chips.GIB:.3f}"
        )
    return (
        f"  compiled in {found.seconds:.0f} s: peak "
        f"{found.peak / chips.GIB:.3f} GiB, arguments "
        f"{found.arguments / chips.GIB:.3f}, temporary "
        f"{found.temporary / chips.GIB:.3f}{beside}"
    )
