"""The text in which a model is asked which of two replies is better."""

from rlcd_jax.tasks import layout

BLOCK = "\n\n\n\n"
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"  # headers of a plain dialogue
LETTERS = ("continuation", "bare")  # as what A and B are read: see `scoring.letters`


def whole_turn(prompt: str, reply: str) -> tuple[str, str]:
    """Return a dialogue up to its last header, and the whole turn that follows.

    Where a task lets the reply continue a lead-in, such as "One possible outline:
    1.", the lead-in is shown with each reply and no longer ends the dialogue.

    Source: the released script that asks GPT-4 about outlines.
    """
    before, header, lead_in = prompt.rpartition(ASSISTANT)
    if not header or not lead_in.strip() or HUMAN in lead_in:
        return prompt, reply
    return before + header, f"{lead_in.strip()} {reply.strip()}"


def scoring_prompt(
    plain: str,
    reply_a: str,
    reply_b: str,
    instruction: str,
    opening: str = layout.SCORING_OPENING,
) -> str:
    """Return the text whose next token, A or B, says which reply is better.

    Args:
      plain: the dialogue without affixes, ending in its assistant header.
      reply_a: reply shown as (A).
      reply_b: reply shown as (B).
      instruction: what to decide, from the task.
      opening: the first line, the task's; our own wording unless it has the official.

    Source: RLCD section 4 (layout as released).
    """
    blocks = (
        opening,
        plain.strip(),
        instruction.strip(),
        "Options:",
        f"(A) {reply_a}",
        f"(B) {reply_b}",
        "The answer is: (",
    )
    return BLOCK.join(blocks)
