"""What PEFT makes of a folder of adapters on a base: logits, or scores and values."""

import json
import sys

import peft
import torch
import transformers

question = json.load(sys.stdin)
loader, labels = "AutoModelForCausalLM", {}
if question["item"] != "policy":
    loader, labels = "AutoModelForSequenceClassification", {"num_labels": 1}
base = getattr(transformers, loader).from_pretrained(question["base"], **labels).float()
model = peft.PeftModel.from_pretrained(base, question["folder"]).eval()
said, values = [], []
with torch.no_grad():
    for row in question["ids"]:
        ids = torch.tensor([row])
        said.append(model(input_ids=ids).logits[0].tolist())
        if question["item"] == "value":  # as the model card says
            inner = model.get_base_model()
            hidden = inner.model(input_ids=ids).last_hidden_state
            values.append(inner.score(hidden)[0, :, 0].tolist())
answer = {"version": peft.__version__, "logits": said, "values": values}
print(json.dumps(answer))
