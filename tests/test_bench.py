"""The benchmarks at the smallest size: what they print, and that it adds up."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import runs

from experiments import bench
from rlcd_jax.bench import (
    decode,
    hf_peer,
    llama_cpp_peer,
    measuring,
    model_numbers,
    simulate,
    trl_peer,
    whole_job,
)
from rlcd_jax.job import rates
from rlcd_jax.models import footprint, presets
from rlcd_jax.training import packing

SMALL = ["--model", "tiny", "--dtype", "float32", "--repeats", "1", "--steps", "2"]


def printed(capsys, *more):
    """Return what the command prints, read as JSON."""
    with runs.devices_by_mesh():
        bench.main([*SMALL, *more])
    return json.loads(capsys.readouterr().out)


def refused(*more):
    """Run a command line that ends in a message for people."""
    with pytest.raises(SystemExit) as caught:
        bench.main([*SMALL, *more])
    assert caught.value.code == 2


def test_decode_prints_speed_step_and_roofline(capsys, tmp_path):
    out = tmp_path / "decode.json"
    flags = ("--slots", "2,4", "--prompt", "9", "--new", "8", "--out", str(out))
    figures = printed(capsys, *flags)
    assert figures == json.loads(out.read_text("utf-8"))
    assert figures["what"] == "decode" and figures["num_devices"] >= 1
    for slots, row in zip((2, 4), figures["decode"], strict=True):
        assert row["slots"] == slots
        assert row["tokens_per_second"] > 0 and row["ms_a_step"] > 0
        share = row["roofline_ms"] / row["ms_a_step"]
        assert row["fraction_of_roofline"] == pytest.approx(share)
        assert 0 < share < 1  # nothing this small is bound by memory


def test_step_bytes_are_weights_and_live_cache():
    cfg = presets.get_preset("tiny")
    params = decode.random_weights(cfg)
    weights = decode.step_bytes(cfg, params, 0, 0)
    row = 2 * cfg.num_layers * cfg.num_kv_heads * cfg.head_dim
    size = 4 if cfg.dtype == "float32" else 2
    assert decode.step_bytes(cfg, params, 3, 10) == weights + 30 * row * size


def test_simulate_prints_pairs_and_the_ratio(capsys):
    flags = ("--what", "simulate", "--slots", "4", "--prompt", "12", "--pairs", "3")
    figures = printed(capsys, *flags)
    assert figures["engine"]["replies"] == 6
    speeds = (figures["pairs_per_second"], figures["released_static_pairs_per_second"])
    ratio = figures["ratio_to_released_static"]
    assert ratio == pytest.approx(speeds[0] / speeds[1])


def test_reply_lengths_are_those_of_real_replies(tmp_path):
    start = "\n\nHuman: May I?\n\nAssistant:"
    rows = [
        {"chosen": start + "x" * size, "rejected": start + " no"}
        for size in (9, 18, 9000)
    ]
    runs.write_hh(tmp_path / "harmless-base" / "train.jsonl.gz", rows)
    lengths = simulate.reply_lengths(str(tmp_path), 200)
    assert set(lengths) == {2, 4, simulate.RELEASED_TOKENS}
    np.testing.assert_array_equal(lengths, simulate.reply_lengths(str(tmp_path), 200))
    drawn = simulate.reply_lengths("", 4000)
    assert drawn.mean() == pytest.approx(simulate.PUBLISHED[0], rel=0.05)


SIZES = (
    "--prompt=12",
    "--config.mesh.data=1",
    "--config.distill.batch_size=4",
    "--config.distill.lengths=(64,)",
    "--config.preference.batch_size=2",
    "--config.preference.lengths=(64,)",
    "--config.policy.rollouts=2",
    "--config.policy.update_batch=2",
    "--config.policy.epochs=1",
    "--config.policy.reply_tokens=8",
    "--config.engine.slots_per_device=2",
    "--config.engine.live_buckets=(256,)",
    "--config.engine.prompt_buckets=(256,)",
)


def beside(monkeypatch, what, seconds):
    """Lay a peer beside a kind of work; return what it is asked."""
    asked = []

    def peer(*work):
        asked.append(work)
        return seconds

    peers = {"mine": lambda cfg, load: {"mine": peer}}
    kind = dataclasses.replace(measuring.KINDS[what], peers=peers)
    monkeypatch.setitem(measuring.KINDS, what, kind)
    monkeypatch.setattr(bench.measuring, "PEERS", ("none", "mine"))
    return asked


@pytest.mark.parametrize(
    ("what", "texts"), [("train", 1), ("preference", 2)], ids=lambda x: str(x)
)
def test_an_update_is_measured_on_texts_that_a_peer_gets_too(
    what, texts, capsys, monkeypatch
):
    asked = beside(monkeypatch, what, 100.0)
    figures = printed(capsys, "--what", what, "--peer", "mine", *SIZES)
    warmed, turn = asked
    assert warmed == turn  # of one turn there is one batch
    batch, parts = turn
    assert parts == 1 and {len(one) for one in batch} == {texts}
    lengths = [len(ids) for one in batch for ids, _ in one]
    assert figures["tokens_an_update"] == sum(lengths) and max(lengths) <= 64
    assert all(start == 12 < len(ids) for one in batch for ids, start in one)
    assert 0 < figures["useful_share"] <= 1 and figures["last_loss"] > 0
    assert figures["seconds_an_update_in_a_row"] > 0
    speed = figures["tokens_per_second"] * figures["seconds_an_update"]
    assert speed == pytest.approx(sum(lengths))
    share = figures["model_tflops"] / figures["product_tflops"]
    assert figures["fraction_of_product_rate"] == pytest.approx(share)
    assert figures["ratio_to_mine"] == pytest.approx(
        100.0 / figures["seconds_an_update"]
    )


def test_operations_of_an_update_are_those_of_its_texts_alone():
    cfg = presets.get_preset("tiny")
    for wanted in (0, 7):
        one = footprint.forward_flops(cfg, 20, 20, logit_tokens=wanted)
        text = packing.Text(range(20), tuple(range(13, 13 + wanted)))
        assert rates.update_flops(cfg, [text, text], adapted=False) == 6 * one
        assert rates.update_flops(cfg, [text], adapted=True) == 2 * one


def test_a_step_of_ppo_is_measured_from_prompts_to_updates(capsys, monkeypatch):
    asked = beside(monkeypatch, "ppo", 50.0)
    figures = printed(capsys, "--what", "ppo", "--peer", "mine", *SIZES)
    ((prompts, sizes),) = asked
    assert len(prompts) == sizes["rollouts"] == 2 and sizes["reply_tokens"] == 8
    seconds = figures["seconds_a_step"]
    assert figures["rollouts_per_second"] == pytest.approx(2 / seconds)
    assert figures["ratio_to_mine"] == pytest.approx(50.0 / seconds)
    assert 0 < figures["reply_tokens_mean"] <= 8 and figures["peak_host_gib"] > 0


JOB = """
import json, os, pathlib, sys
folder = pathlib.Path(sys.argv[-1].removeprefix("--workdir="), "preference")
folder.mkdir(parents=True)
(folder / "summary.json").write_text('{"seconds": 2.5}')
cache = pathlib.Path(os.environ["XDG_CACHE_HOME"], "cache")
assert sorted(x.name for x in cache.iterdir()) == ["smollm2-135m"]
"""


def test_the_whole_job_is_measured_by_stage_also_without_compiled_programs(tmp_path):
    cache = tmp_path / "cache"
    for name in (whole_job.MODEL, "jax"):
        (cache / name).mkdir(parents=True)
    command = (sys.executable, "-c", JOB)
    figures = whole_job.run(command, os.environ, cache, cold=True)
    assert figures["stages"] == {"preference": 2.5}
    assert figures["seconds"] > 0 and figures["peak_host_gib"] > 0
    warm = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    with pytest.raises(ValueError, match=r"the job failed: [\s\S]*AssertionError"):
        whole_job.run(command, warm, cache, cold=False)


def absent(*names):
    """Return what loads any package but these."""

    def load(name):
        if name in names:
            raise ModuleNotFoundError(name)
        return name

    return load


def test_a_peer_that_is_not_installed_is_named():
    cfg = presets.get_preset("tiny")
    assert hf_peer.load_packages(absent(), "hf") == ("torch", "transformers")
    for names in (("torch",), ("torch", "transformers")):
        needs = f"--peer hf needs {' and '.join(names)}: pip install -e"
        with pytest.raises(ValueError, match=needs):
            hf_peer.make_peers(cfg, absent(*names))
    with pytest.raises(ValueError, match="TRL 1.12 was the last release with PPO"):
        trl_peer.make_peers(cfg, absent(trl_peer.PPO))
    with pytest.raises(ValueError, match="needs llama_cpp: pip install"):
        llama_cpp_peer.make_peers("gguf:model.gguf", absent("llama_cpp"))
    with pytest.raises(ValueError, match="accepted: gguf:PATH"):
        llama_cpp_peer.make_peers("smollm2-135m", absent())


def test_model_numbers_are_those_of_the_machine(tmp_path):
    flags = {"attention": "auto", "cache_dir": tmp_path}
    cfg = model_numbers.find("tiny", dtype="bfloat16", **flags)
    assert (cfg.dtype, cfg.attention) == ("bfloat16", "xla")
    flags["attention"] = "cudnn"
    with pytest.raises(ValueError, match="'cudnn' needs an NVIDIA GPU"):
        model_numbers.find("tiny", dtype="bfloat16", **flags)
    assert model_numbers.find("tiny", dtype="float32", **flags).attention == "xla"


def test_a_peer_is_measured_in_turns_with_ours(capsys, monkeypatch):
    asked = beside(monkeypatch, "decode", 2.0)
    flags = ("--slots", "2", "--prompt", "9", "--new", "8", "--peer", "mine")
    (row,) = printed(capsys, *flags)["decode"]
    # Once to warm up, with four new tokens, then once each turn.
    assert asked == [(2, 9, 4, 0), (2, 9, 8, 0)]
    assert row["mine_tokens_per_second"] == pytest.approx(2 * 8 / 2.0)
    ratio = row["tokens_per_second"] / row["mine_tokens_per_second"]
    assert row["ratio_to_mine"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--slots", "2,x"), "numbers with commas"),
        (("--slots", "0"), "--slots is 0"),
        (("--repeats", "0"), "--repeats is 0"),
        (("--top_k", "-1"), "--top_k is -1"),
        (("--what", "simulate", "--prompt", "4"), "accepted: above 8"),
        (("--what", "simulate", "--peer", "trl"), "accepted: none, hf"),
        (("--what", "quickstart", "--peer", "hf"), "accepted: none"),
        (("--what", "train", "--prompt", "512"), "leaves no room for a reply"),
        (("--what", "ppo", "--config.policy.rolouts=8"), "has no field 'policy.rolo"),
        (("--what", "ppo", "--rollouts=8"), "Unknown command line flag 'rollouts'"),
        (("--what", "ppo", "--config.model.policy=x"), "one model is measured"),
    ],
)
def test_bench_refuses_in_one_message(flags, match, capsys):
    refused(*flags)
    assert match in capsys.readouterr().err
