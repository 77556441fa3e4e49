"""completions: answers, thoughts, cuts and counts of many servers."""

import pytest

from rlcd_jax.judging import completions


def reply(finish="stop", usage=None, **message):
    return {"choices": [{"message": message, "finish_reason": finish}], "usage": usage}


@pytest.mark.parametrize(
    ("given", "text", "is_cut"),
    [
        (reply(content="(A) is better."), "(A) is better.", False),
        (reply("length", content="(A) is bet"), "(A) is bet", False),
        (reply("length", content=None), "", True),
        (reply("length", content=" \n"), "", True),
        (reply("length", content=None, reasoning_content="Hm"), "", True),
        (reply(content="", reasoning_content="So (A)."), "", True),
        (reply(content="(B)", reasoning_content="So (A)."), "(B)", False),
        (reply("length", content="<think>So (A)"), "", True),
        (reply(content="<think>So (A)</think>\n\n(B)"), "(B)", False),
        (reply(content="\n<thinking>x</thinking> (B)"), "(B)", False),
        (reply(content="So (A).</think>(B)"), "(B)", False),
        (reply(content="<think>So (A)</think>"), "", True),
        (reply(content="(A) over <think>"), "(A) over <think>", False),
        (reply(content=None), "", False),
        (reply(content=None, refusal="I cannot."), "[refused] I cannot.", False),
        (
            reply("content_filter", content=None),
            "[refused] by a filter of the interface",
            False,
        ),
        (
            reply(
                content=[
                    {"type": "thinking", "thinking": "hm", "text": "x"},
                    {"type": "text", "text": "(A) "},
                    {"type": "text", "text": "wins"},
                ]
            ),
            "(A) wins",
            False,
        ),
    ],
)
def test_read_completion_tells_an_answer_from_thoughts(given, text, is_cut):
    found = completions.read_completion(given)
    assert (found.text, found.is_cut) == (text, is_cut)


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        {},
        {"choices": None},
        {"choices": []},
        {"choices": [None]},
        {"choices": [{}]},
        {"error": {"message": "x"}},
        reply(content=7),
        reply(content=["(A)"]),
        reply(content=[{"type": "text", "text": 7}]),
        reply("tool_calls", content=None, tool_calls=[{"id": "x"}]),
    ],
)
def test_read_completion_refuses_what_is_none(given):
    with pytest.raises(ValueError):
        completions.read_completion(given)


def test_read_completion_counts_tokens_where_it_is_told():
    usage = {"prompt_tokens": 7, "completion_tokens": True}
    found = completions.read_completion(reply(content="x", usage=usage))
    assert (found.given, found.written) == (7, None)
    assert completions.read_completion(reply(content="x", usage=[])).given is None
