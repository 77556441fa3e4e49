"""What is too long for a stage is counted before any stage, and said in all places."""

import json
import logging
import re

import pytest
import runs

from rlcd_jax import records
from rlcd_jax.checks import long_texts, refusals
from rlcd_jax.job import lengths, setup
from rlcd_jax.pairs import length_counts, training_texts
from rlcd_jax.text import encoding

RULES = ("drop", "shorten_prompt")


@pytest.fixture(autouse=True)
def one_device():
    with runs.devices_by_mesh():
        yield


def write_prompts(folder, texts):
    """Write prompts of these turns, the human's first; return the file."""
    path = folder / "prompts.jsonl"
    with open(path, "w") as file:
        for number, turns in enumerate(texts):
            roles = ("human", "assistant") * len(turns)
            row = [dict(role=r, text=t) for r, t in zip(roles, turns, strict=False)]
            file.write(json.dumps({"id": f"p{number}", "turns": row}) + "\n")
    return path


def config_of(folder, texts, **fields):
    """Return a smoke config of prompts of these turns, all of which are drawn."""
    path = write_prompts(folder, texts)
    own = {"prompts__source": str(path), "prompts__limit": 0, **fields}
    return runs.tiny_config("rlcd", **own)


def verdict(folder, texts, stages=(), **fields):
    config = config_of(folder, texts, **fields)
    return refusals.verdict(config, folder / "run", stages)


def fitting(job, stage, words):
    """Return whether a prompt of these words with a reply of "." is in the rows."""
    text = f"Human: {words}\n\nAssistant:"
    reply = training_texts.reply_text(".", job.task, job.chat_turn)
    ids, _ = encoding.join_reply(job.text_tokenizer, text, reply)
    ends = stage == "distill"
    return len(ids) + ends <= job.config[stage].lengths[-1]


@pytest.mark.parametrize("stage", ["preference", "distill"])
@pytest.mark.parametrize("rule", RULES)
def test_prompts_at_the_limit_have_room_and_those_over_it_have_none(stage, rule):
    fields = {f"{stage}__lengths": (64,), f"{stage}__too_long": rule}
    job = setup.load_job(runs.tiny_config(**fields))
    fits = [fitting(job, stage, "x" * num) for num in range(60)]
    most = fits.index(False) - 1
    prompts = [f"Human: {'x' * num}\n\nAssistant:" for num in (most, most + 1)]
    found = lengths.prompts_with_room(job, stage, prompts)
    assert found == length_counts.counts(2, dropped=1)
    longer = lengths.prompts_with_room(job, stage, prompts[:1], reply_tokens=3)
    assert longer == length_counts.counts(1, dropped=1)
    early = "Human: old\n\nAssistant: answer\n\n"
    found = lengths.prompts_with_room(job, stage, [early + prompts[0]])
    lost = {"drop": {"dropped": 1}, "shorten_prompt": {"dropped": 0, "shortened": 1}}
    assert found == length_counts.counts(1, **lost[rule])


FEW = [(f"Hi {n}",) for n in range(30)]
LONG = [("x" * 50 + str(n),) for n in range(30)]


@pytest.mark.parametrize("stage", ["preference", "distill"])
def test_prompts_that_leave_no_room_for_replies_are_refused(tmp_path, stage):
    stages = ("simulate", stage)
    fields = {f"{stage}__lengths": (64,)}
    assert verdict(tmp_path, FEW, stages, **fields) == []
    (told,) = verdict(tmp_path, LONG, stages, **fields)
    assert re.fullmatch(
        rf"{stage}.lengths\[-1\]=64 leaves no room for a reply to (\d+) of \1 prompts; "
        rf"raise {stage}.lengths, or set {stage}.too_long='shorten_prompt'",
        told,
    )
    assert verdict(tmp_path, LONG, ("simulate",), **fields) == []
    assert not (tmp_path / "run").exists()


def test_prompts_whose_last_turn_has_room_pass_where_turns_may_go(tmp_path):
    texts = [("x" * 50, "y", words) for (words,) in FEW]
    for rule, passes in (("drop", False), ("shorten_prompt", True)):
        fields = {"preference__lengths": (64,), "preference__too_long": rule}
        stages = ("simulate", "preference")
        assert (verdict(tmp_path, texts, stages, **fields) == []) == passes


def test_stages_that_would_get_less_than_a_batch_are_refused(tmp_path):
    texts = LONG[:14] + FEW[:12]
    fields = {"distill__lengths": (64,), "distill__batch_size": 16}
    (told,) = verdict(tmp_path, texts, ("simulate", "distill"), **fields)
    assert re.search(r"distill: \d+ of at most \d+ pairs are not over distill.le", told)
    assert "fewer than one batch of distill.batch_size=16; raise distill.leng" in told


def test_affixes_count_where_prompts_with_affixes_are_drawn(tmp_path):
    job = setup.load_job(config_of(tmp_path, FEW))
    affixes = [len(f" ({affix})") for pair in job.task.affixes for affix in pair]
    plain = max(long_texts.sizes(job, [records.Prompt("a", (human("Hi 10"),))]))
    for room, passes in ((plain, False), (plain + max(affixes), True)):
        told = verdict(tmp_path, FEW, ("simulate",), pairs__prompt_tokens=room)
        assert (told == []) == passes, told
    assert (
        verdict(
            tmp_path,
            FEW,
            ("simulate",),
            pairs__prompt_tokens=plain,
            pairs__sampling="same",
            pairs__labels=("scoring",),
        )
        == []
    )


def human(text):
    return records.Turn("human", text)


def test_what_a_run_leaves_out_is_said_before_and_after(tmp_path, caplog):
    caplog.set_level(logging.INFO, "absl")
    texts = FEW[:20] + LONG[:4]
    stages = ("simulate", "preference", "distill")
    fields = {f"{stage}__lengths": (64,) for stage in stages[1:]}
    config = config_of(tmp_path, texts, preference__epochs=1, **fields)
    runs.run_checked(config, tmp_path / "run", stages)
    before, _, _ = caplog.text.partition("simulate: block")
    page = (tmp_path / "run/report.html").read_text()
    for stage in stages[1:]:
        summary = json.loads((tmp_path / "run" / stage / "summary.json").read_text())
        found = summary["too_long"]["prompts"]
        assert found["dropped"] > 0 and found["shortened"] == 0
        said = (
            rf"{stage}.lengths\[-1\]=64: of (\d+) prompts, (\d+) dropped whatever is "
            r"replied, and (\d+) dropped where replies have pairs.reply_tokens=12"
        )
        of, least, most = map(int, re.search(said, before).groups())
        assert of >= found["of"] and most >= least >= found["dropped"]  # some give none
        row = rf"{stage}.*?prompts.*?{found['of']}.*?{found['dropped']}"
        assert re.search(row, page, re.S)


def test_pairs_that_are_there_are_looked_at_as_the_stage_does(finished_run, tmp_path):
    runs.copy_run(finished_run, tmp_path / "run", "pairs")

    def told(**fields):
        config = runs.tiny_config(**fields)
        return refusals.verdict(config, tmp_path / "run", ("preference", "distill"))

    assert told() == []
    both = told(preference__lengths=(16,), distill__lengths=(16,))
    assert [line.split(":")[0] for line in both] == ["distill", "preference"]
    assert all("0 of at most" in line and ".lengths[-1]=16" in line for line in both)
    (one,) = told(distill__lengths=(16,))
    assert "raise distill.lengths" in one


def test_human_pairs_over_the_lengths_are_refused_before_the_first_stage(tmp_path):
    row = {
        "chosen": "\n\nHuman: May I ask?\n\nAssistant: Yes, do.",
        "rejected": "\n\nHuman: May I ask?\n\nAssistant: No.",
    }
    for split in ("train", "test"):
        rows = [
            {
                name: text.replace("ask?", f"ask {split} {n}?")
                for name, text in row.items()
            }
            for n in range(60)
        ]
        runs.write_hh(tmp_path / "hh" / "harmless-base" / f"{split}.jsonl.gz", rows)

    def told(**fields):
        config = runs.tiny_config(
            "rlcd",
            "harmless",
            prompts__hh_dir=str(tmp_path / "hh"),
            prompts__data_dir=str(tmp_path / "data"),
            prompts__hh_agreement_split="train[:50%]",
            **fields,
        )
        return refusals.verdict(config, tmp_path / "run", ("preference",))

    human = {"preference__data": "hh_rlhf"}
    assert told(**human) == [] == told(preference__human_pairs=5, **human)
    (line,) = told(preference__lengths=(40,), **human)
    assert re.search(r"lengths\[-1\]=40: of \d+ human pairs, \d+ dropped; raise", line)
    (line,) = told(preference__lengths=(40,), preference__human_pairs=5)
    assert "agreement needs 2" in line
    (line,) = told(preference__held_out=60, **human)
    assert "0 training rows" in line and "preference.held_out=60" in line
