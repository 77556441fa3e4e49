"""The stages together: files, skipping, refusing, resuming, one from another's file."""

import json
import shutil

import jax
import made_pair
import numpy as np
import pytest
import runs

from rlcd_jax import checkpoint, done_mark, record_files, records
from rlcd_jax.job import setup, trainer, workspace
from rlcd_jax.models import heads
from rlcd_jax.pairs import reply_cleanup
from rlcd_jax.ppo import acting, encoded_prompts
from rlcd_jax.stages import evaluate_policy, simulate_pairs


class Stop(Exception):
    """Stands for whatever kills a run."""


def stop_after(function, calls: int):
    """Return the function, which raises ``Stop`` once it was called so many times."""
    made = []

    def stopping(*args, **kwargs):
        if len(made) == calls:
            raise Stop
        made.append(1)
        return function(*args, **kwargs)

    return stopping


def stop_and_resume(monkeypatch, config, workdir, stage, owner, name, calls):
    """Run a stage whose step ``calls + 1`` dies, then run it again to its end."""
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, stop_after(getattr(owner, name), calls))
        with pytest.raises(Stop):
            runs.run(config, workdir, stage)
    assert not (workspace.stage_folder(workdir, stage) / done_mark.DONE).exists()
    return runs.run(config, workdir, stage)[stage]


def assert_same_checkpoints(one, other, step):
    first, second = runs.saved_arrays(one, step), runs.saved_arrays(other, step)
    assert first.keys() == second.keys() and first
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
        assert array.dtype == second[name].dtype, name
    folders = [checkpoint.restore(folder, step, {})[1] for folder in (one, other)]
    assert runs.without_clocks(folders[0]) == runs.without_clocks(folders[1])


# --- the files of a run ---------------------------------------------------------------


def test_run_leaves_every_file_of_the_design(finished_run):
    for name in (
        "config.json",
        "environment.json",
        "pairs/summary.json",
        "preference/summary.json",
        "policy/summary.json",
        "evaluate/table.json",
    ):
        assert json.loads((finished_run / name).read_text()), name
    pairs = record_files.read_jsonl(finished_run / "pairs/pairs.jsonl", records.Pair)
    assert len(pairs) == 8
    assert {pair.side_1 for pair in pairs} | {pair.side_2 for pair in pairs} == {
        "positive",
        "negative",
    }
    for pair in pairs:
        better = pair.side_2 if pair.prob_2 > 0.5 else pair.side_1
        assert better == "positive" and pair.generator == "random:tiny"
        assert pair.source_prompt_1 != pair.source_prompt_2
    dropped = record_files.read_jsonl(
        finished_run / "pairs/dropped.jsonl", records.Dropped
    )
    assert dropped == []
    for stage, step in (("preference", 3), ("distill", 4), ("policy", 2)):
        assert checkpoint.latest_step(finished_run / stage / "checkpoints") == step
    samples = record_files.read_jsonl(finished_run / "policy/samples/000002.jsonl")
    assert len(samples) == 2 and all(row["prompt"] for row in samples)
    answers = record_files.read_jsonl(
        finished_run / "evaluate/samples.jsonl", evaluate_policy.Answer
    )
    assert {a.system for a in answers} == {"base", "distill", "rlcd"}
    verdicts = record_files.read_jsonl(finished_run / "evaluate/verdicts.jsonl")
    assert {row["judge"] for row in verdicts} == {"lexicon", "log_odds"}
    assert "| rlcd" in (finished_run / "evaluate/table.md").read_text()
    for stage in ("simulate", "preference", "distill", "policy", "evaluate"):
        assert list((finished_run / "tensorboard" / stage).iterdir())


def test_run_says_where_it_ran(finished_run):
    found = json.loads((finished_run / "environment.json").read_text())
    assert found["packages"]["jax"] == jax.__version__ and found["backend"] == "cpu"
    config = json.loads((finished_run / "config.json").read_text())
    assert config["policy"]["steps"] == 2


def test_metrics_have_one_row_a_step_with_finite_numbers(finished_run):
    for stage, steps in (("preference", 3), ("distill", 4), ("policy", 2)):
        rows = runs.metric_rows(finished_run, stage)
        assert [row["step"] for row in rows] == list(range(1, steps + 1))
    rows = runs.metric_rows(finished_run, "policy")
    assert rows[0]["rollout/kl_per_token"] == 0.0  # the reference is the start
    assert rows[1]["rollout/kl_coef"] != rows[0]["rollout/kl_coef"]
    assert len({row["rollout/reward_mean"] for row in rows}) == 2
    numbers = [v for row in rows for v in row.values() if not isinstance(v, str)]
    assert np.isfinite(numbers).all()


def test_rewards_stay_fractional(finished_run):
    samples = record_files.read_jsonl(finished_run / "policy/samples/000001.jsonl")
    scores = np.array([row["score"] for row in samples])
    assert (scores != np.round(scores)).all() and len(set(scores)) > 1


def test_rewards_of_held_out_pairs_are_what_the_summary_counts(finished_run):
    told = json.loads((finished_run / "preference/summary.json").read_text())
    read = record_files.read_jsonl(
        finished_run / "preference" / records.HELD_OUT, records.HeldOutPair
    )
    right = [(one.reward_2 - one.reward_1) * (one.prob_2 - 0.5) > 0 for one in read]
    assert len(read) == told["held_out_pairs"]
    assert np.mean(right) == told["held_out_accuracy"]["value"]
    pairs = record_files.read_jsonl(finished_run / "pairs/pairs.jsonl", records.Pair)
    labels = {pair.id: pair.prob_2 for pair in pairs}
    assert all(labels[one.id] == one.prob_2 for one in read)


def test_dev_replies_have_reward_and_divergence(finished_run):
    rows = record_files.read_jsonl(finished_run / "policy/samples/000002.jsonl")
    told = runs.metric_rows(finished_run, "policy")[-1]
    assert np.isclose(np.mean([row["kl"] for row in rows]), told["dev/kl_sum_mean"])
    lengths = np.mean([row["num_tokens"] for row in rows])
    assert lengths == told["dev/response_length_mean"]


def test_second_run_skips_every_stage(finished_run, monkeypatch):
    def refuse(config):
        raise AssertionError("a finished stage was started again")

    monkeypatch.setattr(setup, "load_job", refuse)
    before = {
        path: path.read_bytes()
        for path in finished_run.rglob("*")
        if path.is_file() and path.name not in ("config.json", "environment.json")
    }
    summaries = runs.run(runs.tiny_config(), finished_run)
    assert summaries["preference"]["train_pairs"] == 6
    for path, content in before.items():
        assert path.read_bytes() == content, path


def test_other_config_is_refused_and_loses_nothing(finished_run):
    before = {p: p.read_bytes() for p in finished_run.rglob("*") if p.is_file()}
    config = runs.tiny_config(preference__batch_size=3, policy__gamma=0.5)
    with pytest.raises(ValueError) as caught:
        runs.run_checked(config, finished_run, config.stages)
    assert "preference.batch_size: was 4, now 3" in str(caught.value)
    with pytest.raises(ValueError, match="policy.gamma: was 1.0, now 0.5"):
        runs.run_checked(config, finished_run, ("policy",))
    assert {p: p.read_bytes() for p in finished_run.rglob("*") if p.is_file()} == before


def test_a_later_section_may_change_without_touching_earlier_stages(
    finished_run, tmp_path
):
    config = runs.tiny_config(evaluate__prompts=2, evaluate__systems=("base",))
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    summaries = runs.run(config, workdir, "simulate", "preference")
    assert summaries["preference"]["train_pairs"] == 6


def test_evaluate_cleans_replies_as_the_config_says(tmp_path, monkeypatch):
    def shown(cleanup):
        config = runs.tiny_config(
            evaluate__prompts=2, evaluate__systems=("base",), evaluate__cleanup=cleanup
        )
        runs.run(config, tmp_path / cleanup, "evaluate")
        path = tmp_path / cleanup / "evaluate/samples.jsonl"
        return [
            row.reply for row in record_files.read_jsonl(path, evaluate_policy.Answer)
        ]

    own = reply_cleanup.FINAL["released"]

    def with_roles(text):  # a random model's replies have none
        return own(f"Assistant: {text} Human: more")

    monkeypatch.setitem(reply_cleanup.FINAL, "released", with_roles)
    assert shown("released") == shown("corrected")


# --- killed and resumed ---------------------------------------------------------------


def test_policy_resumed_equals_uninterrupted(finished_run, tmp_path, monkeypatch):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs", "preference")
    stop_and_resume(
        monkeypatch,
        runs.tiny_config(),
        workdir,
        "policy",
        acting.Actor,
        "draw_prompts",
        calls=1,
    )
    assert_same_checkpoints(
        finished_run / "policy/checkpoints", workdir / "policy/checkpoints", 2
    )
    whole, again = (runs.metric_rows(w, "policy") for w in (finished_run, workdir))
    assert whole == again
    for name in ("000001.jsonl", "000002.jsonl"):
        one, two = (w / "policy/samples" / name for w in (finished_run, workdir))
        assert one.read_text() == two.read_text()


@pytest.mark.parametrize(("stage", "last"), [("preference", 3), ("distill", 4)])
def test_supervised_stage_resumed_equals_uninterrupted(
    finished_run, tmp_path, monkeypatch, stage, last
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    config = runs.tiny_config()
    if stage == "distill":  # the shared run saves only its end
        with config.unlocked():
            config.distill.checkpoint_every = 2
    summary = stop_and_resume(
        monkeypatch, config, workdir, stage, trainer.Trainer, "update", calls=2
    )
    assert_same_checkpoints(
        finished_run / stage / "checkpoints", workdir / stage / "checkpoints", last
    )
    assert runs.metric_rows(finished_run, stage) == runs.metric_rows(workdir, stage)
    if stage == "preference":
        whole = json.loads((finished_run / "preference/summary.json").read_text())
        assert whole["held_out_accuracy"] == summary["held_out_accuracy"]


def test_simulate_resumed_equals_uninterrupted(finished_run, tmp_path, monkeypatch):
    workdir = tmp_path / "run"
    stop_and_resume(
        monkeypatch,
        runs.tiny_config(),
        workdir,
        "simulate",
        simulate_pairs.grid,
        "simulate",
        calls=1,
    )
    for name in ("pairs.jsonl", "dropped.jsonl"):
        one, two = (w / "pairs" / name for w in (finished_run, workdir))
        assert one.read_text() == two.read_text()
    assert not (workdir / "pairs/parts").exists()


def test_simulate_takes_a_finished_part_from_its_file(
    finished_run, tmp_path, monkeypatch
):
    calls = []
    simulate = simulate_pairs.grid.simulate

    def counted(part, *args, **kwargs):
        calls.append([prompt.id for prompt in part])
        if len(calls) == 2:
            raise Stop
        return simulate(part, *args, **kwargs)

    monkeypatch.setattr(simulate_pairs.grid, "simulate", counted)
    config = runs.tiny_config()
    with pytest.raises(Stop):
        runs.run(config, tmp_path / "run", "simulate")
    runs.run(config, tmp_path / "run", "simulate")
    assert len(calls) == 3 and calls[1] == calls[2] != calls[0]


# --- one stage from the file of the one before ----------------------------------------


def hand_pair(index: int) -> records.Pair:
    """Return a pair as a person would write it."""
    prompt = f"Human: Tell me about day {index}.\n\nAssistant:"
    return made_pair.make_pair(
        id=f"hand/{index}",
        task="cheerful",
        prompt_id=f"hand/{index}",
        prompt=prompt,
        reply_1="It was a sad day.",
        reply_2="It was a happy day!",
        prob_2=1.0,
        side_1="negative",
        side_2="positive",
        source_prompt_1=prompt,
        source_prompt_2=prompt,
        generator="by hand",
    )


def test_preference_and_distill_run_from_pairs_written_by_hand(tmp_path):
    (tmp_path / "config.json").write_text("{}")  # so it is the workdir of a run
    rows = [hand_pair(index) for index in range(8)]
    record_files.write_jsonl(tmp_path / "pairs/pairs.jsonl", rows)
    config = runs.tiny_config(
        preference__epochs=4,
        preference__batch_size=2,
        preference__learning_rate=1e-3,
        preference__schedule="constant",
        distill__epochs=1,
    )
    summaries = runs.run(config, tmp_path, "preference", "distill")
    assert summaries["preference"]["held_out_accuracy"]["value"] == 1.0
    assert summaries["distill"]["examples"] == 8


def test_policy_and_evaluate_run_from_checkpoints_written_by_hand(tmp_path, caplog):
    config = runs.tiny_config(policy__steps=1, evaluate__systems=("base", "policy"))
    with runs.devices_by_mesh():
        job = setup.load_job(config)
    key = jax.random.key(7)
    params = heads.scalar_from_trunk(job.cfg, job.load_base(), key)
    folder = tmp_path / "preference" / "checkpoints"
    with checkpoint.Checkpointer(folder, max_to_keep=None) as saver:
        saver.save(1, {"preference": params}, {})
    (tmp_path / "config.json").write_text("{}")
    summaries = runs.run(config, tmp_path, "policy", "evaluate")
    assert summaries["policy"]["steps"] == 1
    rows = [row["name"] for row in summaries["evaluate"]["table"]["rows"]]
    assert rows == ["base", "rlcd"]
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"] == []


def test_every_stage_counts_what_is_too_long_in_the_same_words(finished_run):
    def told(workdir, folder):
        return json.loads((workdir / folder / "summary.json").read_text())["too_long"]

    none = {"dropped": 0, "shortened": 0, "identical": 0}
    assert told(finished_run, "pairs") == {"prompts": {"of": 8} | none}
    assert told(finished_run, "preference") == {
        "prompts": {"of": 8} | none,
        "training pairs": {"of": 6} | none,
        "held-out pairs": {"of": 2} | none,
    }
    both = {"prompts": {"of": 8} | none, "replies": {"of": 8} | none}
    assert told(finished_run, "distill") == both
    assert told(finished_run, "evaluate") == {"prompts": {"of": 3} | none}
    policy = told(finished_run, "policy")
    assert policy["prompts"] == {"of": 8} | none
    assert policy["dev prompts"]["of"] >= 2


def test_policy_counts_the_prompts_that_it_has_no_room_for():
    with runs.devices_by_mesh():
        whole, none = encoded_prompts.usable_prompts(setup.load_job(runs.tiny_config()))
        sizes = sorted(len(one.ids) for one in whole)
        config = runs.tiny_config(policy__prompt_tokens=sizes[3])
        some, counts = encoded_prompts.usable_prompts(setup.load_job(config))
        dev, dev_counts = encoded_prompts.dev_prompts(setup.load_job(config))
    assert none["dropped"] == 0 and counts["of"] == len(whole) == none["of"]
    assert counts["dropped"] == len(whole) - len(some) > 0
    assert dev_counts["of"] - dev_counts["dropped"] >= len(dev)


@pytest.mark.parametrize("stage", ["preference", "distill", "policy", "evaluate"])
def test_a_run_killed_before_its_mark_leaves_the_same_mark(
    stage, finished_run, tmp_path
):
    """The last checkpoint is whole, and nothing of what follows it is there."""
    workdir = tmp_path / "run"
    shutil.copytree(finished_run, workdir)
    folder = workspace.stage_folder(workdir, stage)
    for name in (done_mark.DONE, "summary.json"):
        (folder / name).unlink()
    runs.run(runs.tiny_config(), workdir, stage)
    for name in (done_mark.DONE, "summary.json"):
        ours, theirs = (
            json.loads((run / folder.name / name).read_text())
            for run in (finished_run, workdir)
        )
        assert runs.without_clocks(ours) == runs.without_clocks(theirs), name
        assert list(ours) == list(theirs)
    for name in ("preference", "distill", "policy", "simulate"):
        assert runs.metric_rows(finished_run, name) == runs.metric_rows(workdir, name)


def test_pairs_are_not_drawn_again_when_only_the_mark_is_missing(tmp_path, monkeypatch):
    config, workdir = runs.tiny_config(), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(workspace, "write_done", stop_after(workspace.write_done, 0))
        with pytest.raises(Stop):
            runs.run(config, workdir, "simulate")
    before = (workdir / "pairs" / "pairs.jsonl").read_bytes()
    rows = runs.metric_rows(workdir, "simulate")
    monkeypatch.setattr(
        simulate_pairs, "drawer", lambda job: pytest.fail("pairs are drawn again")
    )
    runs.run(config, workdir, "simulate")
    assert (workdir / "pairs" / "pairs.jsonl").read_bytes() == before
    assert runs.metric_rows(workdir, "simulate") == rows


def test_blocks_that_a_kill_has_left_go_when_the_stage_is_skipped(
    finished_run, tmp_path
):
    workdir = runs.copy_run(finished_run, tmp_path / "run", "pairs")
    left = workdir / "pairs" / "parts" / "pairs-00000000.jsonl"
    left.parent.mkdir()
    left.touch()
    runs.run(runs.tiny_config(), workdir, "simulate")
    assert not left.parent.exists()
