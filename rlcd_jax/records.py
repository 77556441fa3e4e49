"""The lines of a run's files: what a prompt, a pair and a dropped prompt hold.

Every record is a frozen dataclass that checks itself when it is made, so a wrong value
is named where it enters and not ten stages later. Files are JSON, one record a line.
"""

import dataclasses
from typing import Any, Literal

from rlcd_jax import schema

HELD_OUT = "held_out.jsonl"  # of a stage that learns from pairs
MOST = 2**31 - 1  # of a count: devices and files hold it in 32 bits

Role = Literal["human", "assistant"]
Side = Literal["positive", "negative", "plain"]
Finish = Literal["eos", "stop", "length"]
Sampling = Literal["contrast", "graded", "same"]
CONTRASTING = ("contrast", "graded")  # a pair of these has a positive side
Labels = Literal["construction", "scoring"]


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a dialogue; `text` has no role marker and no outer blanks."""

    role: Role
    text: str

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A dialogue that waits for the assistant: the last turn is the human's.

    `draw` says which of several draws of the prompt this is; None: there is one.
    `as_written` is the dialogue as its source writes it, where that is to be kept; "":
    the text of a prompt is made of its turns.
    """

    id: str
    turns: tuple[Turn, ...]
    draw: int | None = schema.between(0, MOST, default=None)
    as_written: str = ""

    def __post_init__(self):
        schema.validate(self)
        if schema.is_blank(self.id):
            raise ValueError(
                f"field 'id' is {self.id!r}; accepted: text that is not blank"
            )
        if not self.turns or self.turns[-1].role != "human":
            last = self.turns[-1].role if self.turns else "nothing"
            raise ValueError(
                f"field 'turns' of prompt {self.id!r} ends with {last}; accepted: one "
                "or more turns, the last one 'human'"
            )

    @property
    def key(self) -> str:
        """The prompt and its draw as one text; see `draw_key`."""
        return draw_key(self.id, self.draw)


def draw_key(prompt_id: str, draw: int | None) -> str:
    """Return the one text that stands for a draw of a prompt: "p", "p#0", "p#1".

    A "#" of the id itself is doubled, so that no id has the text of a draw of another:
    only before a draw is the number of "#" odd. Keys of randomness, ids of pairs and
    titles are made of it; nothing is ever read back from it.
    """
    own = prompt_id.replace("#", "##")
    return own if draw is None else f"{own}#{draw}"


def key_of(row: Any) -> str:
    """Return the `draw_key` of what a record with `prompt_id` and `draw` is about."""
    return draw_key(row.prompt_id, row.draw)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two replies to one prompt with a label, and where all of it came from.

    `prompt` is the affix-free text that the policy will see, `source_prompt_*` what
    the generator was really shown. `prob_2` is the probability that reply_2 is the
    better one: 0.0 or 1.0 for a label by construction, anything between for a scored
    one. `raw_*` is the sampled text before clean-up; `tries_*` counts attempts.
    Graded sampling asks for the attribute by scale `scale_index` of the task: `grade_*`
    is how much of it a reply was asked for, and the positive side of a pair is that of
    the higher grade.
    """

    id: str
    task: str
    prompt_id: str
    prompt: str
    reply_1: str
    reply_2: str
    prob_2: float = schema.between(0.0, 1.0)
    side_1: Side
    side_2: Side
    source_prompt_1: str
    source_prompt_2: str
    raw_1: str
    raw_2: str
    tries_1: int = schema.between(1, MOST)
    tries_2: int = schema.between(1, MOST)
    finish_1: Finish
    finish_2: Finish
    num_tokens_1: int = schema.between(0, MOST)
    num_tokens_2: int = schema.between(0, MOST)
    affix_index: int | None = schema.between(0, MOST)
    sampling: Sampling
    labels: Labels
    scoring: dict | None
    generator: str
    seed: int = schema.between(0, 2**32 - 1)
    temperature: float = schema.between(0.0)
    top_p: float = schema.between(0.0, 1.0)
    top_k: int = schema.between(0, MOST)
    alpha: float
    draw: int | None = schema.between(
        0, MOST, default=None
    )  # of the prompt; None: there is one
    grade_1: float | None = None
    grade_2: float | None = None
    scale_index: int | None = schema.between(0, MOST, default=None)

    def __post_init__(self):
        schema.validate(self)
        for name in ("id", "prompt_id", "prompt", "reply_1", "reply_2"):
            if schema.is_blank(getattr(self, name)):
                raise ValueError(f"field '{name}' is empty; accepted: text")
        both = {"positive", "negative"}
        sides = {"contrast": both, "graded": both, "same": {"plain"}}
        if {self.side_1, self.side_2} != sides[self.sampling]:
            raise ValueError(
                f"fields 'side_1' and 'side_2' are {self.side_1!r} and "
                f"{self.side_2!r}; accepted where 'sampling' is {self.sampling!r}: "
                f"{schema.listed(sorted(sides[self.sampling]))}"
            )
        self._check_grades()
        better = float(self.side_2 == "positive")
        if self.labels == "construction" and (
            self.sampling == "same" or self.prob_2 != better
        ):
            raise ValueError(
                f"fields 'labels', 'sampling' and 'prob_2' are {self.labels!r}, "
                f"{self.sampling!r} and {self.prob_2}; accepted by construction: "
                "'contrast', and 1.0 where 'side_2' is 'positive', else 0.0"
            )

    def _check_grades(self) -> None:
        """Refuse grades without a scale, and sides that are not theirs."""
        one, two = self.grade_1, self.grade_2
        graded = self.sampling == "graded"
        given = [value is not None for value in (one, two, self.scale_index)]
        if given != [graded] * 3:
            raise ValueError(
                f"fields 'grade_1', 'grade_2' and 'scale_index' are {one}, {two} and "
                f"{self.scale_index}; accepted where 'sampling' is {self.sampling!r}: "
                + ("numbers" if graded else "null")
            )
        if graded and (one == two or (two > one) != (self.side_2 == "positive")):
            raise ValueError(
                f"field 'side_2' is {self.side_2!r}, 'grade_1' {one} and 'grade_2' "
                f"{two}; accepted: 'positive' for the higher grade"
            )


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A prompt that gave no pair: the side that failed, and what was sampled for it.

    `reasons` and `raws` have one entry a try; `reason` is the last of the reasons.
    """

    prompt_id: str
    task: str
    sampling: Sampling
    side: Side
    reason: str
    tries: int = schema.between(0, MOST)
    reasons: tuple[str, ...]
    raws: tuple[str, ...]
    draw: int | None = schema.between(0, MOST, default=None)
    slot: str = ""  # which of the replies of a draw; "": files of before do not say it

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Filtered:
    """A pair that was drawn, scored and left out, and why."""

    reason: str
    pair: Pair

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class HeldOutPair:
    """What a finished training says of a pair that it never saw.

    `id` and `prob_2` are the pair's; the rewards are those of a preference model, or
    of a policy, beta log policy / reference.
    """

    id: str
    prob_2: float = schema.between(0.0, 1.0)
    reward_1: float
    reward_2: float

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class HumanPair:
    """Two replies compared by a person; prob_2 is 0.0 or 1.0.

    It has the fields that a trainer reads from a Pair, so both can be mixed.
    """

    id: str
    prompt_id: str
    prompt: str
    reply_1: str
    reply_2: str
    prob_2: float = schema.between(0.0, 1.0)

    def __post_init__(self):
        schema.validate(self)

    @property
    def chosen(self) -> str:
        """The reply that the person preferred."""
        return self.reply_2 if self.prob_2 > 0.5 else self.reply_1

    @property
    def rejected(self) -> str:
        """The reply that the person did not prefer."""
        return self.reply_1 if self.prob_2 > 0.5 else self.reply_2
