"""Label the pairs of another run anew by scoring; the replies stay.

Rescore is the contrast pairs of RLCD under scored labels: its replies are the same
draws, so they need not be sampled again. Few-shot RLAIF (RLCD Appendix C) is the pairs
of RLAIF under labels by a scoring prompt that begins with solved examples.
Leaves `pairs/pairs.jsonl`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

from ml_collections import ConfigDict

from rlcd_jax import processes, record_files, records
from rlcd_jax.job import lengths, prompt_parts, setup, workspace
from rlcd_jax.pairs import counting, grid, scoring_prompt
from rlcd_jax.paper import few_shots
from rlcd_jax.scoring import letters
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
      shots: solved examples to put before each scoring prompt, as text or "human:N"
        for human pairs; "" for none.

    Returns:
      The summary of the pairs.
    """
    job = setup.load_job(config)
    rows = [_unlabelled(row) for row in record_files.read_jsonl(source, records.Pair)]
    prompts = {
        prompt.id: prompt
        for prompt in prompt_parts.load_prompts(config, job.task, "train")
    }
    texts = []
    for row in rows:
        plain = dialogue_format.plain_dialogue(prompts[row.prompt_id], job.task)
        question = job.task.scoring_instructions[row.scoring["instruction_index"]]
        replies = (row.reply_1, row.reply_2)
        orders = (replies, replies[::-1])[: 1 + config.pairs.both_orders]
        texts += [
            scoring_prompt.scoring_prompt(
                plain, a, b, question, job.task.scoring_opening
            )
            for a, b in orders
        ]
    if solved := few_shots.as_text(shots, config, job):
        texts = [solved + scoring_prompt.BLOCK + text for text in texts]
    ids = encoding.encode_texts(job.text_tokenizer, texts)
    longest = max(map(len, ids), default=0)
    lengths.refuse_over(job, longest, "a scoring prompt", "give fewer or shorter shots")
    logits = letters.letter_scorer(job, job.load_base(), config.pairs.letters)(texts)
    step = 1 + config.pairs.both_orders
    hard = simulate_pairs.settings(config).hard_labels
    labelled = [
        grid.scored_pair(row, logits[step * i : step * (i + 1)], hard)
        for i, row in enumerate(rows)
    ]
    folder = workspace.stage_folder(workdir, "simulate")
    if processes.is_writer():
        record_files.write_jsonl(folder / "pairs.jsonl", labelled)
    return counting.summarise(labelled, [])


def _unlabelled(row: records.Pair) -> records.Pair:
    """Return a pair that waits for a scored label, under its instruction.

    A contrast pair takes the instruction of its affix pair, as Rescore does.
    """
    scoring = row.scoring or {"instruction_index": row.affix_index}
    key = records.key_of(row)
    ends = row.id.removeprefix(grid.pair_id(key, row.sampling, row.labels))
    return dataclasses.replace(
        row,
        id=grid.pair_id(key, row.sampling, "scoring") + ends,
        labels="scoring",
        scoring={"instruction_index": scoring["instruction_index"]},
    )
