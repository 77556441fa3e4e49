"""The peer of decoding on CPUs: llama.cpp, through its package for Python.

It reads the GGUF file itself, with the weights as they are in it. All sequences take
one step together, as a batch; the next token is the likeliest, which costs less than
drawing one.
"""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from rlcd_jax.bench import hf_peer, settings

GGUF = "gguf:"
PREFILL = 512  # tokens that are read at once


def make_peers(model: str, load: hf_peer.Load) -> dict[str, settings.Peer]:
    """Return llama.cpp as a peer.

    Args:
      model: "gguf:PATH", whose weights it reads.
      load: returns an installed package by its name.

    Raises:
      ValueError: the package is not installed, or the model is no GGUF file.
    """
    if not model.startswith(GGUF):
        raise ValueError(
            f"--peer llama.cpp reads a GGUF file, and --model is {model!r}; accepted: "
            "gguf:PATH"
        )
    try:
        package = load("llama_cpp")
    except ModuleNotFoundError as error:
        raise ValueError(
            "--peer llama.cpp needs llama_cpp: pip install llama-cpp-python"
        ) from error
    return {"llama_cpp": LlamaCppPeer(package, model.removeprefix(GGUF)).seconds}


class LlamaCppPeer:
    """A model that llama.cpp has read.

    Args:
      package: `llama_cpp`.
      path: of the GGUF file.
    """

    def __init__(self, package: Any, path: str) -> None:
        self._cpp = cpp = package
        cpp.llama_backend_init()
        settings = cpp.llama_model_default_params()
        self._model = cpp.llama_model_load_from_file(path.encode(), settings)
        if not self._model:
            raise ValueError(f"llama.cpp does not read {path}")
        vocabulary = cpp.llama_model_get_vocab(self._model)
        self._vocab = cpp.llama_vocab_n_tokens(vocabulary)

    def seconds(self, batch: int, prompt: int, new: int, top_k: int) -> float:
        """Return how long it takes to write `new` tokens for each prompt of a batch."""
        del top_k  # greedy
        cpp = self._cpp
        settings = cpp.llama_context_default_params()
        settings.n_ctx = batch * (prompt + new)
        settings.n_batch = settings.n_ubatch = max(PREFILL, batch)
        settings.n_seq_max = batch
        settings.n_threads = settings.n_threads_batch = os.cpu_count() or 1
        context = cpp.llama_init_from_model(self._model, settings)
        size = settings.n_batch
        memory = cpp.llama_batch_init(size, 0, 1)
        rng = np.random.RandomState(0)
        ids = rng.randint(5, self._vocab, (batch, prompt))
        start = time.perf_counter()
        entries = [
            (int(ids[row, place]), place, row, place == prompt - 1)
            for row in range(batch)
            for place in range(prompt)
        ]
        last = np.zeros(batch, int)
        for first in range(0, len(entries), size):
            last = self._step(context, memory, entries[first : first + size], last)
        for place in range(prompt, prompt + new - 1):
            step = [(int(last[row]), place, row, True) for row in range(batch)]
            last = self._step(context, memory, step, last)
        seconds = time.perf_counter() - start
        cpp.llama_batch_free(memory)
        cpp.llama_free(context)
        return seconds

    def _step(
        self,
        context: Any,
        memory: Any,
        entries: list[tuple[int, int, int, bool]],
        last: np.ndarray,
    ) -> np.ndarray:
        """Read tokens, (id, place, sequence, whether the next is wanted) each."""
        memory.n_tokens = len(entries)
        for index, (token, place, row, wanted) in enumerate(entries):
            memory.token[index] = token
            memory.pos[index] = place
            memory.n_seq_id[index] = 1
            memory.seq_id[index][0] = row
            memory.logits[index] = wanted
        status = self._cpp.llama_decode(context, memory)
        if status:
            raise ValueError(f"llama.cpp could not decode (status {status})")
        last = last.copy()
        for index, (_, _, row, wanted) in enumerate(entries):
            if wanted:
                at = self._cpp.llama_get_logits_ith(context, index)
                last[row] = np.ctypeslib.as_array(at, (self._vocab,)).argmax()
        return last
