"""Tests of rlcd_jax.judging: budgets, secrets, and what a completion says."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.judging import budget, completions, secrets

KEY = "sk-abc123-DEF456"
ADDRESS = secrets.read_address("https://api.example.com/v1")


# --- budgets --------------------------------------------------------------------------


def test_budget_reserves_before_and_settles_after():
    one = budget.Budget(1.0)
    one.reserve(0.6)
    assert one.left == pytest.approx(0.4) and one.spent == 0.0
    with pytest.raises(budget.Spent, match="spent 0.3000; another call may cost 0.8"):
        one.settle(0.6, 0.3)
        one.reserve(0.8)
    one.reserve(0.7)
    one.settle(0.7, 0.7)
    assert one.spent == pytest.approx(1.0) and one.left == pytest.approx(0.0)


def test_budget_waits_for_what_may_come_back():
    one, order = budget.Budget(1.0), []
    one.reserve(0.9)

    def second():
        one.reserve(0.5)
        order.append("second")
        one.settle(0.5, 0.1)

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    one.settle(0.9, 0.2)
    thread.join(timeout=5)
    assert order == ["first", "second"] and one.spent == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 1)), max_size=30))
def test_budget_is_never_overspent_by_bounded_calls(calls):
    one = budget.Budget(1.0)
    for bound, part in calls:
        try:
            one.reserve(bound)
        except budget.Spent:
            continue
        one.settle(bound, bound * part)
    assert one.spent <= 1.0 + budget.ROUNDING


# --- secrets --------------------------------------------------------------------------


@given(st.text(max_size=260), st.text(max_size=260), st.integers(0, 400))
def test_hidden_text_holds_no_part_of_a_key_at_any_cut(before, after, cut):
    hide = secrets.make_hider(KEY, ADDRESS)
    text = hide(f"{before} {KEY}{after}")[:cut]
    if KEY[:6] not in before + after:
        assert KEY[:6] not in text


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"bad {KEY}.", "bad [key]."),
        ("bad sk-abc1***", "bad [key]"),
        ("see http://jo:hush@host/x", "see http://[key]@host/x"),
        ("Authorization: Bearer abcdefgh1234", "Authorization: Bearer [key]"),
        ("nothing here", "nothing here"),
    ],
)
def test_make_hider_finds_keys_in_every_form(text, hidden):
    assert secrets.make_hider(KEY, ADDRESS)(text).rstrip(".") == hidden.rstrip(".")


def test_read_address_takes_a_url_apart():
    found = secrets.read_address("https://jo:a%40b@[::1]:8/v1/?k=val-ue")
    assert found.user == ("jo", "a@b") and found.is_local
    assert found.url == "https://[::1]:8/v1/?k=val-ue"
    assert found.shown == "https://[::1]:8/v1/?k=..."
    url = secrets.completions_url(found)
    assert url == "https://[::1]:8/v1/chat/completions?k=val-ue"
    assert "a@b" not in repr(found) and "val-ue" not in repr(found.shown)
    assert not secrets.read_address("http://127.0.0.1.example.com").is_local
    assert secrets.read_address("http://localhost:1/v1").is_local


def test_excerpt_shows_the_title_of_a_page():
    page = b"<!doctype html><html><title> Sign\n in </title><body>" + b"x" * 999
    assert secrets.excerpt(page, str) == "a page of HTML, Sign in"
    assert secrets.excerpt(b"<x>", str) == "a page of HTML, no title"
    assert secrets.excerpt(b"\xff" * 999, str) == "\ufffd" * secrets.LONGEST_EXCERPT


# --- completions ----------------------------------------------------------------------


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
