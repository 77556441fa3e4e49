"""secrets: no part of a key or of an address is shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.judging import secrets

KEY = "sk-abc123-DEF456"
ADDRESS = secrets.read_address("https://api.example.com/v1")


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
