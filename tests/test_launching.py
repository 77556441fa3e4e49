"""Scripts for clusters: what they say, that a shell reads them, and that they run.

A golden script names the command that made it in its own head.
"""

import json
import os
import pathlib
import subprocess
import sys

import compiling
import pytest
import yaml

from experiments import launch
from rlcd_jax import launching
from rlcd_jax.launching import jobs, launcher_words, slurm, submission

ROOT = pathlib.Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "launch"
RUN = ("run", "--config=rlcd:task=cheerful,model=hf:DIR", "--workdir=/data/it's")
SMALL = "--config.pairs.part_prompts=16"  # so that there are blocks enough for parts
SCRIPTS = {
    "run_in_parts.slurm.sh": (
        *("--target=slurm", "--parts=8", "--partition=gpu", "--account=me"),
        *("--nodes=2", "--setup=module load cuda", "--", *RUN, SMALL),
    ),
    "run.slurm.sh": ("--target=slurm", "--gpus=0", "--cpus=0", "--", *RUN),
    "run_in_parts.gke.yaml": (
        *("--target=gke", "--accelerator=nvidia-h100-80gb", "--chips=8", "--hosts=2"),
        *("--parts=3", "--queue=team", "--secret=judge", "--", *RUN, SMALL),
    ),
    "run.gke.yaml": (*("--target=gke", "--topology=2x2x4", "--hosts=4", "--", *RUN),),
    "run.tpu_vm.sh": ("--target=tpu-vm", "--project=mine", "--", *RUN),
}
FIELDS = {
    "methods": "distill",
    "tasks": "cheerful",
    "run.mesh.data": 1,
    "run.prompts.limit": 6,
    "run.pairs.part_prompts": 2,
    "run.evaluate.resamples": 50,
    "run.evaluate.reply_tokens": 8,
}


def tables_words(workdir):
    """Return the command of a small table, as a user types it."""
    overrides = [f"--config.{name}={value}" for name, value in FIELDS.items()]
    start = ["reproduce", "--config=paper:table=methods,scale=tiny"]
    return [*start, *overrides, f"--workdir={workdir}"]


@pytest.fixture
def type_command(monkeypatch):
    """Return what runs the launcher as if these words were typed."""

    def typed(*words):
        monkeypatch.setattr(sys, "argv", ["launch", *words])  # config_flags reads it
        launch.launch(sys.argv[1:])

    return typed


@pytest.fixture
def printed(type_command, capsys):
    """Return what runs the launcher and returns what it prints."""

    def run(*words):
        capsys.readouterr()  # of what ran before
        type_command(*words)
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("name", SCRIPTS)
def test_printed_scripts_are_these(printed, name):
    text = printed(*SCRIPTS[name])
    assert text == (GOLDEN / name).read_text()
    if name.endswith(".sh"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def shells(manifest):
    """Return the shell of each job of a JobSet."""
    rows = yaml.safe_load(manifest)["spec"]["replicatedJobs"]
    pods = [row["template"]["spec"]["template"]["spec"] for row in rows]
    return rows, [pod["containers"][0]["command"][2] for pod in pods]


def test_a_job_set_waits_level_by_level_and_has_a_command_for_each_index(printed):
    words = tables_words("/data/it's")
    text = printed("--target=gke", "--parts=2", "--", *words)
    rows, commands = shells(text)
    assert [row["name"] for row in rows] == [
        *("parts-0", "level-0", "level-1", "level-2", "level-3")
    ]
    assert [row["replicas"] for row in rows] == [2, 1, 1, 1, 1]
    waits = [row.get("dependsOn", [{}])[0].get("name") for row in rows]
    assert waits == [None, *(row["name"] for row in rows[:-1])]
    assert '--part="1/2"' in commands[0] and '--part="2/2"' in commands[0]
    for command in commands:
        subprocess.run(["bash", "-n"], input=command, text=True, check=True)
    # The shell of the container is given the very words.
    fake = f"python() {{ printf '%s\\n' \"$@\"; }}\n{commands[-1]}".replace("exec ", "")
    shown = subprocess.run(
        ["bash", "-c", fake],
        env=os.environ | {"JOB_INDEX": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.splitlines() == ["-m", "experiments.reproduce", *words[1:]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target=slurm"], "after -- stands nothing; accepted: a command"),
        (["--target=slurm", "--", "plan"], "after -- stands plan; accepted"),
        (["--target=slurm", "--parts=0", "--", *RUN], "--parts=0; accepted: a whole"),
        (
            ["--target=slurm", "--time=soon", "--", *RUN],
            "--time='soon'; accepted: long",
        ),
        (["--target=slurm", "--nodes=0", "--", *RUN], "--nodes=0; accepted: a whole"),
        (["--target=slurm", "--partition=a b", "--", *RUN], "--partition='a b'; acc"),
        (["--target=slurm", "--setup=a\nb", "--", *RUN], "--setup='a.nb'; accepted"),
        (
            ["--target=slurm", "--parts=2", "--", *RUN, "--stage=policy"],
            "--parts=2 splits the stage simulate, which is none of this run's: policy",
        ),
        (["--target=slurm", "--", *RUN, "--config.x=1"], "the config has no field 'x'"),
        (["--target=slurm", "--", *RUN, "more"], "unexpected word 'more'"),
        (["--target=slurm", "--", *RUN[:2]], "--workdir is missing; give a folder"),
        (["--target=slurm", "--", *RUN, "--config.seed=-1"], "seed=-1; accepted"),
        (
            ["--target=slurm", "--", *RUN, "--config.preference.human_pairs=9"],
            "human pairs are read from prompts.hh_dir, which is empty",
        ),
        (
            ["--target=slurm", "--parts=9", "--", *RUN],
            "9 parts: the prompts are 1 bloc",
        ),
        (["--target=gke", "--mount=/mnt", "--", *RUN], "is not on the volume that all"),
        (
            ["--target=gke", "--topology=2x2x4", "--", *RUN],
            "has 16 chips, and --hosts=1",
        ),
        (
            [
                "--target=gke",
                "--topology=2x4",
                "--hosts=2",
                "--parts=2",
                "--",
                *RUN,
                SMALL,
            ],
            "--parts are jobs of one host",
        ),
        (
            ["--target=tpu-vm", "--parts=2", "--", *RUN, SMALL],
            "one slice runs one command",
        ),
    ],
)
def test_what_cannot_be_launched_is_refused(words, message, type_command, capsys):
    with pytest.raises(ValueError, match=message):
        type_command(*words)
    assert not capsys.readouterr().out


def test_another_targets_value_is_refused(type_command, capsys):
    with pytest.raises(SystemExit):
        type_command("--target=slurm", "--topology=2x2x1", "--", *RUN)
    assert "unrecognized arguments: --topology=2x2x1" in capsys.readouterr().err


def test_a_target_has_what_the_launcher_asks_of_it():
    for target in launching.TARGETS.values():
        assert target.Site() and target.SUBMIT and isinstance(target.QUEUES, bool)


def test_the_launchers_own_words_end_at_the_first_two_dashes():
    assert launcher_words.split(["a", "--", "run", "--", "b"]) == (
        ["a"],
        ["run", "--", "b"],
    )
    assert launcher_words.split(["--target=gke"]) == (["--target=gke"], [])
    words = ["--partition=x", "--target", "slurm", "--parts=2"]
    assert launcher_words.find_target(words) is slurm
    for unknown in ([], ["--target=pbs"]):
        assert launcher_words.find_target(unknown) is None


def test_a_script_is_read_and_its_failure_told(tmp_path):
    submission.submit(f"echo yes >'{tmp_path}/ran'", ("bash", "-s"))
    assert (tmp_path / "ran").read_text() == "yes\n"
    with pytest.raises(ValueError, match="bash ended with 3"):
        submission.submit("exit 3", ("bash", "-s"))


def test_levels_come_after_all_that_their_jobs_wait_for():
    a, b = (jobs.ClusterJob(name, ("run",)) for name in "ab")
    c = jobs.ClusterJob("c", ("run",), after=("a",))
    d = jobs.ClusterJob("d", ("run",), after=("b", "c"))
    assert jobs.levels([a, b, c, d]) == [[a, b], [c], [d]]


def fake_cluster(folder):
    """Return a folder with sbatch and srun that run each job at once.

    A job whose dependency has not succeeded is refused, as one that could never start.
    """
    folder.mkdir()
    (folder / "sbatch").write_text(
        """#!/usr/bin/env bash
set -euo pipefail
state=$(dirname "$0")
array=1-1
for word in "$@"; do
  case "$word" in
    --array=*) array=${word#--array=} ;;
    --dependency=afterok:*)
      for id in $(tr : ' ' <<<"${word#--dependency=afterok:}"); do
        [ -e "$state/succeeded-$id" ] || { echo "no job $id" >&2; exit 1; }
      done ;;
  esac
done
id=$(($(ls "$state" | grep -c succeeded- || true) + 101))
cat >"$state/script-$id"
for task in $(seq "${array%-*}" "${array#*-}"); do
  SLURM_ARRAY_TASK_ID=$task bash "$state/script-$id" >>"$state/output-$id" 2>&1 ||
    { cat "$state/output-$id" >&2; exit 1; }
done
echo "$*" >"$state/succeeded-$id"
echo "$id;cluster"
"""
    )
    (folder / "srun").write_text(
        '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n'
    )
    for name in ("sbatch", "srun"):
        (folder / name).chmod(0o755)
    return folder


def test_a_job_of_slurm_that_leaves_to_go_on_is_queued_again(printed, tmp_path):
    cluster = fake_cluster(tmp_path / "bin")
    queued = tmp_path / "queued"
    (cluster / "scontrol").write_text(f'#!/usr/bin/env bash\necho "$@" >>{queued}\n')
    python = cluster / "leaving"
    python.write_text("#!/usr/bin/env bash\nexit ${STATUS}\n")
    for path in (cluster / "scontrol", python):
        path.chmod(0o755)
    words = ("--target=slurm", f"--python={python}", "--", *RUN[:2], "--workdir=w")
    for status in ("75", "2"):
        submitted = subprocess.run(
            ["bash", "-s"],
            input=printed(*words),
            env=os.environ
            | {"PATH": f"{cluster}:{os.environ['PATH']}"}
            | {"STATUS": status, "SLURM_JOB_ID": "17"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert submitted.returncode != 0
    assert queued.read_text() == "requeue 17\n"  # once: not after a mistake


def test_the_jobs_of_a_table_make_the_table_of_the_plain_command(tmp_path, printed):
    # The plain command has the jobs' one device, so that they find its programs.
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": compiling.QUICK,
        "JAX_PLATFORMS": "cpu",
    }
    plain = tables_words(tmp_path / "plain")
    subprocess.run(
        [sys.executable, "-m", f"experiments.{plain[0]}", *plain[1:]],
        env=environ,
        cwd=tmp_path,
        check=True,
    )
    words = tables_words(tmp_path / "cluster")
    cluster = fake_cluster(tmp_path / "bin")
    text = printed(
        "--target=slurm",
        f"--python={sys.executable}",
        "--parts=2",
        "--",
        *words,
    )
    submitted = subprocess.run(
        ["bash", "-s"],
        input=text,
        env={**environ, "PATH": f"{cluster}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert submitted.returncode == 0, submitted.stderr
    assert len(submitted.stdout.splitlines()) == 5
    made = {path.name for path in (tmp_path / "cluster/nodes").iterdir()}
    assert made == {path.name for path in (tmp_path / "plain/nodes").iterdir()}
    for name in ("table_methods.json", "table_methods.md"):
        one, two = (tmp_path / run / "tables" / name for run in ("plain", "cluster"))
        assert one.read_bytes() == two.read_bytes()
    rows = json.loads((tmp_path / "cluster/tables/table_methods.json").read_text())
    assert any("cheerful" in row["name"] for row in rows["rows"])
    # All is made: what is left to launch is the table alone.
    again = printed("--target=slurm", "--", *words)
    assert "# Submits 1 jobs" in again and "--node=" not in again
