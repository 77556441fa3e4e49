"""The text in which a model is asked which of two replies is better."""

from rlcd_jax.tasks import layout

BLOCK = "\n\n\n\n"
LETTERS = ("continuation", "bare")  # as what A and B are read: see `scoring.letters`


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
