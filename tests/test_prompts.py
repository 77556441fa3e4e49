"""prompts: dialogues are parsed once, affixes land in headers, the clean-up tables."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.pairs import contrast, reply_cleanup, scoring_prompt
from rlcd_jax.text import dialogue_format

TASK = tasks.load_task("harmless")
POSITIVE, NEGATIVE = TASK.affixes[0]
RELEASED = dataclasses.replace(TASK.cleanup, mode="released")
CORRECTED = dataclasses.replace(TASK.cleanup, mode="corrected", unfinished="reject")


def human(text):
    return records.Turn("human", text)


def assistant(text):
    return records.Turn("assistant", text)


THREE = (human("Hi there"), assistant("Hello."), human("How are you?"))


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


ENDS = ("\n", "\r\n", "\r", "\u2028", "\u2029", "\x85")
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


def test_contrast_prompts_give_the_history_the_opposite_affix():
    positive, negative = contrast.contrast_prompts(records.Prompt("x", THREE), TASK, 0)
    assert positive == (
        f"Human: Hi there\n\nAssistant ({NEGATIVE}): Hello.\n\nHuman: How are you?"
        f"\n\nAssistant ({POSITIVE}):"
    )
    assert negative == (
        f"Human: Hi there\n\nAssistant ({POSITIVE}): Hello.\n\nHuman: How are you?"
        f"\n\nAssistant ({NEGATIVE}):"
    )


@given(st.integers(0, 15), st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_contrast_prompts_swap_into_each_other(index, num_earlier):
    turns = (human("a Assistant: b"), assistant("Assistant: c")) * num_earlier
    prompt = records.Prompt("x", (*turns, human("d")))
    positive, negative = contrast.contrast_prompts(prompt, TASK, index)
    good, bad = (f"Assistant ({affix}):" for affix in TASK.affixes[index])
    assert positive.endswith(f"\n\n{good}") and negative.endswith(f"\n\n{bad}")
    assert positive.count(good) == 1 and positive.count(bad) == num_earlier
    swapped = positive.replace(good, "\0").replace(bad, good).replace("\0", bad)
    assert swapped == negative
    plain = positive.replace(good, "Assistant:").replace(bad, "Assistant:")
    assert plain == dialogue_format.plain_prompt(
        prompt, TASK
    )  # only the headers differ


def test_contrast_prompts_refuse_an_index_outside():
    with pytest.raises(ValueError, match="affix index 16; .* 0 to 15"):
        contrast.contrast_prompts(records.Prompt("x", THREE), TASK, 16)


def test_plain_prompt_uses_template_and_lead_in():
    task = dataclasses.replace(
        TASK, prompt_template="Premise: {text}!", lead_in=" Outline:\n\n1."
    )
    prompt = records.Prompt("x", (human("{text} a {b}"),))
    expected = "Human: Premise: {text} a {b}!\n\nAssistant: Outline:\n\n1."
    assert dialogue_format.plain_prompt(prompt, task) == expected
    for index, text in enumerate(contrast.contrast_prompts(prompt, task, 0)):
        assert text.endswith(f"Assistant ({TASK.affixes[0][index]}): Outline:\n\n1.")


def test_chat_format_contrasts_the_system_message():
    task = tasks.with_format(TASK, "chat")
    prompt = records.Prompt("x", THREE)

    def chat(turns, system):
        lines = [f"<{t.role}>{t.text}" for t in turns]
        return "".join([f"<system>{system}", *lines, "<assistant>"])

    positive, negative = contrast.contrast_prompts(prompt, task, 3, chat)
    tail = "<human>Hi there<assistant>Hello.<human>How are you?<assistant>"
    assert positive == f"<system>{task.systems[3][0]}{tail}"
    assert negative == f"<system>{task.systems[3][1]}{tail}"
    assert dialogue_format.plain_prompt(prompt, task, chat) == f"<system>None{tail}"
    with pytest.raises(ValueError, match="pass the tokenizer's chat function"):
        dialogue_format.plain_prompt(prompt, task)


def test_scoring_prompt_has_the_layout_of_the_paper():
    text = scoring_prompt.scoring_prompt(
        "Human: q\n\nAssistant:", "one", "two", "Choose."
    )
    blocks = text.split("\n\n\n\n")
    assert blocks[1:] == [
        "Human: q\n\nAssistant:",
        "Choose.",
        "Options:",
        "(A) one",
        "(B) two",
        "The answer is: (",
    ]
    assert "conversation" in blocks[0]


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
