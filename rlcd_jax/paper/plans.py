"""Which tables there are, what they may take, and making them.

What cannot be made is marked as missing in its table, with the reason.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Mapping

from absl import logging

from rlcd_jax import processes, record_files, report
from rlcd_jax.pairs import work_parts
from rlcd_jax.paper import (
    cells,
    costs,
    graph,
    labels,
    measures,
    methods,
    node_stages,
    nodes,
    people_tables,
    quirks,
    read_config,
    strength,
    win_tables,
)
from rlcd_jax.report import reading
from rlcd_jax.statistics import estimates, tables

FOLDER = "tables"
ALIKE = 60.0  # seconds between processes that fail of the same
ALL = "all"

PLANS: Mapping[str, Callable[[nodes.Recipes], cells.TablePlan]] = {
    "theory": labels.theory,
    "methods": methods.compared,
    "2": people_tables.rated,
    "36": labels.labels,
    "strength": strength.swept,
    "5": labels.people_pairs,
    "3": lambda recipes: win_tables.judged(recipes, "3"),
    "length": measures.lengths,
    "diversity": measures.diversities,
    "perplexity": measures.perplexities,
    "28": lambda recipes: measures.rewards(recipes, "28"),
    "29": lambda recipes: measures.rewards(recipes, "29"),
    "6": lambda recipes: win_tables.judged(recipes, "6"),
    "23": people_tables.agreed,
    "16": lambda recipes: win_tables.judged(recipes, "16"),
    "40": lambda recipes: win_tables.judged(recipes, "40"),
    "quirks": quirks.turned,
}
APART = ("quirks",)  # asked for by name alone: it trains a policy for every switch


@dataclasses.dataclass(frozen=True)
class Asked:
    """What of the chosen tables a command makes.

    Attributes:
      dry_run: nothing; it only says what would be made.
      node: the name of the one node to make, and no table; "": the tables.
      part: "K/N": draw part K of N of a node of pairs; "": all of it.
    """

    dry_run: bool = False
    node: str = ""
    part: str = ""

    def __post_init__(self) -> None:
        if self.part and not self.node:
            raise ValueError(
                f"--part={self.part} is a part of one node; add --node=NAME"
            )

    def makes(self, plans: Mapping[str, cells.TablePlan]) -> bool:
        """Say whether a model has work to do for the chosen tables."""
        return not self.dry_run and bool(self.node or wanted(plans))


def choose(setup: read_config.Setup) -> dict[str, cells.TablePlan]:
    """Return the plans of the tables that the config asks for, by name.

    Raises:
      ValueError: the table, a method or a task is not known.
    """
    asked = setup.config.table
    if asked not in (*PLANS, ALL):
        raise ValueError(f"table={asked!r}; accepted: {', '.join((*PLANS, ALL))}")
    methods.check(setup.methods)
    quirks.check(setup.quirks)
    recipes = nodes.Recipes(setup)
    names = [n for n in PLANS if n not in APART] if asked == ALL else [asked]
    return {name: PLANS[name](recipes) for name in names}


def wanted(plans: Mapping[str, cells.TablePlan]) -> list[graph.Node]:
    """Return the nodes that tables are built of, without those they need in turn."""
    return [node for plan in plans.values() for node in plan.nodes]


def forecast(
    setup: read_config.Setup, plans: Mapping[str, cells.TablePlan], *, whole: bool
) -> str:
    """Return what would be made, with its tokens and hours; `whole`: every node."""
    needed = wanted(plans)
    ordered = graph.in_order(needed)
    missing = {node.key for node in graph.needed(setup.root, needed)}
    rates = setup.config.rates
    lines, hours, calls = [], 0.0, 0.0
    for node in ordered:
        cost = node.cost
        own = costs.hours(cost, rates)
        if node.key in missing:
            state = "to make"
            hours += own
            calls += cost.calls
        else:
            state = "exists" if graph.is_done(setup.root, node) else "not needed"
        tokens = (cost.generated, cost.trained, cost.scored)
        shown = " ".join(f"{count:>12,.0f}" for count in tokens)
        name = graph.name_of(node)
        lines.append(f"{state:<10} {shown} {own:>9.2f}  {name}")
    names = " ".join(f"{x:>12}" for x in ("generated", "trained", "read"))
    head = f"{'':<10} {names} {'hours':>9}  node (tokens are upper bounds)"
    total = (
        f"{len(ordered)} nodes, {len(missing)} to make: at most {hours:,.1f} hours at "
        f"{rates.generate:,.0f} tokens/s generated and {rates.train:,.0f} trained "
        f"(scale {setup.config.scale}: {rates.hardware})"
    )
    if rates.price:
        total += f"; cost {hours * rates.price:,.0f} at {rates.price:,.2f} an hour"
    if calls:
        total += f"; {calls:,.0f} calls of the API judge"
    return "\n".join([head, *lines, total] if whole and lines else [total])


def carry_out(
    setup: read_config.Setup,
    plans: Mapping[str, cells.TablePlan],
    asked: Asked,
    say: Callable[[str], None],
) -> None:
    """Make what is asked for of the chosen tables, or say what it would take.

    Args:
      setup: of the tables.
      plans: of those that are chosen.
      asked: what to make.
      say: what tells a person; on one process of many.
    """
    if not processes.is_writer():
        say = _say_nothing
    if asked.node and asked.makes(plans):
        make_node(setup, plans, asked.node, part=asked.part, say=say)
        return
    say(forecast(setup, plans, whole=asked.dry_run))
    if not asked.dry_run:
        make(setup, plans, say=say)


def _say_nothing(text: str) -> None:
    """Leave telling to the process that writes."""


def make(
    setup: read_config.Setup,
    plans: Mapping[str, cells.TablePlan],
    say: Callable[[str], None],
) -> None:
    """Make the tables and the page of all; each table is said when it is made.

    Args:
      setup: of the tables.
      plans: of those to make.
      say: what tells a person.

    Raises:
      ValueError: some tables could not be made; the others were, unless a table failed
        on some processes only, which are then at different places of the graph.
    """
    failed = {}
    for name, plan in plans.items():
        try:
            say(tables.markdown(make_table(setup, name, plan)))
        except ValueError as error:  # the other tables are made all the same
            _refuse_alone(f"table {name}", error)
            failed[name] = error
    if processes.is_writer():
        page = write_page(setup, failed)
        say(f"written to {page.parent}; all tables as one page: {page.name}")
    processes.barrier("the page of tables is written")
    if failed:
        lines = "\n".join(f"table {name}: {error}" for name, error in failed.items())
        raise ValueError(lines)


def _refuse_alone(what: str, error: ValueError) -> None:
    """Raise what failed on this process, unless it failed on all of them alike.

    Of many processes, some may be elsewhere in the graph.
    """
    told = hashlib.sha256(str(error).encode()).hexdigest()
    if not processes.met(f"{what} failed {told}", ALIKE):
        raise ValueError(f"{what}: {error}") from error


def _make_rows(
    setup: read_config.Setup, rows: Mapping[str, tuple[graph.Node, ...]]
) -> dict[str, str]:
    """Make the nodes of a table row by row, and return why some rows have none.

    Raises:
      ValueError: there is no row at all.
    """
    failed = {}
    for name, wanted_here in rows.items():
        try:
            graph.make(setup.root, wanted_here, node_stages.NODES)
        except ValueError as error:  # the other rows are made all the same
            _refuse_alone(f"row {name}", error)
            logging.warning("row %s is missing: %s", name, error)
            failed[name] = str(error)
    if len(failed) == len(rows):
        first = next(iter(failed.values()))
        raise ValueError(f"no row could be made; the first: {first}")
    return failed


def make_node(
    setup: read_config.Setup,
    plans: Mapping[str, cells.TablePlan],
    name: str,
    *,
    part: str,
    say: Callable[[str], None],
) -> None:
    """Make one node of tables, whose parents are there; no table.

    Args:
      setup: of the tables.
      plans: of those whose node it is.
      name: of the node.
      part: "K/N": draw part K of N of a node of pairs; "": make the node.
      say: what tells a person.
    """
    node = graph.find(wanted(plans), name)
    made = True
    if part:
        made = node_stages.make_part(setup.root, node, work_parts.read(part))
    else:
        graph.make_one(setup.root, node, node_stages.NODES)
    told = "made" if made else f"part {part} drawn, others are still to come"
    say(f"node {name}: {told}")


def make_table(
    setup: read_config.Setup, name: str, plan: cells.TablePlan
) -> tables.Table:
    """Make the nodes of a table, then write and return it."""
    if plan.rows:
        table = plan.build(_make_rows(setup, plan.rows))
    else:
        graph.make(setup.root, plan.nodes, node_stages.NODES)
        table = plan.build()
    if not processes.is_writer():
        return table
    place, stem = setup.root / FOLDER, f"table_{name}"
    tables.write_table(table, place, stem)
    for path in place.glob(f"{stem}_*.svg"):  # of a command with other tasks
        path.unlink()
    for what, svg in plan.figures(table).items():
        record_files.write_text(place / f"{stem}_{pathlib.Path(what).stem}.svg", svg)
    return table


def write_page(
    setup: read_config.Setup, failed: Mapping[str, ValueError]
) -> pathlib.Path:
    """Write all tables of the folder, old and new, as one page; return its path."""
    place = setup.root / FOLDER
    shown, figures = {}, {}
    for name in sorted(PLANS, key=_place):
        title = f"Table {name}" if name.isdigit() else name.capitalize()
        if name in failed:
            shown[title] = estimates.Missing(f"table {name}: {failed[name]}")
        elif (place / f"table_{name}.json").exists():
            shown[title] = reading.read_tables(place, f"table_{name}")
            drawn = sorted(place.glob(f"table_{name}_*.svg"))
            figures[title] = [path.read_text("utf-8") for path in drawn]
    title = f"Reproduction, scale {setup.config.scale}"
    path = place / report.TABLES_NAME
    return report.write_tables(path, shown, title=title, figures=figures)


def _place(name: str) -> tuple[bool, bool, int]:
    """Return where a table stands on the page: the summary, the paper's, others."""
    return name != "methods", not name.isdigit(), int(name) if name.isdigit() else 0
