"""Tests of the tokenizers of Hugging Face folders: ids, names, templates, damage."""

import functools
import json

import pytest
import sentencepiece
import tokenizer_families as families
import tokenizers
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from sentencepiece import sentencepiece_model_pb2
from tokenizers import models, pre_tokenizers, processors

from rlcd_jax import records
from rlcd_jax.text import backends
from rlcd_jax.text import tokenizer as tk

TEXTS = (
    "Human: Could you tell me, in 2019 or 123456?\n\nAssistant: Of course, we've!",
    "caf\u00e9 \u4eba \U0001f642  two  spaces\t\n",
    "",
    "a",
)
# Where transformers 5 builds a class anew, these get ids by another rule.
MORE_TEXTS = (
    " one",
    "   three spaces",
    "one</s> two <unk>three",
    "to  12\n\n3",
    "</s>\n",
)


def reference(folder, auto=False):
    """Return transformers' own tokenizer: by the file, or by the class that it names."""
    kind = transformers.AutoTokenizer if auto else transformers.PreTrainedTokenizerFast
    return kind.from_pretrained(str(folder))


def check_like_transformers(folder):
    """Compare ids with transformers'; both may have a BOS, only theirs has an EOS."""
    ours = tk.load_tokenizer(folder)
    by_file, by_class = reference(folder), reference(folder, auto=True)
    for text in TEXTS + MORE_TEXTS:
        found = ours.encode(text)
        plain = by_file.encode(text, add_special_tokens=False)
        right = by_file.encode(text)
        assert found == right[: len(found)], text
        assert len(right) - len(found) <= 1
        assert found[len(found) - len(plain) :] == plain
        if text in TEXTS:
            assert by_class.encode(text) == right
    return ours


@pytest.mark.parametrize(
    "name", [name for name in families.FAMILIES if not name.endswith("gguf")]
)
def test_every_family_has_the_ids_of_transformers(name, tmp_path):
    one = check_like_transformers(families.write(name, tmp_path))
    for text in TEXTS:
        assert one.decode(one.encode(text)) == text


@pytest.mark.parametrize("name", ["tinyllama", "smollm2"])
def test_folder_and_gguf_of_a_family_agree(name, tmp_path):
    one = tk.load_tokenizer(families.write(name, tmp_path / "folder"))
    two = tk.load_tokenizer(families.write(f"{name}_gguf", tmp_path / "gguf"))
    for text in TEXTS + MORE_TEXTS:
        assert one.encode(text) == two.encode(text)
    for field in ("bos_id", "eos_ids", "pad_id", "vocab_size", "end_of_turn"):
        assert getattr(one, field) == getattr(two, field), field
    turns = [records.Turn("human", "Hi"), records.Turn("assistant", "Oh")]
    assert one.chat(turns) == two.chat(turns)


@functools.cache
def reference_sentence_piece():
    """Return Google's own SentencePiece with TinyLlama's pieces and scores."""
    fields = families.tinyllama_fields()
    model = sentencepiece_model_pb2.ModelProto()
    columns = [
        fields[f"tokenizer.ggml.{c}"] for c in ("tokens", "scores", "token_type")
    ]
    for piece, score, kind in zip(*columns, strict=True):
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    return sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())


@functools.cache
def from_tinyllama_fields():
    return tk.from_gguf(families.tinyllama_fields())


@settings(deadline=None, max_examples=150)
@given(st.lists(st.sampled_from([*"aehtoi \n.\u00e9\u2603", " the", "  ", "assist"])))
def test_sentence_piece_has_the_ids_of_the_reference(parts):
    text = "".join(parts)
    one = from_tinyllama_fields()
    assert one.encode(text, bos=False) == reference_sentence_piece().encode(text)
    assert one.decode(one.encode(text)) == text


def test_leading_spaces_are_those_of_sentence_piece(tmp_path):
    # transformers 5 takes the class's rule here, which gives one space piece fewer.
    one = tk.load_tokenizer(families.write("llama2", tmp_path))
    for text in MORE_TEXTS[:2]:
        assert one.encode(text, bos=False) == reference_sentence_piece().encode(text)


def sentence_piece(folder, processor=None, files=None, change=None):
    """Write a SentencePiece folder with another post-processor and other settings."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = families.sentence_piece_backend()
    if processor is not None:
        backend.post_processor = processor
    if change is not None:
        change(backend)
    backend.save(str(folder / "tokenizer.json"))
    for name, value in (files or {}).items():
        families.write_json(folder / f"{name}.json", value)
    return folder


def template(single, *ids):
    return processors.TemplateProcessing(single=single, special_tokens=list(ids))


BOS, EOS = ("<s>", 1), ("</s>", 2)
PROCESSORS = {
    "bos": template("<s>:0 $A:0", BOS),
    "bos and eos": template("<s>:0 $A:0 </s>:0", BOS, EOS),
    "nothing": template("$A:0"),
    "eos": template("$A:0 </s>:0", EOS),
    "bert": processors.BertProcessing(EOS, BOS),
    "roberta": processors.RobertaProcessing(EOS, BOS),
    "sequence": processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template("<s>:0 $A:0", BOS)]
    ),
}
NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
EMPTY = dict.fromkeys(NAMES, "")
NONE = dict.fromkeys(NAMES)
AS_DICT = {key: families._as_dict(token) for key, token in NAMES.items()}
FILES = {
    "no settings": {},
    "names": {"tokenizer_config": NAMES},
    "empty names": {"tokenizer_config": EMPTY},
    "no names": {"tokenizer_config": NONE},
    "dictionaries": {"tokenizer_config": AS_DICT},
    "map alone": {"special_tokens_map": NAMES},
    "map of dictionaries": {
        "tokenizer_config": {},
        "special_tokens_map": {
            key: {"content": token, "lstrip": False, "normalized": False}
            for key, token in NAMES.items()
        },
    },
    "empty names and a map": {"tokenizer_config": EMPTY, "special_tokens_map": NAMES},
    "added tokens": {
        "tokenizer_config": NAMES
        | {
            "added_tokens_decoder": {
                "2": {
                    "content": "</s>",
                    "lstrip": True,
                    "rstrip": True,
                    "special": True,
                }
            }
        }
    },
    "a new token": {"tokenizer_config": NAMES | {"pad_token": "<pad>"}},
    "added_tokens.json": {"added_tokens": {"<pad>": 569}},
    "more specials": {
        "tokenizer_config": {"additional_special_tokens": ["<|eot_id|>"]}
    },
    "eos too": {"tokenizer_config": NAMES | {"add_eos_token": True}},
}


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_way_to_name_tokens_has_the_ids_of_transformers(
    processor, files, tmp_path
):
    folder = sentence_piece(tmp_path, PROCESSORS[processor], FILES[files])
    one = check_like_transformers(folder)
    assert one.bos_id == (None if processor in ("nothing", "eos") else 1)
    assert one.eos_id == 2
    assert one.encode("<s>a") == one.encode("a") or one.bos_id is None


@pytest.mark.parametrize("kind", ["LlamaTokenizer", "LlamaTokenizerFast", None])
@pytest.mark.parametrize("adds", [True, False, None])
@pytest.mark.parametrize("processor", ["bos", "nothing"])
def test_settings_and_post_processor_agree_about_bos_or_are_refused(
    processor, adds, kind, tmp_path
):
    chosen = {"tokenizer_class": kind, "add_bos_token": adds}
    chosen = NAMES | {key: value for key, value in chosen.items() if value is not None}
    files = {"tokenizer_config": chosen}
    folder = sentence_piece(tmp_path, PROCESSORS[processor], files)
    said = adds if adds is not None or kind is None else True
    if said in (None, processor == "bos"):
        check_like_transformers(folder)
    else:
        with pytest.raises(ValueError, match="differ about a BOS.*set add_bos_token"):
            tk.load_tokenizer(folder)


@pytest.mark.parametrize("adds", [True, False, None, "no"])
@pytest.mark.parametrize("kind", ["LlamaTokenizer", "PreTrainedTokenizerFast"])
def test_settings_and_file_agree_about_a_first_space_or_are_refused(
    adds, kind, tmp_path
):
    chosen = NAMES | {"tokenizer_class": kind, "add_bos_token": True}
    chosen |= {} if adds is None else {"add_prefix_space": adds}
    files = {"tokenizer_config": chosen}
    folder = sentence_piece(tmp_path, PROCESSORS["bos"], files)
    if adds in (True, None):
        check_like_transformers(folder)
    else:
        with pytest.raises(ValueError, match="add_prefix_space.*(set add_p|accepted)"):
            tk.load_tokenizer(folder)


def test_byte_level_folder_that_calls_itself_llama_has_no_bos_of_its_own(tmp_path):
    folder = families.write("smollm2", tmp_path)
    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    assert check_like_transformers(folder).bos_id is None


@pytest.mark.parametrize(
    "processor, words",
    [
        (template("<s>:0 <unk>:0 $A:0", BOS, ("<unk>", 0)), r"the ids \[1, 0\]"),
        (template("$A:0 $A:0"), "a text 2 times"),
        (
            processors.Sequence(
                [template("$A:0 </s>:0", EOS), template("<s>:0 $A:0", BOS)]
            ),
            "several post_processors that add",
        ),
        (template("<s>:0 $A:0", ("<s>", 2**31)), r"\[2147483648\]"),
    ],
)
def test_strange_post_processors_are_refused(processor, words, tmp_path):
    folder = sentence_piece(tmp_path, processor)
    with pytest.raises(ValueError, match=words):
        tk.load_tokenizer(folder)


def edit(path, *keys, **fields):
    """Change fields of a JSON file, below the given keys."""
    whole = json.loads(path.read_text())
    value = whole
    for key in keys:
        value = value[key]
    value.update(fields)
    families.write_json(path, whole)


@pytest.mark.parametrize(
    "change",
    [
        lambda backend: backend.enable_truncation(5),
        lambda backend: backend.enable_truncation(5, stride=2, direction="left"),
        lambda backend: backend.enable_padding(length=99, pad_id=0, pad_token="<unk>"),
        lambda backend: backend.enable_padding(direction="left", pad_to_multiple_of=64),
    ],
)
def test_saved_truncation_and_padding_are_off(change, tmp_path):
    plain = tk.load_tokenizer(sentence_piece(tmp_path / "plain"))
    saved = tk.load_tokenizer(sentence_piece(tmp_path / "saved", change=change))
    assert [saved.encode(t) for t in TEXTS] == [plain.encode(t) for t in TEXTS]
    saved.save(tmp_path / "again")
    raw = json.loads((tmp_path / "again" / "tokenizer.json").read_text())
    assert raw["truncation"] is raw["padding"] is None


def test_saved_dropout_and_split_special_tokens_are_off(tmp_path):
    plain = tk.load_tokenizer(sentence_piece(tmp_path / "plain"))
    files = {"tokenizer_config": {"split_special_tokens": True}}
    folder = sentence_piece(tmp_path / "saved", files=files)
    edit(folder / "tokenizer.json", "model", dropout=0.5)
    saved = tk.load_tokenizer(folder)
    for text in TEXTS + MORE_TEXTS:
        assert saved.encode(text) == plain.encode(text)


TURNS = [records.Turn("human", "Hi there"), records.Turn("assistant", "Oh, hello!")]
ASKED = [*TURNS, records.Turn("human", "Bye.")]
BOTH = "{% if m.role == 'user' %}U: {{ m.content }}\n{% else %}A: {{ m.content }}"
LOOP = "{% for m in messages %}"
END = "{% endif %}{% endfor %}"
ENDS = {
    "eos": (LOOP + BOTH + "{{ eos_token }}" + END, "</s>"),
    "white space, then eos": (LOOP + BOTH + " </s>\n" + END, "</s>"),
    "another token": (LOOP + BOTH + "<|eot_id|>\n" + END, "<|eot_id|>"),
    "user and assistant alike": (
        LOOP + "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "<|im_end|>",
    ),
    "end_of_turn": (
        LOOP + "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<end_of_turn>\n{% endfor %}",
        "<end_of_turn>",
    ),
    "not after the last turn": (
        LOOP + BOTH + "{% if not loop.last %}</s>{% endif %}" + END,
        "</s>",
    ),
    "text alone": (LOOP + BOTH + "\n###\n" + END, "</s>"),
    "nothing": (LOOP + BOTH + END, "</s>"),
    "no end, but the next turn's mark": (
        LOOP + "<|im_start|>{{ m.role }}: {{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant: {% endif %}",
        "</s>",
    ),
    "no system message": (
        "{% if messages[0].role == 'system' %}{{ raise_exception('none!') }}{% endif %}"
        + LOOP
        + BOTH
        + "<|eot_id|>"
        + END,
        "<|eot_id|>",
    ),
    "a system message is due": (
        "{% if messages[0].role != 'system' %}{{ raise_exception('due!') }}{% endif %}"
        + LOOP
        + BOTH
        + "<|eot_id|>"
        + END,
        "<|eot_id|>",
    ),
    "the user has the last word": (
        "{% if messages[-1].role != 'user' %}{{ raise_exception('no!') }}{% endif %}"
        + LOOP
        + BOTH
        + "</s>"
        + END,
        "</s>",
    ),
    "a list of templates": (
        [
            {"name": "rag", "template": "no"},
            {"name": "default", "template": LOOP + BOTH + "<|eot_id|>" + END},
        ],
        "<|eot_id|>",
    ),
}
MARKS = ("<|eot_id|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>")


def with_template(folder, chat_template, **more):
    config = NAMES | {"additional_special_tokens": list(MARKS)} | more
    if chat_template is not None:
        config["chat_template"] = chat_template
    return sentence_piece(folder, files={"tokenizer_config": config})


@pytest.mark.parametrize("name", ENDS)
def test_end_of_turn_is_what_the_template_writes(name, tmp_path):
    chat_template, right = ENDS[name]
    one = tk.load_tokenizer(with_template(tmp_path, chat_template))
    assert one.end_of_turn == right
    assert one.encode(right, bos=False)[-1] in one.eos_ids
    assert one.template_closes_turns == (
        right in ("</s>",) + MARKS
        and name not in ("text alone", "nothing", "no end, but the next turn's mark")
    )
    assert one.pad_id not in one.eos_ids


def test_end_of_turn_of_each_family(tmp_path):
    right = {
        "llama2": "</s>",
        "tinyllama": "</s>",
        "codellama": "</s>",
        "llama3_chat": "<|eot_id|>",
        "smollm2": "<|im_end|>",
        "tinyllama_gguf": "</s>",
        "smollm2_gguf": "<|im_end|>",
    }
    for name, mark in right.items():
        one = tk.load_tokenizer(families.write(name, tmp_path / name))
        assert one.end_of_turn == mark, name
        assert one.template_closes_turns


def test_what_opens_a_reply_is_what_the_template_writes(tmp_path):
    turns = [records.Turn("human", "Hi")]
    right = {"llama2": " ", "codellama": " ", "tinyllama": "", "smollm2": ""}
    for name, opening in (right | {"llama1": "", "llama3_chat": ""}).items():
        one = tk.load_tokenizer(families.write(name, tmp_path / name))
        assert one.reply_opening == opening, name
        if one.chat_template is not None:
            whole = one.chat([*turns, records.Turn("assistant", "Fine.")])
            assert whole.startswith(one.chat(turns) + opening + "Fine.")
            assert one.chat(turns, None, "1.") == one.chat(turns) + opening + "1."
    for number, chat_template in enumerate(
        ("{% if %}", "{{ messages[0].content }}", LOOP + "{{ 'x' }}" + END)
    ):
        one = tk.load_tokenizer(with_template(tmp_path / str(number), chat_template))
        assert one.reply_opening == ""


def test_end_of_turn_needs_the_template_to_take_a_reply(tmp_path):
    for number, (chat_template, words) in enumerate(
        (
            ("{{ raise_exception('never') }}", "fails on turns.*never"),
            ("{% if %}", "fails on turns.*TemplateSyntaxError"),
            ("{{ messages[0].content }}", "does not write an assistant's turn"),
            (LOOP + BOTH + " [END]</s>" + END, r"'\[END\]' before '</s>'"),
            (None, "no chat template"),
        )
    ):
        one = tk.load_tokenizer(with_template(tmp_path / str(number), chat_template))
        with pytest.raises(ValueError, match=words):
            _ = one.end_of_turn
        assert one.encode("a")  # the dialogue format needs no template


@pytest.mark.parametrize(
    "name", ["llama2", "tinyllama", "codellama", "llama3_chat", "smollm2"]
)
def test_chat_is_what_transformers_writes(name, tmp_path):
    folder = families.write(name, tmp_path)
    one, right = tk.load_tokenizer(folder), reference(folder)
    roles = {"human": "user", "assistant": "assistant"}
    for turns in (TURNS, ASKED):
        for system in (None, "Be kind."):
            messages = [{"role": roles[t.role], "content": t.text} for t in turns]
            if system:
                messages.insert(0, {"role": "system", "content": system})
            text = right.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=turns is ASKED
            )
            assert one.chat(turns, system) == text
            ids = right.encode(text, add_special_tokens=False)
            if one.bos_id is None or ids[0] == one.bos_id:
                assert one.encode(text) == ids
            else:
                assert one.encode(text) == [one.bos_id, *ids]


def test_chat_refuses_what_the_template_leaves_out(tmp_path):
    silent = (
        LOOP + "{% if m.role != 'system' %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    one = tk.load_tokenizer(with_template(tmp_path / "a", silent))
    assert one.chat(ASKED) == "Hi there</s>Oh, hello!</s>Bye.</s>"
    with pytest.raises(
        ValueError, match="leaves out or changes a message of role 'sys"
    ):
        one.chat(ASKED, "Be kind.")
    loud = tk.load_tokenizer(
        with_template(tmp_path / "b", ENDS["no system message"][0])
    )
    with pytest.raises(ValueError, match="fails on turns of system, user.*none!"):
        loud.chat(ASKED, "Be kind.")


def test_templates_stand_in_any_of_their_files(tmp_path):
    text = LOOP + BOTH + "<|eot_id|>" + END
    for number, (name, content) in enumerate(
        (
            ("chat_template.jinja", text),
            ("chat_template.json", json.dumps({"chat_template": text})),
        )
    ):
        folder = with_template(tmp_path / str(number), None)
        (folder / name).write_text(content)
        more = folder / "additional_chat_templates"
        more.mkdir()
        if name.endswith("jinja"):
            (more / "rag.jinja").write_text("no")
        assert tk.load_tokenizer(folder).chat_template == text
    for wrong, words in (
        (
            [{"name": "rag", "template": "a"}],
            r"named \['rag'\] and none named 'default'",
        ),
        (7, "must be a text or a list"),
    ):
        folder = with_template(tmp_path / str(wrong)[:3], wrong)
        with pytest.raises(ValueError, match=words):
            tk.load_tokenizer(folder)


def test_saved_folder_is_known_to_transformers_4_and_has_the_same_ids(tmp_path):
    for name in families.FAMILIES:
        one = tk.load_tokenizer(families.write(name, tmp_path / name))
        one.save(tmp_path / "saved" / name)
        again = check_like_transformers(tmp_path / "saved" / name)
        for text in TEXTS + MORE_TEXTS:
            assert again.encode(text) == one.encode(text)
        for field in ("bos_id", "eos_id", "pad_id", "chat_template", "vocab_size"):
            assert getattr(again, field) == getattr(one, field), (name, field)
        path = tmp_path / "saved" / name / "tokenizer_config.json"
        kind = json.loads(path.read_text())["tokenizer_class"]
        assert kind == "PreTrainedTokenizerFast"


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 13\n"
DAMAGE = {
    "a pointer": (POINTER, "a Git LFS pointer"),
    "nothing": ("", "is empty"),
    "a web page": ("<!DOCTYPE html><html></html>", "is a web page"),
    "404": ("404", "holds 404; accepted: a JSON object"),
    "words": ("Entry not found", "starts with 'Entry not found'"),
    "a list": ("[]", "holds a list of 0; accepted: a JSON"),
    "null": ("null", "holds None; accepted: a JSON object"),
    "depth": ("[" * 100_000, "nested too deeply"),
    "depth of objects": ('{"a":' * 100_000, "nested too deeply"),
    "half a file": ('{"version": "1.0", "trunc', "is not JSON"),
    "bytes": (b"\xff\xfe\x00", "is not UTF-8"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer",
        "tokenizer_config",
        "special_tokens_map",
        "added_tokens",
        "generation_config",
        "config",
    ],
)
def test_damaged_files_are_named_with_what_was_found(name, damage, tmp_path):
    content, words = DAMAGE[damage]
    folder = sentence_piece(tmp_path)
    path = folder / f"{name}.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=words) as caught:
        tk.load_tokenizer(folder)
    assert path.name in str(caught.value)


WRONG = {
    "no model": ((), {"model": None}, "makes no tokenizer"),
    "no added tokens": ((), {"added_tokens": None}, "makes no tokenizer"),
    "an unknown kind": (("model",), {"type": "Spell"}, "makes no tokenizer"),
    "an added token without text": ((), {"added_tokens": [{"id": 1}]}, "no tokenizer"),
    "merges of nothing": (("model",), {"merges": ["zz qq"]}, "makes no tokenizer"),
    "an id of 2^31": (("model", "vocab"), {"\u2581the": 2**31}, "2147483648"),
    "an id of 2^40": (("model", "vocab"), {"\u2581the": 2**40}, "makes no tokenizer"),
    "a negative id": (("model", "vocab"), {"\u2581the": -1}, "makes no tokenizer"),
    "an id twice": (("model", "vocab"), {"\u2581the": 300}, "gives the id 300 to"),
    "an added token's id": (("added_tokens", 2), {"id": 5}, "'</s>' the id 5, but"),
    "no decoder": ((), {"decoder": None}, "decodes by null"),
    "no rule": ((), {"post_processor": {"type": "Odd"}}, "makes no tokenizer"),
    "a rule without its tokens": (
        ("post_processor",),
        {"special_tokens": {}},
        "post_processor.*damaged|makes no tokenizer",
    ),
    "a length of 0": (
        (),
        {
            "truncation": {
                "direction": "Right",
                "max_length": 3,
                "strategy": "LongestFirst",
                "stride": 5,
            }
        },
        "makes no tokenizer",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_in_tokenizer_json_are_refused(name, tmp_path):
    keys, fields, words = WRONG[name]
    folder = sentence_piece(tmp_path)
    edit(folder / "tokenizer.json", *keys, **fields)
    with pytest.raises(ValueError, match=words) as caught:
        tk.load_tokenizer(folder)
    assert "tokenizer.json" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        {"bos_token": 7},
        {"added_tokens_decoder": []},
        {"added_tokens_decoder": {"1": "<s>"}},
        {"additional_special_tokens": 3},
        {"padding_side": "top"},
        {"chat_template": [1]},
    ],
)
def test_wrong_values_in_tokenizer_config_are_refused(config, tmp_path):
    folder = sentence_piece(tmp_path, files={"tokenizer_config": NAMES | config})
    with pytest.raises(ValueError, match="the settings in the JSON files beside it"):
        tk.load_tokenizer(folder)


@pytest.mark.parametrize("wrong", [569, -1, "2", 2.0, True, [2, 10**12]])
def test_wrong_ends_of_generation_are_refused(wrong, tmp_path):
    folder = sentence_piece(
        tmp_path, files={"generation_config": {"eos_token_id": wrong}}
    )
    with pytest.raises(ValueError, match="generation_config.json has the eos_token_id"):
        tk.load_tokenizer(folder)


def test_more_ids_than_the_model_has_rows_are_refused(tmp_path):
    rows = {"config": {"vocab_size": 569, "model_type": "llama"}}
    assert (
        tk.load_tokenizer(sentence_piece(tmp_path / "a", files=rows)).vocab_size == 569
    )
    more = rows | {"tokenizer_config": NAMES | {"pad_token": "[PAD]"}}
    with pytest.raises(ValueError, match=r"570 ids.*is 569; .*beside it add '\[PAD\]'"):
        tk.load_tokenizer(sentence_piece(tmp_path / "b", files=more))
    fewer = {"config": {"vocab_size": 500, "model_type": "llama"}}
    with pytest.raises(ValueError, match="569 ids.*is 500; take the tokenizer files"):
        tk.load_tokenizer(sentence_piece(tmp_path / "c", files=fewer))


def test_other_names_than_tokenizer_json_are_refused(tmp_path):
    folder = sentence_piece(tmp_path)
    assert tk.load_tokenizer(folder / "tokenizer.json").bos_id == 1
    with pytest.raises(ValueError, match="no tokenizer at .*other.json"):
        tk.load_tokenizer(folder / "other.json")


def test_pieces_without_stand_ins_stand_for_themselves():
    vocab = backends.byte_alphabet() | {"a b": 256}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    one = tk.Tokenizer(backend, eos_ids=[0])
    assert one.token_bytes(256) == b"a b" == backend.decode([256]).encode()


def test_pieces_that_only_look_like_bytes_stand_for_themselves():
    pieces = [*families.sentence_pieces(), "<0xZZ>"]
    backend = families.sentence_piece_backend()
    backend.model = models.BPE(
        vocab={piece: i for i, piece in enumerate(pieces)},
        merges=[],
        unk_token="<unk>",
        byte_fallback=True,
    )
    one = tk.Tokenizer(backend, eos_ids=[2])
    last = pieces.index("<0xZZ>")
    assert one.token_bytes(last) == b"<0xZZ>" == backend.decode([last]).encode()


def test_a_template_with_the_date_of_today_gives_the_same_ids_every_day(tmp_path):
    dated = (
        "{% if strftime_now is defined %}{{ strftime_now( '%d %b %Y' ) }}{% endif %}"
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}"
    )
    one = tk.load_tokenizer(with_template(tmp_path / "dated", dated))
    turns = [records.Turn("human", "Hello")]
    assert one.chat(turns).startswith("26 Jul 2024[user] Hello")
    assert one.chat_template == dated  # an export has the template as it was

    loose = "{% set form = '%d' %}\n{{ strftime_now(form) }}" + dated
    other = tk.load_tokenizer(with_template(tmp_path / "loose", loose))
    with pytest.raises(ValueError, match="line 2 of the model's chat template"):
        other.chat(turns)
    by_chance = tk.load_tokenizer(
        with_template(tmp_path / "c", "{{ ['a', 'b'] | random }}" + dated)
    )
    with pytest.raises(ValueError, match="has '| random'".replace("|", r"\|")):
        by_chance.chat(turns)


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "chat_template.json",
    ],
)
def test_files_that_are_read_where_they_are_must_be_whole(name, tmp_path):
    path = sentence_piece(tmp_path / "m") / name
    path.unlink(missing_ok=True)
    path.symlink_to(tmp_path / "a blob that was not fetched")
    with pytest.raises(ValueError, match=f"{name} is a link to a file that is not"):
        tk.load_tokenizer(path.parent)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"{name} is no file"):
        tk.load_tokenizer(path.parent)
    path.rmdir()
    if name.endswith(".json"):
        path.write_text('{"a": 1, "b": {"c": 1, "c": 2}}')
        with pytest.raises(ValueError, match=f"{name}: field 'c' is there twice"):
            tk.load_tokenizer(path.parent)


def test_settings_of_two_meanings_are_refused(tmp_path):
    config = NAMES | {"add_bos_token": "no"}
    folder = sentence_piece(tmp_path / "a", files={"tokenizer_config": config})
    with pytest.raises(ValueError, match="add_bos_token .* is 'no'; accepted: true"):
        tk.load_tokenizer(folder)
    named = [{"name": "default", "template": text} for text in ("{{ 1 }}", "{{ 2 }}")]
    with pytest.raises(ValueError, match="two chat templates named 'default'"):
        tk.load_tokenizer(with_template(tmp_path / "b", named))
