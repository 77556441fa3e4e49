"""What a stage reads and what it leaves, by content: hashes under names people know.

Paths may change when a run is moved; what lies there may not. Each stage notes the
hashes when it begins and in its mark, so that a prompt file that was edited, another
folder of human pairs, or a line removed from pairs.jsonl is told by its name, and
nothing is computed of things that do not belong together.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from importlib import resources

from ml_collections import ConfigDict

from rlcd_jax import checkpoint, done_mark, stages, tasks
from rlcd_jax.datasets import comparisons
from rlcd_jax.job import facts, roles, setup
from rlcd_jax.pairs import few_shots
from rlcd_jax.weights import resolve

# Of a stage's folder, what is no result of it: written anew, or told elsewhere.
NOT_RESULTS = ("config.json", "inputs.json", "summary.json", "DONE")
WEIGHTS = ("checkpoints", "chosen")  # folders of checkpoints, told by their hashes
APART = (*WEIGHTS, "parts")
RESULTS = (".json", ".jsonl", ".md")  # endings


def inputs(config: ConfigDict, workdir: str | os.PathLike[str], stage: str) -> dict:
    """Return the hash of all that a stage reads, by name.

    Files of other stages are named by their place in the workdir; a file or folder
    that is not there has no entry.

    Args:
      config: of the run.
      workdir: its folder.
      stage: its name.
    """
    found = dict(_given(config)) | dict(_models(config, stage))
    for read in stages.STAGES[stage].reads:
        folder = pathlib.Path(workdir, stages.STAGES[read].folder)
        for name, value in outputs(folder).items():
            if name in _read_of(config, stage, read):
                found[f"{folder.name}/{name}"] = value
    data = config.preference.data
    if stages.STAGES[stage].texts == 2 and comparisons.is_named(data):
        path = pathlib.Path(comparisons.split_name(data)[1])
        if path.exists():
            found[f"preference.data={data}"] = facts.content_hash(path)
    if stage == "evaluate":
        found |= dict(_of_other_runs(config))
    for entry in config.policy.rewards if stage == "policy" else ():
        run = entry.partition("=")[2].rpartition(":")[0]
        if weights := _preference_hash(run):
            found[f"policy.rewards, {entry}"] = weights
    return found


def outputs(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Return the hash of each file that a stage has left, by its name in the folder.

    Checkpoints are told by the latest step and the hashes that lie beside its arrays.
    """
    folder = pathlib.Path(folder)
    found = {}
    for top in sorted(folder.iterdir()) if folder.is_dir() else ():
        if top.name in (*APART, *NOT_RESULTS) or top.name.startswith("."):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else (top,):
            if path.is_file() and path.suffix in RESULTS:
                found[path.relative_to(folder).as_posix()] = file_hash(path)
    for name in WEIGHTS:
        if weights := weights_hash(folder / name):
            found[name] = weights
    return found


def changed(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return a line for each name whose content is another, in order."""
    lines = []
    for name in sorted(before.keys() | now.keys()):
        if name not in now:
            lines.append(f"{name} is not there any more")
        elif name not in before:
            lines.append(f"{name} was not there")
        elif before[name] != now[name]:
            lines.append(f"{name} has changed")
    return lines


def weights_hash(folder: str | os.PathLike[str]) -> str:
    """Return the latest step of a folder of checkpoints, with a hash; "": none."""
    if not pathlib.Path(folder).is_dir():
        return ""
    step = checkpoint.latest_step(folder)
    if step is None:
        return ""
    hashes = checkpoint.array_hashes(folder, step)
    return f"step {step} {done_mark.config_hash(hashes)}"


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return 16 hexadecimal digits of a file, read once for each time it is written."""
    path = pathlib.Path(path).resolve()
    state = path.stat()
    return _file_hash(path, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=1024)
def _file_hash(path: pathlib.Path, *state: int) -> str:
    del state
    with open(path, "rb") as file:
        whole = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
    return whole.hexdigest()


def _given(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Yield what a config names outside of the run: task, prompts, pairs."""
    task = tasks.load_task(config.task)
    inside = resources.files(tasks)
    folder = None if task.folder is None else pathlib.Path(task.folder)
    file = pathlib.Path(config.task) if folder else inside.joinpath(f"{task.name}.toml")
    yield f"the task {config.task}", file_hash(file)
    if task.prompts.file and config.prompts.source == "package":
        own = pathlib.Path(task.prompts.file).expanduser()
        path = folder / own if folder else inside.joinpath(str(own))
        if path.is_file():
            yield f"the task's prompts, {task.prompts.file}", file_hash(path)
    for field, value in (
        ("prompts.source", config.prompts.source),
        ("official_wording", config.official_wording),
        ("pairs.shots", few_shots.path_of(config.pairs.shots)),
    ):
        path = facts.as_path(value)
        if path is not None:
            yield f"{field}={value}", facts.content_hash(path)
    if config.prompts.hh_dir and task.hh_config:
        pairs = pathlib.Path(config.prompts.hh_dir).expanduser() / task.hh_config
        for path in sorted(pairs.glob("*.jsonl.gz")):
            yield f"prompts.hh_dir, {task.hh_config}/{path.name}", file_hash(path)


def _models(config: ConfigDict, stage: str) -> Iterator[tuple[str, str]]:
    """Yield the files of each model that a stage reads or trains."""
    for role in roles.asked(config, stage):
        spec = roles.spec_of(config.model, role)
        if spec.startswith(setup.RANDOM) or spec == resolve.EMBEDDED:
            continue
        path = facts.as_path(spec)  # what is fetched by name is checked by its fetching
        if path is not None:
            field = roles.field_of(config.model, role)
            yield f"{field}={spec}", facts.content_hash(path)


def _read_of(config: ConfigDict, stage: str, read: str) -> tuple[str, ...]:
    """Return which outputs of another stage a stage reads."""
    if read == "simulate":
        compares = stages.STAGES[stage].texts == 2
        human = compares and config.preference.data != "pairs"
        return () if human else ("pairs.jsonl",)
    if stage == "evaluate":
        # Of the preference model for the best of several replies.
        asked = stages.BEST_OF if read == "preference" else read
        if asked not in config.evaluate.systems:
            return ()
    if read == "policy" and config.policy.choose == "dev_score":
        return ("chosen",)
    return ("checkpoints",)


def _of_other_runs(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Yield the weights of other runs that an evaluation reads."""
    for entry in config.evaluate.checkpoints:
        folder = pathlib.Path(entry.partition("=")[2])
        for inside in ("", "chosen", "checkpoints"):
            if weights := weights_hash(folder / inside):
                yield f"evaluate.checkpoints, {entry}", weights
                break
    judge = config.evaluate.preference_judge
    if judge and (weights := _preference_hash(judge)):
        yield f"evaluate.preference_judge={judge}", weights


def _preference_hash(run: str) -> str:
    """Return the latest step of another run's preference model, with a hash."""
    folder = stages.STAGES["preference"].folder
    return weights_hash(pathlib.Path(run, folder, "checkpoints"))
