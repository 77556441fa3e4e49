"""Where a run's numbers are shown as curves: TensorBoard, W&B, MLflow, trackio.

A tracker is a `Sink`, four functions that `TRACKERS` opens for a stage. All of them
write to this machine alone: curves lie in the run's folder (trackio's in its own), and
what sends them elsewhere is the tracker's own command. Each stage is a run of its own
there, of one group. The run's folder holds all that they show, in `metrics.jsonl` and
in the tables: what a tracker refuses or loses is counted and said, and ends nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import pathlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from absl import logging

from rlcd_jax import dotted, jsonl, record_files

REPORT = "report.html"  # of a workdir
FOLDER = "trackers"  # in the workdir: which run a stage is there, and what was sent
PROJECT = "rlcd_jax"
TENSORBOARD = "tensorboard"
MLFLOW_TEXT = 4900  # characters of a tag, below the least that its stores take
FILES = (TENSORBOARD, "wandb", "mlflow.db", FOLDER)  # of all of them in a workdir


@dataclasses.dataclass(frozen=True)
class Sink:
    """What takes the numbers of one stage.

    Attributes:
      write: of a step, its numbers by name, and when it was, in seconds since 1970.
      tell: texts by name, as Markdown, of a stage that has written its last step.
      flush: brings all that was written to disk.
      close: ends it.
    """

    write: Callable[[int, Mapping[str, float], float], None]
    tell: Callable[[Mapping[str, str]], None]
    flush: Callable[[], None]
    close: Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Place:
    """What a tracker is told of the stage whose numbers it takes.

    Attributes:
      workdir: folder of the run.
      stage: its name.
      run: known again when the stage goes on, and another when it starts anew.
      resumed_step: step from which the stage goes on; None: it starts anew.
    """

    workdir: pathlib.Path
    stage: str
    run: str
    resumed_step: int | None

    @property
    def name(self) -> str:
        """What people see."""
        return f"{self.group}-{self.stage}"

    @property
    def group(self) -> str:
        """What the stages of one run have in common."""
        return self.workdir.absolute().name

    @property
    def settings(self) -> dict[str, Any]:
        """The config of the run by dotted names, and where it and its report lie."""
        path, folder = self.workdir / "config.json", self.workdir.absolute()
        config = dotted.flatten(jsonl.read_object(path)) if path.exists() else {}
        return config | {"workdir": str(folder), "report": str(folder / REPORT)}


def _tensorboard(package: ModuleType, place: Place) -> Sink:
    first = 0 if place.resumed_step is None else place.resumed_step + 1
    writer = package.SummaryWriter(
        str(place.workdir / "tensorboard" / place.stage), purge_step=first
    )

    def write(step: int, values: Mapping[str, float], at: float) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step, walltime=at)

    def tell(texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            writer.add_text(name, text, first)

    return Sink(write, tell, writer.flush, writer.close)


def _wandb(wandb: ModuleType, place: Place) -> Sink:
    own = wandb.init(
        mode="offline",
        project=PROJECT,
        dir=str(place.workdir),
        id=place.run,
        name=place.name,
        group=place.group,
        job_type=place.stage,
        config=place.settings,
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True),
    )

    def write(step: int, values: Mapping[str, float], at: float) -> None:
        own.log({**values, "_timestamp": at}, step=step)

    return Sink(write, own.summary.update, _nothing, own.finish)


def _mlflow(mlflow: ModuleType, place: Place) -> Sink:
    uri = f"sqlite:///{(place.workdir / 'mlflow.db').absolute()}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_experiment_by_name(PROJECT)
    experiment = found.experiment_id if found else client.create_experiment(PROJECT)
    tag = f"{PROJECT}.run"
    before = client.search_runs([experiment], f"tags.`{tag}` = '{place.run}'")
    if before:
        run = before[0].info.run_id
    else:
        tags = {tag: place.run}
        made = client.create_run(experiment, tags=tags, run_name=place.name)
        run = made.info.run_id
        told = [
            mlflow.entities.Param(name, str(value)[:500])
            for name, value in place.settings.items()
        ]
        for start in range(0, len(told), 100):  # the most of one call
            client.log_batch(run, params=told[start : start + 100])

    def write(step: int, values: Mapping[str, float], at: float) -> None:
        rows = [
            mlflow.entities.Metric(name, float(value), round(1000 * at), step)
            for name, value in values.items()
        ]
        client.log_batch(run, metrics=rows)

    def tell(texts: Mapping[str, str]) -> None:
        for name, text in texts.items():
            cut = text[:MLFLOW_TEXT] + "\n\n… (cut: MLflow takes no more)"
            client.set_tag(run, name, text if len(text) <= MLFLOW_TEXT else cut)

    return Sink(write, tell, _nothing, lambda: client.set_terminated(run))


def _trackio(trackio: ModuleType, place: Place) -> Sink:
    trackio.init(
        project=PROJECT,
        name=f"{place.name}-{place.run}",
        group=place.group,
        config=place.settings,
        resume="allow",
        embed=False,
    )

    def write(step: int, values: Mapping[str, float], at: float) -> None:
        del at  # it has its own clock
        trackio.log(dict(values), step=step)

    def tell(texts: Mapping[str, str]) -> None:
        trackio.log({name: trackio.Markdown(text) for name, text in texts.items()})

    return Sink(write, tell, _nothing, trackio.finish)


def _nothing() -> None:
    """Do what a tracker does that writes at once."""


# The package of each, which is imported when it is asked for, and how it is opened.
Open = Callable[[ModuleType, Place], Sink]
TRACKERS: dict[str, tuple[str, Open]] = {
    TENSORBOARD: ("tensorboardX", _tensorboard),
    "wandb": ("wandb", _wandb),
    "mlflow": ("mlflow", _mlflow),
    "trackio": ("trackio", _trackio),
}


def missing(names: Sequence[str]) -> list[str]:
    """Return a line for each tracker whose package is not installed."""
    return [
        f"trackers has {name!r}, whose package is not installed; "
        f"pip install 'rlcd_jax[{name}]', or leave it out"
        for name in names
        if importlib.util.find_spec(TRACKERS[name][0]) is None
    ]


def _read(path: pathlib.Path) -> tuple[str, dict[str, int]] | None:
    """Return which run a stage is, and the last steps that were sent; None: not known.

    A damaged note is told and ends nothing, as all that trackers do.
    """
    if not path.exists():
        return None
    try:
        noted = jsonl.read_object(path)
        run, sent = noted["run"], noted["sent"]
        if not isinstance(run, str) or any(type(n) is not int for n in sent.values()):
            raise ValueError(f"{path} holds other things than a run and its steps")
        return run, sent
    except (ValueError, KeyError, AttributeError, OSError) as error:
        logging.warning("trackers begin another run: %s", error)
        return None


class Curves:
    """Gives the numbers of one stage to its trackers, each step once.

    A stage that goes on is the same run there, and steps that were sent before are not
    sent again, whatever they are now: after a rollback a tracker keeps the steps as
    they were first, but for TensorBoard, whose curves are drawn anew. A stage that
    starts anew is another run.

    Args:
      names: of the trackers, among `TRACKERS`.
      workdir: folder of the run.
      stage: its name.
      resumed_step: step from which the stage goes on; None: it starts anew.
    """

    def __init__(
        self,
        names: Sequence[str],
        workdir: pathlib.Path,
        stage: str,
        resumed_step: int | None,
    ) -> None:
        self._path = workdir / FOLDER / f"{stage}.json"
        others = [name for name in names if name != TENSORBOARD]
        noted = _read(self._path) if others and resumed_step is not None else None
        self._run, self._sent = noted or (uuid.uuid4().hex[:12], {})
        self._lost = dict.fromkeys(names, 0)  # steps
        self._told: set[str] = set()  # trackers of which a fault was told
        self._sinks: dict[str, Sink] = {}
        place = Place(workdir, stage, self._run, resumed_step)
        for name in names:
            self._works(name, functools.partial(self._open, name, place))

    def write(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Show the numbers of a step; `at` is in seconds since 1970."""
        for name in self._lost:
            if name != TENSORBOARD:
                if step <= self._sent.get(name, -1):
                    continue
                self._note(name, step)
            sink = self._sinks.get(name)
            shown = sink is not None and self._works(
                name, functools.partial(sink.write, step, values, at)
            )
            self._lost[name] += not shown

    def tell(self, texts: Mapping[str, str]) -> None:
        """Show texts by name, as Markdown, beside the numbers."""
        for name, sink in self._sinks.items():
            self._works(name, functools.partial(sink.tell, texts))

    def flush(self) -> None:
        """Bring all that was written to disk."""
        for name, sink in self._sinks.items():
            self._works(name, sink.flush)

    def close(self) -> None:
        """End all, and say what was lost; a second call does nothing."""
        for name, sink in self._sinks.items():
            self._works(name, sink.close)
        for name, count in self._lost.items():
            if count:
                told = "tracker %s: %d steps are not there; the run's folder has them"
                logging.warning(told, name, count)
        self._sinks, self._lost = {}, {}

    def _open(self, name: str, place: Place) -> None:
        package, open_sink = TRACKERS[name]
        self._sinks[name] = open_sink(importlib.import_module(package), place)

    def _note(self, name: str, step: int) -> None:
        """Note a step as sent, before it is: none is sent twice."""
        self._sent[name] = step
        self._path.parent.mkdir(exist_ok=True)
        record_files.write_json(self._path, {"run": self._run, "sent": self._sent})

    def _works(self, name: str, action: Callable[[], Any]) -> bool:
        """Say whether an action of a tracker went well; the first fault is told."""
        try:
            action()
            return True
        except Exception as error:  # whatever it is, the run is not ended by it
            if name not in self._told:
                self._told.add(name)
                told = "tracker %s: %s: %s; the run goes on, and counts what is lost"
                logging.warning(told, name, type(error).__name__, error)
            return False
