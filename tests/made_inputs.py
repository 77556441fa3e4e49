"""Writes what a user brings to a command: tiny models, hh-rlhf, a task, a study."""

from __future__ import annotations

import collections
import dataclasses
import functools
import pathlib
import re

import human_study
import jax
import numpy as np
import runs
import tokenizer_families
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from rlcd_jax import tasks
from rlcd_jax.human import reading, study, study_files
from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer
from rlcd_jax.text import tokenizer as tk
from rlcd_jax.weights import exchange, names, read_again

ROOT = pathlib.Path(__file__).parents[1]
END = "<|im_end|>"
TASKS = ("cheerful", "harmless", "helpful", "outline")
# Of each token of a random text; so replies end after ten tokens in the mean.
SHARE_OF_ENDS = 0.1


@functools.cache
def _words() -> tk.Tokenizer:
    """Return a tokenizer of words, learnt from the prompts of the package."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2048,
        special_tokens=[END, "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["\n\nHuman: Please?\n\nAssistant (kind response): Sure, of course."] * 9
    for name in TASKS:
        own = ROOT / "rlcd_jax" / "tasks" / "prompts" / f"{name}.jsonl"
        frame = own.parents[1] / f"{name}.toml"
        texts += [own.read_text("utf-8"), *[frame.read_text("utf-8")] * 5]
        texts += [text for pair in tasks.load_task(name).affixes for text in pair]
    backend.train_from_iterator(texts, trainer)
    return tk.Tokenizer(backend, eos_ids=[backend.token_to_id(END)])


def write_model(folder: pathlib.Path) -> pathlib.Path:
    """Write a Hugging Face folder of a tiny random model; return the folder.

    Unlike `random:tiny` it spells in words, so that the limits of sizes mean what they
    say, and ends its replies: every embedding has one direction, in which the output
    favours the end.
    """
    words = _words()
    cfg = dataclasses.replace(
        presets.get_preset("tiny"),
        vocab_size=words.vocab_size,
        tie_embeddings=False,
    )
    params = jax.tree.map(np.array, llama.init_params(cfg, jax.random.key(0)))
    params["embed"][:, 0] = 0.1
    params["unembed"][words.eos_id] = 0
    # After the final norm the direction is two to three long.
    ends = np.log(SHARE_OF_ENDS * cfg.vocab_size / (1 - SHARE_OF_ENDS))
    params["unembed"][:, 0] = 0
    params["unembed"][words.eos_id, 0] = ends / 2.5
    source = read_again.Source(params, cfg, words, "policy", "a test")
    exchange.write(source, exchange.Target(folder, "float32", 10**9))
    return folder


def write_bytes_model(folder: pathlib.Path) -> pathlib.Path:
    """Write `random:tiny` as a Hugging Face folder; return the folder."""
    cfg = presets.get_preset("tiny")
    params = jax.tree.map(np.array, llama.init_params(cfg, jax.random.key(0)))
    spells = byte_tokenizer.make(cfg.vocab_size)
    source = read_again.Source(params, cfg, spells, "policy", "a test")
    exchange.write(source, exchange.Target(folder, "float32", 10**9))
    return folder


def write_gguf(path: pathlib.Path) -> pathlib.Path:
    """Write a GGUF file of a tiny model with SmolLM2's kind of vocabulary."""
    fields = tokenizer_families.smollm2_fields()
    cfg = dataclasses.replace(
        presets.get_preset("tiny"), vocab_size=len(fields["tokenizer.ggml.tokens"])
    )
    params = jax.tree.map(np.array, llama.init_params(cfg, jax.random.key(0)))
    numbers = {
        "block_count": cfg.num_layers,
        "context_length": cfg.max_positions,
        "embedding_length": cfg.embed_dim,
        "feed_forward_length": cfg.mlp_dim,
        "attention.head_count": cfg.num_heads,
        "attention.head_count_kv": cfg.num_kv_heads,
        "attention.key_length": cfg.head_dim,
    }
    writer = tokenizer_families.gguf_writer(
        path, fields | {f"llama.{name}": value for name, value in numbers.items()}
    )
    writer.add_layer_norm_rms_eps(cfg.norm_eps)
    writer.add_rope_freq_base(cfg.rope_theta)
    for name, values in names.disassemble(params, cfg, "gguf"):
        writer.add_tensor(name, np.ascontiguousarray(values))
    return tokenizer_families.finish(writer, path)


def write_hh(folder: pathlib.Path) -> pathlib.Path:
    """Write a folder of hh-rlhf in the official layout, of a few rows; return it."""
    for config in ("harmless-base", "helpful-base"):
        for split, num in (("train", 60), ("test", 12)):
            rows = []
            for i in range(num):
                start = f"\n\nHuman: May I ask the {split} {i}?\n\nAssistant:"
                row = {"chosen": f"{start} Yes, do.", "rejected": f"{start} No {i}."}
                rows.append(row)
            runs.write_hh(folder / config / f"{split}.jsonl.gz", rows)
    return folder


def guide_task() -> str:
    """Return the task file that the guide shows, with its twelve prompts."""
    page = (ROOT / "experiments" / "docs" / "own_task.md").read_text("utf-8")
    blocks = re.findall(r"```toml\n(.*?)```", page, re.S)
    return next(block for block in blocks if 'name = "polite"' in block)


def write_task(folder: pathlib.Path, name: str = "polite") -> pathlib.Path:
    """Write the guide's task with prompts enough for any size; return its file.

    It has a name, affixes and prompts, and nothing else.
    """
    asked = "".join(f'"Which book is number {i} here?",\n' for i in range(400))
    text = re.sub(r"texts = \[.*?\]", f"texts = [{asked}]", guide_task(), flags=re.S)
    path = folder / f"{name}.toml"
    path.write_text(text.replace('"polite"', f'"{name}"', 1))
    return path


def write_method(folder: pathlib.Path) -> pathlib.Path:
    """Write the config of the guide to methods under the name that it has there."""
    page = (ROOT / "experiments" / "docs" / "own_method.md").read_text("utf-8")
    path = folder / "firm.py"
    path.write_text(re.findall(r"```python\n(.*?)```", page, re.S)[0])
    return path


def answer_study(run: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Write a study of a run's replies, with all its answers; return its folder."""
    study_files.make(
        run / "evaluate" / "samples.jsonl",
        ("rlcd", "base"),
        folder,
        protocol=study_files.CAREFUL,
        num_annotators=2,
        per_annotator=2,
        shared=None,
        repeats=0,
        num_gold=0,
        gold_kind="attention",
        gold_file=None,
        task_name=None,
        question_name=None,
        seed=0,
    )
    made, key = reading.read_key(folder)
    by_sheet = collections.defaultdict(list)
    for line in key.values():
        by_sheet[line.annotator].append(line)
    sheets = [study.Sheet(name, (), tuple(lines)) for name, lines in by_sheet.items()]
    human_study.answer_all(folder, made, sheets, lambda line: 3 + len(line.item) % 3)
    return folder
