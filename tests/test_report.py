"""Tests of rlcd_jax.report and experiments.report on a run made by hand."""

import dataclasses
import html.parser
import importlib
import json
import math
import random
import re
import sys

import pytest

from configs import rlcd
from experiments import report as command
from rlcd_jax import estimates, records, report, tables
from rlcd_jax.report import browsers, curves, plots, reading, sections, tabulate

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


def write_pairs(folder, count: int, shift: int) -> dict:
    """Write pairs, dropped sides and their summary; return the summary."""
    records.write_jsonl(folder / "pairs.jsonl", [make_pair(i) for i in range(count)])
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
    records.write_jsonl(folder / "dropped.jsonl", drops)
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
    samples, given = [], []
    for index, question in enumerate(QUESTIONS * 2):
        row = {
            "prompt_id": f"cheerful/{index:04d}#0",
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
            "judge": "lexicon",
            "length_1": 14,
            "length_2": 15,
        }
        for one, two, winner in (
            ("base", "distill", "2"),
            ("base", "rlcd", "2"),
            ("distill", "rlcd", "tie"),
        ):
            given.append(said | {"system_1": one, "system_2": two, "winner": winner})
    records.write_jsonl(folder / "samples.jsonl", samples)
    records.write_jsonl(folder / "verdicts.jsonl", given)
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
    records.write_json(folder / "config.json", config)
    environment = {"python": "3.11.2", "packages": {"jax": "0.10.2", "flax": "0.12.8"}}
    environment |= {
        "backend": "cpu",
        "devices": 1,
        "device_kind": "cpu",
        "commit": "0123456789ab",
    }
    records.write_json(folder / "environment.json", environment)
    records.write_jsonl(folder / "metrics.jsonl", metric_rows(shift))
    for step in (0, 20, 40):
        rows = [
            {
                "prompt_id": f"cheerful/{i:04d}",
                "prompt": QUESTIONS[i],
                "reply": (*GREY, *BRIGHT)[i + step // 20],
                "score": step / 40 - 0.3 * i,
            }
            for i in range(3)
        ]
        records.write_jsonl(folder / f"policy/samples/{step:06d}.jsonl", rows)
    accuracy = dataclasses.asdict(estimates.proportion_interval(63, 80))
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
        records.write_json(folder / name / "summary.json", summary)
        records.mark_done(folder / name, config, summary)
    return folder


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rlcd")


@pytest.fixture(scope="module")
def whole_page(whole_run):
    preset = rlcd.get_config("task=cheerful,size=quick").to_dict()
    return report.write_report(whole_run, preset=preset).read_text()


class Reader(html.parser.HTMLParser):
    """Collects what a browser would show, load and fold."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.data, self.unbalanced = (
            [],
            [],
            [],
            [],
            [],
        )
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def browsers(self):
        return [json.loads(data) for data in self.data if data.startswith("{")]


# --- the page of a whole run ------------------------------------------------


def test_write_report_has_every_part(whole_page):
    page = Reader(whole_page)
    for heading in ("Results", "What ran", "Curves", "Samples", "Preference pairs",
                    "Configuration", "Cost", "Environment"):  # fmt: skip
        assert heading in page.text
    assert "0.660 [0.590, 0.730]" in page.text
    assert "missing: the base model itself" in page.text
    assert re.search(r"policy\.steps 6 40", page.text)
    assert "0.788" in page.text or "0.7875" in page.text  # held-out accuracy
    assert "6 min 52 s" in page.text  # seconds of simulate
    assert "generate 2 min 48 s" in page.text  # 40 steps of 4.2 s
    assert [len(b["views"]) for b in page.browsers] == [1, 1, 2, 1]
    assert not re.search(r"Missing: (?!preference|distill)", page.text)


def test_write_report_is_well_formed_and_loads_nothing(whole_page):
    page = Reader(whole_page)
    assert not page.unbalanced and not page.open
    assert {"script", "style", "svg", "table", "details"} <= {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attributes
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value.startswith("#"), (tag, value)
    assert "url(http" not in whole_page and "@import" not in whole_page


def test_write_report_ids_are_unique_and_references_resolve(whole_page):
    ids = re.findall(r'\bid="([^"]+)"', whole_page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', whole_page)
    assert set(references) <= set(ids)


def test_write_report_is_the_same_file_again(whole_run, whole_page):
    preset = rlcd.get_config("task=cheerful,size=quick").to_dict()
    assert report.write_report(whole_run, preset=preset).read_text() == whole_page


def test_write_report_shows_negative_texts_only_folded(whole_page):
    page = Reader(whole_page)
    assert FOLDED_WORD not in page.text
    seen = 0
    for browser in page.browsers:
        for view in browser["views"]:
            for row in view["rows"]:
                assert FOLDED_WORD not in row["prompt"] + " ".join(row["facts"])
                for part in row["cells"] + row["more"]:
                    seen += FOLDED_WORD in part["text"]
                    assert part["fold"] or FOLDED_WORD not in part["text"]
    assert seen


def test_write_report_escapes_what_models_wrote(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> &"
    run = make_run(tmp_path / "run", pairs=1)
    records.write_jsonl(run / "pairs/pairs.jsonl", [make_pair(0, reply_1=evil)])
    config = json.loads((run / "config.json").read_text())
    config["task"] = config["model"]["spec"] = evil + " \ud800"  # half a surrogate pair
    (run / "config.json").write_text(json.dumps(config))
    rows = [
        {"stage": "policy", "step": n, "wall_time": 1.0, "a$b/<b>x": 1.0 * n}
        for n in range(3)
    ]
    records.write_jsonl(run / "metrics.jsonl", rows)
    text = report.write_report(run).read_text()
    page = Reader(text)
    assert not page.unbalanced
    assert "img" not in {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 5  # four browsers and ours
    assert page.browsers[2]["views"][0]["rows"][0]["cells"][0]["text"] == evil
    assert "a$b/<b>x" in page.text


# --- parts that are missing -------------------------------------------------


def test_write_report_names_all_that_is_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = Reader(report.write_report(tmp_path).read_text())
    for name in ("environment.json", "metrics.jsonl", "pairs/pairs.jsonl",
                 "pairs/summary.json", "evaluate/table.json", "evaluate/samples.jsonl",
                 "policy/samples"):  # fmt: skip
        assert f"Missing: {name} is not there." in page.text
    assert "no preset was given" in page.text
    assert "no stage has left its time" in page.text
    assert not page.browsers


def test_write_report_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="holds nothing of a run.*config.json"):
        report.write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_write_report_names_a_broken_file_and_goes_on(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    (run / "pairs/pairs.jsonl").write_text('{"id": 3}\n{}\n')
    (run / "evaluate/table.json").write_text("[]")
    (run / "evaluate/samples.jsonl").write_text('{"prompt_id": "a"}\n')
    page = Reader(report.write_report(run).read_text())
    assert "pairs/pairs.jsonl cannot be read: pairs/pairs.jsonl:1:" in page.text
    assert "evaluate/table.json cannot be read: no table" in page.text
    assert "row 1 has no field 'prompt'" in page.text
    assert str(tmp_path) not in page.text.replace(str(run), "", 1)
    assert "clip" in "".join(page.texts).lower()  # the curves are there


def test_write_report_reads_a_run_that_goes_on(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    (run / "policy/DONE").unlink()
    (run / "policy/summary.json").unlink()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"stage": "policy", "st')
    found = reading.read_run(run)
    assert found.stage("policy").state == "begun"
    assert found.stage("distill").state == "not part of this run"
    assert found.stage("evaluate").state == "finished"
    assert len(found.metrics) == len(metric_rows(0))


def test_write_report_without_matplotlib_says_what_to_install(whole_run, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib", None)
        importlib.reload(plots)
        page = Reader(report.write_report(whole_run).read_text())
    importlib.reload(plots)
    assert "pip install 'rlcd_jax[report]'" in page.text
    assert "svg" not in {tag for tag, _ in page.tags}
    assert "0.660 [0.590, 0.730]" in page.text


# --- pieces -----------------------------------------------------------------


def test_differences_are_by_field_and_lists_equal_tuples():
    one = {"a": {"b": 1, "c": (1, 2)}, "d": "x"}
    two = {"a": {"b": 2, "c": [1, 2]}, "e": True}
    assert sections.differences(one, two) == [
        ("a.b", "1", "2"),
        ("d", "x", "absent"),
        ("e", "absent", "true"),
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (4.06, "4.1 s"),
        (59.96, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (7199.8, "2 h 00 min"),
    ],
)
def test_duration_reads_as_a_person_says_it(seconds, text):
    assert sections.duration(seconds) == text


def test_stage_curves_puts_held_out_on_the_same_panel(monkeypatch):
    drawn = {}
    monkeypatch.setattr(
        plots, "curve", lambda title, lines, unit="": drawn.setdefault(title, lines)
    )
    (found,) = curves.stage_curves(
        {"": [r for r in metric_rows(0) if r["stage"] == "preference"]}
    )
    assert [line.label for line in drawn["Loss"]] == ["training", "held out"]
    assert [len(line.steps) for line in drawn["Accuracy"]] == [160, 8]
    assert "preference/soft_accuracy" in drawn  # among the others
    assert found["not_there"] == []


def test_stage_curves_names_what_was_not_recorded():
    rows = [{"stage": "policy", "step": 1, "rollout/kl_sum_mean": 1.0}]
    (found,) = curves.stage_curves({"": rows})
    assert "entropy" in found["not_there"] and "clip fraction" in found["not_there"]
    assert len(found["panels"]) == 1


def test_tables_keep_two_judges_of_one_comparison_apart():
    estimate = {
        "value": 0.6,
        "low": 0.5,
        "high": 0.7,
        "level": 0.95,
        "num": 9,
        "p_value": 0.021,
    }
    columns = [{"name": "Judge"}, {"name": "Win rate, %", "digits": 1, "percent": True}]
    rows = [
        {"name": "b over a", "cells": {"Judge": j, "Win rate, %": estimate}}
        for j in ("x", "y")
    ]
    table = {"caption": "c", "row_header": "r", "columns": columns, "rows": rows}
    (shown,) = tabulate.tables({"": [table]})
    assert [row[2][0]["text"] for row in shown["rows"]] == ["x", "y"]
    cell = shown["rows"][0][2][1]
    assert (cell["text"], cell["interval"], cell["below"]) == (
        "60.0",
        "[50.0, 70.0]",
        "n = 9, p = 0.021",
    )
    assert shown["notes"] == ["Brackets: 95 % intervals."]
    assert "b over a · x" in shown["plots"][0] and "b over a · y" in shown["plots"][0]


def test_pairs_shows_first_and_random_ones(whole_run):
    shown = browsers.pairs(reading.read_run(whole_run))
    assert [len(view["rows"]) for view in shown["views"]] == [browsers.SHOWN_PAIRS] * 2
    assert shown["total"] == 90
    assert shown["views"][0]["rows"][0]["title"] == make_pair(0).id
    row = shown["views"][0]["rows"][1]  # reply_2 is the positive one
    assert [cell["tag"] for cell in row["cells"]] == ["", "better"]


def test_samples_puts_all_systems_of_a_prompt_into_one_row(whole_run):
    shown = browsers.samples({"": reading.read_run(whole_run)})
    rows = shown["views"][0]["rows"]
    assert len(rows) == 12
    assert [cell["head"] for cell in rows[0]["cells"]] == ["base", "distill", "rlcd"]
    assert "lexicon: rlcd > base" in rows[0]["facts"]


# --- two runs ---------------------------------------------------------------


def test_write_comparison_shows_both_runs(whole_run, tmp_path):
    other = make_run(tmp_path / "other", shift=1)
    path = report.write_comparison(whole_run, other, tmp_path / "compare.html")
    page = Reader(path.read_text())
    assert not page.unbalanced
    assert "0.660 [0.590, 0.730]" in page.text and "0.710 [0.640, 0.780]" in page.text
    assert re.search(r"policy\.kl_coef 0\.02 0\.04", page.text)
    assert "A · rlcd" in page.text and "B · rlcd" in page.text  # labels of the dots
    (browser,) = page.browsers
    heads = [cell["head"] for cell in browser["views"][0]["rows"][0]["cells"]]
    assert heads == [
        "A · base",
        "A · distill",
        "A · rlcd",
        "B · base",
        "B · distill",
        "B · rlcd",
    ]


def test_write_comparison_with_a_run_that_has_only_a_config(whole_run, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text("{}")
    path = report.write_comparison(
        whole_run, tmp_path / "bare", tmp_path / "compare.html"
    )
    page = Reader(path.read_text())
    assert "Missing: B: metrics.jsonl is not there." in page.text
    assert "Missing: B: evaluate/table.json is not there." in page.text
    assert "0.660 [0.590, 0.730]" in page.text


# --- the command ------------------------------------------------------------


def test_command_finds_the_preset_and_shows_what_was_changed(whole_run, capsys):
    path = command.main(["--workdir", str(whole_run)])
    assert capsys.readouterr().out.strip() == str(path)
    preset = command.find_preset(whole_run)
    found = sections.changes(reading.read_run(whole_run), preset)
    assert [row[0] for row in found] == ["policy.steps"]


def test_command_compares(whole_run, tmp_path):
    path = command.main(
        ["--workdir", str(tmp_path), "--compare", str(whole_run), str(whole_run)]
    )
    assert path == tmp_path / "compare.html" and path.exists()


def test_command_refuses_an_empty_folder(tmp_path):
    with pytest.raises(SystemExit):
        command.main(["--workdir", str(tmp_path)])
