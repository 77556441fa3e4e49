"""The mark of a finished stage: the config it belongs to, and its summary."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from rlcd_jax import dotted, jsonl, record_files

DONE = "DONE"
LONGEST = 200  # characters of a value in a message


# --- finished stages ------------------------------------------------------------------


def _canonical(config: Mapping[str, Any]) -> str:
    return json.dumps(config, sort_keys=True, ensure_ascii=True)


def config_hash(config: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that depend on the values, not on their order."""
    return hashlib.blake2b(_canonical(config).encode(), digest_size=8).hexdigest()


def diff_configs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return a line for each dotted field whose value differs, sorted by name."""
    flat_old, flat_new = (dotted.flatten(json.loads(_canonical(c))) for c in (old, new))
    lines = []
    for name in sorted(flat_old.keys() | flat_new.keys()):
        before, now = (
            json.dumps(flat[name]) if name in flat else "absent"
            for flat in (flat_old, flat_new)
        )
        if before != now:
            lines.append(f"{_cut(name)}: was {_cut(before)}, now {_cut(now)}")
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def mark_done(
    folder: epath.PathLike,
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    contents: Mapping[str, Any] | None = None,
) -> None:
    """Mark a stage's folder as finished under `config`; written last, atomically.

    Args:
      folder: of the stage.
      config: what its result depends on.
      summary: of the stage.
      contents: hashes of what it has read and written; None: it is no stage of a run.
    """
    mark = {
        "config_hash": config_hash(config),
        "config": json.loads(_canonical(config)),
        "summary": dict(summary),
        "contents": dict(contents or {}),
    }
    record_files.write_json(epath.Path(folder) / DONE, mark)


def check_done(folder: epath.PathLike, config: Mapping[str, Any]) -> bool:
    """Say whether the stage in `folder` is finished under this very config.

    Raises:
      ValueError: it is finished under another config; the differences are listed.
    """
    path = epath.Path(folder) / DONE
    if not path.exists():
        return False
    mark = _read(path)
    if mark["config_hash"] == config_hash(config):
        return True
    differences = "\n  ".join(diff_configs(mark["config"], config))
    raise ValueError(
        f"{path} was made with another config:\n  {differences}\nChoose another "
        "workdir, restore these values, or delete the folder to run the stage again."
    )


def read_summary(folder: epath.PathLike) -> dict[str, Any]:
    """Return the summary that a finished stage left in its DONE mark.

    Raises:
      ValueError: the stage has left no summary.
    """
    path = epath.Path(folder) / DONE
    if not path.exists():
        raise ValueError(f"{path} does not exist; run that stage first")
    return _read(path)["summary"]


def read_contents(folder: epath.PathLike) -> dict[str, Any]:
    """Return the hashes of what a finished stage has read and written, by name.

    Raises:
      ValueError: the mark is damaged.
    """
    path = epath.Path(folder) / DONE
    contents = _read(path)["contents"]
    for name, hashes in contents.items():
        if not isinstance(hashes, dict):
            raise ValueError(
                f"{path} is no mark of a stage: its contents have {name!r} as "
                f"{json.dumps(hashes)[:40]}; restore the file, or delete {path.parent} "
                "to run the stage again"
            )
    return contents


def _read(path: epath.Path) -> dict[str, Any]:
    mark = jsonl.read_object(path)
    kinds = {"config_hash": str, "config": dict, "summary": dict, "contents": dict}
    mark.setdefault("contents", {})  # of marks before there were any
    for name, kind in kinds.items():
        if not isinstance(mark.get(name), kind):
            raise ValueError(
                f"{path} is no mark of a stage: its {name!r} is "
                f"{json.dumps(mark.get(name))[:40]}; restore the file, or delete "
                f"{path.parent} to run the stage again"
            )
    if mark["config_hash"] != config_hash(mark["config"]):
        raise ValueError(
            f"{path} is damaged: its 'config' is not the one of which its "
            f"'config_hash' was made; restore the file, or delete {path.parent} to run "
            "the stage again"
        )
    return mark
