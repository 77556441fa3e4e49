"""The kernel of decode steps on GPUs, against masked scores in float64.

On a CPU the same program runs as plain operations; on an NVIDIA GPU as it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax import sharding
from rlcd_jax.models import cached, one_query, pallas_triton

ON_GPU = jax.default_backend() == "gpu"
CLOSE = 1e-2 if ON_GPU else 1e-5
DTYPE = jnp.bfloat16 if ON_GPU else jnp.float32


@pytest.fixture(autouse=True)
def plain_operations(monkeypatch):
    monkeypatch.setattr(one_query, "INTERPRET", not ON_GPU)


def arrays(slots, entries, kv_heads, group, width):
    rng = np.random.default_rng(slots + entries)
    new, own = (slots, kv_heads, width), (slots, entries, kv_heads, width)
    shapes = [(slots, kv_heads * group, width), new, new, own, own]
    return [jnp.asarray(rng.standard_normal(shape), DTYPE) for shape in shapes]


def by_hand(q, key, value, keys, values, places):
    """Return what each slot sees, and the caches after."""
    q, key, value, keys, values = (
        np.array(x, np.float64) for x in (q, key, value, keys, values)
    )
    group, out = q.shape[1] // key.shape[1], np.zeros(q.shape)
    for slot, place in enumerate(places):
        for head in range(q.shape[1]):
            own = head // group
            before = max(int(place), 0)
            seen = [
                np.concatenate([cache[slot, :before, own], new[slot, own][None]])
                for cache, new in ((keys, key), (values, value))
            ]
            weights = np.exp(seen[0] @ q[slot, head] / np.sqrt(q.shape[2]))
            out[slot, head] = weights @ seen[1] / weights.sum()
        if place >= 0:
            keys[slot, place], values[slot, place] = key[slot], value[slot]
    return out, keys, values


@pytest.mark.parametrize(
    ("entries", "kv_heads", "group", "width"),
    [(100, 2, 3, 64), (40, 4, 1, 32), (200, 1, 4, 128), (64, 1, 16, 16), (7, 3, 1, 64)],
)
def test_a_token_is_added_and_attends(entries, kv_heads, group, width):
    places = [0, one_query.IDLE, entries - 1, entries // 2, 1]
    given = arrays(len(places), entries, kv_heads, group, width)
    q, key, value, *cache = given

    @jax.jit
    def run(q, new, cache, places):
        return one_query.attend(q, new, cache, places)

    out, buffers = run(q, (key, value), tuple(cache), jnp.asarray(places))
    for ours, truth in zip((out, *buffers), by_hand(*given, places), strict=True):
        ours = np.asarray(ours, np.float64)
        np.testing.assert_allclose(ours, truth, atol=CLOSE * np.abs(truth).max())


def test_what_lies_behind_the_token_is_not_read():
    q, key, value, keys, values = arrays(3, 80, 2, 2, 32)
    places = jnp.asarray([5, 64, one_query.IDLE])
    behind = jnp.arange(80)[None, :, None, None] >= places[:, None, None, None]
    rotten = tuple(jnp.where(behind, jnp.nan, cache) for cache in (keys, values))
    out, _ = one_query.attend(q, (key, value), rotten, places)
    clean, _ = one_query.attend(q, (key, value), (keys, values), places)
    np.testing.assert_array_equal(out, clean)
    np.testing.assert_allclose(
        np.asarray(out[2], np.float64),
        np.repeat(np.asarray(value[2], np.float64), 2, axis=0),
        atol=CLOSE,
    )


@pytest.mark.skipif(ON_GPU, reason="of fake devices")
def test_devices_have_slots_and_heads_of_their_own():
    mesh = sharding.make_mesh(slices=1, data=2, fsdp=2, tensor=2)
    given = arrays(4, 24, 2, 2, 16)
    q, key, value, *cache = given
    places = jnp.asarray([3, 23, one_query.IDLE, 0])
    with jax.set_mesh(mesh):
        out, buffers = jax.jit(one_query.attend)(q, (key, value), tuple(cache), places)
    for ours, truth in zip((out, *buffers), by_hand(*given, places), strict=True):
        np.testing.assert_allclose(ours, truth, atol=CLOSE * np.abs(truth).max())


def test_few_slots_odd_widths_and_huge_caches_are_cudnns():
    fits, many = one_query.fits, (512, 256, 3, 64)
    assert fits(many, (512, 1, 9, 64))
    assert not fits(many, (512, 2, 9, 64))  # several tokens
    assert not fits((8, 256, 3, 64), (8, 1, 9, 64))  # few programs
    assert not fits((512, 256, 3, 80), (512, 1, 9, 80))  # no power of two
    assert not fits((512, 256, 3, 64), (512, 1, 60, 64))  # 20 queries a key
    assert not fits((4096, 4096, 8, 64), (4096, 1, 8, 64))  # places over 32 bits
    mesh = sharding.abstract_mesh(4, 1, 1, num_devices=4)
    with jax.sharding.use_abstract_mesh(mesh):
        assert not fits((60, 256, 3, 64), (60, 1, 9, 64))  # 45 on a device
        assert fits((64, 256, 3, 64), (64, 1, 9, 64))


def test_without_triton_it_is_cudnns(monkeypatch):
    monkeypatch.setattr(pallas_triton, "find", lambda: None)
    assert not one_query.fits((512, 256, 3, 64), (512, 1, 9, 64))


def test_a_cache_of_many_slots_takes_it(monkeypatch):
    monkeypatch.setattr(one_query, "FEWEST", 2)
    q, key, value, keys, values = arrays(3, 20, 2, 2, 16)
    places = jnp.asarray([[4], [0], [19]])
    mask = jnp.asarray([[True], [True], [False]])
    cache = cached.Cache(k=(keys,), v=(values,))
    qkv = tuple(x[:, None].astype(jnp.float32) for x in (q, key, value))
    out, buffers = cached.attend(
        cache,
        0,
        qkv,
        places,
        mask,
        kernel="cudnn",
        block=0,
        dtype=jnp.dtype(DTYPE).name,
    )
    where = jnp.asarray([4, 0, one_query.IDLE])
    truth = by_hand(q, key, value, keys, values, np.asarray(where))
    assert out.shape == (3, 1, 4 * 16)
    for ours, other in zip((out[:, 0], *buffers), truth, strict=True):
        ours = np.asarray(ours, np.float64).reshape(other.shape)
        np.testing.assert_allclose(ours, other, atol=CLOSE * np.abs(other).max())
