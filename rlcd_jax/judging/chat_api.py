"""Questions to a model behind an OpenAI-compatible HTTP interface.

Answers are kept in a cache on disk under a hash of the whole question, so a run that
stopped goes on where it was, and a finished one can be read again without a network
(`offline`). Before the first call the price is estimated and compared with what the
budget leaves; each call reserves the most that it may cost before it is sent.

A model that thinks may spend all its tokens before the first word of its answer. Such a
reply is no answer: it is asked for again with more tokens, counted, and never cached.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import logging

from rlcd_jax import jsonl, record_files, schema, tasks
from rlcd_jax.judging import budget as budgets
from rlcd_jax.judging import completions, secrets, wire
from rlcd_jax.judging.settings import ApiSettings

SYSTEM_MESSAGE = tasks.JudgeWording().system
LONGEST_PAUSE = 60.0  # seconds between two tries
BYTES_A_TOKEN = 3  # below the usual 4, so that estimates are high rather than low
TOKENS_A_MESSAGE = 8
LONGEST_REASON = 100  # characters of our own words on a reply, for a message
GROWTH = 4  # times the tokens when an answer was cut before its first word


@dataclasses.dataclass(frozen=True)
class Price:
    """An estimate before the first call: calls to make, tokens, and their cost."""

    calls: int
    cached: int
    input_tokens: int
    output_tokens: int
    cost: float


class ChatApi:
    """Asks a model, with retries, a cache and a limit on cost.

    Args:
      settings: where and how.
      api_key: sent as a bearer token, written nowhere; None sends none.
      budget: what may be spent, shared with others that ask; None: `max_cost` for this
        one alone.
      sleep: function that waits some seconds.

    Attributes:
      spent: what its calls cost.
      calls: answers paid for.
      cut: replies that ended before the first word of an answer.
      failures: why questions stayed without an answer.
    """

    def __init__(
        self,
        settings: ApiSettings,
        api_key: str | None = None,
        *,
        budget: budgets.Budget | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.budget = budget or budgets.Budget(settings.max_cost)
        self.spent = 0.0
        self.calls = 0
        self.cut = 0
        self.failures: list[str] = []
        self._wire = wire.Wire(settings, api_key)
        self._sleep = sleep
        self._lock = threading.Lock()

    def estimate(self, texts: Sequence[str], system: str = SYSTEM_MESSAGE) -> Price:
        """Return what asking would cost, each call tried once; asks nothing."""
        bodies = [_body(self.settings, text, system) for text in texts]
        keyed = {self._key(body): body for body in bodies}
        new = {
            key: body for key, body in keyed.items() if self._read(key, body) is None
        }
        given = sum(_tokens(body) for body in new.values())
        written = len(new) * self.settings.most_tokens(self.settings.max_tokens)
        cost = self._cost(given, written)
        return Price(len(new), len(keyed) - len(new), given, written, cost)

    def ask_all(
        self,
        texts: Sequence[str],
        *,
        progress: Callable[[int], None] = lambda count: None,
        system: str = SYSTEM_MESSAGE,
    ) -> list[str | None]:
        """Return the answer to each text, in order, from the cache or the interface.

        Args:
          texts: what to ask, each in a conversation of its own.
          progress: called with 1 after each answer.
          system: the system message of each.

        Returns:
          One answer a text; None where there was none after all tries.

        Raises:
          ValueError: the estimate is above what the budget leaves, or `offline` is
            set and an answer is not in the cache. Nothing was asked then.
          RuntimeError: the interface refused, too many texts stayed without an answer,
            or the budget is spent. The answers so far are in the cache.
        """
        self._check_price(self.estimate(texts, system))
        bodies = {text: _body(self.settings, text, system) for text in texts}
        with (
            self._wire.connected() as send,
            concurrent.futures.ThreadPoolExecutor(self.settings.concurrency) as pool,
        ):
            futures = {
                text: pool.submit(self._ask, send, body)
                for text, body in bodies.items()
            }
            answers = []
            try:
                for text in texts:
                    answers.append(futures[text].result())
                    progress(1)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return answers

    # One question

    def _ask(self, send: wire.Send, body: dict[str, Any]) -> str | None:
        """Return one answer; None when there is none after all tries."""
        settings, key = self.settings, self._key(body)
        cached = self._read(key, body)
        if cached is not None:
            return cached
        reason, limit, number = "", settings.max_tokens, 0
        while number < settings.max_tries:
            pause = 0.0
            try:
                completion = self._try(send, body, limit)
            except wire.TryAgain as failure:
                reason, pause = str(failure), failure.pause
            except wire.Refused as refusal:
                if limit == settings.max_tokens:
                    raise
                reason = f"cut at {limit // GROWTH} tokens, and {refusal}"
                break
            else:
                if not completion.is_cut:
                    return self._keep(key, body, completion)
                with self._lock:
                    self.cut += 1
                most = settings.most_tokens(limit)
                reason = f"no word of an answer within {most} tokens"
                wider = min(limit * GROWTH, settings.longest_tokens)
                if wider <= limit or settings.max_tokens_field == "none":
                    break
                limit = wider
                continue
            number += 1
            if number < settings.max_tries:
                backoff = settings.pause_seconds * 2 ** (number - 1)
                self._sleep(min(max(backoff, pause), LONGEST_PAUSE))
        self._note_failure(reason)
        return None

    def _note_failure(self, reason: str) -> None:
        with self._lock:
            self.failures.append(reason)
            num_failures = len(self.failures)
        logging.warning("no answer after all tries: %s", reason)
        if num_failures > self.settings.max_failures:
            raise RuntimeError(
                f"{num_failures} questions got no answer, more than max_failures = "
                f"{self.settings.max_failures}; the last reason: {reason}. Answers so "
                f"far are in {self.settings.cache}; start again to go on"
            )

    def _try(
        self, send: wire.Send, body: Mapping[str, Any], limit: int
    ) -> completions.Completion:
        """Ask once, in the parameters that the server takes.

        Raises:
          wire.TryAgain: there was no answer, but there may be one next time.
          wire.Refused: the interface refused.
        """
        while True:
            sent = self._wire.dress(body, limit)
            most = self._cost(_tokens(body), self.settings.most_tokens(limit))
            self._reserve(most)
            cost = most  # of a try that ends in the middle: it may have been paid for
            answered = False
            try:
                status, headers, data = send(sent)
                answered = status == 200
                cost = most if answered else 0.0
                if answered:
                    completion, cost = self._understand(body, data, limit)
                    return completion
            except wire.Unsent:
                cost = 0.0
                raise
            finally:
                self.budget.settle(most, cost)
                with self._lock:
                    self.spent += cost
                    self.calls += answered
            first = limit == self.settings.max_tokens and status in wire.MISFIT
            if not (first and self._wire.give_way(sent, data)):
                self._wire.refuse(status, headers, data)

    def _understand(
        self, body: Mapping[str, Any], data: bytes, limit: int
    ) -> tuple[completions.Completion, float]:
        """Return what a reply says, and what it cost."""
        try:
            completion = completions.read_completion(_plain_json(data))
            wrong = ""
        except (ValueError, RecursionError) as error:
            is_own = type(error) is ValueError and len(str(error)) <= LONGEST_REASON
            wrong = str(error) if is_own else "no JSON"
        if wrong:
            shown = secrets.excerpt(data, self._wire.hide)
            raise wire.TryAgain(f"not a chat completion, {wrong}: {shown!r}")
        given = _tokens(body) if completion.given is None else completion.given
        written = completion.written
        if written is None:
            most = self.settings.most_tokens(limit)
            written = most if completion.is_cut else -(-len(data) // BYTES_A_TOKEN)
        return completion, self._cost(given, written)

    # Money and the cache

    def _reserve(self, amount: float) -> None:
        reason = ""
        try:
            self.budget.reserve(amount)
        except budgets.Spent as error:
            reason = str(error)
        if reason:
            raise RuntimeError(f"{reason}; answers so far are in {self.settings.cache}")

    def _keep(
        self, key: str, body: Mapping[str, Any], completion: completions.Completion
    ) -> str:
        """Put an answer in the cache and return its text; an empty one is not kept."""
        text = self._wire.hide(completion.text)
        text = text.encode(errors="replace").decode()  # a lone surrogate is no text
        if text:
            kept = {
                "base_url": self._wire.address.shown,
                "request": body,
                "answer": text,
            }
            tokens = [completion.given, completion.written]
            record_files.write_json(self._path(key), kept | {"tokens": tokens})
        return text

    def _cost(self, given: float, written: float) -> float:
        """Return the price of tokens read and written by the model."""
        settings = self.settings
        return (given * settings.price_input + written * settings.price_output) / 1e6

    def _key(self, body: Mapping[str, Any]) -> str:
        """Return the name of an answer in the cache: a hash of all that was asked."""
        text = json.dumps([self._wire.address.shown, body], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()

    def _path(self, key: str) -> pathlib.Path:
        return pathlib.Path(self.settings.cache) / key[:2] / f"{key}.json"

    def _read(self, key: str, body: Mapping[str, Any]) -> str | None:
        """Return a cached answer, or None; an empty one never was an answer."""
        path = self._path(key)
        if not path.exists():
            return None
        kept = jsonl.read_object(path)
        answer, request = kept.get("answer"), kept.get("request")
        if not isinstance(answer, str) or not isinstance(request, dict):
            raise ValueError(
                f"{path} is not a cached answer: its 'answer' is "
                f"{schema.shown(answer)}; remove it"
            )
        if kept.get("base_url") != self._wire.address.shown or request != body:
            raise ValueError(
                f"{path} is the cached answer to another question than its name says; "
                "remove it"
            )
        return answer or None

    def _check_price(self, price: Price) -> None:
        settings, spent = self.settings, self.budget.spent
        logging.info("asking %s: %s", settings.model, price)
        if settings.offline and price.calls:
            raise ValueError(
                f"offline, but {price.calls} of {price.calls + price.cached} answers "
                f"are not in {settings.cache}; run once with offline=False"
            )
        if price.cost > self.budget.left + budgets.ROUNDING:
            before = f", of which {spent:.2f} is spent" if spent else ""
            raise ValueError(
                f"asking may cost {price.cost:.2f} ({price.calls} calls, "
                f"{price.input_tokens} tokens in, {price.output_tokens} out), more "
                f"than max_cost = {self.budget.limit:.2f}{before}; raise max_cost or "
                "ask about fewer prompts"
            )


def _body(settings: ApiSettings, text: str, system: str) -> dict[str, Any]:
    """Return the request body for one question."""
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": text},
    ]
    return {
        "model": settings.model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": settings.max_tokens,
    }


def _plain_json(data: bytes) -> Any:
    """Return the value of a reply; half a surrogate pair is told apart later."""
    return json.loads(data, object_pairs_hook=jsonl.single_names)


def _tokens(body: Mapping[str, Any]) -> int:
    """Return a high estimate of the tokens in a request: a byte beyond ASCII is one."""
    texts = [message["content"] for message in body["messages"]]
    plain = sum(character < "\x80" for text in texts for character in text)
    other = sum(len(text.encode(errors="replace")) for text in texts) - plain
    return -(-plain // BYTES_A_TOKEN) + other + TOKENS_A_MESSAGE * len(texts)
