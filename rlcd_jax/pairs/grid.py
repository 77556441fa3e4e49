"""Preference pairs: the paper as a grid of how replies are sampled and labelled.

    sampling     labels: construction    labels: scoring
    contrast     RLCD                    RLCD-Rescore
    same         (no information)        RLAIF
    graded       a scale of affixes      the same, scored

A `GridCell` is one cell with a share of the prompts; several make a mixed set, and
cells with one sampling share their samples.

Every draw is keyed by the root seed and the prompt's id, so the pair of a prompt does
not depend on the other prompts, on their order, on the host, or on a restart: what
`simulate` returns for a list is what it returns for its parts, put together.

Source: RLCD (arXiv 2307.12950) sections 3 and 4. The released code draws affixes and
swaps in visiting order and does not seed its sampling.
"""

import dataclasses
import itertools
import typing
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rlcd_jax import records, schema, seeds, tasks
from rlcd_jax.pairs import counting, cut_counts, draws, filtering, scored_labels
from rlcd_jax.text import dialogue_format, tokenizer

# The paper's names of the cells, for a mixture.
METHODS: dict[str, tuple[records.Sampling, records.Labels]] = {
    "rlcd": ("contrast", "construction"),
    "rescore": ("contrast", "scoring"),
    "rlaif": ("same", "scoring"),
}
HUMAN = "human"  # the method of a row that a person has labelled
Score = Callable[[list[str]], Sequence[scored_labels.Answer | tuple[float, float]]]


@dataclasses.dataclass(frozen=True)
class GridCell:
    """One cell of the grid.

    Attributes:
      sampling: "contrast" (a positive and a negative prompt), "graded" (prompts that
        ask for more and less by a scale) or "same" (one affix-free prompt, several
        times).
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


def read_mix(mix: Sequence[str]) -> list[GridCell]:
    """Return the cells of a mixture, such as ("rlcd=1", "rlaif=0.5").

    Args:
      mix: for each method the share of the prompts that has its rows.

    Raises:
      ValueError: a name is unknown or there twice, or a share is not in (0, 1].
    """
    cells = {}
    for entry in mix:
        name, _, share = entry.partition("=")
        if name not in METHODS or name in cells or not 0 < float(share or 0) <= 1:
            raise ValueError(
                f"pairs.mix has {entry!r}; accepted: NAME=SHARE, each name once, of "
                f"{', '.join(METHODS)}, and a share of the prompts above 0 and up to 1"
            )
        cells[name] = GridCell(*METHODS[name], share=float(share))
    return [cells[name] for name in METHODS if name in cells]


def method_of(row: records.Pair | records.HumanPair) -> str:
    """Return the name of a row's method in a mixture; of another cell its two words."""
    if isinstance(row, records.HumanPair):
        return HUMAN
    cell = row.sampling, row.labels
    return next((name for name, own in METHODS.items() if own == cell), "-".join(cell))


def cells_of(section: Any) -> list[GridCell]:
    """Return the cells that the section `pairs` of a config asks for."""
    if section.mix:
        return read_mix(section.mix)
    return [
        GridCell(sampling=section.sampling, labels=labels, share=1.0)
        for labels in section.labels
    ]


def asks(section: Any) -> bool:
    """Return whether the model scores pairs: for their labels, or to leave some out."""
    labels = {cell.labels for cell in cells_of(section)}
    return "scoring" in labels or rules_of(section).asks


def rules_of(section: Any) -> filtering.Rules:
    """Return which pairs the section `pairs` of a config leaves out by their scores."""
    return filtering.Rules(section.drop_disagreeing, float(section.min_margin))


def scored_a_prompt(section: Any) -> float:
    """Return how many pairs of replies of a prompt are scored, in the mean."""
    cells = cells_of(section)
    if not rules_of(section).asks:
        cells = [cell for cell in cells if cell.labels == "scoring"]
    return draws_a_prompt(cells)


def rows_a_draw(cells: Sequence[GridCell]) -> float:
    """Return how many rows there are of each draw of a prompt, in the mean."""
    return sum(cell.share for cell in cells)


def draws_a_prompt(cells: Sequence[GridCell]) -> float:
    """Return how many pairs of replies are drawn for a prompt, in the mean.

    Cells of one sampling share them: the prompts of a smaller share have a larger's.
    """
    shares: dict[str, float] = {}
    for cell in cells:
        shares[cell.sampling] = max(shares.get(cell.sampling, 0.0), cell.share)
    return sum(shares.values())


def simulate(
    prompts: Sequence[records.Prompt],
    task: tasks.Task,
    text_tokenizer: tokenizer.Tokenizer,
    generate: draws.Generate,
    *,
    rows: Sequence[GridCell],
    settings: draws.DrawSettings,
    score: Score | None = None,
    score_all: bool = False,
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
      score: scoring texts to answers, (logit of A, logit of B) or votes; needed for
        labels "scoring".
      score_all: pairs labelled by construction are scored too, and keep their label.

    Returns:
      Pairs and dropped sides, both in the order of the prompts; `summarise` of them,
      with the counts of `cut_counts` of all replies that were drawn.
    """
    _check(prompts, task, rows, settings, score, score_all)
    planned = [
        draws.make_draw(prompt, sampling, task, text_tokenizer, settings)
        for prompt in prompts
        for sampling in typing.get_args(records.Sampling)
        if any(r.sampling == sampling and _takes(r, prompt, settings) for r in rows)
    ]
    sampled = draws.sample(planned, task, generate, settings)
    dropped, kept = [], []
    for draw, sides in zip(planned, sampled, strict=True):
        dropped += [draws.dropped_side(draw, s, task) for s in sides if s.failed]
        whole = tuple(s for s in sides if s.text is not None)
        if len(whole) > 1:
            kept.append((draw, whole))
    pairs = label(kept, task, rows, settings, score, score_all)
    cut = counting.count_cut(one for sides in sampled for one in sides)
    summary = counting.summarise(pairs, dropped)
    return pairs, dropped, summary | {cut_counts.SUMMARY: {"replies": cut}}


def _check(
    prompts: Sequence[records.Prompt],
    task: tasks.Task,
    rows: Sequence[GridCell],
    settings: draws.DrawSettings,
    score: Score | None,
    score_all: bool,
) -> None:
    times = Counter(prompt.key for prompt in prompts)
    double = [key for key in times if times[key] > 1]
    if double:
        raise ValueError(f"prompt id {double[0]!r} occurs twice; accepted: once")
    cells = [(row.sampling, row.labels) for row in rows]
    if not cells or len(set(cells)) < len(cells):
        raise ValueError(f"rows are {cells}; accepted: one or more distinct cells")
    scored = score_all or any(row.labels == "scoring" for row in rows)
    if score is None and scored:
        raise ValueError("labels 'scoring' need a score function; got None")
    for sampling in {row.sampling for row in rows}:
        if told := draws.too_many(task, sampling, settings.samples):
            raise ValueError(told)
    if scored and (told := scored_labels.too_many(task, settings.asking.instructions)):
        raise ValueError(told)


def _takes(row: GridCell, prompt: records.Prompt, settings: draws.DrawSettings) -> bool:
    """Return whether a prompt is in a row's share; equal shares, equal prompts."""
    draw = seeds.seed_choice(2**32, settings.seed, "share", prompt.key)
    return draw < row.share * 2**32


def label(
    sampled: Sequence[tuple[draws.PromptDraw, tuple[draws.SampledSide, ...]]],
    task: tasks.Task,
    rows: Sequence[GridCell],
    settings: draws.DrawSettings,
    score: Score | None,
    score_all: bool = False,
) -> list[records.Pair]:
    """Return the pairs of each prompt, all of its replies for each row that takes it.

    Which side stands first is a keyed coin. By construction the positive side is the
    better one; scored, prob_2 = sigmoid(logit_B - logit_A), with the instruction of
    the affix pair's index, or a keyed one where there is no affix pair, and more of
    them where `settings` has it so: see `scored_labels`. Rows of one pair of replies
    share its scores.

    Raises:
      ValueError: the scores are not one a text.
    """
    pairs, names, texts = [], [], {}
    for draw, sides in sampled:
        for row in rows:
            if row.sampling != draw.sampling or not _takes(row, draw.prompt, settings):
                continue
            scored = score_all or row.labels == "scoring"
            for first, second in itertools.combinations(sides, 2):
                key = (draw.prompt.key, *_ends(draw, first, second))
                swap = seeds.seed_choice(2, settings.seed, "swap", *key)
                both = (second, first) if swap else (first, second)
                pair = _pair(draw, both, row, task, settings, key, scored)
                pairs.append(pair)
                names.append((draw.sampling, *key))
                if scored and names[-1] not in texts:
                    plain = dialogue_format.plain_dialogue(draw.prompt, task)
                    texts[names[-1]] = scored_labels.texts(
                        pair, plain, task, settings.asking
                    )
    asked = [text for both in texts.values() for text in both]
    answers = list(score(asked)) if asked else []
    if len(answers) != len(asked):
        raise ValueError(
            f"score gave {len(answers)} results for {len(asked)} texts; accepted: one "
            "(logit_A, logit_B) a text"
        )
    left = iter(answers)
    said = {one: [*itertools.islice(left, len(own))] for one, own in texts.items()}
    return [
        pair
        if pair.scoring is None
        else scored_labels.scored_pair(pair, said[name], settings.hard_labels)
        for name, pair in zip(names, pairs, strict=True)
    ]


def _ends(
    draw: draws.PromptDraw, first: draws.SampledSide, second: draws.SampledSide
) -> tuple[int, ...]:
    """Return which of a draw's replies a pair is of, from 1; () where there are two."""
    if len(draw.sources) == 2:
        return ()
    return tuple(draw.sources.index(one.source) + 1 for one in (first, second))


def _instruction(
    draw: draws.PromptDraw, task: tasks.Task, settings: draws.DrawSettings
) -> int:
    num = len(task.scoring_instructions)
    keyed = seeds.seed_choice(num, settings.seed, "instruction", draw.prompt.key)
    return keyed if draw.affix_index is None else draw.affix_index


def _pair(
    draw: draws.PromptDraw,
    both: tuple[draws.SampledSide, draws.SampledSide],
    row: GridCell,
    task: tasks.Task,
    settings: draws.DrawSettings,
    key: tuple[Any, ...],
    scored: bool,
) -> records.Pair:
    """Return a pair labelled by construction; a scored label replaces that one."""
    fields: dict[str, Any] = {}
    sides = _sides([taken.source for taken in both])
    for n, taken, side in zip("12", both, sides, strict=True):
        last = taken.replies[-1]
        fields |= {
            f"reply_{n}": taken.text,
            f"side_{n}": side,
            f"grade_{n}": taken.source.grade,
            f"source_prompt_{n}": taken.source.text,
            f"raw_{n}": last.raw,
            f"tries_{n}": len(taken.replies),
            f"finish_{n}": last.finish,
            f"num_tokens_{n}": len(last.tokens),
        }
    scoring = None
    if scored:
        scoring = scored_labels.choose(
            _instruction(draw, task, settings),
            len(task.all_instructions),
            settings.asking.instructions,
            settings.seed,
            draw.prompt.key,
        )
    return records.Pair(
        id=pair_id(key[0], row.sampling, row.labels, *key[1:]),
        task=task.name,
        prompt_id=draw.prompt.id,
        draw=draw.prompt.draw,
        prompt=draw.plain,
        prob_2=1.0 if sides[1] == "positive" else 0.0,
        affix_index=draw.affix_index,
        scale_index=draw.scale_index,
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


def _sides(sources: Sequence[draws.SideSource]) -> list[str]:
    """Return what two sources are to each other: of two grades the higher asks more."""
    if sources[0].grade is None:
        return [source.side for source in sources]
    top = max(source.grade for source in sources)
    return ["positive" if one.grade == top else "negative" for one in sources]


def pair_id(key: str, sampling: str, labels: str, *ends: int) -> str:
    """Return the id of a pair.

    Args:
      key: of the draw of its prompt.
      sampling: of the cell.
      labels: of the cell.
      *ends: which of the draw's replies it is of, where there are more than two.
    """
    return f"{key}/{sampling}-{labels}" + f"/{'-'.join(map(str, ends))}" * bool(ends)
