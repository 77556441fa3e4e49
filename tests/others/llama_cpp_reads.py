"""What llama.cpp makes of a GGUF file: ids of texts, logits, the greedy next tokens."""

import json
import sys

import llama_cpp

question = json.load(sys.stdin)
model = llama_cpp.Llama(
    question["path"],
    n_ctx=question.get("context", 256),
    n_threads=1,
    logits_all=True,
    verbose=False,
    type_k=llama_cpp.GGML_TYPE_F32,  # its cache is else in float16
    type_v=llama_cpp.GGML_TYPE_F32,
)
answers = []
for text in question["texts"]:
    ids = model.tokenize(text.encode(), add_bos=True, special=True)
    model.reset()
    model.eval(ids)
    logits = model.scores[: len(ids)].tolist() if question["logits"] else None
    for _ in range(question["count"]):
        ids.append(int(model.scores[model.n_tokens - 1].argmax()))
        model.eval(ids[-1:])
    answers.append({"ids": ids, "logits": logits})
print(json.dumps({"texts": answers, "metadata": model.metadata}))
