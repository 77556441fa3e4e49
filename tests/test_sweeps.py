"""sweeps: a product of fields as runs, checked before the first, each in its folder."""

import shlex
import sys

import pytest

from experiments import sweep
from rlcd_jax.launching import sweeps

RUN = ("--config", "rlcd:task=cheerful,size=smoke,model=random:tiny", "--workdir", "D")


def test_a_sweep_is_the_product_of_its_fields():
    points = sweeps.read("policy.kl_coef=0.01,0.1  seed=0..2")
    assert len(points) == 6
    assert points[0] == {"policy.kl_coef": "0.01", "seed": "0"}
    assert points[1] == {"policy.kl_coef": "0.01", "seed": "1"}
    assert points[-1] == {"policy.kl_coef": "0.1", "seed": "2"}
    (one, two) = sweeps.read("pairs.labels=('construction','scoring'),('scoring',)")
    assert one == {"pairs.labels": "('construction','scoring')"}
    assert two == {"pairs.labels": "('scoring',)"}


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "the sweep is empty"),
        ("seed", "'seed'; accepted: FIELD=VALUE"),
        ("seed=", "'seed='; accepted: FIELD=VALUE"),
        ("seed=1,,2", "'seed=1,,2'; accepted"),
        ("seed=1,1", "has a value twice"),
        ("seed=1 seed=2", "seed is there twice"),
        ("seed=3..1", "'3..1'; accepted: A..B"),
        ("policy.gama=1", "'policy.gama' is no field of a run"),
        ("size=smoke,quick", "by the config's argument"),
        ("seed=0..99 policy.steps=1..99", "has 9900 runs; accepted: up to 1000"),
    ],
)
def test_what_is_no_sweep_is_refused(expression, told):
    with pytest.raises(ValueError, match="(?s).*") as caught:
        sweeps.read(expression)
    assert told in str(caught.value)


def test_each_run_has_its_fields_and_its_folder():
    points = sweeps.read("policy.kl_coef=0.01,0.1")
    made = sweeps.commands(points, ["--config", "rlcd", "--workdir", "D", "--a=1"])
    assert made == [
        [
            *("--config", "rlcd", "--a=1", f"--config.policy.kl_coef={value}"),
            f"--workdir=D/policy.kl_coef={value}",
        ]
        for value in ("0.01", "0.1")
    ]
    with pytest.raises(ValueError, match="no --workdir"):
        sweeps.commands(points, ["--config", "rlcd"])
    with pytest.raises(ValueError, match="kl_coef is set beside the sweep"):
        sweeps.commands(points, ["--workdir=D", "--config.policy.kl_coef=1"])
    same = sweeps.read("prompts.source=a/b,a:b")
    with pytest.raises(ValueError, match="would have the folder 'prompts.source=a_b'"):
        sweeps.commands(same, ["--workdir=D"])


@pytest.mark.parametrize(
    ("statuses", "status", "begun", "last"),
    [
        ((0, 0, 0), 0, 3, "3 of 3 runs are done"),
        ((0, 2, 0), 1, 3, "2 of 3 runs are done"),
        ((0, 75, 0), 75, 2, "run 2 of 3: D/seed=1"),
    ],
)
def test_a_run_that_fails_keeps_no_other(statuses, status, begun, last):
    left, said = list(statuses), []
    made = sweeps.commands(sweeps.read("seed=0..2"), ["--workdir=D"])
    assert sweeps.run(made, lambda words: left.pop(0), said.append) == status
    assert len(statuses) - len(left) == begun and said[-1] == last
    assert ("D/seed=1 ended with status 2" in said) is (2 in statuses)


def typed(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["sweep", *words])
    with pytest.raises(SystemExit) as stopped:
        sweep.main()
    return stopped.value.code


def test_commands_are_printed_here_and_for_a_cluster(monkeypatch, capsys):
    expression = "policy.kl_coef=0.01,0.1"
    assert typed(monkeypatch, expression, "--dry_run", "--", *RUN) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert shlex.split(lines[0])[:3] == ["python", "-m", "experiments.run"]
    assert lines[0].endswith("--workdir=D/policy.kl_coef=0.01")
    launch = ("--launch", "--target slurm --gpus 8")
    assert typed(monkeypatch, expression, *launch, "--", *RUN) == 0
    lines = capsys.readouterr().out.splitlines()
    start = "python -m experiments.launch --target slurm --gpus 8 -- run --config rlcd:"
    assert len(lines) == 2 and all(line.startswith(start) for line in lines)


def test_all_runs_are_checked_before_the_first(monkeypatch, capsys):
    begun = []
    monkeypatch.setattr(sweep, "start", lambda words: begun.append(words) or 0)
    assert typed(monkeypatch, "policy.gamma=1,2", "--", *RUN) == 2
    assert not begun and "policy.gamma=2.0; accepted: " in capsys.readouterr().err
    assert typed(monkeypatch, "policy.gamma=0.9,1", "--", *RUN) == 0
    assert [words[-1] for words in begun] == [
        "--workdir=D/policy.gamma=0.9",
        "--workdir=D/policy.gamma=1",
    ]
