"""label_noise: the calculator on pairs of known gap and noise, Appendix N's table."""

import dataclasses
import math

import numpy as np
import pytest

from rlcd_jax.diagnosis import label_noise
from rlcd_jax.paper import appendix_n, appendix_n_table
from rlcd_jax.statistics import estimates, tables

MADE = {"shift": 0.8, "sigma_generator": 0.5, "sigma_scorer": 0.9}


def judged(kind, num=8000, seed=0, *, scorer=True, **changes):
    """Pairs of the paper's model with the truth as the trusted judge."""
    made = {**MADE, **changes}
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, made["sigma_generator"], (2, num))
    truth[0] += made["shift"] if kind == "contrast" else 0.0
    seen = truth + rng.normal(0, made["sigma_scorer"], truth.shape)
    return [
        label_noise.JudgedPair(
            f"{kind}{i}",
            kind == "contrast",
            truth[0, i] - truth[1, i],
            float(seen[0, i] > seen[1, i]) if scorer else None,
        )
        for i in range(num)
    ]


@pytest.mark.parametrize("kinds", [("contrast",), ("contrast", "same")])
def test_fit_finds_what_made_the_pairs(kinds):
    pairs = [p for kind in kinds for p in judged(kind)]
    fitted = label_noise.fit(pairs)
    # Standard errors: shift 0.008, spread 0.004, noise about 3 %.
    assert fitted.shift == pytest.approx(0.8, abs=0.03)
    assert fitted.sigma_generator == pytest.approx(0.5, abs=0.015)
    assert fitted.sigma_scorer == pytest.approx(0.9, rel=0.12)
    assert fitted.scorer_from == ("same-prompt" if "same" in kinds else "contrast")


def test_predicted_agrees_with_measured_and_with_theory():
    pairs = judged("contrast") + judged("same", seed=1)
    foretold = label_noise.predicted(label_noise.fit(pairs))
    found = label_noise.measured(pairs, 0.999)
    exact = appendix_n.predict(*MADE.values(), 0.2)
    for name, truth in (
        ("RLCD", exact.rlcd),
        ("RLAIF", exact.rlaif),
        ("Rescore", exact.rescore),
    ):
        assert found[name].low < truth < found[name].high
        assert foretold[name] == pytest.approx(truth, abs=0.02)


def test_fit_names_what_is_missing():
    only = label_noise.fit(judged("contrast", scorer=False))
    assert isinstance(only.sigma_scorer, estimates.Missing)
    foretold = label_noise.predicted(only)
    assert isinstance(foretold["RLCD"], float)
    assert "scored label" in foretold["RLAIF"].reason
    assert foretold["Rescore"] == foretold["RLAIF"]
    same = label_noise.fit(judged("same"))
    assert same.shift == estimates.Missing("no contrast pairs")
    assert isinstance(label_noise.predicted(same)["RLAIF"], float)
    still = [label_noise.JudgedPair(str(i), True, 0.0, None) for i in range(3)]
    assert "equal scores" in label_noise.fit(still).sigma_generator.reason
    assert "fewer than two" in label_noise.fit([]).sigma_generator.reason


def test_rescore_noise_inverts_the_closed_form():
    for shift, sigma in ((0.0, 1.0), (0.8, 0.5), (-2.0, 0.1), (30.0, 2.0)):
        for noise in (0.05, 1.0, 7.0):
            accuracy = appendix_n.rescore_accuracy(shift, sigma, noise)
            if accuracy < 1.0 - 1e-9:
                found = label_noise.rescore_noise(accuracy, shift, sigma)
                assert found == pytest.approx(noise, rel=1e-4), (shift, sigma)
    assert label_noise.rescore_noise(0.5, 1.0, 1.0) == math.inf
    assert label_noise.rescore_noise(0.3, 1.0, 1.0) == math.inf
    assert label_noise.rescore_noise(1.0, 1.0, 1.0) == 0.0
    with pytest.raises(ValueError, match="agreement"):
        label_noise.rescore_noise(1.2, 1.0, 1.0)


def test_rescore_noise_without_shift_is_the_fit_of_rlaif():
    for agreement in (0.55, 0.7, 0.9):
        assert label_noise.rescore_noise(agreement, 0.0, 0.6) == pytest.approx(
            appendix_n.fit_scorer(agreement, 0.6), rel=1e-6
        )


def test_measured_leaves_undecided_pairs_out():
    made = [(1.0, 0.9), (1.0, 0.1), (-1.0, 0.1), (0.0, 0.9), (1.0, 0.5), (2.0, None)]
    pairs = [label_noise.JudgedPair(str(i), True, *m) for i, m in enumerate(made)]
    found = label_noise.measured(pairs, 0.95)
    assert (found["Rescore"].value, found["Rescore"].num) == (2 / 3, 3)
    assert (found["RLCD"].value, found["RLCD"].num) == (4 / 5, 5)
    assert isinstance(found["RLAIF"], estimates.Missing)
    draws = [dataclasses.replace(p, prompt_id="p") for p in pairs]
    together = label_noise.measured(draws, 0.95)["RLCD"]  # draws of one prompt
    assert (together.value, together.num) == (4 / 5, 1)


def test_run_table_intervals_hold_the_truth():
    pairs = judged("contrast", 1500) + judged("same", 1500, seed=1)
    table = label_noise.run_table(pairs, judge="truth", seed=0, level=0.99)
    exact = appendix_n.predict(*MADE.values(), 0.2)
    for (name, cells), truth in zip(
        table.rows, (exact.rlcd, exact.rlaif, exact.rescore), strict=True
    ):
        assert cells[0].low < truth < cells[0].high, name
        assert cells[0].high - cells[0].low < 0.12
    assert "units of truth: shift 0.8" in tables.markdown(table)
    few = label_noise.run_table(pairs[:1], judge="truth", seed=0)
    assert all(isinstance(cells[0], estimates.Missing) for _, cells in few.rows)


def test_paper_table_has_the_published_digits():
    table = appendix_n_table.paper_table(trials=100_000, seed=0)
    assert "right more often than RLAIF's from shift 0.95 on" in table.notes[-1]
    rows = dict(table.rows)
    for name, value, digits in appendix_n_table.PUBLISHED:
        assert rows[name][0] == f"{value:.{digits}f}" == f"{rows[name][1]:.{digits}f}"
    assert appendix_n_table.disagreements(table) == []
    for name, (_, exact, drawn) in rows.items():
        wide = 5 / 1.96 * (drawn.high - drawn.value)  # five standard errors
        assert abs(drawn.value - exact) <= wide + 1e-12, name
    hard = rows["RLCD, hard pairs, shift 3"][2].num
    assert hard == round(100_000 * rows["share of hard pairs, shift 3"][2].value)


def test_disagreements_show_a_wrong_digit():
    table = appendix_n_table.paper_table(trials=1000, seed=0)
    name, cells = table.rows[0]
    wrong = dataclasses.replace(table, rows=((name, (cells[0], 0.7506, cells[2])),))
    assert appendix_n_table.disagreements(wrong) == [
        "RLAIF, all pairs: published 0.750, closed form 0.750600"
    ]
