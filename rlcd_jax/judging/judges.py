"""Judges that compare the replies of systems.

Every judge gives one `Verdict` for each prompt and each two systems. A judge that
reads two replies side by side is asked in both orders: when its choice changes with
the order, that is a flip, and the verdict is a tie. As released it is asked in one. A
judge that scores one reply at a time has no order; its scores are kept as well. An
empty reply loses against any other, whatever the judge.

* `lexicon_scores` rates the sentiment of a reply with a word list (VADER).
* `preference_scores` come from a preference model, by any function the caller has.
* `log_odds` asks a language model for the letter of the better reply.
* `api_judge.compare` asks a model behind an HTTP interface; it is in a room of its own.

`JUDGES` is the one table of judges: a row says what a judge is called, what it reads,
which tasks it fits and how it is asked. Configs, evaluation, plans and pages read it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from vaderSentiment import vaderSentiment

from rlcd_jax import tasks
from rlcd_jax.judging import verdicts
from rlcd_jax.pairs import scoring_prompt

LEXICON = "lexicon"
DEFAULT = "log_odds"  # fits every task and needs nothing that a run has not
FIRST, ALL = QUESTIONS = "first", "all"  # which of a task are asked
API = "api"
LETTERS, REPLIES, ASKED = "letters", "replies", "asked"  # what one needs: see `Means`
LEXICON_EPSILON = 0.05  # VADER calls a compound score within 0.05 of zero neutral

ScoreLetters = Callable[[list[str]], Sequence[tuple[float, float]]]
ScoreReplies = Callable[[list[tuple[str, str]]], Sequence[float]]
# From replies, a question and a judge's name in records to verdicts.
Ask = Callable[[Sequence[verdicts.JudgedReply], str, str], Sequence[verdicts.Verdict]]


def lexicon_scores(samples: Sequence[verdicts.JudgedReply]) -> list[verdicts.Score]:
    """Return the VADER compound score, in [-1, 1], of each reply.

    Source: Hutto and Gilbert 2014; the word list comes with `vaderSentiment`.
    """
    analyser = vaderSentiment.SentimentIntensityAnalyzer()
    return [
        verdicts.Score(
            sample.prompt_id,
            LEXICON,
            sample.system,
            float(analyser.polarity_scores(sample.reply)["compound"]),
            sample.draw,
        )
        for sample in samples
    ]


def preference_scores(
    samples: Sequence[verdicts.JudgedReply],
    score_fn: ScoreReplies,
    *,
    judge: str = "preference",
) -> list[verdicts.Score]:
    """Return the score of each reply by a preference model.

    Args:
      samples: replies to score.
      score_fn: returns one finite number for each (prompt, reply); it is called once
        and sees equal pairs once.
      judge: name of the judge in the records.
    """
    unique = list(dict.fromkeys((sample.prompt, sample.reply) for sample in samples))
    values = [float(value) for value in score_fn(unique)]
    _check_answers(len(unique), values)
    by_text = dict(zip(unique, values, strict=True))
    return [
        verdicts.Score(s.prompt_id, judge, s.system, by_text[s.prompt, s.reply], s.draw)
        for s in samples
    ]


def compare_scores(
    samples: Sequence[verdicts.JudgedReply],
    scores: Sequence[verdicts.Score],
    *,
    epsilon: float,
) -> list[verdicts.Verdict]:
    """Return verdicts in which the higher score wins.

    Args:
      samples: replies of all systems.
      scores: one for each sample, by one judge.
      epsilon: scores that differ by no more than this are a tie.
    """
    judges = {score.judge for score in scores}
    if len(judges) != 1:
        raise ValueError(f"scores must come from one judge, got {sorted(judges)}")
    (judge,) = judges
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative, got {epsilon}")
    table = {_reply_of(score): score.score for score in scores}
    unscored = [sample for sample in samples if _reply_of(sample) not in table]
    if unscored:
        raise ValueError(
            f"judge {judge!r} has no score of the reply of {unscored[0].system!r} to "
            f"prompt {unscored[0].prompt_id!r}; score all samples first"
        )
    made = []
    for one, two in verdicts.contests(samples):
        values = [table[_reply_of(sample)] for sample in (one, two)]
        margin = values[0] - values[1]
        winner = "tie" if abs(margin) <= epsilon else "1" if margin > 0 else "2"
        winner = verdicts.plain_winner(one, two) or winner
        made.append(
            verdicts.make_verdict(
                judge,
                one,
                two,
                winner,
                score_1=values[0],
                score_2=values[1],
            )
        )
    return made


def _reply_of(
    row: verdicts.JudgedReply | verdicts.Score,
) -> tuple[str, int | None, str]:
    """Return which reply a row is of, or about: a prompt has one for each draw."""
    return row.prompt_id, row.draw, row.system


def log_odds(
    samples: Sequence[verdicts.JudgedReply],
    score_fn: ScoreLetters,
    *,
    question: str,
    judge: str = "log_odds",
    by_mean: bool = False,
    both_orders: bool = True,
) -> list[verdicts.Verdict]:
    """Return verdicts of a language model that names the letter of the better reply.

    Each pair is shown in both orders, or in one of `verdicts.orders`. With `m` the
    log-odds of the first system's letter, the first system wins when m > 0 in both
    orders and loses when m < 0 in both; opposite signs are a flip and a tie. A small
    model may flip nearly always; the mean of both orders, in which a liking for a
    letter cancels, still says something.

    Args:
      samples: replies of all systems.
      score_fn: returns (logit of A, logit of B) for each text; called once.
      question: the task's judge question.
      judge: name of the judge in the records.
      by_mean: let the sign of the mean log-odds decide; flips are counted all the same.
      both_orders: False: in one order, in which no flip is seen.
    """
    if not question.strip():
        raise ValueError("the judge question is empty; give one of the task's")
    texts = [
        scoring_prompt.scoring_prompt(*shown, question)
        for shown in verdicts.side_by_side(samples, both_orders=both_orders)
    ]
    logits = [(float(a), float(b)) for a, b in score_fn(texts)] if texts else []
    _check_answers(len(texts), [value for pair in logits for value in pair], width=2)
    answers = iter(logits)
    made = []
    for one, two in verdicts.contests(samples):
        if plain := verdicts.plain_winner(one, two):
            made.append(verdicts.make_verdict(judge, one, two, plain))
            continue
        margins = []
        for swapped in verdicts.orders(one, two, both_orders=both_orders):
            of_a, of_b = next(answers)
            margins.append(of_b - of_a if swapped else of_a - of_b)
        mean = sum(margins) / len(margins)
        low, high = (mean, mean) if by_mean else (min(margins), max(margins))
        winner = "1" if low > 0 else "2" if high < 0 else "tie"
        flips = int(min(margins) < 0 < max(margins))
        made.append(
            verdicts.make_verdict(
                judge, one, two, winner, score_1=mean, score_2=-mean, flips=flips
            )
        )
    return made


def _check_answers(asked: int, values: Sequence[float], width: int = 1) -> None:
    """Refuse a score function that left something out or gave no number."""
    if len(values) != asked * width:
        raise ValueError(
            f"the judge's score function gave {len(values) // width} answers for "
            f"{asked} texts; it must give one each, in order"
        )
    broken = [i for i, value in enumerate(values) if not math.isfinite(value)]
    if broken:
        raise ValueError(
            f"the judge's score function gave {values[broken[0]]} for text "
            f"{broken[0] // width}; scores must be finite"
        )


# --- the table of judges --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Means:
    """What a run gives its judges.

    Attributes:
      questions: of the task, by what follows a judge's name in records and tables.
      score_letters: logits of A and B after each text, by the run's language model.
      score_replies: a score of each (prompt, reply), by a preference model.
      ask: verdicts of a model behind an HTTP interface.
      both_orders: whether two replies side by side are shown in both orders.
    """

    questions: Mapping[str, str]
    score_letters: ScoreLetters
    score_replies: ScoreReplies
    ask: Ask
    both_orders: bool = True


Judged = tuple[list[verdicts.Score], list[verdicts.Verdict]]


@dataclasses.dataclass(frozen=True)
class Judge:
    """A row of the table of judges.

    Attributes:
      name: its name in configs, records and tables.
      what: what it is, in a line for a reader.
      reads: what it needs of `Means`, `LETTERS`, `REPLIES` or `ASKED`; "": nothing.
      outside: whether it owes nothing to the run, neither its model nor its pairs.
      misfit: says why it cannot judge a task, "" where it can.
      judge: returns the scores (none of a judge of two replies) and the verdicts.
    """

    name: str
    what: str
    reads: str
    outside: bool
    misfit: Callable[[tasks.Task], str]
    judge: Callable[[Sequence[verdicts.JudgedReply], Means], Judged]


def _needs_lexicon(task: tasks.Task) -> str:
    if task.lexicon is not None:
        return ""
    return f"task {task.name!r} has no [lexicon] that measures its attribute"


def _fits_all(task: tasks.Task) -> str:
    del task
    return ""


def _by_lexicon(samples: Sequence[verdicts.JudgedReply], means: Means) -> Judged:
    del means
    scores = lexicon_scores(samples)
    return scores, compare_scores(samples, scores, epsilon=LEXICON_EPSILON)


def _by_letters(samples: Sequence[verdicts.JudgedReply], means: Means) -> Judged:
    judged = []
    for name, question in means.questions.items():
        judged += log_odds(
            samples,
            means.score_letters,
            question=question,
            judge=f"{DEFAULT} {name}".strip(),
            by_mean=True,
            both_orders=means.both_orders,
        )
    return [], judged


def _by_preference(samples: Sequence[verdicts.JudgedReply], means: Means) -> Judged:
    scores = preference_scores(samples, means.score_replies)
    return scores, compare_scores(samples, scores, epsilon=0.0)


def _by_api(samples: Sequence[verdicts.JudgedReply], means: Means) -> Judged:
    judged: list[verdicts.Verdict] = []
    for name, question in means.questions.items():
        judged += means.ask(samples, question, f"{API} {name}".strip())
    return [], judged


JUDGES: dict[str, Judge] = {
    row.name: row
    for row in (
        Judge(
            LEXICON,
            "the sentiment word list VADER, for tasks whose [lexicon] says so",
            "",
            True,
            _needs_lexicon,
            _by_lexicon,
        ),
        Judge(
            DEFAULT,
            "the language model's letter for the task's question",
            LETTERS,
            False,
            _fits_all,
            _by_letters,
        ),
        Judge(
            "preference",
            "a preference model of other data, evaluate.preference_judge",
            REPLIES,
            True,
            _fits_all,
            _by_preference,
        ),
        Judge(
            API,
            "a model behind an OpenAI-compatible interface, section judge",
            ASKED,
            True,
            _fits_all,
            _by_api,
        ),
    )
}
REMEDY = (
    "name a preference model of other data, such as one of human pairs, by "
    "evaluate.preference_judge, and 'preference' in evaluate.judges; or a model behind "
    "an interface by judge.url and judge.name, and 'api'"
)
NO_OUTSIDE = (
    "Missing: a judge from outside. log_odds is the unaligned model's own opinion; "
    f"{REMEDY}."
)
NO_JUDGE = (
    "Missing: any judge, so no column says which replies are better; evaluate.judges "
    "is empty."
)


def questions(task: tasks.Task, which: str) -> dict[str, str]:
    """Return the questions about a task that are asked, for `Means`.

    The only one has no name there.

    Args:
      task: with its questions.
      which: one of `QUESTIONS`.
    """
    known = dict(task.judge_questions)
    if which == FIRST or len(known) == 1:
        return {"": next(iter(known.values()))}
    return known


def row_of(name: str) -> Judge | None:
    """Return the row of a judge by its name in records; None: it is of no table."""
    return JUDGES.get(name.partition(" ")[0])


def describe(task: tasks.Task) -> str:
    """Return a line for each judge: what it asks, or why it does not fit a task."""
    return "\n".join(
        f"judge {row.name}: {row.misfit(task) or row.what}" for row in JUDGES.values()
    )


def choose(asked: Sequence[str], task: tasks.Task) -> tuple[list[str], list[str]]:
    """Return the judges of a task, and what is to be said about those left out.

    Args:
      asked: names of judges, in the order of the table; none asks for none.
      task: the task.

    Returns:
      Those asked that fit the task, or `DEFAULT` when none of them does; and a
      sentence for each that does not fit, and for a judge from outside if none is left.

    Raises:
      ValueError: a name is not in the table.
    """
    unknown = [name for name in asked if name not in JUDGES]
    if unknown:
        raise ValueError(
            f"evaluate.judges has {unknown[0]!r}; accepted: {', '.join(JUDGES)}"
        )
    misfits = {name: JUDGES[name].misfit(task) for name in asked}
    chosen = [name for name in asked if not misfits[name]]
    notes = [f"Judge {n} is left out: {why}." for n, why in misfits.items() if why]
    if asked and not chosen:
        notes.append(f"Judge {DEFAULT} takes its place: {JUDGES[DEFAULT].what}.")
        chosen = [DEFAULT]
    if not any(JUDGES[name].outside for name in chosen):
        notes.append(NO_OUTSIDE if chosen else NO_JUDGE)
    return chosen, notes
