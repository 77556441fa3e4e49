"""gguf_vocabulary: its splitting rules and merges, defaults, and what is refused."""

import struct

import pytest
import tiny_tokenizers

from rlcd_jax.text import backends, gguf_vocabulary
from rlcd_jax.text import tokenizer as tk


def sentence_piece_fields(**other):
    """Return metadata of a small SentencePiece vocabulary, as LLaMA's GGUF has it."""
    words = [
        "\u2581",
        *"helowrd(A)",
        "ll",
        "he",
        "\u2581w",
        "hell",
        "or",
        "ld",
        "hello",
    ]
    words += ["\u2581hello", "\u2581wor", "world", "\u2581world"]
    controls = ["<unk>", "<s>", "</s>"]
    hexes = [f"<0x{byte:02X}>" for byte in range(256)]
    scores = [0.0] * 259 + [-float(i) for i in range(len(words))]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": controls + hexes + words,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(words),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        **other,
    }


def slow_sentence_piece(text, fields):
    """Merge the neighbours whose joint piece has the highest score, as LLaMA does."""
    ids = {piece: i for i, piece in enumerate(fields["tokenizer.ggml.tokens"])}
    scores = fields["tokenizer.ggml.scores"]
    parts = list(("\u2581" + text.replace(" ", "\u2581")) if text else "")
    while True:
        options = [
            (-scores[ids[a + b]], i)
            for i, (a, b) in enumerate(zip(parts, parts[1:], strict=False))
            if a + b in ids
        ]
        if not options:
            break
        _, i = min(options)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    out = []
    for part in parts:
        hexes = [f"<0x{byte:02X}>" for byte in part.encode()]
        out += [ids[part]] if part in ids else [ids[name] for name in hexes]
    return out


@pytest.mark.parametrize("text", ["hello world", "hellohell  (A)", "é world\n🙂", ""])
def test_sentence_piece_matches_slow_merges(text):
    fields = sentence_piece_fields()
    one = tk.from_gguf(fields)
    assert one.encode(text) == [1, *slow_sentence_piece(text, fields)]
    assert one.decode(one.encode(text)) == text


def test_sentence_piece_continuation_keeps_its_space():
    one = tk.from_gguf(sentence_piece_fields())
    ids = one.encode("hello world")
    assert one.decode(ids) == "hello world"
    assert one.decode(ids, keep_special=True) == "<s>hello world"
    assert one.decode(ids[2:]) == " world"
    assert (one.bos_id, one.eos_ids, one.pad_id) == (1, (2,), 0)
    # A bare letter is a word-initial piece; after the parenthesis it is not.
    letter = one.continuation_ids("(", "A")
    assert [one.token_bytes(i) for i in letter] == [b"A"]


def test_sentence_piece_without_a_space_prefix():
    flag = {"tokenizer.ggml.add_space_prefix": False}
    one = tk.from_gguf(sentence_piece_fields(**flag))
    assert one.decode(one.encode("hello")) == "hello"
    assert one.token_bytes(one.encode("hello")[1]) == b"hello"


def test_llama3_split_keeps_three_digits_together():
    pieces = [*backends.byte_alphabet(), "12", "123", "<|end_of_text|>"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.merges": ["1 2", "12 3"],
        "tokenizer.ggml.token_type": [1] * 258 + [3],
        "tokenizer.ggml.eos_token_id": 258,
    }
    one = tk.from_gguf(fields)
    spelled = [one.token_bytes(i) for i in one.encode("a 1234")]
    assert spelled == [b"a", b" ", b"123", b"4"]


def test_unknown_gguf_vocabularies_are_refused():
    with pytest.raises(ValueError, match="kind 'bert'"):
        tk.from_gguf(sentence_piece_fields(**{"tokenizer.ggml.model": "bert"}))
    strange = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "falcon"}
    with pytest.raises(ValueError, match="splitting rule 'falcon'; accepted: gpt-2"):
        tk.from_gguf(sentence_piece_fields(**strange))


def byte_level_fields(**other):
    """Return metadata of a small byte-level vocabulary with two joined pieces."""
    newline = next(k for k, byte in backends.byte_alphabet().items() if byte == 10)
    pieces = [*backends.byte_alphabet(), newline * 2, "." + newline * 2]
    names = ["<|endoftext|>", "<|im_end|>"]
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": pieces + names,
        "tokenizer.ggml.merges": [f"{newline} {newline}", f". {newline * 2}"],
        "tokenizer.ggml.token_type": [1] * len(pieces) + [3] * 2,
        "tokenizer.ggml.bos_token_id": 258,
        "tokenizer.ggml.eos_token_id": 259,
        **{f"tokenizer.ggml.{key}": value for key, value in other.items()},
    }
    return {key: value for key, value in fields.items() if value is not None}


def llama3_fields(**other):
    fields = byte_level_fields(**other)
    names = ["<|begin_of_text|>", "<|end_of_text|>"]
    fields["tokenizer.ggml.tokens"] = fields["tokenizer.ggml.tokens"][:-2] + names
    return fields


@pytest.mark.parametrize("rule", [None, "", "default"])
def test_gguf_without_a_splitting_rule_is_llama3_by_its_tokens_or_refused(rule):
    named = tk.from_gguf(llama3_fields(pre="llama-bpe"))
    found = tk.from_gguf(llama3_fields(pre=rule))
    for text in (*tiny_tokenizers.TEXTS, "Hi.\n\nHuman: no"):
        assert found.encode(text) == named.encode(text)
    assert found.bos_id == named.bos_id == 258
    spelled = [found.token_bytes(i) for i in found.encode("i.\n\nH")]
    assert spelled == [b"<|begin_of_text|>", b"i", b".\n\n", b"H"]
    with pytest.raises(ValueError, match="does not name the rule.*--pre-tokenizer"):
        tk.from_gguf(byte_level_fields(pre=rule))


def test_gguf_byte_level_defaults_about_bos_are_those_of_its_rule():
    for rule in ("gpt-2", "smollm"):
        assert tk.from_gguf(byte_level_fields(pre=rule)).bos_id is None
        told = byte_level_fields(pre=rule, add_bos_token=True, add_eos_token=True)
        one = tk.from_gguf(told)
        assert one.encode("a") == [258, *one.encode("a", bos=False)]
    for rule in gguf_vocabulary.LLAMA3_NAMES:
        assert tk.from_gguf(llama3_fields(pre=rule)).bos_id == 258
        told = llama3_fields(pre=rule, add_bos_token=False)
        assert tk.from_gguf(told).bos_id is None


@pytest.mark.parametrize("adds", [True, False, None])
def test_gguf_sentence_piece_has_a_bos_unless_told(adds):
    told = {} if adds is None else {"tokenizer.ggml.add_bos_token": adds}
    one = tk.from_gguf(sentence_piece_fields(**told))
    assert one.bos_id == (None if adds is False else 1)
    ends = tk.from_gguf(sentence_piece_fields(**{"tokenizer.ggml.add_eos_token": True}))
    assert ends.encode("hello")[-1] != ends.eos_id


def test_gguf_sentence_piece_never_joins_bytes_or_special_tokens():
    fields = sentence_piece_fields()
    count = len(fields["tokenizer.ggml.tokens"])
    fields["tokenizer.ggml.tokens"] += ["<", "0", "x", "4", "1", ">", "<0", "<0x"]
    fields["tokenizer.ggml.tokens"] += ["<0x4", "1>", "s", "<s", "/"]
    fields["tokenizer.ggml.scores"] += [-100.0 - i for i in range(13)]
    fields["tokenizer.ggml.token_type"] += [1] * 13
    one = tk.from_gguf(fields)
    spelled = [one.token_bytes(i) for i in one.encode("h<0x41>")]
    assert spelled[-2:] == [b"<0x4", b"1>"]
    assert max(one.encode("<0x4")) >= count


@pytest.mark.parametrize(
    "other, words",
    [
        ({"tokens": None}, "no list of [a-z]* tokenizer.ggml.tokens"),
        ({"scores": None}, "no list of [a-z]* tokenizer.ggml.scores"),
        ({"token_type": None}, "no list of [a-z]* tokenizer.ggml.token_type"),
        ({"token_type": [1, 2]}, "but 2 values in tokenizer.ggml.token_type"),
        ({"scores": [0.0]}, "but 1 values in tokenizer.ggml.scores"),
        ({"bos_token_id": 2**31}, "bos_token_id 2147483648; accepted: ids"),
        ({"eos_token_id": -1}, "eos_token_id -1"),
        ({"unknown_token_id": "<unk>"}, "unknown_token_id '<unk>'"),
        ({"scores": [0.0] * 281}, "the same score 0.0"),
        ({"scores": [float("nan")] * 281}, "has the score nan"),
        ({"add_bos_token": "yes"}, "add_bos_token 'yes'; accepted: a bool"),
        ({"add_space_prefix": 1}, "add_space_prefix 1; accepted: a bool"),
        ({"tokens": [1] * 281}, "no list of str tokenizer.ggml.tokens"),
    ],
)
def test_damaged_gguf_vocabularies_are_refused(other, words):
    named = {f"tokenizer.ggml.{key}": value for key, value in other.items()}
    fields = sentence_piece_fields(**named)
    fields = {key: value for key, value in fields.items() if value is not None}
    with pytest.raises(ValueError, match=words):
        tk.from_gguf(fields)


def test_gguf_vocabularies_that_contradict_themselves_are_refused():
    twice = sentence_piece_fields()
    twice["tokenizer.ggml.tokens"][5] = "</s>"
    with pytest.raises(ValueError, match="the token '</s>' twice"):
        tk.from_gguf(twice)
    for line in ("zz q", "abc", "a b c"):
        with pytest.raises(ValueError, match=f"the merge '{line}'"):
            tk.from_gguf(byte_level_fields(merges=[line]))
    with pytest.raises(ValueError, match="must be a text, got 7"):
        tk.from_gguf(sentence_piece_fields(**{"tokenizer.chat_template": 7}))
    small = {"general.architecture": "llama", "llama.vocab_size": 100}
    with pytest.raises(ValueError, match="281 tokens, but its llama.vocab_size is 100"):
        tk.from_gguf(sentence_piece_fields(**small))
    spaced = sentence_piece_fields()
    spaced["tokenizer.ggml.token_type"][-1] = 4
    with pytest.raises(ValueError, match="user-defined tokens with spaces"):
        tk.from_gguf(spaced)
    unused = sentence_piece_fields()
    unused["tokenizer.ggml.token_type"][-1] = 5
    with pytest.raises(ValueError, match="calls the joint piece .* unused"):
        tk.from_gguf(unused)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>", b"GGUF\x03" + bytes(60)])
def test_files_that_are_no_gguf_are_refused(content, tmp_path):
    path = tmp_path / "m.gguf"
    with pytest.raises(ValueError, match="m.gguf: there is no such file"):
        tk.load_tokenizer(path)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="m.gguf"):
        tk.load_tokenizer(path)


def test_a_tokenizer_is_checked_as_weights_are_before_anything_is_made(tmp_path):
    path = tmp_path / "m.gguf"
    # One field, a text of 2^60 bytes.
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    path.write_bytes(head + struct.pack("<Q", 1) + b"a" + struct.pack("<IQ", 8, 2**60))
    with pytest.raises(ValueError, match="m.gguf is not a whole GGUF file .*follow"):
        tk.load_tokenizer(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="Git LFS pointer"):
        tk.load_tokenizer(path)
