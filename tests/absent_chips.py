"""Compile programs of a tiny model for chips that are not there, and tell what they hold.

`python tests/absent_chips.py TOPOLOGY LENGTH` with the extra `tpu` or `cuda`, in a
process of its own: these compilers do not know the flags of fake CPUs. Prints, as JSON,
the kernels' names and the shapes of the arrays of each program.
"""

import functools
import json
import re
import sys

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.decode import jitted, layout, programs
from rlcd_jax.job import kernels
from rlcd_jax.models import llama, siblings, table
from rlcd_jax.planning import chips, compiled, gpu_targets

ROWS = 8
SLOTS = 256
CFG = llama.LlamaConfig(
    vocab_size=512,
    num_layers=2,
    embed_dim=256,
    mlp_dim=320,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    tensor_ways=2,
)
# In the text of a program: of splash attention, of cuDNN's, and of ours.
KERNELS = (
    r"splash_mha_([a-z]+)_segmented",
    r'custom_call_target="__cudnn\$(fmha\w+)"',
    r'name = "(one_query)"',
)


def loss(cfg, params, tokens, numbers):
    """Return a scalar of all states of rows of several texts."""
    return jnp.sum(llama.hidden_states(params, cfg, tokens, tokens, numbers)[0])


def loss_alike(cfg, params, tokens, texts, sources, places):
    """Return a scalar of all states of rows whose texts share their beginnings."""
    alike = siblings.find(texts, sources, places)
    return jnp.sum(llama.hidden_states(params, cfg, tokens, tokens, alike)[0])


def lower(topology: chips.Topology, length: int) -> dict[str, jax.stages.Lowered]:
    """Return a reading, gradients, a prefill and decode steps, of `length` tokens."""
    mesh = sharding.make_mesh(2, 2, 2, devices=compiled.find_devices(topology))
    backend = gpu_targets.backend(topology.chip)
    cfg = kernels.configured(CFG, attention="auto", results="auto", backend=backend)
    specs = llama.param_specs(cfg)
    params = jitted.placed(
        table.abstract_params(specs), sharding.param_shardings(specs, mesh)
    )

    def of_shape(*shape: int) -> jax.ShapeDtypeStruct:
        one = jax.ShapeDtypeStruct(shape, jnp.int32)
        return jitted.placed(one, sharding.batch_sharding(mesh))

    rows, fewer = of_shape(ROWS, length), length * 2 // 3
    shared = (of_shape(ROWS, fewer), rows, rows, of_shape(ROWS, fewer, 2))
    made = jitted.make(cfg, mesh, weights="whole", num_slots=SLOTS, num_steps=1)
    sizes = layout.sizes(
        SLOTS,
        length,
        mesh=mesh,
        kernel=cfg.attention,
        prompt_buckets=(length,),
        live_buckets=None,
        prefill_tokens=ROWS * length,
    )
    works = jitted.works(
        made,
        layout.placed(cfg, mesh, "whole"),
        sizes,
        mesh=mesh,
        num_slots=SLOTS,
        features=programs.Features(),
        string_states=1,
    )
    drawn = {one.name: one.lower for one in works}
    read, alike = functools.partial(loss, cfg), functools.partial(loss_alike, cfg)
    with jax.set_mesh(mesh):
        return {
            "reading": jax.jit(read).lower(params, rows, rows),
            "gradient": jax.jit(jax.grad(read)).lower(params, rows, rows),
            "gradient of siblings": jax.jit(jax.grad(alike)).lower(params, *shared),
            "prefill": drawn[f"prefill {length}"](),
            "decode": drawn["decode"](),
        }


def main() -> None:
    """Print what is in the programs."""
    told = {}
    topology = chips.parse_topology(sys.argv[1])
    for name, lowered in lower(topology, int(sys.argv[2])).items():
        text = lowered.compile().as_text()
        found = {one for pattern in KERNELS for one in re.findall(pattern, text)}
        shapes = set(re.findall(r"\[([\d,]+)\]", text))
        told[name] = {"kernels": sorted(found), "shapes": sorted(shapes)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
