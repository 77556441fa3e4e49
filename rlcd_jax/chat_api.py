"""Questions to a model behind an OpenAI-compatible HTTP interface.

Answers are kept in a cache on disk under a hash of the whole question, so a run that
stopped goes on where it was, and a finished one can be read again without a network
(``offline``). Before the first call the price is estimated and compared with
``max_cost``.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import pathlib
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
from absl import logging

from rlcd_jax import records

SYSTEM_MESSAGE = "You are a careful and fair judge of replies."
LONGEST_ANSWER = 1_000_000  # bytes of one HTTP answer
LONGEST_PAUSE = 60.0  # seconds between two tries
BYTES_A_TOKEN = 3  # below the usual 4, so that estimates are high rather than low
TOKENS_A_MESSAGE = 8
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)


@dataclasses.dataclass(frozen=True)
class ApiSettings:
    """Where and how to ask, and what it may cost.

    Prices are per million tokens, in one currency with `max_cost`; a local server
    costs 0. `max_failures` questions may stay without an answer after `max_tries`.
    """

    base_url: str
    model: str
    cache: str
    price_input: float
    price_output: float
    max_cost: float
    max_tokens: int = 300
    timeout_seconds: float = 60.0
    max_tries: int = 5
    pause_seconds: float = 1.0
    max_failures: int = 5
    concurrency: int = 4
    offline: bool = False

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise ValueError(
                f"base_url must start with http(s)://, got {self.base_url}"
            )
        for name in ("max_tokens", "timeout_seconds", "max_tries", "concurrency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("price_input", "price_output", "max_cost", "max_failures"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")


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
      sleep: function that waits some seconds.
    """

    def __init__(
        self,
        settings: ApiSettings,
        api_key: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.settings = settings
        self.spent = 0.0
        self.calls = 0
        self.failures: list[str] = []
        self._api_key = api_key
        self._sleep = sleep
        self._lock = threading.Lock()

    def estimate(self, texts: Sequence[str]) -> Price:
        """Return what asking would cost, each call tried once; asks nothing."""
        bodies = [_body(self.settings, text) for text in texts]
        keyed = {_key(self.settings, body): body for body in bodies}
        new = {key: body for key, body in keyed.items() if self._read(key) is None}
        given = sum(_tokens(body) for body in new.values())
        written = len(new) * self.settings.max_tokens
        cost = self._cost(given, written)
        return Price(len(new), len(keyed) - len(new), given, written, cost)

    def ask_all(
        self,
        texts: Sequence[str],
        *,
        progress: Callable[[int], None] = lambda count: None,
    ) -> list[str | None]:
        """Return the answer to each text, in order, from the cache or the interface.

        Args:
          texts: what to ask, each in a conversation of its own.
          progress: called with 1 after each answer.

        Returns:
          One answer a text; None where there was none after all tries.

        Raises:
          ValueError: the estimate is above ``max_cost``, or ``offline`` is set and an
            answer is not in the cache. Nothing was asked then.
          RuntimeError: the interface refused, too many texts stayed without an answer,
            or what was really spent went above ``max_cost``. The answers so far are in
            the cache.
        """
        self._check_price(self.estimate(texts))
        bodies = {text: _body(self.settings, text) for text in texts}
        timeout = httpx.Timeout(self.settings.timeout_seconds)
        key = self._api_key
        headers = {"authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(timeout=timeout, headers=headers) as client,
            concurrent.futures.ThreadPoolExecutor(self.settings.concurrency) as pool,
        ):
            futures = {
                text: pool.submit(self._ask, client, body)
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

    def _ask(self, client: httpx.Client, body: dict[str, Any]) -> str | None:
        """Return one answer; None when there is none after all tries."""
        key = _key(self.settings, body)
        cached = self._read(key)
        if cached is not None:
            return cached
        reason = ""
        for number in range(self.settings.max_tries):
            self._check_spent()
            try:
                return self._keep(key, body, self._post(client, body))
            except _TryAgain as failure:
                reason, pause = str(failure), failure.pause
            if number + 1 < self.settings.max_tries:
                backoff = self.settings.pause_seconds * 2**number
                self._sleep(min(max(backoff, pause), LONGEST_PAUSE))
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
        return None

    def _check_spent(self) -> None:
        with self._lock:
            spent = self.spent
        if self.settings.max_cost < spent:
            raise RuntimeError(
                f"spent {spent:.4f}, more than max_cost = {self.settings.max_cost}; "
                f"answers so far are in {self.settings.cache}"
            )

    def _keep(self, key: str, body: dict[str, Any], reply: Mapping[str, Any]) -> str:
        """Count the cost of an answer, put it in the cache and return its text."""
        text = reply["choices"][0]["message"]["content"] or ""
        text = text.encode(errors="replace").decode()  # a lone surrogate is no text
        usage = reply.get("usage")
        given = _count(usage, "prompt_tokens", _tokens(body))
        written = _count(usage, "completion_tokens", -(-len(text) // BYTES_A_TOKEN))
        with self._lock:
            self.spent += self._cost(given, written)
            self.calls += 1
        kept = {"base_url": self.settings.base_url, "request": body, "answer": text}
        records.write_json(self._path(key), kept | {"tokens": [given, written]})
        return text

    def _cost(self, given: float, written: float) -> float:
        """Return the price of tokens read and written by the model."""
        settings = self.settings
        return (given * settings.price_input + written * settings.price_output) / 1e6

    def _path(self, key: str) -> pathlib.Path:
        return pathlib.Path(self.settings.cache) / key[:2] / f"{key}.json"

    def _read(self, key: str) -> str | None:
        """Return a cached answer, or None."""
        path = self._path(key)
        if not path.exists():
            return None
        try:
            return str(json.loads(path.read_text(encoding="utf-8"))["answer"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a cached answer; remove it") from error

    def _check_price(self, price: Price) -> None:
        settings = self.settings
        logging.info("asking %s: %s", settings.model, price)
        if settings.offline and price.calls:
            raise ValueError(
                f"offline, but {price.calls} of {price.calls + price.cached} answers "
                f"are not in {settings.cache}; run once with offline=False"
            )
        if price.cost > settings.max_cost:
            raise ValueError(
                f"asking may cost {price.cost:.2f} ({price.calls} calls, "
                f"{price.input_tokens} tokens in, {price.output_tokens} out), more "
                f"than max_cost = {settings.max_cost:.2f}; raise max_cost or ask "
                "about fewer prompts"
            )

    def _post(self, client: httpx.Client, body: Mapping[str, Any]) -> dict[str, Any]:
        """Post once and return a chat completion.

        Raises:
          _TryAgain: there was none, but there may be one next time.
          RuntimeError: the interface refused.
        """
        url = self.settings.base_url.rstrip("/") + "/chat/completions"
        try:
            with client.stream("POST", url, json=body) as response:
                data = self._receive(response)
        except httpx.HTTPError as error:
            raise _TryAgain(f"{type(error).__name__}: {error}") from error
        shown = data[:200].decode(errors="replace")
        if self._api_key:
            shown = shown.replace(self._api_key, "[key]")
        if response.status_code in TRY_AGAIN:
            asked = response.headers.get("retry-after", "")
            pause = float(asked) if re.fullmatch(r"\d+(\.\d+)?", asked) else 0.0
            raise _TryAgain(f"HTTP {response.status_code}: {shown}", pause)
        if response.status_code != 200:
            raise RuntimeError(
                f"{url} refused with HTTP {response.status_code}: {shown}; check "
                "base_url, model and the key"
            )
        try:
            reply = json.loads(data)
            content = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError) as error:
            raise _TryAgain(f"not a chat completion: {shown!r}") from error
        if content is not None and not isinstance(content, str):
            raise _TryAgain(f"the content is no text: {shown!r}")
        return reply

    def _receive(self, response: httpx.Response) -> bytes:
        """Return the body of a response; a slow or endless one is given up."""
        deadline = time.monotonic() + self.settings.timeout_seconds
        data = b""
        for part in response.iter_bytes():
            data += part
            if time.monotonic() > deadline:
                raise _TryAgain(f"no whole answer in {self.settings.timeout_seconds} s")
            if len(data) > LONGEST_ANSWER:
                raise _TryAgain(f"an answer of over {LONGEST_ANSWER} bytes")
        return data


class _TryAgain(Exception):
    """A try that gave no answer: why, and how many seconds to wait at least."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def _body(settings: ApiSettings, text: str) -> dict[str, Any]:
    """Return the request body for one question."""
    messages = [
        {"role": "system", "content": SYSTEM_MESSAGE},
        {"role": "user", "content": text},
    ]
    return {
        "model": settings.model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": settings.max_tokens,
    }


def _key(settings: ApiSettings, body: Mapping[str, Any]) -> str:
    """Return the name of an answer in the cache: a hash of all that was asked."""
    text = json.dumps([settings.base_url, body], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=20).hexdigest()


def _tokens(body: Mapping[str, Any]) -> int:
    """Return a high estimate of the tokens in a request."""
    size = sum(len(message["content"].encode()) for message in body["messages"])
    return -(-size // BYTES_A_TOKEN) + TOKENS_A_MESSAGE * len(body["messages"])


def _count(usage: Any, name: str, estimate: int) -> int:
    """Return a number of tokens as the interface tells it, else the estimate."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if type(value) is int and value >= 0 else estimate
