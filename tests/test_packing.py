"""Packed rows: every text whole and once, loss and gradient those of padded rows."""

import dataclasses
import functools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import mesh_world
import numpy as np
import padded
import pytest

from rlcd_jax import sharding
from rlcd_jax.job import packed_batches
from rlcd_jax.models import heads, llama
from rlcd_jax.ppo import kl_penalty, learning, reply_rows
from rlcd_jax.preference import model, pair_ids
from rlcd_jax.scoring import rewards
from rlcd_jax.stages import distill_context, train_directly, train_preference
from rlcd_jax.training import losses, packing, preferences, row_arrays, train_state

MESHES = {"one": (1, 1, 1, 1), "eight": (1, 2, 2, 2)}
LOSSES = {
    "distill/loss",
    "direct/loss",
    "preference/loss",
    "policy/loss",
    "value/loss",
    "loss/total",
}
LABELS = (0.0, 1.0, 0.5, 0.3, 0.9, 1.0, 0.0, 0.7)


def text_of(length, rng, wanted=0):
    ids = tuple(rng.integers(1, 250, length).tolist())
    return packing.Text(ids, tuple(range(length - wanted, length)))


@hypothesis.given(
    st.lists(st.integers(2, 40), min_size=4, max_size=40),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
    st.sampled_from([0, 1, 3]),
    st.sampled_from([0, 48]),
)
def test_every_text_lies_whole_in_a_row_and_its_states_are_found(
    lengths, texts, parts, ways, rows, width
):
    rng = np.random.default_rng(0)
    num = len(lengths) // (texts * parts) * parts
    hypothesis.assume(num)
    wanted = 5 if texts == 1 else 0
    examples = [
        [
            text_of(length, rng, min(wanted, length - 1))
            for length in lengths[i * texts : (i + 1) * texts]
        ]
        for i in range(num)
    ]
    packer = packing.Packer(
        40, parts, ways, pad_id=0, wanted=wanted, rows=rows * ways, width=width
    )
    places = packer.place(examples)
    out = row_arrays.fill(packer, examples, places, places.size)
    assert sorted(places.order.tolist()) == list(range(num))
    assert places.size.rows % ways == 0
    wide = places.size.width
    usual = packing.usual_rows(num // parts * texts, 40, ways)
    assert wide == width if width else places.size.rows == (rows * ways or usual)
    assert out["tokens"].shape == (parts * places.size.rows, wide)
    total = sum(text.length for one in examples for text in one)
    assert (out["segments"] > 0).sum() == total  # nothing twice, nothing on another
    assert row_arrays.useful_share(out) == total / out["tokens"].size
    for part in range(parts):
        tokens = out["tokens"][part::parts].ravel()
        segments = out["segments"][part::parts].ravel()
        for place in range(part, num, parts):
            for k, text in enumerate(examples[places.order[place]]):
                here = np.flatnonzero(segments == place * texts + k + 1)
                assert tuple(tokens[here]) == text.ids
                assert (np.diff(here) == 1).all()
                assert here[0] // wide == here[-1] // wide
                if not wanted:
                    assert out["ends"][place, k] == here[-1]
                    continue
                counted = out["counted"][place]
                row, states = np.divmod(out["at"][place], places.size.states)
                found = row * wide + out["states"][part::parts][row, states]
                expected = here[list(text.wanted)] - 1
                np.testing.assert_array_equal(found[counted], expected)


def test_rows_that_have_no_room_for_a_text_are_refused():
    with pytest.raises(ValueError, match="rows of 63 tokens for texts of up to 64"):
        packing.Packer(64, 1, 1, pad_id=0, wanted=0, width=63)


@pytest.mark.parametrize("width", [0, 64])
def test_a_text_over_the_longest_is_refused_however_wide_the_row(width):
    """Attention looks no farther back than the longest text is long."""
    packer = packing.Packer(8, 1, 1, pad_id=0, wanted=0, width=width)
    packer.place([[packing.Text(range(5), unseen=3)]])
    with pytest.raises(ValueError, match="a text has 9 tokens and at most 8"):
        packer.place([[packing.Text(range(6), unseen=3)]])


@hypothesis.given(
    st.lists(st.integers(1, 40), min_size=6, max_size=30),
    st.integers(1, 4),
    st.sampled_from([None, 3]),
)
def test_rows_are_no_wider_than_their_texts_need(lengths, rows, most):
    """One step less, and some text would find no room."""
    limit = None if most is None else lambda width: most + width // 40
    packer = packing.Packer(40, 1, 1, pad_id=0, wanted=0, rows=rows, most=limit)
    places = packer.place([[packing.Text(range(n))] for n in lengths])
    width = places.size.width
    assert places.size.rows == rows and places.rows.max() < rows
    least = max(*lengths, -(-sum(lengths) // rows))
    assert width >= least and width % packing.STEP == 0
    if (less := width - packing.STEP) >= least:
        room = None if limit is None else limit(less)
        found, _ = packing._best_fit(lengths, less, room)
        assert found.max() >= rows
    if limit is not None:
        assert np.bincount(places.rows.ravel()).max() <= limit(width)


@hypothesis.given(
    st.lists(st.integers(1, 300), min_size=16, max_size=16),
    st.sampled_from([0, 1, 500]),
)
def test_the_number_of_rows_is_that_of_the_least_work(lengths, dear):
    """Of equal ones the largest, whose rows are the narrowest."""
    batch = [[packing.Text(range(n))] for n in lengths]

    def work(width):
        return 1.0 + (width > dear > 1)

    packer = packing.Packer(300, 1, 1, pad_id=0, wanted=0, work=work if dear else None)
    chosen = packer.choose([batch]).rows
    works = {}
    for rows in range(packing.usual_rows(16, 300, 1), 17):
        width = dataclasses.replace(packer, rows=rows).place(batch).size.width
        works[rows] = rows * width * (work(width) if dear else 1)
        if width <= -(-max(lengths) // packing.STEP) * packing.STEP:
            break
    least = min(works.values())
    assert chosen == max(rows for rows, own in works.items() if own == least)


def test_widths_of_steps_that_are_not_known_yet_by_hand():
    packer = packing.Packer(492, 1, 1, pad_id=0, wanted=0)

    def width(needed, texts, rows):
        return packer.stepped(packing.Size(rows, needed, 8), texts).width

    assert packer.stepped(packing.Size(4, 500, 130), 16) == packing.Size(4, 512, 192)
    assert packer.stepped(packing.Size(4, 500, 490), 16).states == 512
    # 256 texts in 64 rows, 1,968 tokens at the widest: a 32nd of it at most is 32.
    assert [width(n, 256, 64) for n in (700, 704, 768, 769)] == [704, 704, 768, 800]
    assert [width(n, 16, 4) for n in (480, 512, 520)] == [512, 512, 640]  # an eighth
    assert width(1953, 256, 64) == 1968  # the last is no wider than it may have to be
    assert width(480, 4, 4) == 496 and width(2000, 256, 64) == 2000
    assert width(17, 400, 4) == 1024 and width(1, 1, 1) == 128


@pytest.mark.parametrize(
    ("texts", "longest", "ways", "rows"),
    [(32, 512, 1, 8), (32, 512, 8, 8), (32, 80, 1, 2), (256, 492, 8, 64)]
    + [(2, 3000, 1, 2), (2, 3000, 8, 8), (1, 16, 1, 1), (5, 16, 1, 2)],
)
def test_usual_rows_by_hand(texts, longest, ways, rows):
    assert packing.usual_rows(texts, longest, ways) == rows


@hypothesis.given(st.lists(st.integers(1, 30), min_size=1, max_size=300))
def test_chosen_widths_hold_what_is_needed_at_the_least_price(needed):
    chosen = packing.choose_widths(needed)
    assert all(size >= need for size, need in zip(chosen, needed, strict=True))
    kinds = sorted(set(needed))
    price = packing.PROGRAM_UPDATES * np.mean(needed)
    cost = sum(chosen) + price * len(set(chosen))
    one = kinds[-1] * len(needed) + price
    each = sum(needed) + price * len(kinds)
    assert cost <= min(one, each) + 1e-6
    for low in kinds[:-1]:  # nor is any choice of two numbers cheaper
        two = sum(low if need <= low else kinds[-1] for need in needed) + 2 * price
        assert cost <= two + 1e-6


# Texts of an example, examples of an update, devices, longest text, updates.
PAPER = {
    "distill": (1, 128, 1, 512, 900),
    "distill on eight": (1, 128, 8, 512, 900),
    "preference": (2, 16, 1, 512, 2500),
    "preference on eight": (2, 16, 8, 512, 2500),
    "policy": (1, 256, 1, 492, 160),
    "policy on eight": (1, 256, 8, 492, 160),
}


@pytest.mark.parametrize("stage", PAPER)
def test_nine_tenths_of_the_papers_lengths_are_useful(stage):
    # Prompts of hh-rlhf up to 360 tokens: a tenth below 16, the median 86, a tenth
    # above 273; replies of 40 to 140.
    rng = np.random.default_rng(1)
    texts, batch, ways, longest, updates = PAPER[stage]
    quantiles = np.minimum([4, 16, 45, 86, 150, 273, 360], longest - 140)
    if "policy" in stage:
        quantiles = np.minimum(quantiles, 192)  # policy.prompt_tokens
    packer = packing.Packer(longest, 1, ways, pad_id=0, wanted=0)
    batches, tokens = [], 0
    for _ in range(updates):
        prompts = np.interp(
            rng.random(batch), [0, 0.1, 0.3, 0.5, 0.7, 0.9, 1], quantiles
        )
        replies = rng.integers(40, 141, (batch, texts))
        tokens += (prompts.astype(int)[:, None] + replies).sum()
        batches.append(
            [
                [
                    packing.Text((*range(prompt), *[-k - 1] * n))
                    for k, n in enumerate(own)
                ]
                for prompt, own in zip(prompts.astype(int), replies, strict=True)
            ]
        )
    if "policy" in stage:  # each step is sized when it is drawn
        places = [packer.place(one) for one in batches]
        sizes = [packer.stepped(one.size, batch) for one in places]
        rows, widths = sizes[0].rows, [size.width for size in sizes]
        assert {size.rows for size in sizes} == {rows}
    else:
        packer = packer.choose(batches[: packed_batches.TRIED])
        rows = packer.rows
        places = [packer.place(one) for one in batches]
        widths = packing.choose_widths([one.size.width for one in places])
    assert len(set(widths)) <= 8  # programs
    assert tokens / (updates * batch * texts * longest) < 0.5  # as padded rows
    assert packer.shares == (32 if texts == 2 else 0)
    read = tokens - sum(int(one.shared.sum()) for one in places)
    assert read / (rows * sum(widths)) >= 0.9
    if texts == 2:  # what is computed, of all tokens of the texts
        assert rows * sum(widths) <= (0.77 if ways == 1 else 0.79) * tokens


def test_positions_and_sight_of_texts_in_a_row():
    segments = jnp.array([[3, 3, -3, -3, 1, 1, 1, 0]], jnp.int32)
    np.testing.assert_array_equal(
        heads.positions_of(segments)[0, :7], [0, 1, 1, 1, 0, 1, 2]
    )


def ragged():
    """Return eight texts of 4 to 24 tokens."""
    return mesh_world._ids()


def distill_examples():
    return [
        distill_context.Example(ids, tuple(k >= len(ids) // 2 for k in range(len(ids))))
        for ids in ragged()
    ]


def pairs():
    """Return eight pairs, of which some have a beginning in common and some have none.

    One reply is the beginning of the other.
    """
    ids = ragged()
    made = [(one, other) for one, other in zip(ids, ids[::-1], strict=True)]
    for index in (0, 2, 5, 6):
        prompt, (one, other) = ids[index], made[index]
        made[index] = (prompt[:8] + one)[:24], (prompt[:8] + other)[:24]
    made[3] = ids[4][:-1], ids[4]
    return [
        pair_ids.TokenPair(*texts, label)
        for texts, label in zip(made, LABELS, strict=True)
    ]


def sharing(collate, shares):
    """Return how examples become arrays that share beginnings of two tokens, or none."""
    packer = dataclasses.replace(collate.packer, shares=2 * shares)
    return dataclasses.replace(collate, packer=packer)


def padded_distill(params, job, per_sequence):
    examples = distill_examples()
    tokens, mask = padded.pad_left([one.ids for one in examples], 24, 0)
    targets, _ = padded.pad_left([one.is_reply for one in examples], 24, 0)
    logprobs = padded.text_logprobs(
        params["policy"], job.cfg, tokens, mask, chunk_tokens=job.chunk_tokens
    )
    return losses.next_token(logprobs, targets.astype(bool), per_sequence=per_sequence)


def padded_direct(params, job, reference):
    ids = [ids for pair in pairs() for ids in (pair.ids_1, pair.ids_2)]
    tokens, mask = padded.pad_left(ids, 24, 0)
    logprobs = padded.text_logprobs(
        params["policy"], job.cfg, tokens, mask, chunk_tokens=job.chunk_tokens
    )
    counted = np.arange(24) >= np.array([24 - len(one) + 1 for one in ids])[:, None]
    ratios = jnp.where(counted, logprobs, 0.0).sum(axis=1).reshape(-1, 2) - reference
    labels = np.array(LABELS, np.float32)
    return preferences.direct(ratios[:, 0], ratios[:, 1], labels, loss="dpo", beta=0.1)


def padded_preference(params, job):
    ids = [ids for pair in pairs() for ids in (pair.ids_1, pair.ids_2)]
    tokens, mask = padded.pad_left(ids, 24, 0)
    scalars = heads.scalar_per_token(params["preference"], job.cfg, tokens, mask)
    both = scalars[:, -1].reshape(-1, 2)
    return preferences.bradley_terry(
        both[:, 0], both[:, 1], np.array(LABELS, np.float32)
    )


def gradient(job, loss_fn, params, batch, *, parts, weight):
    run = functools.partial(
        train_state.accumulate, loss_fn=loss_fn, num_micro=parts, weight=weight
    )
    rows = sharding.batch_sharding(job.mesh)
    with jax.set_mesh(job.mesh):
        return jax.jit(run, in_shardings=(None, rows))(params, batch)


def assert_step_is_that_of(padded, params, ours):
    """Compare a packed step with a padded loss of the same parameters and examples."""
    grads, metrics = ours
    step = jax.jit(jax.value_and_grad(padded, has_aux=True))
    (_, expected), expected_grads = step(params)
    for name in expected.keys() & LOSSES:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-5)
    scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected_grads))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale),
        grads,
        expected_grads,
    )


@pytest.mark.parametrize(
    ("mesh", "micro", "per_sequence"), [("one", 0, False), ("eight", 4, True)]
)
def test_packed_distillation_equals_padded(mesh, micro, per_sequence):
    job = mesh_world.make_job(MESHES[mesh], "plain")
    with job.config.unlocked():
        job.config.distill.micro_batch = micro
        job.config.distill.per_sequence = per_sequence
    params = {"policy": mesh_world.make_policy(job)}
    collate = distill_context.collate(job)
    batch = collate(distill_examples())
    parts = 2 if micro else 1
    assert len(batch["tokens"]) < 8 or mesh == "eight"
    ours = gradient(
        job,
        distill_context.distill_loss(job),
        params,
        batch,
        parts=parts,
        weight="weighs",
    )
    assert_step_is_that_of(lambda p: padded_distill(p, job, per_sequence), params, ours)


SHARED = [("one", 4, False), ("eight", 0, False), ("one", 4, True), ("eight", 0, True)]


@pytest.mark.parametrize(("mesh", "micro", "shares"), SHARED)
def test_packed_preference_equals_padded(mesh, micro, shares):
    job = mesh_world.make_job(MESHES[mesh], "plain")
    with job.config.unlocked():
        job.config.preference.micro_batch = micro
    scalar = mesh_world._params(job, heads.scalar_specs(job.cfg), 1)
    params = {"preference": scalar}
    batch = sharing(train_preference.collate(job), shares)(pairs())
    assert ("sources" in batch) == shares
    ours = gradient(
        job,
        model.preference_loss(job),
        params,
        batch,
        parts=2 if micro else 1,
        weight="counted",
    )
    assert_step_is_that_of(lambda p: padded_preference(p, job), params, ours)


@pytest.mark.parametrize(("mesh", "micro", "shares"), SHARED)
def test_packed_pairs_of_a_policy_equal_padded(mesh, micro, shares):
    job = mesh_world.make_job(MESHES[mesh], "plain")
    with job.config.unlocked():
        job.config.direct.micro_batch = micro
    params = {"policy": mesh_world.make_policy(job)}
    reference = np.random.default_rng(0).normal(-40, 5, (8, 2)).astype(np.float32)
    rows = [
        train_directly.ReadPair(pair, (float(one), float(two)))
        for pair, (one, two) in zip(pairs(), reference, strict=True)
    ]
    batch = sharing(train_directly.collate(job), shares)(rows)
    assert ("sources" in batch) == shares
    ours = gradient(
        job,
        train_directly.direct_loss(job),
        params,
        batch,
        parts=2 if micro else 1,
        weight="weighs",
    )
    assert_step_is_that_of(lambda p: padded_direct(p, job, reference), params, ours)


def padded_ppo(params, job, batch, texts, prompts):
    """Return the loss with prompts padded left and replies right, reply by reply."""
    split, whole = 16, 24
    tokens = np.full((8, whole), job.text_tokenizer.pad_id, np.int32)
    mask = np.zeros((8, whole), bool)
    for row, (text, num) in enumerate(zip(texts, prompts, strict=True)):
        end = split - num + len(text.ids)
        tokens[row, split - num : end] = text.ids
        mask[row, split - num : end] = True
    positions = heads.positions_of(mask)
    hidden, _ = llama.hidden_states(params["policy"], job.cfg, tokens, positions, mask)
    logprobs, _ = heads.token_logprobs(
        params["policy"],
        job.cfg,
        hidden[:, split - 1 : -1],
        tokens[:, split:],
        chunk_tokens=job.chunk_tokens,
        temperature=1.0,
    )
    section = job.config.policy
    how = {"statistics": section.statistics}
    reply = batch["response_mask"]
    policy, said = losses.ppo_policy(
        logprobs,
        batch["logprobs"],
        batch["advantages"],
        reply,
        clip=section.clip,
        per_sequence=section.per_sequence,
        **how,
    )
    if section.kl_in == "loss":
        kl, more = kl_penalty.kl_loss(
            logprobs,
            batch["ref_logprobs"],
            reply,
            estimator=section.kl_estimator,
            per_sequence=section.per_sequence,
        )
        total = policy + section.kl_coef * kl
        return total, {**said, **more, "loss/total": total}
    scalars = heads.scalar_per_token(params["value"], job.cfg, tokens, mask)
    value, more = losses.ppo_value(
        scalars[:, split - 1 : -1],
        batch["values"],
        batch["returns"],
        reply,
        clip=section.value_clip,
        **how,
    )
    total = policy + section.value_coef * value
    return total, {**said, **more, "loss/total": total}


@pytest.mark.parametrize(
    ("mesh", "micro", "rule"),
    [
        ("one", 4, "padded"),
        ("eight", 0, "masked"),
        ("eight", 4, "masked"),
        ("eight", 4, "grpo"),
    ],
)
def test_a_packed_ppo_update_equals_the_padded(mesh, micro, rule):
    job = mesh_world.make_job(MESHES[mesh], "plain")
    own = {"statistics": rule, "micro_batch": micro}
    if rule == "grpo":
        own |= {"statistics": "masked", "advantages": rule, "per_sequence": True}
        own |= {"samples_per_prompt": 4, "kl_in": "loss", "kl_estimator": "k3"}
        own["kl_coef"] = 0.5
    with job.config.unlocked():
        job.config.policy.update(own)
    params = {"policy": mesh_world.make_policy(job)}
    if rule != "grpo":
        params["value"] = mesh_world._params(job, heads.scalar_specs(job.cfg), 1)
    rng = np.random.default_rng(2)
    names = ("logprobs", "values", "advantages", "returns")
    given = {n: rng.normal(size=(8, 8)).astype(np.float32) for n in names}
    counts = np.array([1, 8, 3, 5, 2, 8, 7, 4])
    given["logprobs"] = given["logprobs"] - 6  # near those of a random model
    given["ref_logprobs"] = given["logprobs"] + 0.5
    given["response_mask"] = np.arange(8) < counts[:, None]
    prompts = [ids[:16] for ids in ragged()]
    texts = [
        reply_rows.text(job, ids, rng.integers(1, 250, count).tolist())
        for ids, count in zip(prompts, counts, strict=True)
    ]
    frozen = learning.rollout.Rollout(
        mask=given["response_mask"],
        ref_logprobs=given["ref_logprobs"],
        rewards=given["returns"],
        scores=np.zeros(8, np.float32),
        **{name: given[name] for name in names},
    )
    batch = next(learning.minibatches(frozen, texts, job, step=1))
    ours = gradient(
        job,
        learning.ppo_loss(job),
        params,
        batch,
        parts=2 if micro else 1,
        weight="weighs",
    )
    numbers = list(map(len, prompts))
    assert_step_is_that_of(
        lambda p: padded_ppo(p, job, given, texts, numbers), params, ours
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_the_rewards_of_packed_texts_are_those_of_each_alone(mesh):
    job = mesh_world.make_job(MESHES[mesh], "plain")
    params = mesh_world._params(job, heads.scalar_specs(job.cfg), 1)
    rng = np.random.default_rng(4)
    texts = [tuple(rng.integers(1, 250, n).tolist()) for n in [24, 3, 9, 1, 17, 24] * 9]
    found = rewards.reward_scorer(job, (24,))(params, texts)
    tokens, mask = padded.pad_left(texts, 24, 0)
    every = jax.jit(
        lambda *given: heads.scalar_per_token(given[0], job.cfg, *given[1:])
    )
    alone = every(params, tokens, mask)[:, -1]
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-5)
    assert rewards.reward_scorer(job, (24,))(params, []).shape == (0,)


def test_the_size_of_a_batch_is_a_function_of_rows_seed_and_step():
    job = mesh_world.make_job(MESHES["one"], "plain")
    collate = train_preference.collate(job)
    made = {"seed": 3, "batch_size": 4, "total": 6}
    first, again = (packed_batches.Batches(pairs(), collate, **made) for _ in "ab")
    for index in range(6):
        one, two = first.arrays(index), again.arrays(index)
        assert one.keys() == two.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], two[name])
    drawn = [row for index in range(2) for row in first.rows(index)]
    assert sorted(drawn, key=pairs().index) == pairs()  # an epoch takes each once
