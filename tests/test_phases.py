"""Phases of a step add up, compilations apart, and end in rows, summaries and report."""

import json
import threading

import jax
import jax.numpy as jnp
import pytest

from rlcd_jax import metrics, phases
from rlcd_jax.job import logs, rates
from rlcd_jax.models import presets
from rlcd_jax.training import packing


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def test_phases_within_phases_add_up_to_the_step(clock):
    one = phases.Phases(clock)
    with one.phase("generate"):
        clock.wait(2)
        with one.phase("score"):
            clock.wait(3)
        clock.wait(1)
    clock.wait(0.5)
    with one.phase("score"):
        clock.wait(4)
    assert one.take() == {
        "time/generate_seconds": 3.0,
        "time/score_seconds": 7.0,
        "time/other_seconds": 0.5,
        "time/step_seconds": 10.5,
    }
    clock.wait(1)
    assert one.take() == {"time/other_seconds": 1.0, "time/step_seconds": 1.0}


def test_a_whole_phase_holds_those_within(clock):
    one = phases.Phases(clock)
    with one.phase("dev", whole=True):
        with one.phase("generate"), one.phase("load"):
            clock.wait(2)
        clock.wait(1)
    assert phases.of(one.take()) == {"dev": 3.0, "other": 0.0}


def test_compiling_is_taken_from_its_phase_once(clock):
    one = phases.Phases(clock)
    clock.wait(1)
    with one.phase("update"):
        with one.phase("batch"):
            clock.wait(2)
            one.compiled(0.5)  # an inner trace
            clock.wait(1)
            one.compiled(2.0)  # the outer, which holds it
            clock.wait(3)
        clock.wait(1)
    spent = phases.of(one.take())
    assert spent == {"batch": 4.0, "update": 1.0, "compile": 2.0, "other": 1.0}


def test_what_fails_within_a_phase_leaves_it(clock):
    one = phases.Phases(clock)
    with pytest.raises(ValueError), one.phase("update"), one.phase("read"):
        clock.wait(1)
        raise ValueError
    assert phases.of(one.take())["read"] == 1.0
    with one.phase("update"), pytest.raises(RuntimeError, match="phases update"):
        one.take()


def test_other_threads_and_a_begin_within_count_nothing(clock):
    one = phases.Phases(clock)

    def beside():
        with one.phase("generate"):
            clock.wait(5)
        one.compiled(5.0)

    thread = threading.Thread(target=beside)
    thread.start()
    thread.join()
    with one.phase("update"):
        clock.wait(1)
        one.begin()
        clock.wait(2)
    assert one.take() == {"time/other_seconds": 2.0, "time/step_seconds": 2.0}


def test_what_jax_compiles_is_counted():
    with logs.compilations_shown():
        phases.begin()
        with phases.phase("update"):
            number = 2.0 + threading.get_ident() % 1000  # a program of its own
            jax.jit(lambda x: jnp.sin(x) * number)(jnp.ones(3)).block_until_ready()
        spent = phases.of(phases.take())
    assert spent["compile"] > 0
    assert set(spent) == {"compile", "update", "other"}


def test_clocks_are_known_by_their_names():
    taken = {phases.metric("update"): 2.0, rates.TOKENS: 1.0, rates.TFLOPS: 1.0}
    assert all(map(metrics.is_clock, taken))
    assert not metrics.is_clock("rate/useful_tokens")
    assert metrics.without_clocks({**taken, "policy/loss": 1.0}) == {"policy/loss": 1.0}


def test_rates_are_of_the_update_alone():
    taken = {"time/update_seconds": 2.0, "time/compile_seconds": 50.0}
    shown = rates.of_updates(taken, tokens=300, flops=4e12)
    assert shown == {"rate/tokens_per_second": 150.0, "rate/model_tflops": 2.0}
    assert rates.of_updates({"time/other_seconds": 1.0}, tokens=300, flops=4e12) == {}


def test_operations_of_an_update_by_hand():
    cfg = presets.get_preset("tiny")
    text = packing.Text(range(5), wanted=(3, 4), unseen=7)
    heads, width, vocab = cfg.num_heads, cfg.head_dim, cfg.vocab_size
    model, wide = cfg.embed_dim, cfg.mlp_dim
    weights = model * width * (2 * heads + 2 * cfg.num_kv_heads) + 3 * model * wide
    layer = 2 * weights + 4 * heads * width * 5
    forward = cfg.num_layers * layer * 5 + 2 * vocab * model * 2
    assert rates.update_flops(cfg, [text], adapted=False) == 3 * forward
    assert rates.update_flops(cfg, [text, text], adapted=True) == 4 * forward


def test_sums_of_rows_and_names():
    rows = [{"time/a_seconds": 1.0, "loss": 3.0}, {"time/a_seconds": 2.0}]
    assert phases.added(rows) == {"time/a_seconds": 3.0}
    json.dumps(phases.added(rows))
