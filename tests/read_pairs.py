"""Pairs for the tests of readings and of their tables."""

import dataclasses

from rlcd_jax import records, tasks

TASK = tasks.load_task("harmless")


def pair(number=0, positive="Please be kind.", negative="Go away!", **changes):
    """A contrast pair, the positive side second for odd numbers."""
    index = changes.pop("affix_index", 12)
    first, second = ("positive", "negative")[:: -1 if number % 2 else 1]
    texts = {"positive": positive, "negative": negative}
    contrast = dict(zip(("positive", "negative"), TASK.affixes[index], strict=True))
    fields = {
        "id": f"p{number}/contrast-construction",
        "task": "harmless",
        "prompt_id": f"p{number}",
        "prompt": f"Human: Hi {number}\n\nAssistant:",
        "reply_1": texts[first],
        "reply_2": texts[second],
        "prob_2": float(second == "positive"),
        "side_1": first,
        "side_2": second,
        "source_prompt_1": f"Human: Hi {number}\n\nAssistant ({contrast[first]}):",
        "source_prompt_2": f"Human: Hi {number}\n\nAssistant ({contrast[second]}):",
        "raw_1": texts[first],
        "raw_2": texts[second],
        "tries_1": 1 + number % 2,
        "tries_2": 1,
        "finish_1": "eos",
        "finish_2": "stop",
        "num_tokens_1": len(texts[first].split()),
        "num_tokens_2": len(texts[second].split()),
        "affix_index": index,
        "sampling": "contrast",
        "labels": "construction",
        "scoring": None,
        "generator": "fake",
        "seed": 7,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "alpha": 1.0,
    }
    return records.Pair(**{**fields, **changes})


def rescored(one, prob_2, **scoring):
    return dataclasses.replace(
        one,
        id=one.prompt_id + "/contrast-scoring",
        labels="scoring",
        prob_2=prob_2,
        scoring={"instruction_index": 0, "prob_2": prob_2, **scoring},
    )
