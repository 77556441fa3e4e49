"""Mixtures of methods, pairs left out by score, and the order of certainty."""

import dataclasses

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st
from pair_world import (
    BYTES,
    PROMPTS,
    RESCORE,
    RLAIF,
    RLCD,
    SETTINGS,
    TASK,
    FakeEngine,
    score,
)

from rlcd_jax import leaving, record_files, records, schema
from rlcd_jax.job import batching, curriculum, packed_batches, setup, supervised
from rlcd_jax.pairs import filtering, grid
from rlcd_jax.planning import chips, plan
from rlcd_jax.stages import train_preference

BOTH = filtering.Rules(drop_disagreeing=True, min_margin=0.25)


# --- shares ---------------------------------------------------------------------------


def test_a_mixture_is_cells_with_shares():
    cells = grid.read_mix(("rlaif=0.5", "rlcd=1"))
    assert cells == [
        grid.GridCell("contrast", "construction", 1.0),
        grid.GridCell("same", "scoring", 0.5),
    ]
    assert grid.rows_a_draw(cells) == grid.draws_a_prompt(cells) == 1.5
    shared = grid.read_mix(("rlcd=1", "rescore=0.25"))
    # Rescore's rows are of replies that RLCD has drawn.
    assert (grid.rows_a_draw(shared), grid.draws_a_prompt(shared)) == (1.25, 1.0)
    for mix in (("rlcd=1", "rlcd=0.5"), ("rlcd=0",), ("dpo=1",), ("rlcd=1.5",)):
        with pytest.raises(ValueError, match="pairs.mix has .*NAME=SHARE"):
            grid.read_mix(mix)


def simulate(cells, score_all=False, **changes):
    """Return pairs, and how many texts were scored."""
    asked = []

    def noted(texts):
        asked.extend(texts)
        return score(texts)

    pairs, _, _ = grid.simulate(
        PROMPTS,
        TASK,
        BYTES,
        FakeEngine(reject=0.0),
        rows=cells,
        settings=dataclasses.replace(SETTINGS, **changes),
        score=noted,
        score_all=score_all,
    )
    return pairs, len(asked)


def test_a_smaller_share_is_a_part_of_a_larger():
    cells = grid.read_mix(("rlcd=0.75", "rescore=0.4", "rlaif=0.4"))
    pairs, _ = simulate(cells)
    prompts = {
        name: [p.prompt_id for p in pairs if (p.sampling, p.labels) == cell]
        for name, cell in grid.METHODS.items()
    }
    assert prompts["rescore"] == prompts["rlaif"]
    assert set(prompts["rescore"]) < set(prompts["rlcd"]) < {p.id for p in PROMPTS}
    for name, share in (("rlcd", 0.75), ("rescore", 0.4)):
        assert len(prompts[name]) == pytest.approx(share * len(PROMPTS), abs=10)


# --- left out by score ----------------------------------------------------------------


def test_scores_of_all_change_no_label_and_are_asked_once_a_pair_of_replies():
    plain, _ = simulate((RLCD, RESCORE, RLAIF))
    scored, asked = simulate((RLCD, RESCORE, RLAIF), score_all=True)
    assert asked == 2 * len(PROMPTS)
    by_id = {pair.id: pair for pair in scored}
    for pair in plain:
        again = by_id[pair.id]
        assert dataclasses.replace(again, scoring=None) == dataclasses.replace(
            pair, scoring=None
        )
        rescored = by_id[pair.id.replace("construction", "scoring")]
        assert again.scoring == rescored.scoring and "prob_2" in again.scoring
    with pytest.raises(ValueError, match="need a score function"):
        grid._check(PROMPTS, TASK, (RLCD,), SETTINGS, None, True)


def with_score(pair, prob_2):
    return dataclasses.replace(pair, scoring={"prob_2": prob_2})


def test_reasons_by_hand():
    (pair,) = simulate((RLCD,))[0][:1]
    better = pair.side_2 == "positive"
    reasons = {
        p: filtering.reason(with_score(pair, p if better else 1 - p), BOTH)
        for p in (0.9, 0.7, 0.6, 0.5, 0.4, 0.1)
    }
    assert reasons == {
        0.9: "",
        0.7: "",
        0.6: filtering.SMALL,  # |2 p - 1| = 0.2
        0.5: filtering.SMALL,  # it finds neither better
        0.4: filtering.DISAGREES,
        0.1: filtering.DISAGREES,
    }
    only = filtering.Rules(drop_disagreeing=True, min_margin=0.0)
    assert filtering.reason(with_score(pair, 0.5), only) == ""
    nothing = filtering.Rules(drop_disagreeing=False, min_margin=0.0)
    assert filtering.reason(pair, nothing) == "" and not nothing.asks
    with pytest.raises(ValueError, match="was not scored"):
        filtering.reason(pair, BOTH)
    (same,) = simulate((RLAIF,))[0][:1]
    assert filtering.reason(with_score(same, 0.0), only) == ""  # it has no side


def test_rows_of_one_pair_stay_or_go_together_and_are_counted():
    pairs, _ = simulate((RLCD, RESCORE, RLAIF), score_all=True)
    kept, left_out = filtering.part(pairs, BOTH)
    assert sorted([p.id for p in kept] + [one.pair.id for one in left_out]) == sorted(
        pair.id for pair in pairs
    )
    counts = filtering.count(left_out)
    assert counts["contrast-construction"] == counts["contrast-scoring"]
    assert counts["contrast-scoring"][filtering.DISAGREES] > 0
    assert set(counts["same-scoring"]) == {filtering.SMALL}
    assert f"({filtering.SMALL})" in filtering.said(counts)
    one = left_out[0]
    row = schema.from_dict(records.Filtered, schema.to_dict(one))
    assert row == one


# --- the order of certainty -----------------------------------------------------------


@given(
    st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=1, max_size=9),
    st.integers(1, 4),
    st.integers(1, 12),
)
def test_each_epoch_goes_from_the_highest_rank_to_the_lowest(ranks, size, total):
    batches = batching.ranked_batches(ranks, 3, size, total)
    assert [len(one) for one in batches] == [size] * total
    # How many there will be is nothing to what there were.
    assert batching.ranked_batches(ranks, 3, size, total + 2)[:total] == batches
    rows = [row for one in batches for row in one]
    for first in range(0, len(rows) - len(ranks) + 1, len(ranks)):
        epoch = rows[first : first + len(ranks)]
        assert sorted(epoch) == list(range(len(ranks)))
        found = [ranks[row] for row in epoch]
        assert found == sorted(found, reverse=True)


def test_equal_ranks_come_in_an_order_of_their_own_each_epoch_and_seed():
    order = batching.ranked_batches([1.0] * 20, 3, 20, 2)
    other = batching.ranked_batches([1.0] * 20, 4, 20, 1)
    assert order[0] != order[1] and order[0] != other[0]


# --- shares that change ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "share", "time"),
    [
        (1, 1, 0.25, 0.25),
        (0, 1, 0.25, 0.5),  # t^2 of the rows by t
        (1, 0, 0.75, 0.5),  # 1 - (1 - t)^2
        (1, 3, 0.375, 0.5),  # (t + t^2) / 2
        (2, 6, 0.375, 0.5),  # a scale of its own says nothing
        (0, 1, 0.0, 0.0),
        (1, 0, 1.0, 1.0),
    ],
)
def test_moment_is_when_a_share_of_the_rows_has_come(start, end, share, time):
    assert curriculum.moment(share, curriculum.Ramp(start, end)) == pytest.approx(time)


def test_a_curriculum_goes_over_in_a_straight_line():
    methods = ["rlaif", "rlcd"] * 500
    ramps = curriculum.read(("rlaif=1:0", "rlcd=0:1"))
    places = curriculum.order(methods, ramps, 3, 1000)
    # Of RLCD's rows the square of the time: 0.04, 0.12, 0.20, 0.28, 0.36 by fifths.
    assert curriculum.shares([methods[row] for row in places]) == {
        "rlaif": pytest.approx([0.9, 0.7, 0.5, 0.3, 0.1], abs=0.006),
        "rlcd": pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9], abs=0.006),
    }
    assert places == curriculum.order(methods, ramps, 3, 1000)
    assert places != curriculum.order(methods, ramps, 4, 1000)


@given(
    st.lists(st.sampled_from(["rlcd", "rescore", "human"]), min_size=1, max_size=30),
    st.integers(1, 3),
    st.sampled_from([(0.0, 1.0), (1.0, 0.0), (1.0, 3.0), (1.0, 1.0)]),
    st.integers(0, 5),
)
def test_a_curriculum_uses_each_row_in_each_pass(methods, passes, ramp, left):
    slots = max(1, passes * len(methods) - left)
    passes = -(-slots // len(methods))
    ramps = {"rlcd": curriculum.Ramp(*ramp)}
    places = curriculum.order(methods, ramps, 3, slots)
    assert len(places) == slots
    counts = np.bincount(places, minlength=len(methods))
    # What is missing is what had no place at the end.
    assert counts.max() <= passes and (passes - counts).sum() == -slots % len(methods)
    whole = curriculum.order(methods, ramps, 3, passes * len(methods))
    assert places == whole[:slots]
    assert np.bincount(whole).tolist() == [passes] * len(methods)
    for name in set(methods):  # a pass is over before the next one begins
        own = [row for row in whole if methods[row] == name]
        num = len(own) // passes
        for first in range(0, len(own), num):
            assert len({*own[first : first + num]}) == num


def test_what_is_scored_and_drawn_is_planned():
    def planned(**fields):
        config = runs.tiny_config(**fields)
        setting = plan.make_setting(config, chips.parse_topology("cpu:1"))
        programs = plan.plan_stage(setting, "simulate").programs
        work = {one.name: one.flops for one in programs}
        return work, setting.preference_pairs

    plain, rows = planned()
    scored, same = planned(pairs__drop_disagreeing=True)
    assert "score" not in plain and scored["score"] > 0 and same == rows
    mixed, more = planned(pairs__mix=("rlcd=1", "rescore=0.5", "rlaif=0.5"))
    assert more == 2 * rows
    assert mixed["score"] == scored["score"]
    assert mixed["decode"] == pytest.approx(1.5 * plain["decode"])


# --- a run ----------------------------------------------------------------------------

FIELDS = {
    "pairs__mix": ("rlcd=1", "rescore=1", "rlaif=0.5"),
    "pairs__drop_disagreeing": True,
    "pairs__min_margin": 2e-5,
    "pairs__samples_per_prompt": 3,
    "preference__order": packed_batches.CERTAIN,
    "preference__checkpoint_every": 2,
    "preference__epochs": 1,
}


@pytest.fixture(scope="module")
def mixed_run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("mixed") / "run"
    return workdir, runs.run(runs.tiny_config(**FIELDS), workdir, "simulate")


def test_a_run_keeps_what_it_left_out_with_the_reason(mixed_run):
    workdir, summaries = mixed_run
    pairs = record_files.read_jsonl(workdir / "pairs/pairs.jsonl", records.Pair)
    left_out = record_files.read_jsonl(
        workdir / "pairs/filtered.jsonl", records.Filtered
    )
    told = summaries["simulate"]["filtered"]
    assert told == filtering.count(left_out) and left_out and pairs
    rules = grid.rules_of(runs.tiny_config(**FIELDS).pairs)
    assert not [pair for pair in pairs if filtering.reason(pair, rules)]
    assert all(filtering.reason(one.pair, rules) == one.reason for one in left_out)
    rows = [*pairs, *[one.pair for one in left_out]]
    cells = {(row.sampling, row.labels) for row in rows}
    assert cells == set(grid.METHODS.values())


def test_a_curriculum_goes_on_where_it_was(mixed_run, tmp_path, monkeypatch):
    whole, _ = mixed_run
    config = runs.tiny_config(**FIELDS)
    made = [runs.copy_run(whole, tmp_path / name, "pairs") for name in ("one", "again")]
    runs.run(config, made[0], "preference")
    with monkeypatch.context() as patch:
        patch.setattr(leaving, "asked", lambda: True)
        with pytest.raises(leaving.Left):
            runs.run(config, made[1], "preference")
    runs.run(config, made[1], "preference")
    one, two = (runs.metric_rows(workdir, "preference") for workdir in made)
    assert one == two
    entropies = [row["preference/label_entropy"] for row in one]
    # Labels by construction first, then those of a model that knows next to nothing.
    assert np.all(np.diff(entropies) >= -1e-6) and entropies[0] < 0.1 < entropies[-1]


def test_shares_of_a_run_change_and_every_row_is_used(mixed_run, tmp_path):
    own = {
        "preference__order": packed_batches.SHUFFLED,
        "preference__curriculum": ("rlaif=1:0", "rescore=1:0", "rlcd=0:1"),
    }
    config = runs.tiny_config(**FIELDS | own)
    workdir = runs.copy_run(mixed_run[0], tmp_path / "run", "pairs")
    summary = runs.run(config, workdir, "preference")["preference"]
    rows = runs.metric_rows(workdir, "preference")
    shares = np.array(
        [[row[f"preference/share_{name}"] for name in grid.METHODS] for row in rows]
    )
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    rlcd, half = shares[:, 0], len(rows) // 2
    assert rlcd[:half].mean() < rlcd[-half:].mean()
    parts = summary["curriculum"]
    assert parts["rlcd"][0] < parts["rlcd"][-1]
    assert np.sum([*parts.values()], axis=0) == pytest.approx(np.ones(curriculum.PARTS))
    used = len(rows) * config.preference.batch_size
    assert used + summary["rows_in_no_whole_batch"] == summary["train_pairs"]
    # What goes on has the batches that it would have had: they are made anew alike.
    with runs.devices_by_mesh():
        job = setup.load_job(config)
        read = train_preference.training_rows(config, workdir, job)
    collate = train_preference.collate(job)
    one, two = (
        supervised.make_batches(config, "preference", read, collate) for _ in "ab"
    )
    assert [one.numbers(n) for n in range(one.total)] == [
        two.numbers(n) for n in range(two.total)
    ]
    found = [one.shares(n)["rlcd"] for n in range(one.total)]
    np.testing.assert_allclose(found, rlcd, atol=1e-6)
