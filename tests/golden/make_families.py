"""Make the golden files of the families with torch, independently of rlcd_jax.

    pip install 'rlcd_jax[golden]'
    python tests/golden/make_families.py

Made with torch 2.14.1 (CPU) and transformers 5.24.0. The models are those that
`tests/family_models.py` writes. transformers reads the weights by its own routes, GGUF
included. Texts are encoded by the folder's tokenizer.json as the tokenizers library
reads it: transformers' LlamaTokenizer builds other rules, without the space before a
text that follows a special token. Where a family has a tokenizer.model, SentencePiece
must give plain texts the same ids. Every number is computed in float32. The texts of
the dialogue format are put together here, those of the chat format by
`apply_chat_template`. Where a reply begins is told by the offsets of the fast tokenizer
and checked by decoding.

`families/<name>.npz`, with i of a dialogue in `family_models.DIALOGUES` and k = 0 of
its better reply, 1 of the other:
  prompt_i        the text up to the reply
  prompt_ids_i    its ids
  ids_i_k         of prompt, reply and end mark: what a preference model reads
  num_i_k         how many of them, at the end, are the reply's and its mark's
  logprobs_i_k    of those, nats
  state_i_k       [D] of the last token after the last norm: what the scalar head reads
  template_i_k    ids of the whole conversation by the chat template, to its end
  after_i_k       log-probability of the EOS after the mark of a dialogue, nats
"""

import pathlib
import sys
import tempfile

import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import family_models  # noqa: E402  it lies beside this folder

HERE = pathlib.Path(__file__).parent
EOS = 2  # id of </s>, where replies stand in the dialogue format


def messages_of(turns):
    """Return a conversation as chat templates take it."""
    roles = ("user", "assistant") * len(turns)
    return [
        {"role": role, "content": text}
        for role, text in zip(roles, turns, strict=False)
    ]


def prompt_of(name, tokenizer, turns) -> str:
    """Return the text after which the reply stands."""
    if family_models.FORMATS[name] == "chat":
        return tokenizer.apply_chat_template(
            messages_of(turns), tokenize=False, add_generation_prompt=True
        )
    markers = (family_models.HUMAN, family_models.ASSISTANT) * len(turns)
    text = "".join(f"{m} {t}" for m, t in zip(markers, turns, strict=False))
    return (text + family_models.ASSISTANT).strip()


def reply_of(name, tokenizer, turns, reply) -> str:
    """Return a reply with the mark that ends it, as it stands after its prompt.

    In the chat format it is opened as the template opens it; blanks that the template
    writes before its closing token are left out.
    """
    if family_models.FORMATS[name] == "dialogue":
        return f" {reply}{family_models.HUMAN}"
    whole = [*messages_of(turns), {"role": "assistant", "content": reply}]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    text = text.removeprefix(prompt_of(name, tokenizer, turns))
    return text[: text.index(reply) + len(reply)] + family_models.ENDS[name]


def encode(tokenizer, text):
    """Return ids and offsets of a text: its BOS is the template's or the tokenizer's.

    A text of a chat template has the BOS that the template wrote, if any.
    """
    written = tokenizer.bos_token and text.startswith(tokenizer.bos_token)
    found = tokenizer(text, add_special_tokens=not written, return_offsets_mapping=True)
    return found.input_ids, found.offset_mapping


def mark(tokenizer, prompt, reply):
    """Return ids of both and how many of them, at the end, are the reply's alone."""
    ids, offsets = encode(tokenizer, prompt + reply)
    # Bytes of one character have the offsets of that character, so none is split.
    first = next(
        place
        for place, (start, end) in enumerate(offsets)
        if end > len(prompt) and start >= len(prompt)
    )
    spelled = tokenizer.decode(
        ids[first:], skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    # SentencePiece puts a space behind a special token that a text has written out.
    assert spelled.split() == reply.split(), (spelled, reply)
    before, _ = encode(tokenizer, prompt)
    assert ids[:first] == before, (prompt, ids[:first], before)
    return ids, len(ids) - first


@torch.no_grad()
def read(model, ids):
    """Return log-probabilities of ids 1, 2, … and the last state after the norm."""
    tokens = torch.tensor([ids])
    out = model(tokens, output_hidden_states=True)
    logprobs = out.logits[0].log_softmax(-1)
    picked = logprobs[:-1].gather(1, tokens[0, 1:, None])[:, 0]
    return picked.numpy(), out.hidden_states[-1][0, -1].numpy(), logprobs[-1].numpy()


def load(name, folder):
    """Return model and tokenizer of a family by transformers' own routes."""
    spec = family_models.write(name, folder)
    kind, _, path = spec.partition(":")
    where = {"pretrained_model_name_or_path": str(folder)}
    if kind == "gguf":
        where["gguf_file"] = pathlib.Path(path).name
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32, attn_implementation="eager"
    )
    # The GGUF route of transformers forgets to split digits, so the tokenizer is that
    # of the twin, which has the same pieces.
    twin = folder / "twin"
    family_models.write(family_models.folder_family(name), twin)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(twin)
    check_encoding(tokenizer, twin)
    return model.eval(), tokenizer


def check_encoding(tokenizer, folder) -> None:
    """Fail unless texts have the ids of tokenizer.json and of tokenizer.model."""
    rules = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [text for turns in family_models.DIALOGUES for text in turns]
    texts += [text for pair in family_models.REPLIES for text in pair]
    # A mark for tokenizer.json, plain text for SentencePiece.
    texts = [text for text in texts if "<s>" not in text]
    for text in texts:
        ids, _ = encode(tokenizer, text)
        assert ids == rules.encode(text).ids, text
        assert encode(tokenizer, f"{text}</s>\n{text}")[0] == (
            rules.encode(f"{text}</s>\n{text}").ids
        ), text
    path = folder / "tokenizer.model"
    if not path.exists():
        return
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(path))
    for text in texts:
        assert encode(tokenizer, text)[0] == [pieces.bos_id(), *pieces.encode(text)]


def make(name: str) -> None:
    """Write the golden file of a family."""
    out = {}
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer = load(name, pathlib.Path(folder))
    texts = zip(family_models.DIALOGUES, family_models.REPLIES, strict=True)
    for i, (turns, replies) in enumerate(texts):
        prompt = prompt_of(name, tokenizer, turns)
        out[f"prompt_{i}"] = np.array(prompt)
        out[f"prompt_ids_{i}"] = np.array(encode(tokenizer, prompt)[0], np.int32)
        for k, reply in enumerate(replies):
            ids, num = mark(tokenizer, prompt, reply_of(name, tokenizer, turns, reply))
            logprobs, state, after = read(model, ids)
            out[f"ids_{i}_{k}"] = np.array(ids, np.int32)
            out[f"num_{i}_{k}"] = np.int32(num)
            out[f"logprobs_{i}_{k}"] = logprobs[-num:]
            out[f"state_{i}_{k}"] = state
            if name not in family_models.ENDS:
                out[f"after_{i}_{k}"] = after[EOS]
            if name in family_models.ENDS:
                whole = [*messages_of(turns), {"role": "assistant", "content": reply}]
                text = tokenizer.apply_chat_template(whole, tokenize=False)
                text = text[
                    : text.rindex(family_models.ENDS[name])
                    + len(family_models.ENDS[name])
                ]
                ids, _ = encode(tokenizer, text)
                out[f"template_{i}_{k}"] = np.array(ids, np.int32)
    path = HERE / "families" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **out)
    same = sum(
        np.array_equal(out[key], out[key.replace("template", "ids")])
        for key in out
        if key.startswith("template")
    )
    print(
        name, path.stat().st_size, "bytes;", same, "texts as the template writes them"
    )


def main() -> None:
    """Make all files."""
    torch.manual_seed(0)
    for name in family_models.FAMILIES:
        make(name)


if __name__ == "__main__":
    main()
