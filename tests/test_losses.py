"""losses: each by hand, against slow float64 oracles, and by its properties."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loss_cases import BATCH, CLOSE, RESPONSE, make_case, spoil

from rlcd_jax.ppo import credit
from rlcd_jax.training import losses, masked

pytestmark = pytest.mark.filterwarnings("error")


def _policy(case, **changes):
    case = case | changes
    return losses.ppo_policy(
        *(case[k] for k in ("logprobs", "old_logprobs", "advantages", "mask")),
        clip=0.2,
        statistics=case.get("statistics", "masked"),
    )


def _value(case, **changes):
    case = case | changes
    return losses.ppo_value(
        *(case[k] for k in ("values", "old_values", "returns", "mask")),
        clip=0.2,
        statistics=case.get("statistics", "masked"),
    )


# --- next_token -------------------------------------------------------------------


def test_next_token_by_hand():
    logprobs = np.array([[-1.0, -2.0, -3.0], [-4.0, -9.0, -9.0], [-9.0, -9.0, -9.0]])
    mask = np.array([[True, True, True], [True, False, False], [False, False, False]])
    token, metrics = losses.next_token(logprobs, mask, per_sequence=False)
    sequence, _ = losses.next_token(logprobs, mask, per_sequence=True)
    assert token == 2.5  # (1 + 2 + 3 + 4) / 4
    assert sequence == 3.0  # (2 + 4) / 2: the row without a target has no weight
    assert metrics["distill/empty_rows"] == 1
    np.testing.assert_allclose(metrics["distill/perplexity"], np.exp(2.5), rtol=1e-6)


@pytest.mark.parametrize("per_sequence", [True, False])
def test_next_token_matches_loop_and_ignores_padding(per_sequence):
    case = make_case(3, lengths=(6, 0, 1, 4))
    exact = case["logprobs"].astype(np.float64)
    rows = [-exact[i][case["mask"][i]] for i in range(BATCH)]
    rows = [row for row in rows if len(row)]
    oracle = np.mean(
        [np.mean(row) for row in rows] if per_sequence else np.hstack(rows)
    )
    for variant in (case, spoil(case, "logprobs")):
        loss, _ = losses.next_token(
            variant["logprobs"], variant["mask"], per_sequence=per_sequence
        )
        np.testing.assert_allclose(loss, oracle, **CLOSE)


@pytest.mark.parametrize("per_sequence", [True, False])
def test_next_token_without_targets_is_zero_with_zero_gradient(per_sequence):
    def loss(logprobs):
        nothing = np.zeros((2, 3), bool)
        return losses.next_token(logprobs, nothing, per_sequence=per_sequence)[0]

    value, gradient = jax.value_and_grad(loss)(jnp.ones((2, 3)))
    assert value == 0
    assert not np.any(gradient)


# --- ppo_policy -------------------------------------------------------------------


def test_ppo_policy_by_hand():
    # ratios 1.5, 0.5, 1.5, 0.5, 1.1 with clip 0.2
    ratios = np.array([[1.5, 0.5, 1.5, 0.5, 1.1]])
    advantages = np.array([[1.0, 1.0, -1.0, -1.0, 2.0]])
    mask = np.ones((1, 5), bool)
    loss, metrics = losses.ppo_policy(
        np.log(ratios),
        np.zeros((1, 5)),
        advantages,
        mask,
        clip=0.2,
        statistics="masked",
    )
    # -1.2 (clipped), -0.5, 1.5, 0.8 (clipped), -2.2
    np.testing.assert_allclose(loss, (-1.2 - 0.5 + 1.5 + 0.8 - 2.2) / 5, rtol=1e-5)
    np.testing.assert_allclose(metrics["policy/clip_fraction"], 0.4, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy/ratio_mean"], 1.02, rtol=1e-6)
    np.testing.assert_allclose(metrics["policy/ratio_max_deviation"], 0.5, rtol=1e-6)
    expected = np.mean(np.log(ratios) ** 2) / 2
    np.testing.assert_allclose(metrics["policy/approx_kl"], expected, rtol=1e-5)


def _policy_oracle(case, statistics):
    terms = []
    for row in range(BATCH):
        for r in range(RESPONSE):
            counts = case["mask"][row, r]
            if not counts and statistics == "masked":
                continue
            change = float(case["logprobs"][row, r]) - float(
                case["old_logprobs"][row, r]
            )
            ratio = np.exp(change) if counts else 1.0
            advantage = float(case["advantages"][row, r])
            limited = min(max(ratio, 0.8), 1.2)
            terms.append(max(-advantage * ratio, -advantage * limited))
    return np.mean(terms)


@pytest.mark.parametrize("statistics", masked.STATISTICS)
def test_ppo_policy_matches_loop(statistics):
    case = make_case(4)
    loss, _ = _policy(case, statistics=statistics)
    np.testing.assert_allclose(loss, _policy_oracle(case, statistics), **CLOSE)


def test_ppo_policy_ignores_padding():
    case = make_case(5)
    spoiled = spoil(case, "logprobs", "old_logprobs", "advantages")
    jax.tree.map(np.testing.assert_array_equal, _policy(case), _policy(spoiled))
    wide = {
        k: np.pad(v, ((0, 0), (0, 2)), constant_values=0 if k == "mask" else 5)
        for k, v in case.items()
    }
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **CLOSE),
        _policy(case),
        _policy(wide),
    )
    padded, _ = _policy(case, statistics="padded")
    padded_wide, _ = _policy(wide, statistics="padded")
    assert abs(padded - padded_wide) > 0.1  # as released: the length of padding tells


def test_ppo_policy_at_the_old_policy_neither_clips_nor_moves():
    case = make_case(6)
    case["old_logprobs"] = case["logprobs"]
    loss, metrics = _policy(case)
    np.testing.assert_allclose(
        loss, -masked.mean(case["advantages"], case["mask"]), rtol=1e-6
    )
    assert metrics["policy/clip_fraction"] == 0
    assert metrics["policy/approx_kl"] == 0
    assert metrics["policy/ratio_mean"] == 1
    assert metrics["policy/ratio_max_deviation"] == 0


@pytest.mark.parametrize("statistics", masked.STATISTICS)
def test_ppo_policy_gradient_raises_good_tokens_and_skips_padding(statistics):
    case = make_case(7)
    case["old_logprobs"] = case["logprobs"]
    gradient = jax.grad(lambda x: _policy(case, logprobs=x, statistics=statistics)[0])(
        case["logprobs"]
    )
    count = case["mask"].sum() if statistics == "masked" else case["mask"].size
    expected = np.where(case["mask"], -case["advantages"] / count, 0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_ppo_policy_gradient_stops_where_the_clip_acts():
    def loss(logprobs, advantage):
        advantages, mask = jnp.full((1, 1), advantage), jnp.ones((1, 1), bool)
        return losses.ppo_policy(
            logprobs,
            jnp.zeros((1, 1)),
            advantages,
            mask,
            clip=0.2,
            statistics="masked",
        )[0]

    slope = jax.grad(loss)
    high, low = jnp.full((1, 1), 0.5), jnp.full((1, 1), -0.5)
    assert slope(high, 1.0) == 0 and slope(low, -1.0) == 0
    assert slope(high, -1.0) > 0 and slope(low, 1.0) < 0
    assert np.isfinite(loss(jnp.full((1, 1), 500.0), 0.0))


def test_weighted_micro_batches_give_the_gradient_of_the_whole_batch():
    case = make_case(8)
    whole = jax.grad(lambda x: _policy(case, logprobs=x)[0])(case["logprobs"])
    total = masked.sum(case["mask"], None)
    parts = []
    for start in (0, 2):
        part = {k: v[start : start + 2] for k, v in case.items()}
        weight = masked.sum(part["mask"], None) / total
        gradient = jax.grad(lambda x, part=part: _policy(part, logprobs=x)[0])
        parts.append(weight * gradient(part["logprobs"]))
    np.testing.assert_allclose(np.concatenate(parts), whole, **CLOSE)


# --- ppo_value --------------------------------------------------------------------


def test_ppo_value_by_hand():
    values, old = np.array([[1.0, 1.0, 0.1]]), np.array([[0.0, 0.0, 0.0]])
    returns, mask = np.array([[2.0, 0.5, 1.0]]), np.ones((1, 3), bool)
    loss, metrics = losses.ppo_value(
        values, old, returns, mask, clip=0.2, statistics="masked"
    )
    # max(1, 1.8^2), max(0.5^2, 0.3^2), 0.9^2
    np.testing.assert_allclose(loss, (3.24 + 0.25 + 0.81) / 6, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/clip_fraction"], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/error"], 2.06 / 3, rtol=1e-6)
    np.testing.assert_allclose(metrics["value/mean"], 0.7, rtol=1e-6)
    expected = 1 - np.var(returns - values) / np.var(returns)
    np.testing.assert_allclose(metrics["value/explained_variance"], expected, rtol=1e-5)


@pytest.mark.parametrize("statistics", masked.STATISTICS)
def test_ppo_value_matches_loop(statistics):
    case, terms = make_case(9), []
    for index in np.ndindex(BATCH, RESPONSE):
        if case["mask"][index] or statistics == "padded":
            value, old, target = (
                float(case[k][index]) for k in ("values", "old_values", "returns")
            )
            limited = min(max(value, old - 0.2), old + 0.2)
            terms.append(max((value - target) ** 2, (limited - target) ** 2) / 2)
    loss, _ = _value(case, statistics=statistics)
    np.testing.assert_allclose(loss, np.mean(terms), **CLOSE)


def test_ppo_value_ignores_padding_unless_asked():
    case = make_case(10)
    spoiled = spoil(case, "values", "old_values", "returns")
    jax.tree.map(np.testing.assert_array_equal, _value(case), _value(spoiled))
    for statistics, trained in (("masked", False), ("padded", True)):
        gradient = jax.grad(
            lambda x, s=statistics: _value(case, values=x, statistics=s)[0]
        )(case["values"])
        assert np.any(gradient[~case["mask"]]) == trained


def test_ppo_value_at_the_target_is_zero_and_slopes_towards_it():
    case = make_case(11)
    exact = case | {"values": case["returns"], "old_values": case["returns"]}
    loss, metrics = _value(exact)
    assert loss == 0
    assert metrics["value/explained_variance"] == 1
    assert metrics["value/clip_fraction"] == 0
    case["old_values"] = case["values"]
    gradient = jax.grad(lambda x: _value(case, values=x)[0])(case["values"])
    expected = np.where(case["mask"], np.sign(case["values"] - case["returns"]), 0)
    np.testing.assert_array_equal(np.sign(gradient), expected)


def test_ppo_value_explained_variance_is_defined_for_constants():
    case = make_case(12)
    zero = _value(case, values=np.zeros_like(case["values"]))[1]
    np.testing.assert_allclose(zero["value/explained_variance"], 0, atol=1e-6)
    flat = _value(case, returns=np.ones_like(case["returns"]))[1]
    assert flat["value/explained_variance"] == 0
    nothing = _value(case, mask=np.zeros_like(case["mask"]))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(nothing))


def test_ppo_value_clip_is_symmetric():
    mask = np.ones((1, 2), bool)
    values, returns = np.array([[1.0, -1.0]]), np.array([[2.0, -2.0]])
    zeros = np.zeros((1, 2))
    loss, metrics = losses.ppo_value(
        values, zeros, returns, mask, clip=0.2, statistics="masked"
    )
    np.testing.assert_allclose(loss, 3.24 / 2, rtol=1e-6)
    assert metrics["value/clip_fraction"] == 1


# --- borders ------------------------------------------------------------------------


def test_losses_refuse_shapes_and_clips_that_do_not_fit():
    case = make_case()
    with pytest.raises(ValueError, match=r"advantages \(4, 5\)"):
        _policy(case, advantages=case["advantages"][:, 1:])
    with pytest.raises(ValueError, match=r"returns \(4, 5\)"):
        _value(case, returns=case["returns"][:, 1:])
    with pytest.raises(ValueError, match=r"rewards \(4, 5\), values \(4, 6\)"):
        credit.gae(case["rewards"][:, 1:], case["values"], None, gamma=1.0, lam=1.0)
    with pytest.raises(ValueError, match="clip is 0.0"):
        losses.ppo_policy(
            *(case[k] for k in ("logprobs", "old_logprobs", "advantages", "mask")),
            clip=0.0,
            statistics="masked",
        )
    with pytest.raises(ValueError, match="statistics is 'global'"):
        _policy(case, statistics="global")


def test_losses_are_float32_for_bfloat16_inputs():
    case = {
        k: v if k == "mask" else jnp.asarray(v, jnp.bfloat16)
        for k, v in make_case().items()
    }
    for loss, metrics in (_policy(case), _value(case)):
        assert loss.dtype == jnp.float32
        assert all(x.shape == () and x.dtype == jnp.float32 for x in metrics.values())
