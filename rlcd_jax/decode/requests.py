"""What goes into the decode engine and what comes out of it."""

import dataclasses
import math
from collections.abc import Sequence

ANYWHERE, WORD_INITIAL = FORBIDDING = "anywhere", "word_initial"


@dataclasses.dataclass(frozen=True)
class Request:
    """One reply to be sampled.

    Token t is drawn with the key `fold_in(key(seed), t)`, so that the reply depends on
    nothing but its request (and the weights).

    Attributes:
      id: any text, comes back in the reply.
      tokens: the prompt's token ids, at least one.
      seed: the two uint32 words of a threefry key.
      max_new_tokens: the longest reply, in tokens.
      temperature: 0 takes the most probable token.
      top_k: how many of the most probable tokens may be drawn; 0 = all.
      top_p: the probability mass of the most probable tokens that may be drawn.
      stop_strings: the reply ends with the token that completes one of these.
      forbidden_strings: no token that completes one of these is drawn.
      forbidding: "anywhere", however they are spelled; "word_initial": only the tokens
        of each as a text of its own are not drawn in this order, so that inside a word
        it may be.
      contrast_tokens: a second prompt p'; the reply is then drawn from the logits
        l(p) + alpha (l(p') - l(p)).
      alpha: the strength of the contrast: 0 = p alone, 1 = p' alone, above 1 = away
        from p.
    """

    id: str
    tokens: tuple[int, ...]
    seed: tuple[int, int]
    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    stop_strings: tuple[str, ...] = ()
    forbidden_strings: tuple[str, ...] = ()
    forbidding: str = ANYWHERE
    contrast_tokens: tuple[int, ...] | None = None
    alpha: float = 1.0

    @property
    def prompts(self) -> tuple[tuple[int, ...], ...]:
        """The prompts whose logits the reply needs: one, or two for a contrast."""
        if self.contrast_tokens is None:
            return (self.tokens,)
        return (self.tokens, self.contrast_tokens)


@dataclasses.dataclass(frozen=True)
class Reply:
    """One sampled reply.

    Attributes:
      id: the request's.
      tokens: the ids drawn, with the end token or the one that completed the stop
        string.
      text: the decoded reply without end token, stop string and what follows it.
      raw: the decoded reply, stop string and all.
      finish: "eos", "stop" or "length".
      logprobs: natural log of each token's probability under the unmodified model
        (temperature 1, nothing cut or forbidden; for a contrast, of the mixed logits).
      sampled_logprobs: the same under the distribution drawn from; 0 where greedy.
    """

    id: str
    tokens: tuple[int, ...]
    text: str
    raw: str
    finish: str
    logprobs: tuple[float, ...]
    sampled_logprobs: tuple[float, ...]


def check(requests: Sequence[Request], *, max_length: int, vocab_size: int) -> None:
    """Refuse requests that the engine cannot serve, with a message that says why."""
    for request in requests:
        name = f"request {request.id!r}"
        for prompt in request.prompts:
            if not prompt:
                raise ValueError(f"{name}: the prompt has no tokens; it needs one")
            if not 0 <= min(prompt) <= max(prompt) < vocab_size:
                raise ValueError(
                    f"{name}: token ids from {min(prompt)} to {max(prompt)}; accepted: "
                    f"0 to {vocab_size - 1}; use the model's own tokenizer"
                )
            if len(prompt) + request.max_new_tokens > max_length:
                raise ValueError(
                    f"{name}: a prompt of {len(prompt)} tokens and "
                    f"max_new_tokens={request.max_new_tokens} do not fit the engine's "
                    f"max_length={max_length}; shorten one or raise max_length"
                )
        _check_sampling(name, request)


def _check_sampling(name: str, request: Request) -> None:
    rules = (
        ("max_new_tokens", request.max_new_tokens >= 1, "1 or more"),
        ("temperature", 0 <= request.temperature < math.inf, "0 or more"),
        ("top_k", request.top_k >= 0, "0 (all) or more"),
        ("top_p", 0 < request.top_p <= 1, "above 0 and up to 1"),
        ("alpha", math.isfinite(request.alpha), "a finite number"),
        ("forbidding", request.forbidding in FORBIDDING, ", ".join(FORBIDDING)),
    )
    for field, good, accepted in rules:
        if not good:
            raise ValueError(
                f"{name}: {field}={getattr(request, field)}; accepted: {accepted}"
            )
    if len(request.seed) != 2 or not all(0 <= word < 2**32 for word in request.seed):
        raise ValueError(
            f"{name}: seed={request.seed}; accepted: two integers of 32 bits, such as "
            "records.seed_words gives"
        )


def cut(raw: str, stop_strings: Sequence[str]) -> str:
    """Return the text before the earliest stop string."""
    places = [raw.find(stop) for stop in stop_strings]
    return raw[: min((place for place in places if place >= 0), default=len(raw))]
