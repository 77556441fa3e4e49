"""Load a model onto eight fake devices, so that another process can watch its memory.

    python loading_memory.py hf|gguf|checkpoint PATH DATA FSDP TENSOR

Says "ready" when all that comes before is done, loads after a line on standard input,
and says how many bytes the devices then hold.
"""

import os
import sys

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import loading_model  # noqa: E402

from rlcd_jax import checkpoint, sharding  # noqa: E402
from rlcd_jax.models import llama, table  # noqa: E402
from rlcd_jax.weights import gguf, hf, names  # noqa: E402


def load(form, path, shardings):
    """Return the parameters on their devices."""
    put = names.put_sharded(shardings)
    if form == "hf":
        return hf.load_params(path, loading_model.CFG, put)
    if form == "gguf":
        return gguf.load_params(gguf.open_file(path), loading_model.CFG, path, put)
    shapes = table.abstract_params(llama.param_specs(loading_model.CFG))
    asked = {"policy": checkpoint.abstract_like(shapes, shardings)}
    return checkpoint.restore(path, 1, asked)[0]["policy"]


def main(form, path, *shape):
    """Say "ready", wait, load, say the bytes."""
    data, fsdp, tensor = map(int, shape)
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = sharding.make_mesh(data, fsdp, tensor, devices)
    specs = llama.param_specs(loading_model.CFG)
    shardings = sharding.param_shardings(specs, mesh)
    jax.block_until_ready(jax.device_put(0.0, devices[0]))
    print("ready", flush=True)
    sys.stdin.readline()
    params = jax.block_until_ready(load(form, path, shardings))
    held = {
        shard.data.unsafe_buffer_pointer(): shard.data.nbytes
        for leaf in jax.tree.leaves(params)
        for shard in leaf.addressable_shards
    }
    print(sum(held.values()), flush=True)
    sys.stdin.readline()


main(*sys.argv[1:])
