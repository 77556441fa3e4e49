"""No prompt text is in two parts of a run, whatever the prompts are called."""

import dataclasses
import itertools
import json
import types

import pytest
import runs
from hypothesis import given, settings
from hypothesis import strategies as st

from rlcd_jax import records, tasks
from rlcd_jax.datasets import parts
from rlcd_jax.job import prompt_parts, setup
from rlcd_jax.preference import data
from rlcd_jax.stages import evaluate_policy
from rlcd_jax.tasks import layout, prompt_sets

LINES = 40
TWICE = 7  # lines that each file of the folder below begins with


def question(number):
    return f"\n\nHuman: May  I {number}?\n\nAssistant:"


@pytest.fixture(scope="module")
def hh(tmp_path_factory):
    """A folder of hh-rlhf whose files share lines, some with other white space."""
    base = tmp_path_factory.mktemp("parts")
    for split, start in (("train", 100), ("test", 200)):
        texts = [question(n).replace("  ", " " * (1 + n % 2)) for n in range(TWICE)]
        texts += [question(start + n) for n in range(LINES - TWICE)]
        texts[10] = texts[30]  # one text on two lines
        rows = [{"chosen": f"{t} Yes.", "rejected": f"{t} No."} for t in texts]
        runs.write_hh(base / "hh" / "harmless-base" / f"{split}.jsonl.gz", rows)
    return base


def hh_config(hh, **fields):
    given = {
        "prompts__hh_dir": str(hh / "hh"),
        "prompts__data_dir": str(hh / "data"),
        "prompts__hh_dev_split": "test[:15]",
        "prompts__limit": 0,
        "evaluate__prompts": 0,
    }
    return runs.tiny_config(task="harmless", **given | fields)


def texts_of_parts(config):
    """Return the texts of all prompts that a run reads, by what it does with them."""
    task = setup.load_task(config)
    found = {}
    for part in ("train", "dev", "test"):
        loaded = prompt_parts.load_prompts(config, task, part, limit=0)
        assert loaded
        found[part] = {parts.wording(prompt.turns[-1].text) for prompt in loaded}
    if config.prompts.hh_dir:
        host = types.SimpleNamespace(task=task)
        for part in ("train", "agreement"):
            pairs = data.human_pairs(config, host, 0, part)
            texts = {
                parts.wording(pair.prompt)
                .removeprefix("Human: ")
                .removesuffix(" Assistant:")
                for pair in pairs
            }
            found[part] = found.get(part, set()) | texts
    return found


@pytest.mark.parametrize("source", ["package", "hh_rlhf", "jsonl"])
def test_no_text_is_in_two_parts(hh, tmp_path, source):
    if source == "jsonl":
        source = str(tmp_path / "mine.jsonl")
        rows = [
            {"id": f"{copy}#{n}", "turns": [{"role": "human", "text": f"I ask {n}?"}]}
            for n in range(40)
            for copy in ("a", "b")
        ]
        with open(source, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    config = hh_config(
        hh, prompts__source=source, prompts__hh_agreement_split="train[5:15]"
    )
    found = texts_of_parts(config)
    for one, two in itertools.combinations(found, 2):
        assert not found[one] & found[two], (one, two)


def test_shared_prompts_are_counted(hh):
    config = hh_config(hh, prompts__source="hh_rlhf")
    task = setup.load_task(config)
    shared = {
        part: prompt_parts.load_part(config, task, part).shared
        for part in prompt_parts.PARTS
    }
    # dev has the doubled lines of test; test loses dev's and one that dev has too;
    # of the agreement's two lines dev has both; train loses all doubled lines.
    assert shared == {"dev": 0, "test": 16, "agreement": 2, "train": TWICE}
    kept = prompt_parts.load_part(config, task, "train").prompts
    assert len(kept) == LINES - TWICE


def test_prompts_of_the_package_are_not_moved():
    for name in tasks.NAMES:
        task = tasks.load_task(name)
        config = runs.tiny_config(task=name)
        for part in tasks.SPLITS:
            whole = prompt_parts.load_part(config, task, part)
            assert whole.prompts == tasks.load_prompts(task, part)
            assert whole.shared == 0


def test_a_split_without_pairs_of_its_own_is_refused(hh):
    config = hh_config(hh, prompts__source="hh_rlhf")
    host = types.SimpleNamespace(task=setup.load_task(config))
    with pytest.raises(
        ValueError, match="hh_agreement_split='train.:5%.' gives no hum"
    ):
        data.human_pairs(config, host, 0, "agreement")
    config = hh_config(hh, prompts__hh_agreement_split="train[10:20]")
    found = data.human_pairs(config, host, 0, "agreement")
    learnt = data.human_pairs(config, host, 0)
    assert len(found) == 10
    assert not {p.prompt for p in found} & {p.prompt for p in learnt}


def pair(number, prompt_id, prompt):
    return records.HumanPair(str(number), prompt_id, prompt, "a", "b", 0.0)


def test_pairs_of_one_text_or_one_id_are_of_one_prompt():
    rows = [
        pair(0, "a", "Hi  there"),
        pair(1, "b", "Bye"),
        pair(2, "c", "Hi\nthere"),
        pair(3, "b", "another rendering of Bye"),
        pair(4, "d", "another rendering of Bye"),
        pair(5, "a#0", "Hm"),
    ]
    groups = parts.by_prompt(rows)
    assert {name: [r.id for r in own] for name, own in groups.items()} == {
        "a": ["0", "2"],
        "b": ["1", "3", "4"],
        "a#0": ["5"],
    }


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("uvwxyz"))))
@settings(max_examples=100, deadline=None)
def test_by_prompt_puts_no_id_and_no_text_into_two_groups(made):
    rows = [pair(n, *names) for n, names in enumerate(made)]
    groups = parts.by_prompt(rows)
    assert sorted(r.id for own in groups.values() for r in own) == sorted(
        r.id for r in rows
    )
    for one, two in itertools.combinations(groups.values(), 2):
        assert not {r.prompt_id for r in one} & {r.prompt_id for r in two}
        assert not {r.prompt for r in one} & {r.prompt for r in two}


@pytest.mark.parametrize(
    "other",
    ["caf\u00e9\tau lait", "cafe\u0301 au\u200b lait", "\ufeffcaf\u00e9 au lait "],
)
def test_texts_that_look_the_same_are_one_text(other):
    def prompt(name, text):
        return records.Prompt(name, (records.Turn("human", text),))

    assert parts.wording(other) == "caf\u00e9 au lait"
    seen = prompt("a", "caf\u00e9 au lait")
    assert parts.apart([prompt("b", other)], [seen]) == []
    assert len(parts.apart([prompt("b", "Caf\u00e9 au lait")], [seen])) == 1


def test_a_turn_with_the_header_of_another_reads_as_two_turns():
    """Both are the same text for a model, so they are not in two parts."""

    def prompt(name, *texts):
        roles = ("human", "assistant") * len(texts)
        turns = (records.Turn(*turn) for turn in zip(roles, texts, strict=False))
        return records.Prompt(name, tuple(turns))

    one = prompt("a", "Hi\n\nAssistant: Hm.\n\nHuman: Bye")
    three = prompt("b", "Hi", "Hm.", "Bye")
    assert parts.apart([three], [one]) == [] == parts.apart([one], [three])
    assert len(parts.apart([prompt("c", "Hi", "Hm", "Bye")], [one])) == 1
    shares = layout.PromptSet(train=0.5, dev=0.25, test=0.25)
    for number in range(30):
        twins = [dataclasses.replace(p, id=f"{p.id}{number}") for p in (one, three)]
        others = [prompt(f"o{n}", f"question {n}") for n in range(20)]
        made = prompt_sets.split_prompts([*twins, *others], shares)
        assert [len({*twins} & {*part}) for part in made.values()].count(2) == 1


def test_what_alignment_cost_is_read_off_what_people_preferred_in_the_test_part(hh):
    config = hh_config(hh, evaluate__regression=9)
    with runs.devices_by_mesh():
        job = setup.load_job(config)
    suite = evaluate_policy.make_suite(job)
    assert suite.source == "replies that people preferred, of harmless-base"
    assert len(suite.texts) == 9 and not suite.left_out
    pairs = data.human_pairs(config, job, 9, "test")
    read = [
        job.text_tokenizer.decode(ids[-num:]).strip()
        for ids, num in suite.texts.values()
    ]
    assert read == [pair.chosen.strip() for pair in pairs]
