"""The lines of a run's files: what a prompt, a pair and a dropped prompt hold.

Every record is a frozen dataclass that checks itself when it is made, so a wrong value
is named where it enters and not ten stages later. Files are JSON, one record a line.
"""

import dataclasses
import hashlib
import json
import operator
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from etils import epath

from rlcd_jax import schema

Role = Literal["human", "assistant"]
Side = Literal["positive", "negative", "plain"]
Finish = Literal["eos", "stop", "length"]
Sampling = Literal["contrast", "same"]
Labels = Literal["construction", "scoring"]

DONE = "DONE"


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of a dialogue; `text` has no role marker and no outer blanks."""

    role: Role
    text: str

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A dialogue that waits for the assistant: the last turn is the human's."""

    id: str
    turns: tuple[Turn, ...]

    def __post_init__(self):
        schema.validate(self)
        if not self.turns or self.turns[-1].role != "human":
            last = self.turns[-1].role if self.turns else "nothing"
            raise ValueError(
                f"field 'turns' of prompt {self.id!r} ends with {last}; accepted: one "
                "or more turns, the last one 'human'"
            )


def base_id(prompt_id: str) -> str:
    """Return the id of the prompt that "p#n" is the n-th draw of."""
    return prompt_id.partition("#")[0]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two replies to one prompt with a label, and where all of it came from.

    `prompt` is the affix-free text that the policy will see, `source_prompt_*` what
    the generator was really shown. `prob_2` is the probability that reply_2 is the
    better one: 0.0 or 1.0 for a label by construction, anything between for a scored
    one. `raw_*` is the sampled text before clean-up; `tries_*` counts attempts.
    """

    id: str
    task: str
    prompt_id: str
    prompt: str
    reply_1: str
    reply_2: str
    prob_2: float = schema.between(0.0, 1.0)
    side_1: Side
    side_2: Side
    source_prompt_1: str
    source_prompt_2: str
    raw_1: str
    raw_2: str
    tries_1: int = schema.between(1)
    tries_2: int = schema.between(1)
    finish_1: Finish
    finish_2: Finish
    num_tokens_1: int = schema.between(0)
    num_tokens_2: int = schema.between(0)
    affix_index: int | None = schema.between(0)
    sampling: Sampling
    labels: Labels
    scoring: dict | None
    generator: str
    seed: int
    temperature: float = schema.between(0.0)
    top_p: float = schema.between(0.0, 1.0)
    top_k: int = schema.between(0)
    alpha: float

    def __post_init__(self):
        schema.validate(self)
        for name in ("reply_1", "reply_2"):
            if not getattr(self, name).strip():
                raise ValueError(f"field '{name}' is empty; accepted: text")


@dataclasses.dataclass(frozen=True)
class Dropped:
    """A prompt that gave no pair: the side that failed, and what was sampled for it.

    `reasons` and `raws` have one entry a try; `reason` is the last of the reasons.
    """

    prompt_id: str
    task: str
    sampling: Sampling
    side: Side
    reason: str
    tries: int = schema.between(0)
    reasons: tuple[str, ...]
    raws: tuple[str, ...]

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class HumanPair:
    """Two replies compared by a person; prob_2 is 0.0 or 1.0.

    It has the fields that a trainer reads from a Pair, so both can be mixed.
    """

    id: str
    prompt_id: str
    prompt: str
    reply_1: str
    reply_2: str
    prob_2: float = schema.between(0.0, 1.0)

    def __post_init__(self):
        schema.validate(self)

    @property
    def chosen(self) -> str:
        """The reply that the person preferred."""
        return self.reply_2 if self.prob_2 > 0.5 else self.reply_1

    @property
    def rejected(self) -> str:
        """The reply that the person did not prefer."""
        return self.reply_1 if self.prob_2 > 0.5 else self.reply_2


# --- files ----------------------------------------------------------------------------


def write_text(path: epath.PathLike, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.tmp"
    temporary.write_bytes(text.encode())
    temporary.replace(path)


def write_json(path: epath.PathLike, value: Any) -> None:
    """Write one JSON value, indented for people, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _line(row: Any) -> str:
    return json.dumps(schema.to_dict(row), ensure_ascii=False, allow_nan=False) + "\n"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def write_jsonl(path: epath.PathLike, rows: Iterable[Any]) -> None:
    """Write records (or mappings), one a line, atomically."""
    write_text(path, "".join(_line(row) for row in rows))


def read_jsonl(
    path: epath.PathLike, cls: type = dict, *, drop_truncated: bool = False
) -> list[Any]:
    """Return the records of a file, in order; empty lines are skipped.

    Args:
      path: a file with one JSON object a line.
      cls: a record class of this module, or `dict` for the plain objects.
      drop_truncated: leave out a last line that a killed writer cut short, instead of
        refusing the file.

    Returns:
      A list of `cls`. A broken line is a ValueError that names file, line and field.
    """
    path = epath.Path(path)
    lines = path.read_bytes().split(b"\n")  # the last entry follows the last newline
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            records.append(row if cls is dict else schema.from_dict(cls, row))
        except ValueError as error:  # a JSON or UTF-8 error is a ValueError too
            broken = isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
            if broken and number == len(lines):
                if drop_truncated:
                    continue
                raise ValueError(
                    f"{path}:{number}: the last line is cut short (a writer was "
                    "killed); delete that line, or read with drop_truncated=True"
                ) from error
            what = f"not JSON ({error})" if broken else str(error)
            raise ValueError(f"{path}:{number}: {what}") from error
    return records


# --- finished stages ------------------------------------------------------------------


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, ensure_ascii=True)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that depend on the values, not on their order."""
    return hashlib.blake2b(_canonical(config).encode(), digest_size=8).hexdigest()


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def diff_configs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each dotted field whose value differs, sorted by name."""
    flat_old, flat_new = (_flatten(json.loads(_canonical(c))) for c in (old, new))
    lines = []
    for name in sorted(flat_old.keys() | flat_new.keys()):
        before, now = (
            json.dumps(flat[name]) if name in flat else "absent"
            for flat in (flat_old, flat_new)
        )
        if before != now:
            lines.append(f"{name}: was {before}, now {now}")
    return lines


def mark_done(
    folder: epath.PathLike, config: Mapping[str, Any], summary: Mapping[str, Any]
) -> None:
    """Mark a stage's folder as finished under `config`; written last, atomically."""
    mark = {
        "config_hash": config_hash(config),
        "config": json.loads(_canonical(config)),
        "summary": dict(summary),
    }
    write_json(epath.Path(folder) / DONE, mark)


def check_done(folder: epath.PathLike, config: Mapping[str, Any]) -> bool:
    """Say whether the stage in `folder` is finished under this very config.

    Raises:
      ValueError: it is finished under another config; the differences are listed.
    """
    path = epath.Path(folder) / DONE
    if not path.exists():
        return False
    mark = json.loads(path.read_bytes())
    if mark["config_hash"] == config_hash(config):
        return True
    differences = "\n  ".join(diff_configs(mark["config"], config))
    raise ValueError(
        f"{path} was made with another config:\n  {differences}\nChoose another "
        "workdir, restore these values, or delete the folder to run the stage again."
    )


def read_summary(folder: epath.PathLike) -> dict[str, Any]:
    """Return the summary that a finished stage left in its DONE mark."""
    path = epath.Path(folder) / DONE
    if not path.exists():
        raise ValueError(f"{path} does not exist; run that stage first")
    return json.loads(path.read_bytes())["summary"]


# --- keys -----------------------------------------------------------------------------


def _digest(root_seed: int, parts: tuple[str | int, ...]) -> bytes:
    typed = [p if isinstance(p, str) else operator.index(p) for p in parts]
    text = json.dumps([operator.index(root_seed), *typed])
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def seed_words(root_seed: int, *parts: str | int) -> tuple[int, int]:
    """Return two uint32 words, a function of the arguments on every platform.

    They are the raw key of one random decision. The parts say which decision it is:
    (phase, prompt id or step, side, try). `1` and `"1"` are different parts.
    """
    digest = _digest(root_seed, parts)
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")


def seed_choice(num: int, root_seed: int, *parts: str | int) -> int:
    """Return a uniform index in [0, num) that the same parts always give again."""
    if num < 1:
        raise ValueError(f"there are {num} things to choose from; accepted: 1 or more")
    return int.from_bytes(_digest(root_seed, parts), "little") % num
