"""More than two replies a draw: of one prompt, or by a scale; what is lost, counted."""

import dataclasses
import itertools
import json
import math

import pytest
from made_pair import make_pair
from pair_world import (
    BYTES,
    GRADED,
    PROMPTS,
    RLAIF,
    SETTINGS,
    TASK,
    FakeEngine,
    simulate,
)

from rlcd_jax import record_files, records, schema, seeds, tasks
from rlcd_jax.datasets import simulated_pairs
from rlcd_jax.diagnosis import pair_readings
from rlcd_jax.pairs import contrast, counting, draws, grid, training_texts

GRADED_SCORED = grid.GridCell("graded", "scoring", 1.0)
FEW = PROMPTS[:12]


def by_draw(pairs):
    """Return the pairs of each draw, which follow each other."""
    return {key: list(own) for key, own in itertools.groupby(pairs, key=records.key_of)}


# --- one prompt, several times ---------------------------------------------------------


def test_all_pairs_of_several_replies_are_scored():
    pairs, dropped, summary = simulate(
        FEW, rows=(RLAIF,), generate=FakeEngine(reject=0), samples=4
    )
    assert not dropped and summary["pairs"] == len(pairs) == 12 * 6
    for key, own in by_draw(pairs).items():
        ends = ["1-2", "1-3", "1-4", "2-3", "2-4", "3-4"]
        assert [pair.id for pair in own] == [f"{key}/same-scoring/{n}" for n in ends]
        assert len({text for p in own for text in (p.reply_1, p.reply_2)}) == 4
        assert len({pair.scoring["instruction_index"] for pair in own}) == 1
        assert all(0 < pair.prob_2 < 1 for pair in own)
    first = [own[0].reply_1 == own[1].reply_1 for own in by_draw(pairs).values()]
    assert any(first) and not all(first)  # which stands first is a coin for each pair


def test_the_first_two_replies_are_those_of_a_draw_of_two():
    two, _, _ = simulate(FEW, rows=(RLAIF,), generate=FakeEngine(reject=0))
    four, _, _ = simulate(FEW, rows=(RLAIF,), generate=FakeEngine(reject=0), samples=4)
    for pair, own in zip(two, by_draw(four).values(), strict=True):
        assert pair.id == f"{records.key_of(pair)}/same-scoring"
        assert {pair.reply_1, pair.reply_2} == {own[0].reply_1, own[0].reply_2}


@pytest.mark.parametrize("cut", [1, 7])
def test_a_draw_does_not_depend_on_the_others(cut):
    whole = simulate(FEW, rows=(GRADED,), samples=3)
    parts = [simulate(p, rows=(GRADED,), samples=3) for p in (FEW[:cut], FEW[cut:])]
    assert [a + b for a, b in zip(*(part[:2] for part in parts), strict=True)] == [
        *whole[:2]
    ]


class SomeFail(FakeEngine):
    """Gives p0 no second reply, and p1 none of its first two grades, or but one."""

    def reply(self, request):
        reply = super().reply(request)
        prompt, slot, _ = request.id.split("/")
        bad = slot[-1] in {"p0": "2", "p1": "123"}.get(prompt, "")
        return dataclasses.replace(reply, finish="length", raw="x") if bad else reply


@pytest.mark.parametrize(("row", "left"), [(RLAIF, 0), (GRADED, 1)])
def test_a_draw_that_lost_replies_has_the_pairs_of_the_others(row, left, tmp_path):
    pairs, dropped, summary = simulate(
        FEW, rows=(row,), generate=SomeFail(reject=0), samples=4
    )
    found = by_draw(pairs)
    ends = [pair.id.rsplit("/")[-1] for pair in found["p0"]]
    assert ends == ["1-3", "1-4", "3-4"]
    assert len(found.get("p1", ())) == left and len(found["p2"]) == 6
    assert summary["prompts_with_fewer_replies"] == 1 + left
    assert summary["prompts_dropped"] == 1 - left
    assert summary["pairs"] == len(pairs) == 3 + left + 6 * 10
    record_files.write_jsonl(tmp_path / "d.jsonl", dropped)
    assert record_files.read_jsonl(tmp_path / "d.jsonl", records.Dropped) == dropped
    assert len({(d.prompt_id, d.slot) for d in dropped}) == len(dropped)


def test_a_prompt_that_is_too_long_is_not_drawn_at_all_and_its_file_can_be_read(
    tmp_path,
):
    long = records.Prompt("long", (records.Turn("human", "x" * 500),))
    for samples in (2, 3):
        pairs, dropped, summary = simulate([long], rows=(RLAIF,), samples=samples)
        assert not pairs and len(dropped) == samples
        assert {d.reason for d in dropped} == {draws.TOO_LONG}
        assert summary["prompts_dropped"] == 1
        record_files.write_jsonl(tmp_path / "d.jsonl", dropped)
        assert record_files.read_jsonl(tmp_path / "d.jsonl", records.Dropped) == dropped


# --- by a scale -------------------------------------------------------------------------


def test_graded_replies_are_asked_for_by_the_scale():
    pairs, _, summary = simulate(
        FEW, rows=(GRADED,), generate=FakeEngine(reject=0), samples=3
    )
    assert {pair.scale_index for pair in pairs} == {0, 1}
    for pair in pairs:
        scale = TASK.scales[pair.scale_index]
        assert pair.affix_index is None and pair.sampling == "graded"
        for n in "12":
            place = scale.grades.index(getattr(pair, f"grade_{n}"))
            shown = getattr(pair, f"source_prompt_{n}")
            assert shown.endswith(f"\n\nAssistant ({scale.affixes[place]}):")
            # The history is of the grade as far from the other end.
            assert f"\n\nAssistant ({scale.affixes[-1 - place]}): Hm." in shown
        better = pair.grade_2 > pair.grade_1
        assert pair.prob_2 == float(better) == float(pair.side_2 == "positive")
        assert "(" not in pair.prompt
    grades = [sorted((p.grade_1, p.grade_2)) for p in by_draw(pairs)["p0"]]
    assert grades == [[0, 2], [-2, 2], [-2, 0]]
    assert set(summary["cells"]["graded-construction"]["sides"]) == {
        "grade -2",
        "grade 0",
        "grade 2",
    }
    first = training_texts.positives(pairs)  # for distillation, the most of it
    assert {max(p.grade_1, p.grade_2) for p in first} == {2.0}


def test_a_grade_is_the_same_draw_however_many_are_drawn():
    few, many = (
        simulate(FEW, rows=(GRADED,), generate=FakeEngine(reject=0), samples=n)[0]
        for n in (2, 5)
    )
    assert all({p.grade_1, p.grade_2} == {2, -2} for p in few)
    replies = {
        (p.prompt_id, getattr(p, f"grade_{n}")): getattr(p, f"reply_{n}")
        for p in many
        for n in "12"
    }
    assert len(replies) == 5 * len(FEW)
    for pair in few:
        for n in "12":
            name = (pair.prompt_id, getattr(pair, f"grade_{n}"))
            assert getattr(pair, f"reply_{n}") == replies[name]


@pytest.mark.parametrize("grades", range(2, 9))
def test_rungs_are_distinct_and_have_both_ends(grades):
    for samples in range(2, grades + 1):
        places = draws.rungs(grades, samples)
        assert sorted(set(places)) == places and len(places) == samples
        assert (places[0], places[-1]) == (0, grades - 1)


def test_graded_pairs_can_be_scored_too():
    pairs, _, _ = simulate(
        FEW, rows=(GRADED, GRADED_SCORED), generate=FakeEngine(reject=0), samples=3
    )
    made, scored = (
        [p for p in pairs if p.labels == labels]
        for labels in ("construction", "scoring")
    )
    assert len(made) == len(scored) == 3 * len(FEW)
    for one, two in zip(made, scored, strict=True):
        assert one.reply_1 == two.reply_1 and one.grade_1 == two.grade_1
        assert (
            0 < two.prob_2 < 1 and one.id.replace("construction", "scoring") == two.id
        )
        index = seeds.seed_choice(6, 7, "instruction", records.key_of(two))
        assert two.scoring["instruction_index"] == index


def test_alpha_moves_away_from_the_opposite_grade():
    generate = FakeEngine(reject=0)
    simulate(FEW[:1], rows=(GRADED,), generate=generate, samples=4, alpha=1.5)
    asked = {request.id.split("/")[1]: request for request in generate.waves[0]}
    assert list(asked) == ["grade_1", "grade_2", "grade_4", "grade_5"]
    affixes = next(
        scale.affixes
        for scale in TASK.scales
        if scale.affixes[0] in BYTES.decode(asked["grade_1"].contrast_tokens)
    )
    for slot, request in asked.items():
        place = int(slot[-1]) - 1
        own, other = (
            BYTES.decode(ids) for ids in (request.contrast_tokens, request.tokens)
        )
        assert own.endswith(f"({affixes[place]}):")
        assert other.endswith(f"({affixes[-1 - place]}):")


def test_chat_scales_are_system_messages():
    task = tasks.with_format(TASK, "chat")

    def chat(turns, system, *begun):
        return f"[{system}] {turns[-1].text}"

    texts = contrast.graded_prompts(PROMPTS[0], task, 1, chat)
    assert texts == [f"[{one}] How was your day?" for one in task.scales[1].systems]
    with pytest.raises(ValueError, match="scale 2; task 'cheerful' has 2"):
        contrast.graded_prompts(PROMPTS[0], task, 2, chat)


def test_readings_of_graded_pairs_are_of_their_affixes():
    generate = FakeEngine(reject=0)
    pairs, _, _ = simulate(FEW, rows=(GRADED,), generate=generate, samples=3)
    pair = pairs[0]
    scale = TASK.scales[pair.scale_index]
    quoting = dataclasses.replace(pair, reply_1=f"A {scale.affixes[0]}.")
    top = pair.grade_1 == 2.0
    (reading,) = pair_readings.measure([quoting], TASK)
    assert reading.sides[0][0] == "positive"
    assert reading.first.text == (quoting.reply_1 if top else quoting.reply_2)
    assert reading.first.quotes == top
    other = dataclasses.replace(pair, scale_index=7)
    with pytest.raises(ValueError, match="scale 7; task 'cheerful' has no such"):
        pair_readings.measure([other], TASK)


# --- what is refused --------------------------------------------------------------------


def test_what_cannot_be_drawn_is_told():
    bare = dataclasses.replace(TASK, scales=())
    assert draws.too_many(TASK, "graded", 5) == draws.too_many(TASK, "same", 9) == ""
    for task, sampling, samples, told in (
        (TASK, "contrast", 3, "a contrast has two prompts; set pairs.samples=2"),
        (bare, "graded", 2, "task 'cheerful' has none; give its file"),
        (TASK, "graded", 6, "a scale of 5 grades; set pairs.samples to 5 or less"),
    ):
        assert told in draws.too_many(task, sampling, samples)
        row = grid.GridCell(
            sampling, "construction" if sampling != "same" else "scoring", 1.0
        )
        with pytest.raises(ValueError, match="pairs.sam"):
            simulate(FEW, rows=(row,), task=task, samples=samples)
    with pytest.raises(ValueError, match="'samples' is 1"):
        dataclasses.replace(SETTINGS, samples=1)


GRADES = {"sampling": "graded", "grade_1": 1.0, "grade_2": 0.0, "scale_index": 0}


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"grade_1": 1.0}, "'scale_index' are 1.0, None and None; accepted where"),
        ({"grade_1": 1.0, "grade_2": -1.0}, "'sampling' is 'contrast': null"),
        ({"scale_index": 0}, "'sampling' is 'contrast': null"),
        (GRADES | {"scale_index": None}, "'sampling' is 'graded': numbers"),
        (GRADES | {"grade_1": -1.0}, "'side_2' is 'negative', 'grade_1' -1.0"),
        (GRADES | {"grade_1": 0.0}, "'grade_2' 0.0; accepted: 'positive' for the"),
        ({"sampling": "graded", "side_2": "plain"}, "'side_1' and 'side_2'"),
    ],
)
def test_a_pair_with_wrong_grades_is_refused(own, told):
    with pytest.raises(ValueError, match=told):
        make_pair(**own)


def test_graded_pairs_are_records_that_go_through_files_and_data_sets(tmp_path):
    pairs, _, _ = simulate(FEW[:2], rows=(GRADED,), samples=3)
    again = [
        schema.from_dict(records.Pair, json.loads(json.dumps(schema.to_dict(pair))))
        for pair in pairs
    ]
    assert again == pairs
    old = [schema.to_dict(make_pair())]
    for name in record_files.LATER:
        old[0].pop(name, None)
    record_files.write_jsonl(tmp_path / "old.jsonl", old)
    read = record_files.read_jsonl(tmp_path / "old.jsonl", records.Pair)
    assert read == [make_pair()]  # a file of before there were grades
    row = dataclasses.asdict(make_pair()) | {
        "scoring": "null",
        "grade_1": math.nan,
        "grade_2": math.nan,
        "scale_index": simulated_pairs.NONE,
        "draw": simulated_pairs.NONE,
    }
    assert simulated_pairs.to_pair(row) == make_pair()
    assert counting.summarise(pairs, [])["prompts_with_fewer_replies"] == 0


SCALE = """
[[scales]]
grades = [1, 0, -1]
affixes = ["very kind reply", "plain reply", "very unkind reply"]
"""


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("[1, 0, -1]", "[1, 1, -1]", "'scales.0..grades' is .*each lower than"),
        ("[1, 0, -1]", "[1]", "two numbers or more"),
        ("[1, 0, -1]", "[1, -1]", "'scales.0..affixes' has 3 texts; .* 2 grades"),
        ('"plain reply"', '"very kind reply"', "'scales.0..affixes' has a text twice"),
        ('"plain reply"', '"a (plain) reply"', "affixes.1.' is .*without parentheses"),
        ('"plain reply"', '""', "affixes"),
        ("affixes", 'systems = ["a"]\naffixes', "'scales.0..systems' has 1 texts"),
        ("grades", "steps", "unknown field 'scales.0..steps'"),
    ],
)
def test_a_scale_that_is_none_is_refused(tmp_path, before, after, told):
    own = tmp_path / "kind.toml"
    text = tasks.write_template(own).read_text()
    own.write_text(text + SCALE)
    (scale,) = tasks.load_task(own).scales
    assert scale.grades == (1.0, 0.0, -1.0)
    assert scale.systems[0].endswith("Reply in this manner: very kind reply.")
    assert "scale of grades 1, 0, -1: (very kind reply) to" in tasks.describe(
        tasks.load_task(own)
    )
    own.write_text(text + SCALE.replace(before, after))
    with pytest.raises(ValueError, match=told):
        tasks.load_task(own)
