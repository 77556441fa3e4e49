"""The tokenizer files of a Hugging Face folder, read as transformers reads them.

Which tokens a folder adds and names is spread over five files with rules of their
own, so transformers itself makes the fast tokenizer; what it would say only by a trace,
or not at all, is checked here. tokenizer.json is what counts: how a text is split and
which tokens stand in front of it.

transformers 5 builds some classes anew from the vocabulary alone, with rules of the
class in place of the file's: `LlamaTokenizer` writes one space piece fewer in front
of leading spaces, and none after a special token; `GPT2Tokenizer`, which SmolLM2
names, no longer takes digits apart. The file's rules are kept here. They are those that
the models were trained with: SentencePiece itself and the GGUF files have the same.
"""

from __future__ import annotations

import json
import pathlib
import typing
from collections.abc import Mapping
from typing import Any

import tokenizers

from rlcd_jax import fetched
from rlcd_jax.text import backends, setting_files

if typing.TYPE_CHECKING:  # it takes half a second: imported where it is called
    import transformers

# Classes that put a BOS in front of a text unless a setting says otherwise.
BOS_CLASSES = ("LlamaTokenizer", "CodeLlamaTokenizer")
TRAINED = ("bos_token", "eos_token", "unk_token")  # what a model was trained with
MAX_GROWTH = 10_000  # times that a normalizer or decoder may lengthen a character
BYTE_SPACE = "\u0120"  # how a byte-level vocabulary writes a space
TEMPLATE_FILE = "chat_template.json"  # of processors; tokenizers have a .jinja file


def read_folder(folder: pathlib.Path) -> backends.Vocabulary:
    """Return what a folder with a tokenizer.json says.

    Raises:
      ValueError: a file is damaged, or two of them contradict each other.
    """
    setting_files.check_links(folder)
    raw = fetched.read_object(folder / "tokenizer.json")
    for part in ("normalizer", "decoder"):
        _check_growth(raw.get(part), f"the {part} of {folder / 'tokenizer.json'}")
    settings = fetched.read_optional(folder / "tokenizer_config.json")
    # Refused here if damaged; transformers uses it.
    fetched.read_optional(folder / "special_tokens_map.json")
    fetched.read_optional(folder / "added_tokens.json")
    wrapped = _wrap(folder)
    backend = backends.plain(wrapped.backend_tokenizer)
    _check_added(raw, backend, folder / "tokenizer.json")
    named = {k: str(v) for k, v in wrapped.special_tokens_map.items() if v}
    _check_named(raw, named, folder)
    names = {k: v for k, v in named.items() if backend.token_to_id(v) is not None}
    bos_id = _bos(backend, folder / "tokenizer.json")
    _check_bos(bos_id, settings, backend, folder)
    _check_space(settings, backend, folder)
    _check_table(backend, raw, folder)
    ids = {name: backend.token_to_id(token) for name, token in names.items()}
    ends = [ids.get("eos_token"), *_generation_ends(folder, backend.get_vocab_size())]
    return backends.Vocabulary(
        backend=backend,
        bos_id=bos_id,
        eos_ids=tuple(i for i in ends if i is not None),
        pad_id=ids.get("pad_token"),
        names=names,
        chat_template=_template(wrapped.chat_template, settings, folder),
    )


def write_folder(
    folder: pathlib.Path,
    backend: tokenizers.Tokenizer,
    *,
    names: Mapping[str, str],
    adds_bos: bool,
    chat_template: str | None,
) -> None:
    """Write tokenizer.json and tokenizer_config.json as transformers reads them."""
    import transformers

    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(backend.to_str()),
        chat_template=chat_template,
        add_bos_token=adds_bos,
        clean_up_tokenization_spaces=False,
        **names,
    ).save_pretrained(str(folder))
    # transformers 4 does not know the class that transformers 5 writes here.
    path = folder / "tokenizer_config.json"
    known = {"tokenizer_class": "PreTrainedTokenizerFast"}
    settings = fetched.read_object(path) | known
    path.write_text(json.dumps(settings, indent=2, ensure_ascii=False), "utf-8")


def _wrap(folder: pathlib.Path) -> transformers.PreTrainedTokenizerFast:
    """Return transformers' own tokenizer of a folder, whatever class it names."""
    import transformers

    try:
        return transformers.PreTrainedTokenizerFast.from_pretrained(
            str(folder), local_files_only=True
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in tokenizers is no Exception
        raise ValueError(
            f"the tokenizer.json of {folder}, with the settings in the JSON files "
            f"beside it, makes no tokenizer: {type(error).__name__}: "
            f"{fetched.show(str(error))}; fetch the tokenizer's files again"
        ) from error


def _check_growth(part: Any, where: str) -> None:
    """Refuse rules that make a long text of each character, one upon the other."""
    growth, waiting = 1, [part]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting += [
                value for value in one.values() if isinstance(value, dict | list)
            ]
            for name in ("content", "prepend"):
                if isinstance(text := one.get(name), str):
                    growth *= max(1, len(text))
        elif isinstance(one, list):
            waiting += one
        if growth > MAX_GROWTH:
            raise ValueError(
                f"{where} can make more than {MAX_GROWTH} characters of one, which no "
                "tokenizer does; fetch the file again"
            )


def _check_added(
    raw: Mapping[str, Any], backend: tokenizers.Tokenizer, path: pathlib.Path
) -> None:
    """Refuse added tokens that get another id than the file says."""
    for token in raw.get("added_tokens") or ():
        token_id = backend.token_to_id(token["content"])
        if token_id != token["id"]:
            raise ValueError(
                f"{path} gives the added token {token['content']!r} the id "
                f"{token['id']}, but with its vocabulary it has the id {token_id}; the "
                "file was changed by hand: fetch it again"
            )


def _check_named(
    raw: Mapping[str, Any], named: Mapping[str, str], folder: pathlib.Path
) -> None:
    """Refuse a BOS, EOS or unknown token that tokenizer.json does not have.

    transformers appends a token for each name that it does not know. Of a padding token
    that is what is meant; a model that never saw its own EOS is one of a damaged name.
    """
    model = raw.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    known = {token["content"] for token in raw.get("added_tokens") or ()}
    known |= {one[0] for one in vocab} if isinstance(vocab, list) else set(vocab or ())
    for name in TRAINED:
        if name in named and named[name] not in known:
            raise ValueError(
                f"the settings beside the tokenizer.json of {folder} name the {name} "
                f"{fetched.show(named[name])}, which tokenizer.json does not have; "
                "restore the settings"
            )


def _bos(backend: tokenizers.Tokenizer, path: pathlib.Path) -> int | None:
    """Return the id that the post-processor puts in front of a text."""
    processor = backend.post_processor
    if processor is None:
        return None
    try:
        before, after = frame(json.loads(processor.__getstate__()))
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"the post_processor of {path} is damaged ({type(error).__name__}: "
            f"{error}); fetch the file again"
        ) from error
    strange = [i for i in before if backend.id_to_token(i) is None]
    if strange or len(before) > 1:
        raise ValueError(
            f"the post_processor of {path} puts the ids {before} in front of each "
            f"text; accepted: one id of the vocabulary ({backend.get_vocab_size()} "
            "ids), or none"
        )
    bare, framed = (
        backend.encode("a", add_special_tokens=a).ids for a in (False, True)
    )
    if framed != [*before, *bare, *after]:
        raise ValueError(
            f"the post_processor of {path} says {before} before a text and {after} "
            f"after it, but tokenizers {tokenizers.__version__} makes {framed} of "
            f"{bare}; write it as one TemplateProcessing"
        )
    return before[0] if before else None


def frame(processor: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Return the ids that a post-processor puts before and after a single text.

    Args:
      processor: the post-processor as tokenizer.json states it.

    Raises:
      ValueError: its kind is not known.
    """
    kind = processor["type"]
    if kind == "ByteLevel":  # it moves offsets and adds no token
        return [], []
    if kind in ("BertProcessing", "RobertaProcessing"):
        return [processor["cls"][1]], [processor["sep"][1]]
    if kind == "Sequence":
        frames = [frame(inner) for inner in processor["processors"]]
        framing = [sides for sides in frames if any(sides)]
        if len(framing) > 1:  # the second one takes what the first adds for a text
            raise ValueError(
                "tokenizer.json has a Sequence of several post_processors that add "
                "tokens; accepted: one that does"
            )
        return framing[0] if framing else ([], [])
    if kind != "TemplateProcessing":
        raise ValueError(
            f"tokenizer.json has a post_processor of kind {kind!r}; accepted: "
            "TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel and "
            "Sequence of them"
        )
    sides: tuple[list[int], list[int]] = ([], [])
    texts = 0
    for piece in processor["single"]:
        if "Sequence" in piece:
            texts += 1
        else:
            token = processor["special_tokens"][piece["SpecialToken"]["id"]]
            sides[min(texts, 1)].extend(token["ids"])
    if texts != 1:
        raise ValueError(
            f"tokenizer.json has a post_processor that writes a text {texts} times; "
            "accepted: once"
        )
    return sides


def _check_bos(
    bos_id: int | None,
    settings: Mapping[str, Any],
    backend: tokenizers.Tokenizer,
    folder: pathlib.Path,
) -> None:
    """Refuse a folder whose settings and post-processor differ about the BOS.

    transformers 4 followed the settings in some classes, transformers 5 follows the
    post-processor: nobody knows which of the two the model was trained with.
    """
    declared = settings.get("add_bos_token")
    if not isinstance(declared, bool | None):
        raise ValueError(
            f"{folder}: add_bos_token in tokenizer_config.json is "
            f"{fetched.show(declared)}; accepted: true or false"
        )
    kind = str(settings.get("tokenizer_class")).removesuffix("Fast")
    source = f"add_bos_token is {declared}"
    if declared is None and kind in BOS_CLASSES and not backends.is_byte_level(backend):
        declared, source = True, f"{kind} adds one unless add_bos_token is false"
    if declared is None or bool(declared) == (bos_id is not None):
        return
    added = "no token" if bos_id is None else repr(backend.id_to_token(bos_id))
    raise ValueError(
        f"{folder}: tokenizer_config.json and tokenizer.json differ about a BOS in "
        f"front of each text: {source}, but the post_processor of tokenizer.json puts "
        f"{added} there; set add_bos_token in tokenizer_config.json to "
        f"{str(bos_id is not None).lower()} to follow tokenizer.json, or give "
        "tokenizer.json the post_processor that the model was trained with"
    )


def _check_space(
    settings: Mapping[str, Any], backend: tokenizers.Tokenizer, folder: pathlib.Path
) -> None:
    """Refuse a folder whose settings and tokenizer.json differ about a first space.

    Some classes of transformers follow the setting and some the file, so the ids of
    each text would depend on who reads the folder.
    """
    declared = settings.get("add_prefix_space")
    if declared is None:
        return
    if not isinstance(declared, bool):
        raise ValueError(
            f"{folder}: add_prefix_space in tokenizer_config.json is "
            f"{fetched.show(declared)}; accepted: true or false"
        )
    bare = backend.encode("a", add_special_tokens=False).tokens
    adds = bool(bare) and bare[0].startswith((backends.SPACE, BYTE_SPACE))
    if adds != declared:
        raise ValueError(
            f"{folder}: tokenizer_config.json and tokenizer.json differ about a space "
            f"in front of each text: add_prefix_space is {declared}, and "
            f"tokenizer.json makes {bare} of 'a'; set add_prefix_space to "
            f"{str(adds).lower()} to follow tokenizer.json, or give tokenizer.json the "
            "rules that the model was trained with"
        )


def _check_table(
    backend: tokenizers.Tokenizer, raw: Mapping[str, Any], folder: pathlib.Path
) -> None:
    """Refuse more ids than the model beside the tokenizer has rows."""
    rows = fetched.read_optional(folder / "config.json").get("vocab_size")
    count = backend.get_vocab_size()
    if not isinstance(rows, int) or count <= rows:
        return
    known = {token["content"] for token in raw.get("added_tokens") or ()}
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    new = [content for content in added if content not in known]
    blame = f"; the settings beside it add {', '.join(map(repr, new))}" if new else ""
    raise ValueError(
        f"the tokenizer of {folder} has {count} ids, but vocab_size in its config.json "
        f"is {rows}{blame}; take the tokenizer files that belong to the weights, or "
        "remove tokens that the model has no row for"
    )


def _generation_ends(folder: pathlib.Path, count: int) -> list[int]:
    """Return the ids at which generation_config.json stops."""
    path = folder / "generation_config.json"
    ends = fetched.read_optional(path).get("eos_token_id")
    ends = ends if isinstance(ends, list) else [] if ends is None else [ends]
    wrong = [i for i in ends if type(i) is not int or not 0 <= i < count]
    if wrong:
        raise ValueError(
            f"{path} has the eos_token_id {fetched.show(wrong[0])}; accepted: "
            f"ids of the tokenizer, 0 to {count - 1}, one or a list"
        )
    return ends


def _template(
    template: Any, settings: Mapping[str, Any], folder: pathlib.Path
) -> str | None:
    """Return the template that a conversation without tools is written by.

    Args:
      template: as transformers has it: a text, several by name, or None.
      settings: of tokenizer_config.json, with several as a list of {name, template}.
      folder: of the files.
    """
    listed = settings.get("chat_template")
    if isinstance(listed, list):
        names = [str(one.get("name")) for one in listed if isinstance(one, dict)]
        double = [name for name in names if names.count(name) > 1]
        if double:
            raise ValueError(
                f"{folder} has two chat templates named {double[0]!r}; keep the right "
                "one"
            )
    if template is None:
        file = folder / TEMPLATE_FILE
        template = fetched.read_optional(file).get("chat_template")
    if isinstance(template, dict):
        if "default" not in template:
            raise ValueError(
                f"{folder} has chat templates named {sorted(template)} and none named "
                "'default'; name the one for conversations 'default'"
            )
        template = template["default"]
    if template is not None and not isinstance(template, str):
        raise ValueError(
            f"chat_template of {folder} must be a text or a list of "
            f"{{name, template}}, got {fetched.show(template)}"
        )
    return template
