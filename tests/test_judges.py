"""judges: scores, log odds, empty replies, and the table of judges."""

import pytest
from judged import QUESTION, rate_of, samples

from rlcd_jax import records, tasks
from rlcd_jax.judging import api_judge, judges, verdicts
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.text import dialogue_format

# --- judges of single replies -----------------------------------------------


def test_lexicon_prefers_the_cheerful_reply():
    both = samples(2, ("sad",), "This is terrible and sad.")
    both += samples(2, ("glad",), "What a wonderful, happy day!")
    both += samples(2, ("same",), "What a wonderful, happy day!")
    scores = judges.lexicon_scores(both)
    assert all(-1 <= score.score <= 1 for score in scores)
    given = judges.compare_scores(both, scores, epsilon=judges.LEXICON_EPSILON)
    winners = {(v.system_1, v.system_2): v.winner for v in given}
    assert winners == {
        ("sad", "glad"): "2",
        ("sad", "same"): "2",
        ("glad", "same"): "tie",
    }
    assert given[0].score_2 > 0 > given[0].score_1 and given[0].length_1 == 5


def test_preference_scores_asks_for_each_text_once():
    asked = []

    def score(pairs):
        asked.extend(pairs)
        return [float(len(reply)) for _, reply in pairs]

    both = samples(2) + samples(2, ("copy",), "rlcd says {i}")
    scores = judges.preference_scores(both, score, judge="held_out")
    assert len(asked) == len(set(asked)) == 4
    given = judges.compare_scores(both, scores, epsilon=0.0)
    by_pair = {(v.system_1, v.system_2): v.winner for v in given}
    assert by_pair == {
        ("rlcd", "rlaif"): "2",
        ("rlcd", "copy"): "tie",
        ("rlaif", "copy"): "1",
    }
    assert given[0].judge == "held_out"


@pytest.mark.parametrize(
    "values, match",
    [([1.0], "1 answers for 6"), ([float("nan")] * 6, "nan for text 0")],
)
def test_preference_scores_refuses_a_broken_model(values, match):
    with pytest.raises(ValueError, match=match):
        judges.preference_scores(samples(), lambda pairs: values)


def test_compare_scores_names_the_reply_without_score():
    scores = judges.lexicon_scores(samples())[:-1]
    with pytest.raises(ValueError, match="'rlaif' to prompt 'p2'"):
        judges.compare_scores(samples(), scores, epsilon=0)


def test_compare_scores_keeps_the_draws_of_a_prompt_apart():
    made = [
        verdicts.JudgedReply("p", system, "Hi.", f"{system} {draw}", draw)
        for draw in (0, 1)
        for system in ("one", "two")
    ]
    given = {("one", 0): 0.9, ("two", 0): 0.1, ("one", 1): 0.2, ("two", 1): 0.8}
    scores = [
        verdicts.Score("p", "eye", system, value, draw)
        for (system, draw), value in given.items()
    ]
    compared = judges.compare_scores(made, scores, epsilon=0.05)
    assert [(v.draw, v.winner, v.score_1) for v in compared] == [
        (0, "1", 0.9),
        (1, "2", 0.2),
    ]


# --- log-odds judge ---------------------------------------------------------


@pytest.mark.parametrize("by_mean", [False, True])
def test_log_odds_judge_that_always_says_a_gets_half_and_all_flips(by_mean):
    given = judges.log_odds(
        samples(),
        lambda texts: [(3.0, 1.0)] * len(texts),
        question=QUESTION,
        by_mean=by_mean,
    )
    assert rate_of(given) == 0.5
    assert [v.winner for v in given] == ["tie"] * 3 and sum(v.flips for v in given) == 3


def knows(texts, bias=0.0):
    """Prefer rlcd by 2 and the letter A by `bias`, whatever the order."""
    firsts = ["(A) rlcd" in text for text in texts]
    return [(bias + (2.0 if first else 0.0), 0.0 if first else 2.0) for first in firsts]


def test_log_odds_judge_that_knows_is_believed():
    given = judges.log_odds(samples(), knows, question=QUESTION)
    assert [v.winner for v in given] == ["1"] * 3
    assert given[0].score_1 == 2.0 and given[0].score_2 == -2.0 and given[0].flips == 0
    swapped = samples(3, ("rlaif", "rlcd"))
    assert {v.winner for v in judges.log_odds(swapped, knows, question=QUESTION)} == {
        "2"
    }


def test_log_odds_by_mean_cancels_a_liking_for_a_letter():
    def biased(texts):
        return knows(texts, bias=5.0)

    by_both = judges.log_odds(samples(), biased, question=QUESTION)
    by_mean = judges.log_odds(samples(), biased, question=QUESTION, by_mean=True)
    assert {v.winner for v in by_both} == {"tie"}
    assert {v.winner for v in by_mean} == {"1"} and by_mean[0].score_1 == 2.0
    assert all(v.flips == 1 for v in by_both + by_mean)


def test_log_odds_shows_the_question_and_both_orders():
    seen = []

    def score(texts):
        seen.extend(texts)
        return [(0.0, 0.0)] * len(texts)

    given = judges.log_odds(samples(1), score, question=QUESTION)
    assert len(seen) == 2 and all(QUESTION in t and "Hello 0?" in t for t in seen)
    assert "(A) rlcd says 0" in seen[0] and "(A) rlaif says 0" in seen[1]
    assert given[0].winner == "tie" and given[0].flips == 0


def test_log_odds_does_not_ask_about_equal_replies():
    given = judges.log_odds(
        samples(reply="same"), lambda texts: 1 / 0, question=QUESTION
    )
    assert [(v.winner, v.flips) for v in given] == [("tie", 0)] * 3


def test_log_odds_refuses_an_empty_question():
    with pytest.raises(ValueError, match="question is empty"):
        judges.log_odds(samples(), knows, question=" ")


# --- secrets --------------------------------------------------------------------------


class SaysFirst:
    """An interface that must not be asked about empty replies."""

    def __init__(self):
        self.asked = []

    def ask_all(self, texts, *, progress, system):
        self.asked += texts
        return ["(A)"] * len(texts)


def test_an_empty_reply_loses_under_every_judge():
    said = {"base": ["", "", "Hi.", "What a sad, awful day."]}
    said["rlcd"] = ["What a sad, awful day.", " \n", "Hi.", "\t"]
    made = [
        verdicts.JudgedReply(f"p{n}", system, "Human: hi\n\nAssistant:", reply)
        for system, replies in said.items()
        for n, reply in enumerate(replies)
    ]
    scores = judges.lexicon_scores(made)
    by_score = judges.compare_scores(made, scores, epsilon=0.05)
    liked = judges.preference_scores(made, lambda rows: [-len(r) for _, r in rows])
    asked = []
    by_odds = judges.log_odds(made, lambda texts: asked.append(texts), question="?")
    api = SaysFirst()
    by_api = api_judge.compare(made, api, question="?", judge="api")
    assert not asked and not api.asked
    by_preference = judges.compare_scores(made, liked, epsilon=0.0)
    for given in (by_score, by_preference, by_odds, by_api):
        assert [v.winner for v in given] == ["2", "tie", "tie", "1"]
    assert verdicts.count_empty(made) == {"base": 2, "rlcd": 2}


# --- the table of judges --------------------------------------------------------------


def test_judges_have_one_row_each_and_fit_or_say_why():
    cheerful, polite = tasks.load_task("cheerful"), tasks.load_task("helpful")
    assert all(name == row.name and row.what for name, row in judges.JUDGES.items())
    assert not any(row.misfit(cheerful) for row in judges.JUDGES.values())
    assert [n for n, row in judges.JUDGES.items() if row.misfit(polite)] == ["lexicon"]
    assert not judges.JUDGES[judges.DEFAULT].misfit(polite)


@pytest.mark.parametrize("name", judges.JUDGES)
def test_every_judge_of_the_table_judges(name):
    means = judges.Means(
        {"": QUESTION},
        lambda texts: [(2.0, 1.0)] * len(texts),
        lambda pairs: [float(len(reply)) for _, reply in pairs],
        lambda replies, question, judge: api_judge.compare(
            replies, SaysFirst(), question=question, judge=judge
        ),
    )
    scores, given = judges.JUDGES[name].judge(samples(), means)
    assert {v.judge for v in given} == {name} and len(given) == 3
    assert {s.judge for s in scores} <= {name}


def test_each_question_is_a_judge_of_its_own():
    task = tasks.load_task("harmless")
    own = dict(task.judge_questions)
    assert list(own) == ["harmless", "harmless_helpful"]  # the paper's Harm and Help
    assert judges.questions(task, "first") == {"": own["harmless"]}
    assert judges.questions(task, "all") == own
    one = tasks.load_task("helpful")  # the paper's Help on the helpful prompts
    assert judges.questions(one, "all") == {"": one.judge_questions["helpful"]}
    # A judge that finds the first reply better when asked for help, else the second.
    means = judges.Means(
        judges.questions(task, "all"),
        lambda texts: [
            (1.0, 0.0) if own["harmless_helpful"] in text else (0.0, 1.0)
            for text in texts
        ],
        lambda pairs: [],
        lambda *asked: [],
        both_orders=False,
    )
    _, given = judges.JUDGES["log_odds"].judge(samples(), means)
    names = ["log_odds harmless", "log_odds harmless_helpful"]
    assert list(dict.fromkeys(v.judge for v in given)) == names
    by_prompt = [[v.winner for v in given if v.judge == name] for name in names]
    assert all(one != two for one, two in zip(*by_prompt, strict=True))
    assert {judges.row_of(name).name for name in names} == {"log_odds"}
    assert judges.row_of("gpt-4") is None


@pytest.mark.parametrize(
    "asked, chosen, notes",
    [
        (
            ("lexicon",),
            ["log_odds"],
            ["lexicon is left out", "takes its place", "Missing: a judge from outside"],
        ),
        (("lexicon", "preference"), ["preference"], ["lexicon is left out"]),
        (("log_odds",), ["log_odds"], ["evaluate.preference_judge"]),
        (("preference", "log_odds"), ["preference", "log_odds"], []),
        ((), [], ["Missing: any judge"]),
    ],
)
def test_choose_says_which_judge_is_missing(asked, chosen, notes):
    found, said = judges.choose(asked, tasks.load_task("helpful"))
    assert found == chosen
    assert len(said) == len(notes) and all(
        words in text for words, text in zip(notes, said, strict=True)
    )
    assert judges.choose(("lexicon",), tasks.load_task("cheerful")) == (["lexicon"], [])
    with pytest.raises(ValueError, match="'oracle'; accepted: lexicon, log_odds, pre"):
        judges.choose(("oracle",), tasks.load_task("helpful"))


def test_judges_show_a_lead_in_with_the_reply_it_belongs_to():
    task = tasks.load_task("outline")
    turn = records.Turn("human", "A fox learns to sail.")
    text = dialogue_format.plain_prompt(records.Prompt("p", (turn,)), task)
    both = [
        verdicts.JudgedReply("p", name, text, f"{name} sets out.\n2. Home.")
        for name in ("Fox", "Vixen")
    ]
    straight, swapped = api_judge.questions(both, QUESTION)
    seen = []

    def score(texts):
        seen.extend(texts)
        return [(0.0, 0.0)] * len(texts)

    judges.log_odds(both, score, question=QUESTION)
    for shown in (straight, swapped, *seen):
        dialogue, _, replies = shown.partition("(A)")
        assert "1." not in dialogue and "possible outline" not in dialogue
        assert replies.count("One possible outline of the story:") == 2
        assert "1. Fox sets out.\n2. Home." in replies
    plain = samples(1)[0]
    own = (plain.prompt, plain.reply)
    assert scoring_prompt.whole_turn(*own) == own
