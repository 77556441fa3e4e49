"""chat_api: servers that misbehave, money that is bounded, keys that stay hidden."""

import json

import pytest
from judged import IMPATIENT, QUESTION, SLOW, completion, make_api, samples

from rlcd_jax import record_files
from rlcd_jax.judging import api_judge, budget, chat_api

# --- a server that misbehaves -----------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [500, 503, "hang up", "slow", "drip", "trickle", b"garbage", b"[]", b"", b"[" * 9**5,
     completion("(A)")[:-9], b'{"choices": []}', completion(["(A)"]), b"\xff\xfe",
     b"<html><title>Sign in</title></html>", b'{"error": {"message": "busy"}}',
     b'{"choices": [null]}', b'{"choices": [{"message": {"tool_calls": [{}]}}]}'],
)  # fmt: skip
def test_chat_api_tries_again_after_trouble(server, tmp_path, trouble):
    server.script = [trouble]
    patience = IMPATIENT if trouble in SLOW else {}
    api, pauses = make_api(server, tmp_path, **patience)
    assert api.ask_all(["hello"]) == ["(A)"]
    assert len(server.seen) == 2 and pauses == [1.0] and api.failures == []


def test_chat_api_waits_as_long_as_it_is_told(server, tmp_path):
    server.script = [429, 500]
    api, pauses = make_api(server, tmp_path)
    assert api.ask_all(["hello"]) == ["(A)"]
    assert pauses == [7.0, 2.0]


def test_chat_api_gives_up_after_its_tries(server, tmp_path):
    server.script = [500] * 3
    api, _ = make_api(server, tmp_path, max_failures=1)
    assert api.ask_all(["one", "two"]) == [None, "(A)"]
    assert api.failures == ['HTTP 500: {"error": "[key] is no good"}']
    server.script = [500] * 3
    with pytest.raises(RuntimeError, match="2 questions got no answer") as caught:
        api.ask_all(["one", "two"])
    assert "secret-key" not in str(caught.value)
    assert api.ask_all(["two"]) == ["(A)"]


@pytest.mark.parametrize("status", [400, 401, 404])
def test_chat_api_stops_at_a_refusal(server, tmp_path, status):
    server.script = [status]
    api, _ = make_api(server, tmp_path)
    with pytest.raises(RuntimeError, match=f"refused with HTTP {status}") as caught:
        api.ask_all(["hello"])
    assert len(server.seen) == 1 and "secret-key" not in str(caught.value)


def test_chat_api_asks_each_question_once(server, tmp_path):
    api, _ = make_api(server, tmp_path, concurrency=4)
    assert api.ask_all(["x", "y", "x"]) == ["(A)"] * 3
    again, _ = make_api(server, tmp_path)
    assert again.ask_all(["y", "x"]) == ["(A)"] * 2
    assert len(server.seen) == 2 and again.spent == 0.0
    other, _ = make_api(server, tmp_path, model="judge-2")
    other.ask_all(["x"])
    assert len(server.seen) == 3
    cached = "".join(p.read_text() for p in (tmp_path / "cache").rglob("*.json"))
    assert "judge-1" in cached and "secret-key" not in cached


def test_chat_api_plays_back_without_a_network(server, tmp_path):
    api, _ = make_api(server, tmp_path)
    live = api_judge.compare(samples(), api, question=QUESTION, judge="gpt")
    offline, _ = make_api(server, tmp_path, offline=True)
    again = api_judge.compare(samples(), offline, question=QUESTION, judge="gpt")
    assert again == live and len(server.seen) == 6
    with pytest.raises(ValueError, match="offline, but 2 of 8 answers"):
        api_judge.compare(samples(4), offline, question=QUESTION, judge="gpt")
    assert len(server.seen) == 6


def test_chat_api_refuses_a_price_before_the_first_call(server, tmp_path):
    api, _ = make_api(server, tmp_path, max_cost=0.001)
    texts = api_judge.questions(samples(), QUESTION)
    price = api.estimate(texts)
    assert price.calls == 6 and price.output_tokens == 300
    assert price.cost == pytest.approx(
        (price.input_tokens * 10 + price.output_tokens * 30) / 1e6
    )
    assert price.input_tokens > sum(len(text) for text in texts) / 4
    with pytest.raises(ValueError, match="6 calls.*more than max_cost = 0.00"):
        api.ask_all(texts)
    assert server.seen == []


def test_chat_api_stops_when_more_is_spent_than_allowed(server, tmp_path):
    server.answer = lambda body: completion("(A)", usage={"prompt_tokens": 10**6})
    api, _ = make_api(server, tmp_path, max_cost=9.0)
    with pytest.raises(RuntimeError, match="spent 10.0"):
        api.ask_all(["one", "two", "three"])
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "usage", [None, [], {"prompt_tokens": "many"}, {"prompt_tokens": -1}]
)
def test_chat_api_estimates_a_cost_it_is_not_told(server, tmp_path, usage):
    server.answer = lambda body: completion("(A) \ud800", usage=usage)
    api, _ = make_api(server, tmp_path)
    assert api.ask_all(["hello"]) == ["(A) ?"]
    assert 0 < api.spent < 0.01


@pytest.mark.parametrize(
    "after, pauses",
    [
        ("7", [7.0]),
        ("99999", [60.0]),
        ("Wed, 21 Oct 2015 07:28:00 GMT", [1.0]),
        ("Fri, 31 Dec 9999 23:59:59 GMT", [60.0]),
        ("soon", [1.0]),
        ("9" * 400, [1.0]),
    ],
)
def test_chat_api_bounds_what_it_is_told_to_wait(server, tmp_path, after, pauses):
    server.script = [(429, b"{}", after)]
    api, waited = make_api(server, tmp_path)
    assert api.ask_all(["hello"]) == ["(A)"] and waited == pauses


def test_chat_api_stops_where_no_money_is_left_there(server, tmp_path):
    server.script = [(429, b'{"error": {"code": "insufficient_quota"}}')]
    api, pauses = make_api(server, tmp_path)
    with pytest.raises(RuntimeError, match="refused with HTTP 429.*insufficient_quota"):
        api.ask_all(["hello"])
    assert pauses == []


# --- models that think, and servers with other parameters -----------------------------


def test_chat_api_asks_again_with_more_tokens_for_an_answer_that_was_cut(
    server, tmp_path
):
    server.script = [completion(None, "length"), completion("<think>Hm", "length")]
    api, pauses = make_api(server, tmp_path, max_tries=1)
    assert api.ask_all(["hello"]) == ["(A)"]
    assert [body["max_tokens"] for _, _, body in server.seen] == [50, 200, 800]
    assert (api.cut, api.calls, pauses, api.failures) == (2, 3, [], [])
    again, _ = make_api(server, tmp_path, offline=True)
    assert again.ask_all(["hello"]) == ["(A)"]


def test_chat_api_never_keeps_an_answer_that_was_cut(server, tmp_path):
    server.answer = lambda body: completion(None, "length")
    api, _ = make_api(server, tmp_path, longest_tokens=300)
    assert api.ask_all(["hello"]) == [None]
    assert [body["max_tokens"] for _, _, body in server.seen] == [50, 200, 300]
    assert api.cut == 3 and api.failures == ["no word of an answer within 300 tokens"]
    assert not list((tmp_path / "cache").rglob("*.json"))
    server.answer = lambda body: completion("(B)")
    assert make_api(server, tmp_path)[0].ask_all(["hello"]) == ["(B)"]


def test_chat_api_asks_again_what_an_old_cache_holds_as_empty(server, tmp_path):
    api, _ = make_api(server, tmp_path)
    assert api.ask_all(["hello"]) == ["(A)"]
    (path,) = (tmp_path / "cache").rglob("*.json")
    record_files.write_json(path, json.loads(path.read_text()) | {"answer": ""})
    assert api.estimate(["hello"]).calls == 1
    assert api.ask_all(["hello"]) == ["(A)"] and len(server.seen) == 2


def test_chat_api_gives_up_growing_where_the_server_refuses_it(server, tmp_path):
    server.script = [completion(None, "length"), (400, b"max_tokens is not allowed")]
    api, _ = make_api(server, tmp_path)
    assert api.ask_all(["one", "two"]) == [None, "(A)"]
    assert server.seen[-1][2]["max_tokens"] == 50


@pytest.mark.parametrize(
    "error",
    [
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use "
        "'max_completion_tokens' instead.",
        "Unrecognized request argument supplied: max_tokens",
        "max_tokens: Extra inputs are not permitted",
    ],
)
def test_chat_api_calls_the_limit_as_the_server_does(server, tmp_path, error):
    server.script = [(400, json.dumps({"error": {"message": error}}).encode())]
    api, pauses = make_api(server, tmp_path)
    assert api.ask_all(["one", "two"]) == ["(A)", "(A)"]
    sent = [body for _, _, body in server.seen]
    assert [("max_tokens" in b, b.get("max_completion_tokens")) for b in sent] == [
        (True, None),
        (False, 50),
        (False, 50),
    ]
    assert pauses == [] and api.failures == []


def test_chat_api_leaves_out_a_temperature_that_is_refused(server, tmp_path):
    server.script = [(400, b"Unsupported value: 'temperature' does not support 0")]
    api, _ = make_api(server, tmp_path, concurrency=3)
    assert api.ask_all(["one", "two", "three"]) == ["(A)"] * 3
    assert api.ask_all(["four"]) == ["(A)"]  # the three went out at once, in any order
    asked = [body for _, _, body in server.seen]
    assert len(asked) == 5 and "temperature" not in asked[-1]
    texts = [str(body["messages"]) for body in asked]
    (refused,) = {text for text in texts if texts.count(text) == 2}
    first, again = (b for b, text in zip(asked, texts, strict=True) if text == refused)
    assert "temperature" in first and "temperature" not in again


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens", "none"])
def test_chat_api_sends_the_limit_in_the_field_of_its_settings(server, tmp_path, field):
    api, _ = make_api(server, tmp_path, max_tokens_field=field)
    assert api.ask_all(["hello"]) == ["(A)"]
    body = server.seen[0][2]
    limits = {"max_tokens": 50, "max_completion_tokens": 50, "none": 0}
    assert {k: v for k, v in body.items() if k in limits} == (
        {} if field == "none" else {field: 50}
    )
    other, _ = make_api(server, tmp_path)  # the same question, so the same answer
    assert other.ask_all(["hello"]) == ["(A)"] and len(server.seen) == 1


def test_chat_api_refused_in_both_fields_says_what_to_set(server, tmp_path):
    server.answer = lambda body: b""
    wrong = (400, b"unsupported: max_tokens, max_completion_tokens")
    server.script = [wrong] * 9
    api, _ = make_api(server, tmp_path)
    with pytest.raises(RuntimeError, match="check .*max_tokens_field"):
        api.ask_all(["hello"])
    assert len(server.seen) == 2


# --- money ----------------------------------------------------------------------------


def test_chat_apis_share_a_budget(server, tmp_path):
    cost = (100 * 10 + 1 * 30) / 1e6
    shared = budget.Budget(0.02)
    asked = []
    with pytest.raises((ValueError, RuntimeError), match="max_cost = 0.02"):
        for number in range(99):
            api, _ = make_api(server, tmp_path, max_cost=0.02, concurrency=4)
            api = chat_api.ChatApi(api.settings, budget=shared)
            asked += api.ask_all([f"{number} {i}" for i in range(4)])
            assert api.spent == pytest.approx(4 * cost)
    assert shared.spent == pytest.approx(len(server.seen) * cost) and asked
    assert shared.spent <= 0.02


def test_chat_api_counts_what_may_have_been_paid(server, tmp_path):
    api, _ = make_api(server, tmp_path, **IMPATIENT)
    bound = api.estimate(["hello"]).cost
    server.script = ["slow", b"garbage", 500]
    assert api.ask_all(["hello"]) == [None]
    assert api.spent == api.budget.spent == pytest.approx(2 * bound)


def test_chat_api_does_not_send_what_may_go_above_the_budget(server, tmp_path):
    server.answer = lambda body: completion(None, "length", usage={"prompt_tokens": 1})
    api, _ = make_api(server, tmp_path)
    most = api.estimate(["hello"]).cost * 1.5
    api, _ = make_api(server, tmp_path, max_cost=most)
    with pytest.raises(RuntimeError, match="another call may cost"):
        api.ask_all(["hello"])
    assert len(server.seen) == 1 and api.spent <= most


# --- secrets --------------------------------------------------------------------------


def told(error):
    """Return all that a traceback of an error could show of messages."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or error.__context__
    return "".join(texts)


@pytest.mark.parametrize("at", [*range(180, 205, 3), 0])
@pytest.mark.parametrize("status", [200, 401, 500])
def test_no_part_of_a_key_reaches_a_message(server, tmp_path, at, status):
    body = b"x" * at + b" secret-key " + b"y" * 300
    server.script = [(status, body)] * 3
    api, _ = make_api(server, tmp_path, max_failures=0)
    with pytest.raises(RuntimeError) as caught:
        api.ask_all(["hello"])
    assert "secr" not in told(caught.value) + repr(api.failures)


@pytest.mark.parametrize("word", ["secret-k***", "Bearer secret-key", "secret"])
def test_a_key_that_is_masked_or_escaped_is_hidden(server, tmp_path, word):
    for data in (word.encode(), b'{"error": "\\u0073%s"}' % word[1:].encode()):
        server.script = [(401, data)]
        api, _ = make_api(server, tmp_path)
        with pytest.raises(RuntimeError) as caught:
            api.ask_all(["hello"])
        assert "ecret" not in told(caught.value)


def test_secrets_of_an_address_reach_no_file_log_or_message(
    server, tmp_path, caplog, capsys
):
    port = server.server_address[1]
    where = f"http://jo:pa%20ss-word@127.0.0.1:{port}/v1?token=tok-en-77&v=2"
    changes = {"base_url": where, "max_failures": 0, "max_tries": 1}
    api, _ = make_api(server, tmp_path, **changes)
    server.answer = lambda body: completion("(A) pa ss-word tok-en-77 secret-key")
    with caplog.at_level("DEBUG"):
        assert api.ask_all(["hello"]) == ["(A) [key] [key] [key]"]
        server.script = [(500, b"bad: pa ss-word, tok-en-77, cGxhY2U=")]
        with pytest.raises(RuntimeError) as caught:
            api.ask_all(["other"])
        server.script = ["hang up"]
        with pytest.raises(RuntimeError) as dropped:
            api.ask_all(["third"])
        server.script = [(404, where.encode())]
        with pytest.raises(RuntimeError) as refused:
            api.ask_all(["fourth"])
    path, headers, _ = server.seen[0]
    assert path == "/v1/chat/completions?token=tok-en-77&v=2"
    assert {k.lower(): v for k, v in headers.items()}["authorization"][:6] == "Basic "
    shown = [told(e.value) for e in (caught, dropped, refused)]
    shown += [repr(api.settings), str(api.settings), repr(api), caplog.text]
    shown += [p.read_text() for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    shown += [*capsys.readouterr(), repr(api.settings.address), *api.failures]
    for text in shown:
        for secret in ("pa%20ss", "pa ss", "ss-word", "tok-en", "secret-key"):
            assert secret not in text, text
    assert f"http://127.0.0.1:{port}/v1?token=...&v=..." in "".join(shown)


@pytest.mark.parametrize("key", ["", "two words", "line\n", "ключ"])
def test_a_key_that_fits_no_header_is_refused_unseen(server, tmp_path, key):
    settings = make_api(server, tmp_path)[0].settings
    with pytest.raises(ValueError, match="API key .* is empty or holds") as caught:
        chat_api.ChatApi(settings, key)
    assert not key or key not in told(caught.value)


REMOTE = "https://example.com/v1"


@pytest.mark.parametrize(
    "changes, match",
    [
        ({"base_url": "x"}, "base_url"),
        ({"base_url": "jo:hush@example.com/v1"}, "base_url must start"),
        ({"base_url": "ftp://jo:hush@example.com/v1"}, "base_url must start"),
        ({"base_url": "http://jo:hu/sh@example.com"}, "'/' as %2F"),
        ({"base_url": "http://"}, "base_url must start"),
        ({"base_url": "http://[::1"}, "base_url must start"),
        ({"max_tries": 0}, "max_tries"),
        ({"max_tokens_field": "tokens"}, "accepted: max_tokens, max_completion_tok"),
        ({"price_input": None}, "price_input is None"),
        ({"price_output": float("nan")}, "price_output is nan"),
        ({"max_cost": None}, "max_cost is None"),
        ({"base_url": REMOTE, "price_output": 0}, "max_cost = 1 cannot hold"),
        ({"base_url": REMOTE, "price_input": 0}, "price_input = 0 and"),
    ],
)
def test_api_settings_refuse_what_cannot_be(server, tmp_path, changes, match):
    with pytest.raises(ValueError, match=match) as caught:
        make_api(server, tmp_path, **changes)
    assert "hush" not in told(caught.value) and "hu/" not in told(caught.value)


def test_api_settings_let_a_server_that_costs_nothing_be(server, tmp_path):
    free = {"price_input": 0, "price_output": 0}
    api, _ = make_api(server, tmp_path, **free)  # on this machine
    assert api.ask_all(["hello"]) == ["(A)"] and (api.spent, api.calls) == (0, 1)
    make_api(server, tmp_path, base_url=REMOTE, max_cost=0, **free)
