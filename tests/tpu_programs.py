"""Compile programs of a tiny model for TPUs that are not there, and tell what is in them.

`python tests/tpu_programs.py LENGTH` with the extra `tpu`, in a process of its own: the
compiler does not know the flags of fake CPUs. Prints, as JSON, the kernels' names and
the shapes of the arrays of each program.
"""

import json
import re
import sys

import jax
import jax.numpy as jnp

from rlcd_jax import sharding
from rlcd_jax.decode import jitted, layout
from rlcd_jax.models import llama, table
from rlcd_jax.planning import chips, compiled

ROWS = 8
CFG = llama.LlamaConfig(
    vocab_size=512,
    num_layers=2,
    embed_dim=256,
    mlp_dim=320,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    tensor_ways=2,
    attention="splash",
)


def loss(params, tokens, numbers):
    """Return a scalar of all states of rows of several texts."""
    return jnp.sum(llama.hidden_states(params, CFG, tokens, tokens, numbers)[0])


def lower(length: int) -> dict[str, jax.stages.Lowered]:
    """Return a reading, its gradient and a prefill, of rows of `length` tokens."""
    devices = compiled.find_devices(chips.parse_topology("v5e:2x4"))
    mesh = sharding.make_mesh(2, 2, 2, devices=devices)
    specs = llama.param_specs(CFG)
    params = jitted.placed(
        table.abstract_params(specs), sharding.param_shardings(specs, mesh)
    )
    tokens = jax.ShapeDtypeStruct((ROWS, length), jnp.int32)
    rows = jitted.placed(tokens, sharding.batch_sharding(mesh))
    each = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
    made = jitted.make(CFG, mesh, weights="whole", num_slots=ROWS, num_steps=1)
    weights = jitted.placed(layout.weight_shapes(CFG), made.shardings.params)
    with jax.set_mesh(mesh):
        return {
            "reading": jax.jit(loss).lower(params, rows, rows),
            "gradient": jax.jit(jax.grad(loss)).lower(params, rows, rows),
            "prefill": made.prefill.lower(
                weights, part=None, tokens=tokens, offset=each, length=each
            ),
        }


def main() -> None:
    """Print what is in the programs."""
    told = {}
    for name, lowered in lower(int(sys.argv[1])).items():
        text = lowered.compile().as_text()
        kernels = set(re.findall(r"splash_mha_([a-z]+)_segmented", text))
        shapes = set(re.findall(r"\[([\d,]+)\]", text))
        told[name] = {"kernels": sorted(kernels), "shapes": sorted(shapes)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
