"""dialogue_format: dialogues are parsed once, and rendered back as they were."""

import dataclasses

import pytest
from dialogues import assistant, human
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.pairs import contrast
from rlcd_jax.text import dialogue_format

TASK = tasks.load_task("harmless")


@pytest.mark.parametrize(
    "text, turns, reply",
    [
        ("\n\nHuman: a\n\nAssistant: b", (human("a"),), "b"),
        ("Human: a\n\nAssistant:", (human("a"),), ""),
        (
            "Human: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d\n\ne",
            (human("a"), assistant("b"), human("c")),
            "d\n\ne",
        ),
        # The last header without its blank line, in its three forms.
        ("Human: a\nAssistant: b", (human("a"),), "b"),
        ("Human: a Assistant: b", (human("a"),), "b"),
        (
            "Human: a\n\nAssistant: b\n\nHuman: c\nAssistant:",
            (human("a"), assistant("b"), human("c")),
            "",
        ),
        # Stray markers stay words of their turn.
        (
            "Human: a\n\nAssistant: Human: x\n\nHuman: c\n\nAssistant: d",
            (human("a"), assistant("Human: x"), human("c")),
            "d",
        ),
        ("Human: a Human: b\n\nAssistant: c", (human("a Human: b"),), "c"),
        ("Human: a\n\nAssistant: b\nAssistant: c", (human("a"),), "b\nAssistant: c"),
        # Neighbouring turns of one role are one turn.
        ("Human: a\n\nHuman: b\n\nAssistant: c", (human("a\n\nb"),), "c"),
        ("Human: a\n\nAssistant: b\n\nAssistant: c", (human("a"),), "b\n\nc"),
        (
            "Human: a\n\nAssistant:\n\nAssistant: b\n\nHuman: c\n\nAssistant: d",
            (human("a"), assistant("b"), human("c")),
            "d",
        ),
        ("Human:\n\nAssistant: b", (human(""),), "b"),
    ],
)
def test_parse_dialogue_cuts_at_the_last_assistant_turn(text, turns, reply):
    assert dialogue_format.parse_dialogue(text) == (turns, reply)


@pytest.mark.parametrize(
    "text, words",
    [
        ("hello", "starts with 'hello'"),
        ("", "starts with"),
        ("x\n\nHuman: a\n\nAssistant: b", "starts with 'x"),
        ("Human: only", "the assistant has no turn"),
        ("Assistant: only", "no human turn"),
    ],
)
def test_parse_dialogue_refuses_what_is_no_dialogue(text, words):
    with pytest.raises(ValueError, match=words):
        dialogue_format.parse_dialogue(text)


words = st.lists(
    st.sampled_from("I like tea. 1 (x) Human Assistant rights: é\n-".split(" ")),
    min_size=1,
    max_size=6,
).map(" ".join)


@given(st.lists(words.map(str.strip).filter(bool), min_size=1, max_size=7))
@settings(max_examples=100, deadline=None)
def test_parse_dialogue_inverts_render_dialogue(texts):
    texts = texts if len(texts) % 2 else texts[1:]
    turns = tuple((assistant if i % 2 else human)(text) for i, text in enumerate(texts))
    text = dialogue_format.render_dialogue(turns, TASK)
    assert text.startswith("Human:") and text.endswith("\n\nAssistant:")
    assert dialogue_format.parse_dialogue(text) == (turns, "")


ENDS = ("\n", "\r\n", "\r", "\u2028", "\u2029", "\x85", "\x1e")
GAPS = ("{0}{0}", "{0} {0}", "{0}\t {0}{0}", "{0}{0}  ", "{0}\u200b{0}\ufeff", "{0}")
line = st.lists(
    st.sampled_from("tea is. (x) rights: Human: Assistant: é\u200b -".split(" ")),
    min_size=1,
    max_size=5,
).map(lambda parts: "I " + " ".join(parts))


lines = st.lists(line, min_size=1, max_size=3)


@given(
    st.lists(st.tuples(lines, lines), min_size=1, max_size=3),
    st.sampled_from(ENDS),
    st.lists(st.sampled_from(GAPS), min_size=6, max_size=6),
)
@settings(max_examples=150, deadline=None)
def test_parse_dialogue_reads_turns_in_any_line_ending(exchanges, end, gaps):
    said = [words for exchange in exchanges for words in exchange]
    text = ""
    for number, (words, gap) in enumerate(zip(said, gaps, strict=False)):
        role = "Assistant" if number % 2 else "Human"
        text += gap.format(end) + f"{role}: {end.join(words)} "
    *wanted, last = ("\n".join(words) for words in said)
    turns, reply = dialogue_format.parse_dialogue(text)
    assert turns == tuple(
        (assistant if i % 2 else human)(words) for i, words in enumerate(wanted)
    )
    assert reply == last
    assert dialogue_format.parse_dialogue(
        dialogue_format.render_dialogue(turns, TASK)
    ) == (turns, "")


@pytest.mark.parametrize(
    "text, turns, reply",
    [
        # A header without its blank line is one where the other role's turn ends.
        (
            "Human: a\n\nAssistant: b\nHuman: c\n\nAssistant: d",
            (human("a"), assistant("b"), human("c")),
            "d",
        ),
        ("Human: a\nHuman: b\nAssistant: c", (human("a\nHuman: b"),), "c"),
        ("Human: a\n\nAssistant: b\nHuman: c", (human("a"),), "b\nHuman: c"),
        ("\ufeff\r\nHuman: a\r\n\r\nAssistant: b\r\nc", (human("a"),), "b\nc"),
        # These lines end in "\n"; what else they hold is text.
        ("Human: a\u2028b\n\nAssistant: c", (human("a\u2028b"),), "c"),
        ("Human: a\n\nAssistant: b, Human: c", (human("a"),), "b, Human: c"),
    ],
)
def test_parse_dialogue_decides_what_is_a_header(text, turns, reply):
    assert dialogue_format.parse_dialogue(text) == (turns, reply)


def test_parse_dialogue_takes_a_long_text_at_once():
    text = "Human: a\n\nAssistant: b" + "\n \u2028" * 200_000
    assert dialogue_format.parse_dialogue(text) == ((human("a"),), "b")


def test_plain_prompt_uses_template_and_lead_in():
    task = dataclasses.replace(
        TASK, prompt_template="Premise: {text}!", lead_in=" Outline:\n\n1."
    )
    prompt = records.Prompt("x", (human("{text} a {b}"),))
    expected = "Human: Premise: {text} a {b}!\n\nAssistant: Outline:\n\n1."
    assert dialogue_format.plain_prompt(prompt, task) == expected
    for index, text in enumerate(contrast.contrast_prompts(prompt, task, 0)):
        assert text.endswith(f"Assistant ({TASK.affixes[0][index]}): Outline:\n\n1.")
