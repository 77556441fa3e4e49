"""choosing: the rule for a checkpoint in a run, killed at any point, and its users."""

import json
import types

import numpy as np
import pytest
import runs

from rlcd_jax import checkpoint, done_mark, record_files
from rlcd_jax.job import prompt_parts, setup, trainer, workspace
from rlcd_jax.ppo import acting, choosing
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.weights import exchange

# Scores by checkpoint, as a run that goes too far would have them: best is not last.
REWARDS = {1: 0.5, 2: 2.0, 3: 1.0}
KL = {1: 1.0, 2: 5.0, 3: 9.0}


class Stop(Exception):
    """Stands for whatever kills a run."""


def fields(**more):
    return runs.tiny_config(policy__steps=3, policy__choose="dev_score", **more)


@pytest.fixture
def scripted(monkeypatch):
    """Replace what the dev replies score; replies and weights are real."""
    asked = choosing.answer_dev
    looks = []

    def answer_dev(actor, policy, notes):
        rows, metrics = asked(actor, policy, notes)
        step = looks.pop(0)
        return rows, metrics | {
            "dev/reward_mean": REWARDS[step],
            "dev/kl_sum_mean": KL[step],
        }

    monkeypatch.setattr(choosing, "answer_dev", answer_dev)
    return looks


def prepared(finished_run, workdir):
    return runs.copy_run(finished_run, workdir, "pairs", "preference")


# --- whole runs -----------------------------------------------------------------------


def test_dev_score_chooses_resumes_and_is_what_others_use(
    finished_run, tmp_path, monkeypatch, scripted
):
    config = fields(evaluate__systems=("base", "policy"))
    whole = prepared(finished_run, tmp_path / "whole")
    scripted += [1, 2, 3]
    summary = runs.run(config, whole, "policy")["policy"]
    assert summary["chosen"]["step"] == 2 and summary["steps"] == 3
    assert "dev prompts, 2, of 3 checkpoints" in summary["chosen"]["why"]
    assert [c["dev_score"] for c in summary["candidates"]] == [0.5, 2.0, 1.0]
    folder = whole / "policy"
    assert choosing.find_policy(folder) == folder / "chosen"
    kept = runs.saved_arrays(folder / "chosen", 2)
    assert [path.name for path in (folder / "chosen").iterdir()] == ["2"]
    states = runs.saved_arrays(folder / "checkpoints", 2)
    assert {n for n in states if n.startswith("policy/")} == kept.keys()
    for name, array in kept.items():
        np.testing.assert_array_equal(array, states[name], err_msg=name)
    last = runs.saved_arrays(folder / "checkpoints", 3)
    assert any((last[name] != array).any() for name, array in kept.items())

    # Killed after the best step was kept and before its checkpoint was whole.
    again = prepared(finished_run, tmp_path / "again")
    scripted += [1, 2]
    save = trainer.Trainer.save

    def dying(self, folder, step, *rest):
        if step == 2:
            raise Stop
        save(self, folder, step, *rest)

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(trainer.Trainer, "save", dying)
        runs.run(config, again, "policy")
    with pytest.raises(ValueError, match="is not finished; run the stage to its end"):
        runs.run(config, again, "evaluate")
    scripted += [2, 3]
    resumed = runs.run(config, again, "policy")["policy"]
    for name in ("chosen", "candidates"):
        assert resumed[name] == summary[name]
    other = runs.saved_arrays(again / "policy/chosen", 2)
    assert other.keys() == kept.keys()
    for name, array in kept.items():
        assert array.tobytes() == other[name].tobytes(), name
    assert [path.name for path in (again / "policy/chosen").iterdir()] == ["2"]
    one, two = (runs.metric_rows(run, "policy") for run in (whole, again))
    assert one == two and [row["dev/reward_mean"] for row in one] == [0.5, 2.0, 1.0]

    # Evaluation and export take the chosen step, not the last.
    table = runs.run(config, whole, "evaluate")["evaluate"]["table"]
    assert [row["name"] for row in table["rows"]] == ["base", "rlcd"]
    place = folder / "checkpoints"
    seen = exchange.read_checkpoint(place, "policy", None, tmp_path, print)
    np.testing.assert_array_equal(seen.params["embed"], kept["policy/embed"])


def test_last_takes_the_last_step_and_keeps_no_other(finished_run):
    summary = workspace.summary(finished_run, "policy")
    assert summary["chosen"] == {
        "step": 2,
        "why": "the last step, by policy.choose='last'",
    }
    folder = finished_run / "policy"
    assert not (folder / "chosen").exists()
    for named in (folder, folder / "checkpoints"):
        assert choosing.find_policy(named) == folder / "checkpoints"
    rows = runs.metric_rows(finished_run, "policy")
    for row, seen in zip(rows, summary["candidates"], strict=True):
        assert seen == {
            "step": row["step"],
            "dev_score": row["dev/reward_mean"],
            "kl": row["dev/kl_sum_mean"],
        }
        name = f"{row['step']:06d}.jsonl"
        samples = record_files.read_jsonl(folder / "samples" / name)
        mean = np.mean([sample["score"] for sample in samples])
        assert row["dev/reward_mean"] == pytest.approx(mean, rel=1e-6)


def test_dev_prompts_are_no_training_and_no_test_prompts(finished_run):
    samples = record_files.read_jsonl(finished_run / "policy/samples/000001.jsonl")
    with runs.devices_by_mesh():
        job = setup.load_job(runs.tiny_config())
    parts = {
        part: {p.id for p in prompt_parts.load_prompts(
            job.config, job.task, part, limit=0)}
        for part in ("train", "dev", "test")
    }  # fmt: skip
    ids = {sample["prompt_id"] for sample in samples}
    assert ids <= parts["dev"] and len(ids) == 2
    assert not ids & (parts["train"] | parts["test"])


def test_dev_prompts_of_hh_rlhf_are_in_no_other_part(tmp_path):
    folder = tmp_path / "hh" / "harmless-base"
    for split, num in (("train", 6), ("test", 8)):
        starts = [f"\n\nHuman: May I, {split} {i}?\n\nAssistant:" for i in range(num)]
        rows = [{"chosen": f"{one} Yes.", "rejected": f"{one} No."} for one in starts]
        runs.write_hh(folder / f"{split}.jsonl.gz", rows)

    def numbers(part, **prompts):
        given = {"source": "hh_rlhf", "hh_dir": str(folder.parent), "limit": 0}
        given |= {"data_dir": str(tmp_path / "data")} | prompts
        config = runs.tiny_config(
            task="harmless", **{f"prompts__{name}": v for name, v in given.items()}
        )
        task = setup.load_task(config)
        found = prompt_parts.load_prompts(config, task, part, limit=0)
        return [int(prompt.id.rpartition("/")[2]) for prompt in found]

    with pytest.raises(ValueError, match="prompts.hh_dev_split='test.:1000.'.* 8 exa"):
        numbers("dev")  # the paper's part, of files that are too small for it
    assert numbers("train") == [0, 1, 2, 3, 4, 5]  # reads the other file alone
    assert numbers("dev", hh_dev_split="test[:3]") == [0, 1, 2]
    assert numbers("test", hh_dev_split="test[:3]") == [3, 4, 5, 6, 7]
    assert numbers("train", hh_dev_split="train[4:]") == [0, 1, 2, 3]
    assert numbers("dev", hh_dev_split="") == []
    assert len(numbers("test", hh_dev_split="")) == 8


def test_log_ratios_are_zero_at_the_reference_and_do_not_see_neighbours(finished_run):
    config = runs.tiny_config(policy__dev_prompts=3)
    with runs.devices_by_mesh():
        actor = acting.Actor(setup.load_job(config))
        base = actor.job.load_base()
        actor._reference = lambda: base
        sampled = actor.generate(base, actor.dev_prompts, step=0)
        moved = {**base, "final_norm": base["final_norm"] * 1.5}
        assert actor.log_ratios(base, sampled).tolist() == [0.0, 0.0, 0.0]
        together = actor.log_ratios(moved, sampled)
        alone = [actor.log_ratios(moved, [one])[0] for one in sampled]
    assert (together != 0).all()
    # Sums of a dozen log-probabilities in float32, read in another number of rows.
    np.testing.assert_allclose(together, alone, atol=1e-5)


# --- the rule without a model ---------------------------------------------------------


def make_choice(folder, states, *, start=0, meta=None, **section):
    """Return a Choice of parameters that are one number; scores come from REWARDS."""
    values = {"choose": "dev_score", "kl_limit": 0.0, "dev_prompts": 1}
    values |= {"prompt_tokens": 8} | section
    actor = types.SimpleNamespace(
        section=types.SimpleNamespace(**values), dev_prompts=["one"]
    )
    return choosing.Choice(actor, folder, states, start, meta or {})


@pytest.fixture
def plain(monkeypatch):
    def answer_dev(actor, policy, notes):
        step = int(policy["w"][0])
        found = {"dev/reward_mean": REWARDS[step], "dev/kl_sum_mean": KL[step]}
        return [{"reply": str(step)}], found

    monkeypatch.setattr(choosing, "answer_dev", answer_dev)


def weight(step):
    return {"w": np.full(3, float(step), np.float32)}


def go(folder, *, die=(), **section):
    """Go through the steps as the stage does; stop at (step, point) in ``die``."""
    states = folder / "checkpoints"
    with checkpoint.Checkpointer(states, max_to_keep=2, asynchronous=False) as saver:
        start = saver.latest_step() or 0
        meta = checkpoint.restore(states, start, {})[1] if start else {}
        with make_choice(folder, saver, start=start, meta=meta, **section) as choice:
            for step in range(start + 1, 4):
                if (step, "before") in die:
                    raise Stop
                choice.look(step, weight(step))
                if (step, "kept") in die:
                    raise Stop
                saver.save(step, {"policy": weight(step)}, choice.as_meta())
            if (3, "end") in die:
                raise Stop
            return choice.finish(3)


@pytest.mark.parametrize(
    "point",
    [(s, p) for s in (1, 2, 3) for p in ("before", "kept")] + [(3, "end")],
    ids=str,
)
def test_choice_is_the_same_wherever_it_was_killed(tmp_path, plain, point):
    with pytest.raises(Stop):
        go(tmp_path, die=[point])
    found = go(tmp_path)
    assert found["chosen"]["step"] == 2 and len(found["candidates"]) == 3
    chosen = tmp_path / "chosen"
    assert [path.name for path in chosen.iterdir()] == ["2"]
    assert runs.saved_arrays(chosen, 2)["policy/w"].tolist() == [2.0] * 3
    assert go(tmp_path) == found  # killed before the stage's mark: once more


def test_choice_obeys_the_limit_and_refuses_when_all_are_beyond(tmp_path, plain):
    near = go(tmp_path / "near", kl_limit=4.0)
    assert near["chosen"]["step"] == 1
    assert "with KL 4 or less" in near["chosen"]["why"]
    for _ in range(2):  # the message is the same when the command is given again
        with pytest.raises(ValueError, match="none of 3 .* KL 0.5 .*at 1 nats") as told:
            go(tmp_path / "none", kl_limit=0.5)
        assert "raise policy.kl_limit or policy.kl_coef" in str(told.value)


def test_choice_names_what_is_missing(tmp_path, plain):
    with pytest.raises(Stop):
        go(tmp_path, die=[(3, "before")])
    with checkpoint.Checkpointer(tmp_path / "chosen", max_to_keep=None) as saver:
        saver.remove(2)
    with pytest.raises(ValueError, match="has lost the policy of step 2"):
        go(tmp_path)
    actor = types.SimpleNamespace(
        section=types.SimpleNamespace(
            choose="dev_score", dev_prompts=4, prompt_tokens=8
        ),
        dev_prompts=[],
    )
    with pytest.raises(ValueError, match="no prompt of the part dev fits"):
        choosing.Choice(actor, tmp_path, None, 0, {})


# --- where a policy is ----------------------------------------------------------------


def test_find_policy_goes_by_the_config_of_the_stage(tmp_path):
    stage = tmp_path / "policy"
    (stage / "checkpoints" / "3").mkdir(parents=True)
    assert choosing.find_policy(stage) == stage / "checkpoints"  # no config
    for choose in ("last", "dev_score"):
        record_files.write_json(stage / "config.json", {"policy": {"choose": choose}})
        step = stage / "checkpoints" / "3"
        assert choosing.find_policy(step) == step  # one step is what it is
        if choose == "last":
            assert choosing.find_policy(stage) == stage / "checkpoints"
            continue
        with pytest.raises(ValueError, match="not finished; run the stage"):
            choosing.find_policy(stage)
        done_mark.mark_done(stage, {}, {})
        assert choosing.find_policy(stage / "checkpoints") == stage / "chosen"
    link = tmp_path / "system"
    link.symlink_to(stage)
    assert choosing.find_policy(link) == link / "chosen"
    other = tmp_path / "distill"
    record_files.write_json(other / "config.json", {"distill": {}})
    (other / "checkpoints").mkdir()
    assert choosing.find_policy(other) == other / "checkpoints"


def test_systems_of_other_runs_are_their_policies(tmp_path):
    stage = tmp_path / "theirs" / "policy"
    record_files.write_json(stage / "config.json", {"policy": {"choose": "dev_score"}})
    done_mark.mark_done(stage, {}, {})
    for name, step in (("checkpoints", 3), ("chosen", 2)):
        with checkpoint.Checkpointer(stage / name, max_to_keep=None) as saver:
            saver.save(step, {"policy": weight(step)}, {})
    named = (f"theirs={stage}/checkpoints", f"same={stage}")
    config = runs.tiny_config("evaluate", evaluate__checkpoints=named)
    systems = evaluate_policy.find_systems(config, tmp_path)
    assert systems["theirs"] == systems["same"] == stage / "chosen"
    assert json.loads((stage / "config.json").read_text())["policy"]
