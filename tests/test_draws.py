"""draws: retries in full waves, each with a key of its own."""

from pair_world import BYTES, PROMPTS, RLAIF, RLCD, TASK, FakeEngine, simulate

from rlcd_jax import seeds


def test_sample_retries_in_full_waves_with_the_same_text():
    generate = FakeEngine(reject=0.5)
    pairs, dropped, _ = simulate(generate=generate)
    sizes = [len(wave) for wave in generate.waves]
    assert sizes[0] == 2 * len(PROMPTS) and len(sizes) == 5  # max_tries attempts
    assert sizes == sorted(sizes, reverse=True)
    shown, keys = {}, set()
    for attempt, wave in enumerate(generate.waves):
        for request in wave:
            prompt_id, slot, number = request.id.rsplit("/", 2)
            assert int(number) == attempt
            assert request.seed == seeds.seed_words(
                7, "simulate", prompt_id, slot, attempt
            )
            assert request.tokens == shown.setdefault((prompt_id, slot), request.tokens)
            keys.add(request.seed)
    assert len(keys) == sum(sizes)  # no two draws share a key
    tries = sum(p.tries_1 + p.tries_2 for p in pairs)
    tries += sum(d.tries for d in dropped)
    assert tries <= sum(sizes)  # the finished sibling of a dropped side is the rest
    request = generate.waves[0][0]
    assert request.top_k == 50 and request.top_p == 0.9 and request.temperature == 1.0
    assert request.max_new_tokens == TASK.reply_tokens
    assert request.stop_strings == TASK.stop_strings
    assert request.forbidden_strings == TASK.forbidden_strings
    assert request.contrast_tokens is None


def test_alpha_moves_away_from_the_opposite_prompt():
    generate = FakeEngine(reject=0.0)
    pairs, _, _ = simulate(
        PROMPTS[:2], rows=(RLCD, RLAIF), generate=generate, alpha=1.5
    )
    by_slot = {r.id: r for r in generate.waves[0]}
    first, second = by_slot["p0/positive/0"], by_slot["p0/negative/0"]
    positive, negative = TASK.affixes[pairs[0].affix_index]
    # l(tokens) + alpha (l(contrast_tokens) - l(tokens)): own prompt beyond the other's.
    assert BYTES.decode(first.contrast_tokens).endswith(f"({positive}):")
    assert BYTES.decode(first.tokens).endswith(f"({negative}):")
    assert (second.tokens, second.contrast_tokens) == (
        first.contrast_tokens,
        first.tokens,
    )
    assert first.alpha == 1.5 and pairs[0].alpha == 1.5
    assert by_slot["p0/plain_1/0"].contrast_tokens is None
