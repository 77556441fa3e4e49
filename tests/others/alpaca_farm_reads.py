"""What AlpacaFarm's preparation for reward models makes of a file of pairs."""

import json
import sys

import pandas as pd
import transformers
from alpaca_farm import data_preprocessor

question = json.load(sys.stdin)
read = {"csv": pd.read_csv, "json": pd.read_json, "parquet": pd.read_parquet}
rows = read[question["path"].rpartition(".")[2]](question["path"])
# An empty cell of a CSV is a missing value for pandas, where AlpacaFarm has "".
rows = rows.fillna({"input": ""})
tokenizer = transformers.AutoTokenizer.from_pretrained(question["tokenizer"])
tokenizer.model_max_length = 512
tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
# AlpacaFarm joins a template and a reply as they are; RLCD's has a blank between.
template = {
    "prompt_noinputs": "{instruction} ",
    "prompt_inputs": "{instruction}{input}",
}
made = data_preprocessor.BinaryRewardModelingDataset(rows, template, tokenizer)
answer = {
    "columns": list(rows.columns),
    "choice": made.choice[:, 0].tolist(),
    "ids": [[ids.tolist() for ids in pair] for pair in made.input_ids],
}
print(json.dumps(answer))
