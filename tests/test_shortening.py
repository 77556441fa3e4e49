"""pairs.shortening: prompts lose whole turns, or texts are left out."""

import hypothesis
import pytest
import tiny_tokenizers
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.pairs import shortening
from rlcd_jax.text import byte_tokenizer, dialogue_format, encoding

TASK = tasks.load_task("cheerful")
CHAT = tasks.with_format(TASK, "chat")
OUTLINE = tasks.load_task("outline")
BYTES = byte_tokenizer.make()
LLAMA = tiny_tokenizers.byte_level()
SYSTEM = tiny_tokenizers.byte_level()  # a template with a message of its own in front
SYSTEM.chat_template = "<h>system\n\nBe kind.<eot>" + tiny_tokenizers.TEMPLATE
INST = tiny_tokenizers.byte_level(bos=False)  # turns that no token closes
INST.chat_template = (
    "{{ '<bot>' }}{% for m in messages %}{% if m['role'] == 'user' %}"
    "[INST] {{ m['content'] }} [/INST]{% else %} {{ m['content'] }}<eot>{% endif %}"
    "{% endfor %}"
)
FORMATS = {
    "dialogue": (TASK, BYTES),
    "outline": (OUTLINE, BYTES),
    "chat": (CHAT, BYTES),
    "chat, BOS by the template": (CHAT, LLAMA),
    "chat, system message": (CHAT, SYSTEM),
    "chat, instructions": (CHAT, INST),
}


def make_prompt(name: str, words) -> str:
    task, one = FORMATS[name]
    roles = ("human", "assistant") * len(words)
    turns = [records.Turn(*turn) for turn in zip(roles, words, strict=False)]
    return dialogue_format.plain_prompt(
        records.Prompt("p", tuple(turns)), task, one.chat
    )


@pytest.mark.parametrize("name", list(FORMATS))
@pytest.mark.parametrize("num", [1, 3, 7])
def test_shorter_prompts_are_the_prompts_of_the_last_turns(name, num):
    words = [f"word {n}\nand more" for n in range(num)]
    task, one = FORMATS[name]
    borders = shortening.find_borders(task, one)
    found = list(shortening.shorter_prompts(make_prompt(name, words), borders))
    wanted = [make_prompt(name, words[start:]) for start in range(2, num, 2)]
    assert found == wanted


@pytest.mark.parametrize("name", list(FORMATS))
@hypothesis.given(
    words=st.lists(st.text("ab\n", max_size=9).map("Q{}z".format), min_size=1),
    replies=st.lists(st.text("xy", max_size=9), min_size=1, max_size=2),
    limit=st.integers(20, 200),
)
@hypothesis.settings(max_examples=40)
def test_texts_fit_after_as_few_turns_less_as_will_do(name, words, replies, limit):
    words = words[: len(words) - 1 + len(words) % 2]
    task, one = FORMATS[name]
    prompt = make_prompt(name, words)
    texts = [(prompt, reply) for reply in replies]
    (got,) = shortening.fit(
        one, [texts], max_tokens=limit, rule="shorten_prompt", task=task
    )
    for start in range(0, len(words), 2):
        kept = make_prompt(name, words[start:])
        wanted = [encoding.join_reply(one, kept, reply) for reply in replies]
        if max(len(ids) for ids, _ in wanted) <= limit:
            assert list(got.joined) == wanted and got.shortened == (start > 0)
            if one.bos_id is not None:
                assert all(ids[0] == one.bos_id for ids, _ in got.joined)
            return
    assert got == shortening.Fitted(())


def test_dropping_takes_what_fits_as_it_is():
    groups = [[("Human: a\n\nAssistant:", " b")], [("Human: " + "a" * 99, " b")]]
    one, other = shortening.fit(BYTES, groups, max_tokens=40, rule="drop", task=TASK)
    assert one.joined == (encoding.join_reply(BYTES, *groups[0][0]),)
    assert other.joined == ()
    counts = {"of": 2, "dropped": 1, "shortened": 0, "identical": 0}
    assert shortening.count([one, other]) == counts


def test_a_template_without_borders_is_refused_only_where_one_is_needed():
    blind = tiny_tokenizers.byte_level()
    blind.chat_template = "{{ messages[-1]['content'] }}"
    fits, long = [("Hi", " b")], [("Hi" * 99, " b")]

    def fit(group, rule="shorten_prompt"):
        return shortening.fit(blind, [group], max_tokens=9, rule=rule, task=CHAT)

    assert fit(fits)[0].joined and not fit(long, "drop")[0].joined
    with pytest.raises(ValueError, match="set too_long='drop'"):
        fit(long)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="a.too_long='cut'; accepted: drop, shorten"):
        shortening.check_rule("a.too_long", "cut")
