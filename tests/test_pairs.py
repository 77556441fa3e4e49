"""pairs and draws: keyed, order-free, resumable, and the grid of the paper."""

import dataclasses
import math
import random

import pytest

from rlcd_jax import record_files, records, seeds, tasks
from rlcd_jax.decode import requests as engine
from rlcd_jax.pairs import counting, draws, grid, scoring_prompt, training_texts
from rlcd_jax.text import tokenizer

TASK = tasks.load_task("cheerful")
BYTES = tokenizer.byte_tokenizer()
SETTINGS = draws.Settings(
    seed=7,
    generator="fake",
    temperature=1.0,
    top_p=0.9,
    top_k=50,
    alpha=1.0,
    max_tries=5,
    both_orders=False,
    hard_labels=False,
)
TASK = dataclasses.replace(
    TASK,
    prompt_tokens=400,
    cleanup=dataclasses.replace(TASK.cleanup, unfinished="reject"),
)
RLCD = grid.GridCell("contrast", "construction", 1.0)
RESCORE = grid.GridCell("contrast", "scoring", 1.0)
RLAIF = grid.GridCell("same", "scoring", 1.0)
HUMAN = records.Turn("human", "How was your day?")
PROMPTS = [
    records.Prompt(
        f"p{i}",
        (records.Turn("human", f"Hi {i}"), records.Turn("assistant", "Hm."), HUMAN),
    )
    for i in range(60)
]


class FakeEngine:
    """Draws a reply from the request alone; about `reject` of them are unusable."""

    def __init__(self, reject=0.3, shuffle=False):
        self.reject, self.shuffle = reject, shuffle
        self.waves: list[list[engine.Request]] = []

    def __call__(self, requests):
        self.waves.append(list(requests))
        replies = [self.reply(request) for request in requests]
        if self.shuffle:
            random.Random(len(requests)).shuffle(replies)
        return replies

    def reply(self, request):
        draw = random.Random(str((request.seed, request.tokens)))
        bad = draw.random() < self.reject
        text = f" Reply {draw.randrange(10**6)}."
        finish = "length" if bad else draw.choice(["eos", "stop"])
        raw = text + "\n\nHuman:" if finish == "stop" else text
        ids = tuple(raw.encode())
        return engine.Reply(request.id, ids, text, raw, finish, (), ())


def score(texts):
    """Logits that are a function of the text, with a bias towards A."""
    return [(len(t) % 7 * 0.3 + 0.5, random.Random(t).random()) for t in texts]


def simulate(dialogues=PROMPTS, rows=(RLCD,), generate=None, task=TASK, **changes):
    return grid.simulate(
        dialogues,
        task,
        BYTES,
        generate or FakeEngine(),
        rows=rows,
        settings=dataclasses.replace(SETTINGS, **changes),
        score=score,
    )


def test_simulate_labels_the_positive_side_by_construction():
    found, _, _ = simulate()
    assert len(found) > 50
    for pair in found:
        assert {pair.side_1, pair.side_2} == {"positive", "negative"}
        better = pair.side_2 if pair.prob_2 == 1.0 else pair.side_1
        assert pair.prob_2 in (0.0, 1.0) and better == "positive"
        positive, negative = TASK.affixes[pair.affix_index]
        for side, source in (
            (pair.side_1, pair.source_prompt_1),
            (pair.side_2, pair.source_prompt_2),
        ):
            mine, other = (
                (positive, negative) if side == "positive" else (negative, positive)
            )
            assert source.endswith(f"\n\nAssistant ({mine}):")
            assert f"\n\nAssistant ({other}): Hm." in source  # history: the opposite
        assert "(" not in pair.prompt and pair.prompt.endswith("\n\nAssistant:")
        assert pair.reply_1 == pair.raw_1.removesuffix("\n\nHuman:").strip()
        assert pair.scoring is None and pair.seed == 7 and pair.generator == "fake"


def in_prompt_order(lines):
    """Return pairs, or prompts that were dropped, in the order of the prompts."""
    places = [prompt.id for prompt in PROMPTS]
    return sorted(lines, key=lambda line: places.index(line.prompt_id))


def test_simulate_ignores_completion_order_and_prompt_order():
    found, dropped, summary = simulate(generate=FakeEngine(shuffle=False))
    again = simulate(generate=FakeEngine(shuffle=True))
    assert again == (found, dropped, summary)
    kept = [p.prompt_id for p in found]
    assert kept == [p.id for p in PROMPTS if p.id in kept]
    backwards, lost, _ = simulate(PROMPTS[::-1])
    assert backwards == found[::-1]
    assert in_prompt_order(backwards) == found
    assert sorted(map(str, lost)) == sorted(map(str, dropped))


@pytest.mark.parametrize("cut", [0, 1, 23, 59])
def test_simulate_after_a_kill_gives_the_same_pairs(cut):
    rows = (RLCD, RESCORE, RLAIF)
    found, dropped, summary = simulate(rows=rows)
    first, lost_1, _ = simulate(PROMPTS[:cut], rows=rows)
    second, lost_2, _ = simulate(PROMPTS[cut:], rows=rows)
    assert first + second == found and lost_1 + lost_2 == dropped
    assert counting.summarise(first + second, lost_1 + lost_2) == summary


def test_simulate_can_draw_any_pair_again_alone():
    found, _, _ = simulate(rows=(RLCD, RLAIF))
    assert max(max(p.tries_1, p.tries_2) for p in found) > 2
    for pair in found[::7]:
        prompt = next(p for p in PROMPTS if p.id == pair.prompt_id)
        row = grid.GridCell(pair.sampling, pair.labels, 1.0)
        assert simulate([prompt], rows=(row,))[0] == [pair]


@pytest.mark.parametrize("process_count", [1, 2, 3, 7])
def test_simulate_on_several_processes_gives_the_same_pairs(process_count):
    found, dropped, _ = simulate()
    parts = [simulate(PROMPTS[i::process_count]) for i in range(process_count)]
    merged = [pair for part in parts for pair in part[0]]
    assert in_prompt_order(merged) == found
    lost = [line for part in parts for line in part[1]]
    assert in_prompt_order(lost) == dropped


def test_sample_retries_in_full_waves_with_the_same_text():
    generate = FakeEngine(reject=0.5)
    found, dropped, _ = simulate(generate=generate)
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
    tries = sum(p.tries_1 + p.tries_2 for p in found)
    tries += sum(d.tries for d in dropped)
    assert tries <= sum(sizes)  # the finished sibling of a dropped side is the rest
    request = generate.waves[0][0]
    assert request.top_k == 50 and request.top_p == 0.9 and request.temperature == 1.0
    assert request.max_new_tokens == TASK.reply_tokens
    assert request.stop_strings == TASK.stop_strings
    assert request.forbidden_strings == TASK.forbidden_strings
    assert request.contrast_tokens is None


def test_simulate_counts_drops_for_each_side():
    class NegativesNeverEnd(FakeEngine):
        def reply(self, request):
            reply = super().reply(request)
            bad = "/negative/" in request.id and request.id.startswith(("p1/", "p2/"))
            cut = dataclasses.replace(reply, finish="length", raw=reply.text)
            return cut if bad else reply

    generate = NegativesNeverEnd(reject=0.0)
    found, dropped, summary = simulate(generate=generate)
    assert [(d.prompt_id, d.side) for d in dropped] == [
        ("p1", "negative"),
        ("p2", "negative"),
    ]
    assert all(d.tries == 5 == len(d.raws) for d in dropped)
    assert all("Reply" in raw for d in dropped for raw in d.raws)
    assert dropped[0].reasons == ("unfinished",) * 5
    assert len(found) == 58 == summary["pairs"] == summary["prompts_with_pairs"]
    assert summary["prompts_dropped"] == 2 and summary["dropped_tries"] == 10
    assert summary["dropped_by_side"] == {"negative": {"unfinished": 2}}
    cell = summary["cells"]["contrast-construction"]
    assert cell["sides"]["positive"]["tries"] == {"1": 58}
    assert cell["sides"]["positive"]["mean_prob_better"] == 1.0
    assert cell["sides"]["negative"]["mean_prob_better"] == 0.0
    assert set(cell["sides"]["positive"]["finish"]) == {"eos", "stop"}


def test_simulate_drops_long_prompts_before_sampling_and_names_them():
    long = records.Prompt("long", (records.Turn("human", "x" * 400),))
    generate = FakeEngine(reject=0.0)
    dialogues = [PROMPTS[0], long, PROMPTS[1]]
    found, dropped, summary = simulate(dialogues, generate=generate)
    assert [p.prompt_id for p in found] == ["p0", "p1"]
    assert not any("long" in r.id for wave in generate.waves for r in wave)
    assert {d.prompt_id for d in dropped} == {"long"}
    assert all((d.reason, d.tries, d.raws) == (draws.TOO_LONG, 0, ()) for d in dropped)
    assert summary["prompts_too_long"] == {"count": 1, "first_ids": ["long"]}
    assert summary["prompts_dropped"] == 1
    # One side over the limit is enough: its sibling is not sampled either.
    sizes = {
        s.side: len(s.tokens)
        for s in draws.make_draw(long, "contrast", TASK, BYTES, SETTINGS).sources
    }
    task = dataclasses.replace(TASK, prompt_tokens=min(sizes.values()))
    found, dropped, _ = simulate([long], generate=generate, task=task)
    assert not found and [d.side for d in dropped] == [max(sizes, key=sizes.get)]


def test_simulate_swaps_sides_and_draws_affixes_by_key():
    dialogues = [records.Prompt(f"q{i}", (HUMAN,)) for i in range(1000)]
    found, _, summary = simulate(dialogues, generate=FakeEngine(reject=0.0))
    share = summary["cells"]["contrast-construction"]["mean_prob_2"]
    assert abs(share - 0.5) < 0.052  # 3.3 standard deviations of 1000 fair coins
    counts = [0] * len(TASK.affixes)
    for pair in found:
        counts[pair.affix_index] += 1
    assert min(counts) > 1000 / 6 - 40  # 3.4 standard deviations
    other, _, _ = simulate(dialogues, generate=FakeEngine(reject=0.0), seed=8)
    same = sum(a.side_1 == b.side_1 for a, b in zip(found, other, strict=True))
    assert 400 < same < 600
    assert all(a.reply_1 != b.reply_1 for a, b in zip(found, other, strict=True))


def test_simulate_rlaif_shows_one_prompt_twice():
    generate = FakeEngine()
    found, _, summary = simulate(rows=(RLAIF,), generate=generate)
    instructions = set()
    for pair in found:
        assert pair.source_prompt_1 == pair.source_prompt_2 == pair.prompt
        assert (pair.side_1, pair.side_2, pair.affix_index) == ("plain", "plain", None)
        assert pair.reply_1 != pair.reply_2
        instructions.add(pair.scoring["instruction_index"])
    assert instructions == set(range(len(TASK.scoring_instructions)))
    assert set(summary["cells"]) == {"same-scoring"}


def test_simulate_scores_with_the_soft_label_of_the_paper():
    seen = []

    def scorer(texts):
        seen.extend(texts)
        return score(texts)

    found, _, _ = grid.simulate(
        PROMPTS,
        TASK,
        BYTES,
        FakeEngine(),
        rows=(RESCORE,),
        settings=SETTINGS,
        score=scorer,
    )
    assert len(seen) == len(found)
    for pair, text in zip(found, seen, strict=True):
        index = pair.scoring["instruction_index"]
        assert index == pair.affix_index
        assert text == scoring_prompt.scoring_prompt(
            pair.prompt, pair.reply_1, pair.reply_2, TASK.scoring_instructions[index]
        )
        a, b = score([text])[0]
        assert (pair.scoring["logit_a"], pair.scoring["logit_b"]) == (a, b)
        soft = math.exp(b) / (math.exp(a) + math.exp(b))
        assert pair.prob_2 == pytest.approx(soft, rel=1e-12)


def test_simulate_mixed_rows_share_their_samples():
    generate = FakeEngine()
    found, _, _ = simulate(rows=(RLCD, RESCORE), generate=generate)
    alone = FakeEngine()
    rlcd, _, _ = simulate(rows=(RLCD,), generate=alone)
    rescore, _, _ = simulate(rows=(RESCORE,))
    assert [len(w) for w in generate.waves] == [len(w) for w in alone.waves]
    assert found[::2] == rlcd and found[1::2] == rescore
    for a, b in zip(rlcd, rescore, strict=True):
        assert (a.reply_1, a.reply_2, a.side_1) == (b.reply_1, b.reply_2, b.side_1)
    assert len({pair.id for pair in found}) == len(found)


def test_simulate_shares_choose_prompts_by_key():
    half = dataclasses.replace(RLCD, share=0.5)
    fifth = dataclasses.replace(RESCORE, share=0.2)
    dialogues = [records.Prompt(f"q{i}", (HUMAN,)) for i in range(600)]
    found, _, _ = simulate(dialogues, rows=(half, fifth), generate=FakeEngine(0.0))
    in_half = {p.prompt_id for p in found if p.labels == "construction"}
    in_fifth = {p.prompt_id for p in found if p.labels == "scoring"}
    assert in_fifth < in_half  # the same prompts as far as the shares go
    assert abs(len(in_half) - 300) < 42 and abs(len(in_fifth) - 120) < 34
    again, _, _ = simulate(
        dialogues[::-1], rows=(half, fifth), generate=FakeEngine(0.0)
    )
    assert {p.id for p in again} == {p.id for p in found}


def test_scored_pair_averages_both_orders_and_cancels_position_bias():
    found, _, _ = simulate(rows=(RESCORE,), both_orders=True)

    def p_b(text):
        (a, b), *_ = score([text])
        return 1 / (1 + math.exp(a - b))

    for pair in found:
        words = TASK.scoring_instructions[pair.affix_index]
        one = scoring_prompt.scoring_prompt(
            pair.prompt, pair.reply_1, pair.reply_2, words
        )
        two = scoring_prompt.scoring_prompt(
            pair.prompt, pair.reply_2, pair.reply_1, words
        )
        assert pair.prob_2 == pytest.approx((p_b(one) + 1 - p_b(two)) / 2, rel=1e-12)
    biased = dataclasses.replace(found[0], scoring={"instruction_index": 0})
    assert grid.scored_pair(biased, [(3.0, 0.0), (3.0, 0.0)], False).prob_2 == 0.5
    assert grid.scored_pair(biased, [(0.0, 900.0)], False).prob_2 == 1.0
    assert grid.scored_pair(biased, [(900.0, 0.0)], False).prob_2 == 0.0


def test_scored_pair_hard_label_gives_ties_to_the_first_reply():
    pair = simulate(PROMPTS[:1], rows=(RESCORE,))[0][0]
    for logits, expected in (((0, 0), 0.0), ((0, 0.1), 1.0), ((0.1, 0), 0.0)):
        hard = grid.scored_pair(pair, [logits], True)
        assert hard.prob_2 == expected
        soft = 1 / (1 + math.exp(logits[0] - logits[1]))
        assert hard.scoring["prob_2"] == pytest.approx(soft)


def test_alpha_moves_away_from_the_opposite_prompt():
    generate = FakeEngine(reject=0.0)
    found, _, _ = simulate(
        PROMPTS[:2], rows=(RLCD, RLAIF), generate=generate, alpha=1.5
    )
    by_slot = {r.id: r for r in generate.waves[0]}
    first, second = by_slot["p0/positive/0"], by_slot["p0/negative/0"]
    positive, negative = TASK.affixes[found[0].affix_index]
    # l(tokens) + alpha (l(contrast_tokens) - l(tokens)): own prompt beyond the other's.
    assert BYTES.decode(first.contrast_tokens).endswith(f"({positive}):")
    assert BYTES.decode(first.tokens).endswith(f"({negative}):")
    assert (second.tokens, second.contrast_tokens) == (
        first.contrast_tokens,
        first.tokens,
    )
    assert first.alpha == 1.5 and found[0].alpha == 1.5
    assert by_slot["p0/plain_1/0"].contrast_tokens is None


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: grid.GridCell("same", "construction", 1.0), "holds no information"),
        (lambda: grid.GridCell("both", "scoring", 1.0), "'contrast', 'same'"),
        (lambda: grid.GridCell("same", "scoring", 1.5), "'share' is 1.5"),
        (lambda: simulate(PROMPTS[:2] + PROMPTS[:1]), "'p0' occurs twice"),
        (lambda: simulate(rows=()), "one or more distinct cells"),
        (lambda: simulate(rows=(RLCD, RLCD)), "one or more distinct cells"),
        (lambda: simulate(max_tries=0), "'max_tries' is 0; accepted: at least 1"),
        (lambda: simulate(generate=lambda r: []), "answered 0 of 120 requests"),
        (
            lambda: grid.simulate(
                PROMPTS, TASK, BYTES, FakeEngine(), rows=(RLAIF,), settings=SETTINGS
            ),
            "need a score function",
        ),
        (
            lambda: grid.simulate(
                PROMPTS,
                TASK,
                BYTES,
                FakeEngine(),
                rows=(RLAIF,),
                settings=SETTINGS,
                score=lambda texts: [(0.0, 0.0)],
            ),
            "score gave 1 results",
        ),
        (
            lambda: grid.simulate(
                PROMPTS,
                TASK,
                BYTES,
                FakeEngine(),
                rows=(RLAIF,),
                settings=SETTINGS,
                score=lambda texts: [(0.0, math.nan)] * len(texts),
            ),
            "accepted: finite",
        ),
    ],
)
def test_simulate_names_what_it_accepts(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_simulate_of_no_prompts_is_empty():
    found, dropped, summary = simulate([], rows=(RLCD, RLAIF))
    assert (found, dropped, summary["pairs"], summary["cells"]) == ([], [], 0, {})


def test_positives_keep_one_affix_free_example_a_prompt():
    found, _, _ = simulate(rows=(RLCD, RESCORE, RLAIF))
    kept = training_texts.positives(found)
    assert len(kept) == len({p.prompt_id for p in found if p.sampling == "contrast"})
    for pair in kept:
        prompt, target = training_texts.distill_example(pair, TASK)
        reply = pair.reply_1 if pair.side_1 == "positive" else pair.reply_2
        assert (prompt, target) == (pair.prompt, f" {reply}\n\nHuman:")
        assert not any(affix in prompt for affix in TASK.affixes[pair.affix_index])
    plain = next(p for p in found if p.sampling == "same")
    with pytest.raises(ValueError, match="which have a positive side"):
        training_texts.distill_example(plain, TASK)


def test_preference_texts_end_with_the_mark():
    pair = simulate(PROMPTS[:1])[0][0]
    first, second = training_texts.preference_texts(pair, TASK)
    assert first == (pair.prompt, f" {pair.reply_1}\n\nHuman:")
    assert second == (pair.prompt, f" {pair.reply_2}\n\nHuman:")
    human = records.HumanPair("h", "h", "Human: a\n\nAssistant:", "None ", "nan", 1.0)
    assert training_texts.preference_texts(human, TASK)[0] == (
        "Human: a\n\nAssistant:",
        " None\n\nHuman:",
    )
    assert human.chosen == "nan" and human.rejected == "None "
    chat = tasks.with_format(TASK, "chat")
    assert training_texts.reply_text("Hi.", chat, "<|im_end|>") == "Hi.<|im_end|>"
    with pytest.raises(ValueError, match="pass end_of_turn"):
        training_texts.preference_texts(pair, chat)


def test_simulate_in_the_chat_format_uses_system_messages():
    task = tasks.with_format(TASK, "chat")
    found, _, _ = simulate(PROMPTS[:5], rows=(RLCD, RESCORE), task=task)
    for pair in found:
        source = (
            pair.source_prompt_1 if pair.side_1 == "positive" else pair.source_prompt_2
        )
        assert source.startswith(f"[system] {task.systems[pair.affix_index][0]}\n")
        assert "[system]" not in pair.prompt


def test_pairs_survive_their_file(tmp_path):
    found, dropped, _ = simulate(rows=(RLCD, RESCORE, RLAIF), generate=FakeEngine(0.6))
    assert dropped
    for name, rows in (("pairs", found), ("dropped", dropped)):
        record_files.write_jsonl(tmp_path / name, rows)
        assert record_files.read_jsonl(tmp_path / name, type(rows[0])) == rows
