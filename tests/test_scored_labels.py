"""Labels by scoring: several questions, solved examples, votes; by hand and in a run."""

import dataclasses
import math
import random
import statistics

import hypothesis
import pytest
import runs
from hypothesis import strategies as st
from pair_world import PROMPTS, RESCORE, RLAIF, TASK, score, simulate
from test_checks import config_of

from rlcd_jax import record_files, records, tasks
from rlcd_jax.checks import refusals, rules, supplies
from rlcd_jax.pairs import counting, few_shots, scored_labels, scoring_prompt
from rlcd_jax.paper import relabel_pairs
from rlcd_jax.scoring import letters
from rlcd_jax.stages import simulate_pairs

ASKING = scored_labels.Asking(both_orders=True, instructions=3)
VOTES = scored_labels.Votes


def pair_asked(*more, first=0):
    """Return a pair that waits for answers to question `first` and to others."""
    pair = simulate(PROMPTS[:1], rows=(RESCORE,))[0][0]
    scoring = {scored_labels.INDEX: first}
    if more:
        scoring[scored_labels.MORE] = [{scored_labels.INDEX: one} for one in more]
    return dataclasses.replace(pair, scoring=scoring)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# --- several questions ----------------------------------------------------------------


def test_the_label_is_the_mean_chance_over_questions_and_orders():
    drawn, _, _ = simulate(rows=(RLAIF,), asking=ASKING)
    alone, _, _ = simulate(rows=(RLAIF,))
    kept = 0
    for pair, one in zip(drawn, alone, strict=True):
        first = pair.scoring["instruction_index"]
        assert first == one.scoring["instruction_index"]  # the one asked alone
        more = [each["instruction_index"] for each in pair.scoring["more_instructions"]]
        assert len({first, *more}) == 3
        kept += max(more) >= len(TASK.scoring_instructions)  # the task's other ones too
        chances = []
        for index in (first, *more):
            words = TASK.all_instructions[index]
            for sign, (a, b) in ((1, (1, 2)), (-1, (2, 1))):
                replies = [getattr(pair, f"reply_{n}") for n in (a, b)]
                text = scoring_prompt.scoring_prompt(pair.prompt, *replies, words)
                (logit_a, logit_b), *_ = score([text])
                chances.append(sigmoid(sign * (logit_b - logit_a)))
        assert pair.prob_2 == pytest.approx(statistics.fmean(chances), abs=1e-12)
    assert kept > 10


def test_questions_by_hand():
    pair = pair_asked(4)
    answers = [(0.0, math.log(3)), (0.0, 0.0), (math.log(4), 0.0), (0.0, math.log(4))]
    got = scored_labels.scored_pair(pair, answers, False)
    # 3/4 and 1/2 of the first question, 1/5 and 1/5 of the second, swapped orders too.
    assert got.prob_2 == pytest.approx((0.75 + 0.5 + 0.2 + 0.2) / 4)
    (other,) = got.scoring["more_instructions"]
    assert other["instruction_index"] == 4 and other["swapped_logit_b"] == math.log(4)
    assert got.scoring["logit_b"] == math.log(3)
    with pytest.raises(ValueError, match="3 answers to 2 questions"):
        scored_labels.scored_pair(pair, answers[:3], False)


@hypothesis.given(st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_no_question_is_asked_twice_and_more_of_them_keep_the_fewer(num, seed):
    first = seed % num
    told = []
    for wanted in range(1, num + 1):
        scoring = scored_labels.choose(first, num, wanted, seed, "p")
        told.append([scoring, *scoring.get("more_instructions", [])])
    indices = [[one["instruction_index"] for one in row] for row in told]
    assert sorted(indices[-1]) == list(range(num)) and indices[-1][0] == first
    assert all(row == indices[-1][: len(row)] for row in indices)


# --- votes ----------------------------------------------------------------------------


def test_votes_by_hand():
    pair = pair_asked()
    one = scored_labels.scored_pair(pair, [VOTES(1, 3, 1), VOTES(0, 0, 5)], False)
    # 3/4 in one order, and a question without a vote says 1/2.
    assert one.prob_2 == pytest.approx((0.75 + 0.5) / 2)
    assert one.scoring["votes_unread"] == 1 and one.scoring["swapped_votes_unread"] == 5
    tie = scored_labels.scored_pair(pair, [VOTES(5, 0, 0), VOTES(4, 0, 1)], True)
    # Whoever always says (A) says nothing: a tie, which a hard label gives to the first.
    assert tie.scoring["prob_2"] == 0.5 and tie.prob_2 == 0.0
    told = {"drawn": 20, "unread": 7, "questions_without": 1, "ties": 1}
    assert scored_labels.count_votes([one, tie]) == told
    cell = counting.summarise([one, tie], [])["cells"]["contrast-scoring"]
    assert cell["votes"] == told
    assert scored_labels.count_votes([pair]) == {}
    assert scored_labels.said_of_votes(told) == ""
    most = scored_labels.said_of_votes(told | {"unread": 11})
    assert most.startswith("11 of 20 answers name no letter, and 1 questions")


@pytest.mark.parametrize(
    "words, letter",
    [
        (" One is glad. The answer is: (B)", "B"),
        (" The answer is (A), since (B) is sad. The answer is: (B)", "A"),
        (" (A) is glad and (B) is not.", ""),
        ("\n\n\n\nThe answer is: (B)", ""),
        (" The answer is: A", ""),
        ("", ""),
    ],
)
def test_only_what_is_called_the_answer_is_one(words, letter):
    assert scoring_prompt.read_answer(words) == letter


def test_solved_examples_of_a_task_end_as_answers_are_read():
    for name in tasks.NAMES:
        task = tasks.load_task(name)
        for words in (False, True):
            text = few_shots.known_text("task", task, words=words)
            blocks = text.split(task.scoring_opening)[1:]
            assert len(blocks) == len(task.shots) > 1
            for number, (block, shot) in enumerate(
                zip(blocks, task.shots, strict=True)
            ):
                letter = "AB"[number % 2]
                led = f"{task.lead_in.strip()} ".lstrip()
                assert f"({letter}) {led}{shot.better.strip()}" in block
                assert shot.prompt in block
                assert block.strip().endswith(f"The answer is: ({letter})")
                if words:
                    said = block.partition(scoring_prompt.REASON)[2]
                    assert scoring_prompt.read_answer(said) == letter


# --- in a run -------------------------------------------------------------------------

SHOTS = "Read.\n\nThe answer is: (A)"
ASKED = {
    "prompts__limit": 3,
    "pairs__part_prompts": 2,
    "pairs__instructions": 2,
    "pairs__max_tries": 1,
    "pairs__unfinished": "keep",
}


@pytest.fixture(scope="module")
def voted(tmp_path_factory):
    """Return a run whose labels are votes after solved examples, and its files."""
    place = tmp_path_factory.mktemp("voted")
    (place / "shots.txt").write_text(SHOTS)
    config = runs.tiny_config(
        "rlaif",
        pairs__shots=str(place / "shots.txt"),
        pairs__votes=2,
        pairs__vote_tokens=4,
        **ASKED,
    )
    summary = runs.run(config, place / "run", "simulate")["simulate"]
    return config, place / "run", summary


def read_pairs(workdir):
    return record_files.read_jsonl(workdir / "pairs" / "pairs.jsonl", records.Pair)


def test_a_run_draws_votes_and_counts_those_that_say_nothing(voted):
    _, workdir, summary = voted
    pairs = read_pairs(workdir)
    assert len(pairs) == 3
    told = summary["cells"]["same-scoring"]["votes"]
    # Two questions in two orders, two answers each, of a model that has learnt nothing.
    assert told == {"drawn": 24, "unread": 24, "questions_without": 12, "ties": 3}
    assert {pair.prob_2 for pair in pairs} == {0.5}


def test_votes_do_not_depend_on_what_else_is_asked(voted, monkeypatch):
    config, workdir, _ = voted
    seen = {}

    def read(words):
        letter = random.Random(words).choice("AB")
        seen[words] = letter
        return letter

    monkeypatch.setattr(scoring_prompt, "read_answer", read)
    with runs.devices_by_mesh():
        job = simulate_pairs.setup.load_job(config)
        whole = simulate_pairs.drawer(job)(simulate_pairs.run_prompts(config)[0])
        assert len(seen) > 12  # answers differ
        last = simulate_pairs.drawer(job)(simulate_pairs.run_prompts(config)[0][2:])
    assert last.pairs == whole.pairs[2:]
    assert [p.reply_1 for p in whole.pairs] == [p.reply_1 for p in read_pairs(workdir)]
    assert {p.prob_2 for p in whole.pairs} != {0.5}


def test_shots_stand_before_every_question_and_change_labels_alone(
    voted, tmp_path, monkeypatch
):
    texts = []
    make = letters.letter_scorer

    def letter_scorer(*args):
        real = make(*args)
        return lambda asked: texts.extend(asked) or real(asked)

    monkeypatch.setattr(letters, "letter_scorer", letter_scorer)
    shots = voted[0].pairs.shots
    config = runs.tiny_config("rlaif", pairs__shots=shots, **ASKED)
    runs.run(config, tmp_path, "simulate")
    pairs = read_pairs(tmp_path)
    assert len(texts) == 12  # three pairs, two questions, both orders
    assert all(text.startswith(SHOTS + scoring_prompt.BLOCK + "Read") for text in texts)
    assert [p.reply_1 for p in pairs] == [p.reply_1 for p in read_pairs(voted[1])]
    assert all("swapped_logit_a" in p.scoring["more_instructions"][0] for p in pairs)
    # Labelled anew, as the tables do, they have the same labels.
    source, again = tmp_path / "pairs" / "pairs.jsonl", tmp_path / "again"
    with runs.devices_by_mesh():
        relabel_pairs.relabel_pairs(config, again, source, shots="")
    for one, other in zip(read_pairs(again), pairs, strict=True):  # other batches
        assert one.prob_2 == pytest.approx(other.prob_2, abs=1e-5)
        assert one.id == other.id and one.scoring.keys() == other.scoring.keys()


# --- what is refused before -----------------------------------------------------------


@pytest.mark.parametrize(
    "own, words",
    [
        ({"pairs__instructions": 2}, "pairs.instructions=2: nobody is asked"),
        ({"pairs__shots": "task", "pairs__votes": 3}, "'task' and pairs.votes=3: nobo"),
        ({"method": "rlaif", "pairs__shots": "human:0"}, "shots 'human:0'; accepted"),
        ({"method": "rlaif", "pairs__shots": "human:2"}, "prompts.hh_dir, which is em"),
        (
            {"method": "rlaif", "pairs__shots": "human:2", "pairs__votes": 1},
            "and people gave none",
        ),
    ],
)
def test_rules_of_asking(own, words):
    told = rules.problems(config_of(**own), ("simulate",))
    assert any(words in line for line in told), told


@pytest.mark.parametrize(
    "own, words",
    [
        ({"pairs__instructions": 10}, "has 9 questions for scored labels"),
        ({"pairs__shots": "nosuch.txt"}, "pairs.shots='nosuch.txt' cannot be read"),
        ({"pairs__shots": "human:2"}, "task 'cheerful' has no hh-rlhf subset"),
    ],
)
def test_missing_questions_and_examples_are_told_before_the_first_stage(own, words):
    config = config_of(method="rlaif", **own)
    look = supplies.Look(config, {}, None, ("simulate",), ())
    told = refusals._tell(lambda: supplies.counts(look))
    assert any(words in line for line in told), told
