"""Files that a run reads back from its own folder, damaged; see `fuzz_records`."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import damage
import runs
import strictly as s
from fuzz_records import DRAW, PAIR, SIDE, Case, json_damage, rows_case
from made_pair import make_pair

from rlcd_jax import locks, metric_rows, metrics, records, schema, step_replays
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.job import changes, nonfinite, workspace
from rlcd_jax.pairs import blocks
from rlcd_jax.ppo import choosing

CONFIG = {"policy__choose": "dev_score"}


def _same(found: Any, wanted: Any) -> bool:
    return json.dumps(found, sort_keys=True) == json.dumps(wanted, sort_keys=True)


def _object(data: bytes) -> dict:
    found = s.value(s.decoded(data))
    s.need(isinstance(found, dict), "no object")
    return found


# --- a stage that was begun -----------------------------------------------------------


def _begun(name: str) -> Callable[[pathlib.Path], Case]:
    """A stage that was begun goes on with the same config and inputs alone."""

    def make(folder: pathlib.Path) -> Case:
        config = runs.tiny_config()
        place = workspace.begin(config, folder, "simulate")
        path = place / name
        whole = json.loads(path.read_text())

        def oracle(data: bytes) -> bool:
            s.need(_same(_object(data), whole), "another")
            return False

        return Case(
            path,
            json_damage(whole),
            lambda: workspace.finished(config, folder, "simulate"),
            oracle,
            # An empty object in the place of one is read as its absence.
            exact=False,
            said="pairs",
        )

    return make


def run_config(folder: pathlib.Path) -> Case:
    """What a resumed run says of its config before: fields that may change."""
    config = runs.tiny_config()
    path = folder / "config.json"
    record = json.loads(json.dumps(config.to_dict()))
    path.write_text(json.dumps(record))

    def oracle(data: bytes) -> bool:
        _object(data)
        return True

    def read() -> bool:
        data = path.read_bytes()
        workspace.open_run(config, folder)
        assert _same(json.loads(path.read_text()), record)
        path.write_bytes(data)
        return True

    return Case(path, json_damage(record), read, oracle, share=1 / 5)


def replayed_config(folder: pathlib.Path) -> Case:
    """The config of a run of which something is made again."""
    path = folder / "config.json"
    record = json.loads(json.dumps(runs.tiny_config().to_dict()))
    path.write_text(json.dumps(record))

    def read() -> bool:
        config, task = run_diagnostics.read_config(folder)
        assert config.policy.steps >= 1 and task.name
        return not [*changes.told(config.to_dict(), config.to_dict())]

    return Case(path, json_damage(record), read, lambda data: True, exact=False)


def chosen_policy(folder: pathlib.Path) -> Case:
    """The config of a policy stage says where its weights are."""
    config = runs.tiny_config(**CONFIG)
    place = workspace.begin(config, folder, "policy")
    (place / choosing.CHECKPOINTS).mkdir()
    (place / "DONE").write_text("{}")
    path = place / "config.json"

    def oracle(data: bytes) -> str:
        section = _object(data).get("policy", {})
        s.need(isinstance(section, dict))
        choose = section.get("choose", "last")
        s.need(choose in ("last", "dev_score"))
        return "chosen" if choose == "dev_score" else "checkpoints"

    return Case(
        path,
        json_damage(json.loads(path.read_text())),
        lambda: choosing.find_policy(place).name,
        oracle,
    )


# --- parts of a simulation ------------------------------------------------------------

DROPPED = {
    **dict.fromkeys(("prompt_id", "task", "reason"), s.text),
    "sampling": s.one_of("contrast", "graded", "same"),
    "side": SIDE,
    "slot": s.text,
    "tries": s.count(),
    "reasons": s.many(s.text),
    "raws": s.many(s.text),
    "draw": DRAW,
}


def _blocks(folder: pathlib.Path) -> None:
    for start in (0, 4):
        drop = records.Dropped(
            *(f"q{start}", "cheerful", "contrast", "negative", "empty", 1),
            *(("empty",), ("",)),
        )
        made = [make_pair(id=f"p{start}", prompt_id=f"q{start}")]
        figures = {"seconds": 1.5, "tokens": 7 + start}
        blocks.write(folder, start, blocks.Drawn(made, [drop], figures))


def part_figures(folder: pathlib.Path) -> Case:
    _blocks(folder)
    path = sorted((folder / blocks.FOLDER).glob("figures-*"))[0]
    whole = json.loads(path.read_text())

    def oracle(data: bytes) -> dict:
        found = s.named(s.number(0))(_object(data))
        other = {"seconds": 1.5, "tokens": 11}
        names = [*found, *(name for name in other if name not in found)]
        return {name: found.get(name, 0.0) + other.get(name, 0.0) for name in names}

    return Case(
        path,
        json_damage(whole),
        lambda: {
            name: float(value)
            for name, value in blocks.read(folder, (0, 4)).figures.items()
        },
        lambda data: {name: float(one) for name, one in oracle(data).items()},
    )


def _part_rows(name: str, spec: s.Spec) -> Callable[[pathlib.Path], Case]:
    def make(folder: pathlib.Path) -> Case:
        _blocks(folder)
        path = sorted((folder / blocks.FOLDER).glob(f"{name}-*"))[0]
        rows = [json.loads(line) for line in path.read_text().splitlines()]

        def read() -> list:
            drawn = blocks.read(folder, (0, 4))
            return [schema.to_dict(row) for row in getattr(drawn, name)][:-1]

        return rows_case(
            path, rows, read, lambda data: [spec(one) for one in s.lines(data)],
            exact=False,
        )  # fmt: skip

    return make


# --- metrics, notes, samples, locks ---------------------------------------------------


def metrics_of_a_resumed_stage(folder: pathlib.Path) -> Case:
    """Rows behind the step that a stage goes on from go; the others stay as they are."""
    path = folder / metric_rows.FILE_NAME
    rows = [
        {"stage": stage, "step": n, "wall_time": 1.5, "loss": 0.25}
        for stage in ("preference", "policy")
        for n in (1, 2, 3)
    ]

    def oracle(data: bytes) -> list:
        last: dict[str, int] = {}
        found = s.lines(data, drop_truncated=True)
        for row in found:
            s.need({"stage", "step"} <= row.keys())
            s.filled(row["stage"])
            s.count(0, 10**40)(row["step"])
            for name in row.keys() - {"stage", "step"}:
                s.number(0 if name == "wall_time" else -math.inf)(row[name])
            s.need(row["step"] > last.get(row["stage"], -1))
            last[row["stage"]] = row["step"]
        return [r for r in found if r["stage"] != "policy" or r["step"] <= 2]

    def read() -> list:
        with metrics.MetricWriter(folder, "policy", resumed_step=2) as writer:
            writer.write(3, {"loss": 0.5})
        own = metrics.read_metrics(folder)
        assert own[-1]["step"] == 3 and own[-1]["loss"] == 0.5
        return own[:-1]

    return Case(path, damage.lines(rows), read, oracle, share=1 / 3)


NOTE = {
    "stage": "preference",
    "step": 3,
    "not_finite": {"loss": "nan"},
    "seed": 1,
    "rows": [1, 2],
    "ids": ["a", "b"],
    "minibatch": 0,
    "metrics": {"optimizer/grad_norm": 1.5},
    "norms": {"parameters": {"policy/q": [1.0, "inf"]}},
    "goes_on_from": 2,
}


def nonfinite_note(folder: pathlib.Path) -> Case:
    """A note of a step, beside which the step that was made again is held."""
    path = folder / "000003.json"

    def fits(found: dict) -> None:
        endless = s.one_of("nan", "inf", "-inf")
        s.named(s.number())(found.get("metrics"))
        s.named(endless)(found.get("not_finite"))
        if "minibatch" in found:
            s.count(0, 10**40)(found["minibatch"])

        def norm(value: Any) -> Any:
            return endless(value) if isinstance(value, str) else s.number()(value)

        if "norms" in found:
            s.named(s.named(s.many(norm)))(found["norms"])

    def oracle(data: bytes) -> bool:
        found = _object(data)
        fits(found)
        told = ("not_finite", "seed", "rows", "ids", "minibatch", "metrics", "norms")
        own, right = ({n: one.get(n) for n in told} for one in (found, NOTE))
        return own == right

    def read() -> bool:
        note = nonfinite.read_note(path)
        made = step_replays.Step(2, (), NOTE, note, str(path))
        assert "was made again" in made.report() or "made again from" in made.report()
        return not made.differences

    return Case(path, json_damage(NOTE), read, oracle)


def policy_samples(folder: pathlib.Path) -> Case:
    """Replies to dev prompts as the diagnosis of a run reads them."""
    place = folder / "policy" / "samples"
    place.mkdir(parents=True)
    path = place / "000002.jsonl"
    rows = [
        {
            "prompt_id": f"p{n}",
            "prompt": "Hi",
            "reply": f"Hello {n} there",
            "score": 1.0,
        }
        for n in range(3)
    ]
    path.with_name("000001.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )

    def oracle(data: bytes) -> bool:
        for row in s.lines(data):
            s.text(row.get("prompt")), s.text(row.get("reply"))
        return True

    def read() -> bool:
        table = run_diagnostics.watch(folder, [], None)
        return len(table.rows) > 0

    return Case(path, damage.lines(rows), read, oracle)


def lock(folder: pathlib.Path) -> Case:
    """Whatever stands in a lock's file: who takes it has it within a stated time."""
    path = folder / ".lock"
    who = {"host": "n17", "pid": 7, "since": "2026-01-01T00:00:00Z"}

    def read() -> bool:
        with locks.held(path, lambda line: None, stale=0.01):
            return json.loads(path.read_text())["pid"] > 0

    return Case(path, json_damage(who), read, lambda data: True, harms=False)


CASES: dict[str, Callable[[pathlib.Path], Case]] = {
    "begun_config": _begun("config.json"),
    "begun_inputs": _begun("inputs.json"),
    "run_config": run_config,
    "replayed_config": replayed_config,
    "chosen_policy": chosen_policy,
    "part_figures": part_figures,
    "part_pairs": _part_rows("pairs", s.record(PAIR, draw=None)),
    "part_dropped": _part_rows("dropped", s.record(DROPPED, draw=None, slot="")),
    "resumed_metrics": metrics_of_a_resumed_stage,
    "nonfinite_note": nonfinite_note,
    "policy_samples": policy_samples,
    "lock": lock,
}
