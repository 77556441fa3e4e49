"""The config of the paper's tables: its numbers, its scales, and what runs get of it."""

import functools
import operator
import pathlib
import re
import tempfile

import ml_collections
import pytest

from configs import common, paper
from experiments import command
from rlcd_jax import tasks
from rlcd_jax.checks import fields as check_fields
from rlcd_jax.checks import kinds
from rlcd_jax.datasets import hh_rlhf_files
from rlcd_jax.paper import fields, read_config
from rlcd_jax.planning import counts

ROOT = pathlib.Path(__file__).parents[1]


CACHE = tempfile.mkdtemp()  # data sets that are read are prepared there


def flat(config, prefix=""):
    """Return all fields by their dotted names."""
    found = {}
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def make_setup(scale="tiny", **fields):
    config = paper.get_config(f"table=3,scale={scale}")
    own = {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(own)
    return read_config.read_setup(
        config,
        "unused",
        make_config=command.method_config,
        cache_dir=CACHE,
        api_key=None,
    )


def test_numbers_are_the_papers():
    config = paper.get_config("table=3,scale=llama-7b")
    assert config.is_locked and config.published == "7B" and config.size == "paper"
    assert config.grid.kl_coef == (0.001, 0.002, 0.004, 0.008, 0.016, 0.032)
    assert config.grid.steps == (20, 40, 60, 80) and config.grid.outline_steps == (20,)
    assert (config.hh_rlhf.dev, config.hh_rlhf.test) == (
        "test[:1000]",
        "test[1000:2000]",
    )
    assert (config.people.share, config.people.compared_pairs) == (0.2, 2_000)
    assert not [name for name, value in flat(config.run).items() if value is not None]


def test_scales_differ_from_the_papers_in_what_they_name():
    whole = flat(paper.get_config("table=3,scale=llama-7b"))
    changed = {}
    for scale in paper.SCALES:
        own = flat(paper.get_config(f"table=3,scale={scale}"))
        assert own.keys() == whole.keys() and own["scale"] == scale
        changed[scale] = {name for name in own if own[name] != whole[name]}
    assert changed["llama-30b"] == {
        "scale",
        "published",
        "shapes.generator",
        "rates.hardware",
    }
    assert "grid.outline_steps" not in set.union(*changed.values())


def test_every_field_of_the_tables_has_a_comment_and_is_read():
    lines = (ROOT / "configs/paper.py").read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("def get_config"))
    end = next(i for i, line in enumerate(lines) if line.startswith("def _unset"))
    bare = [
        line.strip()
        for before, line in zip(lines[start:end], lines[start + 1 : end], strict=False)
        if " = " in line and "#" not in line and not before.strip().startswith("#")
        if "ConfigDict()" not in line and " = _" not in line and "get_con" not in line
    ]
    assert bare == []
    readers = [*(ROOT / "rlcd_jax/paper").glob("*.py")]
    readers.append(ROOT / "rlcd_jax/judging/settings.py")
    text = "\n".join(path.read_text() for path in readers)
    own = paper.get_config("table=3,scale=tiny").to_dict()
    names = [name for name in flat(paper.get_config()) if not name.startswith("run.")]
    assert own["run"] and not [n for n in names if f".{n.split('.')[-1]}" not in text]


def test_runs_have_every_field_that_tables_leave_open():
    whole, run = flat(common.get_base("rlcd", None)), flat(paper.get_config().run)
    theirs = {
        name
        for name in whole
        if {name, name.partition(".")[0]} & set(paper.SET_BY_TABLES)
    }
    sections = {name for name in paper.SET_BY_TABLES if f"{name}.url" in whole}
    assert sections == {"judge"}
    assert set(paper.SET_BY_TABLES) - sections <= theirs
    assert run.keys() == whole.keys() - theirs


def test_fields_of_runs_win_over_those_of_the_size():
    plain = read_config.run_config(make_setup(), "rlcd", "harmless", 7)
    assert (plain.seed, plain.model.cache_dir, plain.model.dtype) == (
        7,
        CACHE,
        "float32",
    )
    assert plain.prompts.source == "package" and plain.is_locked
    fields = {"run__pairs__both_orders": False, "run__prompts__limit": 3}
    own = read_config.run_config(make_setup(**fields), "rlaif", "harmless", 7)
    assert not own.pairs.both_orders and own.prompts.limit == 3
    assert own.pairs.labels == ("scoring",)  # the method's
    big = make_setup("llama-7b", size="smoke")
    sources = {
        task: read_config.run_config(big, "rlcd", task, 1).prompts.source
        for task in ("harmless", "helpful", "outline", "cheerful")
    }
    assert list(sources.values()) == ["hh_rlhf", "hh_rlhf", "package", "package"]


def test_names_may_stand_in_one_text_with_commas():
    setup = make_setup(tasks=("harmless,cheerful",), methods=("rlcd", "rlaif"))
    assert setup.tasks == ("harmless", "cheerful")
    assert setup.methods == ("rlcd", "rlaif")


def test_the_aligned_model_makes_its_own_pairs_where_the_scale_has_one():
    assert make_setup("llama-7b", model="hf:a").generator == "hf:a"
    assert make_setup("llama-30b", model="hf:a").generator == ""
    assert make_setup("llama-30b").generator_name == "llama-30b"
    assert make_setup("smollm2-135m", model="hf:a").generator == "smollm2-135m"


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        (
            "speed=fast",
            "'speed=fast'; accepted: name=value with the names table, scale",
        ),
        ("3", "config argument '3'; accepted: name=value"),
        ("scale=huge", "scale='huge'; accepted: llama-7b, llama-30b, smollm2-135m"),
    ],
)
def test_wrong_argument_is_one_message(arg, message):
    with pytest.raises(ValueError, match=message):
        paper.get_config(arg)


NAN = float("nan")
BAD = {
    bool: (0, 1, "true"),
    int: (True, -1, 1.5, NAN, "3", 10**400),
    float: (-0.5, NAN, float("inf"), 1e300, "0.1"),
    str: (3, " ", " x", "a\nb", ("x",)),
    tuple: (("",), ((1,),), ("x", "x"), (NAN,), (-1,), "x", 3),
}


@pytest.mark.parametrize("scale", paper.SCALES)
def test_fields_of_the_tables_are_all_known_and_accepted(scale):
    config = paper.get_config(f"table=all,scale={scale}")
    names = {name for name in flat(config) if not name.startswith("run.")}
    assert names == fields.FIELDS.keys()
    assert fields.problems(config) == []
    for name, field in fields.FIELDS.items():
        assert not kinds.problem(field, name, field.example), name


@pytest.mark.parametrize("name", flat(paper.get_config()))
def test_bad_value_of_any_field_of_the_tables_is_refused(name):
    run = name.startswith("run.")
    known = (check_fields.FIELDS if run else fields.FIELDS)[name.removeprefix("run.")]
    bad = [*BAD[type(known.example)], {}, 3 + 1j]
    right = (-1,) if name in ("run.mesh.data", "run.model.attention_block") else ()
    right = (-0.5,) if name == "run.policy.terminal_value" else right
    for value in (one for one in bad if one not in right):
        config = paper.get_config("table=3,scale=tiny")
        *sections, last = name.split(".")
        with config.unlocked():
            place = functools.reduce(operator.getitem, sections, config)
            with place.unlocked(), place.ignore_type():
                place[last] = value
        with pytest.raises(ValueError, match=rf"{re.escape(name)}(=| has )") as caught:
            read_config.read_setup(
                config,
                "unused",
                make_config=command.method_config,
                cache_dir=CACHE,
                api_key=None,
            )
        assert "accepted: " in str(caught.value)


def test_counts_are_of_the_official_files():
    assert hh_rlhf_files.SIZES.keys() == set(hh_rlhf_files.CONFIGS)
    for subset, split, number in (
        ("harmless-base", "train", 42_537),
        ("harmless-base", "test[1000:2000]", 1_000),
        ("harmless-base", "test[2000:]", 312),
        ("helpful-base", "test[:5%]", 118),
        ("helpful-base", "test[-54:]", 54),
        ("helpful-base", "test[:2shard]", 2_354),  # the whole file
        ("helpful-base", "", 0),
    ):
        assert len(counts.split_lines(subset, split)) == number
    with pytest.raises(ValueError, match="no file 'dev'; accepted: train, test"):
        counts.split_lines("helpful-base", "dev[:10]")


def test_counts_are_what_the_stages_will_load():
    config = command.method_config("mixed", "task=cheerful,size=full")
    task = tasks.load_task("cheerful")
    prompts = len(tasks.load_prompts(task, "train"))
    assert counts.num_prompts(config, task, "train") == prompts
    assert counts.num_pairs(config, task) == 6 * prompts
    assert counts.preference_pairs(config, task) == 2 * 6 * prompts  # of both labels
    assert counts.policy_replies(config) == (12 * 64, 2 * 32)


def test_counts_leave_out_the_lines_of_parts_before():
    config = command.method_config("rlcd", "task=harmless,model=llama-7b")
    task = tasks.load_task("harmless")

    def number(part, **fields):
        with config.unlocked():
            config.prompts.update(fields)
        return counts.num_prompts(config, task, part)

    # Without a folder there is no agreement with people, so nothing is kept for it.
    assert number("train", hh_dir="") == 42_537
    assert number("train", hh_dir="/data") == 42_537 - 2_127
    assert number("test") == 2_312 - 1_000
    assert number("dev") == 1_000
    assert number("train", hh_dev_split="train[-1000:]") == 42_537 - 2_127 - 1_000
    assert number("train", hh_agreement_split="train") == 0
    assert number("train", hh_agreement_split="train[:2shard]") == 42_537 - 1_000
