"""A family's ids, log-probabilities and rewards without rlcd_jax.

Ids are those of transformers' own tokenizer, numbers those of ``numpy_llama``;
``test_family_golden`` compares both with torch's golden files. Only to tell parameters
of a run by Hugging Face's names is the library asked.
"""

from __future__ import annotations

import pathlib
from typing import Any

import family_models
import numpy as np
import numpy_llama
import transformers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rlcd_jax.weights import hf, names

ENDING = ("</s>", "<|endoftext|>", "<|im_end|>", "<|end_of_text|>", "<|eot_id|>")
# Sums of float32 against float64, or against torch's float32: log-probabilities and
# rewards are of order ten.
NEAR = {"atol": 2e-4, "rtol": 0}


class Oracle:
    """What a family's tokenizer and model are without rlcd_jax."""

    def __init__(self, name: str, folder: pathlib.Path, golden: Any) -> None:
        self.name, self.golden = name, golden
        self.dialogue = family_models.FORMATS[name] == "dialogue"
        self.end = family_models.ENDS.get(name, family_models.HUMAN)
        twin = folder / "twin"
        family_models.write(family_models.folder_family(name), twin)
        self.tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(twin)
        self.config = family_models.config_json(name)
        self.weights = family_models.weights(name)
        self._vocabulary = self.tokenizer.get_vocab()
        self._byte_of = {char: byte for byte, char in bytes_to_unicode().items()}
        self._cfg = hf.read_config(twin)

    def encode(self, text: str) -> list[int]:
        """Return ids of a text, with the BOS once."""
        bos = self.tokenizer.bos_token
        written = bool(bos) and text.startswith(bos)
        return self.tokenizer(text, add_special_tokens=not written).input_ids

    def text_of(self, ids, special: bool = False) -> str:
        """Return the text of ids that continue another; special tokens if asked."""
        added = self.tokenizer.added_tokens_decoder
        spelled = b""
        for token in map(int, ids):
            if token in added:
                spelled += str(added[token]).encode() if special else b""
            else:
                spelled += self._bytes_of(self.tokenizer.convert_ids_to_tokens(token))
        return spelled.decode("utf-8", "replace")

    def _bytes_of(self, piece: str) -> bytes:
        if "<0x00>" not in self._vocabulary:  # byte-level: a character is a byte
            return bytes(self._byte_of[char] for char in piece)
        if piece.startswith("<0x") and len(piece) == 6:
            return bytes([int(piece[3:5], 16)])
        return piece.replace("\u2581", " ").encode()

    def reply_text(self, reply: str) -> str:
        """Return a reply as it stands after its prompt, with its mark."""
        space = " " if self.dialogue or self.name == "llama2" else ""
        return f"{space}{reply.strip()}{self.end}"

    def read_by_preference(self, prompt: str, reply: str) -> tuple[int, ...]:
        """Return the ids of a prompt with its reply and mark."""
        return tuple(self.encode(prompt + self.reply_text(reply)))

    def fixed(self, index: int, which: int) -> tuple[tuple[int, ...], int]:
        """Return torch's ids of a fixed text, and how many are the reply's."""
        key = f"{index}_{which}"
        ids = self.golden[f"ids_{key}"]
        return tuple(map(int, ids)), int(self.golden[f"num_{key}"])

    def named(self, params) -> dict[str, np.ndarray]:
        """Return parameters of the run by Hugging Face's names."""
        if "embed" in params and not self._cfg.tie_embeddings:
            params = {"unembed": np.zeros_like(params["embed"]), **params}
        return dict(names.disassemble(params, self._cfg, "hf"))

    def scalars(self, params, ids) -> np.ndarray:
        """Return the scalar of a preference or value model at each token."""
        states = numpy_llama.states(self.named(params["trunk"]), self.config, ids)
        return states @ params["head"]["weight"] + params["head"]["bias"]

    def table(self, params, ids) -> np.ndarray:
        """Return log-probabilities [T, V]; of the first weights where None."""
        own = self.weights if params is None else self.named(params)
        return numpy_llama.logprobs(own, self.config, ids)

    def policy_text(self, ids) -> str:
        """Return the text of a policy's reply before its first end."""
        added = self.tokenizer.added_tokens_decoder.items()
        known = {i for i, token in added if str(token) in ENDING}
        before = next((n for n, i in enumerate(ids) if i in known), len(ids))
        return self.text_of(ids[:before]).partition(family_models.HUMAN)[0]
