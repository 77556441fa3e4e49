"""What TRL makes of a file of pairs: two trainers, made and run for one step each."""

import json
import sys

import datasets
import torch
import transformers
import trl
from trl import data_utils

KINDS = {"jsonl": "json", "json": "json", "csv": "csv", "parquet": "parquet"}
question = json.load(sys.stdin)
folder, path = question["folder"], question["path"]
torch.manual_seed(0)


def load():
    kind = KINDS[path.rpartition(".")[2]]
    return datasets.load_dataset(
        kind, data_files=path, split="train", cache_dir=f"{folder}/cache"
    )


def settings(kind):
    return kind(
        output_dir=f"{folder}/{kind.__name__}",
        report_to="none",
        use_cpu=True,
        bf16=False,
        max_steps=1,
        per_device_train_batch_size=2,
        save_strategy="no",
        disable_tqdm=True,
    )


rows = load()
first = dict(rows[0])
tokenizer = transformers.AutoTokenizer.from_pretrained(question["policy"])
reward = trl.RewardTrainer(
    model=question["preference"],
    args=settings(trl.RewardConfig),
    train_dataset=load(),
    processing_class=tokenizer,
)
dpo = trl.DPOTrainer(
    model=question["policy"],
    args=settings(trl.DPOConfig),
    train_dataset=load(),
    processing_class=tokenizer,
)
answer = {
    "version": trl.__version__,
    "rows": [dict(row) for row in rows],
    "conversational": data_utils.is_conversational(first),
    "unpaired": len(data_utils.unpair_preference_dataset(rows)),
    "reward": [dict(row) for row in reward.train_dataset],
    "dpo": [dict(row) for row in dpo.train_dataset],
    "losses": [reward.train().training_loss, dpo.train().training_loss],
}
print(json.dumps(answer))
