"""preset=released on thousands of inputs, against a slow account of the released code.

The other position of each switch is held against it too: where no switch has anything
to say, `corrected` is the same, and where one has, it differs.
"""

import dataclasses
import math
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released_oracle as oracle
from dialogues import assistant, human
from made_pair import make_pair

from configs import rlcd
from rlcd_jax import records, tasks
from rlcd_jax.pairs import (
    contrast,
    reply_cleanup,
    scored_labels,
    scoring_prompt,
)
from rlcd_jax.ppo import acting, rollout
from rlcd_jax.text import dialogue_format
from rlcd_jax.training import losses, optimizers, preferences

PRESETS = {
    name: rlcd.get_config(f"task=harmless,size=paper,model=llama-7b,preset={name}")
    for name in ("corrected", "released")
}
TASK = tasks.load_task("harmless")
RULES = {
    name: dataclasses.replace(TASK.cleanup, mode=config.pairs.cleanup)
    for name, config in PRESETS.items()
}
WORDS = ("I can", "help.", "well", "No", "superuser:", "of course", "a", "42")
PIECES = (
    *WORDS,
    *(" ", "\n", "\n\n", "Human", "\n\nHuman:", "Assistant:", "\n\nAssistant:"),
    *("Assistant (ethical response):", "</s>", "User:", "human:", "Human rights"),
)
CLOSE = dict(rtol=2e-4, atol=2e-5)  # float32 of sums against float64


def drawn(seed: int, pieces=PIECES, most: int = 9) -> str:
    draw = random.Random(seed)
    return "".join(draw.choice(pieces) for _ in range(draw.randrange(most)))


def test_replies_are_cut_and_rejected_as_released():
    seen = {"taken": 0, "rejected": 0}
    for seed in range(4000):
        raw, finish = drawn(seed), ("eos", "length")[seed % 2]
        want = oracle.accepted(raw + "</s>" * (finish == "eos"))
        got = reply_cleanup.clean_reply(raw, finish, RULES["released"])
        assert got.text == want, (raw, finish)
        assert (got.reason is None) == (want is not None)
        seen["rejected" if want is None else "taken"] += 1
    assert min(seen.values()) > 400


def test_a_plain_reply_before_the_next_turn_is_the_same_in_both_presets():
    """One paragraph without a name of a role: pairs.cleanup has nothing to say."""
    for seed in range(1000):
        words = " ".join(random.Random(seed).choices([*WORDS[:4], *WORDS[5:]], k=5))
        raw = f" {words}\n\nHuman: and then?"
        both = {
            name: reply_cleanup.clean_reply(raw, "stop", rules).text
            for name, rules in RULES.items()
        }
        assert both["corrected"] == both["released"] == words.strip()


@pytest.mark.parametrize(
    ("raw", "finish", "corrected", "released"),
    [
        (" Sure.", "eos", "Sure.", None),
        (" On Human rights.\n\nHuman:", "stop", "On Human rights.", None),
        (" A.\nAssistant: B.\n\nHuman:", "stop", "A.", "B."),
        (
            " A.\n\nAssistant (kind): B.\n\nHuman:",
            "stop",
            "A.",
            "A.\n\nAssistant (kind): B.",
        ),
    ],
)
def test_where_cleaning_differs(raw, finish, corrected, released):
    assert reply_cleanup.clean_reply(raw, finish, RULES["corrected"]).text == corrected
    assert reply_cleanup.clean_reply(raw, finish, RULES["released"]).text == released


def test_final_replies_are_cut_as_released():
    clean = reply_cleanup.FINAL[PRESETS["released"].evaluate.cleanup]
    other = reply_cleanup.FINAL[PRESETS["corrected"].evaluate.cleanup]
    differ = 0
    for seed in range(3000):
        text = drawn(seed)
        assert clean(text) == oracle.final_reply(text), text
        differ += clean(text) != other(text)
    assert differ > 100
    assert clean("The superuser: root") == "The super"
    for seed in range(300):
        text = drawn(seed, ("I can", " ", "help.", "\n", "No"))
        assert clean(text) == other(text) == text.strip()


def test_contrast_prompts_are_as_released():
    pieces = ("Hi", " ok", "\n", "\n\nHuman: x", "\n\nAssistant: y", "Assistant:")
    unmarked = 0
    for seed in range(3000):
        end = ("\n\nAssistant:", "\n\nAssistant:", "\nAssistant:")[seed % 3]
        text = dialogue_format.prompt_as_written(
            "\n\nHuman: a" + drawn(seed, pieces) + end + " a reply"
        )
        prompt = records.Prompt("x", (human("a"),), as_written=text)
        index = seed % len(TASK.affixes)
        want = oracle.contrast(text, *TASK.affixes[index])
        assert contrast.contrast_prompts(prompt, TASK, index) == want, text
        unmarked += contrast.UNSEEN_END in want[0]
        assert text.endswith(TASK.assistant_marker) != (contrast.UNSEEN_END in want[0])
    assert 500 < unmarked < 1500


def test_contrast_prompts_of_whole_turns_are_the_same_in_both_presets():
    for seed in range(500):
        draw = random.Random(seed)
        said = [" ".join(draw.choices(WORDS, k=3)) for _ in range(2 * (seed % 4) + 1)]
        turns = tuple((human, assistant)[i % 2](x) for i, x in enumerate(said))
        plain = dialogue_format.render_dialogue(turns, TASK)
        both = [
            contrast.contrast_prompts(
                records.Prompt("x", turns, as_written=text), TASK, 3
            )
            for text in ("", plain)
        ]
        assert both[0] == both[1] == oracle.contrast(plain, *TASK.affixes[3])


def test_scored_labels_are_as_released():
    pair = make_pair(labels="scoring", scoring={"instruction_index": 0})
    rng = np.random.default_rng(0)
    for logits in [*rng.normal(0, 3, (2000, 2)).tolist(), [1.5, 1.5]]:
        want, better = oracle.scored_label(*logits)
        soft = scored_labels.scored_pair(pair, [tuple(logits)], hard=False)
        hard = scored_labels.scored_pair(pair, [tuple(logits)], hard=True)
        assert math.isclose(soft.prob_2, want, abs_tol=1e-12)
        assert hard.prob_2 == better - 1
    assert not PRESETS["released"].pairs.both_orders


def test_both_orders_cancel_a_liking_for_a_letter_and_one_order_does_not():
    pair = make_pair(labels="scoring", scoring={"instruction_index": 0})
    likes_a = [(2.0, 0.5), (2.0, 0.5)]
    one = scored_labels.scored_pair(pair, likes_a[:1], hard=False)
    assert one.prob_2 == pytest.approx(1 / (1 + math.exp(1.5)))
    assert scored_labels.scored_pair(pair, likes_a, hard=False).prob_2 == 0.5


def test_scoring_texts_have_the_released_layout():
    for seed in range(200):
        parts = [drawn(seed + n, WORDS) or "x" for n in range(0, 4000, 1000)]
        got = scoring_prompt.scoring_prompt(parts[0], parts[2], parts[3], parts[1])
        opening = got.partition("\n\n\n\n")[0]
        assert got == oracle.scoring_text(opening, *parts)


# --- PPO ------------------------------------------------------------------------------

ROWS, WIDTH = 128, 7
RELEASED = acting.rules(PRESETS["released"].policy)
CORRECTED = acting.rules(PRESETS["corrected"].policy)


def arrays(seed: int):
    """Return logprobs, reference's, values, sizes and scores of a step, pads zeroed."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, WIDTH + 1, ROWS)
    mask = np.arange(WIDTH) < sizes[:, None]
    logprobs, ref_logprobs = np.where(mask, -rng.gamma(1.5, 1, (2, ROWS, WIDTH)), 0)
    values = rng.normal(0, 1, (ROWS, WIDTH))
    return mask, logprobs, ref_logprobs, values, sizes, rng.normal(0.5, 2, ROWS)


@pytest.fixture(scope="module")
def assemble():
    return jax.jit(rollout.assemble, static_argnames="rules")


def test_rewards_advantages_and_returns_are_as_released(assemble):
    for seed in range(25):  # 3,200 replies
        mask, logprobs, ref_logprobs, values, sizes, scores = arrays(seed)
        want = oracle.rolled_out(
            *(x.tolist() for x in (logprobs, ref_logprobs, values, sizes, scores)),
            beta=0.004,
            rows=64,
        )
        made, _ = assemble(
            mask, logprobs, ref_logprobs, values, scores, kl_coef=0.004, rules=RELEASED
        )
        for got, wanted in zip(
            (made.rewards, made.advantages, made.returns), want, strict=True
        ):
            np.testing.assert_allclose(got, wanted, **CLOSE)


def test_corrected_rollouts_differ_where_their_switches_say_so(assemble):
    """All switches of the rollout turned back, `corrected` is as released."""
    given = arrays(3)
    mask, logprobs, ref_logprobs, values, _, scores = given

    def advantages(rules):
        made, _ = assemble(
            mask, logprobs, ref_logprobs, values, scores, kl_coef=0.1, rules=rules
        )
        return np.asarray(made.advantages)

    as_released = {
        field.name: getattr(RELEASED, field.name)
        for field in dataclasses.fields(RELEASED)
        if getattr(RELEASED, field.name) != getattr(CORRECTED, field.name)
    }
    assert set(as_released) == {
        *("kl_estimator", "whiten_rewards", "statistics", "whiten_rows")
    }
    base = advantages(CORRECTED)
    for name, value in as_released.items():
        turned = advantages(dataclasses.replace(CORRECTED, **{name: value}))
        assert np.abs(turned - base).max() > 1e-3, name
    whole = advantages(dataclasses.replace(CORRECTED, **as_released))
    np.testing.assert_array_equal(whole, advantages(RELEASED))


def test_corrected_equals_released_where_no_switch_of_the_rollout_has_a_say(assemble):
    """No padding, one process, a KL of no sign, rewards that are whitened in both."""
    mask, logprobs, _, values, _, scores = arrays(1)
    mask = np.ones_like(mask)
    same = dict(whiten_rewards=False, whiten_rows=0)
    made = [
        assemble(
            mask,
            logprobs,
            logprobs - 0.1,
            values,
            scores,
            kl_coef=0.1,
            rules=dataclasses.replace(rules, **same),
        )[0]
        for rules in (CORRECTED, RELEASED)
    ]
    for name in ("rewards", "advantages", "returns"):
        both = (getattr(one, name) for one in made)
        np.testing.assert_allclose(*both, rtol=1e-4, atol=1e-6)


def test_whitening_by_groups_by_hand():
    """Two groups of two rows, each with mean 0 and deviation 1 of its own."""
    values = jnp.array([[1.0], [3.0], [10.0], [30.0]])
    whitened = rollout.whiten(values, None, 2, shift_mean=True)
    np.testing.assert_allclose(whitened, [[-1], [1], [-1], [1]], atol=1e-6)
    kept = rollout.whiten(values, None, 2, shift_mean=False)
    np.testing.assert_allclose(kept, [[1], [3], [19], [21]], atol=1e-5)
    for rows in (0, 4, 64):
        one = rollout.whiten(values, None, rows, shift_mean=True)
        np.testing.assert_allclose(one, (values - 11) / np.std(values), atol=1e-6)
    with pytest.raises(ValueError, match="4 replies do not divide into groups of 3"):
        rollout.whiten(values, None, 3, shift_mean=True)


def test_ppo_losses_are_as_released():
    section = PRESETS["released"].policy

    @jax.jit
    def ours(logprobs, old, advantages, values, old_values, returns, mask):
        kind = dict(statistics=section.statistics)
        policy, _ = losses.ppo_policy(
            logprobs, old, advantages, mask, clip=section.clip, **kind
        )
        value, _ = losses.ppo_value(
            values, old_values, returns, mask, clip=section.value_clip, **kind
        )
        return policy, value, policy + section.value_coef * value

    for seed in range(25):
        mask, old, _, old_values, sizes, _ = arrays(seed)
        rng = np.random.default_rng(seed + 1000)
        moved = np.where(mask, old + rng.normal(0, 0.3, old.shape), 0)
        values = old_values + rng.normal(0, 0.3, old.shape)
        advantages, returns = rng.normal(0, 1, (2, *old.shape))
        given = (moved, old, advantages, values, old_values, returns)
        want = oracle.loss(*(x.tolist() for x in given), sizes.tolist())
        np.testing.assert_allclose(ours(*given, mask), want, **CLOSE)


def test_preference_losses_are_as_released():
    rng = np.random.default_rng(0)
    bradley_terry = jax.jit(preferences.bradley_terry)
    for soft in (True, False) * 20:
        one, two, y = *rng.normal(0, 2, (2, ROWS)), rng.random(ROWS)
        y = y if soft else np.round(y)
        want = oracle.preference_loss(one.tolist(), two.tolist(), y.tolist())
        np.testing.assert_allclose(bradley_terry(one, two, y)[0], want, **CLOSE)


def test_rewards_of_whole_replies_are_as_released():
    """A mark with something before it, else -1, whatever the score was."""
    config = PRESETS["released"].policy
    mark = TASK.human_marker
    texts = [drawn(seed, (*WORDS, " ", "\n", mark, "Human")) for seed in range(2000)]
    scores = np.random.default_rng(0).normal(0, 2, len(texts))
    got, _ = rollout.terminal_rule(
        scores,
        np.array([acting.is_whole(t, "eos", TASK, config.finished) for t in texts]),
        np.array([not t.split(mark)[0].strip() for t in texts]),
        mode=config.terminal_mode,
        value=config.terminal_value,
    )
    want = [oracle.paid_score(t, s) for t, s in zip(texts, scores, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-6)
    assert 0.2 < np.mean(got == -1.0) < 0.9


@pytest.mark.parametrize("steps", [20, 40, 60, 80])
def test_rates_are_as_released(steps):
    section = PRESETS["released"].policy
    rate = optimizers.learning_rate(
        1.0,
        schedule="linear",
        warmup=section.warmup_steps,
        total=steps,
        every=4,
        idle=section.first_step_idle,
    )
    got = [float(rate(4 * step)) for step in range(steps)]
    want = [oracle.ppo_rate(step + 1, steps, 5) for step in range(steps)]
    np.testing.assert_allclose(got, want, atol=1e-6)
    for name in ("preference", "distill"):
        own = PRESETS["released"][name]
        rate = optimizers.learning_rate(
            1.0,
            schedule=own.schedule,
            warmup=round(own.warmup_fraction * 100),
            total=100,
            every=1,
            idle=own.first_step_idle,
        )
        got = [float(rate(update)) for update in range(100)]
        want = [oracle.supervised_rate(update + 1, 100, 3) for update in range(100)]
        np.testing.assert_allclose(got, want, atol=1e-6)
