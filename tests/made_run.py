"""Writes a whole run by hand, as the stages leave it, for the tests of the report."""

import dataclasses
import math
import random

from configs import rlcd
from rlcd_jax import done_mark, record_files, records
from rlcd_jax.statistics import estimates, tables

QUESTIONS = (
    "What do you think of rainy Sundays?",
    "I baked my first loaf of bread today. How should I serve it?",
    "Tell me about the last day of a school year.",
    "My neighbour is learning the tuba. What should I say to her?",
    "What is the best thing about a long train journey?",
    "How do I start a herb garden on a balcony?",
)
BRIGHT = (
    "Oh, what a treat! Put the kettle on, open a window and enjoy every minute of it.",
    "Wonderful! Share it with a friend, a little butter and a big smile go a long way.",
    "That sounds lovely. You will remember it for years, and gladly at that.",
)
GREY = (
    "It is what it is. I suppose one could sit there and wait until it is over.",
    "Not much to say about that. It will probably be a bit dull.",
)
FOLDED_WORD = "gloomily"  # only in what the negative prompt was or gave


def make_pair(index: int, **changes) -> records.Pair:
    """Return a pair whose reply_1 is the positive one when index is even."""
    rng = random.Random(index)
    question = QUESTIONS[index % len(QUESTIONS)]
    texts = {
        "positive": rng.choice(BRIGHT),
        "negative": f"{rng.choice(GREY)} ({FOLDED_WORD})",
    }
    sides = ("positive", "negative") if index % 2 == 0 else ("negative", "positive")
    fields = {"id": f"cheerful/{index:04d}/contrast-construction", "task": "cheerful"}
    fields |= {
        "prompt_id": f"cheerful/{index:04d}",
        "prompt": f"Human: {question}\n\nAssistant:",
    }
    for n, side in zip("12", sides, strict=True):
        affix = "cheerful" if side == "positive" else f"said {FOLDED_WORD}"
        fields |= {
            f"reply_{n}": texts[side],
            f"side_{n}": side,
            f"source_prompt_{n}": f"Human: {question}\n\nAssistant ({affix}):",
            f"raw_{n}": f" {texts[side]}\n\nHuman:",
            f"tries_{n}": rng.choice((1, 1, 1, 2)),
            f"finish_{n}": "stop",
            f"num_tokens_{n}": len(texts[side].split()) + 4,
        }
    fields |= {"prob_2": float(sides[1] == "positive"), "affix_index": 0}
    fields |= {"sampling": "contrast", "labels": "construction", "scoring": None}
    fields |= {
        "generator": "smollm2-135m",
        "seed": 42,
        "temperature": 0.7,
        "top_p": 1.0,
    }
    fields |= {"top_k": 0, "alpha": 1.0}
    return records.Pair(**(fields | changes))


def rewards_of(pair) -> tuple[float, float]:
    """Return made-up rewards of a pair, the better reply mostly ahead."""
    rng = random.Random(pair.id)
    better, other = rng.gauss(1, 1), rng.gauss(0, 1)
    return (other, better) if pair.prob_2 > 0.5 else (better, other)


def write_pairs(folder, count: int, shift: int) -> dict:
    """Write pairs, dropped sides and their summary; return the summary."""
    record_files.write_jsonl(
        folder / "pairs.jsonl", [make_pair(i) for i in range(count)]
    )
    drops = [
        records.Dropped(
            prompt_id=f"cheerful/{900 + i}",
            task="cheerful",
            sampling="contrast",
            side="negative" if i % 3 else "positive",
            reason="no_stop",
            tries=2,
            reasons=("empty", "no_stop"),
            raws=("", "On and on without an end" + f" {FOLDED_WORD}" * (i % 3 > 0)),
        )
        for i in range(5)
    ]
    record_files.write_jsonl(folder / "dropped.jsonl", drops)
    side = {"tries": {"1": 70, "2": 20 + shift}, "finish": {"stop": 90 + shift}}
    summary = {
        "pairs": count,
        "prompts_with_pairs": count,
        "prompts_dropped": 5,
        "dropped_by_side": {
            "positive": {"no_stop": 2},
            "negative": {"no_stop": 2, "empty": 1},
        },
        "dropped_tries": 10,
        "too_long": {
            "prompts": {"of": count + 5, "dropped": 3, "shortened": 0, "identical": 0}
        },
        "cells": {
            "contrast-construction": {
                "pairs": count,
                "mean_prob_2": 0.5,
                "sides": {
                    "positive": side | {"mean_tokens": 21.25, "mean_prob_better": 1.0},
                    "negative": side | {"mean_tokens": 19.5, "mean_prob_better": 0.0},
                },
            }
        },
        "seconds": 412.0 + shift,
    }
    return summary


def metric_rows(shift: int) -> list[dict]:
    """Return rows as a MetricWriter leaves them, of all stages."""
    rng = random.Random(shift)
    rows = [{"stage": "simulate", "step": 0, "wall_time": 1000.0, "generate/tokens": 48211.0,
             "generate/tokens_per_second": 612.5, "generate/seconds": 371.0}]  # fmt: skip
    for step in range(1, 161):
        loss = 0.2 + 0.5 * math.exp(-step / 40) + rng.gauss(0, 0.06)
        row = {"preference/loss": loss, "preference/accuracy": min(1.0, 1.1 - loss),
               "preference/soft_accuracy": 0.7, "preference/margin_mean": 2.5 - 3 * loss}  # fmt: skip
        if step % 20 == 0:
            row |= {
                "preference/held_out_loss": loss + 0.05,
                "preference/held_out_accuracy": 1 - loss / 1.7,
            }
        rows.append(
            {"stage": "preference", "step": step, "wall_time": 1500.0 + 3 * step, **row}
        )
    for step in range(1, 41):
        loss = 1.6 + 0.8 * math.exp(-step / 12) + rng.gauss(0, 0.02)
        rows.append(
            {
                "stage": "distill",
                "step": step,
                "wall_time": 2200.0 + 2 * step,
                "distill/loss": loss,
            }
        )
    for step in range(1, 41):
        rise = 1 - math.exp(-step / 15)
        row = {
            "rollout/reward_mean": (1.4 + 0.2 * shift) * rise + rng.gauss(0, 0.05),
            "rollout/kl_sum_mean": 6 * rise + rng.gauss(0, 0.1),
            "rollout/entropy": 2.1 - 0.5 * rise,
            "rollout/response_length_mean": 38 - 6 * rise + rng.gauss(0, 1),
            "rollout/unfinished_rate": 0.2 * (1 - rise),
            "policy/clip_fraction": 0.05 + 0.02 * rng.random(),
            "value/clip_fraction": 0.02 + 0.02 * rng.random(),
            "value/explained_variance": 0.6 * rise,
            "policy/loss": 0.1 * rng.random(),
            "time/generate_seconds": 4.2,
            "time/update_seconds": 2.5,
        }
        rows.append(
            {"stage": "policy", "step": step, "wall_time": 3000.0 + 7 * step, **row}
        )
    return rows


def write_evaluation(folder, shift: int) -> dict:
    """Write samples, verdicts and the table; return the stage's summary."""
    systems = ("base", "distill", "rlcd")
    samples, judged = [], []
    for index, question in enumerate(QUESTIONS * 2):
        row = {
            "prompt_id": f"cheerful/{index:04d}",
            "draw": 0,
            "prompt": f"Human: {question}\n\nAssistant:",
        }
        for system in systems:
            reply = GREY[index % 2] if system == "base" else BRIGHT[(index + shift) % 3]
            samples.append(
                row
                | {"system": system, "reply": reply, "finish": "stop", "num_tokens": 20}
            )
        said = {
            "prompt_id": row["prompt_id"],
            "draw": row["draw"],
            "judge": "lexicon",
            "length_1": 14,
            "length_2": 15,
        }
        for one, two, winner in (
            ("base", "distill", "2"),
            ("base", "rlcd", "2"),
            ("distill", "rlcd", "tie"),
        ):
            judged.append(said | {"system_1": one, "system_2": two, "winner": winner})
    record_files.write_jsonl(folder / "samples.jsonl", samples)
    record_files.write_jsonl(folder / "verdicts.jsonl", judged)
    gone = estimates.Missing("the base model itself")

    def estimate(value, half):
        return estimates.Estimate(value, value - half, value + half, 0.95, 48)

    rows = tuple(
        (
            name,
            (
                estimate(score, 0.07),
                gone if name == "base" else estimate(rate, 0.09),
                gone if name == "base" else estimate(10 * score, 0.6),
                0.71 - score / 10,
            ),
        )  # fmt: skip
        for name, score, rate in (
            ("base", 0.31, 0.5),
            ("distill", 0.52, 0.68),
            ("rlcd", 0.66 + shift / 20, 0.79),
        )
    )
    columns = (
        tables.Column("lexicon score", 3),
        tables.Column("lexicon win rate", 3),
        tables.Column("KL, nats a reply", 2),
        tables.Column("distinct-2", 3),
    )
    table = tables.Table(
        "cheerful: smollm2-135m, quick", "system", columns, rows, ("Ties count half.",)
    )
    tables.write_table(table, folder)
    return {"table": tables.as_json(table), "seconds": 95.5, "judge_cost": 0.0}


def make_run(folder, *, shift: int = 0, pairs: int = 90):
    """Write a whole run as the stages leave it; return its folder."""
    config = rlcd.get_config("task=cheerful,size=quick").to_dict()
    config["policy"]["kl_coef"] = 0.02 * (1 + shift)
    config["policy"]["steps"] = 40
    record_files.write_json(folder / "config.json", config)
    environment = {"python": "3.11.2", "packages": {"jax": "0.10.2", "flax": "0.12.8"}}
    environment |= {
        "backend": "cpu",
        "devices": 1,
        "device_kind": "cpu",
        "commit": "0123456789ab",
    }
    record_files.write_json(folder / "environment.json", environment)
    record_files.write_jsonl(folder / "metrics.jsonl", metric_rows(shift))
    for step in (0, 20, 40):
        rows = [
            {
                "prompt_id": f"cheerful/{i:04d}",
                "prompt": QUESTIONS[i],
                "reply": (*GREY, *BRIGHT)[i + step // 20],
                "num_tokens": 20,
                "score": step / 40 - 0.3 * i,
                "kl": step / 10,
            }
            for i in range(3)
        ]
        record_files.write_jsonl(folder / f"policy/samples/{step:06d}.jsonl", rows)
    held_out = [
        records.HeldOutPair(pair.id, pair.prob_2, *rewards_of(pair))
        for pair in map(make_pair, range(min(pairs, 80)))
    ]
    record_files.write_jsonl(folder / "preference" / records.HELD_OUT, held_out)
    accuracy = dataclasses.asdict(estimates.proportion_interval(64, 80))
    summaries = {
        "pairs": write_pairs(folder / "pairs", pairs, shift),
        "preference": {
            "train_pairs": 300,
            "held_out_pairs": 80,
            "held_out_accuracy": accuracy,
            "seconds": 480.0,
        },
        "policy": {"steps": 40, "rollout/score_mean": 1.31, "seconds": 280.0},
        "evaluate": write_evaluation(folder / "evaluate", shift),
    }
    for name, summary in summaries.items():
        record_files.write_json(folder / name / "summary.json", summary)
        done_mark.mark_done(folder / name, config, summary)
    return folder
