"""Rectangles of ids: padding, positions, the response slice."""

import numpy as np
import pytest

from rlcd_jax.ppo import packing


def _pack(prompts, replies, pad_id=0):
    return packing.pack(
        prompts, replies, prompt_length=4, response_length=3, pad_id=pad_id
    )


def test_pack_by_hand():
    packed = _pack([[5, 6], [5, 6, 7, 8]], [[1, 2, 3], [4]])
    np.testing.assert_array_equal(
        packed.tokens, [[0, 0, 5, 6, 1, 2, 3], [5, 6, 7, 8, 4, 0, 0]]
    )
    np.testing.assert_array_equal(
        packed.positions, [[0, 0, 0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 4, 4]]
    )
    np.testing.assert_array_equal(packed.prompt_mask, [[0, 0, 1, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(packed.response_mask, [[1, 1, 1], [1, 0, 0]])
    np.testing.assert_array_equal(
        packed.mask, [[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0, 0]]
    )
    np.testing.assert_array_equal(packed.response_tokens, [[1, 2, 3], [4, 0, 0]])
    assert packed.tokens.dtype == packed.positions.dtype == np.int32
    assert packed.prompt_mask.dtype == packed.response_mask.dtype == bool


def test_pack_masks_ignore_which_id_pads():
    prompts, replies = [[9, 5, 9]], [[1, 9]]  # 9: end of sequence, used as pad too
    same, other = _pack(prompts, replies, pad_id=9), _pack(prompts, replies, pad_id=0)
    for name in ("positions", "prompt_mask", "response_mask"):
        np.testing.assert_array_equal(getattr(same, name), getattr(other, name))
    np.testing.assert_array_equal(same.response_mask, [[True, True, False]])


def test_pack_errors_name_the_row_and_the_numbers():
    with pytest.raises(ValueError, match="prompt 1 has 5 tokens.*prompt_length = 4"):
        _pack([[1], [1, 2, 3, 4, 5]], [[1], [1]])
    with pytest.raises(ValueError, match="reply 0 has 4 tokens.*reply_length = 3"):
        _pack([[1]], [[1, 2, 3, 4]])
    with pytest.raises(ValueError, match="2 prompts but 1 replies"):
        _pack([[1], [2]], [[1]])
    with pytest.raises(ValueError, match="prompt 1 has no token"):
        _pack([[1], []], [[1], [1]])


def test_response_slice_is_the_position_before_each_response_token():
    packed = _pack([[5, 6], [5, 6, 7, 8]], [[1, 2, 3], [4]])
    # A state that tells which position it belongs to.
    states = np.broadcast_to(np.arange(7)[None, :, None], (2, 7, 2))
    sliced = packing.response_slice(states, prompt_length=4)
    assert sliced.shape == (2, 3, 2)
    np.testing.assert_array_equal(sliced[0, :, 0], [3, 4, 5])
    # The token that follows the state is the response token.
    following = np.asarray(packed.tokens)[:, sliced[0, :, 0] + 1]
    np.testing.assert_array_equal(following, packed.response_tokens)
    with pytest.raises(ValueError, match="prompt_length is 7"):
        packing.response_slice(states, prompt_length=7)
