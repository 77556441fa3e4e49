"""Set up JAX for the tests: eight fake CPU devices and a persistent compile cache."""

import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax  # noqa: E402  the flags above must be set before the first import
import pytest  # noqa: E402
import runs  # noqa: E402

CACHE = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "rlcd_jax"
)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
    """Return the workdir of a whole smoke run, all five stages; leave it as it is."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    runs.run(runs.tiny_config(), workdir)
    return workdir
