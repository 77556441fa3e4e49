"""Small tokenizers in the files that each family of LLaMA models comes with.

``write`` makes a folder (or a GGUF file) as the family's own looks, only with a few
hundred pieces instead of 32,000 or more: the same rules, decoders, post-processors,
settings and kinds of chat template. Pieces are trained on a few sentences.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import numpy as np
import tokenizers
from tokenizers import (
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

SPACE = "\u2581"  # how SentencePiece writes a space
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
FAMILIES = (
    "llama1",
    "llama2",
    "tinyllama",
    "codellama",
    "llama3_chat",
    "smollm2",
    "tinyllama_gguf",
    "smollm2_gguf",
)
SENTENCES = (
    "Human: Could you tell me what the weather is like in Lisbon today?",
    "Assistant: Of course! It is warm and sunny there, about 24 degrees.",
    "Human: Thank you, that sounds lovely. What should we do in the afternoon?",
    "Assistant: You could walk along the river, and then eat something by the sea.",
    "The answer is: (A) The assistant's reply is the happier one of the two.",
    "Dear friend, we're glad that you've come; it's been a while since 2019.",
)
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# Templates of the kinds in use, in our own words: what they write is each family's.
INST_TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set turns = messages %}{% endif %}"
    "{% for turn in turns %}"
    "{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate, the user first') }}{% endif %}"
    "{% if turn['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (first if loop.first else '')"
    " + turn['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' + turn['content'].strip() + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
ZEPHYR_TEMPLATE = (
    "{% for message in messages %}\n"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + eos_token }}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}"
)
LLAMA3_TEMPLATE = (
    "{% for message in messages %}{% if loop.first %}{{ bos_token }}{% endif %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
    " + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a small test.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content']"
    " + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write(name: str, folder: str | pathlib.Path) -> pathlib.Path:
    """Write one family's tokenizer files; return what ``load_tokenizer`` takes.

    Args:
      name: one of ``FAMILIES``.
      folder: where to; made if it is not there.

    Returns:
      The folder, or for names ending in "_gguf" the path of a file in it that has a
      vocabulary and no weights.
    """
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return WRITERS[name](folder)


def write_json(path: pathlib.Path, value: Any) -> None:
    """Write a value as JSON."""
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def special(token: str) -> tokenizers.AddedToken:
    """Return a special token that is looked for in the text as it is written."""
    return tokenizers.AddedToken(token, special=True, normalized=False)


@functools.cache
def sentence_pieces(extra: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Return a SentencePiece BPE vocabulary in LLaMA's order.

    Controls, bytes, joined pieces from the first merge to the last, then characters.
    """
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE)
    letters = [chr(i) for i in range(33, 127)] + ["\u00e9", "\u4eba"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=[SPACE, *letters], show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    merges = json.loads(backend.to_str())["model"]["merges"]
    joined = [a + b for a, b in merges] + [SPACE * 2, SPACE * 4]
    return ("<unk>", "<s>", "</s>", *BYTES, *joined, SPACE, *letters, *extra)


def all_merges(pieces: Sequence[str]) -> list[tuple[str, str]]:
    """Return every way to join two pieces to a third, earlier joint pieces first."""
    known = {piece: i for i, piece in enumerate(pieces)}
    found = []
    for piece in pieces[3 + len(BYTES) :]:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece))]
        kept = [(a, b) for a, b in cuts if a in known and b in known]
        found += sorted(kept, key=lambda pair: (known[pair[0]], known[pair[1]]))
    return found


def sentence_piece_backend(
    extra: tuple[str, ...] = (), metaspace: bool = False
) -> tokenizers.Tokenizer:
    """Return the fast tokenizer of a SentencePiece family, BOS by post-processor."""
    pieces = sentence_pieces(extra)
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab={piece: i for i, piece in enumerate(pieces)},
            merges=all_merges(pieces),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    if metaspace:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=SPACE, prepend_scheme="first", split=False
        )
    else:
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
        )
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    backend.add_special_tokens([special(t) for t in ("<unk>", "<s>", "</s>", *extra)])
    backend.post_processor = processors.TemplateProcessing(
        single="<s>:0 $A:0",
        pair="<s>:0 $A:0 <s>:1 $B:1",
        special_tokens=[("<s>", 1)],
    )
    return backend


def _llama1(folder: pathlib.Path) -> pathlib.Path:
    """As the first LLaMA folders: settings that name no token at all."""
    sentence_piece_backend().save(str(folder / "tokenizer.json"))
    names = {"bos_token": "", "eos_token": "", "unk_token": ""}
    settings = {"tokenizer_class": "LlamaTokenizer", "model_max_length": 2048}
    write_json(folder / "tokenizer_config.json", names | settings)
    return folder


def _as_dict(token: str) -> dict[str, Any]:
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    return {"__type": "AddedToken", "content": token, **flags}


def _llama2(folder: pathlib.Path) -> pathlib.Path:
    """As LLaMA 2 chat: tokens as dictionaries, turns in [INST] marks."""
    sentence_piece_backend().save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": _as_dict("<s>"),
        "eos_token": _as_dict("</s>"),
        "unk_token": _as_dict("<unk>"),
        "pad_token": None,
        "legacy": False,
        "chat_template": INST_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    write_json(folder / "generation_config.json", generation)
    return folder


def _tinyllama(folder: pathlib.Path) -> pathlib.Path:
    """As TinyLlama chat: LLaMA 2's vocabulary, turns closed by the EOS."""
    sentence_piece_backend().save(str(folder / "tokenizer.json"))
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    added = {
        str(i): {"content": token, **flags, "special": True}
        for i, token in enumerate(("<unk>", "<s>", "</s>"))
    }
    settings = {
        "tokenizer_class": "LlamaTokenizer",
        "added_tokens_decoder": added,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "legacy": False,
        "chat_template": ZEPHYR_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return folder


def _codellama(folder: pathlib.Path) -> pathlib.Path:
    """As newer SentencePiece folders: Metaspace puts one space in front of a text."""
    marks = tuple(f"{SPACE}<{mark}>" for mark in ("PRE", "SUF", "MID", "EOT"))
    backend = sentence_piece_backend(marks, metaspace=True)
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "CodeLlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": INST_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return folder


@functools.cache
def byte_level_model(
    digits: bool, count: int
) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """Return the pieces and merges of a byte-level BPE trained on the sentences."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = _byte_level_rule(digits)
    trainer = trainers.BpeTrainer(
        vocab_size=count,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    model = json.loads(backend.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    return tuple(pieces), tuple((a, b) for a, b in model["merges"])


def _byte_level_rule(digits: bool) -> pre_tokenizers.PreTokenizer:
    """Return SmolLM2's rule (digits apart, then GPT-2's), or LLaMA 3's."""
    if digits:
        first = pre_tokenizers.Digits(individual_digits=True)
    else:
        pattern = tokenizers.Regex(LLAMA3_PATTERN)
        first = pre_tokenizers.Split(pattern, behavior="isolated")
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=digits)
    return pre_tokenizers.Sequence([first, last])


LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def _llama3_chat(folder: pathlib.Path) -> pathlib.Path:
    """As LLaMA 3 Instruct was first released: eos_token does not close a turn."""
    pieces, merges = byte_level_model(digits=False, count=330)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=list(merges), ignore_merges=True)
    )
    backend.pre_tokenizer = _byte_level_rule(digits=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([special(token) for token in LLAMA3_SPECIALS])
    bos, count = LLAMA3_SPECIALS[0], len(pieces)
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos}:0 $A:0",
                pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
                special_tokens=[(bos, count)],
            ),
        ]
    )
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": bos,
        "eos_token": "<|end_of_text|>",
        "chat_template": LLAMA3_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    ends = {"bos_token_id": count, "eos_token_id": [count + 1, count + 5]}
    write_json(folder / "generation_config.json", ends)
    return folder


SMOLLM2_SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>")


def _smollm2(folder: pathlib.Path) -> pathlib.Path:
    """As SmolLM2: special tokens first, digits apart, no BOS, ChatML."""
    pieces, merges = byte_level_model(digits=True, count=330)
    vocab = {p: i for i, p in enumerate((*SMOLLM2_SPECIALS, *pieces))}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=list(merges)))
    backend.pre_tokenizer = _byte_level_rule(digits=True)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([special(token) for token in SMOLLM2_SPECIALS])
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHATML_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return folder


def tinyllama_fields() -> dict[str, Any]:
    """Return the metadata of TinyLlama's GGUF file: SentencePiece with scores."""
    pieces = sentence_pieces()
    count = len(pieces) - 259
    kinds = [gguf.TokenType.UNKNOWN, *[gguf.TokenType.CONTROL] * 2]
    kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * count
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": list(pieces),
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(count)],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": ZEPHYR_TEMPLATE,
    }


def smollm2_fields() -> dict[str, Any]:
    """Return the metadata of SmolLM2's GGUF file: byte-level BPE with merges."""
    pieces, merges = byte_level_model(digits=True, count=330)
    first = len(SMOLLM2_SPECIALS)
    kinds = [gguf.TokenType.CONTROL] * first + [gguf.TokenType.NORMAL] * len(pieces)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*SMOLLM2_SPECIALS, *pieces],
        "tokenizer.ggml.merges": [" ".join(pair) for pair in merges],
        "tokenizer.ggml.token_type": [int(kind) for kind in kinds],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML_TEMPLATE,
    }


def write_gguf(
    path: pathlib.Path,
    fields: dict[str, Any],
    tensors: Mapping[str, np.ndarray] | None = None,
) -> pathlib.Path:
    """Write a GGUF file with a vocabulary; without tensors it has no weights."""
    writer = gguf_writer(path, fields)
    for name, values in (tensors or {}).items():
        writer.add_tensor(name, values)
    return finish(writer, path)


def gguf_writer(path: pathlib.Path, fields: dict[str, Any]) -> gguf.GGUFWriter:
    """Return a writer of a GGUF file that holds metadata and no tensor yet."""
    writer = gguf.GGUFWriter(str(path), "llama")
    for key, value in fields.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    return writer


def finish(writer: gguf.GGUFWriter, path: pathlib.Path) -> pathlib.Path:
    """Write what a writer holds and close it; return the file."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tinyllama_gguf(folder: pathlib.Path) -> pathlib.Path:
    return write_gguf(folder / "tinyllama.gguf", tinyllama_fields())


def _smollm2_gguf(folder: pathlib.Path) -> pathlib.Path:
    return write_gguf(folder / "smollm2.gguf", smollm2_fields())


WRITERS = {
    "llama1": _llama1,
    "llama2": _llama2,
    "tinyllama": _tinyllama,
    "codellama": _codellama,
    "llama3_chat": _llama3_chat,
    "smollm2": _smollm2,
    "tinyllama_gguf": _tinyllama_gguf,
    "smollm2_gguf": _smollm2_gguf,
}
