"""automaton: strings are found in every tokenisation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax.decode import automaton

TOKENS = [bytes([i]) for i in range(97, 101)] + [b"ab", b"bc", b"abc", b"cab", b"d d"]


def run(table, root, ids):
    """Return the code of the last of these tokens."""
    state = root
    for token in ids:
        code = int(table[state, token])
        state = code & automaton.STATE_MASK
    return code


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("abcd ", min_size=1, max_size=5), max_size=3),
    st.lists(st.text("abcd ", min_size=1, max_size=5), max_size=3),
    st.lists(st.integers(0, len(TOKENS) - 1), min_size=1, max_size=12),
)
def test_table_finds_strings_in_every_tokenisation(stop, forbidden, ids):
    strings = (tuple(stop), tuple(forbidden))
    tokens = automaton.TokenTable(TOKENS, [], len(TOKENS), 64)
    tokens.add([((), ()), strings])
    code = run(tokens.table(), tokens.roots[strings], ids)
    before = b"".join(TOKENS[i] for i in ids[:-1])
    text = before + TOKENS[ids[-1]]

    def completed(one):
        return one.encode() in text[max(0, len(before) - len(one) + 1) :]

    assert bool(code & automaton.STOP) == any(map(completed, stop))
    assert bool(code & automaton.FORBIDDEN) == any(map(completed, forbidden))


def test_table_marks_ends_and_unknown_ids():
    tokens = automaton.TokenTable([b"a", b"", b"b"], [1], 5, 4)
    tokens.add([((), ())])
    row = tokens.table()[0]
    assert (row & automaton.EOS != 0).tolist() == [False, True, False, False, False]
    assert (row & automaton.FORBIDDEN != 0).tolist() == [False] * 3 + [True] * 2
    assert tokens.always_forbids


def test_table_makes_room_for_new_sets():
    tokens = automaton.TokenTable(TOKENS, [], len(TOKENS), 12)
    first, second = (("abcd",), ()), (("dcba", "bb"), ())
    assert tokens.add([first]) and not tokens.add([first])
    assert tokens.add([second]) and second in tokens.roots
    code = run(tokens.table(), tokens.roots[second], [1, 5])  # b, bc: "bb" is seen
    assert code & automaton.STOP
    with pytest.raises(ValueError, match="string_states="):
        tokens.add([(("a" * 30,), ())])


def test_table_refuses_a_foreign_tokenizer():
    with pytest.raises(ValueError, match="own tokenizer"):
        automaton.TokenTable(TOKENS, [], 3, 8)


def test_aho_corasick_follows_fallbacks():
    follow, marks = automaton.aho_corasick([(b"aab", 1), (b"ab", 2), (b"b", 4)])
    state, seen = 0, []
    for byte in b"aaab b":
        state = int(follow[state, byte])
        seen.append(int(marks[state]))
    assert seen == [0, 0, 0, 7, 0, 4]
    assert np.all(follow[:, ord("z")] == 0)
