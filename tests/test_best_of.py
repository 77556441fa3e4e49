"""Best of n: which reply is taken, how far it can be from the base, what it costs."""

import types

import numpy as np
import pytest
import runs
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax import record_files
from rlcd_jax.decode import engine
from rlcd_jax.job import generation
from rlcd_jax.preference import best_of, rewards
from rlcd_jax.stages import evaluate_policy


def test_choose_takes_the_highest_and_of_equal_ones_the_first():
    scores = np.array([[1.0, 3.0, 2.0], [5.0, 5.0, 1.0], [0.0, 0.0, 0.0]])
    assert best_of.choose(scores).tolist() == [1, 0, 0]
    with pytest.raises(ValueError, match="1 of 2 scores .* not finite"):
        best_of.choose(np.array([[1.0, np.nan]]))


def test_kl_bound_by_hand():
    assert best_of.kl_bound(1) == 0.0
    assert best_of.kl_bound(2) == pytest.approx(np.log(2) - 0.5)
    assert best_of.kl_bound(16) == pytest.approx(1.835, abs=1e-3)


@given(
    st.integers(2, 6),
    st.lists(st.floats(0.01, 1.0), min_size=2, max_size=6),
    st.integers(1, 6),
)
def test_the_bound_is_one(num, weights, kinds):
    """Exactly, over outcomes of any chances whose scores may tie."""
    base = np.array(weights) / sum(weights)
    scores = np.minimum(np.arange(len(base)), kinds)
    below = np.array([base[scores < s].sum() for s in scores])
    upto = np.array([base[scores <= s].sum() for s in scores])
    # The first of equal ones is any of them by its chance.
    chosen = (upto**num - below**num) * base / (upto - below)
    assert chosen.sum() == pytest.approx(1.0)
    kl = float(np.sum(chosen * np.log(chosen / base)))
    assert kl <= best_of.kl_bound(num) + 1e-9


def drawn(monkeypatch, num):
    """Return what is drawn for two prompts, by an engine that only notes it."""
    seen = []

    def generate(sampler, requests, what):
        seen.extend(requests)
        return [types.SimpleNamespace(text=r.id, tokens=(1,) * 3) for r in requests]

    def judge(job, workdir):
        return lambda shown: [float(reply[-1]) for _, reply in shown]

    monkeypatch.setattr(generation, "load", lambda *_: None)
    monkeypatch.setattr(generation, "generate", generate)
    monkeypatch.setattr(rewards, "preference_judge", judge)
    job = types.SimpleNamespace(config=types.SimpleNamespace(seed=7), mesh=None)
    job.of = lambda role: job  # one model has all roles
    asked = [engine.Request(i, (1,), (0, 0), 4) for i in ("p", "q")]
    found = best_of.draw(
        job,
        types.SimpleNamespace(unload=lambda: None),
        None,
        best_of.BestOf(num, None),
        ["P", "Q"],
        asked,
        str.upper,
    )
    return found, seen


def test_each_reply_has_a_key_of_its_own_whatever_n(monkeypatch):
    found, three = drawn(monkeypatch, 3)
    assert [one.reply.text for one in found] == ["p/2", "q/2"]
    assert [one.tokens_drawn for one in found] == [9, 9]
    assert len({one.seed for one in three}) == 6
    _, two = drawn(monkeypatch, 2)
    assert [r for r in three if r.id in ("p/0", "p/1", "q/0", "q/1")] == two


def test_a_run_ends_with_a_row_of_the_table(finished_run, tmp_path, monkeypatch):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    make, ranked = rewards.preference_judge, []

    def watched(*given):
        judge = make(*given)

        def noted(shown):
            scores = judge(shown)
            ranked.extend(zip(shown, scores, strict=True))
            return scores

        return noted

    monkeypatch.setattr(rewards, "preference_judge", watched)
    config = runs.tiny_config("best_of_n", evaluate__best_of=3)
    summary = runs.run(config, workdir, "evaluate")["evaluate"]
    rows = {row["name"]: row["cells"] for row in summary["table"]["rows"]}
    assert list(rows) == ["base", "best_of_3"]
    bound = f"{best_of.kl_bound(3):.2f}"
    assert rows["best_of_3"]["KL, nats a reply"] == f"at most {bound}"
    answers = [
        one
        for one in record_files.read_jsonl(
            workdir / "evaluate/samples.jsonl", evaluate_policy.Answer
        )
        if one.system == "best_of_3"
    ]
    assert len(ranked) == 3 * len(answers) == 9
    for number, one in enumerate(answers):
        group = ranked[3 * number : 3 * number + 3]
        assert {prompt for (prompt, _), _ in group} == {one.prompt}
        assert one.reply == max(group, key=lambda entry: entry[1])[0][1]
        assert (one.best_of, one.divergence) == (3, best_of.kl_bound(3))
        assert one.tokens_drawn >= one.num_tokens
    (note,) = (n for n in summary["table"]["notes"] if n.startswith("Best of 3"))
    tokens = sum(one.tokens_drawn for one in answers)
    assert f"9 replies and {tokens} tokens were drawn for 3 replies" in note


def test_without_a_preference_model_it_is_refused_before_anything(
    finished_run, tmp_path
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config("best_of_n")
    with (
        runs.devices_by_mesh(),
        pytest.raises(ValueError, match="preference.checkpoints holds no checkpoint"),
    ):
        runs.run_checked(config, workdir, ("evaluate",))
    with pytest.raises(ValueError, match="holds no checkpoint; run its stage first"):
        evaluate_policy.find_systems(config, workdir)
