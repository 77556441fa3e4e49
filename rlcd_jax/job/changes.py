"""Which fields of a config may change in a run that goes on, and what follows of each.

All other fields are part of what a stage's result depends on: a run in whose folder
one of them differs is refused with its name.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rlcd_jax import dotted

PLACE = "another place is looked at; its files are held by their content"
ROUNDING = "other programs compute the same; the last digits of numbers may differ"
SPEED = "the same replies, drawn at another speed"
LABEL = "the name that tables show"
DISK = "what stays on the disk"
SAVES = "what stays on the disk, and how far a rollback would go back"
ASKING = "what answers may cost, and how they are asked for"
FOLLOWS = {
    "name": LABEL,
    "preset": LABEL,
    "size": LABEL,
    "stages": "other stages are run",
    "keep_moments": DISK,
    "keep_checkpoints": DISK,
    "trackers": "curves are drawn elsewhere too",
    "stall_minutes": "when a run that does not move says where it stands",
    "model.cache_dir": PLACE,
    "model.remat": ROUNDING,
    "model.unroll": ROUNDING,
    "model.results": ROUNDING,
    "model.attention": ROUNDING,
    "model.attention_block": ROUNDING,
    "model.chunk_tokens": ROUNDING,
    "prompts.hh_dir": PLACE,
    "prompts.data_dir": PLACE,
    "mesh": ROUNDING,
    "engine": SPEED,
    "preference.micro_batch": ROUNDING,
    "preference.checkpoint_every": SAVES,
    "distill.micro_batch": ROUNDING,
    "distill.checkpoint_every": SAVES,
    "direct.micro_batch": ROUNDING,
    "direct.checkpoint_every": SAVES,
    "policy.micro_batch": ROUNDING,
    "direct.keep_best": DISK,
    "policy.keep_best": DISK,
    "preference.keep_best": DISK,
    "judge.offline": ASKING,
    "judge.max_tokens_field": ASKING,
    "judge.price_input": ASKING,
    "judge.price_output": ASKING,
    "judge.max_cost": ASKING,
}


def follows(name: str) -> str:
    """Return what follows of a change of a dotted field; "": it may not change."""
    return FOLLOWS.get(name, FOLLOWS.get(name.partition(".")[0], ""))


def bound(section: str, values: Any) -> Any:
    """Return a section of a config, or a field of its own, without what may change."""
    if not isinstance(values, Mapping):
        return values
    return {k: v for k, v in values.items() if not follows(f"{section}.{k}")}


def told(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each field that has changed and may, with what follows.

    Args:
      before: config of the run as it was, nested.
      now: as it is.
    """
    old, new = (
        dotted.flatten(json.loads(json.dumps(dict(one)))) for one in (before, now)
    )
    for name in sorted(old.keys() & new.keys()):
        if old[name] != new[name] and follows(name):
            was, value = json.dumps(old[name]), json.dumps(new[name])
            yield f"{name} was {was} and is {value} now: {follows(name)}"
