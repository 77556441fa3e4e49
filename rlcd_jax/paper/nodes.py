"""Which nodes each method needs: pairs, preference model, PPO grid, replies, judges."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import done_mark, tasks
from rlcd_jax.checks import refusals
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.job import setup
from rlcd_jax.judging import chat_api
from rlcd_jax.pairs import few_shots
from rlcd_jax.paper import costs, graph, read_config
from rlcd_jax.ppo import credit
from rlcd_jax.preference import best_of
from rlcd_jax.training import preferences

STRONGER, ALPHA = "rlcd_alpha15", 1.5  # RLCD, its contrast raised at decoding
# Config file of each method; what else differs is in the recipes below.
METHODS = {
    "base": "rlcd",
    "distill": "rlcd",
    **dict.fromkeys(preferences.DIRECT, "rlcd"),
    **{name: name for name in credit.GROUPED},
    best_of.NAME: "rlcd",
    STRONGER: "rlcd",
    "rlcd": "rlcd",
    "rlcd_human20": "rlcd",
    "rlaif": "rlaif",
    "rlaif_few": "rlaif",
    "rlaif_human20": "rlaif",
    "rescore": "rescore",
    "mixed": "mixed",
    "graded": "graded",
}
# Those that learn from RLCD's own pairs, or of its preference model.
ON_ITS_PAIRS = ("base", "distill", best_of.NAME, *preferences.DIRECT, *credit.GROUPED)
HELD_OUT = "human"  # label of the preference model of human pairs


class Recipes:
    """Makes nodes, and each of them once."""

    def __init__(self, setup: read_config.Setup) -> None:
        self.setup = setup
        self._made: dict[tuple[Any, ...], graph.Node] = {}
        self._hh = _contents(setup.config.hh_rlhf.dir)
        # One for all nodes, so that they share its budget.
        self._api = setup.api and chat_api.ChatApi(setup.api, setup.api_key)

    def pairs(self, method: str, task: str, seed: int) -> graph.Node:
        """Return the node that makes the pairs of a method."""
        root = method.removesuffix("_human20")
        if root in ON_ITS_PAIRS:
            root = "rlcd"
        config = self.config(root, task, seed, generates=True)
        label = f"{root}-{task}-{seed}"

        def make() -> graph.Node:
            if root in ("rlcd", "rlaif", "graded", STRONGER):
                cost = costs.simulate(config)
                return graph.make_node("simulate", label, config, cost=cost)
            if root == "mixed":
                links = tuple(
                    (name, self.pairs(name, task, seed), "pairs")
                    for name in ("rlcd", "rescore")
                )
                return graph.make_node(
                    "join", label, config, links=links, cost=graph.Cost()
                )
            source = self.pairs("rlcd" if root == "rescore" else "rlaif", task, seed)
            shots = self.setup.shots if root == "rlaif_few" else ""
            settings = {"shots": shots}
            if few_shots.human_count(shots):
                settings["hh_rlhf"] = self._hh
            return graph.make_node(
                "relabel",
                label,
                config,
                links=(("source", source, "pairs"),),
                settings=settings,
                cost=costs.relabel(config, shots),
            )

        return self._once(("pairs", root, task, seed), make)

    def pairs_at(self, task: str, seed: int, affixes: str, alpha: float) -> graph.Node:
        """Return the node of RLCD's pairs at a strength of affixes and of decoding."""
        config = self.config("rlcd", task, seed, generates=True)
        plain = config.pairs.strength, config.pairs.alpha
        if plain == ((affixes,), alpha):
            return self.pairs("rlcd", task, seed)

        def make() -> graph.Node:
            config.pairs.strength, config.pairs.alpha = (affixes,), float(alpha)
            label = f"rlcd-{task}-{seed}-{affixes}-alpha{alpha:g}"
            cost = costs.simulate(config)
            return graph.make_node("simulate", label, config, cost=cost)

        return self._once(("pairs", task, seed, affixes, alpha), make)

    def rewards_at(
        self, task: str, seed: int, affixes: str, alpha: float
    ) -> graph.Node:
        """Return the node with rewards of `pairs_at` by the model of human pairs."""

        def make() -> graph.Node:
            config = self.config("rlcd", task, seed)
            model = self.held_out_preference(task)
            pairs = self.pairs_at(task, seed, affixes, alpha)
            return graph.make_node(
                "pair_rewards",
                f"rlcd-{task}-{seed}-{affixes}-alpha{alpha:g}",
                config,
                links=(("preference", model, "preference"), ("pairs", pairs, "pairs")),
                settings={"human": False, "hh_rlhf": self._hh},
                cost=costs.pair_rewards(config, human=False),
            )

        return self._once(("rewards_at", task, seed, affixes, alpha), make)

    def preference(self, method: str, task: str, seed: int) -> graph.Node:
        """Return the node that trains a method's own preference model.

        RLOO, GRPO and the best of n have that of RLCD, and differ from it in what they
        do with it.
        """
        if method in (best_of.NAME, *credit.GROUPED):
            method = "rlcd"

        def make() -> graph.Node:
            config = self.config(method, task, seed)
            settings = {}
            if method.endswith("_human20"):
                config.preference.human_share = self.setup.config.people.share
                settings = {"hh_rlhf": self._hh}
            return graph.make_node(
                "preference",
                f"{method}-{task}-{seed}",
                config,
                links=(("pairs", self.pairs(method, task, seed), "pairs"),),
                settings=settings,
                cost=costs.preference(config),
            )

        return self._once(("preference", method, task, seed), make)

    def held_out_preference(self, task: str) -> graph.Node:
        """Return the node of a preference model of human pairs: one for all seeds."""

        def make() -> graph.Node:
            people = self.setup.config.people
            config = self.config("rlcd", task, people.judge_seed)
            config.preference.data = "hh_rlhf"
            config.preference.data_limit = people.judge_pairs
            return graph.make_node(
                "preference",
                f"{HELD_OUT}-{task}",
                config,
                settings={"hh_rlhf": self._hh},
                cost=costs.preference(config),
            )

        return self._once((HELD_OUT, task), make)

    def policy(self, method: str, task: str, seed: int) -> graph.Node:
        """Return the node that chooses a policy of the grid of KL and steps.

        The method's own preference model chooses, on dev prompts, as in Appendix E.
        """

        def make() -> graph.Node:
            own = ("preference", self.preference(method, task, seed), "preference")
            links, grid = [], self._grid(task)
            for number, (kl, steps) in enumerate(grid):
                config = self.config(method, task, seed)
                config.policy.kl_coef = float(kl)
                config.policy.steps = int(steps)
                if method.endswith("_human20"):
                    config.preference.human_share = self.setup.config.people.share
                label = f"{method}-{task}-{seed}-kl{kl:g}-steps{steps}"
                trained = graph.make_node(
                    "policy", label, config, links=(own,), cost=costs.policy(config)
                )
                links.append((f"policy_{number}", trained, "policy"))
                if len(grid) > 1:
                    tuned = self._tune(label, config, trained, own)
                    links.append((f"tune_{number}", tuned, "."))
            return graph.make_node(
                "select",
                f"{method}-{task}-{seed}",
                self.config(method, task, seed),
                links=tuple(links),
                settings={"grid": [list(point) for point in grid]},
                cost=graph.Cost(),
            )

        return self._once(("policy", method, task, seed), make)

    def sample(self, method: str, task: str, seed: int) -> graph.Node:
        """Return the node with a system's replies to the test prompts."""

        def make() -> graph.Node:
            config = self.config(method, task, seed)
            links: tuple[tuple[str, graph.Node, str], ...] = ()
            cost = costs.sample(config, "test")
            if method == best_of.NAME:
                own = self.preference(method, task, seed)
                links = (("preference", own, "preference"),)
                cost = costs.best_of(config, "test")
            elif method == "distill":
                links = (("system", self._distilled(task, seed), "distill"),)
            elif method in preferences.DIRECT:
                links = (("system", self.direct(method, task, seed), "direct"),)
            elif method != "base":
                links = (("system", self.policy(method, task, seed), "chosen"),)
            return graph.make_node(
                "sample",
                f"{method}-{task}-{seed}",
                config,
                links=links,
                settings={"system": method, "part": "test"},
                cost=cost,
            )

        return self._once(("sample", method, task, seed), make)

    def judge(
        self, one: str, two: str, task: str, seed: int, *, api: bool
    ) -> graph.Node:
        """Return the node with the verdicts on two systems, on each question."""

        def make() -> graph.Node:
            config = self.config("rlcd", task, seed)
            questions = dict(self.task(task).judge_questions)
            links = tuple(
                (name, self.sample(method, task, seed), ".")
                for name, method in (("first", one), ("second", two))
            )
            settings: dict[str, Any] = {"questions": questions, "judge": "log_odds"}
            settings["both_orders"] = config.evaluate.both_orders
            free: dict[str, Any] = {}
            if api:
                asked = self.setup.api
                settings |= {"judge": asked.model, "base_url": asked.address.shown}
                settings["wording"] = dataclasses.asdict(self.task(task).judge_wording)
                free = {"api": self._api}
            return graph.make_node(
                "judge_api" if api else "judge",
                f"{one}-{two}-{task}-{seed}",
                config,
                links=links,
                settings=settings,
                free=free,
                cost=costs.judge(
                    self.config("rlcd", task, seed), len(questions), api=api
                ),
            )

        return self._once(("judge", one, two, task, seed, api), make)

    def pair_rewards(self, method: str, task: str, seed: int, *, human: bool):
        """Return the node with rewards of pairs by a model that did not see them.

        Human pairs by the method's own model, or its own pairs by that of human pairs.
        """

        def make() -> graph.Node:
            config = self.config(method, task, seed)
            links: tuple[tuple[str, graph.Node, str], ...]
            if human:
                compared = self.setup.config.people.compared_pairs
                config.preference.human_pairs = compared
                model = self.preference(method, task, seed)
                links = (("preference", model, "preference"),)
            else:
                model = self.held_out_preference(task)
                pairs = self.pairs(method, task, seed)
                links = (("preference", model, "preference"), ("pairs", pairs, "pairs"))
            return graph.make_node(
                "pair_rewards",
                f"{method}-{task}-{seed}-{'human' if human else 'own'}",
                config,
                links=links,
                settings={"human": human, "hh_rlhf": self._hh},
                cost=costs.pair_rewards(config, human=human),
            )

        return self._once(("pair_rewards", method, task, seed, human), make)

    def reply_scores(self, stage: str, method: str, task: str, seed: int) -> graph.Node:
        """Return the node with held-out rewards or perplexities of final replies."""

        def make() -> graph.Node:
            config = self.config(method, task, seed)
            links = [("samples", self.sample(method, task, seed), ".")]
            if stage == "reply_rewards":
                model = self.held_out_preference(task)
                links.append(("preference", model, "preference"))
            elif self.setup.config.perplexity_model:
                config.model.spec = self.setup.config.perplexity_model
            return graph.make_node(
                stage,
                f"{method}-{task}-{seed}",
                config,
                links=tuple(links),
                cost=costs.reply_scores(self.config("rlcd", task, seed)),
            )

        return self._once((stage, method, task, seed), make)

    def config(
        self,
        method: str,
        task: str,
        seed: int,
        *,
        generates: bool = False,
    ) -> ConfigDict:
        """Return a fresh config of a method.

        Args:
          method: its name.
          task: name of the task.
          seed: root seed.
          generates: name the model that makes pairs, not the one that is aligned.

        Raises:
          ValueError: a field has a value that it does not accept.
        """
        setup = self.setup
        config = read_config.run_config(setup, METHODS[method], task, seed)
        splits = setup.config.hh_rlhf
        config.model.spec = setup.generator_name if generates else setup.model_name
        config.name = method
        if method in preferences.DIRECT:
            config.direct.loss = method
        if method == STRONGER:
            config.pairs.alpha = ALPHA
        config.prompts.hh_dir = splits.dir
        config.preference.human_pairs = 0  # agreement is a node of its own
        config.prompts.hh_dev_split = splits.dev
        config.prompts.hh_test_split = splits.test
        refusals.check_config(config)
        return config

    def task(self, name: str) -> tasks.Task:
        """Return a task as the configs have it."""
        return setup.load_task(self.config("rlcd", name, self.setup.seeds[0]))

    def _grid(self, task: str) -> list[tuple[float, int]]:
        """Return the points of the grid; outlines keep to their own steps."""
        grid = self.setup.config.grid
        steps = grid.steps
        if task == "outline":
            steps = tuple(n for n in steps if n in grid.outline_steps) or steps
        return [(kl, count) for kl in grid.kl_coef for count in steps]

    def _tune(self, label: str, config: ConfigDict, trained, own) -> graph.Node:
        return graph.make_node(
            "tune",
            label,
            config,
            links=(("system", trained, "policy"), own),
            settings={"part": "dev"},
            cost=costs.sample(config, "dev"),
        )

    def _distilled(self, task: str, seed: int) -> graph.Node:
        def make() -> graph.Node:
            config = self.config("distill", task, seed)
            return graph.make_node(
                "distill",
                f"distill-{task}-{seed}",
                config,
                links=(("pairs", self.pairs("rlcd", task, seed), "pairs"),),
                cost=costs.distill(config),
            )

        return self._once(("distill", task, seed), make)

    def direct(self, method: str, task: str, seed: int) -> graph.Node:
        """Return the node that trains a policy on RLCD's pairs by one of the losses."""

        def make() -> graph.Node:
            config = self.config(method, task, seed)
            return graph.make_node(
                "direct",
                f"{method}-{task}-{seed}",
                config,
                links=(("pairs", self.pairs("rlcd", task, seed), "pairs"),),
                cost=costs.direct(config),
            )

        return self._once(("direct", method, task, seed), make)

    def _once(self, name: tuple[Any, ...], make: Callable[[], graph.Node]):
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def _contents(hh_dir: str) -> str:
    """Return a hash of the names and contents of the files in a folder of hh-rlhf."""
    if not hh_dir:
        return ""
    files = sorted(pathlib.Path(hh_dir).glob("*/*.jsonl.gz"))
    if not files:
        raise ValueError(
            f"hh_rlhf.dir={hh_dir} holds no hh-rlhf files; accepted: a folder with "
            "harmless-base/train.jsonl.gz and the like"
        )
    named = {f"{p.parent.name}/{p.name}": hh_rlhf_files.content_hash(p) for p in files}
    return done_mark.config_hash(named)
