"""What a benchmark is asked to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# (texts of a batch, prompt tokens, new tokens of each, top-k or 0) -> seconds
Peer = Callable[[int, int, int, int], float]
# Of each example of a batch its texts, each with the place where its reply begins.
Texts = Sequence[Sequence[tuple[Sequence[int], int]]]
# (texts of a batch, parts in which it is taken) -> seconds of one update
TrainingPeer = Callable[[Texts, int], float]
# (prompts, numbers of PPO by name) -> seconds of one step
PolicyPeer = Callable[[Sequence[Sequence[int]], Mapping[str, int]], float]


@dataclasses.dataclass(frozen=True)
class BenchSettings:
    """Sizes of the work, and whom it is compared to.

    Attributes:
      model: shown in the result.
      slots: replies under way at once, one figure each.
      prompt: tokens of a prompt.
      new: tokens of each reply; decode only, others have their config's.
      steps: decode steps a dispatch; None: the engine's own.
      tail_tokens: of a simulation, as `Engine`'s.
      repeats: turns, of which the median is taken.
      top_k: tokens drawn from; 0: all.
      pairs: of a simulation.
      hh_dir: hh-rlhf to take reply lengths from; "": a published distribution.
      peer_batch: texts of a peer's batch; 0: as many as slots.
      peers: measured in turns with ours, by name: each a `Peer`, or a `TrainingPeer`
        or `PolicyPeer` where training is measured.
    """

    model: str
    slots: tuple[int, ...]
    prompt: int
    new: int
    steps: int | None
    tail_tokens: int
    repeats: int
    top_k: int
    pairs: int
    hh_dir: str
    peer_batch: int
    peers: Mapping[str, Any]

    def __post_init__(self) -> None:
        counts = {
            "prompt": self.prompt,
            "new": self.new,
            "repeats": self.repeats,
            "pairs": self.pairs,
            "slots": min(self.slots, default=0),
            "steps": 1 if self.steps is None else self.steps,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"--{name} is {count}; accepted: 1 or more")
        for name in ("top_k", "peer_batch", "tail_tokens"):
            if (count := getattr(self, name)) < 0:
                raise ValueError(f"--{name} is {count}; accepted: 0 or more")


def from_flags(flags: Mapping[str, Any], peers: Mapping[str, Any]) -> BenchSettings:
    """Return what flags ask for.

    Args:
      flags: values by name; `slots` is a text of numbers with commas, the rest are as
        `BenchSettings` has them, and more flags may be there.
      peers: measured in turns with ours, by name.

    Raises:
      ValueError: a flag has a value that is not accepted; it is named.
    """
    texts = flags["slots"].split(",")
    if not all(text.strip().isdecimal() for text in texts):
        raise ValueError(f"--slots {flags['slots']!r}; accepted: numbers with commas")
    names = {field.name for field in dataclasses.fields(BenchSettings)}
    values = {name: value for name, value in flags.items() if name in names}
    return BenchSettings(
        **values | {"slots": tuple(map(int, texts)), "peers": peers},
    )
