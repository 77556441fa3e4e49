"""Replies of a thousand tokens and more, from prompts to the table, and what is cut."""

import dataclasses
import json
import logging

import pytest
import runs
from pair_world import BYTES, PROMPTS, RLAIF, SETTINGS, TASK, FakeEngine, simulate

from rlcd_jax import metrics, record_files, records, report
from rlcd_jax.checks import refusals
from rlcd_jax.job import kernels, setup
from rlcd_jax.models import blocked, llama
from rlcd_jax.pairs import cut_counts, grid, reply_cleanup
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.tasks import layout

LONG = 1024  # tokens of a reply
# A random model ends a reply once in 264 tokens; so cold it says the same on and on.
FIELDS = {
    **{"pairs__reply_tokens": LONG, "pairs__temperature": 0.02},
    **{"policy__reply_tokens": LONG, "policy__temperature": 0.02},
    **{"evaluate__reply_tokens": LONG, "evaluate__temperature": 0.02},
    # Its bytes are no UTF-8 and are written in three each, so that texts lose their end.
    **{"preference__lengths": (1200,), "preference__batch_size": 1},
    **{"preference__too_long": "cut_right"},
    **{"preference__epochs": 1, "preference__held_out": 1, "prompts__limit": 2},
    **{"policy__steps": 1, "policy__warmup_steps": 0, "policy__rollouts": 2},
    **{"policy__update_batch": 2, "policy__epochs": 1, "policy__dev_prompts": 0},
    **{"policy__prompt_tokens": 320, "evaluate__prompts": 1, "evaluate__judges": ()},
    **{"engine__live_buckets": (4096,), "engine__steps_per_dispatch": 16},
    **{"engine__prompt_buckets": (256,), "policy__kl_target": 0.0},
}


def config_of(**fields):
    return runs.tiny_config("rlcd", "outline", **FIELDS | fields)


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """Return the workdir of a whole run, its summaries, and how texts were read."""
    workdir, read = tmp_path_factory.mktemp("long") / "run", set()
    plain = blocked.causal_attention

    def noted(q, *more, most, **how):
        read.add((q.shape[1], blocked.block_tokens(q.shape[1], most)))
        return plain(q, *more, most=most, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "causal_attention", noted)
        summaries = runs.run(config_of(), workdir)
    return workdir, summaries, read


def test_outlines_of_a_thousand_tokens_go_from_prompts_to_the_table(long_run):
    workdir, summaries, read = long_run
    pairs = record_files.read_jsonl(workdir / "pairs/pairs.jsonl", records.Pair)
    tokens = [n for pair in pairs for n in (pair.num_tokens_1, pair.num_tokens_2)]
    assert len(pairs) == 2 and max(tokens) == LONG
    assert sum(n >= 1000 for n in tokens) >= len(tokens) / 2
    told = summaries["preference"]
    assert told["train_pairs"] == 1 and told["held_out_pairs"] == 1
    assert told["too_long"]["training pairs"]["dropped"] == 0
    (row,) = metrics.read_metrics(workdir, "preference")
    assert row["preference/training_pairs_of"] == 1
    assert row["preference/held_out_pairs_dropped"] == 0
    policy = summaries["policy"]
    assert policy["steps"] == 1 and policy["rollout/response_length_mean"] > 500
    assert policy["rollout/kl_sum_mean"] == pytest.approx(0, abs=1e-3)
    rows = {one["name"]: one for one in summaries["evaluate"]["table"]["rows"]}
    assert list(rows) == ["base", "rlcd"]
    answers = record_files.read_jsonl(
        workdir / "evaluate/samples.jsonl", evaluate_policy.Answer
    )
    assert max(one.num_tokens for one in answers) == LONG
    # Whatever was read without a cache, in blocks; no text of 257 tokens was not.
    most = kernels.BLOCK_OF_CPU
    assert (1200, 120) in read and all(block <= most for _, block in read)
    assert len({length for length, _ in read if length > 1000}) >= 2


def test_every_stage_says_what_of_its_replies_was_cut(long_run):
    workdir, summaries, _ = long_run
    pairs = record_files.read_jsonl(workdir / "pairs/pairs.jsonl", records.Pair)
    ends = [end for pair in pairs for end in (pair.finish_1, pair.finish_2)]
    drawn = summaries["simulate"]["cut_replies"]["replies"]
    assert drawn["of"] >= 4 and drawn["shortened"] == 0  # "keep", of the smoke size
    assert drawn["cut"] - drawn["rejected"] == ends.count("length") > 0
    (row,) = metrics.read_metrics(workdir, "simulate")
    assert row["simulate/replies_cut"] == drawn["cut"]
    rollouts = summaries["policy"]["cut_replies"]["rollouts"]
    (row,) = metrics.read_metrics(workdir, "policy")
    assert summaries["policy"]["cut_replies"]["dev replies"]["of"] == 0  # none is asked
    assert rollouts["of"] == 2 and rollouts["cut"] == row["rollout/replies_cut"] > 0
    assert row["policy/prompts_of"] == summaries["policy"]["too_long"]["prompts"]["of"]
    answers = record_files.read_jsonl(
        workdir / "evaluate/samples.jsonl", evaluate_policy.Answer
    )
    for name in ("base", "rlcd"):
        found = summaries["evaluate"]["cut_replies"][f"replies of {name}"]
        own = [one.finish for one in answers if one.system == name]
        assert (found["of"], found["cut"]) == (len(own), own.count("length"))
    page = report.write_report(workdir).read_text()
    assert "Replies that were cut" in page and "replies of rlcd" in page


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"pairs__reply_tokens": 2048}, "pairs.reply_tokens=2048"),
        ({"preference__lengths": (4096,)}, "preference.lengths[-1]=4096: 4096 tokens"),
        ({"policy__reply_tokens": 2000}, "policy.reply_tokens=2000 + a mark"),
        ({"evaluate__judges": ("log_odds",)}, "2 * evaluate.reply_tokens=1024"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_the_first_stage(
    tmp_path, fields, words
):
    with runs.devices_by_mesh():
        told = refusals.verdict(config_of(**fields), tmp_path / "run")
        none = refusals.verdict(config_of(), tmp_path / "run")
    assert not none
    (line,) = told
    assert words in line and "the model reads 2048 at most" in line
    assert not (tmp_path / "run").exists()


def test_one_field_turns_blocks_off_and_another_length_moves_the_border():
    with runs.devices_by_mesh():
        off = setup.load_job(config_of(model__attention_block=0)).cfg
        narrow = setup.load_job(config_of(model__attention_block=64)).cfg
        own = setup.load_job(config_of()).cfg
    assert blocked.num_blocks(1536, off.attention_block) == 1
    assert blocked.block_tokens(1536, narrow.attention_block) == 64
    assert own.attention_block == kernels.BLOCK_OF_CPU
    tpu = kernels.configured(
        own, attention="auto", results="auto", backend=kernels.Backend("tpu")
    )
    assert tpu.attention_block == llama.LlamaConfig.attention_block == 256


def test_the_outline_tasks_settings_are_those_of_the_paper():
    from configs import rlcd  # the config files are no part of the library

    for size in ("paper", "long"):
        config = rlcd.get_config(f"task=outline,size={size},model=llama2-7b")
        assert config.policy.steps == 20
        assert config.policy.prompt_tokens == 192
    assert len(setup.load_task(config).affixes) == 3
    sections = (config.pairs, config.policy, config.evaluate)
    assert {one.reply_tokens for one in sections} == {1024}
    for stage in ("preference", "distill", "direct"):
        room = config[stage].lengths[-1] - config.pairs.prompt_tokens
        assert room >= 1024 + 32  # and what stands around a reply
    assert rlcd.get_config("task=harmless,size=long").policy.steps == 40


# --- counts by hand -------------------------------------------------------------------

RULES = layout.CleanupRules(
    mode="corrected",
    role_names=("Human", "Assistant"),
    unfinished="cut_sentence",
    min_characters=1,
)


def test_a_reply_that_loses_its_last_sentence_says_so():
    cut = reply_cleanup.clean_reply("One. Two and", "length", RULES)
    assert (cut.text, cut.shortened) == ("One.", True)
    whole = reply_cleanup.clean_reply("One. Two.", "length", RULES)
    assert (whole.text, whole.shortened) == ("One. Two.", False)
    ended = reply_cleanup.clean_reply("One. Two and", "eos", RULES)
    assert (ended.text, ended.shortened) == ("One. Two and", False)


class Cutting(FakeEngine):
    """Replies of which all of the first wave are cut in the middle of a sentence."""

    def __init__(self, first, later):
        super().__init__(0.0)
        self.texts, self.calls = (first, later), 0

    def __call__(self, requests):
        replies, wave = super().__call__(requests), min(self.calls, 1)
        self.calls += 1
        finish = ("length", "eos")[wave]
        return [
            dataclasses.replace(one, raw=self.texts[wave], finish=finish)
            for one in replies
        ]


@pytest.mark.parametrize(
    ("rule", "first", "want"),
    [
        ("keep", "A tale. Half of", (2, 2, 0, 0)),
        ("cut_sentence", "A tale. Half of", (2, 2, 0, 2)),
        ("cut_sentence", "no sentence", (4, 2, 2, 0)),
        ("reject", "A tale. Half of", (4, 2, 2, 0)),
    ],
)
def test_cut_replies_of_a_simulation_by_hand(rule, first, want):
    cleanup = dataclasses.replace(TASK.cleanup, mode="corrected", unfinished=rule)
    task = dataclasses.replace(TASK, cleanup=cleanup)
    _, _, told = simulate(PROMPTS[:1], task=task, generate=Cutting(first, "Whole."))
    found = told[cut_counts.SUMMARY]["replies"]
    assert tuple(found[name] for name in cut_counts.COUNTED) == want
    row = cut_counts.as_metrics("simulate", found)
    assert cut_counts.from_metrics("simulate", row) == found
    assert cut_counts.added([found, found])["of"] == 2 * want[0]


def test_what_was_cut_is_told_in_one_line(caplog):
    caplog.set_level(logging.INFO)
    one = cut_counts.counts(9, cut=5, rejected=2, shortened=1)
    cut_counts.note("simulate", {"replies": one, "none": cut_counts.counts(3, cut=0)})
    assert [row.getMessage() for row in caplog.records] == [
        "simulate: 5 of 9 replies were cut at reply_tokens, 2 of those rejected, 1 "
        "taken up to their last whole sentence"
    ]


def test_scored_labels_show_whole_outlines():
    """The lead-in that ends in "1." stands with each reply, not behind the dialogue."""
    seen = []

    def score(texts):
        seen.extend(texts)
        return [(0.0, 0.0)] * len(texts)

    led = dataclasses.replace(TASK, lead_in=" One possible outline:\n\n1.")
    grid.simulate(
        PROMPTS[:1],
        led,
        BYTES,
        FakeEngine(0.0),
        rows=(RLAIF,),
        settings=SETTINGS,
        score=score,
    )
    (text,) = seen
    dialogue, _, replies = text.partition("(A)")
    assert "1." not in dialogue and dialogue.count("One possible outline") == 0
    assert replies.count("One possible outline:\n\n1. ") == 2
    assert json.dumps(text).count("Options:") == 1
