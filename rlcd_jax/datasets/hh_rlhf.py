"""Anthropic's hh-rlhf: prompts, and pairs of replies compared by people.

A TFDS builder without TensorFlow, over a local folder in the official layout
(`harmless-base/train.jsonl.gz`, ...) or a download, and two functions that return
records. The texts can be offensive: they were collected to make assistants harmless.

Source: Bai et al. 2022 (arXiv 2204.05862); the data are under the MIT licence.
"""

import gzip
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from etils import epath

from rlcd_jax import prompts, records

URL = "https://huggingface.co/datasets/Anthropic/hh-rlhf/resolve/main"
CONFIGS = ("harmless-base", "helpful-base")
SPLITS = ("train", "test")
# Lines of the official files, for forecasts that read none. Source: the data card.
SIZES = {
    "harmless-base": {"train": 42_537, "test": 2_312},
    "helpful-base": {"train": 43_835, "test": 2_354},
}
TEXTS = ("id", "prompt", "chosen", "rejected")


class HhRlhf(tfds.core.GeneratorBasedBuilder):
    """The builder; each example is a prompt and two whole dialogues.

    Features, all text: `id` ("harmless-base/test/000012": the line in the official
    file, from 0), `prompt` (the dialogue up to the last "Assistant:"), `chosen` and
    `rejected` (the dialogues as they are in the file).
    """

    code_path = epath.Path(__file__)  # found by TFDS with a package it does not declare
    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Prompts are cut by parsed turns."}
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
                turns, _ = prompts.parse_dialogue(chosen)
            except ValueError as error:
                raise ValueError(f"{path}:{number + 1}: 'chosen': {error}") from error
            texts = (f"{start}/{number:06d}", join_turns(turns), chosen, rejected)
            yield number, dict(zip(TEXTS, texts, strict=True))


def local_files(config: str, folder: epath.PathLike) -> dict[str, epath.Path]:
    """Return the file of each split that a folder in the official layout holds."""
    paths = {s: epath.Path(folder) / config / f"{s}.jsonl.gz" for s in SPLITS}
    found = {split: path for split, path in paths.items() if path.exists()}
    if not found:
        wanted = " or ".join(str(path) for path in paths.values())
        raise ValueError(
            f"no hh-rlhf files: {wanted} is needed; name the folder that holds "
            f"{config}/, or None to download"
        )
    return found


def read_rows(path: epath.PathLike) -> Iterator[tuple[str, str]]:
    """Yield (chosen, rejected) for each line of an official file."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                texts = row["chosen"], row["rejected"]
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(
                    f"{path}:{number}: {error!r}; accepted: a JSON object with the "
                    "texts 'chosen' and 'rejected'"
                ) from error
            yield texts


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

    Local folders are prepared under a name made of their files' names and sizes, so
    that a part of the data is never taken for the whole.

    Args:
      config: "harmless-base" or "helpful-base".
      manual_dir: a folder in the official layout; None downloads.
      data_dir: where prepared data are kept; None is the default of TFDS.
    """
    if config not in CONFIGS:
        raise ValueError(f"hh-rlhf config {config!r}; accepted: {', '.join(CONFIGS)}")
    if manual_dir is not None:
        files = local_files(config, manual_dir)
        sizes = sorted((str(f), f.stat().length) for f in files.values())
        name = hashlib.blake2b(json.dumps(sizes).encode(), digest_size=6).hexdigest()
        root = epath.Path(data_dir or tfds.core.constants.DATA_DIR)
        data_dir = root / f"local-{name}"
    builder = HhRlhf(config=config, manual_dir=manual_dir, data_dir=data_dir)
    builder.download_and_prepare()
    return builder


def read_examples(
    builder: tfds.core.DatasetBuilder, split: str, limit: int | None = None
) -> list[dict[str, str]]:
    """Return the first examples of a split, in the order of the file, as text.

    Args:
      builder: a prepared builder.
      split: a split or a slice of one, as in "test[:1000]".
      limit: how many; None for all.
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
        records.Prompt(row["id"], prompts.parse_dialogue(row["prompt"])[0])
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
    found = []
    for row in read_examples(prepare(config, manual_dir, data_dir), split, limit):
        turns, chosen = prompts.parse_dialogue(row["chosen"])
        other, rejected = prompts.parse_dialogue(row["rejected"])
        if turns != other or chosen == rejected or not (chosen and rejected):
            continue
        prompt = records.Prompt(row["id"], turns)
        second = records.seed_choice(2, seed, "human_pair", prompt.id)
        replies = (rejected, chosen) if second else (chosen, rejected)
        text = join_turns(turns) if render is None else render(prompt)
        found.append(
            records.HumanPair(prompt.id, prompt.id, text, *replies, float(second))
        )
    return found
