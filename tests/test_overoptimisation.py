"""overoptimisation: points of a run, its warnings, the rule for a checkpoint."""

import dataclasses
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from scipy import stats

from rlcd_jax.ppo import overoptimisation
from rlcd_jax.statistics import estimates, tables

LIMITS = overoptimisation.Limits()


def points(num=10, **curves):
    steps = range(1, num + 1)
    return [
        overoptimisation.Point(
            step=step, **{name: curve[step - 1] for name, curve in curves.items()}
        )
        for step in steps
    ]


def around(mean, num=16, spread=0.1):
    """Scores with exactly this mean."""
    return tuple(mean + spread * (-1) ** i for i in range(num))


def kinds(told):
    return [(w.kind, w.step) for w in told]


def test_watch_points_joins_metrics_and_samples():
    rows = [
        {
            "stage": "policy",
            "step": step,
            "rollout/reward_mean": 0.1 * step,
            "rollout/kl_sum_mean": 1.0 * step,
            "rollout/response_length_mean": 20,
            "rollout/entropy": 3.0,
        }
        for step in (1, 2, 3)
    ]
    samples = {
        2: [
            {"prompt": "p", "reply": "one two three"},
            {"prompt": "p", "reply": "four"},
        ],
        3: [{"prompt": "p", "reply": "one one one one one"}],
    }
    told = overoptimisation.watch_points(
        rows, samples, lambda texts: [len(reply) for _, reply in texts]
    )
    assert [p.step for p in told] == [1, 2, 3]
    assert told[0] == overoptimisation.Point(1, 0.1, 1.0, 20.0, 3.0)
    assert told[1].held_out == (13.0, 4.0) and told[1].prompts == ("p", "p")
    assert told[1].distinct_2 == 1.0
    assert told[2].distinct_2 == 1 / 3  # of the first four words
    without = overoptimisation.watch_points([], samples, None)
    assert [p.step for p in without] == [2, 3] and without[0].held_out == ()
    assert without[0].score is None


def test_warnings_of_a_healthy_run_are_none():
    told = points(
        score=np.linspace(0, 2, 10),
        held_out=[around(m) for m in np.linspace(0, 1, 10)],
        entropy=np.linspace(3, 2, 10),
        distinct_2=[0.8] * 10,
        length=np.linspace(40, 50, 10),
    )
    assert overoptimisation.warnings(told, LIMITS) == []
    assert overoptimisation.warnings([], LIMITS) == []


def test_warnings_name_the_step_where_the_judge_has_fallen():
    judge = [0.0, 0.2, 0.5, 0.6, 0.58, 0.5, 0.3, 0.2, 0.1, 0.0]
    told = points(score=np.linspace(0, 2, 10), held_out=[around(m) for m in judge])
    # The error of each mean is 0.1 sqrt(16/15) / 4, so of a difference 0.0365.
    error = math.hypot(*[stats.sem(around(0.0))] * 2)
    assert 0.6 - 0.58 < 2 * error < 0.6 - 0.5
    (warned,) = overoptimisation.warnings(told, LIMITS)
    assert (warned.kind, warned.step) == ("score_up_judge_down", 6)
    assert "from 0.6 at step 4 to 0.5" in warned.detail
    down = points(score=np.linspace(2, 0, 10), held_out=[around(m) for m in judge])
    assert overoptimisation.warnings(down, LIMITS) == []  # the score fell too
    noisy = points(
        score=np.linspace(0, 2, 10), held_out=[around(m, spread=2) for m in judge]
    )
    assert overoptimisation.warnings(noisy, LIMITS) == []
    paired = points(
        score=np.linspace(0, 2, 10),
        held_out=[around(m, spread=2) for m in judge],
        prompts=[tuple(map(str, range(16)))] * 10,
    )  # every reply fell alike, so the difference has no noise
    assert kinds(overoptimisation.warnings(paired, LIMITS)) == [
        ("score_up_judge_down", 5)
    ]
    single = points(score=np.linspace(0, 2, 10), held_out=[(m,) for m in judge])
    assert overoptimisation.warnings(single, LIMITS) == []  # no error can be known


@pytest.mark.parametrize("name", ["entropy", "distinct_2"])
def test_warnings_of_a_collapse(name):
    curve = [2.0] * 5 + [0.4] * 5  # means of three: 1.47 at step 6, 0.93 at step 7
    told = overoptimisation.warnings(points(**{name: curve}), LIMITS)
    assert kinds(told) == [(f"{name}_collapse", 7)]
    one_low = [2.0] * 5 + [0.1] + [2.0] * 4
    assert overoptimisation.warnings(points(**{name: one_low}), LIMITS) == []


def test_warnings_of_length_go_both_ways():
    for end, warns in ((100.0, True), (50.0, False), (10.0, True), (30.0, False)):
        curve = [40.0] * 5 + [end] * 5
        told = overoptimisation.warnings(points(length=curve), LIMITS)
        assert bool(told) is warns, end


def test_warnings_with_sparse_curves():
    told = points(length=[40.0, None, None, None, None, None, None, None, None, 90.0])
    assert kinds(overoptimisation.warnings(told, LIMITS)) == [("length_drift", 10)]


CANDIDATES = st.lists(
    st.builds(
        overoptimisation.Candidate,
        st.integers(1, 99),
        st.sampled_from([0.0, 0.5, 1.0]),
        st.sampled_from([0.0, 5.0, 10.0, 20.0]),
    ),
    unique_by=lambda c: c.step,
    max_size=8,
)


@hypothesis.given(CANDIDATES, st.sampled_from([-1.0, 5.0, 12.0, math.inf]))
def test_choose_checkpoint_obeys_its_rule(candidates, limit):
    chosen = overoptimisation.choose_checkpoint(candidates, kl_limit=limit)
    near = [c for c in candidates if c.kl <= limit]
    if not near:
        assert isinstance(chosen, estimates.Missing)
        return
    best = max(c.dev_score for c in near)
    assert chosen in near and chosen.dev_score == best
    assert chosen.step == min(c.step for c in near if c.dev_score == best)


def test_choose_checkpoint_ignores_what_is_too_far():
    told = [
        overoptimisation.Candidate(step, score, kl)
        for step, score, kl in ((20, 1.0, 3.0), (40, 1.5, 8.0), (60, 2.5, 30.0))
    ]
    assert overoptimisation.choose_checkpoint(told, kl_limit=10.0).step == 40
    assert overoptimisation.choose_checkpoint(told, kl_limit=math.inf).step == 60
    missing = overoptimisation.choose_checkpoint(told, kl_limit=1.0)
    assert "within KL 1" in missing.reason and "at 3 nats" in missing.reason
    with pytest.raises(ValueError, match="each once"):
        overoptimisation.choose_checkpoint(told + told[:1], kl_limit=1.0)
    with pytest.raises(ValueError, match="finite"):
        dataclasses.replace(told[0], kl=math.nan)


def test_watch_table_interval_is_students():
    scores = (0.1, 0.4, 0.2, 0.9)
    told = points(2, score=[0.1, 0.2], held_out=[scores, (0.5,)])
    table = overoptimisation.watch_table(told, [], judge="lexicon")
    cell = table.rows[0][1][1]
    low, high = stats.t.interval(0.95, 3, np.mean(scores), stats.sem(scores))
    assert (cell.low, cell.high) == pytest.approx((low, high))
    text = tables.markdown(table)
    assert "one reply is too few" in text and "not recorded" in text
    assert "No warning." in text


def test_watch_table_thins_rows_and_keeps_the_last():
    told = points(10, score=[0.0] * 10)
    warned = [overoptimisation.Warned("length_drift", 7, "length went")]
    table = overoptimisation.watch_table(told, warned, judge=None, every=4)
    assert [name for name, _ in table.rows] == ["1", "5", "9", "10"]
    assert "Warning, step 7: length_drift" in tables.markdown(table)
