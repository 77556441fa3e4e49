"""A run's simulated pairs as a TFDS data set, for anyone who reads data that way.

After `builder = prepare(run/"pairs/pairs.jsonl", data_dir)` the pairs are read with
`builder.as_data_source(split="train")`; or by name, with
`tfds.data_source("simulated_pairs", data_dir=FOLDER, split="train")`, by programs that
know nothing of this package, FOLDER being `builder.data_path.parent.parent`. `to_pair`
gives the record back.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath

from rlcd_jax import record_files, records
from rlcd_jax.datasets import preparing

NONE = -1  # TFDS has no null: an affix_index or a draw that a pair does not have
INTS = {f.name for f in dataclasses.fields(records.Pair) if f.type is int}
OPTIONAL_INTS = ("affix_index", "draw", "scale_index")
INTS |= set(OPTIONAL_INTS)
OPTIONAL_FLOATS = ("grade_1", "grade_2")  # NaN where a pair does not have them
FLOATS = {f.name for f in dataclasses.fields(records.Pair) if f.type is float}
FLOATS |= set(OPTIONAL_FLOATS)


class SimulatedPairs(tfds.core.GeneratorBasedBuilder):
    """The builder; features are the fields of `records.Pair`, `scoring` as JSON text.

    Text comes back as bytes and numbers as float32 or int64, as everywhere in TFDS.
    """

    code_path = epath.Path(__file__)  # found by TFDS with a package it does not declare
    VERSION = tfds.core.Version("2.1.0")
    RELEASE_NOTES = {
        "2.1.0": "Grades of replies, and the scale that they are of.",
        "2.0.0": "The draw of a prompt is a field of its own.",
    }

    def __init__(self, *, pairs_file: epath.PathLike | None = None, **kwargs: Any):
        """Make the builder over one file of pairs.

        Args:
          pairs_file: a pairs.jsonl; None: what is prepared is read, by its name.
          **kwargs: `data_dir`, ... of every TFDS builder.
        """
        self._file = None if pairs_file is None else epath.Path(pairs_file)
        super().__init__(**{"file_format": "array_record", **kwargs})

    def _info(self) -> tfds.core.DatasetInfo:
        def feature(name: str) -> Any:
            if name in INTS:
                return tfds.features.Scalar(np.int64)
            if name in FLOATS:
                return tfds.features.Scalar(np.float32)
            return tfds.features.Text()

        names = [field.name for field in dataclasses.fields(records.Pair)]
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict({n: feature(n) for n in names}),
            disable_shuffling=True,  # the order of the file
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        del dl_manager  # the file is at hand
        if self._file is None:
            raise ValueError(
                f"{self.data_path} holds no prepared pairs; prepare a run's "
                "pairs.jsonl first (simulated_pairs.prepare), and name that folder"
            )
        return {"train": self._generate_examples()}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, pair in enumerate(
            record_files.read_jsonl(self._file, records.Pair)
        ):
            row = dataclasses.asdict(pair)
            row["scoring"] = json.dumps(pair.scoring)
            row |= {name: NONE for name in OPTIONAL_INTS if row[name] is None}
            row |= {name: math.nan for name in OPTIONAL_FLOATS if row[name] is None}
            yield number, row


def to_pair(row: Mapping[str, Any]) -> records.Pair:
    """Return the record of an example; its numbers have the precision of float32."""
    fields = {
        name: value.decode() if isinstance(value, bytes) else np.asarray(value).item()
        for name, value in row.items()
    }
    fields["scoring"] = json.loads(fields["scoring"])
    fields |= {name: None for name in OPTIONAL_INTS if fields[name] == NONE}
    fields |= {name: None for name in OPTIONAL_FLOATS if math.isnan(fields[name])}
    return records.Pair(**fields)


def prepare(pairs_file: epath.PathLike, data_dir: epath.PathLike) -> SimulatedPairs:
    """Return a builder whose files are written, under the hash of the pairs' file.

    Args:
      pairs_file: a pairs.jsonl.
      data_dir: where prepared data are kept.

    Raises:
      ValueError: there are no pairs.
    """
    path = epath.Path(pairs_file)
    if not path.exists():
        raise ValueError(f"no pairs at {path}; run the stage 'simulate' first")
    name = hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
    return preparing.prepare_once(
        data_dir,
        f"pairs-{name}",
        lambda folder: SimulatedPairs(pairs_file=path, data_dir=folder),
    )
