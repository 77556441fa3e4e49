"""appendix_n: against the paper's figures and against simulation."""

import dataclasses
import math

import numpy as np
import pytest
from scipy import stats

from rlcd_jax.paper import appendix_n


def test_rlaif_accuracy_is_the_papers():
    assert appendix_n.rlaif_accuracy(1.0, 1.0) == pytest.approx(0.75, abs=1e-15)
    hard = appendix_n.predict(3.0, 1.0, 1.0, 0.2).rlaif_hard
    assert hard == pytest.approx(0.5281, abs=5e-5)


def test_rlaif_accuracy_has_the_right_ends():
    assert appendix_n.rlaif_accuracy(1.0, 0.0) == 1.0
    assert appendix_n.rlaif_accuracy(1.0, math.inf) == 0.5


@pytest.mark.parametrize(
    "shift, hard, overall",
    [
        (0, 0.5000, 0.5000),
        (1, 0.5249, 0.7602),
        (2, 0.5498, 0.9214),
        (3, 0.5743, 0.9831),
        (4, 0.5985, 0.9977),
    ],
)
def test_rlcd_accuracy_is_the_papers(shift, hard, overall):
    assert appendix_n.rlcd_hard_accuracy(shift, 1.0, 0.2) == pytest.approx(
        hard, abs=5e-5
    )
    assert appendix_n.rlcd_accuracy(shift, 1.0) == pytest.approx(overall, abs=5e-5)


def test_hard_share_is_the_papers():
    assert appendix_n.hard_share(3.0, 1.0, 0.2) == pytest.approx(0.0120, abs=5e-5)
    assert appendix_n.hard_share(0.0, 1.0, 0.2) == pytest.approx(0.1125, abs=5e-5)


def test_rlcd_hard_accuracy_holds_for_far_shifts():
    assert appendix_n.rlcd_hard_accuracy(-3.0, 1.0, 0.2) == pytest.approx(
        1.0 - appendix_n.rlcd_hard_accuracy(3.0, 1.0, 0.2)
    )
    # Far out the density falls as exp(-shift d / s^2), so the odds are exp(shift h / s^2).
    odds = math.exp(200.0 * 0.2 / 2.0)
    far = appendix_n.rlcd_hard_accuracy(200.0, 1.0, 0.2)
    assert far == pytest.approx(odds / (1 + odds), rel=1e-6)


def test_rescore_accuracy_without_shift_is_rlaif():
    for scorer in (0.3, 1.0, 5.0):
        assert appendix_n.rescore_accuracy(0.0, 1.0, scorer) == pytest.approx(
            appendix_n.rlaif_accuracy(1.0, scorer), abs=1e-9
        )


@pytest.mark.parametrize("shift", [0.0, 1.0, 4.0, 40.0])
def test_rescore_accuracy_matches_orthant_probability(shift):
    generator, scorer = 0.7, 1.3
    cov = 2 * np.array(
        [[generator**2, generator**2], [generator**2, generator**2 + scorer**2]]
    )
    orthants = [
        stats.multivariate_normal([m, m], cov).cdf([0.0, 0.0]) for m in (shift, -shift)
    ]
    assert appendix_n.rescore_accuracy(shift, generator, scorer) == pytest.approx(
        sum(orthants), abs=1e-6
    )


def test_rescore_accuracy_with_wide_bound_takes_all_pairs():
    every = appendix_n.rescore_accuracy(1.5, 1.0, 2.0)
    assert appendix_n.rescore_accuracy(1.5, 1.0, 2.0, 60.0) == pytest.approx(
        every, abs=1e-9
    )
    assert appendix_n.rescore_accuracy(1.5, 1.0, 2.0, 1e6) == pytest.approx(
        every, abs=1e-9
    )
    far = appendix_n.rescore_accuracy(100.0, 1.0, 1.0, 0.2)
    assert 0.5 < far < 0.56  # at most Phi(0.2 / sqrt 2)


@pytest.mark.parametrize("values", [(3.0, 1.0, 1.0, 0.2), (0.8, 0.5, 2.0, 0.3)])
def test_predict_matches_simulation(values):
    predicted = dataclasses.asdict(appendix_n.predict(*values))
    shares, errors = appendix_n.simulate(*values, trials=1_500_000, seed=1)
    for name, value in predicted.items():
        assert abs(value - getattr(shares, name)) < 4.5 * getattr(errors, name), name


def test_noise_on_the_difference_is_not_the_papers_model():
    assert appendix_n.rlaif_accuracy(1.0, math.sqrt(0.5)) == pytest.approx(
        0.804, abs=5e-4
    )


def test_break_even_shift_makes_both_methods_equal():
    shift = appendix_n.break_even_shift(0.7, 1.9)
    assert appendix_n.rlcd_accuracy(shift, 0.7) == pytest.approx(
        appendix_n.rlaif_accuracy(0.7, 1.9)
    )


def test_fits_find_what_made_the_numbers():
    rng = np.random.default_rng(0)
    differences = 1.2 + rng.normal(0, 0.4, 40_000) - rng.normal(0, 0.4, 40_000)
    shift, sigma = appendix_n.fit_generator(differences)
    assert shift == pytest.approx(1.2, abs=0.01) and sigma == pytest.approx(
        0.4, abs=0.01
    )
    for scorer in (0.0, 0.2, 3.0):
        agreement = appendix_n.rlaif_accuracy(0.4, scorer)
        assert appendix_n.fit_scorer(agreement, 0.4) == pytest.approx(scorer, abs=1e-12)
    assert (
        appendix_n.fit_scorer(0.5, 1.0) == appendix_n.fit_scorer(0.36, 1.0) == math.inf
    )
    assert appendix_n.predict(1.0, 1.0, math.inf, 0.2).rescore == pytest.approx(0.5)


def test_errors_name_the_value():
    with pytest.raises(ValueError, match="sigma_generator .* got 0"):
        appendix_n.rlaif_accuracy(0, 1)
    with pytest.raises(ValueError, match="agreement"):
        appendix_n.fit_scorer(1.1, 1.0)
    with pytest.raises(ValueError, match="differences"):
        appendix_n.fit_generator([1.0])
