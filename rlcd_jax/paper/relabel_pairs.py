"""Label the pairs of another run anew by scoring; the replies stay.

Rescore is the contrast pairs of RLCD under scored labels: its replies are the same
draws, so they need not be sampled again. Few-shot RLAIF (RLCD Appendix C) is the pairs
of RLAIF under labels by a scoring prompt that begins with solved examples.
Leaves `pairs/pairs.jsonl`.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import processes, record_files, records, tasks
from rlcd_jax.job import lengths, prompt_parts, roles, setup, workspace
from rlcd_jax.pairs import counting, draws, few_shots, grid, scored_labels
from rlcd_jax.preference import human_shots
from rlcd_jax.stages import simulate_pairs
from rlcd_jax.text import dialogue_format, encoding


def relabel_pairs(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    source: str | pathlib.Path,
    *,
    shots: str,
) -> dict[str, Any]:
    """Write the pairs of `source` with scored labels.

    Args:
      config: of the run; the model is the scorer, `pairs` says how it is asked.
      workdir: folder of the run.
      source: a `pairs.jsonl`.
      shots: solved examples to put before each scoring prompt, as text, "task", or
        "human:N" for human pairs; "": those of `pairs.shots`.

    Returns:
      The summary of the pairs.
    """
    job = setup.load_job(config, role=roles.SCORER)
    rows = record_files.read_jsonl(source, records.Pair)
    prompts = {
        prompt.id: prompt
        for prompt in prompt_parts.load_prompts(config, job.task, "train")
    }
    solved = human_shots.as_text(shots or few_shots.read(config.pairs.shots), job)
    numbers = simulate_pairs.settings(config, solved)
    rows = [_unlabelled(row, job.task, numbers) for row in rows]
    asked = [
        scored_labels.texts(
            row,
            dialogue_format.plain_dialogue(prompts[row.prompt_id], job.task),
            job.task,
            numbers.asking,
        )
        for row in rows
    ]
    texts = [text for own in asked for text in own]
    ids = encoding.encode_texts(job.text_tokenizer, texts)
    longest = max(map(len, ids), default=0)
    lengths.refuse_over(job, longest, "a scoring prompt", "give fewer or shorter shots")
    answers = iter(simulate_pairs.scorer(job, job.load_base(), solved)(texts))
    labelled = [
        scored_labels.scored_pair(
            row, [*itertools.islice(answers, len(own))], numbers.hard_labels
        )
        for row, own in zip(rows, asked, strict=True)
    ]
    folder = workspace.stage_folder(workdir, "simulate")
    if processes.is_writer():
        record_files.write_jsonl(folder / "pairs.jsonl", labelled)
    return counting.summarise(labelled, [])


def _unlabelled(
    row: records.Pair, task: tasks.Task, numbers: draws.DrawSettings
) -> records.Pair:
    """Return a pair that waits for a scored label, under its instructions.

    A contrast pair takes the instruction of its affix pair, as Rescore does.
    """
    first = (row.scoring or {scored_labels.INDEX: row.affix_index})[scored_labels.INDEX]
    key = records.key_of(row)
    ends = row.id.removeprefix(grid.pair_id(key, row.sampling, row.labels))
    return dataclasses.replace(
        row,
        id=grid.pair_id(key, row.sampling, "scoring") + ends,
        labels="scoring",
        scoring=scored_labels.choose(
            first,
            len(task.all_instructions),
            numbers.asking.instructions,
            numbers.seed,
            key,
        ),
    )
