"""text.encoding: ids of prompt and reply, and where the reply begins."""

import functools
import unicodedata

import hypothesis
import pytest
import tiny_tokenizers
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.pairs import training_texts
from rlcd_jax.text import dialogue_format, encoding
from rlcd_jax.text import tokenizer as tk

TASK = tasks.load_task("cheerful")
CHAT = tasks.with_format(TASK, "chat")
MARK = "\n\nHuman:"
NORMALISE = {
    "NFC": functools.partial(unicodedata.normalize, "NFC"),
    "lower case": str.lower,
}
WORDS = st.text("ab hello.:é🙂\u0301\u00df\n", max_size=12)
TURNS = st.lists(WORDS.map("Q{}".format), min_size=1, max_size=5).filter(
    lambda turns: len(turns) % 2
)


@functools.cache
def make(name: str) -> tk.Tokenizer:
    return tiny_tokenizers.TOKENIZERS[name]()


def spelled(one: tk.Tokenizer, ids) -> bytes:
    return b"".join(one.token_bytes(index) for index in ids)


def dialogue(words, task, chat=None) -> str:
    roles = ("human", "assistant") * len(words)
    turns = [records.Turn(*turn) for turn in zip(roles, words, strict=False)]
    return dialogue_format.plain_prompt(records.Prompt("p", tuple(turns)), task, chat)


def test_a_reply_stands_after_its_prompt_without_outer_blanks():
    assert training_texts.bare_reply(" a b\n", TASK) == " a b"
    turn = training_texts.ChatTurn("", "<eot>")
    assert training_texts.bare_reply(" a b\n", CHAT, turn) == "a b"


def check(name: str, prompt: str, reply: str) -> None:
    """Decode both parts: each is its own text, whole."""
    one = make(name)
    ids, is_reply = encoding.join_reply(one, prompt, reply)
    assert ids == one.encode(prompt + reply)
    assert is_reply == sorted(is_reply) and len(is_reply) == len(ids)
    first = is_reply.index(True)
    normalise = NORMALISE.get(name, str)
    assert spelled(one, ids[first:]).decode() == normalise(reply)
    before = spelled(one, ids[:first])
    for front in (b"<s>", b"<bot>", b"<bos>", b" "):
        if not normalise(prompt).encode().startswith(front):
            before = before.removeprefix(front)
    assert before.decode() == normalise(prompt)


@pytest.mark.parametrize("name", list(tiny_tokenizers.TOKENIZERS))
@hypothesis.given(turns=TURNS, reply=WORDS)
@hypothesis.settings(max_examples=40)
def test_the_marked_ids_of_a_dialogue_spell_the_reply_and_its_mark(name, turns, reply):
    prompt = dialogue(turns, TASK)
    check(name, prompt, training_texts.reply_text(reply, TASK))


@pytest.mark.parametrize(
    "name", [n for n in tiny_tokenizers.TOKENIZERS if "space" not in n]
)
@hypothesis.given(turns=TURNS, reply=WORDS)
@hypothesis.settings(max_examples=40)
def test_the_marked_ids_of_a_chat_spell_the_reply_and_its_end(name, turns, reply):
    one = make(name)
    prompt = dialogue(turns, CHAT, one.chat)
    end = one.decode([one.eos_id], keep_special=True)
    turn = training_texts.ChatTurn(one.reply_opening, end)
    check(name, prompt, training_texts.reply_text(reply.strip(), CHAT, turn))


def test_a_bos_that_the_template_writes_is_counted_once():
    one = make("byte level")
    prompt = one.chat([records.Turn("human", "Hi")])
    ids, is_reply = encoding.join_reply(one, prompt, "Fine.<eot>")
    assert ids.count(one.bos_id) == 1 and sum(is_reply) == len("Fine.") + 1


def parts(one: tk.Tokenizer, prompt: str, reply: str) -> tuple[bytes, bytes]:
    ids, is_reply = encoding.join_reply(one, prompt, reply)
    first = len(ids) - sum(is_reply)
    return spelled(one, ids[:first]), spelled(one, ids[first:])


def test_a_token_with_characters_of_both_is_the_prompts():
    crosses = tiny_tokenizers.byte_level(merges=[(":", "Ġ")], bos=False)
    assert parts(crosses, "Q:", " a") == (b"Q: ", b"a")
    blanks = tiny_tokenizers.byte_level(merges=[("Ġ", "Ġ")], bos=False, trims=True)
    assert parts(blanks, "Q ", " a") == (b"Q  ", b"a")
    composed = make("NFC")
    _, reply = parts(composed, "cafe", "\u0301 x")
    assert reply == b" x"


def test_blanks_that_a_special_token_swallows_are_not_its_own():
    one = make("swallows blanks")
    assert parts(one, "a <x>", "  b") == (b"<bot>a<x>", b"b")
    assert parts(one, "a  ", "<x>b") == (b"<bot>a", b"<x>b")


def test_a_reply_of_nothing_has_no_ids():
    for name in tiny_tokenizers.TOKENIZERS:
        assert not any(encoding.join_reply(make(name), "Hi", "")[1])


@pytest.mark.parametrize("name", list(tiny_tokenizers.TOKENIZERS))
@hypothesis.given(texts=st.lists(WORDS, max_size=5))
@hypothesis.settings(max_examples=20)
def test_texts_of_a_batch_have_the_ids_of_each_alone(name, texts):
    one = make(name)
    assert encoding.encode_texts(one, texts) == [one.encode(text) for text in texts]


def test_many_texts_are_encoded_in_parts(monkeypatch):
    monkeypatch.setattr(encoding, "PART", 3)
    texts = [("Q:" * n, " a" * n) for n in range(8)]
    whole = encoding.join_replies(make("bytes"), texts)
    assert whole == [encoding.join_reply(make("bytes"), *text) for text in texts]
    ids = encoding.encode_texts(make("bytes"), [a + b for a, b in texts])
    assert ids == [ids for ids, _ in whole]
