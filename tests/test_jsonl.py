"""jsonl: what is wrong in a file of JSON lines is told with the file and the line."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import jsonl

GOOD = '{"a": 1}'


@pytest.mark.parametrize(
    "line, words",
    [
        ("null", "the line is null; accepted: an object"),
        ("[1]", "the line is a list"),
        ('"text"', "the line is a str"),
        ("{", "not JSON"),
        (b"\xff\xfe{}", "not JSON"),
        ('{"a": NaN}', "a value is NaN (field 'a'); accepted"),
        ('{"a": [-Infinity]}', "a value is -Infinity"),
        ('{"a": 1e999}', "a value is 1e999"),
        ('{"a": 1, "a": 2}', "field 'a' is there twice"),
        ('{"a": {"b": 1, "b": 1}}', "field 'b' is there twice"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "more than 100 deep"),
        ('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}", "more than 100 deep"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_read_names_file_and_line(tmp_path, line, words):
    path = tmp_path / "x.jsonl"
    line = line if isinstance(line, bytes) else line.encode()
    path.write_bytes(f"{GOOD}\n\n".encode() + line + f"\n{GOOD}\n".encode())
    for drop_truncated in (False, True):
        with pytest.raises(ValueError) as error:
            list(jsonl.read(path, drop_truncated=drop_truncated))
        assert str(error.value).startswith(f"{path}:3: ")
        assert words in str(error.value)


def test_read_takes_files_of_windows(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert list(jsonl.read(path)) == [(1, {"a": 1}), (3, {"a": 2})]


def test_read_leaves_out_only_a_last_line_that_was_cut(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(f"{GOOD}\n" + '{"a": NaN}')  # whole, and wrong
    with pytest.raises(ValueError, match=r"x.jsonl:2: a value is NaN"):
        list(jsonl.read(path, drop_truncated=True))
    path.write_text(f'{GOOD}\n{{"a"')
    assert list(jsonl.read(path, drop_truncated=True)) == [(1, {"a": 1})]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(values)
@settings(max_examples=100, deadline=None)
def test_parse_inverts_dumps(value):
    text = json.dumps(value)
    assert jsonl.parse(text, "here") == jsonl.parse(text.encode(), "here") == value


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[]", "holds a list, and an object is accepted"),
        (b"null", "holds null"),
        (b"", "not JSON"),
        (b"<html>", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"a": NaN}', "a value is NaN"),
        (b'{"a": ' + b"[" * 10**5 + b"]" * 10**5 + b"}", "more than 100 deep"),
    ],
)
def test_read_object_names_the_file(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=words) as error:
        jsonl.read_object(path)
    assert str(error.value).startswith(str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        jsonl.read_object(tmp_path)
    path.write_bytes(jsonl.BOM + b'{"a": 1}\r\n')
    assert jsonl.read_object(path) == {"a": 1}
