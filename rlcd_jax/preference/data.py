"""Which pairs a preference model is trained on and which are held out."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import record_files, records, seeds
from rlcd_jax.datasets import comparisons, parts
from rlcd_jax.job import prompt_parts, setup, supervised, workspace
from rlcd_jax.text import dialogue_format

AnyPair = records.Pair | records.HumanPair


def load_pairs(
    config: ConfigDict, workdir: str | pathlib.Path, job: setup.Job
) -> tuple[list[AnyPair], list[AnyPair]]:
    """Return training and held-out pairs, split by prompt: by its id and its text.

    Held-out prompts are those that a hash of (seed, prompt id) puts first, so that
    more pairs move nothing from one side to the other.

    Raises:
      ValueError: there are no pairs.
    """
    section = config.preference
    if section.data == "hh_rlhf":
        rows = human_pairs(config, job, section.data_limit)
    elif comparisons.is_named(section.data):
        rows = others_pairs(config, job)
    else:
        path = workspace.stage_folder(workdir, "simulate") / "pairs.jsonl"
        if not path.exists():
            raise ValueError(f"{path} does not exist; run --stage=simulate first")
        rows = record_files.read_jsonl(path, records.Pair)
        if section.human_share:
            people = human_pairs(config, job, 0)
            rows = mix_human(rows, people, section.human_share, config.seed)
    by_prompt = parts.by_prompt(rows)
    order = sorted(
        by_prompt, key=lambda name: seeds.seed_words(config.seed, "held_out", name)
    )
    train: list[AnyPair] = []
    held_out: list[AnyPair] = []
    for name in order:
        side = held_out if len(held_out) < section.held_out else train
        side += by_prompt[name]
    return train, held_out


def lost_pairs(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    stage: str,
    too_long: Mapping[str, int],
) -> str:
    """Say where the pairs went that a stage does not train on.

    Args:
      config: of the run.
      workdir: its folder.
      stage: that trains on `load_pairs`.
      too_long: what became of those over its lengths, by `length_counts`.
    """
    section = config.preference
    held = f"preference.held_out={section.held_out} took its share first"
    if section.data != "pairs":
        return held
    return f"{supervised.lost_pairs(workdir, stage, too_long)}; {held}"


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

    Raises:
      ValueError: there are too few human pairs for the share.
    """
    count = round(share * len(rows))
    if not 0 < share < 1 or count > len(people):
        raise ValueError(
            f"preference.human_share={share} of {len(rows)} pairs needs {count} human "
            f"pairs and there are {len(people)}; accepted: a share in (0, 1) that the "
            "human pairs suffice for"
        )

    def order(pair: AnyPair) -> tuple[int, int]:
        return seeds.seed_words(seed, "human_share", pair.id)

    kept = sorted(rows, key=order)[count:]
    return [*kept, *sorted(people, key=order)[:count]]


def others_pairs(config: ConfigDict, job: setup.Job) -> list[records.HumanPair]:
    """Return the pairs of the file that `preference.data` names, up to its limit.

    Prompts are written in the format of the run's task, as those of its own pairs are.
    """
    section = config.preference
    found = comparisons.read(section.data, seed=config.seed)
    if found.said():
        logging.warning("preference.data=%s: %s", section.data, found.said())
    pairs = []
    for row in found.rows[: section.data_limit or None]:
        prompt = records.Prompt(row.id, row.turns)
        chat = job.text_tokenizer.chat
        text = dialogue_format.plain_prompt(prompt, job.task, chat)
        pairs.append(comparisons.to_pair(row, text))
    return pairs


def human_pairs(
    config: ConfigDict, job: setup.Job, limit: int, part: str = "train"
) -> list[records.HumanPair]:
    """Return human pairs of hh-rlhf for the task, of prompts that are in one part.

    Args:
      config: of the run.
      job: of the stage.
      limit: how many at most, 0: all.
      part: "train" to learn from, "agreement" to compare with people.

    Raises:
      ValueError: the task has no human pairs, or the split gives none.
    """
    if not job.task.hh_config or not config.prompts.hh_dir:
        raise ValueError(
            f"human pairs need a task with an hh-rlhf subset (task "
            f"{job.task.name!r} has {job.task.hh_config!r}) and prompts.hh_dir, "
            f"got {config.prompts.hh_dir!r}"
        )
    # Here: it brings TFDS, which takes long, and most runs have no human pairs.
    from rlcd_jax.datasets import hh_rlhf

    own = prompt_parts.load_part(config, job.task, part, human=True)
    ids = {prompt.id for prompt in own.prompts}
    split, kept = prompt_parts.hh_split(config, part), []
    if ids:
        rows = hh_rlhf.load_human_pairs(
            job.task.hh_config,
            split,
            seed=config.seed,
            manual_dir=config.prompts.hh_dir,
            data_dir=prompt_parts.data_dir(config),
        )
        kept = [row for row in rows if row.prompt_id in ids]
    if not kept:
        raise ValueError(
            f"prompts.hh_{part}_split={split!r} gives no human pair: it has {len(ids)} "
            f"prompts, and {own.shared} more that other parts have too; accepted: a "
            "split with lines of its own"
        )
    return kept[: limit or None]
