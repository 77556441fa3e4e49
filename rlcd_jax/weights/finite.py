"""The check that weights are numbers: one NaN makes every result of a model one."""

from __future__ import annotations

import numpy as np

CHUNK = 2**22  # values looked at at once, so that the check needs no room of its own


def check(values: np.ndarray, what: str, advice: str) -> None:
    """Refuse an array that holds NaN or infinity.

    Args:
      values: of any floating dtype.
      what: the file and the tensor, for the message.
      advice: what to do about it.

    Raises:
      ValueError: it says how many values are not finite.
    """
    flat = values.reshape(-1)
    bad = sum(
        int(np.count_nonzero(~np.isfinite(flat[start : start + CHUNK])))
        for start in range(0, flat.size, CHUNK)
    )
    if bad:
        raise ValueError(
            f"{what}: {bad} of {flat.size} values are not finite (NaN or infinity); "
            f"{advice}"
        )
