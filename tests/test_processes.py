"""Two real processes on loopback, each with two fake devices, against one with four.

One job of two processes is asked to leave, started again, loses a process, and is
started again, once as one process and once more as two; one batch is not finite, and
all go back to before it. What the job leaves in the end is what one process leaves that
nobody disturbed. Everything goes through the commands of a user.
"""

import contextlib
import json
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import compiling
import poisoned_run
import pytest
import runs

from rlcd_jax.job import nonfinite

ROOT = pathlib.Path(__file__).parents[1]
AGAIN = 75  # as the README says
LOST = 15.0  # seconds in which the death of one must end the other; 60 for silence
SECONDS = 600.0  # for a command on the busiest of machines

# On the same four devices as (data, fsdp) the programs are the same ones, whoever
# drives the devices; what differs is the order in which gloo adds.
LOSS_TOLERANCE = 1e-4
SHAPE = {  # few programs, which take most of the time
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "model.remat": "none",
    "engine.prompt_buckets": (64,),
    "engine.live_buckets": (320,),
}
FIELDS = runs.FIELDS | {
    **SHAPE,
    "stages": ("simulate", "preference", "distill", "policy", "evaluate"),
    "preference.epochs": 6,
    "preference.nonfinite": "rollback",
    "evaluate.judges": ("lexicon",),  # the table asks a model
    "distill.epochs": 1,
    "policy.epochs": 1,
    "policy.steps": 2,
}
RUN = (
    "poisoned_run",  # one batch of the preference model is not finite
    "--config=configs/quickstart.py:task=cheerful,size=smoke,model=random:tiny",
    *(f"--config.{name}={value}" for name, value in FIELDS.items()),
)
TABLE = (
    "experiments.reproduce",
    "--config=configs/paper.py:table=methods,scale=tiny",
    "--config.tasks=('cheerful',)",
    "--config.methods=('distill',)",
    # As in the run, so that its programs are found: to draw with, and to train.
    *(
        f"--config.run.{name}={value}"
        for name, value in FIELDS.items()
        if name in SHAPE or name.startswith("distill.")
    ),
)


class Job:
    """Processes of one command; each one's output is in a file."""

    def __init__(self, folder, command, workdir, count, own=((), ())):
        self.logs = [folder / f"{time.monotonic_ns()}-{i}.log" for i in range(count)]
        with socket.create_server(("127.0.0.1", 0)) as one:
            port = one.getsockname()[1]
        flags = compiling.flags(4 // count)
        environ = {
            **os.environ,
            "XLA_FLAGS": flags,
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
        }
        environ["http_proxy"] = "http://127.0.0.1:9"  # many clusters have one
        words = [sys.executable, "-m", *command, f"--workdir={workdir}"]
        self.processes = []
        for index, log in enumerate(self.logs):
            joined = (
                f"--coordinator=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={index}",
                "--start_seconds=600",  # a busy machine is no lost one
                "--lost_seconds=600",
            )
            with open(log, "w") as out:
                self.processes.append(
                    subprocess.Popen(
                        [*words, *(joined if count > 1 else ()), *own[index]],
                        cwd=ROOT,
                        env=environ,
                        stdout=out,
                        stderr=subprocess.STDOUT,
                    )
                )

    def text(self, index):
        return self.logs[index].read_text()

    def wait(self, seconds=SECONDS):
        end = time.monotonic() + seconds
        for process in self.processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.1))
        statuses = [process.poll() for process in self.processes]
        for process in self.processes:
            process.kill()
        return statuses

    def done(self):
        """Wait for the end, which must be a good one."""
        statuses = self.wait()
        tails = [self.text(i)[-2000:] for i in range(len(statuses))]
        assert statuses == [0] * len(statuses), "\n---\n".join(tails)

    def until(self, happens):
        """Wait until something is there, while all processes live."""
        end = time.monotonic() + SECONDS
        while not happens():
            assert time.monotonic() < end, self.text(0)[-2000:]
            for index, process in enumerate(self.processes):
                assert process.poll() is None, self.text(index)[-2000:]
            time.sleep(0.05)


def has_row(workdir, stage, step):
    """Return whether metrics of a step are written."""

    def look():
        path = workdir / "metrics.jsonl"
        wanted = f'"stage": "{stage}", "step": {step},'
        return path.exists() and wanted in path.read_text()

    return look


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Return the workdir of one undisturbed process with four devices."""
    folder = tmp_path_factory.mktemp("one")
    Job(folder, RUN, folder / "run", 1).done()
    return folder / "run"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """Return the workdir of two processes that were disturbed twice, and the story."""
    folder = tmp_path_factory.mktemp("two")
    workdir = folder / "run"
    asked = Job(folder, RUN, workdir, 2)
    asked.until(has_row(workdir, "preference", 1))
    asked.processes[1].send_signal(signal.SIGTERM)
    left = asked.wait()
    lost = Job(folder, RUN, workdir, 2)
    lost.until(has_row(workdir, "preference", 4))
    lost.processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    statuses = lost.wait()
    gone = time.monotonic() - killed
    alone = Job(folder, RUN, workdir, 1)  # the same devices, of one process
    alone.until(has_row(workdir, "preference", 6))
    alone.processes[0].send_signal(signal.SIGTERM)
    assert alone.wait() == [AGAIN], alone.text(0)[-2000:]
    last = Job(folder, RUN, workdir, 2)
    last.done()
    story = {"left": (left, asked), "lost": (statuses, lost, gone), "last": last}
    story["said"] = [asked.text(i) + lost.text(i) for i in (0, 1)]
    return workdir, story


def test_a_signal_to_one_process_saves_and_leaves_on_all(two):
    statuses, job = two[1]["left"]
    assert statuses == [AGAIN, AGAIN], job.text(0)[-2000:]
    assert "SIGTERM: leaving after this step" in job.text(1)
    for index in (0, 1):
        assert re.search(
            r"asked to leave: .*; the same command goes on", job.text(index)
        )


def test_a_lost_process_ends_the_other_with_what_to_do(two):
    statuses, job, seconds = two[1]["lost"]
    assert statuses == [AGAIN, -signal.SIGKILL], job.text(0)[-2000:]
    assert seconds < LOST
    told = [line for line in job.text(0).splitlines() if line.startswith("error:")]
    assert len(told) == 1
    assert re.match(r"error: process 1 \(host .+\) is gone\. What was saved", told[0])
    assert "start the same command on every host" in told[0]
    assert "Check failure stack trace" not in job.text(0)


def test_two_disturbed_processes_leave_the_bytes_of_one(one, two):
    workdir, story = two
    assert "goes on from update" in story["lost"][1].text(0) + story["last"].text(0)
    for name in (
        "pairs/pairs.jsonl",
        "pairs/dropped.jsonl",
        "policy/samples/000001.jsonl",
        "policy/samples/000002.jsonl",
        "evaluate/samples.jsonl",
        "evaluate/table.md",
    ):
        ours, theirs = ((d / name).read_text() for d in (one, workdir))
        assert same_but_for_rounding(ours, theirs), name
    for stage in ("preference", "distill", "policy"):
        assert_rows_agree(
            runs.metric_rows(one, stage), runs.metric_rows(workdir, stage)
        )


def test_what_is_not_finite_takes_all_processes_back(one, two):
    workdir, story = two
    step = poisoned_run.STEP
    told = f"back to step {step - 1}, and the batches of steps {step} to {step} are"
    assert all(told in said for said in story["said"])
    for run in (one, workdir):
        rows = runs.metric_rows(run, "preference")
        left_out = [r["step"] for r in rows if r.get(nonfinite.ROLLED_BACK)]
        assert left_out == [step]
        note = nonfinite.read_note(run / f"preference/nonfinite/{step:06d}.json")
        assert note["goes_on_from"] == step - 1 and note["norms"]["parameters"]
        summary = json.loads((run / "preference" / "summary.json").read_text())
        assert summary["left_out_steps"] == [step] and summary["rollbacks"] == 1


def same_but_for_rounding(ours, theirs):
    """Say whether texts are equal but for the last digits of long numbers."""
    number = re.compile(r"-?\d+\.\d{4,}(?:e-?\d+)?")
    if number.sub("#", ours) != number.sub("#", theirs):
        return False
    pairs = zip(number.findall(ours), number.findall(theirs), strict=True)
    return all(
        math.isclose(float(a), float(b), rel_tol=LOSS_TOLERANCE, abs_tol=LOSS_TOLERANCE)
        for a, b in pairs
    )


def assert_rows_agree(ours, theirs):
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            if isinstance(a[name], float):
                close = {"rel": LOSS_TOLERANCE, "abs": LOSS_TOLERANCE}
                assert b[name] == pytest.approx(a[name], **close), name
            else:
                assert b[name] == a[name], name


def test_only_the_first_process_writes(two):
    workdir, story = two
    rows = [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]
    seen = [(row["stage"], row["step"]) for row in rows]
    assert len(seen) == len(set(seen))
    assert not list(workdir.glob(".seen-*"))
    environment = json.loads((workdir / "environment.json").read_text())
    assert (environment["processes"], environment["devices"]) == (2, 4)
    assert "report:" in story["last"].text(0) and "report:" not in story["last"].text(1)


def test_processes_that_differ_are_refused_on_all_before_anything(tmp_path):
    own = ((), ("--config.policy.gamma=0.5",))
    job = Job(tmp_path, RUN, tmp_path / "run", 2, own)
    assert job.wait() == [2, 2]
    for index in (0, 1):
        told = job.text(index)
        assert "--config.policy.gamma: 1.0 on process 0 (" in told
        assert "0.5 on process 1 (" in told and "Traceback" not in told
    assert not (tmp_path / "run").exists()


def test_a_table_of_two_processes_is_that_of_one(tmp_path):
    for count in (1, 2):
        Job(tmp_path, TABLE, tmp_path / str(count), count).done()
    for name in ("table_methods.md", "table_methods.json"):
        ours, theirs = (
            (tmp_path / count / "tables" / name).read_text() for count in "12"
        )
        assert same_but_for_rounding(ours, theirs)  # gradients are summed otherwise
