"""statistics.forecasts: rates and reliability by hand, by a loop, by properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.preference import agreement, pair_ids
from rlcd_jax.statistics import forecasts

CHANCES = st.lists(
    st.tuples(st.floats(0, 1), st.sampled_from([0.0, 0.25, 0.5, 1.0])),
    min_size=1,
    max_size=30,
)


def test_rates_by_hand():
    predicted = [0.9, 0.8, 0.4, 0.5, 0.7, 0.6]
    came = [1.0, 0.9, 1.0, 0.0, 0.2, 0.5]  # the last is neither
    found = forecasts.rates(predicted, came)
    assert found == forecasts.Rates(5, 3 / 5, 3 / 5, 2 / 3, 1 / 2)


def test_rates_of_one_kind_leave_out_the_other():
    assert forecasts.rates([0.9, 0.1], [1.0, 1.0]) == forecasts.Rates(
        2, 1, 0.5, 0.5, None
    )
    assert forecasts.rates([0.9, 0.1], [0.0, 0.5]) == forecasts.Rates(1, 0, 1, None, 1)


def test_reliability_by_hand():
    found = forecasts.reliability([0.05, 0.15, 0.17, 1.0], [0.0, 1.0, 0.0, 1.0])
    filled = [one for one in found.bins if one.num]
    assert [(one.low, one.num, one.observed) for one in filled] == [
        (0.0, 1, 0.0),
        (0.1, 2, 0.5),
        (0.9, 1, 1.0),
    ]
    assert [one.predicted for one in filled] == pytest.approx([0.05, 0.16, 1.0])
    assert found.error == pytest.approx((0.05 + 2 * 0.34 + 0.0) / 4)
    assert found.brier == pytest.approx((0.05**2 + 0.85**2 + 0.17**2) / 4)
    assert (found.bins[0].low, found.bins[-1].high, found.num) == (0.0, 1.0, 4)
    assert found.bins[5] == forecasts.Bin(0.5, 0.6, 0, None, None)


@given(CHANCES)
def test_reliability_is_of_all_forecasts_and_bounded(pairs):
    predicted, came = map(np.array, zip(*pairs, strict=True))
    found = forecasts.reliability(predicted, came)
    assert sum(one.num for one in found.bins) == found.num == len(pairs)
    assert abs(predicted.mean() - came.mean()) - 1e-9 <= found.error <= 1 + 1e-9
    assert found.error**2 <= found.brier + 1e-9  # of means, as Jensen says
    for one in found.bins:
        if one.num:
            assert one.low <= one.predicted + 1e-9 and one.predicted <= one.high + 1e-9
    truth = forecasts.reliability(came, came)
    assert truth.error == pytest.approx(0) and truth.brier == 0


def test_held_out_pairs_are_told_by_rates_and_reliability():
    labels, margins = [1.0, 1.0, 0.0, 0.0, 0.5], [2.0, -1.0, -3.0, 0.0, 4.0]
    rows = [pair_ids.TokenPair((1,), (2,), label) for label in labels]
    held = agreement.HeldOut(
        "direct", "policy", rows, lambda shift, _: np.stack([np.zeros(5), margins], 1)
    )
    assert held.as_summary() == {}
    shown = held.look({"policy": None})
    chances = 1 / (1 + np.exp(-np.array(margins)))
    rest = np.array(labels)
    assert shown == pytest.approx(
        {
            "direct/held_out_loss": -np.mean(
                rest * np.log(chances) + (1 - rest) * np.log(1 - chances)
            ),
            "direct/held_out_accuracy": 2 / 4,  # a tie of the rewards is wrong
            "direct/held_out_label_2_rate": 2 / 4,
            "direct/held_out_predicted_2_rate": 1 / 4,
            "direct/held_out_true_positive_rate": 1 / 2,
            "direct/held_out_false_positive_rate": 0.0,
            "direct/held_out_brier": np.mean((chances - rest) ** 2),
            "direct/held_out_calibration_error": np.mean(np.abs(chances - rest)),
        }
    )
    told = held.as_summary()
    assert told["held_out_accuracy"]["value"] == 0.5
    assert told["held_out_rates"]["num"] == 4
    assert len(told["held_out_calibration"]["bins"]) == forecasts.BINS
    undecided = agreement.HeldOut("direct", "policy", rows[4:], None)
    assert undecided.look({}) == {} and undecided.as_summary() == {}
