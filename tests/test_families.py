"""Each family from pairs to evaluation: every id, reward and log-probability.

A run of five stages per family, watched by ``family_run``, against two independent
computations: torch's, in ``golden/families``, of fixed texts by the first weights; and
``family_oracle``, which repeats torch, of what the run drew by the weights that it had
trained. The GGUF files have the ids and weights of their families' folders.
"""

from __future__ import annotations

import json

import family_models
import family_oracle
import family_run
import numpy as np
import numpy_llama
import padded
import pytest
import runs

from rlcd_jax import record_files, records
from rlcd_jax.stages import evaluate_policy


@pytest.mark.parametrize("name", family_models.FAMILIES)
def test_a_family_from_pairs_to_evaluation(name, tmp_path):
    seen, golden, workdir = family_run.run(name, tmp_path)
    oracle = family_oracle.Oracle(name, tmp_path, golden)
    check_simulation(oracle, seen, workdir)
    check_preference(oracle, seen, workdir)
    check_distillation(oracle, seen, workdir)
    preference = trained(workdir, "preference", "preference")
    check_rollouts(oracle, seen)
    check_credit(oracle, seen)
    check_rewards(oracle, seen, workdir, preference)
    check_evaluation(oracle, seen, workdir, preference)


def trained(workdir, stage, item):
    """Return the last parameters that a stage has saved, as nested NumPy arrays."""
    folder = workdir / stage / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    params: dict = {}
    for path, array in runs.saved_arrays(folder, step).items():
        first, *parents, last = path.split("/")
        if first == item:
            place = params
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = array
    return params


def check_simulation(oracle: family_oracle.Oracle, seen, workdir) -> None:
    """Prompts are the tokenizer's ids, and the engine drew by the model's numbers."""
    rows = record_files.read_jsonl(workdir / "pairs/pairs.jsonl", records.Pair)
    assert len(rows) >= 6
    sources = set()
    for pair in rows:
        index = family_run.dialogue_index(pair.prompt_id)
        assert pair.prompt == str(oracle.golden[f"prompt_{index}"])
        sources |= {pair.source_prompt_1, pair.source_prompt_2}
    drawn = [one for one in seen.drawn if one[0] == "simulate"]
    expected = {tuple(oracle.encode(text)) for text in sources}
    assert {request.tokens for _, request, _ in drawn} == expected
    check_draws(oracle, drawn, lambda _: None)


def check_draws(oracle: family_oracle.Oracle, drawn, params_of) -> None:
    """The engine's log-probability of each id it drew is the model's."""
    for what, request, reply in drawn:
        ids = [*request.tokens, *reply.tokens]
        table = oracle.table(params_of(what), ids)
        found = numpy_llama.of_reply(table, ids, len(reply.tokens))
        np.testing.assert_allclose(reply.logprobs, found, **family_oracle.NEAR)
        # The text up to the mark, byte for byte; a stop string is cut at its start.
        text = oracle.text_of(reply.tokens)
        assert reply.text.strip() == text.partition(family_models.HUMAN)[0].strip()


def updates_of(seen, key: str):
    """Return the updates whose batches have an array of a name."""
    return [one for one in seen.updates if key in one[0]]


def texts_of(batch, count: int = 1) -> list[tuple[tuple[int, ...], ...]]:
    """Return the ids of each example's texts, `count` of them, from packed rows."""
    numbers = range(1, int(batch["segments"].max()) + 1)
    tokens = padded.laid_out(batch)
    ids = [tuple(map(int, tokens[batch["segments"] == number])) for number in numbers]
    return [tuple(ids[i : i + count]) for i in range(0, len(ids), count)]


def read_tokens(batch, place: int) -> tuple[int, ...]:
    """Return the tokens whose log-probabilities an example counts, of a whole batch."""
    after = batch.get("nexts", batch["states"] + 1)
    following = np.take_along_axis(batch["tokens"], after, axis=1)
    at = batch["at"][place][batch["counted"][place]]
    return tuple(map(int, following.reshape(-1)[at]))


def check_preference(oracle: family_oracle.Oracle, seen, workdir) -> None:
    """Pairs are torch's ids to the mark; rewards and loss are those of its states."""
    updates = updates_of(seen, "prob_2")
    assert len(updates) >= 2
    by_ids = {
        oracle.fixed(index, which)[0]: f"{index}_{which}"
        for index in range(len(family_models.DIALOGUES))
        for which in (0, 1)
    }
    metrics = runs.metric_rows(workdir, "preference")
    for number, (batch, params, _) in enumerate(updates):
        margins = []
        for sides, prob_2 in zip(texts_of(batch, 2), batch["prob_2"], strict=True):
            keys = [by_ids[side] for side in sides]
            # One dialogue, its better reply where the label says so.
            assert sorted(keys) == [f"{keys[0][:-2]}_0", f"{keys[0][:-2]}_1"]
            assert keys[int(prob_2)].endswith("_0")
            if number == 0:  # torch's states, of the first weights
                head = params["preference"]["head"]
                one, two = (
                    oracle.golden[f"state_{key}"] @ head["weight"] + head["bias"]
                    for key in keys
                )
            else:
                one, two = (
                    oracle.scalars(params["preference"], side)[-1] for side in sides
                )
            margins.append((two - one) * (2 * prob_2 - 1))
        loss = np.log1p(np.exp(-np.array(margins))).mean()
        np.testing.assert_allclose(
            metrics[number]["preference/loss"], loss, **family_oracle.NEAR
        )
        np.testing.assert_allclose(
            metrics[number]["preference/margin_mean"],
            np.mean(margins),
            **family_oracle.NEAR,
        )


def check_distillation(oracle: family_oracle.Oracle, seen, workdir) -> None:
    """Targets are the reply and what ends it, and the first loss is torch's."""
    batch, _, _ = updates_of(seen, "states")[0]
    fixed = {
        oracle.fixed(index, 0)[0]: index
        for index in range(len(family_models.DIALOGUES))
    }
    losses = []
    for place, (ids,) in enumerate(texts_of(batch)):
        extra = int(oracle.dialogue)  # the EOS after the mark of a dialogue
        if extra:
            assert ids[-1] == 2
        index = fixed[ids[: len(ids) - extra]]
        _, num = oracle.fixed(index, 0)
        assert read_tokens(batch, place) == ids[len(ids) - num - extra :]
        losses += (-oracle.golden[f"logprobs_{index}_0"]).tolist()
        if extra:
            losses.append(-float(oracle.golden[f"after_{index}_0"]))
    row = runs.metric_rows(workdir, "distill")[0]
    np.testing.assert_allclose(
        row["distill/loss"], np.mean(losses), **family_oracle.NEAR
    )


def check_rollouts(oracle: family_oracle.Oracle, seen) -> None:
    """Prompts, log-probabilities and values of PPO are those of its very weights."""
    assert len(seen.rolled) == 2
    scripted = 0
    for step, (params, sampled, frozen, _, _) in enumerate(seen.rolled, start=1):
        for row, one in enumerate(sampled):
            index = family_run.dialogue_index(one.dialogue.id)
            prompt = tuple(map(int, oracle.golden[f"prompt_ids_{index}"]))
            assert one.dialogue.ids == prompt
            num = len(one.reply.tokens)
            ids = [*prompt, *one.reply.tokens]
            assert frozen.mask[row].sum() == num
            reference = numpy_llama.of_reply(oracle.table(None, ids), ids, num)
            if step == 1 and row < family_run.SCRIPTED:
                scripted += 1
                assert tuple(ids) == oracle.fixed(index, 0)[0]
                reference = oracle.golden[f"logprobs_{index}_0"]
            np.testing.assert_allclose(
                frozen.ref_logprobs[row, :num], reference, **family_oracle.NEAR
            )
            own = numpy_llama.of_reply(oracle.table(params["policy"], ids), ids, num)
            np.testing.assert_allclose(
                frozen.logprobs[row, :num], own, **family_oracle.NEAR
            )
            values = oracle.scalars(params["value"], ids)[-num - 1 : -1]
            np.testing.assert_allclose(
                frozen.values[row, :num], values, **family_oracle.NEAR
            )
    assert scripted == family_run.SCRIPTED
    first, second = (one[2] for one in seen.rolled)
    np.testing.assert_allclose(first.logprobs, first.ref_logprobs, **family_oracle.NEAR)
    assert np.abs(second.logprobs - second.ref_logprobs).max() > 1e-2


def check_credit(oracle: family_oracle.Oracle, seen) -> None:
    """The penalised rewards of tokens, advantages and returns, by their formulas."""
    rewards = dict(seen.scored)
    for _, sampled, frozen, before, after in seen.rolled:
        mask = np.asarray(frozen.mask)
        shaped = np.zeros(mask.shape)
        for row, one in enumerate(sampled):
            num = len(one.reply.tokens)
            prompt, text = one.dialogue.text, oracle.policy_text(one.reply.tokens)
            raw = rewards[oracle.read_by_preference(prompt, text)]
            score = after.gain * raw + after.bias
            np.testing.assert_allclose(frozen.scores[row], score, **family_oracle.NEAR)
            kl = frozen.logprobs[row, :num] - frozen.ref_logprobs[row, :num]
            shaped[row, :num] = -before.kl_coef * kl
            shaped[row, num - 1] += score
        np.testing.assert_allclose(frozen.rewards, shaped, **family_oracle.NEAR)
        returns = np.where(mask, np.cumsum(shaped[:, ::-1], axis=1)[:, ::-1], 0.0)
        np.testing.assert_allclose(frozen.returns, returns, **family_oracle.NEAR)
        gains = (returns - frozen.values)[mask]
        whitened = (gains - gains.mean()) / gains.std()
        np.testing.assert_allclose(frozen.advantages[mask], whitened, atol=1e-3)
    scores = np.array([one[2].scores for one in seen.rolled])
    np.testing.assert_allclose([scores[0].mean(), scores[0].std()], [0, 1], atol=1e-3)
    check_first_update(seen)


def check_first_update(seen) -> None:
    """The update learns from the rollout's rows: its first loss follows from them."""
    batch, _, metrics = updates_of(seen, "advantages")[0]
    mask = batch["response_mask"]
    advantages, error = batch["advantages"][mask], batch["values"] - batch["returns"]
    loss = -advantages.mean() + 0.1 * 0.5 * (error[mask] ** 2).mean()
    np.testing.assert_allclose(metrics["loss/total"], loss, **family_oracle.NEAR)
    _, sampled, frozen, _, _ = seen.rolled[0]
    rows = {(*one.dialogue.ids, *one.reply.tokens): i for i, one in enumerate(sampled)}
    for place, (ids,) in enumerate(texts_of(batch)):
        row = rows[ids]
        for name in ("logprobs", "values", "advantages", "returns"):
            np.testing.assert_array_equal(
                batch[name][place], getattr(frozen, name)[row]
            )


def check_rewards(oracle: family_oracle.Oracle, seen, workdir, preference) -> None:
    """PPO's preference model reads what it was trained on, and says what it learnt."""
    trained_on = {
        side
        for batch, _, _ in updates_of(seen, "prob_2")
        for sides in texts_of(batch, 2)
        for side in sides
    }
    shown = dict(seen.scored)
    assert trained_on & set(shown)  # the fixed replies, by PPO and in training
    for _, sampled, _, _, _ in seen.rolled:
        for one in sampled:
            text = oracle.policy_text(one.reply.tokens)
            ids = oracle.read_by_preference(one.dialogue.text, text)
            reward = oracle.scalars(preference, ids)[-1]
            np.testing.assert_allclose(shown[ids], reward, **family_oracle.NEAR)
    (row,) = record_files.read_jsonl(workdir / "policy/samples/000002.jsonl")
    ids = oracle.read_by_preference(row["prompt"], row["reply"])
    reward = oracle.scalars(preference, ids)[-1]
    np.testing.assert_allclose(row["score"], reward, **family_oracle.NEAR)


def check_evaluation(oracle: family_oracle.Oracle, seen, workdir, preference) -> None:
    """Replies, KL, letters and rewards of the evaluation, by the weights of each."""
    params = {"evaluate base": None}
    for system, stage in (("distill", "distill"), ("rlcd", "policy")):
        params[f"evaluate {system}"] = trained(workdir, stage, "policy")
    drawn = [one for one in seen.drawn if one[0] in params]
    check_draws(oracle, drawn, params.get)
    path = workdir / "evaluate/samples.jsonl"
    answers = record_files.read_jsonl(path, evaluate_policy.Answer)
    assert len(answers) == len(drawn) == 6
    for answer, (what, request, reply) in zip(answers, drawn, strict=True):
        index = family_run.dialogue_index(answer.prompt_id)
        assert answer.prompt == str(oracle.golden[f"prompt_{index}"])
        assert list(request.tokens) == oracle.golden[f"prompt_ids_{index}"].tolist()
        ids = [*request.tokens, *reply.tokens]
        ours, base = oracle.table(params[what], ids), oracle.table(None, ids)
        along = (np.exp(ours) * (ours - base)).sum(axis=1)
        away = along[len(request.tokens) - 1 : -1].sum()
        np.testing.assert_allclose(answer.divergence, away, atol=2e-4, rtol=1e-4)
    given = (workdir / "evaluate/verdicts.jsonl").read_text().splitlines()
    given = [json.loads(line) for line in given]
    judges = {*family_run.JUDGES.get(oracle.name, ()), "preference"}
    assert {row["judge"] for row in given} == judges
    shown = dict(seen.scored)
    for answer in answers:
        ids = oracle.read_by_preference(answer.prompt, answer.reply)
        np.testing.assert_allclose(
            shown[ids], oracle.scalars(preference, ids)[-1], **family_oracle.NEAR
        )
    assert bool(seen.asked) == ("log_odds" in judges)
    for text, logits in seen.asked:
        last = oracle.table(None, oracle.encode(text))[-1]
        a, b = (last[oracle.encode(text + letter)[-1]] for letter in "AB")
        np.testing.assert_allclose(logits[0] - logits[1], a - b, **family_oracle.NEAR)
