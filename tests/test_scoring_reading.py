"""scoring.reading: weights held in bfloat16 read as their master does."""

import jax.numpy as jnp
import numpy as np
import padded
import runs

from rlcd_jax.job import setup
from rlcd_jax.scoring import reading


def test_frozen_leaves_every_value_equal():
    """A bfloat16 copy gives the very rewards of its float32 master."""
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config(model__dtype="bfloat16"))
    base = job.load_base()
    copy = reading.frozen(job, base)
    assert copy["layers"]["q"].dtype == jnp.bfloat16
    assert copy["layers"]["attn_norm"].dtype == jnp.float32
    tokens = np.arange(16, dtype=np.int32).reshape(2, 8)
    mask = jnp.ones((2, 8), bool)
    one, other = (
        padded.text_logprobs(p, job.cfg, tokens, mask, chunk_tokens=64)
        for p in (base, copy)
    )
    np.testing.assert_array_equal(one, other)
