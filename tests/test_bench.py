"""The benchmarks at the smallest size: what they print, and that it adds up."""

import json

import numpy as np
import pytest
import runs

from experiments import bench
from rlcd_jax.bench import decode, hf_peer, measuring, model_numbers, simulate
from rlcd_jax.models import presets

SMALL = ["--model", "tiny", "--dtype", "float32", "--repeats", "1", "--steps", "2"]


def printed(capsys, *more):
    """Return what the command prints, read as JSON."""
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


def absent(*names):
    """Return what loads any package but these."""

    def load(name):
        if name in names:
            raise ModuleNotFoundError(name)
        return name

    return load


def test_a_peer_that_is_not_installed_is_named():
    assert hf_peer.load_packages(absent()) == ("torch", "transformers")
    for names in (("torch",), ("torch", "transformers")):
        needs = f"--peer hf needs {' and '.join(names)}: pip install -e"
        with pytest.raises(ValueError, match=needs):
            hf_peer.make_peers(presets.get_preset("tiny"), absent(*names))


def test_model_numbers_are_those_of_the_machine(tmp_path):
    flags = {"attention": "auto", "cache_dir": tmp_path}
    cfg = model_numbers.find("tiny", dtype="bfloat16", **flags)
    assert (cfg.dtype, cfg.attention) == ("bfloat16", "xla")
    flags["attention"] = "cudnn"
    assert model_numbers.find("tiny", dtype="bfloat16", **flags).attention == "cudnn"
    assert model_numbers.find("tiny", dtype="float32", **flags).attention == "xla"


def test_a_peer_is_measured_in_turns_with_ours(capsys, monkeypatch):
    asked = []

    def peer(*sizes):
        asked.append(sizes)
        return 2.0

    peers = {"hf": lambda cfg, load: {"hf_float32": peer}}
    monkeypatch.setattr(measuring, "PEERS", peers)
    flags = ("--slots", "2", "--prompt", "9", "--new", "8", "--peer", "hf")
    (row,) = printed(capsys, *flags)["decode"]
    # Once to warm up, with four new tokens, then once each turn.
    assert asked == [(2, 9, 4, 0), (2, 9, 8, 0)]
    assert row["hf_float32_tokens_per_second"] == pytest.approx(2 * 8 / 2.0)
    ratio = row["tokens_per_second"] / row["hf_float32_tokens_per_second"]
    assert row["ratio_to_hf_float32"] == pytest.approx(ratio)


@pytest.mark.parametrize(
    ("flags", "match"),
    [
        (("--slots", "2,x"), "numbers with commas"),
        (("--slots", "0"), "--slots is 0"),
        (("--repeats", "0"), "--repeats is 0"),
        (("--top_k", "-1"), "--top_k is -1"),
        (("--what", "simulate", "--prompt", "4"), "accepted: above 8"),
    ],
)
def test_bench_refuses_in_one_message(flags, match, capsys):
    refused(*flags)
    assert match in capsys.readouterr().err
