"""How fast the updates of a step were: tokens of texts a second, and operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlcd_jax import phases
from rlcd_jax.models import footprint, llama
from rlcd_jax.training import packing

TOKENS, TFLOPS = "rate/tokens_per_second", "rate/model_tflops"
UPDATE = "update"  # the phase of an update: from its batch to its metrics


def update_flops(
    cfg: llama.LlamaConfig,
    texts: Sequence[packing.Text],
    *,
    adapted: bool,
    shared: Sequence[int] = (),
) -> float:
    """Return the model's operations of an update on texts, each by itself.

    Padding, and what remat computes again, are no work of the model; nor is a beginning
    that has been read in another text.

    Args:
      cfg: model numbers.
      texts: as the model reads them.
      adapted: whether adapters alone are trained.
      shared: tokens of each beginning that is not read again.
    """
    forward = sum(
        footprint.forward_flops(
            cfg, len(text.ids), len(text.ids), logit_tokens=len(text.wanted)
        )
        for text in texts
    )
    forward -= sum(
        footprint.forward_flops(cfg, tokens, tokens, logit_tokens=0)
        for tokens in shared
    )
    return footprint.training_flops(cfg, forward, adapted=adapted)[0]


def of_updates(
    taken: Mapping[str, float], *, tokens: float, flops: float, ahead: bool = False
) -> dict[str, float]:
    """Return the rates of a step's updates as metrics; {} of a step without any.

    On all devices together, and without the time in which programs were compiled.

    Args:
      taken: the step's times, as `phases.take` returns them.
      tokens: of the texts that its updates read, each as often as it was read.
      flops: operations of the models in them.
      ahead: whether the devices had the next update meanwhile, so that what is of no
        phase is time in which they work too.
    """
    seconds = taken.get(phases.metric(UPDATE), 0.0)
    if not seconds:
        return {}
    if ahead:
        seconds += taken.get(phases.metric(phases.OTHER), 0.0)
    return {TOKENS: tokens / seconds, TFLOPS: flops / seconds / 1e12}
