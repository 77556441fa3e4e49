"""A simulation drawn in parts is, byte for byte, the simulation in one piece."""

import itertools
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
import runs

from rlcd_jax import pipeline
from rlcd_jax.job import workspace
from rlcd_jax.pairs import blocks, work_parts
from rlcd_jax.stages import simulate_pairs

FILES = (
    "pairs.jsonl",
    "dropped.jsonl",
    "summary.json",
    "config.json",
    "inputs.json",
    "DONE",
)
ROOT = pathlib.Path(__file__).parents[1]
BLOCKS = 4  # of PROMPTS prompts, the last one smaller
PROMPTS = 14


class Stop(Exception):
    """Stands for whatever kills a process."""


def config_of(name="rlcd", **fields):
    return runs.tiny_config(name, prompts__limit=PROMPTS, **fields)


def draw(config, workdir, text):
    """Draw a part as a command of its own would; return the summary or None."""
    with runs.devices_by_mesh():
        workspace.open_run(config, workdir)
        return simulate_pairs.simulate_part(config, workdir, work_parts.read(text))


def assert_same(one, two):
    for name in FILES:
        whole, merged = ((w / "pairs" / name).read_bytes() for w in (one, two))
        assert whole == merged, name
    left = {path.name for path in (two / "pairs").iterdir()}
    assert left == {*FILES, blocks.LOCK}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run in one piece."""
    workdir = tmp_path_factory.mktemp("parts") / "whole"
    runs.run(config_of(), workdir, "simulate")
    return workdir


@pytest.mark.parametrize("count", [2, 4])
def test_any_number_of_parts_in_any_order_is_the_whole(whole, tmp_path, count):
    config, order = config_of(), list(range(1, count + 1))
    random.Random(count).shuffle(order)
    for number in order[:-1]:
        assert draw(config, tmp_path, f"{number}/{count}") is None
    assert draw(config, tmp_path, f"{order[-1]}/{count}")["pairs"]
    assert_same(whole, tmp_path)
    # Each command again, and one without a part: nothing is left to do.
    before = (tmp_path / "pairs/DONE").stat().st_mtime_ns
    draw(config, tmp_path, f"1/{count}")
    runs.run(config, tmp_path, "simulate")
    assert (tmp_path / "pairs/DONE").stat().st_mtime_ns == before


def test_scored_labels_in_parts_are_the_same_bytes(tmp_path):
    config = config_of("rlaif", pairs__both_orders=True)
    runs.run(config, tmp_path / "whole", "simulate")
    for number in (2, 1):
        draw(config, tmp_path / "parts", f"{number}/2")
    assert_same(tmp_path / "whole", tmp_path / "parts")


def stopping(monkeypatch, calls):
    """Let the simulation of a block fail after so many blocks."""
    simulate, made = simulate_pairs.grid.simulate, []

    def counted(*args, **kwargs):
        if len(made) == calls:
            raise Stop
        made.append(1)
        return simulate(*args, **kwargs)

    monkeypatch.setattr(simulate_pairs.grid, "simulate", counted)
    return made


def test_a_run_says_which_parts_are_not_whole_and_1_of_1_draws_them(
    whole, tmp_path, monkeypatch
):
    config = config_of()
    draw(config, tmp_path, "2/3")
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopping(patch, 1)
        draw(config, tmp_path, "1/3")  # of its two blocks
    with pytest.raises(ValueError) as refused:
        runs.run(config, tmp_path, "simulate")
    text = str(refused.value)
    assert "part 1/3: 1 of 2 blocks, begun\n" in text
    assert "part 3/3: 0 of 1 blocks, never begun\n" in text
    assert "2/3" not in text and "--part=1/1" in text
    made = stopping(monkeypatch, BLOCKS)
    draw(config, tmp_path, "1/1")
    assert len(made) == 2
    assert_same(whole, tmp_path)


def test_a_run_in_one_piece_can_be_finished_in_parts(whole, tmp_path, monkeypatch):
    config = config_of()
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stopping(patch, 1)
        runs.run(config, tmp_path, "simulate")
    made = stopping(monkeypatch, BLOCKS)
    draw(config, tmp_path, "1/2")
    draw(config, tmp_path, "2/2")
    assert len(made) == BLOCKS - 1
    assert_same(whole, tmp_path)


def test_killed_between_mark_and_clean_up_nothing_is_drawn_again(
    whole, tmp_path, monkeypatch
):
    config = config_of()
    with monkeypatch.context() as patch:
        patch.setattr(blocks.shutil, "rmtree", lambda *_, **__: None)
        runs.run(config, tmp_path, "simulate")
    stopping(monkeypatch, 0)
    assert draw(config, tmp_path, "1/2") == draw(config, whole, "1/1")


def test_another_config_in_a_folder_of_parts_is_refused(tmp_path):
    draw(config_of(), tmp_path, "1/2")
    with pytest.raises(ValueError, match="was begun with another config"):
        draw(config_of(seed=7), tmp_path, "2/2")


def test_more_parts_than_blocks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=f"accepted: at most {BLOCKS} parts"):
        draw(config_of(), tmp_path, "1/5")
    assert not (tmp_path / "pairs").exists()


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "a/b", "-1/3", "1/0", "1/2/3", ""])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(ValueError, match="accepted: K/N"):
        work_parts.read(text)


def test_a_part_of_other_stages_is_refused(tmp_path):
    with pytest.raises(ValueError, match="add --stage=simulate"):
        names = ("simulate", "preference")
        pipeline.run_stages(
            config_of(), tmp_path, names, cache_dir="", preset=None, part="1/2"
        )


def test_parts_share_nothing_and_leave_nothing_out():
    items = range(23)
    for count, inner in itertools.product((1, 2, 5), (1, 3)):
        parts = [work_parts.WorkPart(n + 1, count) for n in range(count)]
        own = [p.within(i, inner).of(items) for p in parts for i in range(inner)]
        assert sorted(itertools.chain(*own)) == list(items)
        assert max(map(len, own)) - min(map(len, own)) <= 1


COMMAND = """
import sys
import jax
jax.config.update("jax_compilation_cache_dir", sys.argv[3])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.05)
import test_simulate_parts
test_simulate_parts.draw(test_simulate_parts.config_of(), *map(str, sys.argv[1:3]))
"""


def start(workdir, part):
    """Start a part as a process of its own, with the devices of these tests."""
    import conftest

    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    words = [str(workdir), part, str(conftest.CACHE / "jax")]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *words],
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_processes_that_are_killed_and_started_again_make_the_whole(whole, tmp_path):
    workdir = tmp_path / "run"
    one = start(workdir, "1/2")
    while not list(workdir.glob("pairs/parts/pairs-*")) and one.poll() is None:
        time.sleep(0.01)
    one.send_signal(signal.SIGKILL)
    one.communicate()
    assert not (workdir / "pairs/DONE").exists()
    assert (workdir / "pairs/parts/1-of-2.lock").read_text()  # left behind
    both = [start(workdir, part) for part in ("1/2", "2/2")]
    for process in both:
        error = process.communicate()[1]
        assert process.returncode == 0, error
    assert_same(whole, workdir)
    shutil.rmtree(workdir)
