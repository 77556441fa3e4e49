"""What a run's pairs are like: one record of readings for each pair.

A pair is looked at from its better side: in contrast and graded sampling that is the
positive reply whatever the label says, in same-prompt sampling the reply that the label
prefers (reply_1 for a tie). Both sides have the same readings, so their difference
tells what else than the attribute a preference model can learn from the pairs.

Likelihoods, where the caller can compute them, say whether the contrast works: with y+
and y- the replies drawn from the prompts p+ and p-,

    margin+ = log P(y+ | p+) - log P(y+ | p-)
    margin- = log P(y- | p-) - log P(y- | p+)

in nats. Their means estimate KL(p+ || p-) and KL(p- || p+) of the replies (at
temperature 1, before clean-up; about that otherwise): zero when the prompts make no
difference. A pair is told apart when margin+ + margin- > 0: the better guess of who
wrote what is then the right one.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlcd_jax import records, tasks
from rlcd_jax.judging import judges, verdicts
from rlcd_jax.pairs import training_texts
from rlcd_jax.statistics import wording

# (prompt as shown, reply as it follows there) -> log-probabilities of the replies, nats
LogProb = Callable[[list[tuple[str, str]]], Sequence[float]]
# (prompt without affix, reply) -> a score by somebody who did not make the labels
ScoreReplies = Callable[[list[tuple[str, str]]], Sequence[float]]

FIRST = {**dict.fromkeys(records.CONTRASTING, "positive"), "same": "preferred"}
SECOND = {**dict.fromkeys(records.CONTRASTING, "negative"), "same": "other"}


@dataclasses.dataclass(frozen=True)
class Side:
    """Readings of one reply.

    Attributes:
      text: the reply.
      tokens: length as sampled.
      tries: attempts that it took.
      finish: "eos", "stop" or "length".
      refuses: whether it opens with a phrase of refusal.
      distinct_2: distinct bigrams over all of its own; None for a single word.
      leaked: words of its own affix in it, see `wording.leaked`.
      quotes: whether it holds its whole affix.
      own: log-probability under the prompt it was drawn from, nats; None: not known.
      other: log-probability under the other side's prompt.
    """

    text: str
    tokens: int
    tries: int
    finish: str
    refuses: bool
    distinct_2: float | None
    leaked: tuple[str, ...]
    quotes: bool
    own: float | None = None
    other: float | None = None

    @property
    def margin(self) -> float | None:
        """How much likelier the reply is under its own prompt, nats."""
        return None if self.own is None else self.own - self.other


@dataclasses.dataclass(frozen=True)
class Reading:
    """Readings of one pair.

    Attributes:
      id: of the pair, as are prompt_id, draw, affix_index, sampling and labels.
      first: the better side, see above.
      second: the other side.
      overlap: Jaccard index of the two sets of words.
      label: probability that the first side is better, by the pair's own label.
      scored: the same by a scoring model (RLAIF's way); None: not scored.
      flipped: whether the scoring model's choice changed with the order; None: asked
        in one order, or not at all.
      outside: score of the first side less that of the second, by name of the scorer.
    """

    id: str
    prompt_id: str
    draw: int | None
    affix_index: int | None
    sampling: str
    labels: str
    first: Side
    second: Side
    overlap: float
    label: float
    scored: float | None
    flipped: bool | None
    outside: dict[str, float]

    @property
    def cell(self) -> str:
        """The cell of the paper's grid."""
        return f"{self.sampling}-{self.labels}"

    @property
    def sides(self) -> tuple[tuple[str, Side], tuple[str, Side]]:
        """Both sides with their names."""
        return (
            (FIRST[self.sampling], self.first),
            (SECOND[self.sampling], self.second),
        )


def measure(
    pairs: Sequence[records.Pair],
    task: tasks.Task,
    *,
    scored: Sequence[records.Pair] = (),
    logprob: LogProb | None = None,
    turn: training_texts.ChatTurn | None = None,
    outside: Mapping[str, ScoreReplies] | None = None,
) -> list[Reading]:
    """Return the readings of pairs, in their order.

    Args:
      pairs: of one task.
      task: theirs.
      scored: pairs of another run that have scored labels. Those with the same prompt
        and replies as one of `pairs` lend it their score.
      logprob: log-probabilities of replies after prompts; None leaves likelihoods out.
        Called once, with both replies of each contrast pair under both prompts.
      turn: what the chat template writes around a reply; likelihoods of a task in the
        chat format need it.
      outside: scorers of single replies by name, such as a word list or a preference
        model of human pairs. Called once each. Equal questions are asked once.

    Raises:
      ValueError: a pair is of another task.
    """
    for pair in pairs:
        if pair.task != task.name:
            raise ValueError(
                f"pair {pair.id!r} is of task {pair.task!r}, got task {task.name!r}; "
                "give the task that the pairs were made for"
            )
    judged = {_match(pair): pair for pair in (*scored, *pairs) if pair.scoring}
    likelihoods = _likelihoods(pairs, task, logprob, turn)
    margins = {
        name: _margins(pairs, score, name) for name, score in (outside or {}).items()
    }
    out = []
    for index, pair in enumerate(pairs):
        beside = {name: values[index] for name, values in margins.items()}
        out.append(
            _reading(pair, task, judged.get(_match(pair)), likelihoods[index], beside)
        )
    return out


def one_each(readings: Sequence[Reading]) -> list[Reading]:
    """Return one reading of each two replies: cells may share their samples.

    A reading whose replies were scored is preferred.
    """
    chosen: dict[tuple[Any, ...], Reading] = {}
    for reading in readings:
        texts = frozenset((reading.first.text, reading.second.text))
        key = (reading.sampling, records.key_of(reading), texts)
        if key not in chosen or (
            chosen[key].scored is None and reading.scored is not None
        ):
            chosen[key] = reading
    return list(chosen.values())


def lexicon(texts: Sequence[tuple[str, str]]) -> list[float]:
    """Return the sentiment of the replies of (prompt, reply) texts by a word list."""
    samples = [
        verdicts.JudgedReply(str(index), "", prompt, reply)
        for index, (prompt, reply) in enumerate(texts)
    ]
    return [score.score for score in judges.lexicon_scores(samples)]


def better_first(pair: records.Pair) -> bool:
    """Say whether reply_1 is the side that a reading calls first."""
    if pair.sampling in records.CONTRASTING:
        return pair.side_1 == "positive"
    return pair.prob_2 <= 0.5


def scoring_probability(pair: records.Pair) -> tuple[float, bool | None]:
    """Return the scored probability that reply_2 is better, and whether it flipped.

    A label that was rounded to 0 or 1 is kept beside the probability it comes from.
    Where several questions were asked, it is the answer to the first that flips; votes
    are not looked at.

    Raises:
      ValueError: the pair has no scored label.
    """
    scoring = pair.scoring
    if scoring is None or "prob_2" not in scoring:
        raise ValueError(f"pair {pair.id!r} has no scored label; got {scoring}")
    if "swapped_logit_a" not in scoring:
        return scoring["prob_2"], None
    straight = scoring["logit_b"] - scoring["logit_a"]
    swapped = scoring["swapped_logit_a"] - scoring["swapped_logit_b"]
    return scoring["prob_2"], straight * swapped < 0


def contrast_texts(task: tasks.Task, index: int | None) -> tuple[str, str]:
    """Return what made the two prompts of an index differ; empty without an index.

    Raises:
      ValueError: the task has no such affix pair.
    """
    if index is None:
        return "", ""
    texts = task.systems if task.format == "chat" else task.affixes
    if index >= len(texts):
        raise ValueError(
            f"affix index {index}; task {task.name!r} accepts 0 to {len(texts) - 1}. "
            "The pairs were made with another version of the task"
        )
    return texts[index]


def _asked_by(pair: records.Pair, task: tasks.Task) -> tuple[str, str]:
    """Return what asked for the positive and the negative reply of a pair."""
    if pair.scale_index is None:
        return contrast_texts(task, pair.affix_index)
    both = sorted((pair.grade_1, pair.grade_2), reverse=True)
    known = dict(enumerate(task.scales)).get(pair.scale_index)
    if known is None or not {*both} <= {*known.grades}:
        raise ValueError(
            f"pair {pair.id!r} has grades {both} of scale {pair.scale_index}; task "
            f"{task.name!r} has no such. The pairs were made with another version of "
            "the task"
        )
    texts = known.systems if task.format == "chat" else known.affixes
    first, second = (texts[known.grades.index(grade)] for grade in both)
    return first, second


def _match(pair: records.Pair) -> tuple:
    """Return what two runs' pairs share when they hold the same replies."""
    return (
        pair.sampling,
        records.key_of(pair),
        frozenset((pair.reply_1, pair.reply_2)),
    )


def _reading(
    pair: records.Pair,
    task: tasks.Task,
    judged: records.Pair | None,
    likelihood: tuple[float | None, ...],
    outside: dict[str, float],
) -> Reading:
    first_is_1 = better_first(pair)
    sides = [_side(pair, task, n) for n in ("1", "2")]
    first, second = sides if first_is_1 else sides[::-1]
    probability, flipped = (None, None) if judged is None else _scored(pair, judged)
    return Reading(
        id=pair.id,
        prompt_id=pair.prompt_id,
        draw=pair.draw,
        affix_index=pair.affix_index,
        sampling=pair.sampling,
        labels=pair.labels,
        first=dataclasses.replace(first, own=likelihood[0], other=likelihood[1]),
        second=dataclasses.replace(second, own=likelihood[2], other=likelihood[3]),
        overlap=wording.overlap(pair.reply_1, pair.reply_2),
        label=1 - pair.prob_2 if first_is_1 else pair.prob_2,
        scored=probability,
        flipped=flipped,
        outside=outside,
    )


def _scored(
    pair: records.Pair, judged: records.Pair
) -> tuple[float | None, bool | None]:
    """Return a scored pair's probability of the first side, and its flip."""
    prob_2, flipped = scoring_probability(judged)
    first = pair.reply_1 if better_first(pair) else pair.reply_2
    if judged.reply_1 == judged.reply_2:
        return 0.5, flipped
    return (prob_2 if judged.reply_2 == first else 1 - prob_2), flipped


def _side(pair: records.Pair, task: tasks.Task, number: str) -> Side:
    reply = getattr(pair, f"reply_{number}")
    own, other = _asked_by(pair, task)
    if getattr(pair, f"side_{number}") == "negative":
        own, other = other, own
    return Side(
        text=reply,
        tokens=getattr(pair, f"num_tokens_{number}"),
        tries=getattr(pair, f"tries_{number}"),
        finish=getattr(pair, f"finish_{number}"),
        refuses=wording.refuses(reply),
        distinct_2=wording.distinct_in_reply(reply, 2),
        leaked=wording.leaked(reply, pair.prompt, own, other),
        quotes=bool(own) and wording.quotes(reply, own),
    )


def _likelihoods(
    pairs: Sequence[records.Pair],
    task: tasks.Task,
    logprob: LogProb | None,
    turn: training_texts.ChatTurn | None,
) -> list[tuple[float | None, ...]]:
    """Return for each pair (first own, first other, second own, second other)."""
    nothing = (None,) * 4
    if logprob is None:
        return [nothing] * len(pairs)
    asked = []
    for pair in pairs:
        if pair.sampling not in records.CONTRASTING:
            continue
        sources = (pair.source_prompt_1, pair.source_prompt_2)
        replies = tuple(
            training_texts.bare_reply(reply, task, turn)
            for reply in (pair.reply_1, pair.reply_2)
        )
        if not better_first(pair):
            sources, replies = sources[::-1], replies[::-1]
        for n in (0, 1):
            asked += [(sources[n], replies[n]), (sources[1 - n], replies[n])]
    values = _answers(logprob, asked, "logprob")
    fours = iter(zip(*[iter(values)] * 4, strict=True))
    known = [pair.sampling in records.CONTRASTING for pair in pairs]
    return [next(fours) if one else nothing for one in known]


def _margins(
    pairs: Sequence[records.Pair], score: ScoreReplies, name: str
) -> list[float]:
    """Return the first side's score less the second's, for each pair."""
    texts = [(p.prompt, r) for p in pairs for r in (p.reply_1, p.reply_2)]
    values = _answers(score, texts, f"score {name!r}")
    signs = [1.0 if better_first(pair) else -1.0 for pair in pairs]
    gaps = [one - two for one, two in zip(values[::2], values[1::2], strict=True)]
    return [sign * gap for sign, gap in zip(signs, gaps, strict=True)]


def _answers(ask: LogProb, asked: list[tuple[str, str]], what: str) -> list[float]:
    unique = list(dict.fromkeys(asked))
    values = [float(value) for value in ask(unique)] if unique else []
    if len(values) != len(unique) or not all(map(math.isfinite, values)):
        raise ValueError(
            f"{what} gave {len(values)} answers to {len(unique)} questions, "
            f"{sum(not math.isfinite(v) for v in values)} of them not finite; "
            "accepted: one finite number each"
        )
    by_text = dict(zip(unique, values, strict=True))
    return [by_text[text] for text in asked]
