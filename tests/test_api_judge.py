"""api_judge: answers read by the rule, each order in its place."""

import pytest
from judged import QUESTION, completion, make_api, rate_of, samples

from rlcd_jax.judging import api_judge

# --- answers in text --------------------------------------------------------


@pytest.mark.parametrize(
    "text, letter",
    [
        ("(A)", "A"),
        ("  (B) is better", "B"),
        ("Response (B) is kinder than (A).", "B"),
        ("Response (A)", "A"),
        ("A", None),
        ("I think (A) is better.", None),
        ("Both are fine. However, (B) is kinder.", "B"),
        ("Both are fine. However, (B) is kinder than (A).", "B"),
        ("(A) is fine", "A"),
        ("Hard. However, (A) is kind and (B) is right.", None),
        ("Hard. However, neither.", None),
        ("I like (A). However, it is less kind than (B).", None),
        ("", None),
        ("As a model I cannot judge.", None),
    ],
)
def test_parse_answer_follows_the_rule(text, letter):
    assert api_judge.parse_answer(text) == letter


def test_comparison_prompt_has_its_layout():
    prompt = "\n\nHuman: a\n\n\nb\n\nAssistant: c\n\nHuman: d\n\nAssistant:"
    text = api_judge.comparison_prompt(prompt, " one\n\n\ntwo ", "three", QUESTION)
    dialogue, replies, question = text.split("\n\n\n\n")
    assert dialogue.endswith("\n\nHuman: a\nb\n\nAssistant: c\n\nHuman: d")
    assert replies == "(A) Assistant: one\ntwo\n\n(B) Assistant: three"
    assert question == QUESTION


# --- a server that misbehaves -----------------------------------------------


def test_api_judge_that_always_says_a_gets_half_and_all_flips(server, tmp_path):
    api, _ = make_api(server, tmp_path, concurrency=3)
    given = api_judge.compare(samples(), api, question=QUESTION, judge="gpt")
    assert rate_of(given) == 0.5 and sum(v.flips for v in given) == 3
    assert len(server.seen) == 6 and api.calls == 6
    assert api.spent == pytest.approx(6 * (100 * 10 + 30) / 1e6)
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and body["temperature"] == 0
    assert headers["authorization"] == "Bearer secret-key"


def test_api_judge_reads_each_order_in_its_place(server, tmp_path):
    def answer(body):
        text = body["messages"][1]["content"]
        return completion("(A)" if "(A) Assistant: rlcd" in text else "(B)")

    server.answer = answer
    api, _ = make_api(server, tmp_path, concurrency=4)
    given = api_judge.compare(samples(5), api, question=QUESTION, judge="gpt")
    assert [(v.winner, v.answers) for v in given] == [("1", ("(A)", "(B)"))] * 5
    assert [v.prompt_id for v in given] == [f"p{i}" for i in range(5)]


def test_api_judge_counts_unread_answers_apart(server, tmp_path):
    server.script = [completion("I cannot say."), completion(None)]
    api, _ = make_api(server, tmp_path)
    given = api_judge.compare(samples(2), api, question=QUESTION, judge="gpt")
    assert [(v.winner, v.unparsed, v.flips) for v in given] == [
        ("none", 2, 0),
        ("tie", 0, 1),
    ]
