"""reply_cleanup: the tables of the clean-up, as released and as corrected."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import tasks
from rlcd_jax.pairs import reply_cleanup

TASK = tasks.load_task("harmless")


RELEASED = dataclasses.replace(TASK.cleanup, mode="released")
CORRECTED = dataclasses.replace(TASK.cleanup, mode="corrected", unfinished="reject")


@pytest.mark.parametrize(
    "raw, finish, text, reason",
    [
        # The edge cases of the released rule, one by one.
        (" A reply.\n\nHuman: more", "length", "A reply.", None),
        (" A reply.</s>", "eos", None, "no_end"),
        (" A reply.", "eos", None, "no_end"),
        (" About Human rights.", "length", None, "no_boundary"),
        (" One.\n\nTwo about Human things.", "length", "One.", None),
        (" Line 1\nline 2 Human: x", "length", "Line 1", None),
        (" A.\n\nAssistant: B.\n\nHuman: x", "length", "B.", None),
        (
            " A.\n\nAssistant (ethical response): B.\n\nHuman: x",
            "length",
            "A.\n\nAssistant (ethical response): B.",
            None,
        ),
        (" A reply. Human: x", "length", None, "no_boundary"),
        # What follows from them.
        (" A reply.", "length", None, "no_end"),
        ("\n\nHuman: x", "length", None, "empty"),
        (" A reply.</s> Human", "length", "A reply.", None),
        (" A reply.\n\nHuman:", "stop", "A reply.", None),
    ],
)
def test_clean_reply_released_reproduces_the_edge_cases(raw, finish, text, reason):
    assert reply_cleanup.clean_reply(raw, finish, RELEASED) == (
        reply_cleanup.Cleaned(text, reason)
    )


@pytest.mark.parametrize(
    "raw, finish, text, reason",
    [
        (" A reply.\n\nHuman:", "stop", "A reply.", None),
        (" A reply.\n\nHuman: more", "length", "A reply.", None),
        (" A reply.", "eos", "A reply.", None),
        (" A reply.", "length", None, "unfinished"),
        (" About Human rights.", "eos", "About Human rights.", None),
        (" Say to the Human: hi.", "eos", "Say to the Human: hi.", None),
        (" One.\n\nTwo, Human things.", "eos", "One.\n\nTwo, Human things.", None),
        (" A.\n\nAssistant: B.\n\nHuman: x", "length", "A.", None),
        (" A.\n\nAssistant (ethical response): B.", "length", "A.", None),
        (" A.\nAssistant(kind) : B.", "eos", "A.", None),
        (" Assistant: A.\n\nHuman:", "stop", "A.", None),
        ("\n\nAssistant (kind):\nAssistant: A.", "eos", "A.", None),
        (" A.\n  Human: x", "eos", "A.", None),
        (" Human: x", "eos", None, "empty"),
        ("\n\nHuman:", "stop", None, "empty"),
        ("", "eos", None, "empty"),
        (" \n ", "eos", None, "empty"),
        (" Human\nbeings", "eos", "Human\nbeings", None),
    ],
)
def test_clean_reply_corrected_keeps_finished_replies(raw, finish, text, reason):
    assert reply_cleanup.clean_reply(raw, finish, CORRECTED) == reply_cleanup.Cleaned(
        text, reason
    )


@pytest.mark.parametrize(
    "raw, cut, kept",
    [
        (" One. Two is", "One.", "One. Two is"),
        (" One. Two.", "One. Two.", "One. Two."),
        (' He said "no!" And', 'He said "no!"', 'He said "no!" And'),
        (" No end at all", None, "No end at all"),
        (" Costs 3.5 euro", None, "Costs 3.5 euro"),
        (" Steps:\n1. Boil\n2. Pour\n3.", "Steps:\n1. Boil\n2. Pour", None),
        (" Steps:\n1.", None, None),
        (" Fine.\n\nHum", "Fine.", "Fine."),
        (" Fine\n\nAssistant (a kind", None, "Fine"),
        (" Fine.\n\nHuman", "Fine.", "Fine."),
        ("", None, None),
    ],
)
def test_clean_reply_treats_a_cut_reply_by_the_rule(raw, cut, kept):
    rules = dataclasses.replace(CORRECTED, unfinished="cut_sentence")
    assert reply_cleanup.clean_reply(raw, "length", rules).text == cut
    rules = dataclasses.replace(CORRECTED, unfinished="keep")
    expected = kept if kept is not None else (raw.strip() or None)
    assert reply_cleanup.clean_reply(raw, "length", rules).text == expected
    assert reply_cleanup.clean_reply(raw, "length", CORRECTED).text is None


pieces = st.sampled_from(
    ["Tea", " is", " fine.", "\n", "\n\n", "Human", ":", " ", "Assistant", " (kind)"]
)


@given(
    st.lists(pieces, max_size=15).map("".join),
    st.sampled_from(["eos", "stop", "length"]),
    st.sampled_from(["reject", "cut_sentence", "keep"]),
)
@settings(max_examples=300, deadline=None)
def test_clean_reply_corrected_never_leaks_a_header(raw, finish, unfinished):
    rules = dataclasses.replace(CORRECTED, unfinished=unfinished)
    cleaned = reply_cleanup.clean_reply(raw, finish, rules)
    assert (cleaned.text is None) != (cleaned.reason is None)
    if cleaned.text is not None:
        assert cleaned.text == cleaned.text.strip() != ""
        for line in cleaned.text.split("\n"):
            for name in ("Human", "Assistant"):  # "(kind)Human:" is no header
                headers = (f"{name}:", f"{name}(kind):")
                assert not line.replace(" ", "").startswith(headers)
        again = reply_cleanup.clean_reply(cleaned.text, "eos", rules)
        assert again == cleaned  # cleaning a clean reply changes nothing


@pytest.mark.parametrize(
    "changes, finish, words",
    [
        (
            {"mode": "strict"},
            "eos",
            "'strict'; accepted: one of 'corrected', 'released'",
        ),
        ({"unfinished": "maybe"}, "length", "'maybe'; accepted: one of 'reject'"),
        ({}, "timeout", "'timeout'; accepted: 'eos', 'stop', 'length'"),
    ],
)
def test_clean_reply_names_what_it_accepts(changes, finish, words):
    with pytest.raises(ValueError, match=words):
        reply_cleanup.clean_reply(
            "a", finish, dataclasses.replace(CORRECTED, **changes)
        )


def test_clean_reply_min_characters_rejects_short_replies():
    rules = dataclasses.replace(CORRECTED, min_characters=3)
    assert reply_cleanup.clean_reply(" No.", "eos", rules).text == "No."
    assert reply_cleanup.clean_reply(" No", "eos", rules).reason == "empty"


@pytest.mark.parametrize(
    "text, expected",
    [
        (" A reply.\n\nHuman: x", "A reply."),
        ("Assistant: Human: hi", ""),  # the order of the markers matters
        ("The superuser: root", "The super"),  # a marker inside a word
        ("Human: Assistant: hi", "hi"),
        ("Assistant: hi", "hi"),
        ("hi\nuser: there", "hi"),
        ("Human rights matter.", "Human rights matter."),
    ],
)
def test_postprocess_eval_keeps_the_released_quirks(text, expected):
    assert reply_cleanup.postprocess_eval(text) == expected
