"""What all tables of a reproduction share: plans, what is missing, cells, notes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from etils import epath

from rlcd_jax.judging import verdicts
from rlcd_jax.paper import graph, nodes, published
from rlcd_jax.statistics import estimates, tables

NAMES = {
    "base": "base model",
    "distill": "Context-Dist",
    "rlaif": "RLAIF",
    "rlaif_few": "RLAIF-Few",
    "rlaif_human20": "RLAIF + 20 % human",
    "rescore": "Rescore",
    "mixed": "RLCD + Rescore",
    "dpo": "DPO",
    "ipo": "IPO",
    "kto": "KTO",
    "best_of_n": "Best of n",
    "rloo": "RLOO",
    "grpo": "GRPO",
    "graded": "RLCD, graded",
    "rlcd": "RLCD",
    "rlcd_alpha15": "RLCD, alpha 1.5",
    "rlcd_human20": "RLCD + 20 % human",
}
PAPER_TASKS = ("harmless", "helpful", "outline")
NO_HH = "no hh-rlhf folder: --config.hh_rlhf.dir"
LEVEL = 0.95
SEED = 0  # of bootstraps and sign flips

ByPrompt = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class TablePlan:
    """The nodes of a table, and how it is built once they are made.

    Attributes:
      nodes: all that it reads.
      build: makes it; of a table with `rows` from why those that are missing are.
      figures: returns what is drawn of the table, as SVG by a name.
      rows: of a table whose rows may be missing, by name, each row's own nodes.
    """

    nodes: tuple[graph.Node, ...]
    build: Callable[..., tables.Table]
    figures: Callable[[tables.Table], Mapping[str, str]] = lambda table: {}
    rows: Mapping[str, tuple[graph.Node, ...]] = dataclasses.field(default_factory=dict)


def row_title(system: str, task: str) -> str:
    """Return the name of a row of one system."""
    return f"{NAMES[system]}, {task}"


@dataclasses.dataclass(frozen=True)
class Place:
    """A task of a table, or why there is nothing of it."""

    task: str
    missing: estimates.Missing | None


def places(recipes: nodes.Recipes, paper: Sequence[str] = PAPER_TASKS) -> list[Place]:
    """Return the paper's tasks and those that were asked for, with what is missing."""
    setup = recipes.setup
    names = dict.fromkeys((*paper, *setup.tasks))
    return [Place(name, _missing(recipes, name)) for name in names]


def _missing(recipes: nodes.Recipes, task: str) -> estimates.Missing | None:
    setup = recipes.setup
    if task not in setup.tasks:
        if task == "outline":
            return estimates.Missing(
                "unpublished prompts; this project's own: --config.tasks=outline"
            )
        return estimates.Missing("not among --config.tasks")
    if setup.dry:
        return None
    if not (setup.model and setup.generator):
        what = "model" if not setup.model else "generator"
        shape = setup.config.shapes[what]
        return estimates.Missing(
            f"weights of {shape} are not part of this project: --config.{what}=hf:PATH"
        )
    source = recipes.config("rlcd", task, setup.seeds[0]).prompts.source
    if source == "hh_rlhf" and not setup.config.hh_rlhf.dir:
        return estimates.Missing(NO_HH)
    return None


def lacks_people(recipes: nodes.Recipes, task: str) -> estimates.Missing | None:
    """Return why there are no human pairs for a task, or None."""
    setup, config = recipes.setup, recipes.task(task).hh_config
    folder = setup.config.hh_rlhf.dir
    if not config:
        return estimates.Missing(f"hh-rlhf has no pairs for {task}")
    if not (folder or setup.dry):
        return estimates.Missing(NO_HH)
    train = f"{config}/train.jsonl.gz"  # known now, not after hours of other nodes
    if folder and not (epath.Path(folder) / train).exists():
        return estimates.Missing(f"hh_rlhf.dir has no {train}")
    return None


def interval(
    values: ByPrompt, recipes: nodes.Recipes
) -> estimates.Estimate | estimates.Missing:
    """Return the mean over prompts with a bootstrap interval."""
    if len(values) < 2:
        return estimates.Missing(f"{len(values)} prompts are too few")
    data = list(values.values())
    return estimates.bootstrap_interval(
        data, seed=SEED, level=LEVEL, resamples=resamples(recipes)
    )


def p_value(one: ByPrompt, two: ByPrompt, recipes: nodes.Recipes) -> tables.Cell:
    """Return the paired sign-flip p-value over the prompts that both have."""
    both = [prompt_id for prompt_id in one if prompt_id in two]
    if len(both) < 2:
        return estimates.Missing("fewer than two prompts in common")
    gap = estimates.paired_difference(
        [one[prompt_id] for prompt_id in both],
        [two[prompt_id] for prompt_id in both],
        seed=SEED,
        level=LEVEL,
        resamples=resamples(recipes),
    )
    return f"{gap.p_value:.2g}"


def wins(
    by_seed: Sequence[Sequence[verdicts.Verdict]], recipes: nodes.Recipes
) -> tuple[tables.Cell, ...]:
    """Return the first system's win rate, p, the rate at equal length, that by seed."""
    judged = [verdict for own in by_seed for verdict in own]
    points = estimates.mean_by_prompt((v.prompt_id, v.points) for v in judged)
    against = {prompt_id: 1 - value for prompt_id, value in points.items()}
    rates = [100 * sum(v.points for v in own) / len(own) for own in by_seed if own]
    return (
        interval(points, recipes),
        p_value(points, against, recipes),
        verdicts.equal_length_rate(judged, level=LEVEL),
        ", ".join(f"{rate:.1f}" for rate in rates),
    )


def resamples(recipes: nodes.Recipes) -> int:
    """Return the number of bootstrap samples of the scale."""
    setup = recipes.setup
    task = setup.tasks[0]
    return recipes.config("rlcd", task, setup.seeds[0]).evaluate.resamples


def paper(
    recipes: nodes.Recipes, measure: str, column: str, systems: tuple[str, ...]
) -> str:
    """Return the paper's figure beside ours."""
    return published.show(measure, recipes.setup.config.published, column, systems)


def paper_column(recipes: nodes.Recipes, what: str = "") -> tables.Column:
    """Return the column of the paper's figures."""
    return tables.Column(f"Paper{what}, {recipes.setup.config.published}")


def notes(recipes: nodes.Recipes, *more: str) -> tuple[str, ...]:
    """Return what a reader must know of every table."""
    setup = recipes.setup
    task = setup.tasks[0]
    config = recipes.config("rlcd", task, setup.seeds[0])
    prompts = {
        "package": "prompts of this project, not the paper's",
        "hh_rlhf": "prompts of hh-rlhf as in the paper",
    }.get(config.prompts.source, f"prompts of {config.prompts.source}")
    model, generator = setup.model_name, setup.generator_name
    out = [
        f"Ours: scale {setup.config.scale}; aligned model {model}, pairs by "
        f"{generator}; {prompts}; seeds {', '.join(map(str, setup.seeds))}.",
        f"Paper: LLaMA-7B aligned with pairs by LLaMA-{setup.config.published}; "
        f"'{published.UNKNOWN}' marks figures that are not at hand.",
        "Intervals: bootstrap over prompts; draws and seeds of a prompt are averaged "
        "first, so they leave out how training differs between seeds. p: two-sided "
        "sign-flip test, paired by prompt, not corrected for the number of rows.",
    ]
    if setup.config.size != "paper":
        out.append(
            "A model of another size on other prompts: at most the sign of a "
            "difference can be compared with the paper, not its size."
        )
    return (*out, *more)


def missing_row(
    name: str, paper_cell: str, reason: estimates.Missing, columns: int
) -> tuple[str, tuple[tables.Cell, ...]]:
    """Return a row that has the paper's figure alone."""
    blank: list[tables.Cell] = [""] * (columns - 2)
    return name, (paper_cell, reason, *blank)
