"""One tokenizer for all models: ids and text, exact bytes, chat templates.

It wraps a fast tokenizer (``tokenizers``), whatever file that came from, and settles
what differs between models: which id ends a text, whether a BOS is put in front, and
an id for padding that never ends a text.
"""

from __future__ import annotations

import copy
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import gguf
import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers

from rlcd_jax import gguf_vocabulary, records

# Special tokens that end a text or a turn, in the models of this family.
END_TOKENS = (
    "</s>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
)
CHAT_ROLES = {"human": "user", "assistant": "assistant"}
BYTE_CHAT_TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}] {{ message.content }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)


def byte_alphabet() -> dict[str, int]:
    """Return the byte that each printable stand-in of a byte-level vocabulary means.

    Printable Latin-1 characters stand for themselves; the other bytes, in order, for
    the characters from U+0100 on.
    """
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    alphabet = {chr(byte): byte for byte in shown}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(hidden)}


class Tokenizer:
    """Text to token ids and back.

    Attributes:
      vocab_size: number of ids, special ones included; a model's table may be larger.
      bos_id: id put in front of every text, or None for a model trained without one.
      eos_id: id that is put at the end of a text.
      eos_ids: all ids that end a text or a turn; ``eos_id`` is the first.
      pad_id: an id that fills unused places. It is never in ``eos_ids``: a vocabulary
        without such a padding token lends its unknown token, else an unused special
        token, else id 0 or the first that ends nothing. Masks come from lengths, never
        from ids, so any of them does.
      special_ids: ids that ``decode`` leaves out.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Sequence[int],
        bos_id: int | None = None,
        pad_id: int | None = None,
        chat_template: str | None = None,
        reserved_ids: Sequence[int] = (),
    ) -> None:
        """Wrap a fast tokenizer.

        Args:
          backend: the fast tokenizer.
          eos_ids: ids that end a text; the first is appended to texts.
          bos_id: id in front of every text, or None.
          pad_id: the vocabulary's padding id if it has one.
          chat_template: Jinja template of conversations, or None.
          reserved_ids: special ids with a meaning, which padding must not borrow.
        """
        self._backend = backend
        self._reader: tokenizers.Tokenizer | None = None  # of `encode_batch`
        self.vocab_size = backend.get_vocab_size(with_added_tokens=True)
        added = backend.get_added_tokens_decoder()
        self._added = {i: token.content for i, token in added.items()}
        self.special_ids = frozenset(i for i, token in added.items() if token.special)
        self.bos_id = bos_id
        self.eos_ids = tuple(dict.fromkeys((*eos_ids, *self._ends_by_name())))
        if not self.eos_ids:
            raise ValueError(
                "the tokenizer has no token that ends a text; name one as eos_token "
                f"in tokenizer_config.json (known by name: {', '.join(END_TOKENS)})"
            )
        self.eos_id = self.eos_ids[0]
        self.chat_template = chat_template
        self.pad_id = self._padding(pad_id, {*self.eos_ids, bos_id, *reserved_ids})
        self._bytes: dict[int, bytes] = {}
        self._alphabet = byte_alphabet() if _is_byte_level(backend) else None
        probe = self._backend.encode("a", add_special_tokens=False).ids
        self._adds_space = self.token_bytes(probe[0])[:1] == b" " if probe else False

    def _ends_by_name(self) -> list[int]:
        ids = (self._backend.token_to_id(name) for name in END_TOKENS)
        return [i for i in ids if i in self.special_ids]

    def _padding(self, declared: int | None, taken: set[int | None]) -> int:
        unknown = getattr(self._backend.model, "unk_token", None)
        candidates = [
            declared,
            None if unknown is None else self._backend.token_to_id(unknown),
            *sorted(self.special_ids - taken),
        ]
        for candidate in candidates:
            if candidate is not None and candidate not in taken:
                return candidate
        return next(i for i in range(self.vocab_size) if i not in taken)

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Return the ids of a text.

        Special tokens that are written out in the text become their ids.

        Args:
          text: any text.
          bos: put ``bos_id`` in front, if the model has one and the text does not
            already start with it (chat templates may write it).
        """
        ids = self._backend.encode(text, add_special_tokens=False).ids
        return self.with_bos(ids) if bos else ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """Return ids with ``bos_id`` in front, if there is one and it is not there."""
        if self.bos_id is not None and ids[:1] != [self.bos_id]:
            return [self.bos_id, *ids]
        return ids

    def encode_batch(self, texts: Sequence[str]) -> list[tokenizers.Encoding]:
        """Return ids of texts, without a BOS, and the characters each id stands for.

        The blanks at the sides of a token count, which post-processors may trim.
        """
        if self._reader is None:
            self._reader = self._backend
            if self._backend.post_processor is not None:
                self._reader = copy.deepcopy(self._backend)
                self._reader.post_processor = None
        return self._reader.encode_batch(list(texts), add_special_tokens=False)

    def decode(self, ids: Sequence[int], *, keep_special: bool = False) -> str:
        """Return the text of ids, byte for byte; no spaces are tidied.

        Bytes that are no UTF-8, such as half a character, become U+FFFD. The space that
        SentencePiece puts in front of a text is taken away when the ids start with
        ``bos_id``; a continuation keeps its leading space.
        """
        ids = [int(i) for i in ids]
        kept = [i for i in ids if keep_special or i not in self.special_ids]
        text = b"".join(self.token_bytes(i) for i in kept).decode("utf-8", "replace")
        if self._adds_space and ids and ids[0] == self.bos_id:
            start = self._added[self.bos_id] if keep_special else ""
            text = start + text[len(start) :].removeprefix(" ")
        return text

    def token_bytes(self, token_id: int) -> bytes:
        """Return the exact bytes that a token stands for.

        Raises:
          ValueError: the id is not in the vocabulary.
        """
        if token_id not in self._bytes:
            self._bytes[token_id] = self._spell(token_id)
        return self._bytes[token_id]

    def _spell(self, token_id: int) -> bytes:
        piece = self._backend.id_to_token(token_id) if token_id >= 0 else None
        if piece is None:
            raise ValueError(
                f"token id {token_id} is not in the vocabulary of {self.vocab_size}; "
                "the model and the tokenizer may not belong together"
            )
        if token_id in self._added:
            return self._added[token_id].encode()
        if self._alphabet is not None:
            return bytes(self._alphabet[character] for character in piece)
        if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(gguf_vocabulary.SPACE, " ").encode()

    def continuation_ids(self, prefix: str, word: str) -> list[int]:
        """Return the ids of ``word`` as it is tokenised directly after ``prefix``.

        Raises:
          ValueError: the end of the prefix and the word's start share a token, so that
            no continuation of the prefix's ids spells the word as the model knows it.
        """
        head = self.encode(prefix)
        whole = self.encode(prefix + word)
        if whole[: len(head)] != head or len(whole) == len(head):
            raise ValueError(
                f"{word!r} after {prefix[-20:]!r} is not a continuation in tokens: "
                f"{self._pieces(head[-3:])} alone, {self._pieces(whole[-4:])} joined; "
                "end the prefix at another place"
            )
        return whole[len(head) :]

    def _pieces(self, ids: Sequence[int]) -> list[bytes]:
        return [self.token_bytes(i) for i in ids]

    def chat(self, turns: Sequence[records.Turn], system: str | None = None) -> str:
        """Return a conversation in the model's own chat format.

        Args:
          turns: the turns; when the last is the human's, the text ends where the
            assistant's reply begins.
          system: text of the system message; None leaves it to the template.
        """
        if self.chat_template is None:
            raise ValueError(
                "this tokenizer has no chat template; use a task in the dialogue "
                "format, or a model whose files carry a template"
            )
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": CHAT_ROLES[t.role], "content": t.text} for t in turns]
        return self._wrapped().apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=bool(turns) and turns[-1].role == "human",
        )

    def save(self, folder: str | pathlib.Path) -> None:
        """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
        self._wrapped().save_pretrained(str(folder))

    def _wrapped(self) -> transformers.PreTrainedTokenizerFast:
        ids = {"eos": self.eos_id, "bos": self.bos_id, "pad": self.pad_id}
        return transformers.PreTrainedTokenizerFast(
            tokenizer_object=tokenizers.Tokenizer.from_str(self._backend.to_str()),
            chat_template=self.chat_template,
            add_bos_token=self.bos_id is not None,
            clean_up_tokenization_spaces=False,
            **{
                f"{name}_token": self._backend.id_to_token(i)
                for name, i in ids.items()
                if i is not None
            },
        )


def _is_byte_level(backend: tokenizers.Tokenizer) -> bool:
    """Return whether pieces are byte stand-ins (True) or SentencePiece (False)."""
    decoder = json.dumps(json.loads(backend.to_str())["decoder"], ensure_ascii=False)
    if '"ByteLevel"' in decoder:
        return True
    if gguf_vocabulary.SPACE in decoder:
        return False
    raise ValueError(
        f"the tokenizer decodes by {decoder}; accepted: ByteLevel, or SentencePiece's "
        "space mark (Metaspace or Replace)"
    )


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Return the tokenizer of a model.

    Args:
      path: a Hugging Face folder, a tokenizer.json, or a GGUF file.
    """
    path = pathlib.Path(path)
    if path.suffix == ".gguf":
        return from_gguf(gguf_vocabulary.read_fields(gguf.GGUFReader(path)))
    folder = path if path.is_dir() else path.parent
    file = folder / "tokenizer.json" if path.is_dir() else path
    if file.is_file():
        return from_hf(tokenizers.Tokenizer.from_file(str(file)), folder)
    # transformers 5 converts tokenizer.model with another order of merges: it splits
    # double spaces in another way than SentencePiece, so that route is not taken.
    raise ValueError(
        f"no tokenizer at {path}; accepted: a folder with tokenizer.json, a "
        "tokenizer.json, or a .gguf file (a tokenizer.model alone is not read: put the "
        "model's tokenizer.json beside it, or use its GGUF file)"
    )


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a GGUF file's metadata."""
    prefix = "tokenizer.ggml."
    bos_id = fields.get(f"{prefix}bos_token_id")
    ends = [fields.get(f"{prefix}{name}_token_id") for name in ("eos", "eot", "eom")]
    return Tokenizer(
        gguf_vocabulary.build(fields),
        bos_id=bos_id if gguf_vocabulary.adds_bos(fields) else None,
        eos_ids=[i for i in ends if i is not None],
        pad_id=fields.get(f"{prefix}padding_token_id"),
        chat_template=fields.get("tokenizer.chat_template"),
        reserved_ids=[] if bos_id is None else [bos_id],
    )


def from_hf(backend: tokenizers.Tokenizer, folder: pathlib.Path) -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder, its JSON files beside it."""
    settings = _read_json(folder / "tokenizer_config.json")
    generation = _read_json(folder / "generation_config.json")

    def named(key: str) -> int | None:
        name = settings.get(key)
        name = name.get("content") if isinstance(name, dict) else name
        return None if name is None else backend.token_to_id(name)

    bare = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a", add_special_tokens=True).ids
    adds_bos = settings.get("add_bos_token")
    if adds_bos is None:
        adds_bos = named("bos_token") in framed[: len(framed) - len(bare)]
    ends = generation.get("eos_token_id")
    ends = ends if isinstance(ends, list) else [ends]
    template = folder / "chat_template.jinja"
    return Tokenizer(
        backend,
        bos_id=named("bos_token") if adds_bos else None,
        eos_ids=[i for i in (named("eos_token"), *ends) if i is not None],
        pad_id=named("pad_token"),
        chat_template=template.read_text("utf-8")
        if template.is_file()
        else settings.get("chat_template"),
        reserved_ids=[i for i in (named("bos_token"),) if i is not None],
    )


def _read_json(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}; restore the file") from error


def byte_tokenizer(vocab_size: int = 259) -> Tokenizer:
    """Return a tokenizer whose tokens are the 256 bytes, for tests and tiny models.

    Ids 0 to 255 are the bytes, then come <pad>, <bos> and <eos>; ids up to
    ``vocab_size`` are special tokens without a use.
    """
    if vocab_size < 259:
        raise ValueError(f"byte_tokenizer needs 259 ids or more, got {vocab_size}")
    backend = tokenizers.Tokenizer(models.BPE(vocab=byte_alphabet(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    backend.decoder = decoders.ByteLevel()
    names = ["<pad>", "<bos>", "<eos>"]
    names += [f"<extra_{i}>" for i in range(vocab_size - 259)]
    backend.add_special_tokens(
        [tokenizers.AddedToken(name, special=True, normalized=False) for name in names]
    )
    return Tokenizer(
        backend,
        pad_id=256,
        bos_id=257,
        eos_ids=[258],
        chat_template=BYTE_CHAT_TEMPLATE,
    )
