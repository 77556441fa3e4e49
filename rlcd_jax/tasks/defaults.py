"""Texts that a task file may leave out, made of its affix pairs in our own wording."""

SOURCE = "made of the affix pairs by default"
UNSAID = "not said by the task file"


def description(positive: str, negative: str) -> str:
    """Return a sentence on what a task trains for."""
    return f'Replies that are more like "{positive}" than like "{negative}".'


def system_message(affix: str) -> str:
    """Return the system message that asks for one side of an affix pair."""
    return f"You are an assistant. Reply in this manner: {affix}."


def instruction(positive: str, negative: str) -> str:
    """Return the question for scored labels about one affix pair."""
    return f'Decide which reply is more like "{positive}" and less like "{negative}".'


def judge_question(attribute: str, positive: str, negative: str) -> str:
    """Return the question for judges: by the attribute, "" for by the affix pair."""
    what = f"is more {attribute}"
    if not attribute:
        what = f'is more like "{positive}" and less like "{negative}"'
    return f"Which of the two replies {what}? Answer (A) or (B)."
