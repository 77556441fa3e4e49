"""Which processes make up a job, by what their launcher has set.

Everything here is a function of the environment as a mapping: of variables set by
hand, else of Open MPI, SLURM or a TPU slice. A job whose variables say too little is
refused with those that are missing.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Iterable, Mapping

# By hand, or by the flags of commands; they go before what a launcher has set.
COORDINATOR = "JAX_COORDINATOR_ADDRESS"  # host:port of process 0
COUNT = "JAX_NUM_PROCESSES"
INDEX = "JAX_PROCESS_ID"
DEVICES = "JAX_LOCAL_DEVICE_IDS"  # of this process, "0,1"
MOST = 100_000  # processes of a job, nodes of a list, and devices of a host
LONGEST_LIST = 1_000_000  # characters
# Of a name: letters, digits and these; a range is in brackets.
_RANGE = r"\d{1,9}(-\d{1,9})?"
_NODE = rf"[\w.:-]+(\[{_RANGE}(,{_RANGE})*\][\w.:-]*)?"
NODES = re.compile(rf"{_NODE}(,{_NODE})*", re.ASCII)
TPU_PORT = 8482  # JAX's own choice; 8470 to 8479 are taken by the TPU runtime


@dataclasses.dataclass(frozen=True)
class Hosts:
    """The processes of a job, and which of them this one is.

    Attributes:
      source: who says so, in words.
      coordinator: address of process 0, "host:port".
      count: of the processes.
      index: of this process, from 0.
      devices: of this host that are this process's, by number; None: all it sees.
      names: of the host of each process; (): not known.
    """

    source: str
    coordinator: str
    count: int
    index: int
    devices: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()

    def name(self, index: int) -> str:
        """Return a process in words, with its host where that is known."""
        known = f" (host {self.names[index]})" if index < len(self.names) else ""
        return f"process {index}{known}"


def find(environ: Mapping[str, str]) -> Hosts | None:
    """Return the processes of this job; None: this process is the only one.

    Args:
      environ: variables; on a TPU VM with those of `tpu_metadata`.

    Raises:
      ValueError: the variables contradict each other or say too little.
    """
    by_hand = {n: environ[n] for n in (COORDINATOR, COUNT, INDEX) if environ.get(n)}
    hosts = None
    if len(by_hand) < 3:
        looks = (_of_open_mpi, _of_slurm, _of_tpu)
        hosts = next((one for look in looks if (one := look(environ))), None)
    if not by_hand and hosts is None:
        return None
    if hosts is None:
        hosts = _by_hand(environ, by_hand)
    else:
        hosts = dataclasses.replace(
            hosts,
            coordinator=by_hand.get(COORDINATOR, hosts.coordinator),
            count=_number(environ, COUNT) if COUNT in by_hand else hosts.count,
            index=_number(environ, INDEX) if INDEX in by_hand else hosts.index,
        )
    if environ.get(DEVICES):
        hosts = dataclasses.replace(hosts, devices=_devices_by_hand(environ))
    return _checked(hosts)


def _by_hand(environ: Mapping[str, str], by_hand: Mapping[str, str]) -> Hosts:
    missing = [name for name in (COORDINATOR, COUNT, INDEX) if name not in by_hand]
    if missing:
        raise ValueError(
            f"{_all(by_hand)} set, which makes this process one of several, but "
            f"{_all(missing)} not, and no launcher (SLURM, Open MPI, a TPU slice) is "
            f"seen; set in each process {COORDINATOR}=HOST:PORT of process 0, "
            f"{COUNT}=N and {INDEX}=0 to N-1, or give --coordinator, --num_processes "
            "and --process_id; a single process needs none of them"
        )
    return Hosts(
        source="variables",
        coordinator=by_hand[COORDINATOR],
        count=_number(environ, COUNT),
        index=_number(environ, INDEX),
    )


def _of_open_mpi(environ: Mapping[str, str]) -> Hosts | None:
    """Return what mpirun of Open MPI says; process 0 is on the host that started it."""
    size, rank = "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"
    if size not in environ or _number(environ, size) == 1:
        return None
    local, here = "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
    return Hosts(
        source="Open MPI",
        coordinator=environ.get(COORDINATOR) or _mpi_coordinator(environ),
        count=_number(environ, size),
        index=_number(environ, rank),
        devices=_own_devices(environ, _number(environ, local), _number(environ, here)),
    )


def _mpi_coordinator(environ: Mapping[str, str]) -> str:
    # 4: "1531576320.0;tcp://10.96.0.1,10.148.0.1:34911"; 5: "prterun-HOST-PID@1".
    uri, space = environ.get("OMPI_MCA_orte_hnp_uri", ""), environ.get("PMIX_NAMESPACE")
    if match := re.search(r"tcp://(.+?)[,:]|tcp6://\[(.+?)[,\]]", uri):
        return f"{match[1] or match[2]}:{_port(uri.partition('.')[0])}"
    if match := re.fullmatch(r"prterun-(.+)-\d+@\d+", space or ""):
        return f"{match[1]}:{_port(space or '')}"
    raise ValueError(
        "Open MPI does not say on which host mpirun runs (neither "
        f"OMPI_MCA_orte_hnp_uri nor PMIX_NAMESPACE); start it with -x {COORDINATOR}="
        "HOST:PORT, of the host of rank 0"
    )


def _of_slurm(environ: Mapping[str, str]) -> Hosts | None:
    """Return what srun says of its step: one task a node, or several."""
    if "SLURM_JOB_ID" not in environ or environ.get("SLURM_NTASKS", "1") == "1":
        return None
    if "SLURM_STEP_NODELIST" not in environ or "SLURM_LOCALID" not in environ:
        raise ValueError(
            f"SLURM gave this job {environ['SLURM_NTASKS'][:40]} tasks, and this "
            "process was not started by srun; write `srun python …`, or ask for "
            "--ntasks=1 "
            "(or unset SLURM_NTASKS) for a single process"
        )
    nodes = expand_nodes(environ["SLURM_STEP_NODELIST"])
    count, index = _number(environ, "SLURM_NTASKS"), _number(environ, "SLURM_PROCID")
    tasks = _tasks_per_node(environ, len(nodes), count)
    node = _number(environ, "SLURM_NODEID") if "SLURM_NODEID" in environ else 0
    place = _number(environ, "SLURM_LOCALID")
    if node >= len(nodes) or place >= tasks[node]:
        raise ValueError(
            f"SLURM_NODEID={node} and SLURM_LOCALID={place} are of no task of "
            f"{len(nodes)} nodes with {tasks[:8]} tasks; start the command by srun"
        )
    names = tuple(n for n, num in zip(nodes, tasks, strict=True) for _ in range(num))
    in_blocks = "cyclic" not in environ.get("SLURM_DISTRIBUTION", "block")
    return Hosts(
        source="SLURM",
        coordinator=f"{nodes[0]}:{_port(environ['SLURM_JOB_ID'])}",
        count=count,
        index=index,
        devices=_own_devices(environ, place, tasks[node]),
        names=names if in_blocks or max(tasks) == 1 else (),
    )


def expand_nodes(listed: str) -> list[str]:
    """Return the names in a list of SLURM's: "gpu[01-03,7],login" has five."""
    names: list[str] = []
    if not (len(listed) <= LONGEST_LIST and NODES.fullmatch(listed)):
        raise _strange_nodes(listed)
    for prefix, ranges, suffix in re.findall(
        r"([^,\[]+)(?:\[([^\]]*)\])?([^,\[]*)", listed
    ):
        if not ranges:
            names.append(prefix + suffix)
            continue
        for part in ranges.split(","):
            low, _, high = part.partition("-")
            first, last = int(low), int(high or low)
            if not first <= last < first + MOST - len(names):
                raise _strange_nodes(listed)
            names += [
                f"{prefix}{number:0{len(low)}d}{suffix}"
                for number in range(first, last + 1)
            ]
    return names


def _strange_nodes(listed: str) -> ValueError:
    return ValueError(
        f"SLURM_STEP_NODELIST is {listed[:80]!r}; accepted: names of up to {MOST} "
        "nodes, such as gpu[01-03,7],login"
    )


def _tasks_per_node(
    environ: Mapping[str, str], num_nodes: int, count: int
) -> list[int]:
    """Return how many tasks each node has: "8(x2),4" is 8, 8, 4."""
    name = "SLURM_STEP_TASKS_PER_NODE"
    tasks: list[int] = []
    for one in filter(None, environ.get(name, "").split(",")):
        match = re.fullmatch(r"([0-9]{1,6})(?:\(x([0-9]{1,6})\))?", one)
        if not match or len(tasks) + int(match[2] or 1) > MOST:
            raise ValueError(
                f"{name}={environ[name][:40]!r}; accepted: such as 8(x2),4"
            )
        tasks += [int(match[1])] * int(match[2] or 1)
    if not tasks and count % num_nodes == 0:
        tasks = [count // num_nodes] * num_nodes
    if len(tasks) != num_nodes or sum(tasks) != count:
        raise ValueError(
            f"SLURM_NTASKS={count}, but {name}={environ.get(name, '')[:40]!r} on "
            f"{num_nodes} nodes has {sum(tasks)} tasks; give srun the same --ntasks "
            "as the job"
        )
    return tasks


def _of_tpu(environ: Mapping[str, str]) -> Hosts | None:
    """Return what GKE, xpk or a TPU VM says of a slice, or of several slices."""
    listed = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if not listed:
        return None
    names = [one.strip() for one in listed.split(",")]
    slices, own = 1, 0
    if environ.get("MEGASCALE_NUM_SLICES"):
        slices = _number(environ, "MEGASCALE_NUM_SLICES")
        own = _number(environ, "MEGASCALE_SLICE_ID") if slices > 1 else 0
    if len(names) * slices == 1:
        return None
    worker = _number(environ, "TPU_WORKER_ID")
    if worker >= len(names) or own >= slices or not all(map(_is_name, names)):
        raise ValueError(
            f"TPU_WORKER_ID={worker} of {len(names)} hosts ({listed[:80]!r}), slice "
            f"{own} of {slices}; accepted: a host's name for each worker, and numbers "
            "of one of them"
        )
    first = environ.get("MEGASCALE_COORDINATOR_ADDRESS") if slices > 1 else names[0]
    if not first:
        raise ValueError(
            f"MEGASCALE_NUM_SLICES={slices} but MEGASCALE_COORDINATOR_ADDRESS is not "
            "set; set it to the host of worker 0 of slice 0"
        )
    return Hosts(
        source="TPU slice" if slices == 1 else f"{slices} TPU slices",
        coordinator=f"{first.partition(':')[0]}:{TPU_PORT}",
        count=len(names) * slices,
        index=worker + own * len(names),
        names=tuple(names) if slices == 1 else (),
    )


def _own_devices(
    environ: Mapping[str, str], place: int, tasks: int
) -> tuple[int, ...] | None:
    """Return which of a host's GPUs are those of one of its processes.

    A process alone on its host has all. Several share evenly what each of them sees,
    unless the launcher has shown each its own only.

    Args:
      environ: variables.
      place: of the process on its host, from 0.
      tasks: processes on the host.
    """
    if place >= tasks:
        raise ValueError(
            f"the launcher calls this process number {place} of {tasks} on its host; "
            f"accepted: numbers from 0 to {tasks - 1}"
        )
    if tasks == 1:
        return None
    shown = environ.get("CUDA_VISIBLE_DEVICES")
    total = environ.get("SLURM_GPUS_ON_NODE", "")
    seen = len([one for one in shown.split(",") if one]) if shown is not None else None
    if seen is None and _is_count(total):
        seen = int(total)
    if seen is None:
        return (place,)  # not known; on CPUs it means nothing
    if seen == 0:
        return None
    if seen == 1 or (_is_count(total) and seen * tasks == int(total)):
        return None  # each sees its own
    if seen % tasks:
        raise ValueError(
            f"{tasks} processes on one host share {seen} GPUs (CUDA_VISIBLE_DEVICES="
            f"{(shown or '')[:40]!r}, SLURM_GPUS_ON_NODE={total[:40]!r}), which does "
            f"not divide; start one process a host, one a GPU, or set {DEVICES} in each"
        )
    each = seen // tasks
    return tuple(range(place * each, (place + 1) * each))


def _devices_by_hand(environ: Mapping[str, str]) -> tuple[int, ...]:
    words = [one.strip() for one in environ[DEVICES].split(",")]
    known = all(re.fullmatch("[0-9]{1,5}", one) for one in words)
    if not known or len(set(words)) < len(words):
        raise ValueError(
            f"{DEVICES}={environ[DEVICES][:40]!r}; accepted: numbers, each once: 0,1,2"
        )
    return tuple(map(int, words))


def _checked(hosts: Hosts) -> Hosts | None:
    if hosts.count == 1 and hosts.index == 0:
        return None
    if not 0 <= hosts.index < hosts.count <= MOST:
        raise ValueError(
            f"{hosts.source}: process {hosts.index} of {hosts.count}; accepted: "
            f"processes 0 to {hosts.count - 1}, of up to {MOST}"
        )
    host, colon, port = hosts.coordinator.rpartition(":")
    known = bool(re.fullmatch(r"\S+", host)) and host.isprintable() and colon
    if not (known and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 2**16):
        raise ValueError(
            f"the address of process 0 is {hosts.coordinator[:80]!r}; accepted: "
            "HOST:PORT, such as 10.0.0.2:8476"
        )
    return hosts


def _number(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        shown = repr(text[:40]) if text else "not set"
        raise ValueError(f"{name} is {shown}; accepted: a whole number from 0")
    return int(text)


def _port(job: str) -> int:
    """Return a port that jobs on one host seldom share, above the ephemeral ones."""
    number = int(job) if re.fullmatch("[0-9]{1,18}", job) else zlib.crc32(job.encode())
    return 61440 + number % 4096


def _is_name(text: str) -> bool:
    return bool(re.fullmatch(r"[\w.:\[\]-]+", text, re.ASCII))


def _is_count(text: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,5}", text))


def _all(names: Iterable[str]) -> str:
    names = list(names)
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
