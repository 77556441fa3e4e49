"""A machine that refuses amid a stage is one message, and the same command goes on.

The refusal is put in the place of writing: of the files of records, of checkpoints, or
of the report. Once the system's own limit on the size of files refuses, and once a small
disk that is full to its last block.
"""

import errno
import os
import pathlib
import resource
import shlex
import subprocess
import sys

import pytest
import runs

from rlcd_jax import checkpoint, outages, pipeline, record_files, report

# What writes amid each stage, after its first file.
WRITERS = {
    "simulate": (record_files, "write_jsonl"),
    "preference": (checkpoint.Checkpointer, "save"),
    "distill": (checkpoint.Checkpointer, "save"),
    "policy": (checkpoint.Checkpointer, "save"),
    "evaluate": (record_files, "write_jsonl"),
}
NEEDED = {
    "simulate": (),
    "preference": ("pairs",),
    "distill": ("pairs",),
    "policy": ("pairs", "preference"),
    "evaluate": ("pairs", "preference", "distill", "policy"),
}


@pytest.fixture(autouse=True)
def one_device():
    with runs.devices_by_mesh():
        yield


def full(*args, **named):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/disk/run/x")


@pytest.mark.parametrize("stage", WRITERS)
def test_a_full_disk_amid_a_stage_is_one_message(
    stage, finished_run, tmp_path, monkeypatch
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", *NEEDED[stage])
    config = runs.tiny_config()
    with monkeypatch.context() as patch:
        patch.setattr(*WRITERS[stage], full)
        with pytest.raises(ValueError) as caught:
            runs.run_checked(config, workdir, (stage,))
    assert str(caught.value) == (
        f"stage {stage} stopped: No space left on device (/disk/run/x); free space "
        "there; what is saved stays, and the same command goes on"
    )
    if stage in ("simulate", "preference"):
        runs.run_checked(config, workdir, (stage,))
        folder = {"simulate": "pairs", "preference": "preference"}[stage]
        for name in ("summary.json", "DONE"):
            assert (workdir / folder / name).exists()


def test_a_full_disk_at_the_report_is_one_message(finished_run, tmp_path, monkeypatch):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    monkeypatch.setattr(report, "write_report", full)
    with pytest.raises(ValueError, match="the report stopped: No space left on device"):
        pipeline.run_stages(
            runs.tiny_config(),
            str(workdir),
            ("simulate",),
            cache_dir=str(tmp_path),
            preset=None,
        )


def test_the_words_of_libraries_are_known():
    text = "UNKNOWN: Error writing\n/x/d/0: No space left on device [tensorstore]"
    for kind in (RuntimeError, ValueError):
        with (
            pytest.raises(ValueError, match="stage policy stopped: No space left on d"),
            outages.told("stage policy"),
        ):
            raise kind(text)


def test_other_errors_are_left_as_they_are():
    for error in (ValueError("no space in 'x'"), RuntimeError("a defect"), KeyError(1)):
        with pytest.raises(type(error)) as caught, outages.told("stage policy"):
            raise error
        assert caught.value is error


def test_the_limit_on_files_of_the_system_is_told(tmp_path):
    """RLIMIT_FSIZE: the system itself refuses to write, as a full disk does."""
    code = (
        "import resource, signal, sys\n"
        "from rlcd_jax import outages, record_files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "with outages.told('stage simulate'):\n"
        "    record_files.write_text(sys.argv[1], 'x' * 5000)\n"
    )
    path = tmp_path / "pairs.jsonl"
    path.write_text("old\n")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=pathlib.Path(__file__).parents[1],
    )
    assert "stage simulate stopped: File too large" in done.stderr
    assert "raise the limit on the size of files" in done.stderr
    assert path.read_text() == "old\n"  # the file is whole, or the old one
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 1000


def _own_disk(place: pathlib.Path, size: str, *command: str) -> list[str]:
    """Return a command in a namespace where a place is a disk of a size; no root."""
    mount = f"mount -t tmpfs -o size={size} none {shlex.quote(str(place))}"
    return ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]


def test_a_disk_that_is_really_full_loses_no_step(tmp_path):
    """A file system of 600 KB: what was saved is gone on from when there is room."""
    try:
        can = subprocess.run(_own_disk(tmp_path, "64k", "true"), capture_output=True)
    except OSError as error:
        pytest.skip(f"no namespace here: {error}")
    if can.returncode:
        pytest.skip(f"no disk of one's own here: {can.stderr.decode()[:200]}")
    here = pathlib.Path(__file__).parent
    script = [sys.executable, str(here / "full_disk.py"), str(tmp_path)]
    made = subprocess.run(
        _own_disk(tmp_path, "600k", *script),
        capture_output=True,
        text=True,
        check=False,
        cwd=here.parent,
        env={**os.environ, "PYTHONPATH": f"{here.parent}:{here}"},
    )
    assert made.returncode == 0, made.stderr[-3000:]
    told = [line for line in made.stdout.splitlines() if line.startswith("told: ")]
    assert len(told) == 2
    for line in told:
        assert "stage policy stopped: No space left on device" in line
    assert "rows: [{'n': 1}]" in made.stdout
    assert "goes on from step 1 with {'kl_coef': 0.5}" in made.stdout
    assert "steps: [1, 2]" in made.stdout
