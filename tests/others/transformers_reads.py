"""What transformers makes of a folder: ids of texts, logits or scores, greedy tokens."""

import json
import sys

import torch
import transformers

question = json.load(sys.stdin)
folder, texts = question["folder"], question["texts"]
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
kind = getattr(transformers, question["loader"])
model = kind.from_pretrained(folder, dtype=torch.float32)
answer = {
    "version": transformers.__version__,
    "class": type(model).__name__,
    "ids": [tokenizer(text)["input_ids"] for text in texts],
    "bos": tokenizer.bos_token,
    "eos": tokenizer.eos_token,
}
turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]
if tokenizer.chat_template:
    answer["chat"] = tokenizer.apply_chat_template(turns, tokenize=False)
with torch.no_grad():
    if question["loader"] == "AutoModelForSequenceClassification":
        # All texts at once, so that the score is read before the padding.
        batch = tokenizer(texts, return_tensors="pt", padding=True)
        answer["scores"] = model(**batch).logits[:, 0].tolist()
        answer["bias"] = model.config.score_bias
        answer["values"] = []
        for ids in answer["ids"]:  # as the model card of a value model says
            hidden = model.model(torch.tensor([ids])).last_hidden_state
            answer["values"].append(model.score(hidden)[0, :, 0].tolist())
    else:
        answer["ends"] = model.generation_config.eos_token_id
        answer["logits"], answer["greedy"] = [], []
        for ids in answer["ids"]:
            row = torch.tensor([ids])
            answer["logits"].append(model(row).logits[0].tolist())
            if "count" in question:
                asked = {"do_sample": False, "max_new_tokens": question["count"]}
                made = model.generate(row, eos_token_id=None, **asked)
                answer["greedy"].append(made[0].tolist())
print(json.dumps(answer))
