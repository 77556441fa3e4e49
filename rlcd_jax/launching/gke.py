"""Jobs for Google Kubernetes Engine: one JobSet, whose jobs start level by level.

A job of a JobSet can wait for one other only. So jobs that can start at the same time
are replicas of one job, which takes its command by its index, and each such level
waits for the level before.

Source: the types of JobSet v1alpha2 (kubernetes-sigs/jobset); GKE's node labels.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import yaml

from rlcd_jax.judging import settings as api_settings
from rlcd_jax.launching import jobs as cluster_jobs
from rlcd_jax.launching import site as sites

QUEUES = True  # several jobs, one after the other
SUBMIT = ("kubectl", "create", "-f", "-")
PORT = 8476  # of the first process, where the others find it
# Of the hosts of one slice: they share a pool of nodes, and no other job is there.
_EXCLUSIVE = {
    "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
}
NAME = r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such."""

    def represent_str(self, data: str) -> yaml.Node:
        """Return the node of a text."""
        style = "|" if "\n" in data else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_str)


@dataclasses.dataclass(frozen=True)
class Site:
    """Values of a GKE cluster."""

    image: str = sites.value(
        "rlcd-jax:latest", "container image with this project", pattern=r"\S+"
    )
    accelerator: str = sites.value(
        "tpu-v5p-slice", "GKE's name of a TPU, or of a GPU: nvidia-…", pattern=NAME
    )
    topology: str = sites.value(
        "2x2x1", "of the TPU slice; no use with GPUs", pattern=r"\d+(x\d+)+"
    )
    chips: int = sites.value(4, "accelerators of a host", least=1)
    hosts: int = sites.value(1, "hosts of a job: all of a slice's", least=1)
    claim: str = sites.value(
        "rlcd-jax", "volume claim that many hosts write (ReadWriteMany)", pattern=NAME
    )
    mount: str = sites.value("/data", "where it is mounted", pattern=r"/\S*")
    queue: str = sites.value("", "queue of Kueue; empty: none", pattern=rf"({NAME})?")
    secret: str = sites.value(
        "", f"secret with {api_settings.KEY}; empty: none", pattern=f"({NAME})?"
    )
    restarts: int = sites.value(10, "times that the set starts again after a failure")
    setup: str = sites.value("", "line of shell before the command")
    python: str = sites.value("python", "the interpreter, in shell")


def script(
    jobs: Sequence[cluster_jobs.ClusterJob], site: Site, workdir: str, command: str
) -> str:
    """Return a JobSet as YAML.

    Args:
      jobs: those that a job waits for stand before it.
      site: values of the cluster.
      workdir: folder of the run, under `site.mount`.
      command: that this script is made by.

    Raises:
      ValueError: the workdir is not on the volume, or the slice has not these hosts.
    """
    _check(jobs, site, workdir)
    name = _set_name(workdir)
    rows, before = [], ""
    for number, level in enumerate(cluster_jobs.levels(jobs)):
        # Parts have one host, other jobs all of the site's: no replicas of one job.
        for parts in (True, False):
            own = [job for job in level if bool(job.parts) == parts]
            if own:
                title = f"{'parts' if parts else 'level'}-{number}"
                rows.append(_replicated(title, name, own, site, before))
                before = title
    about: dict[str, Any] = {"name": name}
    if site.queue:
        about["labels"] = {"kueue.x-k8s.io/queue-name": site.queue}
    made = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": about,
        "spec": {
            "failurePolicy": {"maxRestarts": site.restarts},
            "replicatedJobs": rows,
        },
    }
    told = (
        f"{len(jobs)} jobs in a JobSet (0.8 or later): kubectl create -f THIS_FILE",
        "What is done is skipped when a job starts again.",
    )
    text = yaml.dump(made, Dumper=_Dumper, sort_keys=False, width=1000)
    return "\n".join([*sites.head(command, site, *told), text])


def _check(jobs: Sequence[cluster_jobs.ClusterJob], site: Site, workdir: str) -> None:
    mount = site.mount.rstrip("/")
    if not f"{workdir}/".startswith(f"{mount}/"):
        raise ValueError(
            f"--workdir={workdir} is not on the volume that all hosts see, which is "
            f"mounted at {site.mount}; give a folder below it, or another --mount"
        )
    if not _is_gpu(site):
        chips = math.prod(map(int, site.topology.split("x")))
        if chips != site.chips * site.hosts:
            raise ValueError(
                f"--topology={site.topology} has {chips} chips, and --hosts="
                f"{site.hosts} of --chips={site.chips} have {site.chips * site.hosts}; "
                f"with {site.chips} chips a host it has {chips / site.chips:g}"
            )
        if site.hosts > 1 and any(job.parts for job in jobs):
            raise ValueError(
                f"--parts are jobs of one host, and --hosts={site.hosts} of a slice "
                "cannot be taken apart; leave --parts out, or take a slice of one host"
            )


def _is_gpu(site: Site) -> bool:
    return site.accelerator.startswith("nvidia")


def _set_name(workdir: str) -> str:
    """Return a name that Kubernetes takes, of the folder's."""
    plain = re.sub(r"[^a-z0-9]+", "-", workdir.rstrip("/").rpartition("/")[2].lower())
    return f"rlcd-{plain.strip('-')[:30].strip('-') or 'run'}"


def _replicated(
    title: str,
    set_name: str,
    jobs: Sequence[cluster_jobs.ClusterJob],
    site: Site,
    before: str,
) -> dict[str, Any]:
    """Return one level: as many jobs as there are commands, picked by their index."""
    lines = [
        job.command(site.python, part)
        for job in jobs
        for part in range(1, max(job.parts, 1) + 1)
    ]
    hosts = 1 if jobs[0].parts else site.hosts
    cases = [f"{number}) exec {line} ;;" for number, line in enumerate(lines)]
    shell = ["set -euo pipefail", *([site.setup] if site.setup else [])]
    shell += ['case "$JOB_INDEX" in', *cases, "esac"]
    pod = {
        "restartPolicy": "Never",
        "nodeSelector": _selector(site),
        "containers": [
            {
                "name": "rlcd-jax",
                "image": site.image,
                "command": ["bash", "-c", "\n".join(shell)],
                "env": _environment(title, set_name, site, hosts),
                "resources": {"limits": _limits(site)},
                "volumeMounts": [{"name": "shared", "mountPath": site.mount}],
            }
        ],
        "volumes": [
            {"name": "shared", "persistentVolumeClaim": {"claimName": site.claim}}
        ],
    }
    row: dict[str, Any] = {"name": title, "replicas": len(lines)}
    if before:
        row["dependsOn"] = [{"name": before, "status": "Complete"}]
    job = {
        "completionMode": "Indexed",
        "parallelism": hosts,
        "completions": hosts,
        "backoffLimit": 0,
        "template": {"spec": pod},
    }
    row["template"] = {"spec": job}
    if hosts > 1 and not _is_gpu(site):
        row["template"] = {"metadata": {"annotations": _EXCLUSIVE}, "spec": job}
    return row


def _selector(site: Site) -> dict[str, str]:
    if _is_gpu(site):
        return {"cloud.google.com/gke-accelerator": site.accelerator}
    return {
        "cloud.google.com/gke-tpu-accelerator": site.accelerator,
        "cloud.google.com/gke-tpu-topology": site.topology,
    }


def _limits(site: Site) -> dict[str, int]:
    return {"nvidia.com/gpu" if _is_gpu(site) else "google.com/tpu": site.chips}


def _environment(
    title: str, set_name: str, site: Site, hosts: int
) -> list[dict[str, Any]]:
    """Return the variables of a host: its job's index; on GPUs, where process 0 is."""

    def annotation(name: str) -> dict[str, Any]:
        path = f"metadata.annotations['{name}']"
        return {"valueFrom": {"fieldRef": {"fieldPath": path}}}

    index = annotation("jobset.sigs.k8s.io/job-index")
    variables = [{"name": "JOB_INDEX", **index}]
    if site.secret:
        key = {"name": site.secret, "key": api_settings.KEY}
        variables.append({"name": api_settings.KEY, "valueFrom": {"secretKeyRef": key}})
    if hosts > 1 and _is_gpu(site):  # a TPU slice says it itself
        first = f"{set_name}-{title}-$(JOB_INDEX)-0.{set_name}:{PORT}"
        own = annotation("batch.kubernetes.io/job-completion-index")
        variables += [
            {"name": "JAX_COORDINATOR_ADDRESS", "value": first},
            {"name": "JAX_NUM_PROCESSES", "value": str(hosts)},
            {"name": "JAX_PROCESS_ID", **own},
        ]
    return variables
