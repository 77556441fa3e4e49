"""Which model has which role in a run: one for all, or another for some.

Between most roles only text passes, so that each reads it with its own tokenizer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rlcd_jax import stages
from rlcd_jax.judging import judges
from rlcd_jax.pairs import grid

ROLES = ("generator", "scorer", "preference", "policy", "judge")
GENERATOR, SCORER, PREFERENCE, POLICY, JUDGE = ROLES
MODEL = "spec"  # field of the section `model`: of all roles that no field names
# Whose model a role has that is not named.
_AS = {SCORER: GENERATOR, JUDGE: POLICY}


def field_of(model: Mapping[str, Any], role: str) -> str:
    """Return the dotted field of a config that names the model of a role.

    Args:
      model: the config's section of this name; one of an older run lacks some fields.
      role: one of `ROLES`.
    """
    while not model.get(role):
        if role not in _AS:
            return f"model.{MODEL}"
        role = _AS[role]
    return f"model.{role}"


def spec_of(model: Mapping[str, Any], role: str) -> str:
    """Return the spec of the model that has a role; arguments as of `field_of`."""
    return model[field_of(model, role).removeprefix("model.")]


def told(model: Mapping[str, Any]) -> str:
    """Return the model of a run, for people; of each role where they are not one.

    A run of one model is told by its spec alone, and a role that has another's model
    because none is named is left out.
    """
    held: dict[str, list[str]] = {}
    for role in ROLES:
        if model.get(role) or role not in _AS:
            held.setdefault(spec_of(model, role), []).append(role)
    if len(held) == 1:
        return next(iter(held))
    return ", ".join(f"{spec} ({', '.join(own)})" for spec, own in held.items())


def asked(config: Any, stage: str) -> tuple[str, ...]:
    """Return the roles whose models a stage reads or trains, its own first.

    Args:
      config: of a run.
      stage: its name.
    """
    section = config.evaluate
    reads = {judges.JUDGES[name].reads for name in section.judges}
    ranks = stages.BEST_OF in section.systems or judges.REPLIES in reads
    idle = set()
    if not grid.asks(config.pairs):
        idle.add(SCORER)
    if judges.LETTERS not in reads:
        idle.add(JUDGE)
    if stage == "evaluate" and not ranks:
        idle.add(PREFERENCE)
    return tuple(role for role in stages.STAGES[stage].roles if role not in idle)


def bound(model: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the section `model` with no other roles than the known ones.

    A role that is not named is left out too: its model is another field's.
    """
    return {
        name: value
        for name, value in model.items()
        if name not in ROLES or (value and name in known)
    }
