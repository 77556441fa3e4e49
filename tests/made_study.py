"""A study of people, written for the tests of its pages."""

import csv
import io

from rlcd_jax.human import checks, sheets, study
from rlcd_jax.judging import verdicts

TRAP = "</script><script>window.trapped = 1</script><img src=x onerror='trapped = 1'>"
QUESTIONS = (
    "What do you think of rainy Sundays?",
    "I baked my first loaf of bread today. How should I serve it?",
    "My neighbour is learning the tuba. What should I say to her?",
    "What is the best thing about a long train journey?",
)
BRIGHT = (
    "Oh, what a treat! Put the kettle on, open a window and enjoy every minute of it.",
    "Wonderful! A little butter and a big smile go a long way.\n\n- Slice it warm.\n- "
    "Add honey, or jam, or both.\n- Invite a friend, and let the smell of fresh bread "
    "fill the whole kitchen while the two of you talk about nothing in particular.",
    "Tell her that every great player began with one proud, wobbly note!",
)
PALE = "It is all right, I suppose. One can look out of the window for a while."


def make_samples(num=9):
    samples = []
    for n in range(num):
        prompt = f"\n\nHuman: {QUESTIONS[n % 4]}\n\nAssistant:"
        if n % 2:
            prompt = f"\n\nHuman: Good morning!\n\nAssistant: Good morning to you!{prompt}"  # fmt: skip
        samples.append(verdicts.JudgedReply(f"p{n}", "sunny-v1", prompt, f"{BRIGHT[n % 3]} {TRAP if n == 4 else ''}"))  # fmt: skip
        samples.append(verdicts.JudgedReply(f"p{n}", "pale-v2", prompt, "" if n == 5 else f"{PALE} ({n})"))  # fmt: skip
    return samples


def write_study(folder):
    """Write a study of one annotator, with her page, and return its folder."""
    samples = make_samples()
    pairs, _ = study.comparisons(samples, ("sunny-v1", "pale-v2"))
    made, written = study.make_study(
        samples,
        ("sunny-v1", "pale-v2"),
        task="cheerful",
        question=(
            "cheerful",
            "Which of the two replies is in the more cheerful mood? Answer (A) or (B).",
        ),  # fmt: skip
        num_annotators=1,
        per_annotator=9,
        shared=9,
        repeats=2,
        gold=checks.attention_checks(pairs, 1, seed=0),
        seed=0,
    )
    sheets.write_study(folder, made, written)
    return folder


def page_of(folder):
    return folder / "annotators" / "annotator-1.html"


def items_of(folder):
    """Return the items as the CSV sheet of the same annotator has them."""
    text = (folder / "annotators" / "annotator-1.csv").read_text("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))
