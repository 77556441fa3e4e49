"""tokenizer: ids and text there and back, exact bytes, chats, special ids."""

import json
import os

import gguf
import pytest
import regex
import tiny_tokenizers
import tokenizers
from tokenizers import models

from rlcd_jax import records
from rlcd_jax.text import backends, byte_tokenizer, gguf_vocabulary
from rlcd_jax.text import tokenizer as tk
from rlcd_jax.weights import embedded


@pytest.fixture(scope="module")
def fields():
    path = embedded.fetch(embedded.default_cache_dir(os.environ))
    return gguf_vocabulary.read_fields(gguf.GGUFReader(path))


@pytest.fixture(scope="module")
def smollm2(fields):
    return tk.from_gguf(fields)


def slow_bpe(text, fields):
    """Tokenise as SmolLM2's rules say, one merge at a time."""
    ids = {piece: i for i, piece in enumerate(fields["tokenizer.ggml.tokens"])}
    ranks = {m: i for i, m in enumerate(fields["tokenizer.ggml.merges"])}
    letters = {byte: letter for letter, byte in backends.byte_alphabet().items()}
    words = regex.compile(
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
    )
    out = []
    for chunk in regex.findall(r"\p{N}|\P{N}+", text):
        for word in words.findall(chunk):
            parts = [letters[byte] for byte in word.encode()]
            while len(parts) > 1:
                pairs = [" ".join(p) for p in zip(parts, parts[1:], strict=False)]
                best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
                if best not in ranks:
                    break
                merged, i = [], 0
                while i < len(parts):
                    if i < len(pairs) and pairs[i] == best:
                        merged.append(parts[i] + parts[i + 1])
                        i += 2
                    else:
                        merged.append(parts[i])
                        i += 1
                parts = merged
            out += [ids[part] for part in parts]
    return out


@pytest.mark.parametrize("text", tiny_tokenizers.TEXTS)
def test_encode_matches_slow_bpe(smollm2, fields, text):
    assert smollm2.encode(text) == slow_bpe(text, fields)


@pytest.mark.parametrize("text", tiny_tokenizers.TEXTS)
def test_decode_undoes_encode(smollm2, text):
    assert smollm2.decode(smollm2.encode(text)) == text
    small = byte_tokenizer.make()
    assert small.decode(small.encode(text)) == text


def test_digits_are_split_singly(smollm2):
    assert len(smollm2.encode("12345")) == 5


def test_token_bytes_join_to_the_text(smollm2):
    text = "🙂 naïve 漢字"
    ids = smollm2.encode(text)
    assert b"".join(smollm2.token_bytes(i) for i in ids) == text.encode()
    assert smollm2.token_bytes(2) == b"<|im_end|>"


def test_decode_marks_half_a_character(smollm2):
    ids = smollm2.encode("🙂")
    assert len(ids) > 1
    assert "\ufffd" in smollm2.decode(ids[:1])


def test_token_bytes_refuses_an_unknown_id(smollm2):
    with pytest.raises(ValueError, match="49152 is not in the vocabulary"):
        smollm2.token_bytes(49152)
    with pytest.raises(ValueError, match="-1 is not in"):
        smollm2.token_bytes(-1)


def test_special_ids_of_smollm2(smollm2):
    assert smollm2.vocab_size == 49152
    assert smollm2.bos_id is None
    assert smollm2.eos_id == 2
    # <|endoftext|> ends a document of the base model: it ends a reply too.
    assert smollm2.eos_ids == (2, 0)
    # The file calls its EOS the padding token; ours is another.
    assert smollm2.pad_id not in smollm2.eos_ids
    assert smollm2.pad_id in smollm2.special_ids


def test_decode_leaves_special_tokens_out_unless_asked(smollm2):
    ids = smollm2.encode("Yes<|im_end|>")
    assert ids[-1] == smollm2.eos_id
    assert smollm2.decode(ids) == "Yes"
    assert smollm2.decode(ids, keep_special=True) == "Yes<|im_end|>"


def test_chat_is_the_models_own_format(smollm2):
    turns = [
        records.Turn("human", "Hi"),
        records.Turn("assistant", "Hello!"),
        records.Turn("human", "Bye"),
    ]
    assert smollm2.chat(turns, "Be kind.") == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert "You are a helpful AI assistant" in smollm2.chat(turns)
    assert smollm2.chat(turns[:2]).endswith("Hello!<|im_end|>\n")


def test_chat_without_a_template_is_refused():
    small = byte_tokenizer.make()
    plain = tk.Tokenizer(small._backend, eos_ids=[258])
    with pytest.raises(ValueError, match="no chat template"):
        plain.chat([records.Turn("human", "Hi")])


def test_continuation_ids_are_those_after_the_prefix(smollm2):
    prefix = "The answer is: ("
    for word in ("A", "B"):
        ids = smollm2.continuation_ids(prefix, word)
        assert len(ids) == 1
        assert smollm2.token_bytes(ids[0]) == word.encode()
    assert smollm2.continuation_ids("Say", " yes") == smollm2.encode(" yes")


def test_continuation_ids_refuses_a_shared_token(smollm2):
    with pytest.raises(ValueError, match="not a continuation in tokens"):
        smollm2.continuation_ids("The ans", "wer")
    with pytest.raises(ValueError, match="not a continuation in tokens"):
        smollm2.continuation_ids("The", "")


def test_save_and_load_agree(smollm2, tmp_path):
    for number, one in enumerate((smollm2, byte_tokenizer.make(300))):
        folder = tmp_path / str(number)
        one.save(folder)
        again = tk.load_tokenizer(folder)
        assert [again.encode(t) for t in tiny_tokenizers.TEXTS] == [
            one.encode(t) for t in tiny_tokenizers.TEXTS
        ]
        for name in ("vocab_size", "bos_id", "eos_ids", "pad_id", "chat_template"):
            assert getattr(again, name) == getattr(one, name), name
        assert tk.load_tokenizer(folder / "tokenizer.json").eos_ids == one.eos_ids


def test_byte_tokenizer_is_bytes():
    small = byte_tokenizer.make(264)
    assert small.encode("hé", bos=False) == list("hé".encode())
    assert small.encode("h") == [small.bos_id, ord("h")]
    assert small.vocab_size == 264
    assert len({small.pad_id, small.bos_id, small.eos_id}) == 3
    assert small.decode([263, 104]) == "h"
    with pytest.raises(ValueError, match="259 ids or more, got 100"):
        byte_tokenizer.make(100)


def test_encode_adds_one_bos_only():
    small = byte_tokenizer.make()
    ids = small.encode("<bos>hi")
    assert ids == small.encode("hi")
    assert ids.count(small.bos_id) == 1


def test_a_piece_lent_for_padding_stays_a_piece_when_saved(tmp_path):
    pieces = {
        "<eos>": 0,
        **{piece: i for i, piece in enumerate(backends.byte_alphabet(), 1)},
    }
    backend = tokenizers.Tokenizer(models.BPE(vocab=pieces, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<eos>"])
    one = tk.Tokenizer(backend, eos_ids=[0])
    assert one.pad_id == 1 and one.decode([1]) == "!"
    one.save(tmp_path)
    again = tk.load_tokenizer(tmp_path)
    assert again.pad_id == 1 and again.decode(again.encode("Oh!")) == "Oh!"


def test_padding_is_never_the_eos():
    backend = byte_tokenizer.make()._backend
    assert tk.Tokenizer(backend, eos_ids=[258], pad_id=258).pad_id == 256
    everything = tk.Tokenizer(backend, eos_ids=[258, 256], bos_id=257, pad_id=258)
    assert everything.pad_id == 0


def test_a_tokenizer_without_an_end_is_refused():
    vocab = {letter: i for letter, i in backends.byte_alphabet().items()}
    with pytest.raises(ValueError, match="no token that ends a text"):
        tk.Tokenizer(
            tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[])), eos_ids=[]
        )


def test_load_tokenizer_errors_name_the_remedy(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer at .*tokenizer.json"):
        tk.load_tokenizer(tmp_path)
    byte_tokenizer.make().save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ValueError, match="tokenizer_config.json is not JSON"):
        tk.load_tokenizer(tmp_path)


def test_load_tokenizer_reads_every_end_of_generation(tmp_path):
    byte_tokenizer.make(264).save(tmp_path)
    more = {"eos_token_id": [258, 260]}
    (tmp_path / "generation_config.json").write_text(json.dumps(more))
    assert tk.load_tokenizer(tmp_path).eos_ids == (258, 260)
