"""Jobs for SLURM: one script that submits them all, each after those it needs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from rlcd_jax.job import joining
from rlcd_jax.launching import jobs as cluster_jobs
from rlcd_jax.launching import site as sites

QUEUES = True  # several jobs, one after the other
SUBMIT = ("bash", "-s")
SAVING = 300  # seconds before the end of its time when a job is asked to save
NAME = r"[A-Za-z0-9_.,:@/+-]*"


@dataclasses.dataclass(frozen=True)
class Site:
    """Values of a SLURM cluster."""

    partition: str = sites.value(
        "", "partition; empty: the cluster's own", pattern=NAME
    )
    account: str = sites.value("", "account that pays; empty: yours", pattern=NAME)
    time: str = sites.value(
        "24:00:00", "longest time of a job", pattern=r"(\d+-)?\d+(:\d\d){0,2}"
    )
    nodes: int = sites.value(1, "hosts of a job; a part has one", least=1)
    gpus: int = sites.value(8, "GPUs of a host; 0: none are asked for")
    cpus: int = sites.value(16, "CPUs of a host; 0: none are asked for")
    memory: str = sites.value(
        "0", "memory of a host; 0: all of it", pattern=r"\d+[KMGT]?"
    )
    setup: str = sites.value("", "line of shell before the command, e.g. modules")
    python: str = sites.value("python", "the interpreter, in shell")


def script(
    jobs: Sequence[cluster_jobs.ClusterJob], site: Site, workdir: str, command: str
) -> str:
    """Return a script of bash that submits jobs, each after those it needs.

    A job whose time is nearly over, that is preempted, or whose host dies, is queued
    again and goes on; jobs that wait for it wait on.

    Args:
      jobs: those that a job waits for stand before it.
      site: values of the cluster.
      workdir: folder of the run, which all hosts see.
      command: that this script is made by.
    """
    log = shlex.quote(f"{workdir}/log")
    number = {job.name: n for n, job in enumerate(jobs, start=1)}
    lines = [
        "#!/usr/bin/env bash",
        *sites.head(
            command,
            site,
            f"Submits {len(jobs)} jobs to SLURM from this folder, which all hosts see.",
        ),
        "set -euo pipefail",
        f"mkdir -p {log}",
        "",
        "# NAME HOSTS [flags of sbatch]: submits what it reads, and says the job's id.",
        "submit() {",
        "  local name=$1 hosts=$2",
        "  shift 2",
        f"  sbatch --parsable {shlex.join(_flags(site))} \\",
        f'    --job-name="$name" --nodes="$hosts" --output={log}/%x-%j.out "$@" |',
        "    cut -d';' -f1",
        "}",
    ]
    # SLURM 22.05 and later does not pass the CPUs of a job on to its steps.
    step = f"srun --cpus-per-task={site.cpus}" if site.cpus else "srun"
    for job in jobs:
        hosts = 1 if job.parts else site.nodes
        flags = [f"--array=1-{job.parts}"] if job.parts else []
        if job.after:
            ids = ":".join(f"$job_{number[name]}" for name in job.after)
            flags.append(f'--dependency="afterok:{ids}"')
        lines += [
            "",
            f"job_{number[job.name]}=$(",
            f"  submit {' '.join((shlex.quote(job.name), str(hosts), *flags))} <<'JOB'",
            "#!/usr/bin/env bash",
            "set -euo pipefail",
            *([site.setup] if site.setup else []),
            "status=0",
            f"{step} {job.command(site.python, '$SLURM_ARRAY_TASK_ID')} || status=$?",
            f'[ "$status" != {joining.AGAIN} ] || scontrol requeue "$SLURM_JOB_ID"',
            'exit "$status"',
            "JOB",
            ")",
            f'echo "$job_{number[job.name]} {job.name}"',
        ]
    return "\n".join(lines) + "\n"


def _flags(site: Site) -> list[str]:
    """Return the flags that all jobs share."""
    asked = {
        "partition": site.partition,
        "account": site.account,
        "time": site.time,
        "mem": site.memory,
        "gpus-per-node": site.gpus or "",
        "cpus-per-task": site.cpus or "",
    }
    named = [f"--{name}={value}" for name, value in asked.items() if value != ""]
    own = ("--ntasks-per-node=1", "--requeue", "--open-mode=append")
    return [*named, *own, f"--signal=TERM@{SAVING}", "--kill-on-invalid-dep=yes"]
