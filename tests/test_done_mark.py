"""done_mark: a finished stage is skipped, or the difference is named."""

import pytest

from rlcd_jax import done_mark


def test_done_mark_skips_or_names_the_difference(tmp_path):
    config = {"ppo": {"lr": 1e-5, "layers": (1, 2)}, "task": "harmless"}
    assert not done_mark.check_done(tmp_path, config)
    with pytest.raises(ValueError, match="run that stage first"):
        done_mark.read_summary(tmp_path)
    done_mark.mark_done(tmp_path, config, {"pairs": 3})
    reordered = {"task": "harmless", "ppo": {"layers": [1, 2], "lr": 1e-5}}
    assert done_mark.check_done(tmp_path, reordered)
    assert done_mark.read_summary(tmp_path) == {"pairs": 3}
    with pytest.raises(ValueError) as error:
        done_mark.check_done(
            tmp_path,
            {"ppo": {"lr": 3e-5, "layers": [1, 2]}, "task": "harmless", "x": 1},
        )
    assert "ppo.lr: was 1e-05, now 3e-05" in str(error.value)
    assert "x: was absent, now 1" in str(error.value)
    assert "task" not in str(error.value)
