"""What is sampled for a prompt: two texts, attempts at each, a clean reply or none.

Every request is keyed by (root seed, prompt and draw, slot, attempt), so a sample does
not depend on other prompts, on their order, on the host, or on a restart, and any one
can be drawn again alone.
"""

import dataclasses
from collections.abc import Callable, Sequence

from rlcd_jax import records, schema, seeds, tasks
from rlcd_jax.decode import requests as engine
from rlcd_jax.pairs import contrast, reply_cleanup
from rlcd_jax.text import dialogue_format, tokenizer

Generate = Callable[[list[engine.Request]], Sequence[engine.Reply]]

# The two draws of a prompt, by sampling: the slot names the draw, the side the text.
SLOTS = {
    "contrast": (("positive", "positive"), ("negative", "negative")),
    "same": (("plain_1", "plain"), ("plain_2", "plain")),
}
TOO_LONG = "prompt_too_long"


@dataclasses.dataclass(frozen=True)
class DrawSettings:
    """Numbers of a simulation.

    Attributes:
      seed: root seed of every draw.
      generator: name of the generating model, kept in each pair.
      temperature: of the sampling, as are top_p and top_k (0: off).
      alpha: 1.0 samples from a side's own prompt alone; other values from the logits
        other + alpha (own - other), where other is the opposite side's prompt.
      max_tries: attempts per side, the first included; the prompt is then dropped.
      both_orders: score each pair in both orders and average the two probabilities.
      hard_labels: round scored labels to 0 or 1; a tie goes to the first reply.
      forbidden: how the task's forbidden strings are kept out: `Request.forbidding`.
    """

    seed: int
    generator: str
    temperature: float = schema.between(0.0)
    top_p: float = schema.between(0.0, 1.0)
    top_k: int = schema.between(0)
    alpha: float
    max_tries: int = schema.between(1)
    both_orders: bool
    hard_labels: bool
    forbidden: str = engine.ANYWHERE

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class SideSource:
    """One text to sample from; `slot` names its draw, `side` what it shows."""

    prompt_key: str  # the prompt and its draw
    slot: str
    side: str
    text: str
    tokens: tuple[int, ...]
    other_tokens: tuple[int, ...] | None  # the opposite side's, where alpha needs it


@dataclasses.dataclass(frozen=True)
class PromptDraw:
    """The two sources of a prompt under one sampling."""

    prompt: records.Prompt
    plain: str
    sampling: str
    affix_index: int | None
    sources: tuple[SideSource, SideSource]


@dataclasses.dataclass(frozen=True)
class SampledSide:
    """The attempts at one source; `text` is None when each of them was rejected."""

    source: SideSource
    text: str | None
    replies: tuple[engine.Reply, ...]
    reasons: tuple[str, ...]  # why there is no text yet, one entry a rejection

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
    """Return the two texts to sample from for one prompt, as tokens too."""
    plain = dialogue_format.plain_prompt(prompt, task, text_tokenizer.chat)
    index, texts = None, (plain, plain)
    if sampling == "contrast":
        index = seeds.seed_choice(len(task.affixes), settings.seed, "affix", prompt.key)
        texts = contrast.contrast_prompts(prompt, task, index, text_tokenizer.chat)
    ids = [tuple(text_tokenizer.encode(text)) for text in texts]
    mixes = sampling == "contrast" and settings.alpha != 1.0
    others = ids[::-1] if mixes else (None, None)
    first, second = (
        SideSource(prompt.key, slot, side, text, own, other)
        for (slot, side), text, own, other in zip(
            SLOTS[sampling], texts, ids, others, strict=True
        )
    )
    return PromptDraw(prompt, plain, sampling, index, (first, second))


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
) -> list[tuple[SampledSide, SampledSide]]:
    """Return the samples of each draw: clean replies, or the attempts that failed.

    Attempt t of all sources that still lack a reply is one wave, one call of
    `generate`, whose replies may come back in any order. A retry shows the same text.
    A draw with a source over `task.prompt_tokens` is not sampled at all.
    """
    samples = [_before(source, task) for draw in planned for source in draw.sources]
    barred = {i for i, s in enumerate(samples) if s.failed}
    barred |= {i ^ 1 for i in barred}  # the other source of the draw
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
    return list(zip(samples[::2], samples[1::2], strict=True))


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
    )
