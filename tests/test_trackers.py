"""trackers: each step once, whatever happens; a fault is counted and ends nothing.

TensorBoard's curves are looked at in test_metrics. The others are tried with the real
package where it is installed, and else with a module of this file that is called alike.
"""

import contextlib
import importlib.util
import json
import logging
import sqlite3
import sys
import time
import types

import pytest
import runs

from rlcd_jax import metrics, trackers
from rlcd_jax.checks import refusals


@pytest.fixture
def workdir(tmp_path):
    """Return the folder of a run with its config."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": 7, "policy": {"lam": 1.0}}))
    return folder


def put(monkeypatch, sinks, name="wandb"):
    """Have a tracker open the sinks of a list, one after the other."""
    monkeypatch.setitem(
        trackers.TRACKERS,
        name,
        ("json", lambda _, place: sinks.append(place) or take()),
    )
    taken = []

    def take():
        def write(step, values, at):
            taken.append((sinks[-1].run, step, values))
            assert at > 1e9

        return trackers.Sink(
            write, taken.append, lambda: None, lambda: taken.append("closed")
        )

    return taken


def write(workdir, steps, resumed_step=None, names=("wandb",)):
    with metrics.MetricWriter(
        workdir, "policy", resumed_step=resumed_step, names=names
    ) as writer:
        for step in steps:
            writer.write(step, {"policy/loss": step / 2})


def test_a_stage_that_goes_on_is_the_same_run_and_sends_no_step_twice(
    workdir, monkeypatch
):
    places = []
    taken = put(monkeypatch, places)
    write(workdir, [1, 2, 3])
    write(workdir, [2, 3, 4], resumed_step=1)  # killed after step 3, saved at step 1
    assert [row[1] for row in taken if row != "closed"] == [1, 2, 3, 4]
    assert len({place.run for place in places}) == 1
    assert taken.count("closed") == 2
    assert [row["step"] for row in metrics.read_metrics(workdir)] == [1, 2, 3, 4]
    write(workdir, [1])  # anew: another run, which has its first step
    assert taken[-2][1] == 1 and places[-1].run != places[0].run
    where = {"workdir": str(workdir), "report": str(workdir / "report.html")}
    assert places[-1].settings == {"seed": 7, "policy.lam": 1.0} | where
    assert places[-1].name == "run-policy"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"run": 1, "sent": {}}'])
def test_a_damaged_note_begins_another_run(text, workdir, monkeypatch, caplog):
    places = []
    taken = put(monkeypatch, places)
    write(workdir, [1, 2])
    (workdir / "trackers" / "policy.json").write_text(text)
    write(workdir, [2], resumed_step=1)
    assert [row[1] for row in taken if row != "closed"] == [1, 2, 2]
    assert places[0].run != places[1].run
    assert "trackers begin another run: " in caplog.text


@pytest.mark.parametrize("breaks", ["open", "write", "close"])
def test_a_fault_of_a_tracker_is_counted_and_ends_nothing(
    breaks, workdir, monkeypatch, caplog
):
    def fail(*_):
        raise RuntimeError("no room there")

    def open_sink(module, place):
        if breaks == "open":
            fail()
        write = fail if breaks == "write" else lambda *_: None
        return trackers.Sink(write, fail, lambda: None, fail)

    monkeypatch.setitem(trackers.TRACKERS, "mlflow", ("json", open_sink))
    with caplog.at_level(logging.WARNING, logger="absl"):
        write(workdir, [1, 2, 3], names=("mlflow", "tensorboard"))
    assert len(metrics.read_metrics(workdir)) == 3
    assert list((workdir / "tensorboard" / "policy").iterdir())
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == (
        "tracker mlflow: RuntimeError: no room there; the run goes on, and counts what "
        "is lost"
    )
    lost = "tracker mlflow: 3 steps are not there; the run's folder has them"
    assert said[1:] == ([] if breaks == "close" else [lost])


def test_no_tracker_leaves_no_folder(workdir):
    write(workdir, [1], names=())
    assert sorted(path.name for path in workdir.iterdir()) == [
        "config.json",
        "metrics.jsonl",
    ]


def test_a_package_that_is_not_installed_is_told_before_the_first_stage(
    tmp_path, monkeypatch
):
    _, open_sink = trackers.TRACKERS["wandb"]
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("no_such_package", open_sink))
    config = runs.tiny_config(trackers=("tensorboard", "wandb"))
    told = (
        "trackers has 'wandb', whose package is not installed; "
        "pip install 'rlcd_jax[wandb]', or leave it out"
    )
    assert told in refusals.verdict(config, tmp_path / "new")
    assert told not in refusals.verdict(config, num_devices=1)  # of other machines


# --- each tracker ---------------------------------------------------------------------


class Own(types.SimpleNamespace):
    """Takes every call and says of each: its name, its words."""

    def __init__(self, calls, **given):
        super().__init__(calls=calls, **given)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *words, **named: self.calls.append((name, words, named))


def fake_wandb(calls):
    own = Own(calls, summary=Own(calls))
    return {
        "wandb": types.SimpleNamespace(
            init=lambda **named: calls.append(("init", (), named)) or own,
            Settings=lambda **named: named,
        )
    }


def fake_trackio(calls):
    return {"trackio": Own(calls)}


def fake_mlflow(calls):
    info = types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))
    known = []
    client = Own(
        calls,
        get_experiment_by_name=lambda name: None,
        create_experiment=lambda name: "e1",
        search_runs=lambda *_: known,
        create_run=lambda *_, **__: known.append(info) or info,
    )
    rows = types.SimpleNamespace(
        Metric=lambda *words: words, Param=lambda *words: words
    )
    return {
        "mlflow": types.SimpleNamespace(MlflowClient=lambda **_: client, entities=rows)
    }


FAKES = {"wandb": fake_wandb, "mlflow": fake_mlflow, "trackio": fake_trackio}


@pytest.mark.parametrize("name", FAKES)
def test_a_tracker_is_called_as_its_package_wants(name, workdir, monkeypatch):
    calls = []
    for module, made in FAKES[name](calls).items():
        monkeypatch.setitem(sys.modules, module, made)
    write(workdir, [1, 2], names=(name,))
    write(workdir, [2, 3], resumed_step=1, names=(name,))
    with contextlib.closing(trackers.Curves((name,), workdir, "told", None)) as curves:
        curves.tell({"evaluate/table": "| a |"})
    text = repr(calls)
    for value in ("0.5", "1.0", "1.5", "policy/loss", "seed", "| a |"):
        assert value in text
    if name == "mlflow":
        sent = [named["metrics"] for _, _, named in calls if "metrics" in named]
        assert [rows[0][3] for rows in sent] == [1, 2, 3]
        assert [n for n, *_ in calls].count("set_terminated") == 3
        return
    logged = [named["step"] for one, _, named in calls if one == "log" and named]
    begun = [named for one, _, named in calls if one == "init"]
    assert logged == [1, 2, 3] and len(begun) == 3
    assert begun[0] == begun[1], "the same run"
    assert [one for one, *_ in calls].count("finish") == 3
    if name == "wandb":
        assert begun[0]["mode"] == "offline"


needs = {
    name: pytest.mark.skipif(
        importlib.util.find_spec(name) is None, reason=f"{name} is an extra"
    )
    for name in FAKES
}


TOLD = {"evaluate/table": "| system | wins |", "evaluate/report": "/r/report.html"}


def show(workdir, name):
    """Show a table as the evaluation does."""
    with contextlib.closing(
        trackers.Curves((name,), workdir, "evaluate", None)
    ) as curves:
        curves.write(0, {"evaluate/policy/lexicon_win_rate": 0.75}, time.time())
        curves.tell(TOLD)


@needs["mlflow"]
def test_mlflow_itself_has_each_step_once(workdir):
    write(workdir, [1, 2], names=("mlflow",))
    write(workdir, [2, 3], resumed_step=1, names=("mlflow",))
    with sqlite3.connect(workdir / "mlflow.db") as db:
        rows = db.execute("select key, value, step from metrics order by step")
        assert rows.fetchall() == [("policy/loss", i / 2, i) for i in (1, 2, 3)]
        assert db.execute("select count(*) from runs").fetchone() == (1,)
    show(workdir, "mlflow")
    with sqlite3.connect(workdir / "mlflow.db") as db:
        rows = db.execute("select key, value from tags where key like 'evaluate/%'")
        assert dict(rows.fetchall()) == TOLD


@needs["wandb"]
def test_wandb_itself_writes_offline(workdir, caplog):
    write(workdir, [1, 2], names=("wandb",))
    write(workdir, [2, 3], resumed_step=1, names=("wandb",))
    assert not caplog.records
    files = sorted(workdir.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2 and len({path.name for path in files}) == 1
    show(workdir, "wandb")
    assert not caplog.records
    (third,) = set(workdir.glob("wandb/offline-run-*/run-*.wandb")) - {*files}
    assert all(text.encode() in third.read_bytes() for text in TOLD.values())


@needs["trackio"]
def test_trackio_itself_has_each_step_once(workdir, monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    write(workdir, [1, 2], names=("trackio",))
    write(workdir, [2, 3], resumed_step=1, names=("trackio",))
    assert not caplog.records
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as db:
        rows = db.execute("select step, metrics from metrics order by step").fetchall()
    assert [(s, json.loads(m)["policy/loss"]) for s, m in rows] == [
        (i, i / 2) for i in (1, 2, 3)
    ]
    show(workdir, "trackio")
    assert not caplog.records
    with sqlite3.connect(path) as db:
        rows = db.execute("select metrics from metrics order by id").fetchall()
    last = json.loads(rows[-1][0])
    assert {name: last[name]["_value"] for name in TOLD} == TOLD
