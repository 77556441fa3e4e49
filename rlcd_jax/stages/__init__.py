"""The stages of a run, a file each, and the one table of them.

What lives here: what a stage does, from files of the stages before to files of its own.
What may not: anything that a second stage needs; that has a package below.

The table is plain data and imports no stage, so everything may read it: the launcher,
the work folders, the planner, the report, the graph of the paper's runs. A new stage is
a file with a function of its name, and a row here. If it trains on texts that are
there, the file also says how, for the checks and the planner: `make_trainer(job,
updates)`, `largest_batch(job)` and `num_rows(job, pairs)`; and for whoever makes one
update again: `training_rows(config, workdir, job)`, `collate(job)` and
`start_params(job)`.
"""

import dataclasses
import importlib
from typing import Any

BEST_OF = "best_of_n"  # a system of evaluation: no policy, but a choice of replies
ALL = "all"  # in place of a stage's name: those of the config
# Sections and fields of the config on which every stage depends.
SHARED = ("seed", "task", "task_format", "official_wording", "model", "prompts")


@dataclasses.dataclass(frozen=True)
class Stage:
    """One row of the table.

    Attributes:
      name: as the command line and the log say it.
      module: the file; its function of the same name is `(config, workdir) -> summary`.
      folder: in the workdir, of the stage's files.
      section: of the config, the stage's own.
      reads: names of the stages whose files it reads.
      makes: what it leaves, in words.
      batch: the field of its section with the rows of an update; "": it trains nothing.
      texts: of a row that is there; 2: of the pairs that `preference.data` names, or
        more of a ranking of theirs; 0: it is not trained on texts.
      policy: whether it leaves a policy, which reads logits and learns to end a text.
      draws: whether it writes replies.
      also: sections beside its own on which its result depends.
      roles: of the models that it reads or trains, see `job.roles`; the first is the
        one whose tokens it counts.
    """

    name: str
    module: str
    folder: str
    section: str
    reads: tuple[str, ...]
    makes: str
    batch: str = ""
    texts: int = 0
    policy: bool = False
    draws: bool = False
    also: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def run(self, config: Any, workdir: Any) -> dict[str, Any]:
        """Run the stage, or skip it if it is done; return its summary."""
        return getattr(self.load(), self.module)(config, workdir)

    def load(self) -> Any:
        """Return the stage's module."""
        return importlib.import_module(f"{__name__}.{self.module}")

    @property
    def supervised(self) -> bool:
        """Whether it trains on texts that are there."""
        return self.texts > 0

    @property
    def sections(self) -> tuple[str, ...]:
        """What of the config its result depends on: its own, and what it reads has."""
        before = [name for read in self.reads for name in STAGES[read].sections]
        own = (self.section, "lora") if self.batch else (self.section,)
        return tuple(dict.fromkeys((*SHARED, *before, *self.also, *own)))

    @property
    def all_roles(self) -> tuple[str, ...]:
        """Whose models its result depends on: its own, and those of what it reads."""
        before = [role for read in self.reads for role in STAGES[read].all_roles]
        return tuple(dict.fromkeys((*self.roles, *before)))


STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "simulate",
            "simulate_pairs",
            "pairs",
            "pairs",
            (),
            "preference pairs",
            draws=True,
            roles=("generator", "scorer"),
        ),
        Stage(
            "preference",
            "train_preference",
            "preference",
            "preference",
            ("simulate",),
            "preference model",
            batch="batch_size",
            texts=2,
            roles=("preference",),
        ),
        Stage(
            "distill",
            "distill_context",
            "distill",
            "distill",
            ("simulate",),
            "context-distilled policy",
            batch="batch_size",
            texts=1,
            policy=True,
            roles=("policy",),
        ),
        Stage(
            "direct",
            "train_directly",
            "direct",
            "direct",
            ("simulate",),
            "policy, from the pairs without a preference model",
            batch="batch_size",
            texts=2,
            policy=True,
            also=("preference",),
            roles=("policy",),
        ),
        Stage(
            "policy",
            "train_policy",
            "policy",
            "policy",
            ("preference",),
            "policy, by PPO, RLOO or GRPO",
            batch="update_batch",
            policy=True,
            draws=True,
            roles=("policy", "preference"),
        ),
        Stage(
            "evaluate",
            "evaluate_policy",
            "evaluate",
            "evaluate",
            ("policy", "distill", "direct", "preference"),
            "replies, verdicts and tables",
            draws=True,
            also=("judge",),
            roles=("policy", "preference", "judge"),
        ),
    )
}


# Whose policies an evaluation can compare with the base model.
POLICIES = tuple(name for name in STAGES["evaluate"].reads if STAGES[name].policy)


def named(name: str, config: Any) -> tuple[str, ...]:
    """Return the stages that a name asks for: one, or with `ALL` those of a config."""
    return tuple(config.stages) if name == ALL else (name,)
