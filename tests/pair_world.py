"""An engine and a scorer of no model, and prompts, for the tests of pairs."""

import dataclasses
import random

from rlcd_jax import records, tasks
from rlcd_jax.decode import requests as engine
from rlcd_jax.pairs import draws, grid, scored_labels
from rlcd_jax.text import byte_tokenizer

TASK = tasks.load_task("cheerful")
BYTES = byte_tokenizer.make()
SETTINGS = draws.DrawSettings(
    seed=7,
    generator="fake",
    samples=2,
    temperature=1.0,
    top_p=0.9,
    top_k=50,
    alpha=1.0,
    max_tries=5,
    asking=scored_labels.Asking(both_orders=False),
    hard_labels=False,
)
TASK = dataclasses.replace(
    TASK,
    prompt_tokens=400,
    cleanup=dataclasses.replace(TASK.cleanup, unfinished="reject"),
)
RLCD = grid.GridCell("contrast", "construction", 1.0)
RESCORE = grid.GridCell("contrast", "scoring", 1.0)
RLAIF = grid.GridCell("same", "scoring", 1.0)
GRADED = grid.GridCell("graded", "construction", 1.0)
HUMAN = records.Turn("human", "How was your day?")
PROMPTS = [
    records.Prompt(
        f"p{i}",
        (records.Turn("human", f"Hi {i}"), records.Turn("assistant", "Hm."), HUMAN),
    )
    for i in range(60)
]


class FakeEngine:
    """Draws a reply from the request alone; about `reject` of them are unusable."""

    def __init__(self, reject=0.3, shuffle=False):
        self.reject, self.shuffle = reject, shuffle
        self.waves: list[list[engine.Request]] = []

    def __call__(self, requests):
        self.waves.append(list(requests))
        replies = [self.reply(request) for request in requests]
        if self.shuffle:
            random.Random(len(requests)).shuffle(replies)
        return replies

    def reply(self, request):
        draw = random.Random(str((request.seed, request.tokens)))
        bad = draw.random() < self.reject
        text = f" Reply {draw.randrange(10**6)}."
        finish = "length" if bad else draw.choice(["eos", "stop"])
        raw = text + "\n\nHuman:" if finish == "stop" else text
        ids = tuple(raw.encode())
        return engine.Reply(request.id, ids, text, raw, finish, (), ())


def score(texts):
    """Logits that are a function of the text, with a bias towards A."""
    return [(len(t) % 7 * 0.3 + 0.5, random.Random(t).random()) for t in texts]


def simulate(dialogues=PROMPTS, rows=(RLCD,), generate=None, task=TASK, **changes):
    return grid.simulate(
        dialogues,
        task,
        BYTES,
        generate or FakeEngine(),
        rows=rows,
        settings=dataclasses.replace(SETTINGS, **changes),
        score=score,
    )
