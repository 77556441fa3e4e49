"""Preference and value models as transformers has them: a trunk and a `score`.

Both are `LlamaForSequenceClassification` with one label, which reads the scalar at the
last token: a preference model's score of a text, a value model's value of its last
place. The values of all places are `score` on the hidden states. That class has no
bias: ours is kept in config.json as `score_bias`, and transformers' scalars are less by
it, the same for every text, so that no comparison of two texts changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rlcd_jax import fetched

POLICY, PREFERENCE, VALUE = "policy", "preference", "value"
ARCHITECTURES = {
    POLICY: "LlamaForCausalLM",
    PREFERENCE: "LlamaForSequenceClassification",
    VALUE: "LlamaForSequenceClassification",
}
WEIGHT = "score.weight"
BIAS_FIELD = "score_bias"


def head_tensors(head: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return a head's tensors by transformers' names: `score.weight` [1, D], float32.

    Args:
      head: "weight" [D] and "bias" [].
    """
    return {WEIGHT: np.asarray(head["weight"], np.float32)[None]}


def config_fields(head: Mapping[str, Any]) -> dict[str, Any]:
    """Return what config.json says about a head."""
    labels = {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    return labels | {BIAS_FIELD: float(np.asarray(head["bias"]))}


def head_from_tensors(
    tensors: Mapping[str, np.ndarray], raw: Mapping[str, Any], role: str, origin: str
) -> dict[str, np.ndarray]:
    """Return a head from its tensors and its config; `head_tensors` undone."""
    if set(tensors) != {WEIGHT}:
        raise ValueError(
            f"{origin}: the head of a {role} model has {WEIGHT} and no more; "
            f"got {', '.join(sorted(tensors)) or 'none'}"
        )
    bias = raw.get(BIAS_FIELD, 0.0)
    if isinstance(bias, bool) or not isinstance(bias, int | float):
        raise ValueError(
            f"{origin}: {BIAS_FIELD} is {fetched.show(bias)}; accepted: a number"
        )
    return {"weight": tensors[WEIGHT][0], "bias": np.asarray(bias, np.float32)}
