"""A study from the replies of a run, and its tables from the answers that came back."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from rlcd_jax import jsonl, record_files, tasks
from rlcd_jax.human import checks, ratings, reading, results, sheets, study
from rlcd_jax.judging import verdicts
from rlcd_jax.statistics import tables

# How a study is made: with checks of the annotators and pairs that all judge, or as in
# the paper (Section 4, Appendix F): so many examples a comparison, each judged once.
CAREFUL, PAPER = PROTOCOLS = "careful", "paper"
EXAMPLES = 200  # of a comparison; method
ANNOTATORS = {CAREFUL: 3, PAPER: 1}  # where no number is given; the paper's: unknown
SAMPLE_FIELDS = ("prompt_id", "system", "prompt", "reply")
ONE_REPEAT_IN, ONE_GOLD_IN = 20, 25  # of an annotator's items, where no number is given


def make(
    samples_path: pathlib.Path,
    systems: tuple[str, str],
    place: pathlib.Path,
    *,
    protocol: str,
    num_annotators: int | None,
    per_annotator: int | None,
    shared: int | None,
    repeats: int | None,
    num_gold: int | None,
    gold_kind: str,
    gold_file: str | None,
    task_name: str | None,
    question_name: str | None,
    seed: int,
) -> list[str]:
    """Write the sheets of a study; return what to tell the user.

    Args:
      samples_path: of a run's `evaluate/samples.jsonl`.
      systems: the two to compare.
      place: new folder of the study.
      protocol: one of `PROTOCOLS`, which says what a None of the next five is.
      num_annotators: how many; None: `ANNOTATORS`.
      per_annotator: different pairs that each judges; None: `EXAMPLES`, and in the
        paper's protocol their share of so many.
      shared: pairs that all judge; None: all, or none in the paper's.
      repeats: pairs shown twice; None: one in 20, or none.
      num_gold: checks of attention; None: one in 25, or none.
      gold_kind: one of `checks.KINDS`.
      gold_file: JSON lines with prompt, better and worse instead; None: none.
      task_name: name or file; None: that of the run.
      question_name: None: the task's first question.
      seed: of what each annotator sees.

    Raises:
      ValueError: the examples of the paper's protocol do not go round.
    """
    plain = protocol == PAPER
    annotators = ANNOTATORS[protocol] if num_annotators is None else num_annotators
    each = _examples_each(plain, annotators) if per_annotator is None else per_annotator
    samples = read_samples(samples_path)
    task = tasks.load_task(task_name or _task_of_run(samples_path))
    question = _question(task, question_name)
    if gold_file:
        gold = record_files.read_jsonl(gold_file, checks.Gold)
    else:
        few = 0 if plain else each // ONE_GOLD_IN
        num = few if num_gold is None else num_gold
        pairs, _ = study.comparisons(samples, systems)
        gold = checks.KINDS[gold_kind](pairs, num, seed)
    made, written = study.make_study(
        samples,
        systems,
        task=task.name,
        question=question,
        num_annotators=annotators,
        per_annotator=each,
        shared=each * (not plain) if shared is None else shared,
        repeats=each // ONE_REPEAT_IN * (not plain) if repeats is None else repeats,
        gold=gold,
        seed=seed,
        show_identical=plain,
    )
    sheets.write_study(place, made, written)
    return _what_was_made(place, question, written)


def _examples_each(plain: bool, annotators: int) -> int:
    """Return how many pairs each annotator judges, where the user does not say it."""
    if not plain or annotators < 1:
        return EXAMPLES
    if EXAMPLES % annotators:
        raise ValueError(
            f"protocol 'paper' has {EXAMPLES} examples, each judged once, and "
            f"annotators is {annotators}; accepted: a divisor of {EXAMPLES}, or say "
            "how many each judges with per_annotator"
        )
    return EXAMPLES // annotators


def _what_was_made(
    place: pathlib.Path, question: tuple[str, str], written: Sequence[study.Sheet]
) -> list[str]:
    return [
        f"question {question[0]}: {sheets.shown_question(question[1])}",
        f"{len(written)} sheets of {len(written[0].items)} items in "
        f"{place / sheets.PAGES}: give each annotator one page or one CSV file",
        f"keep {place / sheets.KEY} to yourself; put the answers into "
        f"{place / sheets.ANSWERS}",
        f"then: python -m experiments.human read --workdir {place}",
    ]


def read(
    places: Sequence[pathlib.Path],
    *,
    partial: bool,
    shift: str,
    min_gold: float,
    verdicts_file: str | None,
    seed: int,
) -> list[str]:
    """Write the tables of one or more studies; return them as text.

    Args:
      places: folders of the studies.
      partial: accept missing answers.
      shift: one of `ratings.SHIFTS`.
      min_gold: share of the checks that an annotator must pass, else left out.
      verdicts_file: of other judges, to compare; None: none.
      seed: of the bootstrap.
    """
    judged = None
    if verdicts_file:
        judged = record_files.read_jsonl(verdicts_file, verdicts.Verdict)
    compared, shown = [], []
    for place in places:
        made, judgments = reading.read_study(place, partial=partial)
        rated = ratings.rate(made, judgments, shift=shift, min_gold=min_gold, seed=seed)
        written = {
            "table": results.rating_table(rated, judgments, seed=seed),
            "annotators": results.annotator_table(judgments),
        }
        if judged is not None:
            written["judges"] = results.judge_table(rated, judged)
        folder = results.write_results(place, written, judgments)
        shown += [tables.markdown(table) for table in written.values()]
        shown.append(f"wrote {folder}\n")
        compared.append(rated)
    if len(compared) > 1:
        shown.append(tables.markdown(results.paper_table(compared)))
    return shown


def read_samples(path: pathlib.Path) -> list[verdicts.JudgedReply]:
    """Return the replies of a run's `evaluate/samples.jsonl`.

    Raises:
      ValueError: the file is not there, or a row lacks a field.
    """
    if not path.is_file():
        raise ValueError(f"{path} is not there; name a run's evaluate/samples.jsonl")
    names = (*SAMPLE_FIELDS, "draw")
    return record_files.read_jsonl(path, verdicts.JudgedReply, only=names)


def _task_of_run(samples: pathlib.Path) -> str:
    """Return the task of the run whose `evaluate` folder holds the samples."""
    path = samples.parent.parent / "config.json"
    if not path.is_file():
        raise ValueError(f"{path} is not there; name the task with --task")
    task = jsonl.read_object(path).get("task")
    if not isinstance(task, str):
        raise ValueError(f"{path} names no task; name it with --task")
    return task


def _question(task: tasks.Task, name: str | None) -> tuple[str, str]:
    """Return the name and the text of a question of the task."""
    name = name or next(iter(task.judge_questions))
    if name not in task.judge_questions:
        raise ValueError(
            f"question is {name!r}; accepted: " + ", ".join(task.judge_questions)
        )
    return name, task.judge_questions[name]
