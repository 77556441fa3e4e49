"""A run that is killed again and again leaves what one leaves that nobody disturbed."""

import json
import pathlib
import random
import re
import shutil
import signal

import compiling
import numpy as np
import pytest
import runs

from experiments import run, verify_resume
from rlcd_jax import checkpoint, metrics
from rlcd_jax.resuming import comparing, moments, verify

SMALL = {
    "stages": ("simulate", "preference", "policy"),
    "preference__epochs": 1,
    "policy__epochs": 1,
    "policy__steps": 2,
    "policy__checkpoint_every": 1,
    "policy__dev_prompts": 2,
}


def test_a_killed_run_leaves_what_an_undisturbed_one_leaves(tmp_path, monkeypatch):
    """The short form of `experiments.verify_resume`."""
    monkeypatch.setenv("XLA_FLAGS", compiling.flags(1))  # of the children
    said = []
    verdict = verify.verify(
        runs.tiny_config(**SMALL),
        tmp_path / "verified",
        run.run_all,
        kills=5,
        seed=3,
        say=said.append,
    )
    assert verdict.differences == ()
    assert verdict.stops >= 5 and verdict.chains >= 1
    table = verify.report(verdict)
    assert "0 differences" in table and "| stopped in |" in table
    assert re.match(r"undisturbed: \d{3,} changes of files", said[0])


def test_the_folder_must_be_new(tmp_path):
    (tmp_path / "other").touch()
    with pytest.raises(ValueError, match="is not empty; give a new folder"):
        verify.verify(
            runs.tiny_config(), tmp_path, run.run_all, kills=1, seed=0, say=print
        )


def test_the_command_has_a_help(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["verify_resume", "--help"])
    verify_resume.main()
    said = capsys.readouterr().out
    assert "--kills" in said and "--config.policy.steps" in said


# --- moments --------------------------------------------------------------------------


def events(**kinds):
    return [
        moments.Event("policy", kind, "open x", float(number))
        for kind, count in kinds.items()
        for number in range(count)
    ]


def test_moments_are_of_kinds_and_numbers_that_there_are():
    seen = events(**{moments.SAVING: 50, moments.MARKING: 1})
    chance = random.Random(0)
    drawn = [moments.draw("policy", seen, signal.SIGKILL, chance) for _ in range(300)]
    assert {one.kind for one in drawn} == {
        moments.CLOCK,
        moments.SAVING,
        moments.MARKING,
    }
    for one in drawn:
        if one.kind == moments.CLOCK:
            assert 0 <= one.seconds <= 49
        else:
            assert 1 <= one.number <= (50 if one.kind == moments.SAVING else 1)


def test_a_watch_stops_before_the_change_it_was_told(tmp_path, monkeypatch):
    """In this process: the signal is noted and not sent."""
    told, killed = [], []
    monkeypatch.setattr(moments.os, "kill", lambda pid, number: killed.append(number))
    (tmp_path / "policy").mkdir()
    moment = moments.Moment("policy", moments.FILES, 2, 0.0, signal.SIGKILL)
    watch = moments.Watch(
        tmp_path, ("policy",), [moment], lambda *one: told.append(one)
    )
    monkeypatch.setattr(moments.sys, "addaudithook", hooks := [].append)
    watch.start()
    hook = hooks.__self__[0]
    for name in ("a.json", "b.json"):
        hook("open", (str(tmp_path / "policy" / name), "w", moments.os.O_WRONLY))
        assert len(killed) == (name == "b.json")
    hook("open", (str(tmp_path / "policy" / "a.json"), "r", moments.os.O_RDONLY))
    hook("os.rename", ("x", str(tmp_path / "policy" / "DONE"), -1, -1))
    hook("open", ("/elsewhere", "w", moments.os.O_WRONLY))
    kinds = [event.kind for event, _ in told]
    assert kinds == [moments.FILES, moments.FILES, moments.MARKING]
    assert [moment is not None for _, moment in told] == [False, True, False]


@pytest.mark.parametrize(
    ("call", "path", "kind"),
    [
        ("os.rename", "policy/checkpoints/2", moments.COMMITTING),
        ("os.mkdir", "policy/checkpoints/2.tmp", moments.SAVING),
        ("os.remove", "policy/checkpoints/1/d/x", moments.DELETING),
        ("os.rename", "policy/DONE", moments.MARKING),
        ("open", "metrics.jsonl", moments.METRICS),
        ("open", "pairs/parts/pairs-00000000.jsonl", moments.FILES),
    ],
)
def test_changes_are_told_apart(call, path, kind):
    assert moments._kind_of(call, path) == kind


# --- comparing ------------------------------------------------------------------------


@pytest.fixture
def copied(finished_run, tmp_path):
    return pathlib.Path(shutil.copytree(finished_run, tmp_path / "run"))


def edit(path, change):
    path.write_text(change(path.read_text()))


def test_a_copy_and_other_clocks_do_not_differ(finished_run, copied):
    def slower(text):
        rows = [json.loads(line) for line in text.splitlines()]
        for row in rows:
            row["wall_time"] += 60.0
        return "".join(json.dumps(row) + "\n" for row in rows)

    edit(copied / "metrics.jsonl", slower)
    edit(copied / "policy" / "DONE", lambda t: t.replace('"seconds": ', '"seconds": 1'))
    assert comparing.differences(finished_run, copied) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pairs/pairs.jsonl", lambda t: t.replace("side_1", "side_x", 1)),
        ("metrics.jsonl", lambda t: "\n".join(t.splitlines()[:-1]) + "\n"),
        ("policy/summary.json", lambda t: t.replace('"steps": 2', '"steps": 3')),
        ("policy/DONE", lambda t: t.replace('"steps": 2', '"steps": 3')),
        ("evaluate/table.md", lambda t: t.replace("rlcd", "ours", 1)),
        ("policy/samples/000001.jsonl", lambda t: t.replace('"score": ', '"score": -')),
    ],
)
def test_each_file_is_compared(finished_run, copied, name, change):
    edit(copied / name, change)
    (line,) = comparing.differences(finished_run, copied)
    assert line.startswith(f"{name}: ")


def test_files_that_one_has_alone_are_named(finished_run, copied):
    (copied / "policy" / ".DONE.host.1.tmp").touch()
    (copied / "evaluate" / "table.md").unlink()
    lines = comparing.differences(finished_run, copied)
    assert len(lines) == 2
    assert any(".DONE.host.1.tmp is not in" in line for line in lines)


def test_arrays_and_steps_are_compared(finished_run, copied, monkeypatch):
    folder = copied / "preference" / "checkpoints"
    whole = comparing.saved_arrays

    def flipped(where, step):
        found = whole(where, step)
        name = sorted(found)[-1]
        if where == folder:
            changed = np.array(found[name])
            changed.reshape(-1).view(np.uint8)[0] ^= 1
            found[name] = changed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(comparing, "saved_arrays", flipped)
        lines = comparing.differences(finished_run, copied)
    assert len(lines) == len(checkpoint.whole_steps(folder))
    assert all(re.match(r"preference/checkpoints/\d: .* differs", x) for x in lines)
    shutil.rmtree(folder / str(checkpoint.whole_steps(folder)[0]))
    assert any(
        "preference/checkpoints holds" in line
        for line in comparing.differences(finished_run, copied)
    )


def test_what_clocks_say_is_told_by_name():
    clocks = ("wall_time", "seconds", "generate/seconds", "generate/tokens_per_second")
    assert all(metrics.is_clock(name) for name in clocks)
    assert not any(
        metrics.is_clock(name) for name in ("policy/loss", "steps", "tokens")
    )
