"""Keys and passwords: where an address holds them, and texts without them.

Every text that may reach a message, a log or a file goes through `Hider` before it is
cut, so that no part of a secret is left at the cut.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import json
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterator

LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
HIDDEN = "[key]"
LONGEST_EXCERPT = 200  # characters of a server's words in a message
SHORTEST_PART = 6  # characters of a key by which a cut or masked one is known
SHORTEST_VALUE = 4  # characters of a query value that may be a secret
_USER_IN_URL = re.compile(r"(?<=//)[^/\s\"'<>]*@")
_BEARER = re.compile(r"\b(Bearer|Basic)\s+[\w~+/.=-]{8,}", re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)

Hider = Callable[[str], str]


@dataclasses.dataclass(frozen=True)
class Address:
    """A base URL taken apart.

    Attributes:
      url: where to send, without user and password.
      shown: the same for people and files: values of the query are left out.
      user: name and password for basic authentication, or None.
      values: the values of the query.
      host: the host.
    """

    url: str = dataclasses.field(repr=False)
    shown: str
    user: tuple[str, str] | None = dataclasses.field(repr=False)
    values: tuple[str, ...] = dataclasses.field(repr=False)
    host: str

    @property
    def is_local(self) -> bool:
        """Whether the server is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


def read_address(base_url: str) -> Address:
    """Return the parts of a base URL.

    Raises:
      ValueError: it is none; the message holds no part of it that may be secret.
    """
    try:
        parts = urllib.parse.urlsplit(base_url)
        host, port = parts.hostname or "", parts.port
        user, password = parts.username, parts.password
    except (ValueError, AttributeError, TypeError):
        parts = None
    if parts is None or parts.scheme not in ("http", "https") or not host:
        raise ValueError(
            "base_url must start with http(s):// and a host, got "
            f"{_outline(base_url)}; in a user name or a password write '/' as %2F and "
            "'@' as %40"
        )
    place = f"[{host}]" if ":" in host else host
    place += f":{port}" if port is not None else ""
    pairs = urllib.parse.parse_qsl(parts.query, keep_blank_values=True)
    named = "&".join(f"{name}=..." for name, _ in pairs)
    bare = (parts.scheme, place, parts.path)
    return Address(
        url=urllib.parse.urlunsplit((*bare, parts.query, "")),
        shown=urllib.parse.urlunsplit((*bare, named, "")),
        user=None
        if user is None
        else (urllib.parse.unquote(user), urllib.parse.unquote(password or "")),
        values=tuple(value for _, value in pairs),
        host=host,
    )


def _outline(base_url: object) -> str:
    """Return what can be told of a text that is no base URL."""
    if not isinstance(base_url, str):
        return f"a {type(base_url).__name__}"
    if "@" in base_url or "?" in base_url or ":" in base_url.partition("://")[2]:
        return f"a text of {len(base_url)} characters"
    return repr(base_url)


def completions_url(address: Address) -> str:
    """Return where chat completions are asked for; a query stays behind the path."""
    parts = urllib.parse.urlsplit(address.url)
    path = parts.path.rstrip("/") + "/chat/completions"
    return parts._replace(path=path).geturl()


def check_key(api_key: str | None) -> None:
    """Refuse a key that cannot stand in a header, without showing it."""
    if api_key is None or re.fullmatch(r"[!-~]+", api_key):
        return
    raise ValueError(
        f"the API key ({len(api_key)} characters) is empty or holds blanks, line "
        "breaks or letters beyond ASCII; accepted: the key alone, as it was given out"
    )


def make_hider(api_key: str | None, address: Address) -> Hider:
    """Return the function that takes every secret out of a text.

    A key is known by its first characters too, because servers send keys back cut or
    masked.

    Args:
      api_key: the key, if there is one.
      address: of the server, whose user, password and query are secret.
    """
    secrets = {value for value in address.values if len(value) >= SHORTEST_VALUE}
    if api_key:
        secrets.add(api_key)
    if address.user:
        pair = ":".join(address.user)
        secrets |= {pair, base64.b64encode(pair.encode()).decode(), address.user[1]}
    written = set()
    for secret in filter(None, secrets):
        written |= {secret, urllib.parse.quote(secret, safe="")}
        written.add(json.dumps(secret)[1:-1])
    patterns = [re.escape(text) for text in sorted(written, key=len, reverse=True)]
    if api_key and len(api_key) > SHORTEST_PART:
        patterns.append(re.escape(api_key[:SHORTEST_PART]) + r"[\w*.…-]*")
    known = re.compile("|".join(patterns)) if patterns else None

    def hide(text: str) -> str:
        text = known.sub(HIDDEN, text) if known else text
        text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
        return _BEARER.sub(rf"\1 {HIDDEN}", text)

    return hide


def excerpt(data: bytes, hide: Hider) -> str:
    """Return the start of a server's words for a message, secrets taken out before.

    Of a page of HTML it is the title, and of JSON the text with its escapes resolved.
    """
    text = data.decode(errors="replace")
    with contextlib.suppress(ValueError, RecursionError):
        text = json.dumps(json.loads(text), ensure_ascii=False)
    text = hide(text)
    if text.lstrip()[:1] == "<":
        title = _TITLE.search(text)
        text = f"a page of HTML, {' '.join(title[1].split()) if title else 'no title'}"
    return text[:LONGEST_EXCERPT]


@contextlib.contextmanager
def quiet_logs(hide: Hider) -> Iterator[None]:
    """Take secrets out of what the HTTP client logs while questions are asked."""

    def clean(record: logging.LogRecord) -> bool:
        record.msg, record.args = hide(record.getMessage()), ()
        return True

    loggers = [logging.getLogger(name) for name in LOGGERS]
    for logger in loggers:
        logger.addFilter(clean)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(clean)
