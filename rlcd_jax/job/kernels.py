"""Which attention and which products a model gets where a config leaves it open."""

from __future__ import annotations

import dataclasses

import jax

from rlcd_jax.models import llama

AUTO = "auto"
# Kernels of attention that run on one platform alone: JAX's name of it, and ours.
NEEDED = {"cudnn": ("gpu", "an NVIDIA GPU"), "splash": ("tpu", "a TPU")}
PACKED_CAPABILITY = 9.0  # of NVIDIA GPUs on which cuDNN reads several texts a row
WIDEST = 256  # head of cuDNN's kernels, whose widths are multiples of `UNIT`
UNIT = 8
# Of "xla", tokens of a block where a config leaves them open: caches of CPUs hold the
# scores of smaller blocks. A preference update of texts of hh-rlhf's lengths takes a
# sixth less time with 128 than with 256, with 64 no less than with that.
BLOCK_OF_CPU = 128
BEST_BLOCK = -1


@dataclasses.dataclass(frozen=True)
class Backend:
    """What a model runs on.

    Attributes:
      platform: "cpu", "gpu" or "tpu".
      capability: of an NVIDIA GPU; 0.0: it is none.
    """

    platform: str
    capability: float = 0.0


def this_backend() -> Backend:
    """Return what this process runs on."""
    device = jax.local_devices()[0]
    try:
        capability = float(getattr(device, "compute_capability", 0.0))
    except ValueError:  # AMD's have names
        capability = 0.0
    return Backend(jax.default_backend(), capability)


def problem(attention: str, platform: str) -> str:
    """Return why a kernel cannot run on a platform, "" where it can."""
    needed, device = NEEDED.get(attention, (platform, ""))
    if needed == platform:
        return ""
    return (
        f"model.attention={attention!r} needs {device}, and this is for the platform "
        f"{platform!r}; set model.attention='xla', or 'auto' for the one that fits"
    )


def configured(
    cfg: llama.LlamaConfig,
    *,
    attention: str,
    results: str,
    block: int = BEST_BLOCK,
    backend: Backend,
) -> llama.LlamaConfig:
    """Return a model's numbers with their kernel and the dtype of their results.

    Args:
      cfg: with its compute dtype.
      attention: a kernel, or "auto": cuDNN's where it reads packed rows, JAX's splash
        attention on TPUs.
      results: a dtype, or "auto": bfloat16 on GPUs; it is slower elsewhere.
      block: tokens of a block of "xla" attention, or `BEST_BLOCK`: `BLOCK_OF_CPU` on
        CPUs, those of `LlamaConfig` elsewhere.
      backend: that the model runs on.

    Raises:
      ValueError: the kernel does not run there.
    """
    if told := problem(attention, backend.platform):
        raise ValueError(told)
    half, gpu = cfg.dtype == "bfloat16", backend.platform == "gpu"
    fits = cfg.head_dim <= WIDEST and cfg.head_dim % UNIT == 0
    if attention == AUTO:
        packed = half and fits and backend.capability >= PACKED_CAPABILITY
        attention = "cudnn" if packed else "xla"
        if half and backend.platform == "tpu":
            attention = "splash"
    if results == AUTO:
        results = "bfloat16" if half and gpu else "float32"
    if block == BEST_BLOCK:
        elsewhere = llama.LlamaConfig.attention_block
        block = BLOCK_OF_CPU if backend.platform == "cpu" else elsewhere
    return dataclasses.replace(
        cfg,
        attention=attention,
        results=results,
        attention_block=block,
        cut_as_bits=backend.platform == "cpu",
    )
