"""From the text of a `model=` setting to config, tokenizer and weights."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable

from absl import logging

from rlcd_jax.models import llama, presets
from rlcd_jax.text import byte_tokenizer, gguf_vocabulary, tokenizer
from rlcd_jax.weights import embedded, gguf, hf, licence, names

EMBEDDED = "smollm2-135m"
KEPT = 4  # GGUF files that a process has read and may be asked for again: one a role


@dataclasses.dataclass(frozen=True)
class ResolvedModel:
    """A model that was found; nothing large is read before it is asked for.

    Attributes:
      spec: the setting it was found by.
      cfg: the model's numbers.
      kind: "hf" or "gguf" for real weights, "preset" for a shape without weights.
      path: the folder or file, None for a preset.
      load_tokenizer: returns the tokenizer. A preset without files has the byte
        tokenizer, as large as its vocabulary.
      load_params: returns float32 parameters in training form; takes `put` (see
        `names.assemble`). For a preset it raises: random weights are the caller's
        explicit choice (`llama.init_params`).
      licence: as the model's files say, by the hub's short name; "": they do not.
    """

    spec: str
    cfg: llama.LlamaConfig
    kind: str
    path: pathlib.Path | None
    load_tokenizer: Callable[[], tokenizer.Tokenizer]
    load_params: Callable[..., llama.Params]
    licence: str = ""

    @property
    def has_weights(self) -> bool:
        """Whether there are weights to load."""
        return self.kind != "preset"


def resolve_model(
    spec: str,
    cache_dir: str | pathlib.Path,
    log: embedded.Log | None = None,
) -> ResolvedModel:
    """Find a model.

    Args:
      spec: "smollm2-135m" (the embedded real model), another preset's name (a shape
        without weights), "hf:PATH_OR_ID", or "gguf:PATH".
      cache_dir: where fetched models are kept.
      log: called with a line of text when something takes time.

    Raises:
      ValueError: there is no such model; the message says what is accepted.
    """
    kind, _, rest = spec.partition(":")
    if kind == "hf" and rest:
        return _from_hf(spec, hf.find_folder(rest, pathlib.Path(cache_dir) / "hub"))
    if kind == "gguf" and rest:
        return _from_gguf(spec, pathlib.Path(rest).expanduser())
    cfg = presets.get_preset(spec)
    if spec == EMBEDDED:
        return _from_gguf(spec, embedded.fetch(cache_dir, log))
    return ResolvedModel(
        spec=spec,
        cfg=cfg,
        kind="preset",
        path=None,
        load_tokenizer=functools.partial(byte_tokenizer.make, cfg.vocab_size),
        load_params=functools.partial(_refuse_params, spec),
    )


def _refuse_params(spec: str, put: names.Put | None = None) -> llama.Params:
    del put
    raise ValueError(
        f"the preset {spec!r} is a shape without weights; name a model that has some "
        f"({EMBEDDED}, hf:PATH_OR_ID, gguf:PATH), or ask for random weights explicitly"
    )


def _from_hf(spec: str, folder: pathlib.Path) -> ResolvedModel:
    cfg = hf.read_config(folder)
    hf.check_weights(folder, cfg)  # headers alone: refused here, not hours later
    load = functools.partial(tokenizer.load_tokenizer, folder)
    return ResolvedModel(
        spec=spec,
        cfg=cfg,
        kind="hf",
        path=folder,
        load_tokenizer=functools.partial(_fitting_tokenizer, load, cfg, folder),
        load_params=functools.partial(hf.load_params, folder, cfg),
        licence=licence.of_folder(folder),
    )


def _from_gguf(spec: str, path: pathlib.Path) -> ResolvedModel:
    return dataclasses.replace(_read_gguf(path, *_state(path)), spec=spec)


def _state(path: pathlib.Path) -> tuple[int, ...]:
    """Return what is another once a file was written anew; () where there is none."""
    try:
        about = os.stat(path)
    except OSError:
        return ()  # whoever opens it says what is wrong
    return about.st_size, about.st_mtime_ns, about.st_ino


@functools.lru_cache(maxsize=KEPT)
def _read_gguf(path: pathlib.Path, *state: int) -> ResolvedModel:
    """Return the model of a GGUF file, whose vocabulary takes seconds to read.

    Stages and runs of one process share it; no weights are held.
    """
    del state
    reader = gguf.open_file(path)
    fields = gguf_vocabulary.read_fields(reader)
    cfg = gguf.read_config(reader, fields, str(path))
    gguf.check_weights(reader, cfg, str(path))
    reader.fields.clear()  # a hundred thousand arrays, which are read now
    load = functools.partial(tokenizer.from_gguf, fields)
    return ResolvedModel(
        spec=f"gguf:{path}",
        cfg=cfg,
        kind="gguf",
        path=path,
        load_tokenizer=functools.cache(
            functools.partial(_fitting_tokenizer, load, cfg, path, padded=False)
        ),
        load_params=functools.partial(gguf.load_params, reader, cfg, str(path)),
        licence=licence.of_fields(fields),
    )


def _fitting_tokenizer(
    load: Callable[[], tokenizer.Tokenizer],
    cfg: llama.LlamaConfig,
    path: pathlib.Path,
    *,
    padded: bool = True,
) -> tokenizer.Tokenizer:
    """Return a model's tokenizer, refusing one that is not of this model.

    Args:
      load: returns it.
      cfg: the model's numbers.
      path: of the model, for messages.
      padded: the model may have more rows than the tokenizer ids, as tables are often
        padded; such ids are never drawn. A GGUF file names every row.
    """
    loaded = load()
    if loaded.vocab_size < cfg.vocab_size:
        differ = f"{loaded.vocab_size} ids and the model {cfg.vocab_size} rows"
        if not padded:
            raise ValueError(
                f"{path}: the tokenizer has {differ}, and a GGUF file names each of "
                "its rows; convert the model again, with its own tokenizer"
            )
        logging.info("%s: the tokenizer has %s: the others are no text", path, differ)
    if loaded.vocab_size > cfg.vocab_size:
        raise ValueError(
            f"{path}: the tokenizer has {loaded.vocab_size} ids and the model rows for "
            f"{cfg.vocab_size}; give the tokenizer that belongs to these weights, or "
            "resize the embeddings (resize_token_embeddings in transformers) and save "
            "both"
        )
    return loaded
