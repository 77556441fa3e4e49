"""Small files that would become large, or long to read, are read or refused at once.

Each in bounds of memory and time; the fuzz of loaders has the same bounds for damage.
"""

import gzip
import json
import struct

import bounds
import fuzz_models
import fuzz_records
import judged
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizer_families

from rlcd_jax import record_files, records, row_files, tasks
from rlcd_jax.datasets import comparisons, hh_rlhf_files
from rlcd_jax.tasks import official
from rlcd_jax.text import tokenizer
from rlcd_jax.weights import gguf, hf

MEGABYTES, SECONDS, LONGEST = 300, 10.0, 6000
DEEP, MANY = 100_000, 200_000


def packed(rows, **columns):
    """Return a Parquet file of columns that are given as arrays, a few KB long."""
    out = pa.BufferOutputStream()
    none = pq.ParquetWriter(
        out, pa.table(columns).schema, compression="zstd", store_schema=False
    )
    with none as file:
        file.write_table(pa.table(columns), row_group_size=rows)
    return out.getvalue().to_pybytes()


def again(value, count):
    """Return an array of one text, so many times, which takes a byte for each."""
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [value])


def repeated(rows, **columns):
    """Return a Parquet file of columns of one text each."""
    return packed(rows, **{name: again(one, rows) for name, one in columns.items()})


def listed(rows, each):
    """Return a Parquet file of rows with a list of so many texts."""
    ends = np.arange(rows + 1, dtype=np.int32) * each
    lists = pa.ListArray.from_arrays(pa.array(ends), again("p" * 20, rows * each))
    return packed(
        rows, prompt=lists, chosen=again("a", rows), rejected=again("b", rows)
    )


def long_pages(length, count):
    """Return a Parquet file of long texts, each its own, which pack to nothing."""
    texts = [f"{n}" + "x" * length for n in range(count)]
    out = pa.BufferOutputStream()
    columns = {name: texts for name in ("prompt", "chosen", "rejected")}
    pq.write_table(pa.table(columns), out, compression="zstd", use_dictionary=False)
    return out.getvalue().to_pybytes()


def head(size, text=b"{}"):
    return struct.pack("<Q", size) + text


TASK = 'name = "world"\n[[affixes]]\npositive = "a"\nnegative = "b"\n'
TOO_MANY = "n" * 2_000_000
# What takes long to make is made by the test alone, not by each worker that collects it.
CONTENTS = {
    "task.toml": {
        "dotted": ("a." * 5000 + "x = 1").encode(),
        "deep": b"x = " + b"[" * DEEP,
        "inline": b"x = " + b"{a=" * DEEP,
        "number": b"x = " + b"9" * MANY,
        "names": lambda: "".join(f"n{n} = 1\n" for n in range(MANY // 4)).encode(),
        "one name": f'{TASK}{TOO_MANY} = "x"'.encode(),
        "tables": b"[[affixes]]\n" * (MANY // 4),
    },
    "prompts.jsonl": {
        "deep": b'{"a":' * DEEP,
        "lines": b"{}\n" * MANY,
        "blank": b"\n" * MANY + b"x",
        "number": b'{"id": ' + b"9" * MANY,
        "turns": b'{"id": "a", "turns": [' + b'{"role": "x", "text": ""},' * 50_000 + b"0]}",
        "one": json.dumps({"id": TOO_MANY, "turns": TOO_MANY}).encode(),
    },
    "pairs.jsonl": {
        "deep": b"[" * DEEP,
        "lines": b"{}\n" * MANY,
        "number": b'{"prob_2": 1' + b"0" * MANY + b"}",
        "names": lambda: json.dumps({f"n{n}": n for n in range(MANY)}).encode(),
    },
    "rows.parquet": {
        "rows": lambda: repeated(
            3_000_000, prompt="p" * 900, chosen="a", rejected="b"
        ),
        "empty": lambda: repeated(3_000_000, prompt="", chosen="", rejected=""),
        "long": lambda: repeated(2000, prompt="p" * 10**6, chosen="a", rejected="b"),
        "texts": lambda: long_pages(1_000_000, 200),
        "list": lambda: listed(1000, 10_000),
    },
    "rows.csv": {
        "header": b"," * 2_000_000,
        "cell": b'prompt,chosen,rejected\n"' + b"x" * 5_000_000,
        "quotes": b'prompt,chosen,rejected\n' + b'"' * 2_000_000,
        "columns": b"a\n" + b"," * 2_000_000,
    },
    "rows.json": {
        "deep": b"[" * DEEP,
        "items": b"[" + b"0," * MANY + b"0]",
        "nested": b"[" + b'{"prompt": [[[[]]]]},' * 50_000 + b"0]",
    },
    "hh.jsonl.gz": {
        "zeros": lambda: gzip.compress(bytes(200 * 2**20), 9),
        "lines": lambda: gzip.compress(b"\n" * 2**22, 9),
        "twice": lambda: gzip.compress(gzip.compress(bytes(2**26), 9), 9),
    },
    "answers.json": {
        "deep": b'{"answers": ' + b"[" * DEEP,
        "rows": json.dumps({"answers": [{}] * MANY}).encode(),
    },
    "answers.csv": {
        "columns": b"study,item,answer" + b"," * 2_000_000 + b"\n1",
        "rows": b"study,item,answer\n" + b"a,b,9e999\n" * (MANY // 4),
    },
    "official.py": {
        "deep": b"X = " + b"(" * DEEP,
        "signs": b"X = " + b"-" * DEEP + b"1",
        "sum": b"X = 1" + b"+1" * DEEP,
        "power": b"X = 10**10**10",
        "times": b"HELPFUL_POSITIVE = ['x' * 10**12]",
    },
}  # fmt: skip


def rate(make, path):
    """Read a study whose first annotator has sent this file."""
    case = make(path.parent / "study")
    case.path.write_bytes(path.read_bytes())
    case.read()


READERS = {
    "task.toml": tasks.load_task,
    "prompts.jsonl": lambda path: tasks.load_prompts(
        tasks.load_task("cheerful"), path=path
    ),
    "pairs.jsonl": lambda path: record_files.read_jsonl(path, records.Pair),
    "rows.parquet": lambda path: comparisons.read(f"trl:{path}", seed=0),
    "rows.csv": lambda path: comparisons.read(f"trl:{path}", seed=0),
    "rows.json": lambda path: comparisons.read(f"alpaca_farm:{path}", seed=0),
    "hh.jsonl.gz": lambda path: list(hh_rlhf_files.read_rows(path)),
    "answers.json": lambda path: rate(fuzz_records.answers_json, path),
    "answers.csv": lambda path: rate(fuzz_records.answers_csv, path),
    "official.py": lambda path: official.read_wording(path, "helpful"),
}
CASES = [(name, kind) for name, kinds in CONTENTS.items() for kind in kinds]


def read(reader, path, said):
    """Read within the bounds; what is refused is refused in a message of some length."""
    with bounds.bounded(megabytes=MEGABYTES, seconds=SECONDS):
        try:
            reader(path)
        except ValueError as error:
            assert said in str(error) and len(str(error)) < LONGEST, str(error)[:300]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_bomb_is_read_or_refused(name, kind, tmp_path):
    path = tmp_path / name
    content = CONTENTS[name][kind]
    path.write_bytes(content() if callable(content) else content)
    read(READERS[name], path, path.stem)


def test_what_packs_well_and_is_small_is_read(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_bytes(
        repeated(3000, prompt="Hello there?", chosen="Yes.", rejected="No.")
    )
    assert len(row_files.read(path)) == 3000
    path.write_bytes(CONTENTS["rows.parquet"]["texts"]())
    with pytest.raises(ValueError, match=r"rows.parquet: .*unpacks to more than"):
        row_files.read(path)


@pytest.mark.parametrize(
    "content",
    [
        head(2**63 - 1),
        head(2**40),
        head(100_000_000, b"[" * DEEP),
        head(DEEP, b"[" * DEEP),
        head(2, b"{}") + bytes(64),
        *(
            head(len(text), text)
            for text in (
                json.dumps(
                    {"x": {"dtype": "F32", "shape": shape, "data_offsets": ends}}
                ).encode()
                for shape, ends in (
                    ([2**40, 2**20], [0, 2**62]),
                    ([2**63] * 9, [0, 8]),
                    ([0, 2**62], [0, 0]),
                    ([1] * 50_000, [0, 4]),
                    ([-1, -4], [0, 4]),
                )
            )
        ),
    ],
)
def test_heads_of_safetensors_ask_for_nothing(content, tmp_path):
    case = fuzz_models.safetensors(tmp_path)
    case.path.write_bytes(content)
    cfg = hf.read_config(case.path.parent)
    with (
        bounds.bounded(megabytes=MEGABYTES, seconds=SECONDS),
        pytest.raises(ValueError, match=case.path.name) as refused,
    ):
        hf.load_params(case.path.parent, cfg)
    assert len(str(refused.value)) < LONGEST


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<4sIQQ", b"GGUF", 3, 2**63, 2**63),
        struct.pack("<4sIQQ", b"GGUF", 3, 2**16, 0) + bytes(2**16),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 2**62),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1)
        + b"a"
        + struct.pack("<IIQ", 9, 8, 2**22),
        struct.pack("<4sIQQQ", b"GGUF", 3, 0, 1, 1)
        + b"a"
        + struct.pack("<IIQ", 9, 9, 1) * 50_000,
        struct.pack("<4sIQQ", b"GGUF", 3, 0, 2**14) + bytes(2**20),
    ],
)
def test_heads_of_gguf_ask_for_nothing(content, tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    read(gguf.open_file, path, "model.gguf")


DOUBLING = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}


@pytest.mark.parametrize(
    "change",
    [
        {"truncation": {"max_length": 2**62, "stride": 2**62}},
        {"padding": {"strategy": {"Fixed": 2**40}, "pad_id": 0}},
        {"added_tokens": [{"id": n, "content": "x" * 100} for n in (0, 2**31, 2**62)]},
        {"added_tokens": [{"id": 2**31 - 1, "content": "x"}]},
        {"normalizer": {"type": "Prepend", "prepend": "x" * 2_000_000}},
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 50_000}},
        {"normalizer": {"type": "Sequence", "normalizers": [DOUBLING] * 60}},
        {"decoder": {"type": "Sequence", "decoders": [DOUBLING] * 60}},
        {
            "model": {
                "type": "BPE",
                "vocab": {f"t{n}": 2**31 - n for n in range(1, 9)},
                "merges": [],
            }
        },
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "a"]] * MANY}},
    ],
)
def test_values_of_a_tokenizer_ask_for_nothing(change, tmp_path):
    place = tokenizer_families.write("tinyllama", tmp_path / "model")
    path = place / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    read(tokenizer.load_tokenizer, place, "model")


def test_numbers_of_a_config_ask_for_nothing(tmp_path):
    case = fuzz_models.config(tmp_path)
    raw = {"model_type": "llama"} | dict.fromkeys(fuzz_models.CONFIG, 10**400)
    case.path.write_text(json.dumps(raw))
    read(hf.read_config, tmp_path, "config.json")
    case.path.write_text(
        json.dumps(raw | {"x" * 2_000_000: 1, "architectures": ["y" * 10**6]})
    )
    read(hf.read_config, tmp_path, "config.json")


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", lambda: gzip.compress(bytes(2**28), 9)),
        ("gzip, gzip", lambda: gzip.compress(gzip.compress(bytes(2**28), 9), 9)),
        ("", b"[" * 900_000),
        ("", b'{"choices": ' + b"9" * 900_000),
        ("", b"x" * 40_000_000),
    ],
)
def test_an_answer_that_unpacks_to_more_is_no_answer(
    encoding, body, server, monkeypatch, tmp_path
):
    body = body() if callable(body) else body

    def send(self, status, data, after="7"):
        del data, after
        self.send_response(status)
        if encoding:
            self.send_header("content-encoding", encoding)
        self.end_headers()
        self.wfile.write(body)

    monkeypatch.setattr(judged.Handler, "send", send)
    more = {"max_tries": 1, "max_failures": 5, "timeout_seconds": 5.0}
    api, _ = judged.make_api(server, tmp_path, **more)
    with bounds.bounded(megabytes=MEGABYTES, seconds=SECONDS):
        assert api.ask_all(["Which?"]) == [None]
    assert len(api.failures) == 1 and len(api.failures[0]) < LONGEST
