"""Made-up rollouts for the tests of losses and of credit."""

import numpy as np

# float32 results of a few dozen terms of size 1 against float64
CLOSE = dict(rtol=1e-5, atol=1e-5)
BATCH, RESPONSE = 4, 6


def make_case(seed=0, lengths=(6, 3, 1, 4)):
    rng = np.random.default_rng(seed)
    shape = (BATCH, RESPONSE)
    names = ("logprobs", "old_logprobs", "advantages", "values", "old_values")
    case = {name: rng.normal(0, 0.4, shape).astype(np.float32) for name in names}
    case["returns"] = rng.normal(0.5, 1, shape).astype(np.float32)
    case["rewards"] = rng.normal(0, 1, shape).astype(np.float32)
    case["mask"] = np.arange(RESPONSE) < np.array(lengths)[:, None]
    return case


def spoil(case, *names):
    """Replace what does not count by junk."""
    return case | {
        name: np.where(case["mask"], case[name], np.float32(1e9)) for name in names
    }
