"""Label the pairs of another run anew by scoring; the replies stay.

Rescore is the contrast pairs of RLCD under scored labels: its replies are the same
draws, so they need not be sampled again. Few-shot RLAIF (RLCD Appendix C) is the pairs
of RLAIF under labels by a scoring prompt that begins with solved examples.
Leaves ``pairs/pairs.jsonl``.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import ConfigDict

from rlcd_jax import encoding, pairs, prompts, records
from rlcd_jax.job import lengths
from rlcd_jax.scoring import few_shots, letters
from rlcd_jax.stages import inputs, simulate_pairs, workspace


def relabel_pairs(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    source: str | pathlib.Path,
    *,
    shots: str,
) -> dict[str, Any]:
    """Write the pairs of ``source`` with scored labels.

    Args:
      config: of the run; the model is the scorer, ``pairs`` says how it is asked.
      workdir: folder of the run.
      source: a ``pairs.jsonl``.
      shots: solved examples to put before each scoring prompt, as text or "human:N"
        for human pairs; "" for none.

    Returns:
      The summary of the pairs.
    """
    found = inputs.load_inputs(config)
    rows = [_unlabelled(row) for row in records.read_jsonl(source, records.Pair)]
    dialogues = {
        prompt.id: prompt for prompt in inputs.load_prompts(config, found.task, "train")
    }
    texts = []
    for row in rows:
        plain = prompts.render_dialogue(dialogues[row.prompt_id].turns, found.task)
        question = found.task.scoring_instructions[row.scoring["instruction_index"]]
        replies = (row.reply_1, row.reply_2)
        orders = (replies, replies[::-1])[: 1 + config.pairs.both_orders]
        texts += [prompts.scoring_prompt(plain, a, b, question) for a, b in orders]
    if solved := few_shots.as_text(shots, config, found):
        texts = [solved + prompts.BLOCK + text for text in texts]
    ids = encoding.encode_texts(found.text_tokenizer, texts)
    longest = max(map(len, ids), default=0)
    lengths.refuse_over(
        found, longest, "a scoring prompt", "give fewer or shorter shots"
    )
    logits = letters.letter_scorer(found, found.load_base())(texts)
    step = 1 + config.pairs.both_orders
    hard = simulate_pairs.settings(config).hard_labels
    labelled = [
        pairs.scored_pair(row, logits[step * i : step * (i + 1)], hard)
        for i, row in enumerate(rows)
    ]
    folder = workspace.stage_folder(workdir, "simulate")
    if jax.process_index() == 0:
        records.write_jsonl(folder / "pairs.jsonl", labelled)
    return pairs.summarise(labelled, [])


def _unlabelled(row: records.Pair) -> records.Pair:
    """Return a pair that waits for a scored label, under its instruction.

    A contrast pair takes the instruction of its affix pair, as Rescore does.
    """
    scoring = row.scoring or {"instruction_index": row.affix_index}
    return dataclasses.replace(
        row,
        id=f"{records.key_of(row)}/{row.sampling}-scoring",
        labels="scoring",
        scoring={"instruction_index": scoring["instruction_index"]},
    )
