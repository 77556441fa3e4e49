"""The commands theory and diagnose, and the likelihoods they ask a model for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import rlcd
from experiments import diagnose, theory
from rlcd_jax import record_files, records, seeds, tasks
from rlcd_jax.diagnosis import run_diagnostics
from rlcd_jax.job import setup
from rlcd_jax.models import llama
from rlcd_jax.pairs import training_texts
from rlcd_jax.scoring import likelihoods
from rlcd_jax.text import encoding

TASK = tasks.load_task("cheerful")
WORDS = {
    "positive": ("I love it", "What a happy day", "Great, thank you"),
    "negative": ("I hate it", "What a sad day", "Terrible, go away"),
}


def make_pair(number, labels="construction"):
    sides = ("positive", "negative")[:: 1 if number % 2 else -1]
    prompt_id = f"p{number}"
    index = seeds.seed_choice(len(TASK.affixes), 42, "affix", prompt_id)
    affixes = dict(zip(("positive", "negative"), TASK.affixes[index], strict=True))
    fields = {}
    for n, side in zip("12", sides, strict=True):
        text = WORDS[side][number % 3]
        fields |= {
            f"reply_{n}": text,
            f"side_{n}": side,
            f"source_prompt_{n}": f"Human: Hi {number}\n\nAssistant ({affixes[side]}):",
            f"raw_{n}": text,
            f"tries_{n}": 1,
            f"finish_{n}": "eos",
            f"num_tokens_{n}": 4,
        }
    better = float(sides[1] == "positive")
    scored = {"instruction_index": 0, "logit_a": 0.0, "logit_b": 1.0}
    return records.Pair(
        id=f"{prompt_id}/contrast-{labels}",
        task="cheerful",
        prompt_id=prompt_id,
        prompt=f"Human: Hi {number}\n\nAssistant:",
        prob_2=better if labels == "construction" else 0.7,
        affix_index=index,
        sampling="contrast",
        labels=labels,
        scoring=None if labels == "construction" else {**scored, "prob_2": 0.7},
        generator="fake",
        seed=42,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        alpha=1.0,
        **fields,
    )


@pytest.fixture
def workdir(tmp_path):
    """A run's folder with pairs, a policy stage and no model files."""
    config = rlcd.get_config("task=cheerful,model=random:tiny,size=smoke")
    record_files.write_json(tmp_path / "config.json", config.to_dict())
    record_files.write_jsonl(tmp_path / "pairs/pairs.jsonl", map(make_pair, range(6)))
    lost = records.Dropped(
        "p9", "cheerful", "contrast", "negative", "empty", 1, ("empty",), ("",)
    )
    record_files.write_jsonl(tmp_path / "pairs/dropped.jsonl", [lost])
    rows = [
        {"stage": "policy", "step": n, "wall_time": 0.0, "rollout/reward_mean": 0.1 * n}
        for n in (1, 2)
    ]
    record_files.write_jsonl(tmp_path / "metrics.jsonl", rows)
    sample = {"prompt_id": "p", "prompt": "Human: Hi", "reply": "I love it", "score": 1}
    record_files.write_jsonl(tmp_path / "policy/samples/000002.jsonl", [sample] * 3)
    return tmp_path


def refused(command, *args):
    """Run a command that ends in a message for people."""
    with pytest.raises(SystemExit) as caught:
        command.main([str(arg) for arg in args])
    assert caught.value.code == 2


def test_theory_prints_the_papers_figures(capsys):
    theory.main(["--trials", "20000"])
    out, err = capsys.readouterr()
    assert not err
    for published in ("0.750", "0.528", "0.574"):
        assert f"| {published} |" in " ".join(out.split())
    theory.main(["--trials", "2000", "--json"])
    assert json.loads(capsys.readouterr().out)["caption"].endswith("(Appendix N)")


def test_theory_reads_pairs(workdir, capsys):
    path = workdir / "pairs/pairs.jsonl"
    rescored = workdir / "rescored.jsonl"
    record_files.write_jsonl(rescored, [make_pair(n, "scoring") for n in range(6)])
    theory.main(["--pairs", str(path), str(rescored)])
    out = capsys.readouterr().out
    assert "units of lexicon" in out and "from contrast pairs" in out
    rows = [line for line in out.splitlines() if line.startswith("| R")]
    assert "1.000" in rows[0] and "missing" in rows[1]  # no same-prompt pairs
    assert "0.500 [" in rows[2]  # the scorer likes reply_2, whatever it says


def test_theory_takes_scores_and_names_what_lacks(workdir, capsys):
    path, scores = workdir / "pairs/pairs.jsonl", workdir / "scores.jsonl"
    row = {"score_1": 1.0, "score_2": 0.0}
    all_rows = [{"id": f"p{n}/contrast-construction", **row} for n in range(6)]
    record_files.write_jsonl(scores, all_rows)
    theory.main(["--pairs", str(path), "--scores", str(scores)])
    assert "units of scores.jsonl: shift 0" in capsys.readouterr().out
    record_files.write_jsonl(scores, all_rows[1:])
    refused(theory, "--pairs", path, "--scores", scores)
    assert "no scores of 1 pairs, such as 'p0/" in capsys.readouterr().err
    refused(theory, "--pairs", workdir / "nothing.jsonl")
    assert "nothing.jsonl" in capsys.readouterr().err


def test_diagnose_writes_its_files(workdir):
    other = workdir / "rescore"
    rescored = [make_pair(n, "scoring") for n in range(6)]
    record_files.write_jsonl(other / "pairs/pairs.jsonl", rescored)
    record_files.write_jsonl(other / "pairs/dropped.jsonl", [])
    args = ["--workdir", str(workdir), "--likelihoods", "--scored", str(other)]
    diagnose.main([*args, "--resamples", "50"])
    folder = workdir / "diagnostics"
    found = {path.name for path in folder.iterdir()}
    stems = ("pairs", "affixes", "watch")
    assert found == {f"{s}.{e}" for s in stems for e in ("md", "json")} | {
        "readings.jsonl"
    }
    readings = record_files.read_jsonl(folder / "readings.jsonl")
    assert len(readings) == 6
    assert all(r["outside"]["lexicon"] > 0 for r in readings)
    assert all(r["first"]["own"] < 0 and r["scored"] is not None for r in readings)
    shown = json.loads((folder / "pairs.json").read_text())["tables"]
    captions = [table["caption"] for table in shown]
    assert captions[:3] == ["Pairs by cell", "Replies by side", "Drops by side"]
    cells = shown[0]["rows"][0]["cells"]
    assert cells["told apart, %"]["num"] == 6
    assert cells["lexicon agrees with label, %"]["value"] == 1.0
    assert cells["scored: first is better, %"]["value"] == 0.5
    lost = [row["cells"]["dropped for it, %"]["value"] for row in shown[2]["rows"]]
    assert lost == [0.0, pytest.approx(1 / 7)]
    text = (folder / "affixes.md").read_text()
    assert "Linter, affixes of cheerful" in text and "merry against mournful" in text
    assert "No warning." in (folder / "watch.md").read_text()


def test_diagnose_names_what_is_not_there(tmp_path, capsys):
    refused(diagnose, "--workdir", tmp_path)
    assert "config.json is not there" in capsys.readouterr().err
    config = rlcd.get_config("task=cheerful,model=random:tiny,size=smoke")
    record_files.write_json(tmp_path / "config.json", config.to_dict())
    refused(diagnose, "--workdir", tmp_path)
    assert "run the stage simulate first" in capsys.readouterr().err


def test_reply_scorer_matches_a_plain_sum(workdir):
    config, _ = run_diagnostics.read_config(workdir)
    config.model.dtype = "float32"
    job = setup.load_job(config)
    params = job.load_base()
    texts = [
        ("Human: Hi\n\nAssistant:", " Hello there."),
        ("Human: A much longer question?\n\nAssistant (kind):", " No."),
        ("Q", " x"),
    ]
    scores = likelihoods.reply_scorer(job, params)(texts)
    for (prompt, reply), score in zip(texts, scores, strict=True):
        ids, is_reply = encoding.join_reply(job.text_tokenizer, prompt, reply)
        assert sum(is_reply) == len(reply)  # the tokenizer is one of bytes
        tokens = jnp.asarray([ids], jnp.int32)
        hidden, _ = llama.hidden_states(
            params,
            job.cfg,
            tokens,
            jnp.arange(len(ids))[None],
            jnp.ones_like(tokens, bool),
        )
        logprobs = np.asarray(
            jax.nn.log_softmax(llama.logits(params, job.cfg, hidden), axis=-1)[0]
        )
        start = len(ids) - len(reply)
        plain = sum(logprobs[t - 1, ids[t]] for t in range(start, len(ids)))
        np.testing.assert_allclose(score, plain, rtol=1e-5)  # float32 sums
    prompt, reply = texts[0]
    assert training_texts.reply_text("Hello there.", TASK).startswith(reply)
