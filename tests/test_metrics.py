"""metrics: rows and curves, each step once."""

import json
import logging as std_logging

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rlcd_jax import metrics


def scalars(folder):
    """Read tag, step, value of all events with the plain TFRecord framing."""
    logged = []
    for path in sorted(folder.glob("events*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            event = event_pb2.Event.FromString(data[at + 12 : at + 12 + size])
            at += 12 + size + 4
            logged += [(v.tag, event.step, v.simple_value) for v in event.summary.value]
    return logged


def test_write_leaves_row_and_curve(tmp_path, caplog):
    with caplog.at_level(std_logging.INFO, logger="absl"):
        with metrics.MetricWriter(tmp_path, "policy") as writer:
            values = writer.write(
                3,
                {
                    "policy/loss": jnp.float32(0.5),
                    "policy/count": np.int64(7),
                    "policy/half": jnp.bfloat16(1.5),
                    "policy/one": jnp.ones((1,)),
                },
            )
    assert values == {
        "policy/loss": 0.5,
        "policy/count": 7,
        "policy/half": 1.5,
        "policy/one": 1.0,
    }
    row = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert row.pop("wall_time") > 1e9
    assert row == {"stage": "policy", "step": 3, **values}
    curves = scalars(tmp_path / "tensorboard" / "policy")
    assert ("policy/loss", 3, 0.5) in curves and len(curves) == 4
    assert not caplog.text  # what of it is shown is another's


def test_write_refuses_values_that_are_not_finite(tmp_path):
    with metrics.MetricWriter(tmp_path, "policy") as writer:
        writer.write(1, {"a": 1.0})
        with pytest.raises(ValueError, match=r"step 2 .*'policy'.*b = nan, c = inf"):
            writer.write(2, {"a": 1.0, "b": float("nan"), "c": jnp.inf})
        writer.write(2, {"a": 2.0})
    assert [row["a"] for row in metrics.read_metrics(tmp_path)] == [1.0, 2.0]


@pytest.mark.parametrize(
    "values, match", [({"x": np.ones(2)}, "shape"), ({"step": 1}, "reserved")]
)
def test_write_refuses_what_is_no_metric(tmp_path, values, match):
    with metrics.MetricWriter(tmp_path, "policy") as writer:
        with pytest.raises(ValueError, match=match):
            writer.write(1, values)
    assert metrics.read_metrics(tmp_path) == []


def test_write_refuses_a_step_twice(tmp_path):
    with metrics.MetricWriter(tmp_path, "policy") as writer:
        writer.write(1, {"x": 1})
        with pytest.raises(ValueError, match="steps must increase"):
            writer.write(1, {"y": 1})


def write_steps(workdir, stage, steps, resumed_step=None, value=0.0):
    with metrics.MetricWriter(workdir, stage, resumed_step=resumed_step) as writer:
        for step in steps:
            writer.write(step, {"x": value})


def test_resume_leaves_each_step_once(tmp_path):
    write_steps(tmp_path, "preference", range(1, 4))
    write_steps(tmp_path, "policy", range(1, 6))
    write_steps(tmp_path, "policy", range(4, 8), resumed_step=3, value=1.0)
    rows = metrics.read_metrics(tmp_path, "policy")
    assert [(r["step"], r["x"]) for r in rows] == [
        (1, 0.0), (2, 0.0), (3, 0.0), (4, 1.0), (5, 1.0), (6, 1.0), (7, 1.0)
    ]  # fmt: skip
    assert len(metrics.read_metrics(tmp_path, "preference")) == 3


def test_new_start_forgets_rows_of_its_stage_only(tmp_path):
    write_steps(tmp_path, "preference", [1])
    write_steps(tmp_path, "policy", [1, 2])
    write_steps(tmp_path, "policy", [1], value=5.0)
    rows = metrics.read_metrics(tmp_path)
    assert [(r["stage"], r["x"]) for r in rows] == [
        ("preference", 0.0),
        ("policy", 5.0),
    ]


def test_resume_drops_a_line_cut_off_by_a_crash(tmp_path):
    write_steps(tmp_path, "policy", [1, 2])
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"stage": "policy", "st')
    write_steps(tmp_path, "policy", [3], resumed_step=2)
    assert [r["step"] for r in metrics.read_metrics(tmp_path)] == [1, 2, 3]


def test_read_metrics_names_a_broken_line(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "a", "step": 1}\nrubbish\n')
    with pytest.raises(ValueError, match="metrics.jsonl:2: not JSON"):
        metrics.read_metrics(tmp_path)
