"""In a world whose attribute is computed from the text, RLCD must raise it.

A tiny LLaMA has learnt (``golden/make_world.py``) a language in which a reply is six
words, "ha" or "no". After the header "Assistant (glad):" most words are "ha", after
"Assistant (grim):" most are "no", and after the plain header half of them. Contrast
prompts, a preference model and PPO then have to find out that "ha" is wanted, from
nothing but the affixes.
"""

import json
import pathlib

import numpy as np
import pytest
import runs
from whole_compiling import whole_compiling  # noqa: F401

from configs import rlcd
from rlcd_jax import record_files
from rlcd_jax.ppo import learning
from rlcd_jax.stages import (
    evaluate_policy,
    simulate_pairs,
    train_policy,
    train_preference,
)

HERE = pathlib.Path(__file__).parent
SUBJECTS = "sun rain tea cat dog sea hill road town bird tree lake".split()
VERBS = "see draw like find know want".split()
MARGIN = 0.2  # by which the share of "ha" must rise; the start is near 0.5


def share_of_ha(reply: str) -> float:
    words = reply.split()
    return sum(word == "ha" for word in words) / max(len(words), 1)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> pathlib.Path:
    """Return a folder with the prompts; the base model is a golden one."""
    folder = tmp_path_factory.mktemp("world")
    rows = [
        {"id": f"{verb}-{subject}", "turns": [{"role": "human", "text": text}]}
        for verb in VERBS
        for subject in SUBJECTS
        for text in [f"{verb} the {subject}"]
    ]
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def config_of(world: pathlib.Path):
    config = rlcd.get_config(
        f"task={HERE / 'world.toml'},model=hf:{HERE / 'golden/world'},size=quick"
    )
    config.model.dtype = "float32"
    config.model.remat = "none"
    config.mesh.data = 1  # one device works faster than eight pretended ones
    config.prompts.source = str(world / "prompts.jsonl")
    config.pairs.samples_per_prompt = 3
    config.pairs.temperature = 1.0
    config.pairs.prompt_tokens = 48
    config.pairs.reply_tokens = 32
    config.preference.lengths = (80,)
    config.preference.held_out = 40
    config.preference.batch_size = 16
    config.preference.epochs = 3
    config.preference.learning_rate = 2e-3
    config.policy.steps = 4
    config.policy.rollouts = 64
    config.policy.update_batch = 32
    config.policy.epochs = 2
    config.policy.prompt_tokens = 40
    config.policy.reply_tokens = 32
    config.policy.learning_rate = 1e-3
    config.policy.kl_coef = 0.01
    config.policy.terminal_mode = "replace"
    config.policy.checkpoint_every = 100
    config.evaluate.samples_per_prompt = 2
    config.evaluate.top_p = 1.0
    config.evaluate.reply_tokens = 32
    config.evaluate.judges = ()
    return config


@pytest.fixture(scope="module")
def preference_run(world, tmp_path_factory) -> pathlib.Path:
    """Return a workdir in which pairs and preference model are made."""
    workdir = tmp_path_factory.mktemp("run")
    config = config_of(world)
    with runs.devices_by_mesh():
        simulate_pairs.simulate_pairs(config, workdir)
        train_preference.train_preference(config, workdir)
    return workdir


def shares(config, workdir) -> dict[str, float]:
    with runs.devices_by_mesh():
        train_policy.train_policy(config, workdir)
        evaluate_policy.evaluate_policy(config, workdir)
    rows = record_files.read_jsonl(
        workdir / "evaluate" / "samples.jsonl", evaluate_policy.Answer
    )
    return {
        system: float(
            np.mean([share_of_ha(r.reply) for r in rows if r.system == system])
        )
        for system in ("base", "rlcd")
    }


def copy_run(workdir: pathlib.Path, to: pathlib.Path) -> pathlib.Path:
    for name in ("pairs", "preference"):
        (to / name).symlink_to(workdir / name)
    return to


def test_preference_model_learns_the_contrast(preference_run):
    summary = json.loads((preference_run / "preference" / "summary.json").read_text())
    assert summary["held_out_accuracy"]["value"] > 0.8


def test_train_policy_raises_the_true_attribute(world, preference_run, tmp_path):
    found = shares(config_of(world), copy_run(preference_run, tmp_path))
    assert 0.35 < found["base"] < 0.65
    assert found["rlcd"] > found["base"] + MARGIN


def test_train_policy_with_flipped_advantages_does_not(
    world, preference_run, tmp_path, monkeypatch
):
    """The test above would notice a wrong sign: flipped, the attribute falls."""
    rows_of = learning.minibatches

    def flipped(*args):
        for batch in rows_of(*args):
            yield {**batch, "advantages": -batch["advantages"]}

    # In the batches and not in the loss, so that the update is the program above.
    monkeypatch.setattr(learning, "minibatches", flipped)
    found = shares(config_of(world), copy_run(preference_run, tmp_path))
    assert found["rlcd"] < found["base"] - MARGIN
