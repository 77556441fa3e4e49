"""The sampling half of PPO: replies, and the frozen rollout of a step."""

from __future__ import annotations

import dataclasses
import math
import os
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import phases, processes, seeds, sharding, tasks
from rlcd_jax.decode import engine, requests
from rlcd_jax.job import (
    batching,
    generation,
    in_flight,
    lengths,
    parked,
    roles,
    setup,
)
from rlcd_jax.pairs import cut_counts
from rlcd_jax.ppo import (
    encoded_prompts,
    frozen_files,
    learning,
    reply_reading,
    reply_rows,
    rollout,
    step_notes,
    weighted_rewards,
)
from rlcd_jax.preference import pair_ids
from rlcd_jax.scoring import reading, rewards
from rlcd_jax.training import packing

Params = Any
# Which replies go through a model at once, and their rows, `reply_rows.READ`.
Part = tuple[np.ndarray, tuple[jax.Array, ...]]


@dataclasses.dataclass(frozen=True)
class Sampled:
    """A prompt with the reply that the policy wrote to it."""

    dialogue: encoded_prompts.EncodedPrompt
    reply: engine.Reply


def reward_length(job: setup.Job, rewarder: setup.Job) -> int:
    """Return the row length that holds every prompt, reply and mark, in tokens.

    Args:
      job: of the stage, with the policy's model.
      rewarder: with the preference model's, whose tokens they are; where it has another
        tokenizer, about.
    """
    share = lengths.tokens_for_one(job, rewarder)
    length = math.ceil(share * job.longest_text("policy"))
    return -(-(length + lengths.mark_tokens(rewarder)) // 16) * 16


def most_requests(section: ConfigDict) -> int:
    """Return how many replies the engine is asked for at once, at most.

    Args:
      section: of the config, `policy`.
    """
    return max(section.rollouts, section.dev_prompts)


_assemble = jax.jit(rollout.assemble, static_argnames="rules")


class Actor:
    """Writes replies and rolls them out; holds the engine and the frozen models."""

    def __init__(self, job: setup.Job) -> None:
        section = job.config.policy
        self.job, self.section = job, section
        self.rewarder = job.of(roles.PREFERENCE)  # the job with its model
        lengths.check(job, "policy")
        self.prompts, long = encoded_prompts.usable_prompts(job)
        self.dev_prompts, long_dev = encoded_prompts.dev_prompts(job)
        self.too_long = {"prompts": long, "dev prompts": long_dev}
        self.sampler = generation.make_engine(
            job,
            section.prompt_tokens,
            section.reply_tokens,
            most=most_requests(section),
        )
        read = {
            name: reply_reading.rows_program(job, one)
            for name, one in reply_reading.READINGS.items()
        }
        self._logprobs_entropy, self._logprobs, self._values = (
            read[name] for name in ("policy", "reference", "values")
        )
        self._valued = learning.VALUE in learning.trained(section)
        self._reference: Callable[[], Params] | None = None
        self._rewards: Callable[[Sequence[Sequence[int]]], np.ndarray] | None = None
        self._others: dict[str, Callable[[Sequence[Sequence[int]]], np.ndarray]] = {}
        entries = weighted_rewards.read(section.rewards)
        self._weights = {one.name: one.weight for one in entries}
        self._weights[weighted_rewards.OWN] = float(section.reward_weight)

    def set_frozen(
        self,
        *,
        reference: Params,
        preference: Params,
        others: Mapping[str, Params] = types.MappingProxyType({}),
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        """Take the models that never change.

        Args:
          reference: the policy's start.
          preference: the run's own preference model.
          others: those of `policy.rewards`, by name.
          folder: in which they may be parked; None: nowhere.
        """
        rewarder = self.rewarder
        if not frozen_files.parks(self.job, on_cpu=sharding.is_on_cpu(self.job.mesh)):
            folder = None
        self._reference = parked.park(reading.frozen(self.job, reference), folder)
        length = reward_length(self.job, rewarder)
        score = rewards.reward_scorer(rewarder, lengths=(length,))

        def scorer(params: Params) -> Callable[[Sequence[Sequence[int]]], np.ndarray]:
            model = parked.park(reading.frozen(rewarder, params), folder)
            return lambda rows: score(model(), rows)

        self._rewards = scorer(preference)
        self._others = {name: scorer(one) for name, one in others.items()}

    def draw_prompts(self, step: int) -> list[encoded_prompts.EncodedPrompt]:
        """Return the prompts of a step: each epoch over the prompts in a new order.

        One that is answered several times stands as often, one after the other.
        """
        seed, again = self.job.config.seed, self.section.samples_per_prompt
        size = self.section.rollouts // again
        indices = batching.batch_indices(len(self.prompts), seed, size, step - 1)
        return [self.prompts[index] for index in indices for _ in range(again)]

    def generate(
        self,
        policy: Params,
        prompts: Sequence[encoded_prompts.EncodedPrompt],
        step: int,
        first: int = 0,
    ) -> list[Sampled]:
        """Return one reply to each prompt, keyed by (seed, step, place, prompt).

        Step 0 stands for dev prompts: all checkpoints draw with the same keys, so
        that their replies differ by the weights alone.

        Args:
          policy: its parameters.
          prompts: to answer.
          step: of PPO.
          first: place of the first of them in the step.
        """
        generation.load(self.sampler, policy, self.job.mesh)
        seed, task = self.job.config.seed, self.job.task
        asked = [
            engine.Request(
                id=f"{step}/{place}",
                tokens=dialogue.ids,
                seed=seeds.seed_words(seed, "rollout", step, place, dialogue.id),
                max_new_tokens=self.section.reply_tokens,
                temperature=float(self.section.temperature),
                stop_strings=() if self.section.past_mark else task.stop_strings,
            )
            for place, dialogue in enumerate(prompts, start=first)
        ]
        what = f"rollout {step}" if step else "dev prompts"
        replies = generation.generate(self.sampler, asked, what)
        self.sampler.unload()  # the updates need the room
        return [Sampled(*pair) for pair in zip(prompts, replies, strict=True)]

    def roll_out(
        self,
        params: Mapping[str, Params],
        sampled: Sequence[Sampled],
        notes: step_notes.Notes,
    ) -> tuple[rollout.Rollout, step_notes.Notes, dict[str, Any]]:
        """Freeze everything that the updates of this step refer to.

        Args:
          params: what is trained, by `learning.trained`, as before the updates.
          sampled: the prompts and replies of the step.
          notes: KL coefficient and reward scale.

        Returns:
          The rollout, the notes with the reward scale measured if it was not, and
          metrics.
        """
        section, parts = self.section, self._parts(sampled)
        begun = [
            self._begin(self._logprobs_entropy, params["policy"], parts),
            self._begin(self._logprobs, self._reference(), parts),
        ]
        if self._valued:
            begun.append(self._begin(self._values, params[learning.VALUE], parts))
        # Before the readings are fetched: the host encodes texts while devices read.
        raw = self.all_rewards(sampled)
        (logprobs, entropy), (ref_logprobs, _), *valued = (
            self._end(said, parts) for said in begun
        )
        values = valued[0] if valued else None
        checked = rollout.engine_check(
            [one.reply.sampled_logprobs for one in sampled],
            logprobs,
            tolerance=section.engine_tolerance,
        )
        notes = notes.measured(raw)
        reward, apart = self._shown(raw, notes)
        earned = reward if apart else notes.gain * reward + notes.bias
        scores, metrics = rollout.terminal_rule(
            jnp.asarray(earned),
            jnp.asarray(
                [
                    is_whole(r.raw, r.finish, self.job.task, section.finished)
                    for r in (one.reply for one in sampled)
                ]
            ),
            jnp.asarray([not self.shown(one.reply).strip() for one in sampled]),
            mode=section.terminal_mode,
            value=float(section.terminal_value),
        )
        frozen, more = _assemble(
            self._mask(sampled),
            logprobs,
            ref_logprobs,
            values,
            scores,
            kl_coef=learning.float32(notes.kl_coef),
            rules=rules(section),
            entropy=entropy,
        )
        speed = generation.engine_metrics(self.sampler)
        cut = cut_counts.by_finish([one.reply.finish for one in sampled])
        shown = {**processes.fetch({**metrics, **more}), **speed, **checked}
        shown |= cut_counts.as_metrics("rollout", cut)
        shown["rollout/reward_mean"] = float(reward.mean())
        return frozen, notes, {**shown, **weighted_rewards.metrics(apart)}

    def shown_rewards(
        self, sampled: Sequence[Sampled], notes: step_notes.Notes
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the reward [B] of replies as it is shown, and its parts by name.

        Of one model it is the reward as that said it, and there are no parts; of
        several the weighted sum of what they said, normalised. Where all steps so far
        were left out no scale is known yet, and that of these replies is taken.
        """
        return self._shown(self.all_rewards(sampled), notes)

    def _shown(
        self, raw: Mapping[str, np.ndarray], notes: step_notes.Notes
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        if len(raw) == 1:
            return raw[weighted_rewards.OWN], {}
        apart = notes.measured(raw).normalised(raw)
        return weighted_rewards.weighted(apart, self._weights), apart

    def shown(self, reply: engine.Reply) -> str:
        """Return the text of a reply up to the mark of the next turn."""
        return requests.cut(reply.text, self.job.task.stop_strings)

    def all_rewards(self, sampled: Sequence[Sampled]) -> dict[str, np.ndarray]:
        """Return each preference model's reward of each reply, [B] float32, by name.

        They read what they were trained to read and what evaluation shows them: the
        reply's text without outer blanks, up to its end, and encoded anew with its
        prompt and the mark. So a reward belongs to the text, not to the ids that
        spelled it, and the tokenizer is the preference model's, where the policy has
        another. The run's own model has the name `weighted_rewards.OWN`.

        Source: the released code decodes and encodes in the same way.
        """
        with phases.phase("score"):
            rows = self._reward_rows(sampled)
            others = {name: score(rows) for name, score in self._others.items()}
            return {weighted_rewards.OWN: self._rewards(rows), **others}

    def _reward_rows(self, sampled: Sequence[Sampled]) -> list[list[int]]:
        """Return the ids that preference models read of each reply."""
        texts = [
            (one.dialogue.text, self._reply_text(one.reply.tokens)) for one in sampled
        ]
        rows = pair_ids.reply_ids(self.rewarder, texts)
        most = self.rewarder.cfg.max_positions
        if long := sum(len(row) > most for row in rows):
            # Ids that were drawn may spell a text shorter than its own encoding.
            logging.warning(
                "policy: %d of %d replies are encoded in more than the model's %d "
                "positions, and their rewards mean little; lower policy.reply_tokens",
                long,
                len(rows),
                most,
            )
        return rows

    def _reply_text(self, ids: Sequence[int]) -> str:
        """Return the text of a sampled reply before its first end."""
        tokenizer = self.job.text_tokenizer
        ends = [place for place, one in enumerate(ids) if one in tokenizer.eos_ids]
        text = tokenizer.decode(ids[: ends[0]] if ends else ids)
        return requests.cut(text, self.job.task.stop_strings)

    def log_ratios(self, policy: Params, sampled: Sequence[Sampled]) -> np.ndarray:
        """Return log policy / reference of each whole reply, [B] float32, in nats.

        Its mean over replies that the policy drew is the estimate k1 of the KL, without
        the clamp of other estimators. The programs are those of the rollout.
        """
        # Full parts only: one of another size would be compiled for.
        spare = -len(sampled) % reply_rows.rows_at_once(self.job)
        filled = [*sampled, *[sampled[-1]] * spare]
        parts = self._parts(filled)
        logprobs, _ = self._read(self._logprobs_entropy, policy, parts)
        ref_logprobs, _ = self._read(self._logprobs, self._reference(), parts)
        ratios = np.where(self._mask(filled), logprobs - ref_logprobs, 0.0)
        return ratios.sum(axis=1, dtype=np.float32)[: len(sampled)]

    def texts(self, sampled: Sequence[Sampled]) -> list[packing.Text]:
        """Return prompts and replies as the models read them."""
        return [
            reply_rows.text(self.job, one.dialogue.ids, one.reply.tokens)
            for one in sampled
        ]

    def _mask(self, sampled: Sequence[Sampled]) -> np.ndarray:
        """Return [B, R] bool, which entries are a token of a reply."""
        counts = np.array([len(one.reply.tokens) for one in sampled])
        return np.arange(self.section.reply_tokens) < counts[:, None]

    def _parts(self, sampled: Sequence[Sampled]) -> list[Part]:
        """Return what goes through a model at once, as many replies as in updates.

        It lies on the devices already, for all the models that read it.
        """
        where = sharding.batch_sharding(self.job.mesh)
        return [
            (chosen, processes.place(tuple(rows.values()), where))
            for chosen, rows in reply_rows.read_parts(self.job, self.texts(sampled))
        ]

    def _read(self, program: Callable, params: Params, parts: Sequence[Part]) -> Any:
        """Return what a program says of all replies, in their order."""
        return self._end(self._begin(program, params, parts), parts)

    def _begin(
        self, program: Callable, params: Params, parts: Sequence[Part]
    ) -> list[Any]:
        """Return what a program says of each part, which may be under way."""
        with phases.phase("read"), jax.set_mesh(self.job.mesh):
            made = (program(params, *rows) for _, rows in parts)
            return in_flight.begun(self.job.mesh, made)

    def _end(self, begun: list[Any], parts: Sequence[Part]) -> Any:
        """Return what was said of parts, of all replies in their order."""
        with phases.phase("read"):
            said = processes.fetch(begun)
        back = np.argsort(np.concatenate([chosen for chosen, _ in parts]))
        return jax.tree.map(lambda *pieces: np.concatenate(pieces)[back], *said)


def is_whole(raw: str, finish: str, task: tasks.Task, finished: str) -> bool:
    """Return whether a reply ended by itself.

    Args:
      raw: its text with whatever ended it.
      finish: "eos", "stop" or "length".
      task: has the mark of the next turn. In the chat format the end token is it.
      finished: of `rollout.FINISHED`.
    """
    marked = any(stop in raw for stop in task.stop_strings)
    by_mark = finished == rollout.BY_MARK and bool(task.stop_strings)
    return marked or (finish == "eos" and not by_mark)


def rules(section: ConfigDict) -> rollout.AdvantageRules:
    """Return how a section of the config has rewards become advantages."""
    return rollout.AdvantageRules(
        kl_estimator=section.kl_estimator,
        gamma=float(section.gamma),
        lam=float(section.lam),
        whiten_rewards=section.whiten_rewards,
        whiten_advantages=section.whiten_advantages,
        whiten_rows=section.whiten_rows,
        statistics=section.statistics,
        advantages=section.advantages,
        group=section.samples_per_prompt,
        group_deviation=section.group_deviation,
        kl_in=section.kl_in,
    )
