"""A whole run of a family's tiny model, and what its stages really used.

The stages are those of every run, by the ordinary config. Watched are the functions
that they call: what they ask of the decode engine, the batches of every update, the
rollouts, and what models that only score are shown. Two things are put in: the replies
of the pairs that the simulation drew, and those of some rollouts, become fixed ones,
because torch cannot know in advance what a run will draw.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import family_models
import jax
import numpy as np
import runs

from rlcd_jax import done_mark, record_files, records
from rlcd_jax.decode import requests
from rlcd_jax.job import generation, trainer
from rlcd_jax.ppo import acting
from rlcd_jax.scoring import letters, rewards

GOLDEN = pathlib.Path(__file__).parent / "golden" / "families"
# In the small vocabulary of SentencePiece "(A" is one piece: no letter is asked for.
JUDGES = dict.fromkeys(("llama3_chat", "smollm2", "smollm2_gguf"), ("log_odds",))
SCRIPTED = 3  # of the first step's rollouts have fixed replies


@dataclasses.dataclass
class Watched:
    """What was seen, in the order in which the stages did it.

    Attributes:
      drawn: (what, request, reply) of the decode engine.
      updates: (batch, parameters before, metrics) of every optimizer update.
      rolled: (parameters, sampled, rollout, notes before, notes after) of a PPO step.
      scored: (ids, reward) of every text a preference model was shown.
      asked: (text, (logit of A, logit of B)) of the judge by letters.
    """

    drawn: list[tuple] = dataclasses.field(default_factory=list)
    updates: list[tuple] = dataclasses.field(default_factory=list)
    rolled: list[tuple] = dataclasses.field(default_factory=list)
    scored: list[tuple] = dataclasses.field(default_factory=list)
    asked: list[tuple] = dataclasses.field(default_factory=list)


@contextlib.contextmanager
def watching(golden: Any) -> Iterator[Watched]:
    """Watch the stages that run in this context; fixed replies are the golden file's."""
    seen = Watched()
    with contextlib.ExitStack() as stack:
        for owner, name, wrap in (
            (generation, "generate", _watch_draws),
            (trainer.Trainer, "update", _watch_updates),
            (acting.Actor, "roll_out", _watch_rollouts),
            (rewards, "reward_scorer", _watch_rewards),
            (letters, "letter_scorer", _watch_letters),
        ):
            new = wrap(getattr(owner, name), seen)
            stack.enter_context(mock.patch.object(owner, name, new))
        scripted = _with_fixed_replies(acting.Actor.generate, golden)
        stack.enter_context(mock.patch.object(acting.Actor, "generate", scripted))
        yield seen


def _watch_draws(real, seen):
    def generate(sampler, asked, what):
        replies = real(sampler, asked, what)
        seen.drawn += [(what, *pair) for pair in zip(asked, replies, strict=True)]
        return replies

    return generate


def _watch_updates(real, seen):
    def update(self, state, batch, *behind):
        before = jax.device_get(state.params)
        state, metrics = real(self, state, batch, *behind)
        seen.updates.append((jax.device_get(dict(batch)), before, metrics))
        return state, metrics

    return update


def _watch_rollouts(real, seen):
    def roll_out(self, params, sampled, notes):
        frozen, after, shown = real(self, params, sampled, notes)
        told = (jax.device_get(params), sampled, jax.device_get(frozen), notes, after)
        seen.rolled.append(told)
        return frozen, after, shown

    return roll_out


def _watch_rewards(real, seen):
    def reward_scorer(job, lengths):
        score = real(job, lengths)

        def watched(params, rows):
            out = score(params, rows)
            seen.scored += zip(map(tuple, rows), map(float, out), strict=True)
            return out

        return watched

    return reward_scorer


def _watch_letters(real, seen):
    def letter_scorer(job, params):
        score = real(job, params)

        def watched(texts):
            out = score(texts)
            seen.asked += zip(texts, out, strict=True)
            return out

        return watched

    return letter_scorer


def _with_fixed_replies(real, golden):
    """Let the first rollouts of the first step be the better replies of the golden."""

    def generate(self, policy, prompts, step):
        sampled = real(self, policy, prompts, step)
        for place in range(SCRIPTED if step == 1 else 0):
            one = sampled[place]
            index = dialogue_index(one.dialogue.id)
            ids = golden[f"ids_{index}_0"][-golden[f"num_{index}_0"] :]
            mark = family_models.HUMAN if self.job.task.format == "dialogue" else ""
            raw = family_models.REPLIES[index][0] + mark
            reply = requests.Reply(
                id=one.reply.id,
                tokens=tuple(map(int, ids)),
                text=family_models.REPLIES[index][0],
                raw=raw,
                finish="stop" if mark else "eos",
                logprobs=(0.0,) * len(ids),
                sampled_logprobs=(0.0,) * len(ids),
            )
            sampled[place] = dataclasses.replace(one, reply=reply)
        return sampled

    return generate


def dialogue_index(prompt_id: str) -> int:
    """Return which of the family's dialogues a prompt is."""
    return int(prompt_id.removeprefix("dialogue "))


def write_prompts(path: pathlib.Path) -> None:
    """Write the dialogues as a file of prompts."""
    rows = []
    for index, turns in enumerate(family_models.DIALOGUES):
        roles = ("human", "assistant") * len(turns)
        said = [
            {"role": role, "text": text}
            for role, text in zip(roles, turns, strict=False)
        ]
        rows.append(json.dumps({"id": f"dialogue {index}", "turns": said}))
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def config_of(name: str, spec: str, folder: pathlib.Path):
    """Return the config of the smallest run that trains each model twice or more."""
    write_prompts(folder / "prompts.jsonl")
    return runs.tiny_config(
        model__spec=spec,
        task_format=family_models.FORMATS[name],
        prompts__source=str(folder / "prompts.jsonl"),
        engine__prompt_buckets=(96,),
        engine__live_buckets=(1024,),  # one length, as programs are what takes time
        pairs__prompt_tokens=160,
        pairs__reply_tokens=8,
        preference__lengths=(96,),
        preference__learning_rate=1e-3,
        preference__schedule="constant",
        preference__epochs=1,
        preference__batch_size=2,
        preference__eval_every=100,
        preference__checkpoint_every=100,
        distill__lengths=(96,),
        distill__batch_size=4,
        distill__epochs=1,
        distill__checkpoint_every=100,
        policy__prompt_tokens=80,
        policy__reply_tokens=24,
        policy__epochs=1,
        policy__learning_rate=1e-2,
        policy__checkpoint_every=100,
        policy__dev_prompts=1,
        policy__engine_tolerance=1e3,  # the engine has not drawn the fixed replies
        evaluate__prompts=2,
        evaluate__reply_tokens=8,
        evaluate__judges=(*JUDGES.get(name, ()), "preference"),
        evaluate__preference_judge=str(folder / "run"),
    )


def fix_replies(workdir: pathlib.Path) -> None:
    """Put the fixed replies into the pairs that a simulation has left."""
    path = workdir / "pairs" / "pairs.jsonl"
    fixed = []
    for pair in record_files.read_jsonl(path, records.Pair):
        better, worse = family_models.REPLIES[dialogue_index(pair.prompt_id)]
        one, two = (better, worse) if pair.side_1 == "positive" else (worse, better)
        fixed.append(dataclasses.replace(pair, reply_1=one, reply_2=two))
    record_files.write_jsonl(path, fixed)
    # They are not what the mark says was drawn; without one they are given pairs.
    (path.parent / done_mark.DONE).unlink()


def run(name: str, folder: pathlib.Path) -> tuple[Watched, Any, pathlib.Path]:
    """Run the five stages; return what was seen, the golden file and the workdir."""
    golden = np.load(GOLDEN / f"{name}.npz")
    spec = family_models.write(name, folder / "model")
    config, workdir = config_of(name, spec, folder), folder / "run"
    with watching(golden) as seen:
        runs.run(config, workdir, "simulate")
        fix_replies(workdir)
        runs.run(config, workdir, "preference", "distill", "policy", "evaluate")
    return seen, golden, workdir
