"""Preference and value models as transformers has them: a trunk and a `score`.

A value model gives one scalar a token, which is `LlamaForTokenClassification` with
one label: the numbers are the same. A preference model gives one scalar a text, which
is `LlamaForSequenceClassification` with one label. That class has no bias: ours is
kept in config.json as `score_bias`, and transformers' scores are less by it, the
same for every text, so that no comparison of two texts changes.
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
    VALUE: "LlamaForTokenClassification",
}
WEIGHT, BIAS = "score.weight", "score.bias"
BIAS_FIELD = "score_bias"


def head_tensors(head: Mapping[str, Any], role: str) -> dict[str, np.ndarray]:
    """Return a head's tensors by transformers' names, float32.

    Args:
      head: "weight" [D] and "bias" [].
      role: "preference" or "value".

    Returns:
      `score.weight` [1, D], and `score.bias` [1] of a value model.
    """
    tensors = {WEIGHT: np.asarray(head["weight"], np.float32)[None]}
    if role == VALUE:
        tensors[BIAS] = np.asarray(head["bias"], np.float32)[None]
    return tensors


def config_fields(head: Mapping[str, Any], role: str) -> dict[str, Any]:
    """Return what config.json says about a head."""
    labels = {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    if role == VALUE:
        return labels | {"classifier_dropout": 0.0}
    return labels | {BIAS_FIELD: float(np.asarray(head["bias"]))}


def head_from_tensors(
    tensors: Mapping[str, np.ndarray], raw: Mapping[str, Any], role: str, origin: str
) -> dict[str, np.ndarray]:
    """Return a head from its tensors and its config; `head_tensors` undone."""
    wanted = {WEIGHT, BIAS} if role == VALUE else {WEIGHT}
    if set(tensors) != wanted:
        raise ValueError(
            f"{origin}: the head of a {role} model has {', '.join(sorted(wanted))}; "
            f"got {', '.join(sorted(tensors)) or 'none'}"
        )
    if role == VALUE:
        bias = tensors[BIAS][0]
    else:
        value = raw.get(BIAS_FIELD, 0.0)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(
                f"{origin}: {BIAS_FIELD} is {fetched.show(value)}; accepted: a number"
            )
        bias = value
    return {"weight": tensors[WEIGHT][0], "bias": np.asarray(bias, np.float32)}
