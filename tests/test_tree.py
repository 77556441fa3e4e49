import jax
import jax.numpy as jnp
import numpy as np

from rlcd_jax import tree

TREE = {"b": {"x": jnp.ones((2, 3)), "n": jnp.arange(4)}, "a": (jnp.zeros(5),)}


def test_flatten_names_gives_paths_in_tree_order():
    assert list(tree.flatten_names(TREE)) == ["a/0", "b/n", "b/x"]


def test_counts_need_only_shapes():
    abstract = jax.eval_shape(lambda: TREE)
    assert tree.count_params(abstract) == 6 + 4 + 5
    assert tree.count_bytes(abstract) == 4 * (6 + 4 + 5)


def test_cast_leaves_whole_numbers_alone():
    cast = tree.cast(TREE, jnp.bfloat16)
    assert cast["b"]["x"].dtype == cast["a"][0].dtype == jnp.bfloat16
    assert cast["b"]["n"].dtype == TREE["b"]["n"].dtype
    np.testing.assert_array_equal(cast["b"]["n"], TREE["b"]["n"])


def test_difference_names_every_leaf_that_differs():
    found = {"b": {"x": jnp.ones((3, 2)), "m": jnp.zeros(1)}, "a": (jnp.zeros(5),)}
    assert tree.difference(TREE, found) == [
        "b/x has shape (3, 2), expected (2, 3)",
        "missing b/n",
        "unknown b/m",
    ]
    assert tree.difference(TREE, TREE) == []
