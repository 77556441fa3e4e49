"""Questions on the wire: what is sent to a chat interface, and what comes back.

A server may not take a parameter, may answer with a page of HTML, may send a byte a
second, and may send a key back. Each of these ends in a `TryAgain` or a `Refused` whose
words hold no secret, and in a limited time.
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import functools
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import httpx
from absl import logging
from anyio import from_thread

from rlcd_jax.judging import secrets
from rlcd_jax.judging import settings as api_settings

LONGEST_ANSWER = 1_000_000  # bytes of one HTTP answer
# What is packed may unpack to any size before it can be counted.
PLAIN = {"accept-encoding": "identity"}
TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
MISFIT = (400, 422)  # a parameter that the server does not take
LIMITS = api_settings.FIELDS[:2]
NOT_TAKEN = re.compile(
    r"unsupported|not support|unrecogni|unknown|unexpected|not permitted|not allowed|"
    r"extra (inputs|fields)|invalid param|deprecated|instead",
    re.IGNORECASE,
)

Sent = tuple[int, Mapping[str, str], bytes]  # status, headers, body of an answer
Send = Callable[[Mapping[str, Any]], Sent]


class TryAgain(Exception):
    """A try that gave no answer: why, and how many seconds to wait at least."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class Unsent(TryAgain):
    """A try that did not reach the server, so that it cost nothing."""


class Refused(RuntimeError):
    """The interface refused the question as it was asked."""


class Wire:
    """A server, the parameters that it has refused, and how to reach it.

    Args:
      settings: where and how.
      api_key: sent as a bearer token; None sends none.

    Attributes:
      address: where to send, and what of it may be shown.
      hide: takes every secret out of a text.
    """

    def __init__(self, settings: api_settings.ApiSettings, api_key: str | None) -> None:
        secrets.check_key(api_key)
        self.settings = settings
        self.address = settings.address
        self.hide = secrets.make_hider(api_key, self.address)
        self._api_key = api_key
        self._refused: set[str] = set()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def connected(self) -> Iterator[Send]:
        """Give a function that any thread may call to post a body."""
        with (
            secrets.quiet_logs(self.hide),
            from_thread.start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._client()) as client,
        ):
            yield lambda body: portal.call(self._exchange, client, body)

    def dress(self, body: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """Return a body with the parameters that the server takes."""
        with self._lock:
            refused = set(self._refused)
        field = self.settings.max_tokens_field
        others = [name for name in LIMITS if name not in refused]
        if field in refused and others:
            field = others[0]
        sent = {k: v for k, v in body.items() if k not in {*LIMITS, *refused}}
        return sent if field == "none" else sent | {field: limit}

    def give_way(self, sent: Mapping[str, Any], data: bytes) -> bool:
        """Note a parameter that was refused; say whether there is another way."""
        text = data.decode(errors="replace")
        named = [
            name
            for name in (*LIMITS, "temperature")
            if name in sent and re.search(rf"\b{name}\b", text)
        ]
        if not (named and NOT_TAKEN.search(text)):
            return False
        with self._lock:
            new = set(named) - self._refused
            if {*self._refused, *new} >= set(LIMITS):
                return False
            self._refused |= new
        if new:
            logging.info("%s takes no %s", self.settings.model, ", ".join(sorted(new)))
        return True

    def refuse(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        """Raise what a status other than 200 means."""
        shown = secrets.excerpt(data, self.hide)
        spent = status == 429 and b"insufficient_quota" in data
        if status in TRY_AGAIN and not spent:
            pause = _pause(headers.get("retry-after", ""))
            raise TryAgain(f"HTTP {status}: {shown}", pause)
        raise Refused(
            f"{self.address.shown} refused with HTTP {status}: {shown}; check "
            "base_url, model, max_tokens_field and the key"
        )

    def _client(self) -> httpx.AsyncClient:
        key, user = self._api_key, self.address.user
        if key and user:
            logging.info("the user of base_url is sent in place of the API key")
        return httpx.AsyncClient(
            timeout=httpx.Timeout(self.settings.timeout_seconds),
            headers=PLAIN | ({"authorization": f"Bearer {key}"} if key else {}),
            auth=httpx.BasicAuth(*user) if user else None,
        )

    async def _exchange(
        self, client: httpx.AsyncClient, body: Mapping[str, Any]
    ) -> Sent:
        """Post once; the time for all of it, headers included, is limited."""
        url = secrets.completions_url(self.address)
        seconds = self.settings.timeout_seconds
        try:
            with anyio.fail_after(seconds):
                async with client.stream("POST", url, json=body) as response:
                    packed = response.headers.get("content-encoding", "identity")
                    if packed.strip().lower() not in ("", "identity"):
                        raise TryAgain(
                            self.hide(f"an answer packed as {packed[:40]!r}")
                        )
                    data = b""
                    async for part in response.aiter_raw():
                        data += part
                        if len(data) > LONGEST_ANSWER:
                            raise TryAgain(f"an answer of over {LONGEST_ANSWER} bytes")
                    return response.status_code, dict(response.headers), data
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL) as error:
            failure: TryAgain = Unsent(self._said(error))
        except TimeoutError:
            failure = TryAgain(f"no whole answer in {seconds:g} s")
        except (httpx.HTTPError, OSError, UnicodeError) as error:
            failure = TryAgain(self._said(error))
        raise failure  # outside of the handler: the client's own error may hold a key

    def _said(self, error: Exception) -> str:
        return self.hide(f"{type(error).__name__}: {error}")


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Return whom this process trusts; to read them takes longer than a question."""
    return httpx.create_ssl_context()


def _pause(asked: str) -> float:
    """Return the seconds that a Retry-After header asks for, a number or a date."""
    if re.fullmatch(r"\d{1,9}(\.\d+)?", asked):
        return float(asked)
    try:
        until = email.utils.parsedate_to_datetime(asked)
        now = datetime.datetime.now(until.tzinfo)
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError):
        return 0.0
