"""`experiments.run`, in whose preference training the third batch is not finite."""

import pytest
from test_nonfinite import poison

from experiments import run

STEP = 3

if __name__ == "__main__":
    poison(pytest.MonkeyPatch(), STEP)
    run.main()
