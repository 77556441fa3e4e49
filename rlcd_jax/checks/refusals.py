"""Whether a run can go through, told before its first stage makes anything.

In order: each value, fields that go together, the workdir, mesh and model, then what
is read and how much comes of it. What one of these finds wrong, the later ones could
not look at; what they find together is one message. Weights are not read.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from rlcd_jax import dotted, sharding, stages, trackers
from rlcd_jax.checks import disk, fields, kinds, rules, supplies
from rlcd_jax.job import kernels, roles, setup, trainer, workspace
from rlcd_jax.ppo import reply_rows


def check_config(config: ConfigDict) -> None:
    """Refuse a config with a value that its field does not accept.

    Raises:
      ValueError: with one line for each such field: its name, the value, what is
        accepted, and an example of it.
    """
    refuse(problems(config))


def check_run(
    config: ConfigDict, workdir: str | pathlib.Path, names: Sequence[str]
) -> None:
    """Refuse a run that cannot go through; say what of the data it leaves out.

    Raises:
      ValueError: with one line for each thing that is wrong.
    """
    refuse(verdict(config, workdir, names))


def check_labels(config: ConfigDict, fresh: ConfigDict, source: str) -> None:
    """Refuse fields that were set alone although others follow from them.

    Setting such a field by itself would change what a run is called, and not what it
    does.

    Args:
      config: as the command line made it.
      fresh: as its file makes it from the same argument.
      source: the file with its argument, for the message.
    """
    before, lines = dotted.flatten(fresh.to_dict()), []
    for name, value in dotted.flatten(config.to_dict()).items():
        argument = fields.FIELDS[name].argument if name in fields.FIELDS else ""
        if not argument or value == before[name]:
            continue
        file, _, others = source.partition(":")
        kept = [one for one in others.split(",") if one.partition("=")[0] != argument]
        instead = f"{file}:" + ",".join(filter(None, (f"{argument}={value}", *kept)))
        if argument == "config file":
            instead = "with the file of the method you want"
        lines.append(
            f"--config.{name}={value} would change the name and not the values that "
            f"come with it; accepted: --config {instead}"
        )
    refuse(lines)


def refuse(lines: Sequence[str]) -> None:
    """Raise one ValueError that holds all lines; none raises nothing."""
    if len(lines) == 1:
        raise ValueError(lines[0])
    if lines:
        listed = "\n  ".join(lines)
        raise ValueError(f"{len(lines)} things must be changed:\n  {listed}")


def verdict(
    config: ConfigDict,
    workdir: str | pathlib.Path | None = None,
    names: Sequence[str] = (),
    num_devices: int | None = None,
) -> list[str]:
    """Return what is wrong with a run, a line each; nothing if it can go through.

    Args:
      config: of the run.
      workdir: its folder; None: a new one, on a disk that is not known.
      names: of the stages to run, in order; those of the config if empty.
      num_devices: of other machines that the run is planned for. Then what is on this
        one is not looked at: devices, model files, other runs.
    """
    told = problems(config)
    names = tuple(names or config.stages)
    told += [
        f"unknown stage {name!r}; accepted: {', '.join(stages.STAGES)}, {stages.ALL}"
        for name in names
        if name not in stages.STAGES
    ]
    if told:
        return told
    # A run's later stages are checked with those asked for now; a plan is of these.
    later = config.stages if num_devices is None else ()
    every = [s for s in stages.STAGES if s in (*names, *later)]
    told = rules.problems(config, every)
    told += trackers.missing(config.trackers) if num_devices is None else []
    left = list(names)
    if workdir is not None:
        told += _tell(lambda: workspace.check_folder(workdir))
        told += _tell(lambda: _leave_finished(config, workdir, left))
    if not left:  # all is done: nothing is read any more
        return told
    told += _devices(config, every, num_devices)
    if told:
        return told
    if num_devices is not None:
        look = supplies.Look(config, {}, None, every, ())
        return _tell(lambda: supplies.counts(look))
    jobs, told = _find_models(config, left)
    if told:
        return told
    look = supplies.Look(config, jobs, workdir, every, tuple(left))
    for part in (
        supplies.chat_formats,
        supplies.sources,
        supplies.counts,
        supplies.positions,
        disk.problems,
    ):
        told += _tell(lambda part=part: part(look))
    return told


def _find_models(
    config: ConfigDict, names: Sequence[str]
) -> tuple[dict[str, setup.Job], list[str]]:
    """Return the jobs with the model of each role in stages, and what is wrong.

    A model of several roles is looked for once.
    """
    asked = [role for name in names for role in roles.asked(config, name)]
    jobs: dict[str, setup.Job] = {}
    told: dict[str, str] = {}  # by spec
    for role in dict.fromkeys(asked or [roles.POLICY]):
        spec = roles.spec_of(config.model, role)
        known = [job for job in jobs.values() if job.is_model_of(role)]
        try:
            if spec not in told:
                jobs[role] = (
                    known[0].of(role) if known else setup.load_job(config, role=role)
                )
        except (ValueError, OSError) as error:
            told[spec] = str(error)
    return jobs, [*told.values()]


def problems(config: ConfigDict) -> list[str]:
    """Return a line for each field whose value is not accepted."""
    values = dotted.flatten(config.to_dict())
    others = "accepted: those of configs.common"
    return kinds.problems(fields.FIELDS, values, others)


def _tell(check: Callable[[], Sequence[str] | None]) -> list[str]:
    """Return what a check says, or its error, as lines."""
    try:
        return list(check() or ())
    except (ValueError, OSError) as error:
        return [str(error)]


def _leave_finished(
    config: ConfigDict, workdir: str | pathlib.Path, left: list[str]
) -> None:
    """Take the finished stages out of `left`."""
    for name in tuple(left):
        if workspace.finished(config, workdir, name):
            left.remove(name)


def _devices(
    config: ConfigDict, names: Sequence[str], num_devices: int | None
) -> list[str]:
    """Return what does not fit the devices: the mesh, and batches on it."""
    told = []
    sizes = setup.mesh_sizes(config)
    if num_devices is None:
        attention, here = config.model.attention, jax.default_backend()
        told += filter(None, [kernels.problem(attention, here)])
    try:
        if num_devices is None:
            mesh: Any = sharding.make_mesh(**sizes)
        else:
            mesh = sharding.abstract_mesh(**sizes, num_devices=num_devices)
    except ValueError as error:
        return [*told, str(error)]
    ways = sharding.batch_ways(mesh)
    for stage in (stages.STAGES[name] for name in names):
        section = config[stage.section]
        try:
            if stage.batch:
                size = section[stage.batch]
                if stage.name == "policy":
                    size = reply_rows.rows_of_update(section)
                trainer.micro_batches(stage.name, size, section.micro_batch, ways)
        except ValueError as error:
            told.append(str(error))
    return told
