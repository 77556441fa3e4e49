"""One measurement: from a command's flags to figures, and the machine they are of."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rlcd_jax.bench import (
    decode,
    hf_peer,
    llama_cpp_peer,
    model_numbers,
    ppo_step,
    settings,
    simulate,
    torch_peer,
    trl_peer,
    updates,
    whole_job,
)
from rlcd_jax.job import roles, setup

NO_PEER = "none"
WHOLE_JOB = "quickstart"
LLAMA_CPP = "llama.cpp"  # reads a model's file; other peers have its shape alone


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of work.

    Attributes:
      run: (settings, model numbers or job) -> figures.
      peers: what may be measured beside it, by the name of a flag's value.
      of_job: whether it is a stage of a run, with its config.
    """

    run: Callable[..., dict[str, Any]]
    peers: Mapping[str, Callable[..., Mapping[str, Any]]]
    of_job: bool = False


KINDS = {
    "decode": Kind(
        decode.run, {"hf": hf_peer.make_peers, LLAMA_CPP: llama_cpp_peer.make_peers}
    ),
    "simulate": Kind(simulate.run, {"hf": hf_peer.make_peers}),
    "train": Kind(updates.train, {"torch": torch_peer.make_train_peers}, of_job=True),
    "preference": Kind(
        updates.preference, {"torch": torch_peer.make_preference_peers}, of_job=True
    ),
    "ppo": Kind(ppo_step.run, {"trl": trl_peer.make_peers}, of_job=True),
}
WHAT = (*KINDS, WHOLE_JOB)
PEERS = (
    NO_PEER,
    *dict.fromkeys(name for kind in KINDS.values() for name in kind.peers),
)


def spec_of(model: str) -> str:
    """Return a flag's model as a config names it: a shape has random weights."""
    return model if ":" in model else f"{setup.RANDOM}{model}"


def measure(
    flags: Mapping[str, Any],
    cache_dir: str | os.PathLike[str],
    load: hf_peer.Load,
    config: ConfigDict,
    command: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return what flags ask to measure: the machine, what it was, and its figures.

    Args:
      flags: values by name: `what` of `WHAT`, `peer` of `PEERS`, `cold`, `model`,
        `dtype` and `attention` as `model_numbers.find` has them, the rest as
        `settings.from_flags`.
      cache_dir: of fetched models.
      load: returns an installed package by its name; for peers.
      config: of a run, whose stage is measured where what is asked is one.
      command: that starts the quickstart.
      environ: of the command's process.

    Raises:
      ValueError: a flag has a value that is not accepted, or a peer is not installed.
    """
    what, peer = flags["what"], flags["peer"]
    known = KINDS[what].peers if what in KINDS else {}
    if peer not in (NO_PEER, *known):
        raise ValueError(
            f"--peer {peer}: --what {what} is not measured beside it; accepted: "
            f"{', '.join((NO_PEER, *known))}"
        )
    if what == WHOLE_JOB:
        figures = whole_job.run(command, environ or {}, cache_dir, cold=flags["cold"])
    else:
        figures = _of_kind(KINDS[what], flags, cache_dir, load, config)
    return {
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "num_cpus": os.cpu_count(),
        "what": what,
        **figures,
    }


def _of_kind(
    kind: Kind,
    flags: Mapping[str, Any],
    cache_dir: str | os.PathLike[str],
    load: hf_peer.Load,
    config: ConfigDict,
) -> dict[str, Any]:
    """Return the figures of one kind of work; arguments as of `measure`."""
    cfg = model_numbers.find(
        flags["model"],
        dtype=flags["dtype"],
        attention=flags["attention"],
        cache_dir=cache_dir,
    )
    of: Any = cfg
    if kind.of_job:
        config = config.copy_and_resolve_references()
        if others := [role for role in roles.ROLES if config.model[role]]:
            raise ValueError(
                f"model.{others[0]}={config.model[others[0]]!r}: one model is "
                "measured, that of --model; leave the field out"
            )
        with config.unlocked():
            config.model.spec = spec_of(flags["model"])
            config.model.cache_dir = config.model.cache_dir or os.fspath(cache_dir)
            config.model.dtype, config.model.attention = cfg.dtype, cfg.attention
        of = setup.load_job(config)
        cfg = of.cfg
    make = kind.peers.get(flags["peer"], lambda cfg, load: {})
    named = flags["model"] if flags["peer"] == LLAMA_CPP else cfg
    return kind.run(settings.from_flags(flags, make(named, load)), of)
