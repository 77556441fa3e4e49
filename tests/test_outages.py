"""A machine that refuses amid a stage is one message, and the same command goes on.

The refusal is put in the place of writing: of the files of records, of checkpoints, or
of the report. The system's own limit on the size of files stands for a full disk once.
"""

import errno
import os
import pathlib
import resource
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
