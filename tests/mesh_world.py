"""One tiny model on any mesh: its updates, its logits and its greedy replies."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import runs

from rlcd_jax import sharding, tree
from rlcd_jax.decode import engine
from rlcd_jax.job import generation, setup
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import learning, reply_rows
from rlcd_jax.preference import pair_ids
from rlcd_jax.stages import distill_context, train_preference

AXES = ("slices", "data", "fsdp", "tensor")
# Query and key/value heads: SmolLM2's, and none grouped.
MODELS = {"grouped": (9, 3), "plain": (8, 8)}
ROWS, LENGTH, REPLY = 8, 24, 8
UPDATES = 2  # the second sees what the first made of its gradients


def shapes(devices: int = 8) -> Iterator[tuple[int, ...]]:
    """Yield every (slices, data, fsdp, tensor) with this product."""

    def parts(count: int, axes: int) -> Iterator[tuple[int, ...]]:
        if axes == 1:
            yield (count,)
            return
        for first in (n for n in range(1, count + 1) if count % n == 0):
            yield from ((first, *rest) for rest in parts(count // first, axes - 1))

    yield from parts(devices, len(AXES))


def make_job(shape: tuple[int, ...], model: str, **fields: Any) -> setup.Job:
    """Return a job on a mesh, with the heads of one of `MODELS`."""
    config = runs.tiny_config(
        **{f"mesh__{axis}": size for axis, size in zip(AXES, shape, strict=True)},
        preference__batch_size=ROWS,
        distill__batch_size=ROWS,
        distill__micro_batch=0,
        direct__batch_size=ROWS,
        direct__lengths=(LENGTH,),
        policy__update_batch=ROWS,
        preference__lengths=(LENGTH,),
        distill__lengths=(LENGTH,),
        policy__prompt_tokens=LENGTH - REPLY,
        policy__reply_tokens=REPLY,
        engine__slots_per_device=fields.pop("slots", 1),
        engine__prompt_buckets=(16,),
        **fields,
    )
    with runs.devices_by_mesh():
        job = setup.load_job(config)
    count, kv_count = MODELS[model]
    cfg = dataclasses.replace(
        job.cfg, num_layers=1, num_heads=count, num_kv_heads=kv_count, head_dim=8
    )
    return dataclasses.replace(job, cfg=cfg)


def everything(job: setup.Job, stages: Sequence[str] = ()) -> dict[str, Any]:
    """Return what must be the same on every mesh, by name.

    Args:
      job: on any mesh.
      stages: whose updates are made; empty: of all.
    """
    policy = make_policy(job)
    scalar = _params(job, heads.scalar_specs(job.cfg), 1)
    found: dict[str, Any] = {
        "logits": _logits(job, policy),
        "replies": greedy(job, policy),
    }
    made = {
        "distill": (distill_context.make_trainer(job, 4), {"policy": policy}),
        "preference": (train_preference.make_trainer(job, 4), {"preference": scalar}),
        "policy": (learning.make_trainer(job), {"policy": policy, "value": scalar}),
    }
    for stage in stages or made:
        program, params = made[stage]
        state = program.create(jax.tree.map(jnp.copy, params))  # which uses it up
        for update in range(UPDATES):
            state, metrics = program.update(state, BATCHES[stage](job))
            names = ("optimizer/grad_norm", *LOSSES[stage])
            row = [float(metrics[name]) for name in names]
            found[f"{stage} update {update + 1}"] = np.array(row)
    return found


LOSSES = {
    "distill": ("distill/loss",),
    "preference": ("preference/loss",),
    "policy": ("policy/loss", "value/loss", "loss/total"),
}


def make_policy(job: setup.Job) -> Any:
    """Return the weights of a language model."""
    return _params(job, llama.param_specs(job.cfg), 0)


def _params(job: setup.Job, specs: Any, seed: int) -> Any:
    """Return weights with logits of a few nats, placed as a stage places them."""
    names = [f"{name} {spec.shape}" for name, spec in tree.flatten_names(specs).items()]
    key = (seed, *names)
    if key not in _DRAWN:
        drawn = llama.table.init_from_specs(specs, jax.random.key(seed))
        _DRAWN[key] = jax.tree.map(
            lambda x: np.asarray(x) * (6.0 if x.ndim > 1 else 1.0), drawn
        )
    return jax.device_put(_DRAWN[key], sharding.param_shardings(specs, job.mesh))


_DRAWN: dict[tuple, Any] = {}  # by seed and shapes: every mesh has the same weights


def _texts() -> tuple[np.ndarray, np.ndarray]:
    """Return tokens and a mask [B, T] of texts of many lengths, padded left."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 250, (ROWS, LENGTH), np.int32)
    return tokens, np.arange(LENGTH) >= rng.integers(0, LENGTH // 2, (ROWS, 1))


def _logits(job: setup.Job, params: Any) -> np.ndarray:
    def run(params, tokens, mask):
        positions = heads.positions_of(mask)
        hidden, _ = llama.hidden_states(params, job.cfg, tokens, positions, mask)
        return jnp.where(mask[..., None], llama.logits(params, job.cfg, hidden), 0)

    rows = sharding.batch_sharding(job.mesh)
    with jax.set_mesh(job.mesh):
        return np.asarray(
            jax.jit(run, in_shardings=(None, rows, rows))(params, *_texts())
        )


def greedy(job: setup.Job, params: Any) -> list[tuple[int, ...]]:
    """Return greedy replies to ten prompts, by the decode engine of the job."""
    sampler = generation.make_engine(job, 12, REPLY)
    generation.load(sampler, params, job.mesh)
    rng = np.random.default_rng(1)
    requests = [
        engine.Request(
            id=str(index),
            tokens=tuple(rng.integers(0, 250, 3 + index).tolist()),
            seed=(index, 7),
            max_new_tokens=REPLY - index % 3,
            temperature=0.0,
        )
        for index in range(10)
    ]
    return [reply.tokens for reply in sampler.generate(requests)]


def _distill_batch(job: setup.Job) -> dict[str, np.ndarray]:
    examples = [
        distill_context.Example(ids, (False,) + (True,) * (len(ids) - 1))
        for ids in _ids()
    ]
    return distill_context.collate(job)(examples)


def _preference_batch(job: setup.Job) -> dict[str, np.ndarray]:
    ids, labels = _ids(), np.linspace(0, 1, ROWS)
    pairs = map(pair_ids.TokenPair, ids, ids[::-1], labels)
    return train_preference.collate(job)(list(pairs))


def _ids() -> list[tuple[int, ...]]:
    """Return the texts without padding."""
    pairs = zip(*_texts(), strict=True)
    return [tuple(tokens[mask].tolist()) for tokens, mask in pairs]


def _policy_batch(job: setup.Job) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    names = ("logprobs", "values", "advantages", "returns")
    numbers = {n: rng.normal(size=(ROWS, REPLY)).astype(np.float32) for n in names}
    counts = rng.integers(1, REPLY + 1, ROWS)
    replies = np.arange(REPLY) < counts[:, None]
    texts = [
        reply_rows.text(job, ids[: LENGTH - REPLY], [7] * count)
        for ids, count in zip(_ids(), counts, strict=True)
    ]
    ((chosen, rows),) = reply_rows.update_batches(job, texts, [np.arange(ROWS)])
    arrays = {"response_mask": replies, "weighs": replies, **numbers}
    return {**rows, **{name: array[chosen] for name, array in arrays.items()}}


BATCHES = {
    "distill": _distill_batch,
    "preference": _preference_batch,
    "policy": _policy_batch,
}
