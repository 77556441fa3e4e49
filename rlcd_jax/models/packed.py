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
# JAX's name of the operation whose results the way back reads.
KERNEL = "dot_product_attention_fwd_wrapper"


@flax.struct.dataclass
class Texts:
    """Where the texts of rows lie.

    Attributes:
      asking: [B, M] int32, tokens of each text that attend, padding behind it included;
        -1: there is no such text.
      asked: [B, M] int32, of these the tokens that are attended to; -1 likewise.
      starts: [B, M + 1] int32, place of its first token; -1 likewise.
      seen: [B, T] bool, whether a token is attended to.
    """

    asking: jax.Array
    asked: jax.Array
    starts: jax.Array
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

    Padding asks as if it belonged to the text before it, and a row without a text as if
    it were one. The kernel writes nothing where nobody asks: so it writes everywhere,
    and its results need no choosing, which took passes over memory of their own.

    Args:
      numbers: [B, T] int32 as `llama.hidden_states` takes them: each text lies in one
        piece, tokens that see it and are not seen behind it, the first one begins where
        its row does, and there are at most `most_texts(T)` in a row.
    """
    most, text = most_texts(numbers.shape[1]), jnp.abs(numbers)
    before = jnp.pad(text[:, :-1], ((0, 0), (1, 0)))
    begins = ((text != before) & (text > 0)).at[:, 0].set(True)
    which = jnp.cumsum(begins, axis=1) - 1  # of the text before, where none is
    own = which[:, :, None] == jnp.arange(most)  # [B, T, M]
    seen = numbers > 0
    there = jnp.any(own, axis=1)
    places = jnp.arange(numbers.shape[1], dtype=jnp.int32)[None, :, None]
    starts = jnp.sum(jnp.where(own & begins[:, :, None], places, 0), axis=1)
    starts = jnp.where(there, starts.astype(jnp.int32), -1)
    asking = jnp.sum(own, axis=1, dtype=jnp.int32)
    asked = jnp.sum(own & seen[:, :, None], axis=1, dtype=jnp.int32)
    return Texts(
        asking=jnp.where(there, asking, -1),
        # Of no key at all the mean would be 0/0: of a row without a text one, a zero.
        asked=jnp.where(there, jnp.maximum(asked, 1), -1),
        starts=jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1),
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
      [B, T, N * H] float32; finite where a token is of no text.
    """
    # No gradient of a key that is not seen is written: chosen here, it is 0 there.
    seen = texts.seen[:, :, None, None]
    q, k, v = (
        x.astype(dtype) for x in (q, jnp.where(seen, k, 0), jnp.where(seen, v, 0))
    )
    groups = q.shape[2] // k.shape[2]
    if jax.__version_info__ < GROUPS_SINCE and groups > 1:
        k, v = (jnp.repeat(x, groups, axis=2) for x in (k, v))
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
    return out.reshape(*out.shape[:2], -1).astype(jnp.float32)
