"""trainer: batches are cut in parts that divide, or refused."""

import pytest

from rlcd_jax.job import trainer


@pytest.mark.parametrize(
    ("batch", "micro", "ways", "parts"), [(8, 0, 1, 1), (8, 4, 4, 2), (8, 2, 2, 4)]
)
def test_micro_batches_counts_parts(batch, micro, ways, parts):
    assert trainer.micro_batches("x", batch, micro, ways) == parts


@pytest.mark.parametrize(
    ("numbers", "message"),
    [((8, 3, 1), "x.micro_batch=3 does not divide"), ((8, 2, 4), "a multiple of 4")],
)
def test_micro_batches_refuses_what_does_not_divide(numbers, message):
    with pytest.raises(ValueError, match=message):
        trainer.micro_batches("x", *numbers)
