"""contrast and scoring_prompt: affixes land in headers, blocks in the paper's order."""

import pytest
from dialogues import assistant, human
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.pairs import contrast, scoring_prompt
from rlcd_jax.text import dialogue_format

TASK = tasks.load_task("harmless")
POSITIVE, NEGATIVE = TASK.affixes[0]


THREE = (human("Hi there"), assistant("Hello."), human("How are you?"))


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
