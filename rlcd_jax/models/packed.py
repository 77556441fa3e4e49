"""cuDNN's attention over rows of several texts, each of which sees itself alone.

The kernel is told where each text begins and how long it is, and stores no scores: the
work of a row is that of its texts. JAX offers it to users for one text a row only; the
entry for several is in a module of its own that promises nothing, so it is called here
and nowhere else.

Letters as in `models.attention`, and M texts of a row at most.
"""

from __future__ import annotations

import math

import flax.struct
import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn

# JAX before this version places the keys of grouped queries as if every query had its
# own (`_fix_seqlen_offsets`), so that each query gets its own there.
GROUPS_SINCE = (0, 11, 2)
# M is known before the texts are, and the kernels run over all of a row for each of
# them, there or not: 32 in a row of 1,024 took a twelfth of an update on an H200.
TOKENS_A_TEXT, FEWEST = 128, 4


@flax.struct.dataclass
class Texts:
    """Where the texts of rows lie.

    Attributes:
      asking: [B, M] int32, tokens of each text that attend; -1: there is no such text.
      asked: [B, M] int32, of these the tokens that are attended to; -1 likewise.
      starts: [B, M + 1] int32, place of its first token; -1 likewise.
      inside: [B, T] bool, whether a token attends.
      seen: [B, T] bool, whether it is attended to.
    """

    asking: jax.Array
    asked: jax.Array
    starts: jax.Array
    inside: jax.Array
    seen: jax.Array


def most_texts(length: int) -> int:
    """Return M of rows of `length` tokens."""
    return max(FEWEST, length // TOKENS_A_TEXT)


def compile_for(capability: float) -> None:
    """Let this process compile the kernel for GPUs that are not there.

    JAX asks the GPU of the process whether it has the kernel; what compiles for others
    says what these have.

    Args:
      capability: theirs.
    """
    cudnn.check_compute_capability = lambda asked: capability >= float(asked)


def find(numbers: jax.Array) -> Texts:
    """Return where the texts of rows lie.

    Args:
      numbers: [B, T] int32 as `llama.hidden_states` takes them: each text lies in one
        piece, tokens that see it and are not seen behind it, and there are at most
        `most_texts(T)` in a row.
    """
    most, text = most_texts(numbers.shape[1]), jnp.abs(numbers)
    before = jnp.pad(text[:, :-1], ((0, 0), (1, 0)))
    begins = (text != before) & (text > 0)
    which = jnp.cumsum(begins, axis=1) - 1  # of the text before, where none is
    own = which[:, :, None] == jnp.arange(most)  # [B, T, M]
    inside, seen = text > 0, numbers > 0

    def count(counted: jax.Array) -> jax.Array:
        return jnp.sum(own & counted[:, :, None], axis=1, dtype=jnp.int32)

    there = count(begins) > 0
    places = jnp.arange(numbers.shape[1], dtype=jnp.int32)[None, :, None]
    starts = jnp.sum(jnp.where(own & begins[:, :, None], places, 0), axis=1)
    starts = jnp.where(there, starts.astype(jnp.int32), -1)
    return Texts(
        asking=jnp.where(there, count(inside), -1),
        asked=jnp.where(there, count(seen), -1),
        starts=jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1),
        inside=inside,
        seen=seen,
    )


def causal_attention(
    q: jax.Array, k: jax.Array, v: jax.Array, texts: Texts, dtype: str
) -> jax.Array:
    """Attend to earlier tokens of the same text that are seen.

    Args:
      q: [B, T, N, H] float32.
      k: [B, T, K, H] float32.
      v: [B, T, K, H] float32.
      texts: of the rows.
      dtype: of the products' operands, "bfloat16".

    Returns:
      [B, T, N * H] float32; zero where a token is of no text.
    """
    groups = q.shape[2] // k.shape[2]
    if jax.__version_info__ < GROUPS_SINCE and groups > 1:
        k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
    inside, seen = (x[:, :, None, None] for x in (texts.inside, texts.seen))
    # The kernel writes nothing where no text is, neither results nor gradients: what is
    # chosen here before and behind it is 0 there in both directions.
    chosen = zip((q, k, v), (inside, seen, seen), strict=True)
    q, k, v = (jnp.where(where, x, 0).astype(dtype) for x, where in chosen)
    out = cudnn.dot_product_attention(
        q,
        k,
        v,
        q_seqlen=texts.asking,
        kv_seqlen=texts.asked,
        q_offsets=texts.starts,
        kv_offsets=texts.starts,
        scale=1 / math.sqrt(q.shape[-1]),
        mask_type=cudnn.MaskType.PADDING_CAUSAL,
    )
    out = jnp.where(inside, out, 0)
    return out.reshape(*out.shape[:2], -1).astype(jnp.float32)
