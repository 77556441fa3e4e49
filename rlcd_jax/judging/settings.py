"""Where and how to ask a judge, and what it may cost."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import pathlib
from collections.abc import Iterator

from ml_collections import ConfigDict

from rlcd_jax.judging import secrets

FIELDS = ("max_tokens", "max_completion_tokens", "none")  # that limit the answer
CACHE = "judge_cache"  # folder of answers in a workdir
KEY = "OPENAI_API_KEY"  # variable of the environment that commands read
NO_JUDGE = "no API judge: --config.judge.url, --config.judge.name"
NO_KEY = f"missing API key: {KEY}"
# Of the command; no config has it, so that no file does.
_key: contextvars.ContextVar[str | None] = contextvars.ContextVar("key", default=None)


@dataclasses.dataclass(frozen=True)
class ApiSettings:
    """Where and how to ask, and what it may cost.

    Prices are per million tokens, in one currency with `max_cost`; a server that costs
    nothing has prices of 0 and, unless it is on this machine, a `max_cost` of 0.
    `max_failures` questions may stay without an answer after `max_tries`. An answer cut
    before its first word is asked for again with more tokens, up to `longest_tokens`.
    `max_tokens_field` is what the server calls that limit; "none" sends no limit. A
    user name and a password in `base_url` are sent as basic authentication.
    """

    base_url: str = dataclasses.field(repr=False)
    model: str
    cache: str
    price_input: float
    price_output: float
    max_cost: float
    max_tokens: int = 300
    timeout_seconds: float = 60.0  # of a whole try, from connecting to the last byte
    max_tries: int = 5
    pause_seconds: float = 1.0
    max_failures: int = 5
    concurrency: int = 4
    offline: bool = False
    max_tokens_field: str = "max_tokens"
    longest_tokens: int = 4096

    def __post_init__(self) -> None:
        address = secrets.read_address(self.base_url)
        if self.max_tokens_field not in FIELDS:
            raise ValueError(
                f"max_tokens_field is {self.max_tokens_field!r}; accepted: "
                f"{', '.join(FIELDS)}"
            )
        for name in ("max_tokens", "timeout_seconds", "max_tries", "concurrency"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("price_input", "price_output", "max_cost", "max_failures"):
            value = getattr(self, name)
            if value is None or not value >= 0:
                raise ValueError(f"{name} is {value}; accepted: a number from 0 on")
        free = not (self.price_input and self.price_output)
        if free and 0 < self.max_cost < float("inf") and not address.is_local:
            raise ValueError(
                f"max_cost = {self.max_cost:g} cannot hold with price_input = "
                f"{self.price_input:g} and price_output = {self.price_output:g}, which "
                f"make calls of {address.shown} free; give both prices a million "
                "tokens, or max_cost = 0 for a server that costs nothing"
            )

    def most_tokens(self, limit: int) -> int:
        """Return the most tokens of an answer to a question asked with a limit."""
        if self.max_tokens_field == "none":
            return max(limit, self.longest_tokens)
        return limit

    @property
    def address(self) -> secrets.Address:
        """Where to send, and what of it may be shown."""
        return secrets.read_address(self.base_url)


@contextlib.contextmanager
def using(api_key: str | None) -> Iterator[None]:
    """Let what is asked meanwhile have a key; None: there is none."""
    token = _key.set(api_key)
    try:
        yield
    finally:
        _key.reset(token)


def key() -> str | None:
    """Return the key that is used; None: there is none."""
    return _key.get()


def read(
    judge: ConfigDict, root: str | pathlib.Path, api_key: str | None
) -> tuple[ApiSettings | None, str]:
    """Return the settings of the API judge, or why there is none.

    Args:
      judge: section of the config, of a run or of the tables.
      root: folder in which answers are kept.
      api_key: what will be sent; None: nothing, which a server on this machine allows.

    Raises:
      ValueError: the address is none, or a limit on cost is void without prices.
    """
    if not (judge.url and judge.name):
        return None, NO_JUDGE
    local = secrets.read_address(judge.url).is_local  # needs no key
    if not (api_key or judge.offline or local):
        return None, NO_KEY
    check_prices(judge)
    settings = ApiSettings(
        base_url=judge.url,
        model=judge.name,
        cache=str(pathlib.Path(root) / CACHE),
        price_input=judge.price_input or 0.0,
        price_output=judge.price_output or 0.0,
        max_cost=judge.max_cost,
        offline=judge.offline,
        max_tokens_field=judge.max_tokens_field,
    )
    return settings, ""


def check_prices(judge: ConfigDict) -> None:
    """Refuse a limit on cost that prices of nothing would make void.

    Args:
      judge: section of the config, with an address.
    """
    local = secrets.read_address(judge.url).is_local
    if judge.offline or (local and not judge.max_cost):
        return
    prices = (judge.price_input, judge.price_output)
    if all(prices) or (None not in prices and not judge.max_cost):
        return
    raise ValueError(
        f"judge.price_input, judge.price_output = {prices[0]}, {prices[1]} with "
        f"judge.max_cost = {judge.max_cost:g}: without both prices no cost can be "
        "known; give them (a million tokens, in the currency of judge.max_cost), or 0 "
        "and 0 and no judge.max_cost for a server that costs nothing"
    )
