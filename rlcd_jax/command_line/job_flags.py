"""The flags that say which processes a job has, and for how long they wait."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from absl import flags

from rlcd_jax.job import hosts


@dataclasses.dataclass(frozen=True)
class JobFlags:
    """What flags say of the processes of a job; see `define`.

    Attributes:
      variables: of the environment, which they stand for.
      start_seconds: for how long missing processes are waited for.
      lost_seconds: silence after which a process is lost.
    """

    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    start_seconds: float = 300.0
    lost_seconds: float = 60.0


ALONE = JobFlags()  # of a command that was given none of them


def define(values: flags.FlagValues) -> None:
    """Define the flags of a command that runs as a job, of one process or of many."""
    flags.DEFINE_string(
        "coordinator",
        None,
        "HOST:PORT of process 0, where no launcher (SLURM, Open MPI, TPU) says it.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "Processes of the job.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "Which of them this is, from 0.", flag_values=values
    )
    flags.DEFINE_float(
        "start_seconds",
        ALONE.start_seconds,
        "For how long missing processes are waited for.",
        lower_bound=1.0,
        flag_values=values,
    )
    flags.DEFINE_float(
        "lost_seconds",
        ALONE.lost_seconds,
        "Silence after which a process is lost, and all end.",
        lower_bound=5.0,
        flag_values=values,
    )


def read(values: flags.FlagValues) -> JobFlags:
    """Return what the flags of `define` say, as variables of the environment."""
    typed = {
        hosts.COORDINATOR: values.coordinator,
        hosts.COUNT: values.num_processes,
        hosts.INDEX: values.process_id,
    }
    variables = {name: str(one) for name, one in typed.items() if one is not None}
    return JobFlags(variables, values.start_seconds, values.lost_seconds)
