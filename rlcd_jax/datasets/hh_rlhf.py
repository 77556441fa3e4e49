"""Anthropic's hh-rlhf: prompts, and pairs of replies compared by people.

A TFDS builder without TensorFlow, over a local folder in the official layout
(`harmless-base/train.jsonl.gz`, ...) or a download, and two functions that return
records. The texts can be offensive: they were collected to make assistants harmless.

Source: Bai et al. 2022 (arXiv 2204.05862); the data are under the MIT licence.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from etils import epath

from rlcd_jax import done_mark, records, seeds
from rlcd_jax.datasets import hh_rlhf_files, preparing
from rlcd_jax.text import dialogue_format

URL = "https://huggingface.co/datasets/Anthropic/hh-rlhf/resolve/main"
TEXTS = ("id", "prompt", "chosen", "rejected")


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
        for name in hh_rlhf_files.CONFIGS
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
            urls = {
                split: f"{URL}/{config}/{split}.jsonl.gz"
                for split in hh_rlhf_files.SPLITS
            }
            files = dl_manager.download(urls)
        else:
            files = hh_rlhf_files.local_files(config, self._folder)
        return {s: self._generate_examples(f, s) for s, f in files.items()}

    def _generate_examples(
        self, path: epath.Path, split: str
    ) -> Iterator[tuple[int, dict[str, str]]]:
        start = f"{self.builder_config.name}/{split}"
        for number, (chosen, rejected) in enumerate(hh_rlhf_files.read_rows(path)):
            try:
                turns, _ = dialogue_format.parse_dialogue(chosen)
            except ValueError as error:
                raise ValueError(f"{path}:{number + 1}: 'chosen': {error}") from error
            texts = (
                f"{start}/{number:06d}",
                hh_rlhf_files.join_turns(turns),
                chosen,
                rejected,
            )
            yield number, dict(zip(TEXTS, texts, strict=True))


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
    if config not in hh_rlhf_files.CONFIGS:
        raise ValueError(
            f"hh-rlhf config {config!r}; accepted: {', '.join(hh_rlhf_files.CONFIGS)}"
        )
    name = f"hh_rlhf-{config}-{HhRlhf.VERSION}"
    if manual_dir is not None:
        files = hh_rlhf_files.local_files(config, manual_dir)
        contents = {
            split: hh_rlhf_files.content_hash(file) for split, file in files.items()
        }
        name += f"-{done_mark.config_hash(contents)}"
    return preparing.prepare_once(
        data_dir or tfds.core.constants.DATA_DIR,
        name,
        lambda folder: HhRlhf(config=config, manual_dir=manual_dir, data_dir=folder),
    )


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
    as_written: bool = False,
) -> tuple[records.Prompt, ...]:
    """Return the prompts of a split, in the order of the file.

    Args:
      config: "harmless-base" or "helpful-base".
      split: "train", "test" or a slice. The paper's dev set is "test[:1000]", its
        test set "test[1000:2000]".
      manual_dir: a folder in the official layout; None downloads.
      data_dir: where prepared data are kept; None is the default of TFDS.
      limit: how many lines of the split; None for all.
      as_written: prompts keep the text of the file, up to its last "Assistant:".
    """
    rows = read_examples(prepare(config, manual_dir, data_dir), split, limit)
    return tuple(
        records.Prompt(
            row["id"],
            dialogue_format.parse_dialogue(row["prompt"])[0],
            as_written=(
                dialogue_format.prompt_as_written(row["chosen"]) if as_written else ""
            ),
        )
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
        text = hh_rlhf_files.join_turns(turns) if render is None else render(prompt)
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
