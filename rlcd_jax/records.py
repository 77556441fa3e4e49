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

from rlcd_jax import jsonl, schema

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
    """A dialogue that waits for the assistant: the last turn is the human's.

    `draw` says which of several draws of the prompt this is; None: there is one.
    """

    id: str
    turns: tuple[Turn, ...]
    draw: int | None = schema.between(0, default=None)

    def __post_init__(self):
        schema.validate(self)
        if not self.id.strip():
            raise ValueError(
                f"field 'id' is {self.id!r}; accepted: text that is not blank"
            )
        if not self.turns or self.turns[-1].role != "human":
            last = self.turns[-1].role if self.turns else "nothing"
            raise ValueError(
                f"field 'turns' of prompt {self.id!r} ends with {last}; accepted: one "
                "or more turns, the last one 'human'"
            )

    @property
    def key(self) -> str:
        """The prompt and its draw as one text; see `draw_key`."""
        return draw_key(self.id, self.draw)


def draw_key(prompt_id: str, draw: int | None) -> str:
    """Return the one text that stands for a draw of a prompt: "p", "p#0", "p#1".

    A "#" of the id itself is doubled, so that no id has the text of a draw of another:
    only before a draw is the number of "#" odd. Keys of randomness, ids of pairs and
    titles are made of it; nothing is ever read back from it.
    """
    own = prompt_id.replace("#", "##")
    return own if draw is None else f"{own}#{draw}"


def key_of(row: Any) -> str:
    """Return the `draw_key` of what a record with `prompt_id` and `draw` is about."""
    return draw_key(row.prompt_id, row.draw)


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
    draw: int | None = schema.between(
        0, default=None
    )  # of the prompt; None: there is one

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
    draw: int | None = schema.between(0, default=None)

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
      A row without the field `draw` is of a prompt's only draw; with a "#" in its
      prompt id, where older files wrote the draw, it is refused.
    """
    found = []
    for number, row in jsonl.read(path, drop_truncated=drop_truncated):
        try:
            if cls is not dict:
                row = schema.from_dict(cls, with_draw(cls, row))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
        found.append(row)
    return found


def with_draw(cls: type, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row of a record of `cls` with its draw, or refuse it; see above."""
    names = {field.name for field in dataclasses.fields(cls)}
    if "draw" not in names or "draw" in row:
        return row
    prompt_id = row.get("prompt_id")
    if isinstance(prompt_id, str) and "#" in prompt_id:
        raise ValueError(
            f"missing field 'draw', and field 'prompt_id' is {prompt_id!r}: older "
            'versions wrote draw n of prompt p as "p#n"; make the file again, or add '
            'the field: a number from 0, or null where "#" belongs to the id'
        )
    return {**row, "draw": None}


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
    mark = jsonl.parse_object(path.read_bytes(), str(path))
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
    return jsonl.parse_object(path.read_bytes(), str(path))["summary"]


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
