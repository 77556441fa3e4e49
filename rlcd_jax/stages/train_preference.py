"""Stage 2: pairs become a preference model.

Bradley-Terry on the scalar at the last token of "prompt, reply, end mark"; labels are
probabilities, hard ones being 0 or 1. Held-out pairs are of prompts that training
never sees. Leaves ``preference/checkpoints`` and ``preference/summary.json``.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import estimates, losses, pairs, records, win_rates
from rlcd_jax.datasets import hh_rlhf, parts
from rlcd_jax.models import heads
from rlcd_jax.stages import batching, inputs, scorers, supervised, trainer, workspace

Params = Any
ITEM = "preference"  # name of the parameters in a checkpoint
AnyPair = records.Pair | records.HumanPair
Evaluate = Callable[[Params], tuple[dict[str, float], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class TokenPair:
    """A pair as the preference model reads it."""

    ids_1: tuple[int, ...]
    ids_2: tuple[int, ...]
    prob_2: float


def train_preference(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Train the preference model of a run.

    Args:
      config: of the run; section ``preference``.
      workdir: folder of the run, with ``pairs/pairs.jsonl`` unless the pairs are
        human ones.

    Returns:
      The summary: held-out accuracy with its interval, agreement with human pairs.
    """
    if workspace.finished(config, workdir, "preference"):
        return workspace.summary(workdir, "preference")
    started = time.monotonic()
    found = inputs.load_inputs(config)
    train, held_out = load_pairs(config, workdir, found)
    section = config.preference
    updates = supervised.num_updates(section, len(train), "preference")
    program = make_trainer(found, updates)
    folder = workspace.begin(config, workdir, "preference")
    evaluate = accuracy_on(found, to_tokens(found, held_out))
    lesson = supervised.Lesson(
        stage="preference",
        rows=to_tokens(found, train),
        collate=collate(found, section.lengths),
        evaluate=lambda params: evaluate(params[ITEM])[0],
    )
    state, _ = supervised.fit(
        config, workdir, folder, lesson, program, lambda: {ITEM: start_params(found)}
    )
    summary = _summarise(found, state.params[ITEM], evaluate, train, held_out)
    summary["seconds"] = time.monotonic() - started
    logging.info("preference: %s", summary)
    return workspace.finish(config, workdir, "preference", summary)


def make_trainer(found: inputs.Inputs, updates: int) -> trainer.Trainer:
    """Return the compiled update of the preference model.

    Args:
      found: inputs of the stage.
      updates: of the whole training, which the schedule needs.
    """
    return supervised.make_trainer(
        found,
        "preference",
        {ITEM: heads.scalar_specs(found.cfg)},
        preference_loss(found),
        updates=updates,
        weight="counted",
    )


def start_params(found: inputs.Inputs) -> Params:
    """Return the base model's trunk under a fresh scalar head."""
    key = jax.random.fold_in(jax.random.key(found.config.seed), 1)
    return heads.scalar_from_trunk(found.cfg, found.load_base(), key)


def load_pairs(
    config: ConfigDict, workdir: str | pathlib.Path, found: inputs.Inputs
) -> tuple[list[AnyPair], list[AnyPair]]:
    """Return training and held-out pairs, split by prompt: by its id and its text.

    Held-out prompts are those that a hash of (seed, prompt id) puts first, so that
    more pairs move nothing from one side to the other.
    """
    section = config.preference
    if section.data == "hh_rlhf":
        rows = human_pairs(config, found, section.data_limit)
    elif section.data == "pairs":
        path = workspace.stage_folder(workdir, "simulate") / "pairs.jsonl"
        if not path.exists():
            raise ValueError(f"{path} does not exist; run --stage=simulate first")
        rows = records.read_jsonl(path, records.Pair)
        if section.human_share:
            people = human_pairs(config, found, 0)
            rows = mix_human(rows, people, section.human_share, config.seed)
    else:
        raise ValueError(
            f"preference.data={section.data!r}; accepted: 'pairs', 'hh_rlhf'"
        )
    by_prompt = parts.by_prompt(rows)
    order = sorted(
        by_prompt, key=lambda name: records.seed_words(config.seed, "held_out", name)
    )
    train: list[AnyPair] = []
    held_out: list[AnyPair] = []
    for name in order:
        side = held_out if len(held_out) < section.held_out else train
        side += by_prompt[name]
    return train, held_out


def mix_human(
    rows: Sequence[records.Pair],
    people: Sequence[records.HumanPair],
    share: float,
    seed: int,
) -> list[AnyPair]:
    """Return as many pairs, a share of them human ones in the place of simulated ones.

    Which go and which come is keyed by (seed, pair id).

    Args:
      rows: simulated pairs.
      people: human pairs to take from.
      share: of human pairs in the result, in (0, 1).
      seed: root seed.
    """
    count = round(share * len(rows))
    if not 0 < share < 1 or count > len(people):
        raise ValueError(
            f"preference.human_share={share} of {len(rows)} pairs needs {count} human "
            f"pairs and there are {len(people)}; accepted: a share in (0, 1) that the "
            "human pairs suffice for"
        )

    def order(pair: AnyPair) -> tuple[int, int]:
        return records.seed_words(seed, "human_share", pair.id)

    kept = sorted(rows, key=order)[count:]
    return [*kept, *sorted(people, key=order)[:count]]


def human_pairs(
    config: ConfigDict, found: inputs.Inputs, limit: int, part: str = "train"
) -> list[records.HumanPair]:
    """Return human pairs of hh-rlhf for the task, of prompts that are in one part.

    Args:
      config: of the run.
      found: its inputs.
      limit: how many at most, 0: all.
      part: "train" to learn from, "agreement" to compare with people.
    """
    if not found.task.hh_config or not config.prompts.hh_dir:
        raise ValueError(
            f"human pairs need a task with an hh-rlhf subset (task "
            f"{found.task.name!r} has {found.task.hh_config!r}) and prompts.hh_dir, "
            f"got {config.prompts.hh_dir!r}"
        )
    own = inputs.load_part(config, found.task, part, human=True)
    ids = {prompt.id for prompt in own.prompts}
    kept = []
    if ids:
        rows = hh_rlhf.load_human_pairs(
            found.task.hh_config,
            inputs.hh_split(config, part),
            seed=config.seed,
            manual_dir=config.prompts.hh_dir,
            data_dir=inputs.data_dir(config),
        )
        kept = [row for row in rows if row.prompt_id in ids]
    if not kept:
        raise ValueError(
            f"prompts.hh_{part}_split={inputs.hh_split(config, part)!r} gives no human "
            f"pair: it has {len(ids)} prompts, and {own.shared} more that other parts "
            "have too; accepted: a split with lines of its own"
        )
    return kept[: limit or None]


def whole_text(found: inputs.Inputs, prompt: str, reply: str) -> str:
    """Return what a preference model reads of one reply: prompt, reply, end mark."""
    return prompt + pairs.reply_text(reply, found.task, found.end_of_turn)


def to_tokens(found: inputs.Inputs, rows: Sequence[AnyPair]) -> list[TokenPair]:
    """Return pairs as token ids of the two whole texts."""
    out = []
    for row in rows:
        texts = pairs.preference_texts(row, found.task, found.end_of_turn)
        ids = [tuple(found.text_tokenizer.encode(text)) for text in texts]
        out.append(TokenPair(*ids, prob_2=float(row.prob_2)))
    return out


def collate(
    found: inputs.Inputs, lengths: Sequence[int]
) -> Callable[[Sequence[TokenPair]], Mapping[str, np.ndarray]]:
    """Return a function from rows to tokens and mask [B, 2, T], prob_2 [B]."""

    def arrays(rows: Sequence[TokenPair]) -> Mapping[str, np.ndarray]:
        ids = [ids for row in rows for ids in (row.ids_1, row.ids_2)]
        length = batching.fitting_length(max(map(len, ids)), lengths)
        tokens, mask = batching.pad_left(ids, length, found.text_tokenizer.pad_id)
        return {
            "tokens": tokens.reshape(len(rows), 2, length),
            "mask": mask.reshape(len(rows), 2, length),
            "prob_2": np.array([row.prob_2 for row in rows], np.float32),
            "counted": np.ones(len(rows), bool),
        }

    return arrays


def preference_loss(found: inputs.Inputs):
    """Return the Bradley-Terry loss of a batch as a function of the parameters."""

    def loss_fn(params: Mapping[str, Params], batch: Mapping[str, jax.Array]):
        size, _, length = batch["tokens"].shape
        rewards = heads.scalar_at_last(
            params[ITEM],
            found.cfg,
            batch["tokens"].reshape(2 * size, length),
            batch["mask"].reshape(2 * size, length),
        ).reshape(size, 2)
        return losses.bradley_terry(rewards[:, 0], rewards[:, 1], batch["prob_2"])

    return loss_fn


def pair_scorer(
    found: inputs.Inputs,
) -> Callable[[Params, Sequence[TokenPair]], np.ndarray]:
    """Return a function from parameters and pairs to both rewards, [B, 2] float32."""
    score = scorers.reward_scorer(found, found.config.preference.lengths)

    def rewards(params: Params, rows: Sequence[TokenPair]) -> np.ndarray:
        ids = [ids for row in rows for ids in (row.ids_1, row.ids_2)]
        return score(scorers.frozen(found, params), ids).reshape(-1, 2)

    return rewards


def accuracy_on(found: inputs.Inputs, rows: Sequence[TokenPair]) -> Evaluate:
    """Return a function from parameters to held-out metrics and right-or-wrong.

    A pair is right when the likelier reply has the higher reward, a tie is wrong;
    pairs with the label 1/2 are left out of the accuracy.
    """
    labels = np.array([row.prob_2 for row in rows])
    decided = labels != 0.5
    rewards = pair_scorer(found)

    def evaluate(params: Params) -> tuple[dict[str, float], np.ndarray]:
        if not decided.any():
            return {}, np.zeros(0)
        margins = np.diff(rewards(params, rows), axis=1)[:, 0]
        cross_entropy = np.logaddexp(0.0, margins) - labels * margins
        right = (margins * (2 * labels - 1) > 0)[decided]
        return {
            "preference/held_out_loss": float(cross_entropy.mean()),
            "preference/held_out_accuracy": float(right.mean()),
        }, right.astype(float)

    return evaluate


def _summarise(found, params, evaluate, train, held_out) -> dict[str, Any]:
    """Return what a reader wants to know of the finished model."""
    out, right = evaluate(params)
    config = found.config
    summary: dict[str, Any] = {
        "train_pairs": len(train),
        "held_out_pairs": len(held_out),
        **out,
    }
    if len(right):
        summary["held_out_accuracy"] = dataclasses.asdict(
            estimates.proportion_interval(float(right.sum()), len(right))
        )
    if config.preference.data == "hh_rlhf" or config.preference.human_share:
        people = inputs.load_part(config, found.task, "train", human=True)
        summary["human_pairs_in_other_parts"] = people.shared
    if config.preference.human_pairs:
        summary["human_agreement"] = human_agreement(found, params)
    return summary


def human_agreement(found: inputs.Inputs, params: Params) -> dict[str, Any]:
    """Return how often the model prefers what a human preferred, with intervals."""
    config = found.config
    limit = config.preference.human_pairs
    rows = human_pairs(config, found, limit, "agreement")
    rewards = pair_scorer(found)(params, to_tokens(found, rows))
    prefers_2 = np.array([row.prob_2 > 0.5 for row in rows]).astype(int)
    chosen = rewards[np.arange(len(rows)), prefers_2]
    rejected = rewards[np.arange(len(rows)), 1 - prefers_2]
    accuracy, probability = win_rates.human_agreement(
        chosen, rejected, seed=config.seed
    )
    return {
        "pairs": len(rows),
        "accuracy": dataclasses.asdict(accuracy),
        "mean_probability": dataclasses.asdict(probability),
    }
