"""The texts that are trained on: a prompt, a reply and the mark that ends it."""

import dataclasses
from collections.abc import Iterable

from rlcd_jax import records, tasks

# What a reader of CSV files takes for a missing value.
MISSING = frozenset(
    """#N/A #NA -1.#IND -1.#QNAN -NaN -nan 1.#IND 1.#QNAN <NA> N/A NA NULL NaN None n/a
    nan null""".split()
) | {"", "#N/A N/A"}


@dataclasses.dataclass(frozen=True)
class ChatTurn:
    """What a chat template writes around the words of a reply.

    Attributes:
      opening: blanks before them, often none.
      end: the token that closes the turn, as text.
    """

    opening: str
    end: str


def positives(pairs: Iterable[records.Pair]) -> list[records.Pair]:
    """Return one contrast pair a draw of a prompt, for context distillation.

    Source: RLCD section 4 (context distillation baseline).
    """
    first: dict[str, records.Pair] = {}
    for pair in pairs:
        if "positive" in (pair.side_1, pair.side_2):
            first.setdefault(records.key_of(pair), pair)
    return list(first.values())


def as_csv_reads(reply: str) -> str:
    """Return a reply as a reader of its CSV has it: "None", "NA" and the like are "".

    Source: the released data are read by pandas, whose missing values the released
    patch fills with empty texts before the mark is joined.
    """
    return "" if reply in MISSING else reply


def bare_reply(reply: str, task: tasks.Task, turn: ChatTurn | None = None) -> str:
    """Return a reply as it stands after its prompt, without its own blanks or a mark.

    Args:
      reply: its words.
      task: gives the format.
      turn: what the chat template writes around a reply; needed for the chat format.
        A lead-in has opened the reply already.
    """
    if task.format == "dialogue":
        return f" {reply.strip()}"
    if turn is None:
        raise ValueError(
            f"task {task.name!r} is in the chat format; pass the turn, what the "
            "model's chat template writes around a reply"
        )
    return ("" if task.lead_in.strip() else turn.opening) + reply.strip()


def reply_text(reply: str, task: tasks.Task, turn: ChatTurn | None = None) -> str:
    """Return a reply as it stands after its prompt, with the mark that ends it.

    In the dialogue format: a space, the reply, and the header of the next human turn.
    In the chat format: the template's opening, the reply and the closing token.
    Outer blanks are not the reply's, wherever it comes from: clean-up takes them from
    simulated and evaluated replies, and so a sampled one is read without them too.

    Raises:
      ValueError: a chat task comes without the token that ends a turn.
    """
    bare = bare_reply(reply, task, turn)
    return bare + (turn.end if task.format == "chat" else task.human_marker)


def preference_texts(
    pair: records.Pair | records.HumanPair,
    task: tasks.Task,
    turn: ChatTurn | None = None,
    *,
    csv_missing: bool = False,
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the two texts that a preference model scores, each (prompt, reply).

    The reply ends with its mark, so that the model reads its score at the last token
    of the mark. With `csv_missing` simulated replies are as `as_csv_reads` has them.

    Source: RLCD's modification of the AlpacaFarm reward model.
    """
    emptied = csv_missing and isinstance(pair, records.Pair)
    replies = (pair.reply_1, pair.reply_2)
    first, second = (
        (pair.prompt, reply_text(as_csv_reads(x) if emptied else x, task, turn))
        for x in replies
    )
    return first, second


def distill_example(
    pair: records.Pair,
    task: tasks.Task,
    turn: ChatTurn | None = None,
    *,
    csv_missing: bool = False,
) -> tuple[str, str]:
    """Return the affix-free prompt and the positive reply with its end mark.

    The two joined are the training text, as `encoding.join_reply` makes its ids; the
    space between them is the reply's. With `csv_missing` the reply is as
    `as_csv_reads` has it.

    Raises:
      ValueError: the pair has no positive side.
    """
    by_side = {pair.side_1: pair.reply_1, pair.side_2: pair.reply_2}
    if "positive" not in by_side:
        raise ValueError(
            f"pair {pair.id!r} has the sides {list(by_side)}; context distillation "
            "accepts pairs of contrast sampling, which have a positive side"
        )
    reply = by_side["positive"]
    reply = as_csv_reads(reply) if csv_missing else reply
    return pair.prompt, reply_text(reply, task, turn)
