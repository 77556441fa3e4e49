"""Label noise of files of pairs, by a word list or by a trusted judge's scores."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import logging

from rlcd_jax import record_files, records, schema, tasks
from rlcd_jax.diagnosis import label_noise, pair_readings
from rlcd_jax.judging import judges
from rlcd_jax.statistics import tables


@dataclasses.dataclass(frozen=True)
class PairScores:
    """What a trusted judge gave to the two replies of a pair; higher is better."""

    id: str = schema.filled()
    score_1: float
    score_2: float

    def __post_init__(self):
        schema.validate(self)


def files_table(
    paths: Sequence[pathlib.Path],
    *,
    task_name: str | None,
    scores: pathlib.Path | None,
    seed: int,
) -> tables.Table:
    """Return predicted and measured label accuracy of files of pairs.

    Args:
      paths: pairs.jsonl of one or more runs of one task.
      task_name: name or file; None: that of the pairs.
      scores: a trusted judge's, as JSON lines; None: a word list of sentiment.
      seed: of the bootstrap.

    Raises:
      ValueError: there are no pairs, or nothing to tell which reply is better.
    """
    pairs = [p for path in paths for p in record_files.read_jsonl(path, records.Pair)]
    if not pairs:
        raise ValueError(f"no pairs in {', '.join(map(str, paths))}")
    task = tasks.load_task(task_name or pairs[0].task)
    name, score = judges.LEXICON, pair_readings.lexicon
    if scores:
        by_text = read_scores(scores, pairs)
        name, score = scores.name, lambda texts: [by_text[text] for text in texts]
    elif task.lexicon is None:
        why = judges.JUDGES[judges.LEXICON].misfit(task)
        raise ValueError(f"{why}; give a trusted judge's scores of the pairs: --scores")
    readings = pair_readings.measure(pairs, task, outside={name: score})
    judged = label_noise.judged(pair_readings.one_each(readings), name)
    return label_noise.run_table(judged, judge=name, seed=seed)


def read_scores(
    path: pathlib.Path, pairs: Sequence[records.Pair]
) -> dict[tuple[str, str], float]:
    """Return the score of each (prompt, reply) in the pairs.

    Raises:
      ValueError: a row lacks a field or has a wrong one, a pair has no scores, or has
        them twice.
    """
    rows = record_files.read_jsonl(path, PairScores)
    by_pair = {row.id: (row.score_1, row.score_2) for row in rows}
    others = len(by_pair.keys() - {pair.id for pair in pairs})
    if others:
        logging.warning("%s: %d rows are of none of these pairs", path, others)
    lacking = [pair.id for pair in pairs if pair.id not in by_pair]
    if lacking:
        raise ValueError(
            f"{path} has no scores of {len(lacking)} pairs, such as {lacking[0]!r}; "
            "give one row for each pair"
        )
    return {
        (pair.prompt, reply): score
        for pair in pairs
        for reply, score in zip(
            (pair.reply_1, pair.reply_2), by_pair[pair.id], strict=True
        )
    }
