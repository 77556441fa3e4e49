"""Make a table of the paper, with intervals, from prompts to the last figure.

  python -m experiments.reproduce --table 3 --scale smollm2-135m --workdir D --dry_run
  python -m experiments.reproduce --table 3 --scale smollm2-135m --workdir D

The first says what would be made and what it may cost. The second makes it: a graph of
runs in D/nodes, shared by all tables, each made once; killed and started again it goes
on. Tables are printed, the paper's figure beside ours, and written to D/tables as
markdown and JSON, and all of them as one page, D/tables/tables.html; beside methods
stand the curves of PPO as SVG. What cannot be made is marked as missing, with the
reason.

  2 people     3 a judge     5 preference models on human pairs     6 Rescore
  16 few-shot RLAIF     23 people and judge     28, 29 held-out reward
  36 label accuracy     40 human pairs mixed in     perplexity, diversity, length
  theory (Appendix N)     methods (against the base model: all, or --methods)     all

Shots of Table 16: --shots FILE, or --shots human:4 for so many human pairs of hh-rlhf.
A judge behind an OpenAI-compatible interface: --judge_url, --judge_name, --max_cost,
its key in the environment variable OPENAI_API_KEY. Without it a local model judges.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence

from experiments import launch
from experiments import reproduce_cells as cells
from experiments import reproduce_costs as costs
from experiments import reproduce_graph as graph
from experiments import reproduce_labels as labels
from experiments import reproduce_measures as measures
from experiments import reproduce_methods as methods
from experiments import reproduce_nodes as nodes
from experiments import reproduce_scales as scales
from experiments import reproduce_stages as stages
from experiments import reproduce_tables as pairs_of_systems
from rlcd_jax import chat_api, estimates, records, report, tables
from rlcd_jax.judging import secrets
from rlcd_jax.judging import settings as judge_settings
from rlcd_jax.report import reading
from rlcd_jax.stages import shots

KEY = "OPENAI_API_KEY"
TABLES = "tables"  # folder
NO_JUDGE = "no API judge: --judge_url, --judge_name"
NO_KEY = f"missing API key: {KEY}"

PLANS: Mapping[str, Callable[[nodes.Recipes], cells.Plan]] = {
    "theory": labels.theory,
    "methods": methods.compared,
    "2": pairs_of_systems.rated,
    "36": labels.labels,
    "5": labels.people_pairs,
    "3": lambda recipes: pairs_of_systems.judged(recipes, "3"),
    "length": measures.lengths,
    "diversity": measures.diversities,
    "perplexity": measures.perplexities,
    "28": lambda recipes: measures.rewards(recipes, "28"),
    "29": lambda recipes: measures.rewards(recipes, "29"),
    "6": lambda recipes: pairs_of_systems.judged(recipes, "6"),
    "23": pairs_of_systems.agreed,
    "16": lambda recipes: pairs_of_systems.judged(recipes, "16"),
    "40": lambda recipes: pairs_of_systems.judged(recipes, "40"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; a mistake of the user is one message and status 2."""
    args = _parser().parse_args(argv)
    launch.for_people(lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Say what is to be made, make it, and print and write the tables."""
    setup = read_setup(args)
    recipes = nodes.Recipes(setup)
    names = list(PLANS) if args.table == "all" else [args.table]
    plans = {name: PLANS[name](recipes) for name in names}
    wanted = [node for plan in plans.values() for node in plan.nodes]
    print(forecast(setup, wanted, whole=args.dry_run))
    if args.dry_run:
        return
    if wanted:
        launch.prepare()
        graph.check_processes()
    failed = {}
    for name, plan in plans.items():
        try:
            make_table(setup, name, plan)
        except ValueError as error:  # the other tables are made all the same
            failed[name] = error
    page = write_page(setup, failed)
    print(f"written to {page.parent}; all tables as one page: {page.name}")
    if failed:
        lines = "\n".join(f"table {name}: {error}" for name, error in failed.items())
        raise ValueError(lines)


def make_table(setup: scales.Setup, name: str, plan: cells.Plan) -> None:
    """Make the nodes of a table, then write and print it."""
    graph.make(setup.root, plan.nodes, stages.STAGES)
    table = plan.build()
    place, stem = setup.root / TABLES, f"table_{name}"
    tables.write_table(table, place, stem)
    for path in place.glob(f"{stem}_*.svg"):  # of a command with other tasks
        path.unlink()
    for what, svg in plan.figures(table).items():
        records.write_text(place / f"{stem}_{pathlib.Path(what).stem}.svg", svg)
    print(tables.markdown(table), flush=True)


def write_page(setup: scales.Setup, failed: Mapping[str, ValueError]) -> pathlib.Path:
    """Write all tables of the folder, old and new, as one page; return its path."""
    place = setup.root / TABLES
    found, figures = {}, {}
    for name in sorted(PLANS, key=_place):
        title = f"Table {name}" if name.isdigit() else name.capitalize()
        if name in failed:
            found[title] = estimates.Missing(f"table {name}: {failed[name]}")
        elif (place / f"table_{name}.json").exists():
            found[title] = reading.read_tables(place, f"table_{name}")
            drawn = sorted(place.glob(f"table_{name}_*.svg"))
            figures[title] = [path.read_text("utf-8") for path in drawn]
    title = f"Reproduction, scale {setup.scale.name}"
    path = place / report.TABLES_NAME
    return report.write_tables(path, found, title=title, figures=figures)


def _place(name: str) -> tuple[bool, bool, int]:
    """Return where a table stands on the page: the summary, the paper's, others."""
    return name != "methods", not name.isdigit(), int(name) if name.isdigit() else 0


def forecast(setup: scales.Setup, wanted: Sequence[graph.Node], *, whole: bool) -> str:
    """Return what would be made, with its tokens and hours; ``whole``: every node."""
    scale = setup.scale
    ordered = graph.in_order(wanted)
    missing = {node.key for node in graph.needed(setup.root, wanted)}
    lines, hours, calls = [], 0.0, 0.0
    for node in ordered:
        cost = node.cost
        own = costs.hours(cost, scale)
        if node.key in missing:
            state = "to make"
            hours += own
            calls += cost.calls
        else:
            state = "exists" if graph.is_done(setup.root, node) else "not needed"
        tokens = (cost.generated, cost.trained, cost.scored)
        shown = " ".join(f"{count:>12,.0f}" for count in tokens)
        name = graph.folder(setup.root, node).name
        lines.append(f"{state:<10} {shown} {own:>9.2f}  {name}")
    names = " ".join(f"{x:>12}" for x in ("generated", "trained", "read"))
    head = f"{'':<10} {names} {'hours':>9}  node (tokens are upper bounds)"
    total = (
        f"{len(ordered)} nodes, {len(missing)} to make: at most {hours:,.1f} hours at "
        f"{scale.generate_rate:,.0f} tokens/s generated and {scale.train_rate:,.0f} "
        f"trained (scale {scale.name}: {scale.hardware})"
    )
    if calls:
        total += f"; {calls:,.0f} calls of the API judge"
    return "\n".join([head, *lines, total] if whole and lines else [total])


def read_setup(args: argparse.Namespace) -> scales.Setup:
    """Return what the arguments ask for; mistakes in them end here."""
    scale = scales.get_scale(args.scale, args.size)
    api, api_missing = _api(args)
    seeds = tuple(_numbers(args.seeds, "--seeds", int))
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"--seeds {args.seeds} names one twice; accepted: each once")
    asked = tuple(filter(None, args.tasks.split(",")))
    return scales.Setup(
        scale=scale,
        root=pathlib.Path(args.workdir),
        seeds=seeds,
        tasks=asked,
        methods=_methods(args.methods),
        model=args.model or scale.model,
        generator=args.generator or scale.generator or _same(args, scale),
        kl=tuple(_numbers(args.kl, "--kl", float)) or scale.kl,
        steps=tuple(_numbers(args.steps, "--steps", int)) or scale.steps,
        fields=scales.parse_fields(args.set),
        hh_dir=args.hh_dir,
        shots=_shots(args.shots),
        studies=tuple(map(pathlib.Path, args.studies)),
        api=api,
        api_key=os.environ.get(KEY),
        api_missing=api_missing,
        perplexity_model=args.perplexity_model,
        trials=args.trials,
        dry=args.dry_run,
    )


def _methods(asked: str) -> tuple[str, ...]:
    """Return the methods to compare; mistakes in their names end here."""
    known, named = methods.SYSTEMS[1:], tuple(filter(None, asked.split(",")))
    for name in named:
        if name not in known:
            raise ValueError(f"--methods {name!r}; accepted: {', '.join(known)}")
    return named


def _shots(asked: str) -> str:
    """Return the text of a file of shots, or what was asked for instead of a file."""
    if not asked or shots.human_count(asked):
        return asked
    text = pathlib.Path(asked).read_text("utf-8")
    if not text.strip():
        raise ValueError(f"--shots {asked} is empty; accepted: solved examples")
    return text


def _same(args: argparse.Namespace, scale: scales.Scale) -> str:
    """Return the aligned model where the scale has one model for both."""
    return args.model if scale.shapes[0] == scale.shapes[1] else ""


def _api(args: argparse.Namespace) -> tuple[chat_api.ApiSettings | None, str]:
    """Return the settings of the API judge, or why there is none."""
    if not (args.judge_url and args.judge_name):
        return None, NO_JUDGE
    local = secrets.read_address(args.judge_url).is_local  # needs no key
    needs_key = not (args.judge_offline or local)
    if needs_key and not os.environ.get(KEY):
        return None, NO_KEY
    prices = [args.price_input, args.price_output]
    if not args.judge_offline and (args.max_cost or not local):
        _check_prices(prices, args.max_cost)
    settings = chat_api.ApiSettings(
        base_url=args.judge_url,
        model=args.judge_name,
        cache=str(pathlib.Path(args.workdir) / "judge_cache"),
        price_input=args.price_input or 0.0,
        price_output=args.price_output or 0.0,
        max_cost=args.max_cost,
        offline=args.judge_offline,
        max_tokens_field=args.judge_limit,
    )
    return settings, ""


def _check_prices(prices: Sequence[float | None], max_cost: float) -> None:
    """Refuse a limit on cost that prices of nothing would make void."""
    if all(prices) or (None not in prices and not max_cost):
        return
    raise ValueError(
        f"--price_input, --price_output = {prices[0]}, {prices[1]} with --max_cost "
        f"{max_cost:g}: without both prices no cost can be known; give them (a million "
        "tokens, in the currency of --max_cost), or 0 and 0 and no --max_cost for a "
        "server that costs nothing"
    )


def _numbers(text: str, flag: str, kind: type) -> list:
    """Return the numbers of a flag's value, "1,2,3"."""
    try:
        found = [kind(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise ValueError(
            f"{flag} {text!r}; accepted: numbers with commas between"
        ) from error
    if any(number < 0 for number in found):
        raise ValueError(f"{flag} {text!r}; accepted: no negative numbers")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--table", required=True, choices=[*PLANS, "all"])
    parser.add_argument("--scale", required=True, choices=list(scales.SCALES))
    parser.add_argument("--workdir", required=True, help="folder of graph and tables")
    parser.add_argument("--dry_run", action="store_true", help="list, make nothing")
    parser.add_argument("--seeds", default="1", help="root seeds, such as 1,2,3")
    parser.add_argument("--tasks", default="harmless,helpful", help="names or files")
    parser.add_argument("--methods", default="", help="of --table methods, else all")
    parser.add_argument("--model", default="", help="spec of the aligned model")
    parser.add_argument("--generator", default="", help="spec of the pairs' model")
    parser.add_argument("--size", default="", help="of the configs; see configs.common")
    parser.add_argument("--kl", default="", help="grid of KL coefficients")
    parser.add_argument("--steps", default="", help="grid of PPO steps")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a config field of every run, such as mesh.fsdp=8",
    )
    parser.add_argument("--hh_dir", default="", help="hh-rlhf in the official layout")
    parser.add_argument("--shots", default="", help="for Table 16: a file, or human:N")
    parser.add_argument("--studies", nargs="+", default=[], help="of human evaluation")
    parser.add_argument("--perplexity_model", default="", help="default: the model")
    parser.add_argument("--trials", type=int, default=3_000_000, help="of Appendix N")
    parser.add_argument("--judge_url", default="", help="of an OpenAI-compatible API")
    parser.add_argument("--judge_name", default="", help="model that the API has")
    parser.add_argument(
        "--judge_limit",
        default="max_tokens",
        choices=judge_settings.FIELDS,
        help="what the API calls the limit of an answer",
    )
    parser.add_argument("--judge_offline", action="store_true", help="from the cache")
    parser.add_argument("--price_input", type=float, help="a million tokens")
    parser.add_argument("--price_output", type=float, help="a million tokens")
    parser.add_argument("--max_cost", type=float, default=0.0, help="refuse above it")
    return parser


if __name__ == "__main__":
    main(sys.argv[1:])
