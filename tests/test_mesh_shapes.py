"""Every mesh of eight devices gives the losses and tokens of one device.

Heads are SmolLM2's nine of three, which most tensor sizes do not divide, and eight of
eight. The shapes below split each axis; all twenty, of both models, are compared by
`pytest -m "" tests/test_mesh_shapes.py`, in some twenty minutes of one core.

float32 products are summed in another order on each mesh: a loss moves by some 1e-6 of
its size, and the loss of the second update by what Adam makes of that in gradients that
are near zero.
"""

import functools
import itertools

import mesh_world as world
import numpy as np
import pytest

ONE = (1, 1, 1, 1)
IN_SUITE = {("grouped", (2, 1, 2, 2)), ("grouped", (1, 2, 1, 4))}
CASES = [
    pytest.param(*case, marks=() if case in IN_SUITE else pytest.mark.whole)
    for case in itertools.product(world.MODELS, world.shapes())
]


@functools.cache
def on_one_device(model):
    return world.everything(world.make_job(ONE, model))


def test_shapes_are_all_products_of_eight():
    found = list(world.shapes())
    assert len(found) == len(set(found)) == 20
    assert {np.prod(shape) for shape in found} == {8}


@pytest.mark.parametrize(("model", "shape"), CASES)
def test_mesh_gives_what_one_device_gives(model, shape):
    assert_same(world.everything(world.make_job(shape, model)), on_one_device(model))


def test_numbers_of_a_device_change_no_result():
    job = world.make_job(ONE, "grouped", slots=3, model__chunk_tokens=8)
    assert job.chunk_tokens == 8
    assert_same(world.everything(job, ["distill"]), on_one_device("grouped"))


def test_decode_weights_that_fsdp_splits_change_no_reply():
    job = world.make_job((1, 2, 2, 2), "grouped", engine__weights="split")
    policy = world.make_policy(job)
    assert world.greedy(job, policy) == on_one_device("grouped")["replies"]


def assert_same(found, wanted):
    assert found.keys() <= wanted.keys()
    assert found["replies"] == wanted["replies"]
    np.testing.assert_allclose(found["logits"], wanted["logits"], rtol=0, atol=1e-4)
    for name in found.keys() - {"replies", "logits"}:
        np.testing.assert_allclose(
            found[name], wanted[name], rtol=2e-4, atol=1e-5, err_msg=name
        )
