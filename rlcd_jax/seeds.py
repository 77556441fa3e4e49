"""Seeds: every random decision is a function of the root seed and of its name."""

import hashlib
import json
import operator

# --- keys -----------------------------------------------------------------------------


def _digest(root_seed: int, parts: tuple[str | int, ...]) -> bytes:
    typed = [p if isinstance(p, str) else operator.index(p) for p in parts]
    text = json.dumps([operator.index(root_seed), *typed])
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def seed_words(root_seed: int, *parts: str | int) -> tuple[int, int]:
    """Return two uint32 words, a function of the arguments on every platform.

    They are the raw key of one random decision. The parts say which decision it is:
    (phase, prompt id or step, side, try). `1` and `"1"` are different parts.
    """
    digest = _digest(root_seed, parts)
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def seed_choice(num: int, root_seed: int, *parts: str | int) -> int:
    """Return a uniform index in [0, num) that the same parts always give again.

    Raises:
      ValueError: there is nothing to choose from.
    """
    if num < 1:
        raise ValueError(f"there are {num} things to choose from; accepted: 1 or more")
    return int.from_bytes(_digest(root_seed, parts), "little") % num
