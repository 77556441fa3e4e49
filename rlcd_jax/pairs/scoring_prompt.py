"""The text in which a model is asked which of two replies is better."""

BLOCK = "\n\n\n\n"
LETTERS = ("continuation", "bare")  # as what A and B are read: see `scoring.letters`


def scoring_prompt(plain: str, reply_a: str, reply_b: str, instruction: str) -> str:
    """Return the text whose next token, A or B, says which reply is better.

    Args:
      plain: the dialogue without affixes, ending in its assistant header.
      reply_a: reply shown as (A).
      reply_b: reply shown as (B).
      instruction: what to decide, from the task.

    Source: RLCD section 4 (layout as released; the opening line is our own).
    """
    blocks = (
        "Read the following conversation between a human and an assistant.",
        plain.strip(),
        instruction.strip(),
        "Options:",
        f"(A) {reply_a}",
        f"(B) {reply_b}",
        "The answer is: (",
    )
    return BLOCK.join(blocks)
