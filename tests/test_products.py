"""Products cast their operands, forwards and backwards, and accumulate in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlcd_jax.models import products


def arrays(*shapes):
    return [jax.random.normal(jax.random.key(i), s) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 4, 5, 3)])
def test_product_is_x_times_weight_transposed(shape):
    x, weight = arrays(shape, (6, 3))
    found = products.product(x, weight, "float32")
    np.testing.assert_allclose(found, np.asarray(x) @ np.asarray(weight).T, atol=1e-6)


@pytest.mark.parametrize("shape", [(7,), (1, 7), (1, 1, 7)])
def test_a_lone_row_is_multiplied_as_one_of_two(shape):
    """In bfloat16 on CPUs; to the last bit, so that nobody sees who sat beside it."""
    x, weight = arrays(shape, (6, 7))
    two = jnp.stack([x.reshape(-1), jnp.ones(7)])
    for dtype in ("bfloat16", "float32"):
        alone = products.product(x, weight, dtype)
        assert alone.shape == (*shape[:-1], 6)
        beside = products.product(two, weight, dtype)[0]
        close = 0 if dtype == "bfloat16" else 1e-6
        np.testing.assert_allclose(alone.reshape(-1), beside, rtol=0, atol=close)


def test_product_rounds_operands_and_not_the_sum():
    x = jnp.array([[1.0 + 2**-10, 2.0**-12]])
    weight = jnp.array([[1.0, 1.0]])
    # bfloat16 rounds 1 + 2^-10 to 1; the sum 1 + 2^-12 needs float32.
    found = products.product(x, weight, "bfloat16")
    assert found.dtype == jnp.float32 and float(found[0, 0]) == 1.0 + 2**-12


@pytest.mark.parametrize(
    "spec", ["btkgh,bskh->bkgts", "bkgts,bskh->btkgh", "btd,gfd->gbtf"]
)
def test_contract_gradient_equals_einsum(spec):
    sizes = dict(zip("btskghdf", (2, 3, 4, 2, 3, 5, 6, 7), strict=True))
    left, right = (
        jax.random.normal(jax.random.key(i), [sizes[x] for x in part])
        for i, part in enumerate(spec.split("->")[0].split(","))
    )

    def ours(left, right):
        return jnp.sum(jnp.sin(products.contract(spec, left, right, "float32")))

    def plain(left, right):
        return jnp.sum(jnp.sin(jnp.einsum(spec, left, right, precision="highest")))

    for one, other in zip(
        jax.grad(ours, (0, 1))(left, right),
        jax.grad(plain, (0, 1))(left, right),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_gradient_has_the_dtype_of_its_operand_and_a_rounded_cotangent():
    x, weight = arrays((2, 3), (4, 3))
    half = weight.astype(jnp.bfloat16)

    def loss(x, weight):
        return jnp.sum(products.product(x, weight, "bfloat16") * (1.0 + 2**-10))

    d_x, d_weight = jax.grad(loss, (0, 1))(x, half)
    assert d_x.dtype == jnp.float32 and d_weight.dtype == jnp.bfloat16
    want = np.asarray(half, np.float32).sum(0)  # 1 + 2^-10 became 1
    np.testing.assert_allclose(d_x, np.stack([want, want]), rtol=1e-6)


def test_float32_products_ask_for_full_precision():
    assert products.precision("float32") == jax.lax.Precision.HIGHEST
    assert products.precision("bfloat16") is None
