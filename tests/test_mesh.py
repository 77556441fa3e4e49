"""One device and eight fake devices must give the same run.

Tolerances: float32 products are summed in another order on a mesh, which moves a loss
by some 1e-6 of its size; after a few Adam steps, whose first updates are of the size
of the rate whatever the gradient, weights may differ by far more than that where a
gradient is near zero, so losses are compared and not weights. Sampled ids are equal:
a draw changes only if two candidates are within rounding of each other.
"""

import warnings

import pytest
import runs

from rlcd_jax import record_files, records

MESH = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
CLOSE = 2e-4  # of a loss, relative; measured below 3e-5


@pytest.fixture(scope="module")
def both(finished_run, tmp_path_factory):
    """Return the workdirs of one run on one device and one on eight."""
    workdir = tmp_path_factory.mktemp("mesh") / "eight"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A file that a killed run left half written is compiled again.
        warnings.filterwarnings("ignore", ".*persistent compilation cache")
        runs.run(runs.tiny_config(**MESH), workdir)
    return finished_run, workdir


def assert_close(one: list[dict], eight: list[dict], names) -> None:
    assert [row["step"] for row in one] == [row["step"] for row in eight]
    for name in names:
        first, second = ([row[name] for row in rows] for rows in (one, eight))
        assert first == pytest.approx(second, rel=CLOSE, abs=1e-5), name


def test_pairs_are_the_same_on_a_mesh(both):
    one, eight = (
        record_files.read_jsonl(w / "pairs/pairs.jsonl", records.Pair) for w in both
    )
    assert one == eight and len(one) == 8


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (
            "preference",
            (
                "preference/loss",
                "optimizer/grad_norm",
                "preference/held_out_loss",
            ),
        ),
        ("distill", ("distill/loss", "optimizer/grad_norm")),
        (
            "policy",
            (
                "policy/loss",
                "value/loss",
                "loss/total",
                "optimizer/grad_norm",
                "rollout/reward_mean",
                "rollout/score_mean",
                "rollout/kl_per_token",
                "rollout/entropy",
            ),
        ),
    ],
)
def test_losses_are_equal_on_a_mesh(both, stage, names):
    one, eight = (runs.metric_rows(workdir, stage) for workdir in both)
    assert len(one) >= 2
    assert_close(one, eight, names)


def test_replies_of_the_policy_are_the_same_on_a_mesh(both):
    for name in ("000001.jsonl", "000002.jsonl"):
        one, eight = (
            record_files.read_jsonl(w / "policy/samples" / name) for w in both
        )
        assert [row["reply"] for row in one] == [row["reply"] for row in eight]


def test_evaluation_is_the_same_on_a_mesh(both):
    one, eight = (record_files.read_jsonl(w / "evaluate/samples.jsonl") for w in both)
    for left, right in zip(one, eight, strict=True):
        assert left["reply"] == right["reply"]
        assert left["divergence"] == pytest.approx(right["divergence"], abs=1e-4)


def test_stages_may_change_the_mesh_between_them(both, tmp_path):
    """A checkpoint of eight devices is read by one device."""
    workdir = runs.copy_run(both[1], tmp_path / "run", "pairs", "preference")
    runs.run(runs.tiny_config(), workdir, "policy")
    one, mixed = (runs.metric_rows(w, "policy") for w in (both[0], workdir))
    assert_close(one, mixed, ("policy/loss", "value/loss", "rollout/reward_mean"))
