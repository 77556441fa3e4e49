"""A command on all hosts of one TPU slice, by gcloud: make it, set it up, run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from rlcd_jax.launching import jobs as cluster_jobs
from rlcd_jax.launching import site as sites

QUEUES = False  # one job only
SUBMIT = ("bash", "-s")
NAME = r"[A-Za-z0-9.:-]+"


@dataclasses.dataclass(frozen=True)
class Site:
    """Values of a project of Google Cloud."""

    name: str = sites.value("rlcd-jax", "of the TPU, made if absent", pattern=NAME)
    zone: str = sites.value("us-east5-a", "where it is", pattern=NAME)
    project: str = sites.value(
        "", "that pays; empty: gcloud's own", pattern=f"({NAME})?"
    )
    accelerator: str = sites.value("v5p-16", "type of the slice", pattern=NAME)
    runtime: str = sites.value("v2-alpha-tpuv5", "software of the hosts", pattern=NAME)
    source: str = sites.value(".", "folder of this project here, copied to each host")
    folder: str = sites.value("rlcd_jax", "its name in the home of each host")
    setup: str = sites.value(
        "pip install --quiet -e '.[tpu]'", "line of shell there, before the command"
    )
    python: str = sites.value("python3", "the interpreter, in shell")


def script(
    jobs: Sequence[cluster_jobs.ClusterJob], site: Site, workdir: str, command: str
) -> str:
    """Return a script of bash that runs a command on all hosts of a slice.

    Args:
      jobs: one; a slice has nothing that could run several.
      site: values of the project.
      workdir: folder of the run, which all hosts see.
      command: that this script is made by.

    Raises:
      ValueError: there are several jobs.
    """
    if len(jobs) > 1 or jobs[0].parts:
        raise ValueError(
            "--parts with --target tpu-vm: one slice runs one command, and nothing "
            "queues the others; leave --parts out, or take --target gke"
        )
    where = [site.name, f"--zone={site.zone}"]
    where += [f"--project={site.project}"] if site.project else []
    tpu = "gcloud compute tpus tpu-vm"
    place = shlex.join(where)
    folder = shlex.quote(site.folder)
    install = f"cd {folder} && {site.setup or 'true'}"
    run = f"cd {folder} && {jobs[0].command(site.python)}"
    lines = [
        "#!/usr/bin/env bash",
        *sites.head(
            command,
            site,
            "Runs one command on all hosts of a TPU slice; run again it goes on.",
            f"All hosts must see {workdir}: mount one file system there (Filestore).",
        ),
        "set -euo pipefail",
        "",
        f"{tpu} describe {place} >/dev/null 2>&1 ||",
        f"  {tpu} create {place} --accelerator-type={shlex.quote(site.accelerator)} \\",
        f"    --version={shlex.quote(site.runtime)}",
        f"{tpu} scp --recurse --worker=all {shlex.quote(site.source)} \\",
        f"  {shlex.quote(f'{site.name}:{site.folder}')} {shlex.join(where[1:])}",
        f"{tpu} ssh {place} --worker=all --command={shlex.quote(install)}",
        f"{tpu} ssh {place} --worker=all --command={shlex.quote(run)}",
        "# When the results are elsewhere:",
        f"# {tpu} delete {place} --quiet",
    ]
    return "\n".join(lines) + "\n"
