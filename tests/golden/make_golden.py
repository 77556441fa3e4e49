"""Make the golden files of this folder with torch, independently of rlcd_jax.

    pip install 'rlcd_jax[golden]' accelerate
    python tests/golden/make_golden.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

The GGUF file is the embedded model's: ``rlcd_jax.weights.embedded.fetch`` puts it into
the cache folder. Made with torch 2.13.0 (CPU) and transformers 5.23.0. Weights are read
by transformers' own GGUF route; every number is computed in float32.

Files:
  smollm2.npz      logits of two texts at every position, for 512 columns, with
                   logsumexp and argmax; greedy continuations of four prompts
  <variant>/       a tiny random model as transformers writes it, with golden.npz
"""

import argparse
import json
import pathlib

import numpy as np
import torch
import transformers

HERE = pathlib.Path(__file__).parent
NUM_COLUMNS = 512
NEW_TOKENS = 32
TEXTS = (
    "The assistant was asked for a short poem about rain, and after a moment it "
    "answered kindly:",
    "<|im_start|>user\nHow do I apologise to a friend?<|im_end|>\n"
    "<|im_start|>assistant\nStart by",
)
PROMPTS = (
    "The capital of France is",
    "Human: What should I cook tonight?\n\nAssistant:",
    "Human: I lost my keys again.\n\nAssistant (giving a cheerful response):",
    "<|im_start|>user\nWhat is the largest ocean?<|im_end|>\n<|im_start|>assistant\n",
)
TINY = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.25,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
VARIANTS = {
    "llama1": {"rms_norm_eps": 1e-6},
    "tinyllama": {"num_key_value_heads": 1, "rms_norm_eps": 1e-5},
    "llama3": {"num_key_value_heads": 2, "rope_parameters": LLAMA3_ROPE},
    "tied": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "wide_heads_sharded_bf16": {"num_key_value_heads": 2, "head_dim": 16},
}


@torch.no_grad()
def logits_of(model, ids) -> torch.Tensor:
    """Return the logits [T, V] of one row of ids."""
    return model(torch.tensor([ids])).logits[0]


def greedy(model, ids: list[int]) -> tuple[list[int], float]:
    """Return the most likely continuation and its smallest lead in nats."""
    ids, lead = list(ids), float("inf")
    for _ in range(NEW_TOKENS):
        best = logits_of(model, ids)[-1].topk(2)
        lead = min(lead, float(best.values[0] - best.values[1]))
        ids.append(int(best.indices[0]))
    return ids[-NEW_TOKENS:], lead


def make_smollm2(path: pathlib.Path) -> None:
    """Write smollm2.npz from the embedded model's GGUF file."""
    where = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(
        **where, dtype=torch.float32
    ).eval()
    # The texts have no digits: transformers' GGUF route forgets to split those.
    tokenizer = transformers.AutoTokenizer.from_pretrained(**where)
    generator = np.random.default_rng(0)
    columns = np.sort(
        generator.choice(model.config.vocab_size, NUM_COLUMNS, replace=False)
    )
    out = {"columns": columns.astype(np.int32)}
    for i, text in enumerate(TEXTS):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        logits = logits_of(model, ids)
        out[f"text_{i}"] = np.array(text)
        out[f"ids_{i}"] = np.array(ids, np.int32)
        out[f"logits_{i}"] = logits[:, columns].numpy()
        out[f"logsumexp_{i}"] = logits.logsumexp(-1).numpy()
        out[f"argmax_{i}"] = logits.argmax(-1).numpy().astype(np.int32)
    for i, text in enumerate(PROMPTS):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        tokens, lead = greedy(model, ids)
        out[f"prompt_{i}"] = np.array(text)
        out[f"prompt_ids_{i}"] = np.array(ids, np.int32)
        out[f"greedy_{i}"] = np.array(tokens, np.int32)
        out[f"lead_{i}"] = np.float32(lead)
        print(repr(text), "->", repr(tokenizer.decode(tokens)), f"lead {lead:.4f}")
    np.savez_compressed(HERE / "smollm2.npz", **out)


def make_variant(name: str, fields: dict) -> None:
    """Write a tiny random model and its logits."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**(TINY | fields))
    model = transformers.LlamaForCausalLM(config).eval()
    for parameter_name, parameter in model.named_parameters():
        if "norm" in parameter_name:
            parameter.data.uniform_(0.5, 1.5)
    folder = HERE / name
    sharded = "sharded" in name
    if sharded:
        model = model.to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="16KB" if sharded else "1GB")
    # Read again: a cast there and back would round the rotary table too.
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    generator = np.random.default_rng(1)
    ids = generator.integers(0, config.vocab_size, 40)
    np.savez_compressed(
        folder / "golden.npz",
        ids=ids.astype(np.int32),
        logits=logits_of(model.eval(), ids.tolist()).numpy(),
    )
    (folder / "generation_config.json").unlink(missing_ok=True)
    print(name, json.dumps(fields))


def main() -> None:
    """Make all files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=pathlib.Path, required=True)
    args = parser.parse_args()
    for name, fields in VARIANTS.items():
        make_variant(name, fields)
    make_smollm2(args.gguf)


if __name__ == "__main__":
    main()
