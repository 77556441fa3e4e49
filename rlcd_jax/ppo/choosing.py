"""Which checkpoint of PPO is the run's policy, and where its weights lie.

Every checkpoint answers the dev prompts, with the same keys at each; the preference
model of the run scores the replies. `policy.choose` says what follows from that:

  "last"       nothing: the policy is that of the last step, the method's rule.
  "dev_score"  the rule of `overoptimisation`. Full checkpoints are too large to keep
               all of them, so `policy/chosen` keeps the weights that the rule takes
               of the checkpoints so far; those of the end are the run's policy.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from rlcd_jax import checkpoint, done_mark, jsonl, processes, record_files
from rlcd_jax.pairs import cut_counts
from rlcd_jax.ppo import acting, overoptimisation, step_notes, weighted_rewards
from rlcd_jax.statistics import estimates

Params = Any
LAST, DEV_SCORE = RULES = "last", "dev_score"
CHECKPOINTS, CHOSEN = "checkpoints", "chosen"  # folders of the policy stage
ITEM = "policy"  # of a checkpoint
KEPT = 2  # sets of chosen weights that stay: the one before, until the new is whole
NOTE = "candidates"  # in the JSON object of a checkpoint


def find_policy(folder: str | pathlib.Path) -> pathlib.Path:
    """Return the folder whose latest checkpoint is what a training stage hands on.

    Args:
      folder: of the stage, RUN/policy or RUN/distill, or the `checkpoints` in it.
        Any other folder is returned as it is.

    Raises:
      ValueError: the stage has yet to choose.
    """
    folder = pathlib.Path(folder)
    stage = folder.parent if folder.name == CHECKPOINTS else folder
    path = stage / "config.json"
    config = jsonl.read_object(path) if path.is_file() else {}
    section = config.get("policy", {})  # of PPO; other stages have none
    if not isinstance(section, dict):
        raise ValueError(
            f"{path} is no config of a stage: its 'policy' is no object; restore the "
            "file"
        )
    if section.get("choose", LAST) != DEV_SCORE:
        inside = stage / CHECKPOINTS
        return inside if inside.is_dir() else folder
    if not (stage / done_mark.DONE).exists():
        raise ValueError(
            f"{stage} is to choose a checkpoint by dev score and is not finished; "
            "run the stage to its end, or name one step of its checkpoints"
        )
    return stage / CHOSEN


class Choice:
    """Looks at the policy of each checkpoint, and keeps the one that the rule takes.

    What was seen is noted in the checkpoint of each step, so a resumed run knows what
    an uninterrupted one knows. Weights are kept before that checkpoint is saved, and
    those that the checkpoint before refers to go only when it is whole; so a run
    killed at any point finds what it needs.

    Args:
      actor: samples and scores.
      folder: of the stage.
      saver: of the stage's checkpoints.
      start: step that the stage goes on from, 0: its start.
      meta: JSON object of that step.
      form: what the JSON of kept weights says of their form.
    """

    def __init__(
        self,
        actor: acting.Actor,
        folder: pathlib.Path,
        saver: checkpoint.Checkpointer,
        start: int,
        meta: Mapping[str, Any],
        form: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> None:
        self._actor, self._folder, self._states = actor, folder, saver
        self._form = form
        self._section = actor.section
        self._seen = [overoptimisation.Candidate(**one) for one in meta.get(NOTE, ())]
        self._kept: checkpoint.Checkpointer | None = None
        asked, there = self._section.dev_prompts, len(actor.dev_prompts)
        if there < asked:
            logging.info("policy: %d dev prompts of %d asked for", there, asked)
        if self._section.choose != DEV_SCORE:
            return
        if not there:
            raise ValueError(
                "policy.choose='dev_score' but no prompt of the part dev fits in "
                f"policy.prompt_tokens={self._section.prompt_tokens}; raise it, give "
                "prompts with such a part, or set policy.choose='last'"
            )
        self._kept = checkpoint.Checkpointer(
            folder / CHOSEN, max_to_keep=KEPT, asynchronous=False
        )
        for step in self._kept.steps():
            if step > start:  # about to be made again
                self._kept.remove(step)
        best = self._best()
        if self._seen and isinstance(best, overoptimisation.Candidate):
            self._demand(best.step)

    def look(
        self,
        step: int,
        policy: Params,
        trained: Params | None = None,
        notes: step_notes.Notes | None = None,
    ) -> dict[str, float]:
        """Answer the dev prompts, save the replies, keep the weights if they are best.

        Args:
          step: number of the step, whose checkpoint is saved next.
          policy: its parameters.
          trained: what is kept of it; None: all.
          notes: of this step, with the scales of rewards; None: there are none.

        Returns:
          Metrics of the replies; none without dev prompts.
        """
        if not self._actor.dev_prompts:
            return {}
        rows, metrics = answer_dev(self._actor, policy, notes)
        if processes.is_writer():
            name = f"{step:06d}.jsonl"
            record_files.write_jsonl(self._folder / "samples" / name, rows)
        score, kl = metrics["dev/reward_mean"], metrics["dev/kl_sum_mean"]
        self._seen.append(overoptimisation.Candidate(step, score, kl))
        best = self._best()
        if self._kept is not None and getattr(best, "step", None) == step:
            self._states.wait()
            kept = {ITEM: policy if trained is None else trained}
            self._kept.save(step, kept, {**self.as_meta(), **self._form})
        return metrics

    def as_meta(self) -> dict[str, Any]:
        """Return what was seen as a checkpoint keeps it."""
        return {NOTE: [dataclasses.asdict(one) for one in self._seen]}

    def finish(self, last_step: int) -> dict[str, Any]:
        """Leave only the chosen weights; return what was chosen, of what and why.

        Raises:
          ValueError: no checkpoint is within the limit, so the run has no policy.
        """
        if self._kept is None:
            why = "the last step, by policy.choose='last'"
            return {"chosen": {"step": last_step, "why": why}, **self.as_meta()}
        best = self._best()
        if isinstance(best, estimates.Missing):
            raise ValueError(
                f"policy.choose='dev_score' takes no policy: {best.reason}. Nothing is "
                "evaluated in its place. In a new workdir raise policy.kl_limit or "
                "policy.kl_coef, or lower policy.checkpoint_every; what each "
                "checkpoint reached is in metrics.jsonl under dev/"
            )
        self._demand(best.step)
        for step in self._kept.steps():
            if step != best.step:
                self._kept.remove(step)
        limit = self._section.kl_limit
        among = f" with KL {limit:g} or less" if limit else ""
        why = (
            f"the highest mean reward on dev prompts, {best.dev_score:.4g}, of "
            f"{len(self._seen)} checkpoints{among}; KL {best.kl:.4g} nats a reply"
        )
        return {"chosen": {"step": best.step, "why": why}, **self.as_meta()}

    def close(self) -> None:
        """Let go of the folder."""
        if self._kept is not None:
            self._kept.close()

    def __enter__(self) -> Choice:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _best(self) -> overoptimisation.Candidate | estimates.Missing:
        limit = self._section.kl_limit or math.inf
        return overoptimisation.choose_checkpoint(self._seen, kl_limit=limit)

    def _demand(self, step: int) -> None:
        if step not in self._kept.steps():
            raise ValueError(
                f"{self._folder / CHOSEN} has lost the policy of step {step}, which "
                f"the rule takes so far; delete {self._folder} to train anew"
            )


def answer_dev(
    actor: acting.Actor, policy: Params, notes: step_notes.Notes | None = None
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Return the policy's replies to the dev prompts, and their metrics.

    With several preference models the reward is their weighted sum, and each is told
    beside it, normalised.

    The KL is the mean log-ratio of the sampled replies (k1), whatever estimator the
    penalty uses.

    Returns:
      The replies as rows of a file, "score" being the preference model's reward and
      "kl" the log-ratio in nats a reply; and `dev/reward_mean`, `dev/kl_sum_mean` in
      nats a reply, `dev/response_length_mean` in tokens, how many were cut, and
      `dev/reward/NAME`.
    """
    sampled = actor.generate(policy, actor.dev_prompts, step=0)
    notes = notes or step_notes.Notes.from_meta({}, actor.section)
    rewards, apart = actor.shown_rewards(sampled, notes)
    ratios = actor.log_ratios(policy, sampled)
    rows = [
        {
            "prompt_id": one.dialogue.id,
            "prompt": one.dialogue.text,
            "reply": actor.shown(one.reply),
            "finish": one.reply.finish,
            "num_tokens": len(one.reply.tokens),
            "score": float(reward),
            "kl": float(ratio),
        }
        for one, reward, ratio in zip(sampled, rewards, ratios, strict=True)
    ]
    for place, row in enumerate(rows if apart else ()):
        row["rewards"] = {name: float(own[place]) for name, own in apart.items()}
    told = weighted_rewards.metrics(apart)
    metrics = {
        "dev/reward_mean": float(np.mean(rewards, dtype=np.float64)),
        "dev/kl_sum_mean": float(np.mean(ratios, dtype=np.float64)),
        "dev/response_length_mean": float(
            np.mean([len(one.reply.tokens) for one in sampled])
        ),
        **{f"dev/{name}": value for name, value in told.items()},
    }
    cut = cut_counts.by_finish([one.reply.finish for one in sampled])
    return rows, metrics | cut_counts.as_metrics("dev", cut)
