"""The disk that a run takes: what is there while it runs and after, and what goes."""

import pathlib
import shutil
import types

import pytest
import runs
from etils import epath

from rlcd_jax import checkpoint, pipeline, stages, tree
from rlcd_jax.checks import disk, refusals
from rlcd_jax.job import setup, trainer, workspace
from rlcd_jax.models import heads, llama
from rlcd_jax.weights import exchange

TRAINED = ("preference", "distill", "policy")


@pytest.fixture
def run_again(finished_run, tmp_path, monkeypatch):
    """Return a copy of a finished run that kept its moments, and what starts it."""
    monkeypatch.setattr(pipeline.report, "write_report", lambda *_, **__: "")
    workdir = shutil.copytree(finished_run, tmp_path / "run")

    def start(*names, **own):
        config = runs.tiny_config(**own)
        with runs.devices_by_mesh():
            pipeline.run_stages(
                config,
                str(workdir),
                names or config.stages,
                cache_dir="",
                preset=None,
            )

    return workdir, start


def items_of(workdir: pathlib.Path, stage: str) -> set[str]:
    folder = workdir / stage / "checkpoints"
    step = checkpoint.latest_step(folder)
    return set(checkpoint.item_names(folder, step))


def bytes_of(workdir: pathlib.Path, stage: str) -> int:
    files = (workdir / stage / "checkpoints").rglob("*")
    return sum(path.stat().st_size for path in files if path.is_file())


def test_moments_go_when_a_stage_is_done_and_nothing_else(run_again):
    workdir, start = run_again
    assert all(trainer.OPTIMIZER in items_of(workdir, name) for name in TRAINED)
    before = {name: bytes_of(workdir, name) for name in TRAINED}
    start()
    assert items_of(workdir, "preference") == {"preference"}
    assert items_of(workdir, "distill") == {"policy"}
    assert items_of(workdir, "policy") == {"policy", "value"}
    for name in TRAINED:
        assert bytes_of(workdir, name) < 0.4 * before[name]
    for name, last in (("preference", 3), ("distill", 4)):
        assert checkpoint.whole_steps(workdir / name / "checkpoints") == [last]


def test_moments_are_kept_when_asked_and_go_at_a_later_start(run_again):
    workdir, start = run_again
    start(keep_moments=True)
    assert all(trainer.OPTIMIZER in items_of(workdir, name) for name in TRAINED)
    start("evaluate")  # which is done too; the mark of each stage is what counts
    assert not any(trainer.OPTIMIZER in items_of(workdir, name) for name in TRAINED)


def test_a_stage_without_its_mark_keeps_its_moments(run_again):
    workdir, start = run_again
    (workdir / "policy" / "DONE").unlink()
    start("preference")
    assert trainer.OPTIMIZER in items_of(workdir, "policy")
    assert trainer.OPTIMIZER not in items_of(workdir, "preference")


def test_a_run_killed_while_moments_go_is_whole_and_the_next_start_ends_it(
    run_again, monkeypatch
):
    workdir, start = run_again

    class Kill(BaseException):
        """Stands for SIGKILL."""

    def rmtree(path, missing_ok=False):
        files = sorted(p for p in pathlib.Path(path).rglob("*") if p.is_file())
        files[0].unlink()  # half of it is gone
        raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(type(epath.Path(workdir)), "rmtree", rmtree)
        with pytest.raises(Kill):
            start()
    assert "preference" in items_of(workdir, "preference")
    left = list((workdir / "preference" / "checkpoints").glob(".dropped-*"))
    assert len(left) == 1
    assert_readable(workdir)
    start()
    for name in TRAINED:
        assert trainer.OPTIMIZER not in items_of(workdir, name)
        assert not list((workdir / name / "checkpoints").glob(".*"))
    assert_readable(workdir)


def assert_readable(workdir: pathlib.Path) -> None:
    """Read what later stages and exports read."""
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
        for stage, item, specs in (
            ("preference", "preference", heads.scalar_specs(job.cfg)),
            ("distill", "policy", llama.param_specs(job.cfg)),
            ("policy", "policy", llama.param_specs(job.cfg)),
            ("policy", "value", heads.scalar_specs(job.cfg)),
        ):
            folder = workdir / stage / "checkpoints"
            step = checkpoint.latest_step(folder)
            params = setup.restore_params(job, folder, item, specs)
            saved = runs.saved_arrays(folder, step)
            named = tree.flatten_names(params)
            assert {f"{item}/{name}" for name in named} <= saved.keys()
            source = exchange.read_checkpoint(
                workdir / stage, item, None, workdir, lambda line: None
            )
            exported = tree.flatten_names(source.params)
            for name, array in named.items():
                assert (saved[f"{item}/{name}"] == array).all(), name
                assert (exported[name] == array).all(), name


def test_training_cannot_go_on_without_moments_and_that_is_told_first(run_again):
    workdir, start = run_again
    start()
    (workdir / "preference" / "DONE").unlink()
    with pytest.raises(ValueError, match="cannot go on: it has no DONE mark now"):
        start()
    shutil.rmtree(workdir / "preference")
    with runs.devices_by_mesh():
        assert refusals.verdict(runs.tiny_config(), workdir) == []


# --- how much room --------------------------------------------------------------------


def room(*names, **own):
    with runs.devices_by_mesh():
        return disk.room(setup.load_job(runs.tiny_config(**own)), names)


def test_room_is_what_the_trainers_save(run_again):
    workdir, start = run_again
    # Orbax packs the arrays, here to nine tenths; its own files are small.
    for name, share in (("preference", 1), ("policy", 1), ("distill", 2)):
        whole = room(name, keep_moments=True).after
        # How often distill saves is not known before the pairs are: it does so once.
        assert 0.85 < share * bytes_of(workdir, name) / whole < 1.01
    start()
    after = room(*TRAINED).after
    assert 0.85 < sum(bytes_of(workdir, name) for name in TRAINED) / after < 1.01


def test_room_by_hand():
    layer = 2 * 64 + 64 * (64 + 32 + 32) + 64 * 64 + 3 * 64 * 128
    trunk = 4 * (264 * 64 + 2 * layer + 64)
    scalar = trunk + 4 * (64 + 1)  # weights and bias of the head
    many = {"policy__steps": 9, "policy__checkpoint_every": 1}

    def close(found, peak, after):
        # Beside the moments are counters of a few bytes.
        assert peak <= found.peak < peak + 200 and found.after == after

    close(room("simulate", "evaluate"), 0, 0)
    # The one before goes when the new one is whole.
    close(room("preference"), 3 * 3 * scalar, scalar)
    both = trunk + scalar
    parked = both  # reference and preference model, here float32 as they are read
    close(room("policy", **many), 3 * 3 * both + parked, 2 * both)
    one = {"policy__steps": 2, "policy__checkpoint_every": 2}
    close(room("policy", **one), 3 * both + parked, both)
    chosen = room("policy", policy__choose="dev_score", **many)
    close(chosen, 3 * 3 * both + parked + 2 * trunk, 2 * both + trunk)
    close(
        room(*stages.STAGES, **many),
        scalar + 2 * trunk + 3 * 3 * both + parked,
        scalar + 2 * trunk + 2 * both,
    )
    kept = room("preference", "policy", keep_moments=True, **many)
    assert 6 * scalar + 6 * both <= kept.after < 6 * scalar + 6 * both + 300


def test_disk_that_is_too_small_is_refused(tmp_path, monkeypatch):
    config = runs.tiny_config()
    with runs.devices_by_mesh():
        assert refusals.verdict(config, tmp_path / "run") == []
        small = types.SimpleNamespace(free=2**20)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
        (told,) = refusals.verdict(config, tmp_path / "run")
    assert "take up to 0.0 GiB" in told and "has 0.0 GiB free" in told


def test_what_is_there_of_a_stage_counts(run_again, monkeypatch):
    workdir, _ = run_again
    for name in ("policy", "evaluate"):
        (workdir / workspace.stage_folder("", name) / "DONE").unlink()
    needed = room("policy").peak
    there = bytes_of(workdir, "policy")
    config = runs.tiny_config()
    for spare, refused in ((10_000, False), (-10_000, True)):
        free = types.SimpleNamespace(free=needed - there + spare)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: free)
        with runs.devices_by_mesh():
            told = refusals.verdict(config, workdir)
        assert bool(told) == refused
