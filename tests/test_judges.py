"""Tests of rlcd_jax.verdicts, rlcd_jax.judges, rlcd_jax.judges_api and chat_api."""

import contextlib
import dataclasses
import http.server
import json
import threading
import time

import numpy as np
import pytest

from rlcd_jax import record_files, records, tasks
from rlcd_jax.judging import api_judge, budget, chat_api, judges, verdicts
from rlcd_jax.statistics import win_rates
from rlcd_jax.text import dialogue_format

QUESTION = "Which reply is kinder? Answer (A) or (B)."


def samples(num=3, systems=("rlcd", "rlaif"), reply="{system} says {i}"):
    return [
        verdicts.JudgedReply(
            f"p{i}",
            system,
            f"Human: Hello {i}?\n\nAssistant:",
            reply.format(system=system, i=i),
        )
        for i in range(num)
        for system in systems
    ]


# --- verdicts and tables ----------------------------------------------------


def test_contests_are_all_pairs_in_order():
    found = verdicts.contests(samples(2, ("c", "a", "b")))
    assert [(one.system, two.system, one.prompt_id) for one, two in found] == [
        (*pair, prompt)
        for pair in (("c", "a"), ("c", "b"), ("a", "b"))
        for prompt in ("p0", "p1")
    ]


@pytest.mark.parametrize(
    "broken, match",
    [
        (samples()[:-1], "'rlaif' has no reply to prompt 'p2'"),
        (samples() + samples()[:1], "'rlcd' has two replies to prompt 'p0'"),
        (
            samples() + [verdicts.JudgedReply("p0", "x", "other text", "r")],
            "'p0' is shown to system 'x'",
        ),
    ],
)
def test_contests_name_what_does_not_fit(broken, match):
    with pytest.raises(ValueError, match=match):
        verdicts.contests(broken)


def verdict(winner, **fields):
    fields = {"length_1": 3, "length_2": 3, **fields}
    return verdicts.Verdict("p", "j", "rlcd", "rlaif", winner, **fields)


def test_verdicts_survive_a_file(tmp_path):
    rows = [
        verdict("1", score_1=0.5, answers=("(A)", "(B)")),
        verdict("none", unparsed=2),
    ]
    record_files.write_jsonl(tmp_path / "verdicts.jsonl", rows)
    assert (
        record_files.read_jsonl(tmp_path / "verdicts.jsonl", verdicts.Verdict) == rows
    )
    with pytest.raises(ValueError, match="winner"):
        verdict("3")


def test_seen_from_puts_a_system_first():
    given = verdict("1", length_1=3, length_2=8, score_1=0.5, score_2=0.1)
    assert verdicts.seen_from(given, "rlcd") is given
    turned = verdicts.seen_from(given, "rlaif")
    assert (turned.system_1, turned.system_2, turned.winner) == ("rlaif", "rlcd", "2")
    assert (turned.length_1, turned.length_2) == (8, 3)
    assert (turned.score_1, turned.score_2) == (0.1, 0.5)
    assert verdicts.seen_from(turned, "rlcd") == given
    assert verdicts.seen_from(verdict("tie"), "rlaif").winner == "tie"
    with pytest.raises(ValueError, match="'rlcd' and 'rlaif', not 'base'"):
        verdicts.seen_from(given, "base")


def test_equal_length_rate_makes_the_draws_of_a_prompt_one_cluster():
    rng = np.random.default_rng(0)
    points = rng.choice(["1", "2", "tie"], 60)
    lengths = rng.integers(1, 30, (60, 2))
    names = [f"p{i % 20}" for i in range(60)]
    given = [
        dataclasses.replace(
            verdict(str(point), length_1=int(one), length_2=int(two)),
            prompt_id=name,
            draw=i // 20,
        )
        for i, (point, (one, two), name) in enumerate(
            zip(points, lengths, names, strict=True)
        )
    ]
    found = verdicts.equal_length_rate(given, level=0.9)
    worth = [{"1": 1.0, "2": 0.0, "tie": 0.5}[name] for name in points]
    expected = win_rates.length_controlled_win_rate(
        worth,
        lengths[:, 0],
        lengths[:, 1],
        prompts=[f"p{i % 20}" for i in range(60)],
        level=0.9,
    )
    assert found == expected and found.num == 20 and found.level == 0.9


def test_equal_length_rate_refuses_verdicts_on_other_systems():
    turned = verdicts.seen_from(verdict("1"), "rlaif")
    with pytest.raises(ValueError, match="one judge, one first and one second system"):
        verdicts.equal_length_rate([verdict("1"), turned])
    assert verdicts.equal_length_rate([]).reason.startswith("0 prompts")


# --- judges of single replies -----------------------------------------------


def test_lexicon_prefers_the_cheerful_reply():
    both = samples(2, ("sad",), "This is terrible and sad.")
    both += samples(2, ("glad",), "What a wonderful, happy day!")
    both += samples(2, ("same",), "What a wonderful, happy day!")
    scores = judges.lexicon_scores(both)
    assert all(-1 <= score.score <= 1 for score in scores)
    given = judges.compare_scores(both, scores, epsilon=judges.LEXICON_EPSILON)
    winners = {(v.system_1, v.system_2): v.winner for v in given}
    assert winners == {
        ("sad", "glad"): "2",
        ("sad", "same"): "2",
        ("glad", "same"): "tie",
    }
    assert given[0].score_2 > 0 > given[0].score_1 and given[0].length_1 == 5


def test_preference_scores_asks_for_each_text_once():
    asked = []

    def score(pairs):
        asked.extend(pairs)
        return [float(len(reply)) for _, reply in pairs]

    both = samples(2) + samples(2, ("copy",), "rlcd says {i}")
    scores = judges.preference_scores(both, score, judge="held_out")
    assert len(asked) == len(set(asked)) == 4
    given = judges.compare_scores(both, scores, epsilon=0.0)
    by_pair = {(v.system_1, v.system_2): v.winner for v in given}
    assert by_pair == {
        ("rlcd", "rlaif"): "2",
        ("rlcd", "copy"): "tie",
        ("rlaif", "copy"): "1",
    }
    assert given[0].judge == "held_out"


@pytest.mark.parametrize(
    "values, match",
    [([1.0], "1 answers for 6"), ([float("nan")] * 6, "nan for text 0")],
)
def test_preference_scores_refuses_a_broken_model(values, match):
    with pytest.raises(ValueError, match=match):
        judges.preference_scores(samples(), lambda pairs: values)


def test_compare_scores_names_the_reply_without_score():
    scores = judges.lexicon_scores(samples())[:-1]
    with pytest.raises(ValueError, match="'rlaif' to prompt 'p2'"):
        judges.compare_scores(samples(), scores, epsilon=0)


# --- log-odds judge ---------------------------------------------------------


def rate_of(given):
    return sum(verdict.points for verdict in given) / len(given)


@pytest.mark.parametrize("by_mean", [False, True])
def test_log_odds_judge_that_always_says_a_gets_half_and_all_flips(by_mean):
    given = judges.log_odds(
        samples(),
        lambda texts: [(3.0, 1.0)] * len(texts),
        question=QUESTION,
        by_mean=by_mean,
    )
    assert rate_of(given) == 0.5
    assert [v.winner for v in given] == ["tie"] * 3 and sum(v.flips for v in given) == 3


def knows(texts, bias=0.0):
    """Prefer rlcd by 2 and the letter A by `bias`, whatever the order."""
    firsts = ["(A) rlcd" in text for text in texts]
    return [(bias + (2.0 if first else 0.0), 0.0 if first else 2.0) for first in firsts]


def test_log_odds_judge_that_knows_is_believed():
    given = judges.log_odds(samples(), knows, question=QUESTION)
    assert [v.winner for v in given] == ["1"] * 3
    assert given[0].score_1 == 2.0 and given[0].score_2 == -2.0 and given[0].flips == 0
    swapped = samples(3, ("rlaif", "rlcd"))
    assert {v.winner for v in judges.log_odds(swapped, knows, question=QUESTION)} == {
        "2"
    }


def test_log_odds_by_mean_cancels_a_liking_for_a_letter():
    def biased(texts):
        return knows(texts, bias=5.0)

    by_both = judges.log_odds(samples(), biased, question=QUESTION)
    by_mean = judges.log_odds(samples(), biased, question=QUESTION, by_mean=True)
    assert {v.winner for v in by_both} == {"tie"}
    assert {v.winner for v in by_mean} == {"1"} and by_mean[0].score_1 == 2.0
    assert all(v.flips == 1 for v in by_both + by_mean)


def test_log_odds_shows_the_question_and_both_orders():
    seen = []

    def score(texts):
        seen.extend(texts)
        return [(0.0, 0.0)] * len(texts)

    given = judges.log_odds(samples(1), score, question=QUESTION)
    assert len(seen) == 2 and all(QUESTION in t and "Hello 0?" in t for t in seen)
    assert "(A) rlcd says 0" in seen[0] and "(A) rlaif says 0" in seen[1]
    assert given[0].winner == "tie" and given[0].flips == 0


def test_log_odds_does_not_ask_about_equal_replies():
    given = judges.log_odds(
        samples(reply="same"), lambda texts: 1 / 0, question=QUESTION
    )
    assert [(v.winner, v.flips) for v in given] == [("tie", 0)] * 3


def test_log_odds_refuses_an_empty_question():
    with pytest.raises(ValueError, match="question is empty"):
        judges.log_odds(samples(), knows, question=" ")


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


def completion(text, finish="stop", **more):
    message = {"role": "assistant", "content": text}
    choices = [{"message": message, "finish_reason": finish}]
    return json.dumps({"choices": choices, **more}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """Plays the next entry of the server's script, then its answer function."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), body))
            trouble = self.server.script.pop(0) if self.server.script else None
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.play(trouble, body)

    def play(self, trouble, body):
        if isinstance(trouble, int):
            self.send(trouble, b'{"error": "secret-key is no good"}')
        elif trouble == "hang up":
            self.connection.close()
        elif trouble == "slow":
            time.sleep(0.6)
            self.send(200, completion("(A)"))
        elif trouble == "trickle":
            for byte in b"HTTP/1.1 200 OK\r\nx-a: " + b"y" * 12:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.05)
        elif isinstance(trouble, tuple):
            self.send(*trouble)
        elif trouble == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(12):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
        elif isinstance(trouble, bytes):
            self.send(200, trouble)
        else:
            self.send(200, self.server.answer(body))

    def send(self, status, data, after="7"):
        self.send_response(status)
        if status == 429:
            self.send_header("retry-after", after)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    one = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    one.lock, one.seen, one.script = threading.Lock(), [], []
    one.answer = lambda body: completion(
        "(A)", usage={"prompt_tokens": 100, "completion_tokens": 1}
    )
    one.daemon_threads = True
    thread = threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def make_api(server, tmp_path, **changes):
    port = server.server_address[1]
    values = {
        "base_url": f"http://127.0.0.1:{port}/v1",
        "model": "judge-1",
        "cache": str(tmp_path / "cache"),
        "price_input": 10.0,
        "price_output": 30.0,
        "max_cost": 1.0,
        "max_tokens": 50,
        "timeout_seconds": 0.3,
        "max_tries": 3,
        "concurrency": 1,
        **changes,
    }
    pauses = []
    api = chat_api.ChatApi(
        chat_api.ApiSettings(**values), "secret-key", sleep=pauses.append
    )
    return api, pauses


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


@pytest.mark.parametrize(
    "trouble",
    [500, 503, "hang up", "slow", "drip", "trickle", b"garbage", b"[]", b"", b"[" * 9**5,
     completion("(A)")[:-9], b'{"choices": []}', completion(["(A)"]), b"\xff\xfe",
     b"<html><title>Sign in</title></html>", b'{"error": {"message": "busy"}}',
     b'{"choices": [null]}', b'{"choices": [{"message": {"tool_calls": [{}]}}]}'],
)  # fmt: skip
def test_chat_api_tries_again_after_trouble(server, tmp_path, trouble):
    server.script = [trouble]
    api, pauses = make_api(server, tmp_path)
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
    assert "temperature" not in server.seen[-1][2]


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
    api, _ = make_api(server, tmp_path)
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


class SaysFirst:
    """An interface that must not be asked about empty replies."""

    def __init__(self):
        self.asked = []

    def ask_all(self, texts, progress):
        self.asked += texts
        return ["(A)"] * len(texts)


def test_an_empty_reply_loses_under_every_judge():
    said = {"base": ["", "", "Hi.", "What a sad, awful day."]}
    said["rlcd"] = ["What a sad, awful day.", " \n", "Hi.", "\t"]
    made = [
        verdicts.JudgedReply(f"p{n}", system, "Human: hi\n\nAssistant:", reply)
        for system, replies in said.items()
        for n, reply in enumerate(replies)
    ]
    scores = judges.lexicon_scores(made)
    by_score = judges.compare_scores(made, scores, epsilon=0.05)
    liked = judges.preference_scores(made, lambda rows: [-len(r) for _, r in rows])
    asked = []
    by_odds = judges.log_odds(made, lambda texts: asked.append(texts), question="?")
    api = SaysFirst()
    by_api = api_judge.compare(made, api, question="?", judge="api")
    assert not asked and not api.asked
    by_preference = judges.compare_scores(made, liked, epsilon=0.0)
    for given in (by_score, by_preference, by_odds, by_api):
        assert [v.winner for v in given] == ["2", "tie", "tie", "1"]
    assert verdicts.count_empty(made) == {"base": 2, "rlcd": 2}


def test_contests_are_of_draws_and_of_ids_with_any_characters():
    ids = [(f"issue#{n}", None) for n in range(3)] + [("issue", n) for n in range(3)]
    made = [
        verdicts.JudgedReply(name, system, "hi", f"{system} {n}", draw)
        for system in ("base", "rlcd")
        for n, (name, draw) in enumerate(ids)
    ]
    found = verdicts.contests(made)
    assert [(one.prompt_id, one.draw) for one, _ in found] == ids
    with pytest.raises(ValueError, match="two replies to prompt 'issue#1'.*'draw'"):
        verdicts.contests([*made, made[4]])


def test_api_settings_let_a_server_that_costs_nothing_be(server, tmp_path):
    free = {"price_input": 0, "price_output": 0}
    api, _ = make_api(server, tmp_path, **free)  # on this machine
    assert api.ask_all(["hello"]) == ["(A)"] and (api.spent, api.calls) == (0, 1)
    make_api(server, tmp_path, base_url=REMOTE, max_cost=0, **free)


# --- the table of judges --------------------------------------------------------------


def test_judges_have_one_row_each_and_fit_or_say_why():
    cheerful, polite = tasks.load_task("cheerful"), tasks.load_task("helpful")
    assert all(name == row.name and row.what for name, row in judges.JUDGES.items())
    assert not any(row.misfit(cheerful) for row in judges.JUDGES.values())
    assert [n for n, row in judges.JUDGES.items() if row.misfit(polite)] == ["lexicon"]
    assert not judges.JUDGES[judges.DEFAULT].misfit(polite)


@pytest.mark.parametrize("name", judges.JUDGES)
def test_every_judge_of_the_table_judges(name):
    means = judges.Means(
        QUESTION,
        lambda texts: [(2.0, 1.0)] * len(texts),
        lambda pairs: [float(len(reply)) for _, reply in pairs],
    )
    scores, given = judges.JUDGES[name].judge(samples(), means)
    assert {v.judge for v in given} == {name} and len(given) == 3
    assert {s.judge for s in scores} <= {name}


@pytest.mark.parametrize(
    "asked, chosen, notes",
    [
        (("lexicon",), ["log_odds"], ["lexicon is left out", "takes its place"]),
        (("lexicon", "preference"), ["preference"], ["lexicon is left out"]),
        (("log_odds",), ["log_odds"], []),
        ((), [], []),
    ],
)
def test_choose_says_which_judge_is_missing(asked, chosen, notes):
    found, said = judges.choose(asked, tasks.load_task("helpful"))
    assert found == chosen
    assert len(said) == len(notes) and all(
        words in text for words, text in zip(notes, said, strict=True)
    )
    assert judges.choose(("lexicon",), tasks.load_task("cheerful")) == (["lexicon"], [])
    with pytest.raises(ValueError, match="'oracle'; accepted: lexicon, log_odds, pre"):
        judges.choose(("oracle",), tasks.load_task("helpful"))


def test_judges_show_a_lead_in_with_the_reply_it_belongs_to():
    task = tasks.load_task("outline")
    turn = records.Turn("human", "A fox learns to sail.")
    text = dialogue_format.plain_prompt(records.Prompt("p", (turn,)), task)
    both = [
        verdicts.JudgedReply("p", name, text, f"{name} sets out.\n2. Home.")
        for name in ("Fox", "Vixen")
    ]
    straight, swapped = api_judge.questions(both, QUESTION)
    seen = []

    def score(texts):
        seen.extend(texts)
        return [(0.0, 0.0)] * len(texts)

    judges.log_odds(both, score, question=QUESTION)
    for shown in (straight, swapped, *seen):
        dialogue, _, replies = shown.partition("(A)")
        assert "1." not in dialogue and "possible outline" not in dialogue
        assert replies.count("One possible outline of the story:") == 2
        assert "1. Fox sets out.\n2. Home." in replies
    plain = samples(1)[0]
    assert judges.whole_turns(plain) == (plain.prompt, plain.reply)
