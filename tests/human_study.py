"""A study of made-up samples, and annotators who answer it by a rule."""

from rlcd_jax import record_files
from rlcd_jax.human import checks, ratings, reading, study
from rlcd_jax.judging import verdicts

SYSTEMS = ("sunny-v1", "pale-v2")
QUESTION = ("mood", "Which reply is in the more cheerful mood? Answer (A) or (B).")


def make_samples(num=30, systems=SYSTEMS):
    """Return replies of two systems; a third one must be ignored."""
    samples = []
    for n in range(num):
        prompt = f"\n\nHuman: How was day {n}?\n\nAssistant:"
        texts = (f"What a lovely day number {n} was!", f"Day {n} was a day.", "Fine.")
        for system, text in zip((*systems, "other"), texts, strict=True):
            samples.append(verdicts.JudgedReply(f"p{n}", system, prompt, text))
    return samples


def make_study(num=30, **changes):
    samples = make_samples(num)
    settings = {
        "task": "cheerful",
        "question": QUESTION,
        "num_annotators": 3,
        "per_annotator": 20,
        "shared": 20,
        "repeats": 4,
        "gold": checks.attention_checks(study.comparisons(samples, SYSTEMS)[0], 3, 0),
        "seed": 0,
    }
    return study.make_study(samples, SYSTEMS, **settings | changes)


def answer_all(folder, made, written, rating_of, names=None):
    """Write an answer file for each annotator, as the page saves it."""
    for sheet in written:
        if names and sheet.annotator not in names:
            continue
        rows = [
            {"item": line.item, "answer": rating_of(line), "seconds": 2.5}
            for line in sheet.key
        ]
        value = {"study": made.id, "annotator": sheet.annotator, "answers": rows}
        record_files.write_json(folder / "answers" / f"{sheet.annotator}.json", value)


def likes_first(line):
    """Rate as one who finds the first system, or a gold check's better reply, better."""
    better_on_b = (line.side_2 == "B") == (line.kind == "gold")
    return 7 if better_on_b else 2


def judged(scores, *, annotator="annotator-1", kind="pair", sides="AB", repeat_of=()):
    """Return judgments with the given scores of the second system."""
    out = []
    for n, score in enumerate(scores):
        side = sides[n % len(sides)]
        item = f"{annotator}-{kind}-{n}"
        origin = repeat_of[n] if repeat_of else None
        rating = reading.unblind(score, side)
        out.append(
            reading.Judgment(
                annotator, item, kind, f"p{n}", side, origin, rating, score, None
            )
        )
    return out


def verdict(prompt_id, winner, *, swapped=False, judge="lexicon", systems=SYSTEMS):
    one, two = systems[::-1] if swapped else systems
    return verdicts.Verdict(prompt_id, judge, one, two, winner, 5, 5)


def rate(judgments, *, shift="none", min_gold=0.0, resamples=2000):
    made, _ = make_study()
    return ratings.rate(
        made, judgments, shift=shift, min_gold=min_gold, seed=0, resamples=resamples
    )
