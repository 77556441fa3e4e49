"""Preference pairs: the paper as a grid of how replies are sampled and labelled.

    sampling     labels: construction    labels: scoring
    contrast     RLCD                    RLCD-Rescore
    same         (no information)        RLAIF

A `GridCell` is one cell with a share of the prompts; several make a mixed set, and
cells with one sampling share their samples.

Every draw is keyed by the root seed and the prompt's id, so the pair of a prompt does
not depend on the other prompts, on their order, on the host, or on a restart: what
`simulate` returns for a list is what it returns for its parts, put together.

Source: RLCD (arXiv 2307.12950) sections 3 and 4. The released code draws affixes and
swaps in visiting order and does not seed its sampling.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rlcd_jax import records, schema, seeds, tasks
from rlcd_jax.pairs import counting, draws, scoring_prompt
from rlcd_jax.text import dialogue_format, tokenizer

Score = Callable[[list[str]], Sequence[tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class GridCell:
    """One cell of the grid.

    Attributes:
      sampling: "contrast" (a positive and a negative prompt) or "same" (one affix-free
        prompt, twice).
      labels: "construction" (the positive side is better) or "scoring" (the generator
        judges).
      share: the part of the prompts that gets such a pair. Rows with equal shares use
        the same prompts.
    """

    sampling: records.Sampling
    labels: records.Labels
    share: float = schema.between(0.0, 1.0)

    def __post_init__(self):
        schema.validate(self)
        if (self.sampling, self.labels) == ("same", "construction"):
            raise ValueError(
                "sampling 'same' with labels 'construction' holds no information: the "
                "two replies come from one prompt; use labels 'scoring' (RLAIF) or "
                "sampling 'contrast' (RLCD)"
            )


def simulate(
    prompts: Sequence[records.Prompt],
    task: tasks.Task,
    text_tokenizer: tokenizer.Tokenizer,
    generate: draws.Generate,
    *,
    rows: Sequence[GridCell],
    settings: draws.DrawSettings,
    score: Score | None = None,
) -> tuple[list[records.Pair], list[records.Dropped], dict[str, Any]]:
    """Return the pairs of the prompts, the sides that gave none, and a summary.

    Args:
      prompts: prompts with distinct ids.
      task: affixes, instructions, markers, lengths and clean-up rules.
      text_tokenizer: the generator's.
      generate: draws a reply to each request, the engine's `generate`. It is called
        once for the first attempts, then once for each wave of retries.
      rows: the cells to fill.
      settings: numbers of the simulation.
      score: scoring texts to (logit of A, logit of B); needed for labels "scoring".

    Returns:
      Pairs and dropped sides, both in the order of the prompts; `summarise` of them.
    """
    _check(prompts, rows, score)
    planned = [
        draws.make_draw(prompt, sampling, task, text_tokenizer, settings)
        for prompt in prompts
        for sampling in draws.SLOTS
        if any(r.sampling == sampling and _takes(r, prompt, settings) for r in rows)
    ]
    sampled = draws.sample(planned, task, generate, settings)
    dropped, kept = [], []
    for draw, both in zip(planned, sampled, strict=True):
        dropped += [draws.dropped_side(draw, s, task) for s in both if s.failed]
        if all(s.text is not None for s in both):
            kept.append((draw, both))
    pairs = label(kept, task, rows, settings, score)
    return pairs, dropped, counting.summarise(pairs, dropped)


def _check(
    prompts: Sequence[records.Prompt], rows: Sequence[GridCell], score: Score | None
) -> None:
    times = Counter(prompt.key for prompt in prompts)
    double = [key for key in times if times[key] > 1]
    if double:
        raise ValueError(f"prompt id {double[0]!r} occurs twice; accepted: once")
    cells = [(row.sampling, row.labels) for row in rows]
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"rows are {cells}; accepted: one or more distinct cells")
    if score is None and any(row.labels == "scoring" for row in rows):
        raise ValueError("labels 'scoring' need a score function; got None")


def _takes(row: GridCell, prompt: records.Prompt, settings: draws.DrawSettings) -> bool:
    """Return whether a prompt is in a row's share; equal shares, equal prompts."""
    draw = seeds.seed_choice(2**32, settings.seed, "share", prompt.key)
    return draw < row.share * 2**32


def label(
    sampled: Sequence[
        tuple[draws.PromptDraw, tuple[draws.SampledSide, draws.SampledSide]]
    ],
    task: tasks.Task,
    rows: Sequence[GridCell],
    settings: draws.DrawSettings,
    score: Score | None,
) -> list[records.Pair]:
    """Return the pairs of each prompt, one for each row that takes it, labelled.

    Which side stands first is a keyed coin. By construction the positive side is the
    better one; scored, prob_2 = sigmoid(logit_B - logit_A), with the instruction of
    the affix pair's index, or a keyed one where there is no affix.

    Raises:
      ValueError: the scores are not one a text.
    """
    pairs, texts = [], []
    for draw, (first, second) in sampled:
        swap = seeds.seed_choice(2, settings.seed, "swap", draw.prompt.key)
        one, two = (second, first) if swap else (first, second)
        for row in rows:
            if row.sampling != draw.sampling or not _takes(row, draw.prompt, settings):
                continue
            pairs.append(_pair(draw, one, two, row, task, settings))
            if row.labels == "scoring":
                texts += _scoring_texts(draw, pairs[-1], task, settings)
    logits = [tuple(map(float, pair)) for pair in score(texts)] if texts else []
    if len(logits) != len(texts):
        raise ValueError(
            f"score gave {len(logits)} results for {len(texts)} texts; accepted: one "
            "(logit_A, logit_B) a text"
        )
    orders = 2 if settings.both_orders else 1
    scored = iter(logits[i : i + orders] for i in range(0, len(logits), orders))
    return [
        p if p.scoring is None else scored_pair(p, next(scored), settings.hard_labels)
        for p in pairs
    ]


def _instruction(
    draw: draws.PromptDraw, task: tasks.Task, settings: draws.DrawSettings
) -> int:
    num = len(task.scoring_instructions)
    keyed = seeds.seed_choice(num, settings.seed, "instruction", draw.prompt.key)
    return keyed if draw.affix_index is None else draw.affix_index


def _scoring_texts(
    draw: draws.PromptDraw,
    pair: records.Pair,
    task: tasks.Task,
    settings: draws.DrawSettings,
) -> list[str]:
    plain = dialogue_format.plain_dialogue(draw.prompt, task)
    instruction = task.scoring_instructions[pair.scoring["instruction_index"]]
    replies = (pair.reply_1, pair.reply_2)
    orders = (replies, replies[::-1]) if settings.both_orders else (replies,)
    return [scoring_prompt.scoring_prompt(plain, a, b, instruction) for a, b in orders]


def scored_pair(
    pair: records.Pair, logits: Sequence[tuple[float, float]], hard: bool
) -> records.Pair:
    """Return the pair with its scored label.

    Args:
      pair: a pair with its instruction.
      logits: (A, B) with reply_1 as A; then, if asked for, with reply_2 as A.
      hard: round the label to 0 or 1, a tie to 0.

    Raises:
      ValueError: a score is not finite.
    """
    if not all(math.isfinite(x) for order in logits for x in order):
        raise ValueError(f"score gave {logits} for pair {pair.id!r}; accepted: finite")
    scoring, margins = dict(pair.scoring), []
    for name, sign, (logit_a, logit_b) in zip(
        ("", "swapped_"), (1, -1), logits, strict=False
    ):
        scoring |= {f"{name}logit_a": logit_a, f"{name}logit_b": logit_b}
        margins.append(sign * (logit_b - logit_a))
    # sigmoid(x) = (1 + tanh(x / 2)) / 2: opposite margins then cancel to exactly 0.5.
    prob_2 = 0.5 + sum(math.tanh(m / 2) for m in margins) / (2 * len(margins))
    label = float(prob_2 > 0.5) if hard else prob_2
    return dataclasses.replace(pair, prob_2=label, scoring=scoring | {"prob_2": prob_2})


def _pair(
    draw: draws.PromptDraw,
    one: draws.SampledSide,
    two: draws.SampledSide,
    row: GridCell,
    task: tasks.Task,
    settings: draws.DrawSettings,
) -> records.Pair:
    """Return a pair labelled by construction; a scored label replaces that one."""
    fields: dict[str, Any] = {}
    for n, taken in (("1", one), ("2", two)):
        last = taken.replies[-1]
        fields |= {
            f"reply_{n}": taken.text,
            f"side_{n}": taken.source.side,
            f"source_prompt_{n}": taken.source.text,
            f"raw_{n}": last.raw,
            f"tries_{n}": len(taken.replies),
            f"finish_{n}": last.finish,
            f"num_tokens_{n}": len(last.tokens),
        }
    scoring = None
    if row.labels == "scoring":
        scoring = {"instruction_index": _instruction(draw, task, settings)}
    return records.Pair(
        id=f"{draw.prompt.key}/{row.sampling}-{row.labels}",
        task=task.name,
        prompt_id=draw.prompt.id,
        draw=draw.prompt.draw,
        prompt=draw.plain,
        prob_2=1.0 if two.source.side == "positive" else 0.0,
        affix_index=draw.affix_index,
        sampling=row.sampling,
        labels=row.labels,
        scoring=scoring,
        generator=settings.generator,
        seed=settings.seed,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        alpha=settings.alpha,
        **fields,
    )
