"""The texts that are trained on: a prompt, a reply and the mark that ends it."""

from collections.abc import Iterable

from rlcd_jax import records, tasks


def positives(pairs: Iterable[records.Pair]) -> list[records.Pair]:
    """Return one contrast pair a draw of a prompt, for context distillation.

    Source: RLCD section 4 (context distillation baseline).
    """
    first: dict[str, records.Pair] = {}
    for pair in pairs:
        if "positive" in (pair.side_1, pair.side_2):
            first.setdefault(records.key_of(pair), pair)
    return list(first.values())


def bare_reply(reply: str, task: tasks.Task) -> str:
    """Return a reply as it stands after its prompt, without outer blanks or a mark."""
    return f" {reply.strip()}" if task.format == "dialogue" else reply.strip()


def reply_text(reply: str, task: tasks.Task, end_of_turn: str | None = None) -> str:
    """Return a reply as it stands after its prompt, with the mark that ends it.

    In the dialogue format: a space, the reply, and the header of the next human turn.
    In the chat format: the reply and `end_of_turn`, the template's closing token.
    Outer blanks are not the reply's, wherever it comes from: clean-up takes them from
    simulated and evaluated replies, and so a sampled one is read without them too.

    Raises:
      ValueError: a chat task comes without the token that ends a turn.
    """
    if task.format == "dialogue":
        return bare_reply(reply, task) + task.human_marker
    if end_of_turn is None:
        raise ValueError(
            f"task {task.name!r} is in the chat format; pass end_of_turn, the text of "
            "the token that closes a turn in the model's chat template"
        )
    return bare_reply(reply, task) + end_of_turn


def preference_texts(
    pair: records.Pair | records.HumanPair,
    task: tasks.Task,
    end_of_turn: str | None = None,
) -> tuple[tuple[str, str], tuple[str, str]]:
    """Return the two texts that a preference model scores, each (prompt, reply).

    The reply ends with its mark, so that the model reads its score at the last token
    of the mark.

    Source: RLCD's modification of the AlpacaFarm reward model.
    """
    first, second = (
        (pair.prompt, reply_text(reply, task, end_of_turn))
        for reply in (pair.reply_1, pair.reply_2)
    )
    return first, second


def distill_example(
    pair: records.Pair, task: tasks.Task, end_of_turn: str | None = None
) -> tuple[str, str]:
    """Return the affix-free prompt and the positive reply with its end mark.

    The two joined are the training text, as `encoding.join_reply` makes its ids; the
    space between them is the reply's.

    Raises:
      ValueError: the pair has no positive side.
    """
    by_side = {pair.side_1: pair.reply_1, pair.side_2: pair.reply_2}
    if "positive" not in by_side:
        raise ValueError(
            f"pair {pair.id!r} has the sides {list(by_side)}; context distillation "
            "accepts pairs of contrast sampling, which have a positive side"
        )
    return pair.prompt, reply_text(by_side["positive"], task, end_of_turn)
