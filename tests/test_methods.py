"""The config of every method goes through all its stages."""

import pytest
import runs

from rlcd_jax import record_files, records


@pytest.mark.parametrize("name", ["rlaif", "rescore", "mixed", "distill", "evaluate"])
def test_config_goes_through_all_its_stages(name, tmp_path):
    config = runs.tiny_config(name, policy__steps=1, pairs__part_prompts=8)
    workdir = tmp_path / name
    summaries = runs.run(config, workdir)
    assert tuple(summaries) == tuple(config.stages)
    if name == "evaluate":
        return
    pairs = record_files.read_jsonl(workdir / "pairs/pairs.jsonl", records.Pair)
    labels = {pair.labels for pair in pairs}
    sides = {side for pair in pairs for side in (pair.side_1, pair.side_2)}
    assert (
        labels
        == {
            "rlaif": {"scoring"},
            "rescore": {"scoring"},
            "mixed": {"construction", "scoring"},
            "distill": {"construction"},
        }[name]
    )
    assert sides == ({"plain"} if name == "rlaif" else {"positive", "negative"})
    soft = [pair.prob_2 for pair in pairs if pair.labels == "scoring"]
    assert all(0.0 < prob < 1.0 for prob in soft)


def test_evaluate_takes_checkpoints_of_other_runs(finished_run, tmp_path):
    other = finished_run / "policy/checkpoints"
    config = runs.tiny_config("evaluate", evaluate__checkpoints=(f"theirs={other}",))
    table = runs.run(config, tmp_path / "run")["evaluate"]["table"]
    assert [row["name"] for row in table["rows"]] == ["base", "theirs"]
