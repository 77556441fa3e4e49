"""human.results and experiments.human: tables, and the command from end to end."""

import collections
import dataclasses
import re

import pytest
from human_study import answer_all, judged, likes_first, make_samples, rate, verdict

from experiments import human as command
from rlcd_jax import record_files
from rlcd_jax.human import checks, reading, results, study
from rlcd_jax.statistics import estimates, tables

SYSTEMS = ("sunny-v1", "pale-v2")


def test_rating_table_has_the_papers_layout():
    found = rate(judged([3, 4, 3, 4]))
    table = results.rating_table(found, judged([3, 4, 3, 4]), seed=0)
    shown = tables.markdown(table)
    assert re.search(
        r"sunny-v1 vs pale-v2 \| +5\.50 / 3\.50 \[5\.\d\d, \d\.\d\d\]", shown
    )
    assert "missing: 0 pairs were rated by two annotators or more" in shown
    assert tables.as_json(table)["rows"][0]["cells"]["sunny-v1"]["value"] == 5.5


def test_paper_table_puts_studies_side_by_side():
    one = rate(judged([3, 4]))
    other = dataclasses.replace(one.study, question_name="help")
    table = results.paper_table([one, dataclasses.replace(one, study=other)])
    assert [c.name for c in table.columns] == ["cheerful: mood", "cheerful: help"]
    assert table.rows[0][1][0].startswith("5.50 / 3.50 [")
    third = dataclasses.replace(other, system_2="plain")
    table = results.paper_table([one, dataclasses.replace(one, study=third)])
    assert table.rows[1][1][0] == estimates.Missing("no study")
    with pytest.raises(ValueError, match="two studies are about"):
        results.paper_table([one, one])


def test_rating_table_names_what_was_left_out():
    found = rate(judged([3, 4]) + judged([1], kind="gold"), min_gold=1.0, shift="side")
    shown = tables.markdown(results.rating_table(found, [], seed=0))
    assert "missing: 0 rated prompts" in shown
    assert "too few gold checks passed: annotator-1" in shown
    assert "shifts were removed: side" in shown


def run_command(capsys, *args):
    """Return the exit status of the command, and what it said."""
    try:
        command.main([str(arg) for arg in args])
    except SystemExit as stopped:
        return stopped.code, capsys.readouterr()
    return 0, capsys.readouterr()


def test_the_papers_protocol_has_200_examples_each_judged_once(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "study"
    samples = make_samples(203)
    # Of the first prompt both replies are the same, and it is judged all the same.
    samples[1] = dataclasses.replace(samples[1], reply=samples[0].reply)
    record_files.write_jsonl(run / "evaluate" / "samples.jsonl", samples)
    record_files.write_json(run / "config.json", {"task": "cheerful"})
    given = ["make", "--samples", run / "evaluate" / "samples.jsonl"]
    given += ["--systems", *SYSTEMS, "--protocol", "paper", "--workdir"]
    status, said = run_command(capsys, *given, tmp_path / "x", "--annotators", 3)
    assert status and "a divisor of 200" in said.err
    assert run_command(capsys, *given, out, "--annotators", 4)[0] == 0
    made, key = reading.read_key(out)
    assert (made.per_annotator, made.shared, made.repeats, made.gold) == (50, 0, 0, 0)
    assert made.identical == 0
    assert len({line.prompt_id for line in key.values()}) == len(key) == 200
    assert {line.kind for line in key.values()} == {"pair"}
    sides = collections.Counter(line.side_2 for line in key.values())
    assert sides == {"A": 100, "B": 100}
    sheets_of = collections.defaultdict(list)
    for line in key.values():
        sheets_of[line.annotator].append(line)
    written = [study.Sheet(k, (), tuple(lines)) for k, lines in sheets_of.items()]
    answer_all(out, made, written, likes_first)
    assert run_command(capsys, "read", "--workdir", out)[0] == 0
    table = (out / "results" / "table.md").read_text()
    # 7 or 2 of the second system's side: 2 for it and 9 - 2 for the first.
    assert "7.00 / 2.00 [7.00, 7.00]" in table and "judged once" in table


def test_command_makes_sheets_and_reads_answers(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "study"
    rows = [{**dataclasses.asdict(s), "num_tokens": 5} for s in make_samples()]
    record_files.write_jsonl(run / "evaluate" / "samples.jsonl", rows)
    record_files.write_json(run / "config.json", {"task": "cheerful"})
    make = ["make", "--samples", run / "evaluate" / "samples.jsonl", "--systems"]
    make += [*SYSTEMS, "--per_annotator", 26, "--annotators", 2, "--workdir", out]
    status, shown = run_command(capsys, *make)
    assert status == 0 and "2 sheets of 28 items" in shown.out
    assert "Answer (A)" not in shown.out
    made, key = reading.read_key(out)
    assert (made.task, made.repeats, made.gold) == ("cheerful", 1, 1)
    by_sheet = collections.defaultdict(list)
    for line in key.values():
        by_sheet[line.annotator].append(line)
    written = [study.Sheet(name, (), tuple(lines)) for name, lines in by_sheet.items()]
    status, shown = run_command(capsys, "read", "--workdir", out)
    assert status == 2 and "holds no .csv or .json" in shown.err
    answer_all(out, made, written, likes_first)
    by_judge = [verdict(f"p{n}", "2" if n % 2 else "1") for n in range(30)]
    record_files.write_jsonl(run / "evaluate" / "verdicts.jsonl", by_judge)
    status, shown = run_command(
        capsys, "read", "--workdir", out, "--verdicts", run / "evaluate/verdicts.jsonl"
    )
    assert status == 0
    assert "7.00 / 2.00 [7.00, 7.00]" in shown.out
    assert "missing: all ratings are the same" in shown.out
    names = {path.name for path in (out / "results").iterdir()}
    assert names == {
        *(
            f"{s}.{e}"
            for s in ("table", "annotators", "judges")
            for e in ("md", "json")
        ),
        "ratings.jsonl",
    }
    back = record_files.read_jsonl(out / "results" / "ratings.jsonl", reading.Judgment)
    assert len(back) == 56
    assert run_command(capsys, *make)[0] == 2  # never overwrites


def test_command_errors_name_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    make = [
        "make",
        "--samples",
        path,
        "--systems",
        *SYSTEMS,
        "--workdir",
        tmp_path / "o",
    ]
    assert "is not there" in run_command(capsys, *make)[1].err
    path.write_text('{"prompt_id": "p", "system": "s", "prompt": "Hi"}\n')
    assert "samples.jsonl:1: missing field 'reply'" in run_command(capsys, *make)[1].err
    record_files.write_jsonl(path, make_samples())
    assert "name the task with --task" in run_command(capsys, *make)[1].err
    make += ["--task", "harmless"]
    shown = run_command(capsys, *make, "--question", "x")[1].err
    assert "accepted: harmless, harmless_helpful" in shown
    assert "needs 200 prompts" in run_command(capsys, *make)[1].err


def test_command_reads_gold_checks_from_a_file(tmp_path, capsys):
    record_files.write_jsonl(tmp_path / "samples.jsonl", make_samples())
    gold = [checks.Gold("What is 2 + 2?", better="4, of course!", worse="A teapot.")]
    record_files.write_jsonl(tmp_path / "gold.jsonl", gold)
    args = ["make", "--samples", tmp_path / "samples.jsonl", "--systems", *SYSTEMS]
    args += [
        "--task",
        "cheerful",
        "--per_annotator",
        20,
        "--shared",
        5,
        "--annotators",
        2,
    ]
    args += ["--gold_file", tmp_path / "gold.jsonl", "--workdir", tmp_path / "study"]
    status, shown = run_command(capsys, *args)
    assert status == 2 and "needs 35 prompts" in shown.err
    args[args.index(5)] = 15
    assert run_command(capsys, *args)[0] == 0
    text = (tmp_path / "study/annotators/annotator-2.csv").read_text("utf-8")
    assert "A teapot." in text
