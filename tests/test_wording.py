"""wording: what can be seen in the words of a reply."""

import pytest

from rlcd_jax.statistics import wording


@pytest.mark.parametrize(
    "reply, expected",
    [
        ("I can\u2019t help with that.", True),
        ("I'm sorry, but I cannot do this.", True),
        ("As an AI language model, I have no opinion.", True),
        ("I won't pretend:\n it is hard.", True),
        ("Sure! You can do it.", False),
        ("I cannoth", False),
        ("Well. " * 60 + "I can't.", False),  # far from the opening
        ("", False),
    ],
)
def test_refuses_by_the_opening(reply, expected):
    assert wording.refuses(reply) is expected


def test_refusals_are_distinct_lower_case_phrases():
    assert len(set(wording.REFUSALS)) == len(wording.REFUSALS)
    assert all(p == p.lower().strip() for p in wording.REFUSALS)


def test_overlap_by_hand():
    assert wording.overlap("The cat sat", "the CAT ran off") == 2 / 5
    assert wording.overlap("a b", "b, a!") == 1.0 and wording.overlap("a", "b") == 0.0
    assert wording.overlap("...", "!") == 1.0


def test_leaked_looks_for_telling_words_only():
    affixes = ("simulating a very kind person", "simulating a really evil person")
    reply = "A kind person is very evil."
    assert wording.leaked(reply, "Hi", *affixes) == ("kind", "very")
    assert wording.leaked(reply, "Are you kind?", *affixes) == ("very",)
    assert wording.leaked("kindness", "", *affixes) == ()
    assert wording.quotes("So (simulating a Very kind person): yes", affixes[0])
    assert not wording.quotes("simulating a very kind personality", affixes[0])


def test_equal_amounts_cuts_to_the_shortest_group():
    cut = wording.equal_amounts([[["a", "b"], ["c", "d"]], [["e"], ["f", "g"]]])
    assert cut == [[["a", "b"], ["c"]], [["e"], ["f", "g"]]]
    assert wording.equal_amounts([[["a"]], []]) == [[], []]
