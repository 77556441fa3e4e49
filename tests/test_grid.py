"""grid: keyed, order-free, resumable, and the cells of the paper."""

import dataclasses
import math

import pytest
from pair_world import (
    BYTES,
    HUMAN,
    PROMPTS,
    RESCORE,
    RLAIF,
    RLCD,
    SETTINGS,
    TASK,
    FakeEngine,
    score,
    simulate,
)

from rlcd_jax import record_files, records, tasks
from rlcd_jax.pairs import (
    counting,
    cut_counts,
    draws,
    grid,
    scored_labels,
    scoring_prompt,
)


def test_simulate_labels_the_positive_side_by_construction():
    drawn, _, _ = simulate()
    assert len(drawn) > 50
    for pair in drawn:
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
    drawn, dropped, summary = simulate(generate=FakeEngine(shuffle=False))
    again = simulate(generate=FakeEngine(shuffle=True))
    assert again == (drawn, dropped, summary)
    kept = [p.prompt_id for p in drawn]
    assert kept == [p.id for p in PROMPTS if p.id in kept]
    backwards, lost, _ = simulate(PROMPTS[::-1])
    assert backwards == drawn[::-1]
    assert in_prompt_order(backwards) == drawn
    assert sorted(map(str, lost)) == sorted(map(str, dropped))


@pytest.mark.parametrize("cut", [0, 1, 23, 59])
def test_simulate_after_a_kill_gives_the_same_pairs(cut):
    rows = (RLCD, RESCORE, RLAIF)
    drawn, dropped, summary = simulate(rows=rows)
    first, lost_1, told_1 = simulate(PROMPTS[:cut], rows=rows)
    second, lost_2, told_2 = simulate(PROMPTS[cut:], rows=rows)
    assert first + second == drawn and lost_1 + lost_2 == dropped
    ends = [told[cut_counts.SUMMARY]["replies"] for told in (told_1, told_2)]
    ends = {cut_counts.SUMMARY: {"replies": cut_counts.added(ends)}}
    assert counting.summarise(first + second, lost_1 + lost_2) | ends == summary


def test_simulate_can_draw_any_pair_again_alone():
    drawn, _, _ = simulate(rows=(RLCD, RLAIF))
    assert max(max(p.tries_1, p.tries_2) for p in drawn) > 2
    for pair in drawn[::7]:
        prompt = next(p for p in PROMPTS if p.id == pair.prompt_id)
        row = grid.GridCell(pair.sampling, pair.labels, 1.0)
        assert simulate([prompt], rows=(row,))[0] == [pair]


@pytest.mark.parametrize("process_count", [1, 2, 3, 7])
def test_simulate_on_several_processes_gives_the_same_pairs(process_count):
    drawn, dropped, _ = simulate()
    parts = [simulate(PROMPTS[i::process_count]) for i in range(process_count)]
    merged = [pair for part in parts for pair in part[0]]
    assert in_prompt_order(merged) == drawn
    lost = [line for part in parts for line in part[1]]
    assert in_prompt_order(lost) == dropped


def test_simulate_counts_drops_for_each_side():
    class NegativesNeverEnd(FakeEngine):
        def reply(self, request):
            reply = super().reply(request)
            bad = "/negative/" in request.id and request.id.startswith(("p1/", "p2/"))
            cut = dataclasses.replace(reply, finish="length", raw=reply.text)
            return cut if bad else reply

    generate = NegativesNeverEnd(reject=0.0)
    drawn, dropped, summary = simulate(generate=generate)
    assert [(d.prompt_id, d.side) for d in dropped] == [
        ("p1", "negative"),
        ("p2", "negative"),
    ]
    assert all(d.tries == 5 == len(d.raws) for d in dropped)
    assert all("Reply" in raw for d in dropped for raw in d.raws)
    assert dropped[0].reasons == ("unfinished",) * 5
    assert len(drawn) == 58 == summary["pairs"] == summary["prompts_with_pairs"]
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
    drawn, dropped, summary = simulate(dialogues, generate=generate)
    assert [p.prompt_id for p in drawn] == ["p0", "p1"]
    assert not any("long" in r.id for wave in generate.waves for r in wave)
    assert {d.prompt_id for d in dropped} == {"long"}
    assert all((d.reason, d.tries, d.raws) == (draws.TOO_LONG, 0, ()) for d in dropped)
    counts = {"of": 3, "dropped": 1, "shortened": 0, "identical": 0}
    assert summary["too_long"] == {"prompts": counts}
    assert summary["first_too_long"] == ["long"]
    assert summary["prompts_dropped"] == 1
    # One side over the limit is enough: its sibling is not sampled either.
    sizes = {
        s.side: len(s.tokens)
        for s in draws.make_draw(long, "contrast", TASK, BYTES, SETTINGS).sources
    }
    task = dataclasses.replace(TASK, prompt_tokens=min(sizes.values()))
    drawn, dropped, _ = simulate([long], generate=generate, task=task)
    assert not drawn and [d.side for d in dropped] == [max(sizes, key=sizes.get)]


def test_simulate_swaps_sides_and_draws_affixes_by_key():
    dialogues = [records.Prompt(f"q{i}", (HUMAN,)) for i in range(1000)]
    drawn, _, summary = simulate(dialogues, generate=FakeEngine(reject=0.0))
    share = summary["cells"]["contrast-construction"]["mean_prob_2"]
    assert abs(share - 0.5) < 0.052  # 3.3 standard deviations of 1000 fair coins
    counts = [0] * len(TASK.affixes)
    for pair in drawn:
        counts[pair.affix_index] += 1
    assert min(counts) > 1000 / 6 - 40  # 3.4 standard deviations
    other, _, _ = simulate(dialogues, generate=FakeEngine(reject=0.0), seed=8)
    same = sum(a.side_1 == b.side_1 for a, b in zip(drawn, other, strict=True))
    assert 400 < same < 600
    assert all(a.reply_1 != b.reply_1 for a, b in zip(drawn, other, strict=True))


def test_simulate_rlaif_shows_one_prompt_twice():
    generate = FakeEngine()
    drawn, _, summary = simulate(rows=(RLAIF,), generate=generate)
    instructions = set()
    for pair in drawn:
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

    drawn, _, _ = grid.simulate(
        PROMPTS,
        TASK,
        BYTES,
        FakeEngine(),
        rows=(RESCORE,),
        settings=SETTINGS,
        score=scorer,
    )
    assert len(seen) == len(drawn)
    for pair, text in zip(drawn, seen, strict=True):
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
    drawn, _, _ = simulate(rows=(RLCD, RESCORE), generate=generate)
    alone = FakeEngine()
    rlcd, _, _ = simulate(rows=(RLCD,), generate=alone)
    rescore, _, _ = simulate(rows=(RESCORE,))
    assert [len(w) for w in generate.waves] == [len(w) for w in alone.waves]
    assert drawn[::2] == rlcd and drawn[1::2] == rescore
    for a, b in zip(rlcd, rescore, strict=True):
        assert (a.reply_1, a.reply_2, a.side_1) == (b.reply_1, b.reply_2, b.side_1)
    assert len({pair.id for pair in drawn}) == len(drawn)


def test_simulate_shares_choose_prompts_by_key():
    half = dataclasses.replace(RLCD, share=0.5)
    fifth = dataclasses.replace(RESCORE, share=0.2)
    dialogues = [records.Prompt(f"q{i}", (HUMAN,)) for i in range(600)]
    drawn, _, _ = simulate(dialogues, rows=(half, fifth), generate=FakeEngine(0.0))
    in_half = {p.prompt_id for p in drawn if p.labels == "construction"}
    in_fifth = {p.prompt_id for p in drawn if p.labels == "scoring"}
    assert in_fifth < in_half  # the same prompts as far as the shares go
    assert abs(len(in_half) - 300) < 42 and abs(len(in_fifth) - 120) < 34
    again, _, _ = simulate(
        dialogues[::-1], rows=(half, fifth), generate=FakeEngine(0.0)
    )
    assert {p.id for p in again} == {p.id for p in drawn}


def test_scored_pair_averages_both_orders_and_cancels_position_bias():
    drawn, _, _ = simulate(
        rows=(RESCORE,), asking=scored_labels.Asking(both_orders=True)
    )

    def p_b(text):
        (a, b), *_ = score([text])
        return 1 / (1 + math.exp(a - b))

    for pair in drawn:
        words = TASK.scoring_instructions[pair.affix_index]
        one = scoring_prompt.scoring_prompt(
            pair.prompt, pair.reply_1, pair.reply_2, words
        )
        two = scoring_prompt.scoring_prompt(
            pair.prompt, pair.reply_2, pair.reply_1, words
        )
        assert pair.prob_2 == pytest.approx((p_b(one) + 1 - p_b(two)) / 2, rel=1e-12)
    biased = dataclasses.replace(drawn[0], scoring={"instruction_index": 0})
    assert (
        scored_labels.scored_pair(biased, [(3.0, 0.0), (3.0, 0.0)], False).prob_2 == 0.5
    )
    assert scored_labels.scored_pair(biased, [(0.0, 900.0)], False).prob_2 == 1.0
    assert scored_labels.scored_pair(biased, [(900.0, 0.0)], False).prob_2 == 0.0


def test_scored_pair_hard_label_gives_ties_to_the_first_reply():
    pair = simulate(PROMPTS[:1], rows=(RESCORE,))[0][0]
    for logits, expected in (((0, 0), 0.0), ((0, 0.1), 1.0), ((0.1, 0), 0.0)):
        hard = scored_labels.scored_pair(pair, [logits], True)
        assert hard.prob_2 == expected
        soft = 1 / (1 + math.exp(logits[0] - logits[1]))
        assert hard.scoring["prob_2"] == pytest.approx(soft)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: grid.GridCell("same", "construction", 1.0), "holds no information"),
        (lambda: grid.GridCell("both", "scoring", 1.0), "'contrast', 'graded', 'same'"),
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
    drawn, dropped, summary = simulate([], rows=(RLCD, RLAIF))
    assert (drawn, dropped, summary["pairs"], summary["cells"]) == ([], [], 0, {})


def test_simulate_in_the_chat_format_uses_system_messages():
    task = tasks.with_format(TASK, "chat")
    drawn, _, _ = simulate(PROMPTS[:5], rows=(RLCD, RESCORE), task=task)
    for pair in drawn:
        source = (
            pair.source_prompt_1 if pair.side_1 == "positive" else pair.source_prompt_2
        )
        assert source.startswith(f"[system] {task.systems[pair.affix_index][0]}\n")
        assert "[system]" not in pair.prompt


def test_pairs_survive_their_file(tmp_path):
    drawn, dropped, _ = simulate(rows=(RLCD, RESCORE, RLAIF), generate=FakeEngine(0.6))
    assert dropped
    for name, rows in (("pairs", drawn), ("dropped", dropped)):
        record_files.write_jsonl(tmp_path / name, rows)
        assert record_files.read_jsonl(tmp_path / name, type(rows[0])) == rows
