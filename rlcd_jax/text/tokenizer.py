"""One tokenizer for all models: ids and text, exact bytes, chat templates.

It wraps a fast tokenizer (`tokenizers`), whatever file that came from, and settles
what differs between models: which id ends a text, whether a BOS is put in front, and
an id for padding that never ends a text.
"""

from __future__ import annotations

import copy
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from rlcd_jax import records
from rlcd_jax.text import backends, chat_templates, gguf_vocabulary, tokenizer_files

# Special tokens that end a text or a turn, in the models of this family.
END_TOKENS = (
    "</s>",
    "<|endoftext|>",
    "<|im_end|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
)
FILE = "tokenizer.json"
CHAT_ROLES = {"human": "user", "assistant": "assistant"}


class Tokenizer:
    """Text to token ids and back.

    Attributes:
      vocab_size: number of ids, special ones included; a model's table may be larger.
      bos_id: id put in front of every text, or None for a model trained without one.
      eos_id: id that is put at the end of a text.
      eos_ids: all ids that end a text or a turn, the one with which the chat template
        closes an assistant's turn among them; `eos_id` is the first.
      pad_id: an id that fills unused places. It is never in `eos_ids`: a vocabulary
        without such a padding token lends its unknown token, else an unused special
        token, else id 0 or the first that ends nothing. Masks come from lengths, never
        from ids, so any of them does.
      special_ids: ids that `decode` leaves out.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        eos_ids: Sequence[int],
        bos_id: int | None = None,
        pad_id: int | None = None,
        chat_template: str | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap a fast tokenizer.

        Args:
          backend: the fast tokenizer. What it may have kept of somebody's training is
            turned off: truncation, padding, dropout of merges, and reading special
            tokens as plain text.
          eos_ids: ids that end a text; the first is appended to texts.
          bos_id: id in front of every text, or None.
          pad_id: the vocabulary's padding id if it has one.
          chat_template: Jinja template of conversations, or None.
          names: special tokens by the names that the template knows them by, such as
            "bos_token"; padding borrows none of them.

        Raises:
          ValueError: ids are missing or given twice, or nothing ends a text.
        """
        self._backend = backends.plain(backend)
        self.vocab_size = backends.count_ids(backend)
        self._reader: tokenizers.Tokenizer | None = None  # of `encode_batch`
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
        self._names = self._all_names(names or {})
        self._turn_end, self._turn_trouble = self._find_turn_end()
        if self._turn_end is not None:
            ends = (*self.eos_ids, backend.token_to_id(self._turn_end))
            self.eos_ids = tuple(dict.fromkeys(ends))
        free = ("unk_token", "pad_token")
        named = {v for k, v in self._names.items() if k not in free}
        taken = {bos_id, *self.eos_ids, *map(backend.token_to_id, named)}
        self.pad_id = backends.padding(backend, pad_id, taken)
        self._bytes: dict[int, bytes] = {}
        self._alphabet = (
            backends.byte_alphabet() if backends.is_byte_level(backend) else None
        )
        probe = self._backend.encode("a", add_special_tokens=False).ids
        self._adds_space = self.token_bytes(probe[0])[:1] == b" " if probe else False

    def _ends_by_name(self) -> list[int]:
        ids = (self._backend.token_to_id(name) for name in END_TOKENS)
        return [i for i in ids if i in self.special_ids]

    def _all_names(self, named: Mapping[str, str]) -> dict[str, str]:
        """Return the names for templates, with BOS and EOS where none is named."""
        known = {"eos_token": self._backend.id_to_token(self.eos_id)}
        if self.bos_id is not None:
            known["bos_token"] = self._backend.id_to_token(self.bos_id)
        return known | dict(named)

    def _find_turn_end(self) -> tuple[str | None, str]:
        """Return the token that closes an assistant's turn, or why there is none."""
        if self.chat_template is None:
            return None, "this tokenizer has no chat template; use the dialogue format"
        try:
            token = chat_templates.closing_token(
                self.chat_template,
                self._names,
                tokens=[text for i, text in self._added.items() if i != self.bos_id],
                ends=[self._added[i] for i in self.eos_ids if i in self._added],
            )
        except ValueError as error:
            return None, str(error)
        return token, ""

    @property
    def template_closes_turns(self) -> bool:
        """Whether the chat template closes an assistant's turn with a token."""
        return self._turn_end is not None

    @property
    def end_of_turn(self) -> str:
        """The text of the token with which the chat template closes a reply.

        It is the first token that the template writes after an assistant's turn; white
        space before it, as LLaMA 2 has, is left out, and what follows too. A template
        that closes a turn with plain text or with nothing gets the EOS.

        Raises:
          ValueError: there is no template, it cannot be rendered with an assistant's
            turn, or it closes a turn with more than a token.
        """
        if self._turn_trouble:
            raise ValueError(self._turn_trouble)
        return self._turn_end or self._backend.id_to_token(self.eos_id)

    @functools.cached_property
    def reply_opening(self) -> str:
        """The blanks that the chat template writes before the words of a reply."""
        if self.chat_template is None:
            return ""
        return chat_templates.reply_opening(self.chat_template, self._names)

    def encode(self, text: str, bos: bool = True) -> list[int]:
        """Return the ids of a text.

        Special tokens that are written out in the text become their ids.

        Args:
          text: any text.
          bos: put `bos_id` in front, if the model has one and the text does not
            already start with it (chat templates may write it).
        """
        ids = self._backend.encode(text, add_special_tokens=False).ids
        return self.with_bos(ids) if bos else ids

    def with_bos(self, ids: list[int]) -> list[int]:
        """Return ids with `bos_id` in front, if there is one and it is not there."""
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
        `bos_id`; a continuation keeps its leading space.
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
        return backends.spell(piece, self._alphabet)

    def continuation_ids(self, prefix: str, word: str) -> list[int]:
        """Return the ids of `word` as it is tokenised directly after `prefix`.

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

    def chat(
        self,
        turns: Sequence[records.Turn],
        system: str | None = None,
        begun: str = "",
    ) -> str:
        """Return a conversation in the model's own chat format.

        Args:
          turns: the turns; when the last is the human's, the text ends where the
            assistant's reply begins.
          system: text of the system message; None leaves it to the template.
          begun: the first words of the assistant's reply, as the template opens it.

        Raises:
          ValueError: there is no template, or it refuses, changes or leaves out one of
            the messages.
        """
        if self.chat_template is None:
            raise ValueError(
                "this tokenizer has no chat template; use a task in the dialogue "
                "format, or a model whose files carry a template"
            )
        messages = [] if system is None else [{"role": "system", "content": system}]
        messages += [{"role": CHAT_ROLES[t.role], "content": t.text} for t in turns]
        ask = bool(turns) and turns[-1].role == "human"
        text = chat_templates.render(self.chat_template, messages, self._names, ask=ask)
        chat_templates.check_complete(text, messages)
        return text + self.reply_opening + begun if begun else text

    def is_like(self, other: Tokenizer) -> bool:
        """Whether another tokenizer gives every text the same ids, by its rules."""
        same_rules = self._backend.to_str() == other._backend.to_str()
        ends = self.bos_id == other.bos_id and self.eos_ids == other.eos_ids
        return same_rules and ends

    def parts(self) -> backends.Vocabulary:
        """Return what a tokenizer is made of, the names of all its tokens included."""
        return backends.Vocabulary(
            backend=self._backend,
            bos_id=self.bos_id,
            eos_ids=self.eos_ids,
            pad_id=self.pad_id,
            names=dict(self._names),
            chat_template=self.chat_template,
        )

    def save(self, folder: str | pathlib.Path) -> None:
        """Write tokenizer.json and tokenizer_config.json as transformers reads them.

        A piece of texts that is lent for padding is not named: what is named is special
        for who reads it, and left out of texts.
        """
        ids = {"eos": self.eos_id, "bos": self.bos_id}
        added = self._backend.get_added_tokens_decoder()
        if self.pad_id in added and added[self.pad_id].special:
            ids["pad"] = self.pad_id
        named = {
            f"{name}_token": self._backend.id_to_token(i)
            for name, i in ids.items()
            if i is not None
        }
        tokenizer_files.write_folder(
            pathlib.Path(folder),
            self._backend,
            names=self._names | named,
            adds_bos=self.bos_id is not None,
            chat_template=self.chat_template,
        )


def load_tokenizer(path: str | pathlib.Path) -> Tokenizer:
    """Return the tokenizer of a model.

    Its `encode` gives the ids that transformers gives by the folder's tokenizer.json,
    with two differences: a text that begins with the BOS gets no second one, and no EOS
    is put at the end, whatever `add_eos_token` says, since texts are prompts.

    Args:
      path: a Hugging Face folder, its tokenizer.json, or a GGUF file.

    Raises:
      ValueError: there is no tokenizer, a file is damaged, or the files leave open
        which ids a text has; the message names the file.
    """
    path = pathlib.Path(path)
    if path.suffix == ".gguf":
        fields = gguf_vocabulary.read_file(path)
        try:
            return from_gguf(fields)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    folder = path if path.is_dir() else path.parent
    if (folder / FILE).is_file() and (path.is_dir() or path.name == FILE):
        return from_hf(folder)
    # transformers 5 converts tokenizer.model with another order of merges: it splits
    # double spaces in another way than SentencePiece, so that route is not taken.
    raise ValueError(
        f"no tokenizer at {path}; accepted: a folder with {FILE}, a "
        f"{FILE}, or a .gguf file (a tokenizer.model alone is not read: put the "
        f"model's {FILE} beside it, or use its GGUF file)"
    )


def from_gguf(fields: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer of a GGUF file's metadata."""
    return Tokenizer(**vars(gguf_vocabulary.read_vocabulary(fields)))


def from_hf(folder: pathlib.Path) -> Tokenizer:
    """Return the tokenizer of a Hugging Face folder with a tokenizer.json."""
    read = tokenizer_files.read_folder(folder)
    try:
        return Tokenizer(**vars(read))
    except ValueError as error:
        raise ValueError(f"{folder / FILE}: {error}") from error
