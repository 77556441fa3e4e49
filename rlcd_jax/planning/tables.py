"""A plan as plain data, as tab-separated rows and as text for people.

Sizes are in GiB a device, work in PFLOP of all devices, memory traffic in TB and what
is sent in GB of one device, times in hours by the clock.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from rlcd_jax.planning import advice, chips, compiled, passes, plan, search

GAP = "  "  # between columns
FORMATS = ("text", "tsv", "json")


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that is said of a plan.

    Attributes:
      plan: of all stages.
      change: what to change where it does not work; None: nothing, or nothing helps.
      measured: the compiler's figures by stage and program, where it was asked.
      problems: what the run's own first checks refuse in the config.
      ranked: what a search found, the fastest first; None: there was none.
    """

    plan: plan.Plan
    change: advice.Advice | None = None
    measured: compiled.Figures = dataclasses.field(default_factory=dict)
    problems: Sequence[str] = ()
    ranked: Sequence[search.Candidate] | None = None

    @property
    def works(self) -> bool:
        """Whether a run would start, and fit."""
        return self.plan.works and not self.problems and not self.refusals

    @property
    def refusals(self) -> list[str]:
        """What the compiler refuses, or finds too large with what else is held."""
        limit = self.plan.limit_gib
        said = []
        for stage in self.plan.stages:
            for one in stage.programs:
                measured = self.measured_of(stage.name, one.name)
                if measured is None:
                    continue
                whole = (measured.peak + sum(one.beside.values())) / chips.GIB
                if measured.problem:
                    said.append(f"{stage.name} {one.name}: {measured.problem}")
                elif limit is not None and whole > limit:
                    said.append(
                        f"{stage.name} {one.name}: {whole:.2f} GiB of {limit:.2f}"
                    )
        return said

    def measured_of(self, stage: str, program: str) -> compiled.Measured | None:
        """Return the compiler's figures of one program, if it was asked."""
        return self.measured.get(stage, {}).get(program)


def as_json(report: Report) -> dict[str, Any]:
    """Return a report as plain data; an unknown figure is left out."""
    made = report.plan
    chip = made.topology.chip
    data = {
        "topology": made.topology.name,
        "models": {
            role: {"spec": spec, "parameters": count}
            for role, (spec, count) in made.models.items()
        },
        "mesh": made.mesh,
        "heads": made.heads,
        "usable_gib": chip.usable_gib,
        "limit_gib": made.limit_gib,
        "rates": {**dataclasses.asdict(made.rates), "link_share": chips.LINK_SHARE},
        "source": chip.source,
        "train_prompts": made.train_prompts,
        "test_prompts": made.test_prompts,
        "works": report.works,
        "problems": list(report.problems),
        "change": report.change.as_flags() if report.change else "",
        **_spent(report, made.total_hours),
        "stages": {stage.name: _stage_json(report, stage) for stage in made.stages},
        "shown": {  # what a run's report shows
            "notes": _heading(made),
            "table": _grid_json(*programs_grid(report)),
            "compiled": _grid_json(*compiled_grid(report)),
            "verdicts": [*_verdicts(report), *_total_text(report)],
        },
    }
    if report.ranked is not None:
        data["ranked"] = [one.as_json() for one in report.ranked]
    return data


def _grid_json(headings: list[str], rows: list[list[str]]) -> dict[str, Any]:
    return {"headings": headings, "rows": [row for row in rows if any(row)]}


def _stage_json(report: Report, stage: plan.StagePlan) -> dict[str, Any]:
    made = report.plan
    if stage.problem:
        return {"verdict": plan.REFUSED, "problem": stage.problem}
    return {
        "verdict": made.verdict(stage),
        "largest_program": stage.largest.name,
        "needs_gib": _gib(stage.largest.total),
        **_spent(report, made.hours(stage)),
        "programs": {
            one.name: _program_json(report, stage, one) for one in stage.programs
        },
    }


def _program_json(
    report: Report, stage: plan.StagePlan, one: passes.Program
) -> dict[str, Any]:
    made = report.plan
    seconds = made.seconds(one)
    measured = report.measured_of(stage.name, one.name)
    return {
        **{name: _gib(size) for name, size in one.sizes.items() if size},
        "total": _gib(one.total),
        "peak": _gib(one.peak),
        "arguments": _gib(one.arguments),
        "model_flops": one.flops,
        "bytes_read": one.traffic,
        "bytes_sent": one.moved.total,
        "runs": one.runs,
        **({} if seconds is None else {"hours": round(seconds / 3600, 4)}),
        **({"compiled": dataclasses.asdict(measured)} if measured else {}),
    }


def _spent(report: Report, hours: float | None) -> dict[str, float]:
    """Return hours and, where there is a price, their cost; nothing if not known."""
    if hours is None:
        return {}
    spent = {"hours": round(hours, 4)}
    if report.plan.rates.price:
        spent["cost"] = round(report.plan.cost(hours), 2)
    return spent


def _gib(size: float) -> float:
    return round(size / chips.GIB, 4)


def as_tsv(report: Report) -> str:
    """Return the table of all programs, tab-separated, with headings."""
    headings, rows = programs_grid(report)
    full = [row for row in rows if any(row)]
    return "\n".join("\t".join(cells).replace(",", "") for cells in [headings, *full])


def as_text(report: Report) -> str:
    """Return a report for people: lines as wide as they need to be, nothing cut."""
    made = report.plan
    lines = [*_heading(made), "", *align(*programs_grid(report)), ""]
    if report.measured:
        lines += [*align(*compiled_grid(report)), ""]
    lines += [*_verdicts(report), *_total_text(report)]
    if report.ranked is not None:
        lines += ["", *_ranked_text(made, report.ranked)]
    elif report.change:
        lines.append(f"all stages fit with  {report.change.as_flags()}")
    elif any(made.verdict(stage) == plan.REFUSED for stage in made.stages):
        lines.append("no mesh or batch changes what is refused: mend that first")
    elif not made.works:
        lines.append("no mesh, batch or number of slots fits: use larger chips")
    return "\n".join(lines)


def _heading(made: plan.Plan) -> list[str]:
    chip, rates = made.topology.chip, made.rates
    room = "unknown memory"
    if chip.usable_gib is not None:
        room = f"{chip.usable_gib:.4g} GiB usable each, {rates.margin:.0%} left free"
    mesh = ", ".join(f"{name}={size}" for name, size in made.mesh.items())
    price = "no price known: costs left out"
    if rates.price:
        price = f"price: {rates.price:.2f} of a chip for an hour"
    if rates.price and rates.price == chip.price:
        price += f" ({chips.PRICES_OF})"
    return [
        f"{_models(made)} on {made.topology.name}: {made.topology.num_devices} x "
        f"{chip.name}, {room}",
        f"mesh: {mesh}",
        *filter(None, [made.heads]),
        f"chip: {chip.source}",
        price,
        f"prompts: {made.train_prompts} to train, {made.test_prompts} held out",
        "",
        "GiB a device, at the worst moment of each program; PFLOP of the model on all "
        "devices;",
        "TB of its memory that a device reads and GB that it sends, in all runs;",
        f"hours: texts as long as allowed, {rates.efficiency:.0%} of the peak rate, "
        f"{rates.bandwidth_share:.0%} of the bandwidth, {chips.LINK_SHARE:.0%} of the "
        "links, host time left out",
    ]


def _models(made: plan.Plan) -> str:
    """Return the models and their sizes; of which role, where they are several."""
    held: dict[tuple[str, int], list[str]] = {}
    for role, model in made.models.items():
        held.setdefault(model, []).append(role)
    said = (f"{', '.join(own)}; " * (len(held) > 1) for own in held.values())
    return ", ".join(
        f"{spec} ({of}{count / 1e9:.3g}B parameters)"
        for (spec, count), of in zip(held, said, strict=True)
    )


def programs_grid(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the headings and cells of the table of all programs.

    A blank row ends each stage; columns in which all cells are empty are left out.
    """
    made, priced = report.plan, bool(report.plan.rates.price)
    headings = ["program", *passes.SIZES, "total", "PFLOP", "TB read", "GB sent"]
    headings += ["hours"] + ["cost"] * priced
    rows: list[list[str]] = []
    for stage in made.stages:
        if rows and stage.programs:
            rows.append([""] * len(headings))
        for one in stage.programs:
            seconds = made.seconds(one)
            hours = None if seconds is None or not one.runs else seconds / 3600
            sizes = [one.sizes[name] for name in passes.SIZES]
            cells = [f"{size / chips.GIB:.2f}" if size else "" for size in sizes]
            cells += [f"{one.total / chips.GIB:.2f}"]
            cells += [_figure(one.flops / 1e15), _figure(one.traffic / 1e12)]
            cells += [_figure(one.moved.total / 1e9)]
            cells += ["" if hours is None else f"{hours:,.2f}"]
            if priced:
                cells.append("" if hours is None else f"{made.cost(hours):,.2f}")
            rows.append([f"{stage.name} {one.name}", *cells])
    used = [i for i in range(len(headings)) if i == 0 or any(row[i] for row in rows)]
    return [headings[i] for i in used], [[row[i] for i in used] for row in rows]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value else ""


def compiled_grid(report: Report) -> tuple[list[str], list[list[str]]]:
    """Return the compiler's figures of each program beside the plan's, GiB a device."""
    headings = ["compiled", "arguments", "planned", "peak", "planned", "of it"]
    headings += ["with what is beside", "seconds", "collectives (runs, GB sent) a run"]
    rows = []
    for stage in report.plan.stages:
        for one in stage.programs:
            measured = report.measured_of(stage.name, one.name)
            if measured is None or measured.problem:
                continue
            sizes = (measured.arguments, one.arguments, measured.peak, one.peak)
            whole = measured.peak + sum(one.beside.values())
            sent = [
                f"{kind} {runs} x, {size / 1e9:.2f}"
                for kind, (runs, size) in (measured.collectives or {}).items()
            ]
            if measured.collectives is None:
                sent = ["not printed by the compiler"]
            rows.append(
                [
                    f"{stage.name} {one.name}",
                    *(f"{size / chips.GIB:.3f}" for size in sizes),
                    f"{one.peak / max(measured.peak, 1):.0%}",
                    f"{whole / chips.GIB:.2f}",
                    f"{measured.seconds:.0f}",
                    "; ".join(sent),
                ]
            )
    return headings, rows


def align(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table: the first column left, the others right."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
        return GAP.join([first, *rest]).rstrip()

    rule = GAP.join("-" * width for width in widths)
    return [line(headings), rule, *map(line, rows)]


def _verdicts(report: Report) -> list[str]:
    """Return a line for each stage, and for all that is refused."""
    made = report.plan
    lines = [f"the run's own checks refuse: {one}" for one in report.problems]
    lines += [f"{stage.name}: {_verdict_text(made, stage)}" for stage in made.stages]
    return lines + [f"by the compiler too large: {one}" for one in report.refusals]


def _verdict_text(made: plan.Plan, stage: plan.StagePlan) -> str:
    verdict, limit = made.verdict(stage), made.limit_gib
    if verdict == plan.REFUSED:
        return f"{verdict}: {stage.problem}"
    need = f"{stage.largest.total / chips.GIB:.2f} GiB for {stage.largest.name}"
    of = "" if limit is None else f", of {limit:.2f} GiB"
    return f"{verdict}: {need}{of}"


def _total_text(report: Report) -> list[str]:
    """Return what each stage and all of them take, in hours and money."""
    made = report.plan
    known = [(stage.name, made.hours(stage)) for stage in made.stages]
    known.append(("in all", made.total_hours))
    parts = [f"{name} {_hours(made, h)}" for name, h in known if h is not None]
    if not parts:
        return []
    missing = [name for name, hours in known[:-1] if hours is None]
    left = f"; without {', '.join(missing)}" if missing else ""
    return [f"time by the clock: {', '.join(parts)}{left}"]


def _hours(made: plan.Plan, hours: float) -> str:
    cost = f" (cost {made.cost(hours):,.2f})" if made.rates.price else ""
    return f"{hours:,.2f} h{cost}"


def _ranked_text(
    made: plan.Plan, ranked: Sequence[search.Candidate], most: int = 10
) -> list[str]:
    """Return the best of what a search found, one line each."""
    if not ranked:
        return ["no mesh, batch, remat or number of slots fits: use larger chips"]
    lines = [f"{len(ranked)} settings fit; the fastest, all stages together:"]
    for one in ranked[:most]:
        lines.append(
            f"{_hours(made, one.hours)}, {one.largest_gib:.1f} GiB: {one.as_flags()}"
        )
    return lines


def render(report: Report, form: str) -> str:
    """Return a report in one of `FORMATS`."""
    if form == "json":
        return json.dumps(as_json(report), indent=2)
    return as_tsv(report) if form == "tsv" else as_text(report)
