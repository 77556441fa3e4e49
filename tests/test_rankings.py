"""Rankings: pairs put together again, read as a model reads them, packed and exact."""

import dataclasses

import jax
import numpy as np
import pytest
import runs
from pair_world import GRADED, PROMPTS, RLAIF, FakeEngine, simulate

from rlcd_jax.job import setup
from rlcd_jax.preference import model, pair_ids, rankings
from rlcd_jax.scoring import reading
from rlcd_jax.scoring import rewards as scorers
from rlcd_jax.stages import train_preference
from rlcd_jax.training import preferences

FEW = PROMPTS[:6]


def draw(row, **fields):
    return simulate(FEW, rows=(row,), generate=FakeEngine(reject=0), **fields)[0]


@pytest.fixture(scope="module")
def job():
    with runs.devices_by_mesh():
        return setup.load_job(runs.tiny_config("graded"))


def test_graded_pairs_are_put_together_again():
    pairs = draw(GRADED, samples=4)
    found = rankings.group(pairs)
    assert [len(one.replies) for one in found] == [4] * len(FEW)
    for one in found:
        own = [p for p in pairs if p.reply_1 in one.replies]
        asked = {p.reply_1: p.grade_1 for p in own} | {
            p.reply_2: p.grade_2 for p in own
        }
        assert dict(zip(one.replies, one.grades, strict=True)) == asked
        assert sorted(one.grades) == [-2.0, -1.0, 1.0, 2.0]
        assert {p.prompt for p in own} == {one.prompt}


def test_scored_replies_are_graded_by_their_mean_chance():
    """By hand: a beats b with 0.9 and c with 0.4; b beats c with 0.3."""
    a, b, c = "a", "b", "c"
    first, second, third = draw(RLAIF, samples=3)[:3]
    pairs = [
        dataclasses.replace(first, reply_1=b, reply_2=a, prob_2=0.9),
        dataclasses.replace(second, reply_1=a, reply_2=c, prob_2=0.6),
        dataclasses.replace(third, reply_1=b, reply_2=c, prob_2=0.7),
    ]
    (found,) = rankings.group(pairs)
    assert found.replies == (b, a, c)
    assert found.grades == pytest.approx((0.2, 0.65, 0.65))
    assert found.grades[1] == found.grades[2]  # a tie, whatever was added up first
    same = [dataclasses.replace(one, reply_1=a) for one in pairs]
    (found,) = rankings.group(same)  # b is a, which so was drawn twice
    assert found.replies == (a, c)


def test_two_cells_of_a_draw_are_two_rankings():
    pairs = draw(RLAIF, samples=3)
    other = [dataclasses.replace(p, prompt_id=f"{p.prompt_id}x") for p in pairs]
    assert len(rankings.group([*pairs, *other])) == 2 * len(FEW)
    assert rankings.group(sorted(pairs, key=lambda p: p.id)) == rankings.group(pairs)


def test_texts_are_those_of_pairs_and_long_ones_are_left_out_alone(job):
    pairs = draw(GRADED, samples=4)
    found = rankings.to_tokens(job, pairs)
    none = {"dropped": 0, "shortened": 0, "identical": 0}
    assert found.too_long == {"of": 24} | none and len(found) == len(FEW)
    of_pairs = pair_ids.to_tokens(job, pairs)
    texts = {ids for pair in of_pairs for ids in (pair.ids_1, pair.ids_2)}
    assert {ids for one in found for ids in one.ids} == texts
    long = {pairs[0].reply_1, pairs[6].reply_1, pairs[6].reply_2, pairs[11].reply_1}

    def stretched(reply):
        return reply + " and more" * 40 if reply in long else reply

    changed = [
        dataclasses.replace(
            p, reply_1=stretched(p.reply_1), reply_2=stretched(p.reply_2)
        )
        for p in pairs
    ]
    left = rankings.to_tokens(job, changed)
    assert left.too_long == {"of": 24} | none | {"dropped": len(long)}
    counts = [sum(r not in long for r in one.replies) for one in rankings.group(pairs)]
    assert [len(one.ids) for one in left] == [n for n in counts if n > 1]
    assert counts == [3, 1, 4, 4, 4, 4]


def test_shortened_prompts_are_one_for_all_replies_of_a_draw():
    config = runs.tiny_config("graded", preference__too_long="shorten_prompt")
    with runs.devices_by_mesh():
        own = setup.load_job(config)
    pairs = draw(GRADED, samples=4)
    longest = max(map(len, (i for o in rankings.to_tokens(own, pairs) for i in o.ids)))
    with own.config.unlocked():
        own.config.preference.lengths = (longest - 1,)
    found = rankings.to_tokens(own, pairs)
    shortened = found.too_long["shortened"]
    assert found.too_long["dropped"] == 0 and shortened and shortened % 4 == 0
    for one in found:
        texts = [own.text_tokenizer.decode(ids) for ids in one.ids]
        assert len({text.rpartition("Assistant:")[0] for text in texts}) == 1


def test_a_packed_batch_has_the_loss_of_texts_read_one_by_one(job):
    """Rankings of two, three and four replies; what is no reply takes no token."""
    whole = rankings.to_tokens(job, draw(GRADED, samples=4)).rankings[:4]
    rows = [
        rankings.TokenRanking(one.ids[:n], one.grades[:n])
        for one, n in zip(whole, (2, 4, 3, 4), strict=True)
    ]
    batch = train_preference.collate(job)(rows)
    assert batch["grades"].shape == batch["are_replies"].shape == (4, 4)
    texts = sum(len(ids) for one in rows for ids in one.ids)
    assert (batch["segments"] > 0).sum() == texts
    params = train_preference.start_params(job)
    with jax.set_mesh(job.mesh):
        loss, shown = jax.jit(model.preference_loss(job))(params, batch)
    frozen = reading.frozen(job, params[model.ITEM])
    score = scorers.reward_scorer(job, job.config.preference.lengths)
    rewards = np.zeros((4, 4), np.float32)
    rewards[batch["are_replies"]] = score(
        frozen, [ids for one in rows for ids in one.ids]
    )
    alone, said = preferences.plackett_luce(
        rewards, batch["grades"], batch["are_replies"]
    )
    np.testing.assert_allclose(loss, alone, rtol=1e-5)
    assert shown["preference/accuracy"] == said["preference/accuracy"]
    assert float(shown["preference/replies"]) == 13 / 4


def test_the_loss_is_the_one_that_the_config_names(job, monkeypatch):
    pairs, rng = draw(GRADED, samples=4)[:4], np.random.default_rng(0)
    rewards = rng.normal(0, 1, (4, 4)).astype(np.float32)
    monkeypatch.setattr(model.heads, "scalar_in_rows", lambda *_: rewards)
    monkeypatch.setattr(model, "_loss", model._loss.__wrapped__)

    def loss_of(name, **fields):
        own = {f"preference__{field}": value for field, value in fields.items()}
        config = runs.tiny_config("graded", preference__loss=name, **own)
        own = dataclasses.replace(job, config=config)
        batch = train_preference.collate(own)(train_preference.to_rows(own, pairs))
        return model.preference_loss(own)({model.ITEM: None}, batch)[0], batch

    one, two = rewards[:, 0], rewards[:, 1]
    loss, batch = loss_of("bradley_terry")
    y = batch["prob_2"]
    assert loss == preferences.bradley_terry(one, two, y)[0]
    loss, batch = loss_of("margin", margin=0.5)
    margin = 0.5 * np.array([pair_ids.distance(pair) for pair in pairs])
    assert loss == preferences.bradley_terry(one, two, y, margin=margin)[0]
    loss, _ = loss_of("ties", tie_width=0.3, tie_band=0.2)
    assert loss == preferences.ties(one, two, y, width=0.3, band=0.2)[0]
    rewards = rewards[:1]
    loss, batch = loss_of("plackett_luce")
    ranked = (rewards, batch["grades"], batch["are_replies"])
    assert loss == preferences.plackett_luce(*ranked)[0]


def test_more_replies_than_the_config_draws_are_refused(job):
    row = rankings.TokenRanking(((1, 2),) * 5, (1.0, 2.0, 3.0, 4.0, 5.0))
    with pytest.raises(ValueError, match="a draw has 5 replies and pairs.samples=4"):
        train_preference.collate(job)([row])


def test_margins_go_by_grades_and_else_by_labels(job):
    graded, scored = draw(GRADED, samples=3)[:3], draw(RLAIF)[:3]
    assert [pair_ids.distance(p) for p in graded] == [2.0, 4.0, 2.0]
    assert [pair_ids.distance(p) for p in scored] == pytest.approx(
        [abs(2 * p.prob_2 - 1) for p in scored]
    )
    config = runs.tiny_config(
        "graded", preference__loss="margin", preference__margin=0.5
    )
    own = dataclasses.replace(job, config=config)
    rows = train_preference.to_rows(own, graded)
    batch = train_preference.collate(own)(rows)
    np.testing.assert_array_equal(batch["margin"], [1.0, 2.0, 1.0])
    plain = runs.tiny_config("graded", preference__loss="bradley_terry")
    own = dataclasses.replace(job, config=plain)
    assert "margin" not in train_preference.collate(own)(rows)
    assert train_preference.largest_batch(job)["ends"].shape == (4, 4)
