"""Tests of what alignment cost: closed questions, human texts, and their table."""

import dataclasses
import json
import math

import numpy as np
import pytest

from rlcd_jax.datasets import closed_questions, human_texts
from rlcd_jax.judging import regression_table
from rlcd_jax.planning import chips, plan
from rlcd_jax.report import answer, reading
from rlcd_jax.scoring import likelihoods, regression
from rlcd_jax.statistics import estimates, tables
from tests import runs

HOW = {
    "caption": "cost",
    "notes": ("a note",),
    "seed": 0,
    "level": 0.95,
    "resamples": 200,
}


def question(subject: str, *choices: str) -> closed_questions.Question:
    return closed_questions.Question(subject, "Here", choices)


def readings(system: str, subject: str, *values: float):
    return [
        regression_table.Reading(f"{subject}/{n}", system, subject, value)
        for n, value in enumerate(values)
    ]


def test_questions_are_many_of_each_subject_and_the_right_choice_stands_alone():
    groups = closed_questions.load(1000)
    assert tuple(groups) == closed_questions.SUBJECTS
    assert {len(own) for own in groups.values()} == {120}
    for own in groups.values():
        assert len(set(own)) == len(own)
        num = {len(one.choices) for one in own}
        assert num == ({2} if own[0].subject == "agreement" else {4})
        for one in own:
            assert len(set(one.choices)) == len(one.choices)
            assert all(
                choice[0] == " " and choice[1:2].strip() for choice in one.choices
            )
            assert not one.context[-1].isspace()


def test_arithmetic_is_right_and_copies_go_on_as_the_list_does():
    groups = closed_questions.load(120)
    for one in groups["arithmetic"]:
        left, sign, right, _ = one.context.splitlines()[-1].split()
        numbers = int(left), int(right)
        value = {"+": sum(numbers), "-": numbers[0] - numbers[1]}.get(
            sign, math.prod(numbers)
        )
        assert int(one.choices[0]) == value
        assert len({len(choice) for choice in one.choices}) == 1
    for one in groups["copying"]:
        first, _, again = one.context.partition(". Again: ")
        said = again.removesuffix(",").split(", ")
        assert first.split(", ")[len(said)] == one.choices[0].strip()


def test_load_takes_the_first_of_each_subject():
    few, all_of_them = closed_questions.load(3), closed_questions.load(120)
    assert all(few[name] == own[:3] for name, own in all_of_them.items())


def test_human_texts_are_prose_of_one_line_with_an_opening():
    found = human_texts.load(50)
    assert len(found) == 50 and found[:10] == human_texts.load(10)
    for opening, rest in found:
        assert len(opening.split(" ")) == human_texts.OPENING
        assert rest[0] == " " and "\n" not in rest
        assert human_texts.LEAST <= len(opening + rest) <= human_texts.MOST


@pytest.mark.parametrize(
    ("subject", "choices", "nats", "right"),
    [
        # Whole: -3 is below -2, though it is less a byte.
        ("agreement", (" theirs", " is"), (-3.0, -2.0), 0.0),
        ("agreement", (" are", " is"), (-2.0, -2.5), 1.0),
        ("agreement", (" are", " is"), (-2.0, -2.0), 0.0),  # a tie is wrong
        # By the byte: -3 / 7 is above -2 / 3.
        ("words", (" theirs", " is", " b", " c"), (-3.0, -2.0, -9.0, -9.0), 1.0),
        ("facts", (" is", " theirs", " b", " c"), (-2.0, -3.0, -9.0, -9.0), 0.0),
    ],
)
def test_answered_compares_choices_whole_or_by_the_byte(subject, choices, nats, right):
    found = regression_table.answered(question(subject, *choices), nats)
    assert (found.subject, found.value) == (subject, right)
    by_byte = subject in closed_questions.BY_BYTE
    expected = [
        n / len(c) if by_byte else n for n, c in zip(nats, choices, strict=True)
    ]
    assert found.scores == pytest.approx(expected)


def test_table_has_shares_perplexity_and_paired_differences():
    rows = [
        *readings("base", "words", 1, 1, 1, 0),
        *readings("base", "copying", 1, 1),
        *readings("base", "texts", 2.0, 3.0),
        *readings("rlcd", "words", 1, 0, 0, 0),
        *readings("rlcd", "copying", 1, 1),
        *readings("rlcd", "texts", 2.5, 3.5),
    ]
    table = regression_table.table(rows, **HOW)
    names = [column.name for column in table.columns]
    cells = {name: dict(zip(names, own, strict=True)) for name, own in table.rows}
    base, rlcd = cells["base"], cells["rlcd"]
    assert names[:4] == [
        "words",
        "words against base",
        "copying",
        "copying against base",
    ]
    assert (base["words"].value, rlcd["words"].value) == (0.75, 0.25)
    assert rlcd["words against base"].value == -0.5
    assert rlcd["copying against base"].value == 0.0
    assert rlcd["all questions"].value == 0.5 and rlcd["all questions"].num == 6
    assert rlcd["all questions against base"].value == pytest.approx(-1 / 3)
    assert base["perplexity"].value == pytest.approx(math.exp(2.5))
    # Half a nat on both texts: the interval of the paired difference is a point.
    texts = rlcd["perplexity against base"]
    assert [texts.value, texts.low, texts.high] == pytest.approx(
        [math.exp(0.5) - 1] * 3
    )
    assert isinstance(base["perplexity against base"], estimates.Missing)
    assert table.notes[0].startswith("What alignment cost: a loss is shown: of 6")
    assert "+64.9 [+64.9, +64.9] %" in table.notes[0] and table.notes[-1] == "a note"


def test_table_refuses_systems_that_read_other_things():
    rows = [*readings("base", "words", 1, 1), *readings("rlcd", "words", 1, 1, 1)]
    with pytest.raises(ValueError, match="'rlcd' and 'base' have not read the same"):
        regression_table.table(rows, **HOW)


@pytest.mark.parametrize(
    ("points", "texts", "verdict"),
    [
        ((-0.02, -0.05, 0.01), (0.01, -0.02, 0.03), "no loss is shown"),
        ((-0.02, -0.03, -0.01), (0.01, -0.02, 0.03), "a loss is shown"),
        ((0.02, 0.01, 0.03), (0.03, 0.01, 0.05), "a loss is shown"),
        ((0.02, 0.01, 0.03), (-0.03, -0.05, -0.01), "no loss is shown"),
    ],
)
def test_cost_reads_the_intervals(points, texts, verdict):
    def cell(value, low, high):
        return {"value": value, "low": low, "high": high, "num": 10}

    row = {
        "all questions": cell(0.5, 0.4, 0.6),
        "all questions against base": cell(*points),
        "perplexity against base": cell(*texts),
    }
    data = {"rows": [{"name": "rlcd", "cells": row}]}
    told = regression_table.cost(data, "rlcd")
    assert told.startswith(f"What alignment cost: {verdict}: of 10 closed questions")
    assert regression_table.cost(data, "distill") == ""


def test_a_run_reads_the_suite_with_every_system_and_says_what_it_cost(
    tmp_path, monkeypatch
):
    config = runs.tiny_config(
        stages=("simulate", "distill", "evaluate"),
        evaluate__regression=3,
        evaluate__systems=("base", "distill"),
        evaluate__judges=("lexicon",),
    )
    read = []
    whole = regression.read

    def spied(job, suite, system, params):
        read.append((job, suite, system, params))
        return whole(job, suite, system, params)

    monkeypatch.setattr(regression, "read", spied)
    with runs.devices_by_mesh():
        runs.run_checked(config, tmp_path, config.stages)
    folder = tmp_path / "evaluate"
    lines = [json.loads(x) for x in (folder / "regression.jsonl").open()]
    assert len(lines) == 2 * (5 * 3 + 3)
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["regression"] == json.loads((folder / "regression.json").read_text())
    table = tables.from_json(summary["regression"])
    assert [name for name, _ in table.rows] == ["base", "distill"]

    # One text and one question, scored alone, are what the table rests on.
    job, suite, _, base = read[0]
    score = likelihoods.reply_scorer(job, base)
    opening, rest = human_texts.load(1)[0]
    own = [one for one in lines if one["system"] == "base"]
    value = next(one["value"] for one in own if one["prompt_id"] == "texts/000")
    _, num = suite.texts["texts/000"]
    assert value == pytest.approx(-score([(opening, rest)])[0] / num, rel=1e-4)
    first = closed_questions.load(1)["agreement"][0]
    nats = score([(first.context, choice) for choice in first.choices])
    assert own[0]["prompt_id"] == "agreement/000"
    np.testing.assert_allclose(own[0]["scores"], nats, rtol=1e-4)

    said = answer.answer(reading.read_run(tmp_path))
    assert said.cost == regression_table.cost(summary["regression"], "distill")
    assert said.cost in table.notes
    page = (tmp_path / "report.html").read_text()
    assert page.count("What alignment cost: ") > 2 and 'id="cost-of-alignment"' in page
    assert dataclasses.asdict(said)["verdict"] in ("yes", "no", "open")


def test_what_is_read_is_planned():
    def planned(**fields):
        config = runs.tiny_config(evaluate__systems=("base", "policy"), **fields)
        setting = plan.make_setting(config, chips.parse_topology("cpu:1"))
        return {one.name: one for one in plan.plan_stage(setting, "evaluate").programs}

    plain, asked = planned(), planned(evaluate__regression=30)
    assert set(asked) - set(plain) == {"closed questions", "human texts"}
    twice = planned(evaluate__regression=60)
    for name in ("closed questions", "human texts"):
        assert twice[name].flops == pytest.approx(2 * asked[name].flops)
