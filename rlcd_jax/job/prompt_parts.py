"""The parts of a run's prompts: train, dev, test and agreement; no text is in two."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from rlcd_jax import records, tasks
from rlcd_jax.datasets import parts, prompt_rows
from rlcd_jax.job import setup

# Of two parts with one text, the first keeps it.
PARTS = ("dev", "test", "agreement", "train")


@dataclasses.dataclass(frozen=True)
class Part:
    """A part of the data without what is in the parts before it; see `PARTS`."""

    prompts: tuple[records.Prompt, ...]
    shared: int  # how many prompts are left out, because another part has their text


def load_prompts(
    config: ConfigDict, task: tasks.Task, part: str, *, limit: int | None = None
) -> list[records.Prompt]:
    """Return the prompts of a part of the data; no text is in two parts.

    Args:
      config: of the run.
      task: the task.
      part: "train" for simulation and PPO, "dev" for the prompts on which checkpoints
        and settings are chosen, "test" for those of the evaluation.
      limit: how many at most, 0: all; None: as many as the config says, which is
        `prompts.limit` for "train" and `evaluate.prompts` for the others.
    """
    if limit is None:
        limit = config.prompts.limit if part == "train" else config.evaluate.prompts
    return list(load_part(config, task, part).prompts)[: limit or None]


def load_part(
    config: ConfigDict, task: tasks.Task, part: str, *, human: bool = False
) -> Part:
    """Return a whole part of the data, and how many prompts others have taken.

    A text that is in several parts, whatever its ids, belongs to the first of them in
    the order of `PARTS`; but without `prompts.hh_agreement_apart`, as released, that of
    "agreement" stays in training too. A part that this config cannot read holds
    nothing.

    Args:
      config: of the run.
      task: the task.
      part: one of `PARTS`.
      human: the prompts of human pairs, which are of hh-rlhf whatever the source is.
    """
    prompts = _read_part(config, task, part, human)
    others: list[records.Prompt] = []
    for name in PARTS[: PARTS.index(part)] if part in PARTS else ():
        if name == "agreement" and not config.prompts.hh_agreement_apart:
            continue
        try:
            others += _read_part(config, task, name, human=False)
        except ValueError as error:
            logging.warning("no prompts of part %r are kept out: %s", name, error)
    kept = parts.apart(prompts, others)
    shared = len(prompts) - len(kept)
    if shared:
        told = "%d of %d prompts of part %r are left out: other parts have their text"
        logging.info(told, shared, len(prompts), part)
    return Part(tuple(kept), shared)


def _read_part(
    config: ConfigDict, task: tasks.Task, part: str, human: bool
) -> Sequence[records.Prompt]:
    source = config.prompts.source
    if part == "agreement" and not (task.hh_config and config.prompts.hh_dir):
        return ()  # of no human pairs at all
    if human or part == "agreement" or source == "hh_rlhf":
        return _hh_prompts(config, task, part)
    if source != "package" and prompt_rows.is_of_others(source):
        found = prompt_rows.read(source)
        logging.log_first_n(logging.INFO, "%s: %s", 1, source, found.said())
        return tasks.part_of(found.prompts, task, part, str(source))
    return tasks.load_prompts(task, part, None if source == "package" else source)


def _hh_prompts(
    config: ConfigDict, task: tasks.Task, part: str
) -> Sequence[records.Prompt]:
    """Return a part of hh-rlhf, as its lines are."""
    if not task.hh_config:
        raise ValueError(
            f"prompts.source='hh_rlhf' but task {task.name!r} has no hh-rlhf "
            "subset; accepted for it: 'package' or a path to prompts"
        )
    split = hh_split(config, part)
    if not split:
        return ()
    # Here: it brings TFDS, which takes long, and most prompts are files of ours.
    from rlcd_jax.datasets import hh_rlhf

    try:
        return hh_rlhf.load_prompts(
            task.hh_config,
            split,
            manual_dir=config.prompts.hh_dir or None,
            data_dir=data_dir(config),
            as_written=config.prompts.as_written,
        )
    except ValueError as error:
        where = f"prompts.hh_{part}_split={split!r}"
        raise ValueError(f"{where} cannot be read: {error}") from error


def hh_split(config: ConfigDict, part: str) -> str:
    """Return the split of hh-rlhf that is a part of the data."""
    splits = {
        "dev": config.prompts.hh_dev_split,
        "test": config.prompts.hh_test_split,
        "agreement": config.prompts.hh_agreement_split,
        "train": config.prompts.hh_train_split,
    }
    return splits[part]


def data_dir(config: ConfigDict) -> pathlib.Path:
    """Return the folder in which data sets are prepared."""
    named = config.prompts.data_dir
    return pathlib.Path(named) if named else setup.cache_dir(config) / "datasets"


def repeat_prompts(prompts: list[records.Prompt], times: int) -> list[records.Prompt]:
    """Return each prompt `times` times, its draws numbered from 0.

    With one draw there is no number.
    """
    if times == 1:
        return prompts
    return [
        dataclasses.replace(prompt, draw=draw)
        for prompt in prompts
        for draw in range(times)
    ]
