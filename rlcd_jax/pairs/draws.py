"""What is sampled for a prompt: two texts, attempts at each, a clean reply or none.

Every request is keyed by (root seed, prompt and draw, slot, attempt), so a sample does
not depend on other prompts, on their order, on the host, or on a restart, and any one
can be drawn again alone.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

from rlcd_jax import records, schema, seeds, tasks
from rlcd_jax.decode import requests as engine
from rlcd_jax.pairs import contrast, reply_cleanup, scored_labels
from rlcd_jax.text import dialogue_format, tokenizer

Generate = Callable[[list[engine.Request]], Sequence[engine.Reply]]

TOO_LONG = "prompt_too_long"


@dataclasses.dataclass(frozen=True)
class DrawSettings:
    """Numbers of a simulation.

    Attributes:
      seed: root seed of every draw.
      samples: replies of a draw; more than two are of one prompt, or graded.
      generator: name of the generating model, kept in each pair.
      temperature: of the sampling, as are top_p and top_k (0: off).
      alpha: 1.0 samples from a side's own prompt alone; other values from the logits
        other + alpha (own - other), where other is the opposite side's prompt.
      max_tries: attempts per side, the first included; the prompt is then dropped.
      asking: how pairs are asked about, where they are scored.
      hard_labels: round scored labels to 0 or 1; a tie goes to the first reply.
      forbidden: how the task's forbidden strings are kept out: `Request.forbidding`.
    """

    seed: int
    generator: str
    samples: int = schema.between(2)
    temperature: float = schema.between(0.0)
    top_p: float = schema.between(0.0, 1.0)
    top_k: int = schema.between(0)
    alpha: float
    max_tries: int = schema.between(1)
    asking: scored_labels.Asking
    hard_labels: bool
    forbidden: str = engine.ANYWHERE

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is asked of the generator in one slot; see `SideSource`."""

    slot: str
    side: str
    text: str
    opposite: str
    grade: float | None = None


@dataclasses.dataclass(frozen=True)
class SideSource:
    """One text to sample from; `slot` names its draw, `side` what it shows.

    A `grade` is how much of the attribute it asks for; None: it asks without one.
    """

    prompt_key: str  # the prompt and its draw
    slot: str
    side: str
    text: str
    tokens: tuple[int, ...]
    other_tokens: tuple[int, ...] | None  # the opposite side's, where alpha needs it
    grade: float | None = None


@dataclasses.dataclass(frozen=True)
class PromptDraw:
    """The sources of a prompt under one sampling, two or more."""

    prompt: records.Prompt
    plain: str
    sampling: str
    affix_index: int | None
    scale_index: int | None
    sources: tuple[SideSource, ...]


@dataclasses.dataclass(frozen=True)
class SampledSide:
    """The attempts at one source; `text` is None when each of them was rejected."""

    source: SideSource
    text: str | None
    replies: tuple[engine.Reply, ...]
    reasons: tuple[str, ...]  # why there is no text yet, one entry a rejection
    shortened: bool = False  # the text was cut, and lost a sentence that was not whole

    @property
    def failed(self) -> bool:
        """Whether this side gave no reply; a side never tried has not failed."""
        return self.text is None and bool(self.reasons)


def make_draw(
    prompt: records.Prompt,
    sampling: str,
    task: tasks.Task,
    text_tokenizer: tokenizer.Tokenizer,
    settings: DrawSettings,
) -> PromptDraw:
    """Return the texts to sample from for one prompt, as tokens too."""
    chat, seed = text_tokenizer.chat, settings.seed
    plain = dialogue_format.plain_prompt(prompt, task, chat)
    affix = scale = None
    asked = [
        Asked(f"plain_{n + 1}", "plain", plain, plain) for n in range(settings.samples)
    ]
    if sampling == "contrast":
        affix = seeds.seed_choice(len(task.affixes), seed, "affix", prompt.key)
        texts = contrast.contrast_prompts(prompt, task, affix, chat)
        sides = ("positive", "negative")
        asked = [
            Asked(side, side, text, other)
            for side, text, other in zip(sides, texts, texts[::-1], strict=True)
        ]
    elif sampling == "graded":
        scale = seeds.seed_choice(len(task.scales), seed, "scale", prompt.key)
        texts = contrast.graded_prompts(prompt, task, scale, chat)
        grades = task.scales[scale].grades
        chosen = [(n, grades[n]) for n in rungs(len(texts), settings.samples)]
        asked = [
            # The opposite of a grade is the one as far from the other end.
            Asked(f"grade_{n + 1}", _side(grade), texts[n], texts[-1 - n], grade)
            for n, grade in chosen
        ]
    mixes = sampling in records.CONTRASTING and settings.alpha != 1.0
    sources = tuple(
        SideSource(
            prompt.key,
            one.slot,
            one.side,
            one.text,
            tuple(text_tokenizer.encode(one.text)),
            tuple(text_tokenizer.encode(one.opposite)) if mixes else None,
            one.grade,
        )
        for one in asked
    )
    return PromptDraw(prompt, plain, sampling, affix, scale, sources)


def too_many(task: tasks.Task, sampling: str, samples: int) -> str:
    """Return why so many replies cannot be drawn under a sampling; "": they can."""
    if sampling == "contrast" and samples != 2:
        return (
            f"pairs.samples={samples} with pairs.sampling='contrast': a contrast has "
            "two prompts; set pairs.samples=2, or pairs.sampling='graded' or 'same'"
        )
    if sampling == "graded" and not task.scales:
        return (
            f"pairs.sampling='graded' asks for replies by a scale, and task "
            f"{task.name!r} has none; give its file [[scales]], or set "
            "pairs.sampling='contrast'"
        )
    least = min((len(one.grades) for one in task.scales), default=0)
    if sampling == "graded" and samples > least:
        return (
            f"pairs.samples={samples} with pairs.sampling='graded': task "
            f"{task.name!r} has a scale of {least} grades; set pairs.samples to "
            f"{least} or less"
        )
    return ""


def num_pairs(samples: int) -> int:
    """Return how many pairs so many replies make."""
    return math.comb(samples, 2)


def rungs(grades: int, samples: int) -> list[int]:
    """Return which grades of a scale are drawn: both ends, and evenly between them.

    Args:
      grades: of the scale.
      samples: how many are drawn, from 2 to all.
    """
    return [round(n * (grades - 1) / (samples - 1)) for n in range(samples)]


def _side(grade: float) -> str:
    """Return what a grade asks for: the attribute, its opposite, or neither."""
    return "plain" if grade == 0 else "positive" if grade > 0 else "negative"


def make_request(
    source: SideSource, attempt: int, task: tasks.Task, settings: DrawSettings
) -> engine.Request:
    """Return the request of one attempt, keyed by (seed, prompt key, slot, attempt)."""
    parts = (source.prompt_key, source.slot, attempt)
    return engine.Request(
        id="/".join(map(str, parts)),
        tokens=source.other_tokens or source.tokens,
        seed=seeds.seed_words(settings.seed, "simulate", *parts),
        max_new_tokens=task.reply_tokens,
        temperature=settings.temperature,
        top_k=settings.top_k,
        top_p=settings.top_p,
        stop_strings=task.stop_strings,
        forbidden_strings=task.forbidden_strings,
        forbidding=settings.forbidden,
        contrast_tokens=source.tokens if source.other_tokens else None,
        alpha=settings.alpha,
    )


def sample(
    planned: Sequence[PromptDraw],
    task: tasks.Task,
    generate: Generate,
    settings: DrawSettings,
) -> list[tuple[SampledSide, ...]]:
    """Return the samples of each draw: clean replies, or the attempts that failed.

    Attempt t of all sources that still lack a reply is one wave, one call of
    `generate`, whose replies may come back in any order. A retry shows the same text.
    A draw with a source over `task.prompt_tokens` is not sampled at all.
    """
    samples = [_before(source, task) for draw in planned for source in draw.sources]
    barred = {i for i, s in enumerate(samples) if s.failed}
    ends = [0, *itertools.accumulate(len(draw.sources) for draw in planned)]
    own = [range(*bounds) for bounds in itertools.pairwise(ends)]  # of each draw
    barred = {j for places in own if barred & {*places} for j in places}
    for attempt in range(settings.max_tries):
        waiting = [
            i for i, s in enumerate(samples) if s.text is None and i not in barred
        ]
        if not waiting:
            break
        requests = [
            make_request(samples[i].source, attempt, task, settings) for i in waiting
        ]
        replies = _answers(requests, generate)
        for i, reply in zip(waiting, replies, strict=True):
            samples[i] = _after(samples[i], reply, task)
    return [tuple(samples[i] for i in places) for places in own]


def _before(source: SideSource, task: tasks.Task) -> SampledSide:
    long = len(source.tokens) > task.prompt_tokens
    return SampledSide(source, None, (), (TOO_LONG,) if long else ())


def _after(before: SampledSide, reply: engine.Reply, task: tasks.Task) -> SampledSide:
    cleaned = reply_cleanup.clean_reply(reply.raw, reply.finish, task.cleanup)
    rejected = () if cleaned.reason is None else (cleaned.reason,)
    return SampledSide(
        before.source,
        cleaned.text,
        (*before.replies, reply),
        before.reasons + rejected,
        cleaned.shortened,
    )


def _answers(requests: list[engine.Request], generate: Generate) -> list[engine.Reply]:
    """Return the reply to each request, in the order of the requests."""
    replies = {reply.id: reply for reply in generate(requests)}
    if replies.keys() != {request.id for request in requests}:
        raise ValueError(
            f"generate answered {len(replies)} of {len(requests)} requests, or others; "
            "accepted: one reply to each request, with its id"
        )
    return [replies[request.id] for request in requests]


def dropped_side(
    draw: PromptDraw, failed: SampledSide, task: tasks.Task
) -> records.Dropped:
    """Return the record of a side that gave no reply."""
    return records.Dropped(
        prompt_id=draw.prompt.id,
        draw=draw.prompt.draw,
        task=task.name,
        sampling=draw.sampling,
        side=failed.source.side,
        reason=failed.reasons[-1],
        tries=len(failed.replies),
        reasons=failed.reasons,
        raws=tuple(reply.raw for reply in failed.replies),
        slot=failed.source.slot,
    )
