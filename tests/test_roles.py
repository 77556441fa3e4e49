"""A run in which every role has a model of its own, each with its own tokenizer.

The models are random, of the sizes and the tokenizers of different families; one run
goes through all stages, and what it has left is looked at by slow ways of our own.
"""

import importlib
import json
import pathlib
import shutil

import family_models
import jax
import numpy as np
import pytest
import runs

from rlcd_jax import jsonl, pipeline, record_files, records, trackers
from rlcd_jax import stages as stage_table
from rlcd_jax.checks import refusals
from rlcd_jax.job import lengths, roles, setup, trained_form, workspace
from rlcd_jax.models import heads, llama, table
from rlcd_jax.pairs import scoring_prompt
from rlcd_jax.planning import chips, plan, sizes, tables
from rlcd_jax.ppo import learning
from rlcd_jax.preference import model as preference_model
from rlcd_jax.stages import train_policy
from rlcd_jax.weights import exchange, scalar

FAMILIES = {
    "generator": "llama2",
    "preference": "llama3_chat",
    "policy": "smollm2",
    "judge": "smollm2_gguf",
}
STAGES = ("simulate", "preference", "policy", "evaluate")
FEW = {  # what is compiled is most of what a run takes
    "stages": STAGES,
    "model.scorer": "random:tiny",  # of bytes
    "engine.prompt_buckets": (64,),
    "engine.live_buckets": (4096,),
    "pairs.labels": ("construction", "scoring"),
    "pairs.min_margin": 0.0,
    "policy.steps": 1,
    "policy.warmup_steps": 1,
    "policy.epochs": 1,
    "preference.epochs": 1,
    "preference.lengths": (256,),
    "evaluate.systems": ("base", "policy", "best_of_n"),
    "evaluate.best_of": 2,
    "evaluate.judges": ("lexicon", "log_odds"),
    "evaluate.prompts": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    """Return the folder of the models and of the run."""
    return tmp_path_factory.mktemp("roles")


@pytest.fixture(scope="module")
def specs(folder) -> dict[str, str]:
    """Return the spec of each role's model."""
    return {
        role: family_models.write(family, folder / role)
        for role, family in FAMILIES.items()
    }


def config_of(specs, **fields):
    """Return the config of a run with these models."""
    named = {f"model.{role}": spec for role, spec in specs.items()}
    named |= {"model.spec": "random:of no role", **FEW, **fields}
    return runs.tiny_config(**{k.replace(".", "__"): v for k, v in named.items()})


@pytest.fixture(scope="module")
def loaded() -> list[tuple[str, str]]:
    """Return (stage, role) of each reading of weights, in their order."""
    return []


@pytest.fixture(scope="module")
def run(folder, specs, loaded) -> pathlib.Path:
    """Return the workdir of a whole run, checked as the command checks it."""
    found, stage = setup._find_model, [""]

    def noted(config, role):
        cfg, text_tokenizer, read = found(config, role)

        def load(*args):
            loaded.append((stage[0], role))
            return read(*args)

        return cfg, text_tokenizer, load

    def named(row, config, workdir):
        stage[0] = row.name
        return real(row, config, workdir)

    real = stage_table.Stage.run
    with pytest.MonkeyPatch.context() as patch, runs.devices_by_mesh():
        patch.setattr(setup, "_find_model", noted)
        patch.setattr(stage_table.Stage, "run", named)
        pipeline.run_stages(
            config_of(specs), str(folder / "run"), STAGES, cache_dir="", preset=None
        )
    return folder / "run"


@pytest.fixture(scope="module")
def jobs(specs):
    """Return the job with the model of each role, found from the policy's."""
    with runs.devices_by_mesh():
        job = setup.load_job(config_of(specs))
        return {role: job.of(role) for role in roles.ROLES}


def pairs_of(workdir):
    return record_files.read_jsonl(workdir / "pairs" / "pairs.jsonl", records.Pair)


def forward(job, params, ids):
    """Return the logits [T, V] of one text, alone."""
    tokens, mask = np.array([ids]), np.ones((1, len(ids)), bool)
    hidden, _ = llama.hidden_states(
        params, job.cfg, tokens, heads.positions_of(mask), mask
    )
    return np.asarray(llama.logits(params, job.cfg, hidden)[0])


def test_a_model_is_read_in_the_stage_of_its_role_alone(run, loaded):
    assert loaded == [
        ("simulate", "scorer"),  # and let go of before the generator is read
        ("simulate", "generator"),
        ("preference", "preference"),
        ("policy", "policy"),  # the reference
        ("policy", "policy"),  # what is trained
        ("policy", "policy"),  # and what the value model begins as
        ("evaluate", "policy"),
        ("evaluate", "judge"),
    ]


def test_pairs_are_the_generators_and_their_labels_the_scorers(run, jobs, specs):
    generator, scorer = jobs["generator"], jobs["scorer"]
    rows = pairs_of(run)
    assert {row.generator for row in rows} == {specs["generator"]}
    # Each try says of how many tokens a reply is; no other of the models has these.
    whole = [row for row in rows if row.finish_1 == "length" and row.tries_1 == 1]
    assert whole and all(row.num_tokens_1 == 12 for row in whole)
    scored = [row for row in rows if row.labels == "scoring"]
    assert len(scored) == len(rows) // 2 > 1
    prompts = {row.prompt_id: row for row in rows}
    row, params = scored[0], scorer.load_base()
    task, plain = scorer.task, prompts[row.prompt_id].prompt
    question = task.scoring_instructions[row.scoring["instruction_index"]]
    replies, said = (row.reply_1, row.reply_2), []
    for first, second in (replies, replies[::-1]):
        text = scoring_prompt.scoring_prompt(
            plain, first, second, question, task.scoring_opening
        )
        ids = scorer.text_tokenizer.encode(text)
        assert len(ids) > len(generator.text_tokenizer.encode(text))
        a, b = forward(scorer, params, ids)[-1][[ord("A"), ord("B")]]
        said.append(1 / (1 + np.exp(a - b)))
    assert np.isclose(row.prob_2, (said[0] + 1 - said[1]) / 2, atol=1e-4)


def test_what_is_trained_has_the_shapes_of_its_role(run, jobs):
    for stage, item, role in (
        ("preference", "preference", "preference"),
        ("policy", "policy", "policy"),
        ("policy", "value", "policy"),
    ):
        job = jobs[role]
        specs = heads.scalar_specs if item != "policy" else llama.param_specs
        params = setup.restore_params(
            job, run / stage / "checkpoints", item, specs(job.cfg)
        )
        table = params["embed"] if item == "policy" else params["trunk"]["embed"]
        assert table.shape[0] == job.cfg.vocab_size == job.text_tokenizer.vocab_size
    sizes_of = {jobs[role].cfg.vocab_size for role in ("generator", *FAMILIES)}
    assert len(sizes_of) == 3  # the judge is SmolLM2 too


def test_rewards_are_of_texts_as_the_preference_model_spells_them(run, jobs):
    """The reply is decoded by the policy's tokenizer and encoded by the other."""
    job = jobs["preference"]
    with jax.set_mesh(job.mesh):
        params = preference_model.restore(job, run)
    rows = [row for _, row in jsonl.read(run / "policy" / "samples" / "000001.jsonl")]
    assert len(rows) == 2
    for row in rows:
        text = f"{row['prompt']} {row['reply'].strip()}{job.task.human_marker}"
        ids = job.text_tokenizer.encode(text)
        assert ids != jobs["policy"].text_tokenizer.encode(text)
        tokens, mask = np.array([ids]), np.ones((1, len(ids)), bool)
        wanted = heads.scalar_per_token(params, job.cfg, tokens, mask)[0, -1]
        assert np.isclose(row["score"], wanted, atol=1e-4)


def test_the_value_model_of_another_policy_begins_as_the_policy(run, jobs, specs):
    job = jobs["policy"]
    assert learning.value_begins_as(job) == roles.POLICY
    told = workspace.summary(run, "policy")["value_model_begins_as"]
    assert told.startswith(f"the policy's base, {specs['policy']}: ")
    start = train_policy.start_params(job, run)
    base, value = job.load_base(), start["value"]
    for name in ("embed", "final_norm"):
        np.testing.assert_array_equal(value["trunk"][name], base[name])
    assert "unembed" not in value["trunk"] and not np.any(value["head"]["weight"])


def test_a_value_model_of_the_same_numbers_begins_as_the_preference_model(
    run, jobs, specs, folder
):
    """Of other weights, which is what a copy of the folder stands for."""
    twin = folder / "twin"
    shutil.copytree(folder / "preference", twin)
    with runs.devices_by_mesh():
        config = config_of({**specs, "policy": f"hf:{twin}"})
        job = setup.load_job(config)
        assert not job.is_model_of("preference")
        assert learning.value_begins_as(job) == roles.PREFERENCE
        wanted = preference_model.restore(job.of("preference"), run)["trunk"]
        value = train_policy.start_params(job, run)["value"]
        np.testing.assert_array_equal(value["trunk"]["embed"], wanted["embed"])
        # Adapters lie on a base, and that of the preference model is another.
        config.lora.rank = 2
        adapted = setup.load_job(config)
        assert learning.value_begins_as(adapted) == roles.POLICY
        start = train_policy.start_params(adapted, run)
        for item in ("policy", "value"):
            wanted = table.abstract_params(trained_form.specs(adapted, item))
            shapes = [leaf.shape for leaf in jax.tree.leaves(start[item])]
            assert shapes == [leaf.shape for leaf in jax.tree.leaves(wanted)]


def test_a_table_and_a_report_name_the_model_of_each_role(run, specs):
    named = [
        f"{specs['generator']} (generator)",
        "random:tiny (scorer)",
        f"{specs['preference']} (preference)",
    ]
    caption = (run / "evaluate" / "table.md").read_text()
    page = (run / trackers.REPORT).read_text()
    for text in named:
        assert text in caption and text in page
    assert roles.told(runs.tiny_config().model) == "random:tiny"
    generators = runs.tiny_config(model__generator="random:other").model
    assert roles.told(generators) == (
        "random:other (generator), random:tiny (preference, policy)"
    )


def test_an_evaluation_asks_the_judge_and_the_preference_model(run):
    table = json.loads((run / "evaluate" / "table.json").read_text())
    assert "best_of_2" in json.dumps(table)
    verdicts = [row for _, row in jsonl.read(run / "evaluate" / "verdicts.jsonl")]
    assert {row["judge"] for row in verdicts} >= {"log_odds"}
    samples = [row for _, row in jsonl.read(run / "evaluate" / "samples.jsonl")]
    assert {row["best_of"] for row in samples} == {None, 2}


def test_each_stage_holds_the_weights_of_its_own_roles(run, specs, folder):
    def held(stage):
        return {name for name in jsonl.read_object(run / stage / "inputs.json")}

    def names(*own):
        return {f"model.{role}={specs[role]}" for role in own}

    every = names(*FAMILIES)
    for stage, own in (
        ("pairs", {"generator"}),
        ("preference", {"preference"}),
        ("policy", {"preference", "policy"}),
        ("evaluate", {"preference", "policy", "judge"}),
    ):
        assert held(stage) & every == names(*own)


def test_changed_weights_of_a_role_refuse_its_stage_and_no_other(run, specs, folder):
    config = config_of(specs)
    weights = folder / "generator" / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        with pytest.raises(ValueError, match=r"model\.generator=hf:.* has changed"):
            workspace.finished(config, run, "simulate")
        assert workspace.finished(config, run, "preference")
        told = refusals.verdict(config, run, STAGES)
        assert any("model.generator=" in line for line in told)
    finally:
        weights.write_bytes(before)


def test_another_model_of_a_role_refuses_what_depends_on_it(run, specs):
    config = config_of({**specs, "judge": ""})
    for stage in STAGES[:3]:
        assert workspace.finished(config, run, stage)
    with pytest.raises(ValueError, match="model.judge"):
        workspace.finished(config, run, "evaluate")
    config = config_of({**specs, "preference": specs["policy"]})
    assert workspace.finished(config, run, "simulate")
    for stage in STAGES[1:]:
        with pytest.raises(ValueError, match="model.preference"):
            workspace.finished(config, run, stage)


def test_a_run_of_one_model_depends_on_what_it_did_before_there_were_roles():
    config = runs.tiny_config()
    for stage in STAGES:
        part = workspace.stage_config(config, stage)["model"]
        assert not {*part} & {*roles.ROLES}
    with runs.devices_by_mesh():
        job = setup.load_job(config)
    for role in roles.ROLES:
        other = job.of(role)
        assert (other.load_base, other.cfg) == (job.load_base, job.cfg)
        assert other.text_tokenizer is job.text_tokenizer and other.role == role
    assert learning.value_begins_as(job) == roles.PREFERENCE


def test_a_checkpoint_is_exported_with_the_model_of_its_role(run, specs, folder):
    for place, item, role in (
        ("preference", "preference", "preference"),
        ("policy", "policy", "policy"),
        ("policy", "value", "policy"),
    ):
        source = exchange.read_checkpoint(run / place, item, None, folder, print)
        assert source.about.base == specs[role]
        trunk = source.params if item == scalar.POLICY else source.params["trunk"]
        assert len(trunk["embed"]) == source.text_tokenizer.vocab_size
        assert source.about.generator == specs["generator"]


def test_mistakes_in_a_role_are_told_before_anything(specs, tmp_path):
    def told(**fields):
        with runs.devices_by_mesh():
            config = config_of(specs, **fields)
            return refusals.verdict(config, tmp_path / "run", STAGES)

    (line,) = told(**{"model.preference": "hf:/not/there"})
    assert line.startswith("model.preference='hf:/not/there': ")
    two = told(**{"model.preference": "hf:/not/there", "model.judge": "lama"})
    assert len(two) == 2 and two[1].startswith("model.judge='lama': unknown model")
    (line,) = told(**{"model.scorer": "llama-7b"})
    assert line.startswith("model.scorer='llama-7b': ") and "without weights" in line
    (line,) = told(task_format="chat")
    assert "model.generator=" in line and "chat templates" in line
    assert "task_format='dialogue'" in line
    (line,) = told(**{"evaluate.judges": ("lexicon",)})
    assert line.startswith(f"model.judge={specs['judge']!r} is asked nothing: ")
    (line,) = told(**{"pairs.labels": ("construction",)})
    assert line.startswith("model.scorer='random:tiny' is asked nothing: ")
    assert "set model.scorer=''" in line
    assert not (tmp_path / "run").exists()


def test_texts_are_measured_in_the_tokens_of_who_reads_them(jobs, specs):
    """A byte is a token of the scorer, and three or four of them one of LLaMA's."""
    generator = jobs["generator"]
    (own, reply), (scorer, question) = (
        (who, what) for who, what, _ in lengths._needs(generator, "simulate", 0)
    )
    assert own is generator and scorer.role == "scorer"
    assert "of the scorer's" in question and "scorer" not in reply
    room = lengths._needs(generator, "simulate", 0)[1][2]
    assert room > 2 * (256 + 2 * 12)
    with runs.devices_by_mesh():
        longer = {"model.scorer": specs["judge"], "pairs.prompt_tokens": 480}
        config = config_of(specs, **longer)
        job = setup.load_job(config, role="generator")
    with pytest.raises(
        ValueError, match="a question of .* of the scorer's: .* at most"
    ):
        lengths.check(job, "simulate")


def paper_plan(**fields):
    """Return the plan of a 7B policy's run, and its setting."""
    module = importlib.import_module("configs.rlcd")
    config = module.get_config("task=harmless,model=llama-7b,size=quick")
    with config.unlocked():
        # Slots few enough that weights, not the cache, are what an engine holds.
        own = {"mesh.fsdp": 8, "engine.slots_per_device": 32}
        config.update_from_flattened_dict(own | fields)
    chosen = chips.parse_topology("h100:8")
    return plan.make_plan(config, chosen), plan.make_setting(config, chosen)


def test_a_plan_has_the_sizes_of_each_role():
    """30B pairs for a 7B policy, the paper's: only what draws pairs is larger."""
    one, _ = paper_plan()
    both, setting = paper_plan(**{"model.generator": "llama-30b"})
    assert [spec for spec, _ in both.models.values()] == ["llama-30b"] + 3 * [
        "llama-7b"
    ]
    counts = {role: count for role, (_, count) in both.models.items()}
    assert counts["generator"] > 4.7 * counts["policy"]

    def held(made, stage):
        named = {row.name: row for row in made.stages}
        return {program.name: program.held for program in named[stage].programs}

    for stage in ("preference", "policy", "evaluate"):
        assert held(one, stage) == held(both, stage)
    assert held(both, "simulate")["load"] > 4 * held(one, "simulate")["load"]
    assert (
        "llama-30b (generator; 32.5B parameters), llama-7b (preference, policy, "
        in (tables.render(tables.Report(both), "text"))
    )
    assert tables.as_json(tables.Report(both))["models"]["generator"] == {
        "spec": "llama-30b",
        "parameters": counts["generator"],
    }
    scorer = setting.of("scorer")
    assert sizes.model_bytes(
        scorer, llama.param_specs(scorer.cfg), frozen=True
    ) > 4 * sizes.model_bytes(setting, llama.param_specs(setting.cfg), frozen=True)


def test_a_plan_of_a_larger_preference_model_has_it_beside_the_policy():
    one, _ = paper_plan()
    both, _ = paper_plan(
        **{"model.preference": "llama-30b", "model.judge": "llama-13b"}
    )

    def program(made, stage, name):
        (named,) = (row for row in made.stages if row.name == stage)
        return {one.name: one for one in named.programs}[name]

    for name in ("update policy", "decode"):
        small, large = (program(made, "policy", name) for made in (one, both))
        assert large.sizes["parameters"] == small.sizes["parameters"]
        assert large.sizes["frozen"] > 2.5 * small.sizes["frozen"]
    assert program(both, "policy", "rewards").flops > 4 * (
        program(one, "policy", "rewards").flops
    )
    assert program(both, "policy", "read the models").held > 0
    assert program(both, "preference", "update").flops > 4 * (
        program(one, "preference", "update").flops
    )
    judged = [program(made, "evaluate", "judge").flops for made in (one, both)]
    assert 1.7 < judged[1] / judged[0] < 2.2
