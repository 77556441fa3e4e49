"""Anthropic's hh-rlhf: prompts, and pairs of replies compared by people.

A TFDS builder without TensorFlow, over a local folder in the official layout
(`harmless-base/train.jsonl.gz`, ...) or a download, and two functions that return
records. The texts can be offensive: they were collected to make assistants harmless.

Source: Bai et al. 2022 (arXiv 2204.05862); the data are under the MIT licence.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from rlcd_jax import done_mark, jsonl, records, seeds
from rlcd_jax.datasets import preparing
from rlcd_jax.tasks import fields as task_fields
from rlcd_jax.text import dialogue_format

URL = "https://huggingface.co/datasets/Anthropic/hh-rlhf/resolve/main"
CONFIGS = task_fields.HH_CONFIGS
SPLITS = ("train", "test")
# Lines of the official files, for forecasts that read none. Source: the data card.
SIZES = {
    "harmless-base": {"train": 42_537, "test": 2_312},
    "helpful-base": {"train": 43_835, "test": 2_354},
}
TEXTS = ("id", "prompt", "chosen", "rejected")
ROW = "a JSON object of the texts 'chosen' and 'rejected'"
# Bounds of what is expanded, far above the official files (longest line 40 kB, largest
# file 0.1 GB): a small file can be packed that fills any memory or disk.
MAX_LINE_BYTES = 1 << 24
MAX_FILE_BYTES = 1 << 30


class HhRlhf(tfds.core.GeneratorBasedBuilder):
    """The builder; each example is a prompt and two whole dialogues.

    Features, all text: `id` ("harmless-base/test/000012": the line in the official
    file, from 0), `prompt` (the dialogue up to the last "Assistant:"), `chosen` and
    `rejected` (the dialogues as they are in the file).
    """

    code_path = epath.Path(__file__)  # found by TFDS with a package it does not declare
    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES = {"2.0.0": "Turns are told in any line ending."}
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name, description=f"hh-rlhf {name}")
        for name in CONFIGS
    ]

    def __init__(self, *, manual_dir: epath.PathLike | None = None, **kwargs: Any):
        """Make the builder of one config.

        Args:
          manual_dir: a folder in the official layout; None downloads the files.
          **kwargs: `config`, `data_dir`, ... of every TFDS builder.
        """
        self._folder = None if manual_dir is None else epath.Path(manual_dir)
        super().__init__(**{"file_format": "array_record", **kwargs})

    def _info(self) -> tfds.core.DatasetInfo:
        features = {name: tfds.features.Text() for name in TEXTS}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage="https://github.com/anthropics/hh-rlhf",
            disable_shuffling=True,  # the order of the file: dev is test[:1000]
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        config = self.builder_config.name
        if self._folder is None:
            urls = {split: f"{URL}/{config}/{split}.jsonl.gz" for split in SPLITS}
            files = dl_manager.download(urls)
        else:
            files = local_files(config, self._folder)
        return {s: self._generate_examples(f, s) for s, f in files.items()}

    def _generate_examples(
        self, path: epath.Path, split: str
    ) -> Iterator[tuple[int, dict[str, str]]]:
        start = f"{self.builder_config.name}/{split}"
        for number, (chosen, rejected) in enumerate(read_rows(path)):
            try:
                turns, _ = dialogue_format.parse_dialogue(chosen)
            except ValueError as error:
                raise ValueError(f"{path}:{number + 1}: 'chosen': {error}") from error
            texts = (f"{start}/{number:06d}", join_turns(turns), chosen, rejected)
            yield number, dict(zip(TEXTS, texts, strict=True))


def local_files(config: str, folder: epath.PathLike) -> dict[str, epath.Path]:
    """Return the file of each split that a folder in the official layout holds.

    Raises:
      ValueError: the folder holds no file of this config.
    """
    paths = {s: epath.Path(folder) / config / f"{s}.jsonl.gz" for s in SPLITS}
    files = {split: path for split, path in paths.items() if path.exists()}
    if not files:
        wanted = " or ".join(str(path) for path in paths.values())
        raise ValueError(
            f"no hh-rlhf files: {wanted} is needed; name the folder that holds "
            f"{config}/, or None to download"
        )
    return files


def read_rows(path: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (chosen, rejected) for each line of an official file.

    Raises:
      ValueError: names the file and the line that cannot be read.
    """
    number = 0
    for number, line in enumerate(_lines(epath.Path(path)), start=1):
        where = f"{path}:{number}"
        try:
            row = jsonl.parse(line, where)
        except ValueError as error:
            raise ValueError(f"{error}; accepted: {ROW}") from error
        if not isinstance(row, dict):
            raise ValueError(f"{where}: the line is {_shown(row)}; accepted: {ROW}")
        unknown = [name for name in row if name not in ("chosen", "rejected")]
        if unknown:
            raise ValueError(
                f"{where}: the line has a field {_shown(unknown[0])}; accepted: {ROW}"
            )
        for name in ("chosen", "rejected"):
            if not isinstance(row.get(name), str):
                is_there = _shown(row[name]) if name in row else "missing"
                raise ValueError(f"{where}: {name!r} is {is_there}; accepted: {ROW}")
        yield row["chosen"], row["rejected"]
    if not number:
        raise ValueError(f"{path}: the file holds no line; accepted: {ROW}, one a line")


def _lines(path: epath.Path) -> Iterator[bytes]:
    """Yield the lines of a packed file, expanded one by one and within bounds."""
    number, total = 1, 0
    try:
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                total += len(line)
                if len(line) > MAX_LINE_BYTES or total > MAX_FILE_BYTES:
                    raise ValueError(
                        f"{path}:{number}: the file expands beyond {MAX_LINE_BYTES} "
                        f"bytes a line or {MAX_FILE_BYTES} in all, which is no file of "
                        "hh-rlhf; fetch it again"
                    )
                yield line.removeprefix(jsonl.BOM) if number == 1 else line
                number += 1
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(
            f"{path}:{number}: the file is no whole gzip file ({error}); fetch it again"
        ) from error


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def join_turns(turns: Sequence[records.Turn]) -> str:
    """Return the turns in the format of the data set, ending in "Assistant:"."""
    parts = [f"{t.role.capitalize()}: {t.text}".strip() for t in turns]
    return "\n\n".join([*parts, "Assistant:"])


def prepare(
    config: str,
    manual_dir: epath.PathLike | None = None,
    data_dir: epath.PathLike | None = None,
) -> HhRlhf:
    """Return a builder whose files are written, from a folder or a download.

    Local folders are prepared under a hash of what is in their files, so that neither
    a part of the data is taken for the whole nor old files for corrected ones. Several
    processes may ask at once.

    Args:
      config: "harmless-base" or "helpful-base".
      manual_dir: a folder in the official layout; None downloads.
      data_dir: where prepared data are kept; None is the default of TFDS.

    Raises:
      ValueError: there is no such config.
    """
    if config not in CONFIGS:
        raise ValueError(f"hh-rlhf config {config!r}; accepted: {', '.join(CONFIGS)}")
    name = f"hh_rlhf-{config}-{HhRlhf.VERSION}"
    if manual_dir is not None:
        files = local_files(config, manual_dir)
        contents = {split: content_hash(file) for split, file in files.items()}
        name += f"-{done_mark.config_hash(contents)}"
    return preparing.prepare_once(
        data_dir or tfds.core.constants.DATA_DIR,
        name,
        lambda folder: HhRlhf(config=config, manual_dir=manual_dir, data_dir=folder),
    )


def content_hash(file: epath.PathLike) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with epath.Path(file).open("rb") as packed:
        return hashlib.file_digest(packed, "sha256").hexdigest()


def read_examples(
    builder: tfds.core.DatasetBuilder, split: str, limit: int | None = None
) -> list[dict[str, str]]:
    """Return the first examples of a split, in the order of the file, as text.

    Args:
      builder: a prepared builder.
      split: a split or a slice of one, as in "test[:1000]".
      limit: how many; None for all.

    Raises:
      ValueError: the data set has no such split.
    """
    offered = sorted(builder.info.splits)
    if split.split("[")[0] not in offered:
        raise ValueError(
            f"split {split!r} of {builder.info.full_name}; offered: "
            f"{', '.join(offered)}, or a slice such as '{offered[0]}[:1000]'"
        )
    source = builder.as_data_source(split=split)
    num = len(source) if limit is None else min(limit, len(source))
    rows = (source[i] for i in range(num))
    return [{name: row[name].decode() for name in TEXTS} for row in rows]


def load_prompts(
    config: str,
    split: str,
    *,
    manual_dir: epath.PathLike | None = None,
    data_dir: epath.PathLike | None = None,
    limit: int | None = None,
) -> tuple[records.Prompt, ...]:
    """Return the prompts of a split, in the order of the file.

    Args:
      config: "harmless-base" or "helpful-base".
      split: "train", "test" or a slice. The paper's dev set is "test[:1000]", its
        test set "test[1000:2000]".
      manual_dir: a folder in the official layout; None downloads.
      data_dir: where prepared data are kept; None is the default of TFDS.
      limit: how many lines of the split; None for all.
    """
    rows = read_examples(prepare(config, manual_dir, data_dir), split, limit)
    return tuple(
        records.Prompt(row["id"], dialogue_format.parse_dialogue(row["prompt"])[0])
        for row in rows
    )


def load_human_pairs(
    config: str,
    split: str,
    *,
    seed: int,
    render: Callable[[records.Prompt], str] | None = None,
    manual_dir: epath.PathLike | None = None,
    data_dir: epath.PathLike | None = None,
    limit: int | None = None,
) -> list[records.HumanPair]:
    """Return the human comparisons of a split, which side stands first by a keyed coin.

    Left out: lines whose two dialogues have different prompts, an empty reply, or the
    same reply twice, since they compare nothing (about 1 % of the lines).

    Args:
      config: as in `load_prompts`, as are split, manual_dir, data_dir and limit.
      split: a split or a slice.
      seed: root seed of the coins.
      render: text of a prompt, such as `prompts.plain_prompt` with a task; None is the
        format of the data set.
      manual_dir: a folder in the official layout; None downloads.
      data_dir: where prepared data are kept.
      limit: how many lines of the split, before any is left out.
    """
    rows = read_examples(prepare(config, manual_dir, data_dir), split, limit)
    pairs = []
    for row in rows:
        turns, chosen = _dialogue(row, "chosen")
        other, rejected = _dialogue(row, "rejected")
        if turns != other or chosen == rejected or not (chosen and rejected):
            continue
        prompt = records.Prompt(row["id"], turns)
        second = seeds.seed_choice(2, seed, "human_pair", prompt.key)
        replies = (rejected, chosen) if second else (chosen, rejected)
        text = join_turns(turns) if render is None else render(prompt)
        pairs.append(
            records.HumanPair(prompt.id, prompt.id, text, *replies, float(second))
        )
    if len(pairs) < len(rows):
        lost = len(rows) - len(pairs)
        logging.info("hh-rlhf %s: %d lines of %s compare nothing", config, lost, split)
    return pairs


def _dialogue(
    row: Mapping[str, str], name: str
) -> tuple[tuple[records.Turn, ...], str]:
    try:
        return dialogue_format.parse_dialogue(row[name])
    except ValueError as error:
        split, number = row["id"].split("/")[1:]
        where = f"{split}.jsonl.gz:{int(number) + 1}"
        raise ValueError(f"{row['id']} ({where}): {name!r}: {error}") from error
