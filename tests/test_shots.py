"""Tests of few_shots and human_shots: solved examples before scoring prompts."""

import re
import types

import hypothesis
import pytest
from hypothesis import strategies as st
from ml_collections import ConfigDict

from rlcd_jax import records
from rlcd_jax.pairs import few_shots, scoring_prompt
from rlcd_jax.preference import data, human_shots

QUESTIONS = ("Which is kinder?", "Which is calmer?")


def human_pair(number, second_is_better):
    replies = ("good", "poor")[:: -1 if second_is_better else 1]
    texts = (f"\n\nHuman: ask {number}\n\nAssistant:", *replies)
    return records.HumanPair(
        str(number), str(number), *texts, prob_2=float(second_is_better)
    )


@hypothesis.given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_answers_name_the_better_reply_and_letters_take_turns(sides):
    people = [human_pair(number, side) for number, side in enumerate(sides)]
    text = few_shots.solved(people, QUESTIONS)
    blocks = re.split(r"(?<=The answer is: \([AB]\))\n+", text)
    assert len(blocks) == len(sides)
    for number, block in enumerate(blocks):
        letter = "AB"[number % 2]
        assert block.endswith(f"The answer is: ({letter})")
        assert f"({letter}) good" in block and f"ask {number}" in block
        assert QUESTIONS[number // 2 % 2] in block


def test_a_solved_example_is_the_scoring_prompt_and_its_answer():
    asked = scoring_prompt.scoring_prompt(
        "\n\nHuman: ask 0\n\nAssistant:", "good", "poor", "?"
    )
    assert few_shots.solved([human_pair(0, True)], ["?"]) == f"{asked}A)"


@pytest.mark.parametrize("asked", ["human:0", "human:", "human:-1", "human:two"])
def test_a_count_that_is_none_is_refused(asked):
    with pytest.raises(
        ValueError, match="accepted: human:N with N from 1, task, or a text"
    ):
        few_shots.human_count(asked)


def world(monkeypatch, num):
    """Return a config and inputs with ``num`` human pairs; one token a character."""
    people = [human_pair(n, n % 2) for n in range(num)]
    monkeypatch.setattr(data, "human_pairs", lambda *_: list(people))
    pairs = {"prompt_tokens": 31, "reply_tokens": 4, "votes": 0, "shots": ""}
    config = ConfigDict({"seed": 3, "pairs": pairs})
    task = types.SimpleNamespace(
        scoring_instructions=QUESTIONS, scoring_opening="Read:"
    )
    return config, types.SimpleNamespace(
        config=config, task=task, text_tokenizer=types.SimpleNamespace(encode=list)
    )


def test_human_pairs_that_fit_are_chosen_by_the_seed(monkeypatch):
    config, job = world(monkeypatch, 30)  # "ask 9" has 30 characters, "ask 10" 31

    def asked(text):
        return re.findall(r"ask \d+", text)

    first = asked(human_shots.as_text("human:4", job))
    assert len(set(first)) == 4
    assert first == asked(human_shots.as_text("human:4", job))
    assert first[:3] == asked(human_shots.as_text("human:3", job))
    config.seed = 4
    assert first != asked(human_shots.as_text("human:4", job))
    config.pairs.prompt_tokens = len(human_pair(9, 0).prompt)
    short = asked(human_shots.as_text("human:10", job))
    assert sorted(short) == [f"ask {n}" for n in range(10)]
    with pytest.raises(ValueError, match="'human:11': 10 human pairs have prompts of"):
        human_shots.as_text("human:11", job)


def test_a_text_is_taken_as_it_is(monkeypatch):
    _, job = world(monkeypatch, 0)
    assert human_shots.as_text("\n solved: (A)\n", job) == "solved: (A)"
    assert human_shots.as_text("", job) == ""
