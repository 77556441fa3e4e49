"""records: broken values are named, keys are stable."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_pair import make_pair

from rlcd_jax import records


@pytest.mark.parametrize(
    "field, value, accepted",
    [
        ("prob_2", 1.5, "from 0.0 to 1.0"),
        ("prob_2", float("nan"), "finite number"),
        ("prob_2", True, "finite number"),
        ("side_1", "pos", "'positive', 'negative', 'plain'"),
        ("finish_2", None, "'eos', 'stop', 'length'"),
        ("tries_1", 0, "from 1 to"),
        ("tries_1", 1.5, "whole number"),
        ("affix_index", -1, "from 0 to"),
        ("affix_index", "3", "whole number or null"),
        ("reply_1", "  ", "text"),
        ("reply_2", 3, "text"),
        ("scoring", [1], "object or null"),
    ],
)
def test_pair_names_the_wrong_field(field, value, accepted):
    with pytest.raises(ValueError) as error:
        make_pair(**{field: value})
    message = str(error.value)
    assert f"'{field}'" in message and accepted in message and "\n" not in message


def test_prompt_must_end_with_the_human():
    turns = (records.Turn("human", "a"), records.Turn("assistant", "b"))
    with pytest.raises(ValueError, match="ends with assistant"):
        records.Prompt("x", turns)
    with pytest.raises(ValueError, match="ends with nothing"):
        records.Prompt("x", ())


ids = st.text("p#1 /.\n\u00e9", min_size=1, max_size=5).filter(str.strip)
draws = st.none() | st.integers(0, 11)


@given(st.tuples(ids, draws), st.tuples(ids, draws))
@settings(max_examples=300, deadline=None)
def test_draw_key_is_another_for_every_other_draw(one, two):
    assert (records.draw_key(*one) == records.draw_key(*two)) == (one == two)


def test_draw_key_of_plain_ids_is_fixed_forever():
    assert records.draw_key("cheerful/0001", None) == "cheerful/0001"
    assert records.draw_key("cheerful/0001", 3) == "cheerful/0001#3"
    assert records.draw_key("issue#3", None) == "issue##3"
    prompt = records.Prompt("p", (records.Turn("human", "a"),), 2)
    assert prompt.key == records.key_of(make_pair(prompt_id="p", draw=2)) == "p#2"


@pytest.mark.parametrize("prompt_id", ["", " ", "\n\t"])
def test_prompt_has_an_id(prompt_id):
    with pytest.raises(
        ValueError, match="field 'id' is .*; accepted: text that is not"
    ):
        records.Prompt(prompt_id, (records.Turn("human", "a"),))
