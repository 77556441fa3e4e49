"""Set up the tests: eight fake CPU devices, a compile cache, the shared fixtures."""

import fcntl
import gc
import os
import pathlib
import shutil
from collections.abc import Iterator

import compiling

os.environ.setdefault("JAX_PLATFORMS", "cpu")
for name, value in compiling.ENVIRONMENT.items():
    os.environ.setdefault(name, value)
if os.environ["JAX_PLATFORMS"] == "cpu":  # another platform's compiler knows others
    own = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{own} {compiling.flags(8)}"

import hypothesis  # noqa: E402
import jax  # noqa: E402  the flags above must be set before the first import
import judged  # noqa: E402
import pytest  # noqa: E402
import runs  # noqa: E402

from rlcd_jax.job import memory_maps  # noqa: E402

CACHE = pathlib.Path(
    os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "rlcd_jax"
)
jax.config.update("jax_compilation_cache_dir", str(CACHE / "jax"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
jax.devices()  # now: a test may set other flags, for its children, before it asks

# What is traced lives on in caches. To look through it for cycles as often as Python
# does by itself takes a fifteenth of the time, and there are few to be found.
gc.set_threshold(50_000, 20, 50)

# The same examples every time: what fails is what a change broke. A machine that is
# busy breaks nothing, and a failure prints what repeats it.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, deadline=None, print_blob=True
)
hypothesis.settings.load_profile("repeatable")


# Files that take half a minute or more, the longest first.
LONG = (
    "test_processes",
    "test_families",
    "test_printed_commands_run",
    "test_learning",
    "test_reproduce",
    "test_tasks_by_size",
    "test_plan_live",
    "test_checks",
    "test_mesh",
    "test_launching",
    "test_mesh_shapes",
    "test_stages",
    "test_plan",
    "test_topology",
    "test_reproduce_graph",
    "test_resuming",
    "test_methods",
    "test_packing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, so that at the end no worker is idle."""
    rank = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(LONG)))


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Drop the programs of past files before they take all memory maps there are."""
    if nextitem is None or nextitem.path != item.path:
        memory_maps.drop_programs_if_many()


def _run_once(folder: pathlib.Path) -> pathlib.Path:
    """Make the run of ``finished_run`` in a folder, or wait for who makes it."""
    folder.mkdir(exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            runs.run(runs.tiny_config(), folder / "run")
            (folder / "whole").touch()
    return folder / "run"


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> pathlib.Path:
    """Return the workdir of a whole smoke run, all five stages; leave it as it is.

    Under pytest-xdist one worker makes it, and each of the others has a copy.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return _run_once(base / "finished")
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    shutil.copytree(_run_once(base.parent / "finished"), workdir)
    return workdir


@pytest.fixture
def server(monkeypatch) -> Iterator:
    """Serve answers of a script on this machine, for the API judge."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with judged.serving() as one:
        yield one
