"""The judge behind an interface in a run: asked once, priced, refused beforehand."""

import shutil

import pytest
import runs

from rlcd_jax import record_files
from rlcd_jax.checks import refusals, rules
from rlcd_jax.judging import settings, verdicts

HERE = "http://127.0.0.1:8000/v1"
AWAY = "https://judge.example/v1"


def judged(url=HERE, **fields):
    return runs.tiny_config(
        **{
            "evaluate__judges": ("api",),
            "judge__url": url,
            "judge__name": "judge-1",
            **fields,
        }
    )


def test_a_run_is_judged_behind_an_interface(finished_run, tmp_path, server):
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    prices = {"judge__price_input": 10.0, "judge__price_output": 30.0}
    workdir = tmp_path / "run"
    runs.copy_run(finished_run, workdir, "policy", "distill", "preference")

    def made(**fields):
        shutil.rmtree(workdir / "evaluate", ignore_errors=True)
        with settings.using("secret-key"):
            summary = runs.run(judged(url, **fields), workdir, "evaluate")["evaluate"]
        path = workdir / "evaluate/verdicts.jsonl"
        return summary, record_files.read_jsonl(path, verdicts.Verdict)

    summary, given = made(judge__max_cost=1.0, **prices)
    differ = [v for v in given if v.answers]
    asked = len(server.seen)
    # What always says (A) is told to be of two minds, and nobody wins.
    assert differ and {v.judge for v in given} == {"api"}
    assert all(v.flips == 1 and v.winner == "tie" for v in differ)
    texts = {body["messages"][1]["content"] for _, _, body in server.seen}
    assert asked == len(texts) <= 2 * len(differ)
    cost = {"calls": asked, "spent": asked * 1030e-6, "cut": 0, "unparsed": 0}
    assert summary["api"] == pytest.approx(cost)
    table = summary["table"]
    assert "api win rate" in [column["name"] for column in table["columns"]]
    told = " ".join(table["notes"])
    assert "api asks in both orders and calls a flip a tie" in told
    assert "judge from outside" not in told
    # What was asked before is not asked again, with no network and no prices either;
    # one order of each pair is half of it.
    offline = made(judge__offline=True)
    assert offline[1] == given and offline[0]["api"]["calls"] == 0
    once = made(judge__offline=True, evaluate__both_orders=False)[1]
    assert [len(v.answers) for v in once if v.answers] == [1] * len(differ)
    assert {v.winner for v in once if v.answers} <= {"1", "2"}
    assert len(server.seen) == asked
    for path in workdir.rglob("*.json*"):
        assert "secret-key" not in path.read_text()


@pytest.mark.parametrize(
    "fields, told",
    [
        ({}, "price_input, judge.price_output = None, None with judge.max_cost = 0"),
        ({"judge__price_input": 1.0}, "without both prices no cost can be known"),
        ({"judge__url": ""}, "has 'api' but judge.url or judge.name is empty"),
        ({"judge__name": ""}, "has 'api' but judge.url or judge.name is empty"),
        ({"judge__url": "judge.example"}, "judge.url: base_url must start with http"),
        ({"evaluate__judges": ("lexicon",)}, "is not asked: evaluate.judges="),
        (
            {"judge__url": "https://me:hidden@judge.example/v1?key=hidden"},
            "judge.url of judge.example holds a name, a password or a query",
        ),
    ],
)
def test_what_is_wrong_with_it_is_told_from_the_config(fields, told):
    lines = list(rules.problems(judged(AWAY, **fields), ("evaluate",)))
    assert any(told in line for line in lines)
    assert not any("hidden" in line for line in lines)
    fine = judged(AWAY, judge__price_input=1.0, judge__price_output=2.0)
    assert rules.problems(fine, ("evaluate",)) == []
    assert rules.problems(judged(), ("evaluate",)) == []


def test_a_key_that_is_missing_is_told_before_the_first_stage(tmp_path):
    free = {"judge__price_input": 0.0, "judge__price_output": 0.0}

    def told(url):
        config = judged(url, evaluate__systems=("base",), **free)
        with runs.devices_by_mesh():
            return refusals.verdict(config, tmp_path / "run", ("evaluate",))

    (line,) = told(AWAY)
    assert "missing API key: OPENAI_API_KEY" in line
    assert told(HERE) == []
    with settings.using("key"):
        assert told(AWAY) == []
