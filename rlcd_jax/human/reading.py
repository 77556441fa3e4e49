"""Answers that came back: checked, then un-blinded with the key.

All problems of all files are named at once, each with its file, line and field.
"""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rlcd_jax import jsonl, record_files, records, schema
from rlcd_jax.human import sheets
from rlcd_jax.human import study as studies

SUM = studies.LOWEST + studies.HIGHEST  # of the two systems' scores: 9
SHOWN_PROBLEMS = 20
# Fields of what a page saves: of the file, and of an answer.
OF_FILE = ("study", "annotator", "answers")
OF_ANSWER = ("study", "item", "answer", "seconds")
# Numbers as a spreadsheet writes them: 3, 3.0, 2.5, 1E-3.
PLAIN = re.compile(r"\s*[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?\s*", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Judgment:
    """One un-blinded answer; `rating` is as given, `score_2` of the second system.

    A gold check's second system is its better reply. 9 - score_2 is the first's score.
    """

    annotator: str
    item: str
    kind: studies.Kind
    prompt_id: str
    side_2: studies.Side
    repeat_of: str | None
    rating: int = schema.between(studies.LOWEST, studies.HIGHEST)
    score_2: int = schema.between(studies.LOWEST, studies.HIGHEST)
    seconds: float | None = schema.between(0.0)
    draw: int | None = schema.between(0, records.MOST, default=None)

    def __post_init__(self):
        schema.validate(self)


@dataclasses.dataclass(frozen=True)
class _Row:
    """An answer as a file has it; `where` names the file and the place in it."""

    where: str
    values: Mapping[str, Any]


def read_study(
    folder: str | os.PathLike[str], *, partial: bool = False
) -> tuple[studies.Study, list[Judgment]]:
    """Return a study and its un-blinded answers, in the order of the key.

    Args:
      folder: of the study; all CSV and JSON files in its `answers` are read.
      partial: accept that items have no answer yet.

    Raises:
      ValueError: lists answers that are missing, there twice, out of range, of another
        study or of no item of this one.
    """
    folder = pathlib.Path(folder)
    study, key = read_key(folder)
    problems: list[str] = []
    rows = [
        row
        for path in _answer_files(folder)
        for row in _rows(path, str(path.relative_to(folder)), problems)
    ]
    answers: dict[str, tuple[_Row, int]] = {}
    for row in rows:
        _take(row, study, key, answers, partial, problems)
    if not partial:
        problems += _absent(key, answers, rows)
    if problems:
        shown = problems[:SHOWN_PROBLEMS]
        more = len(problems) - len(shown)
        shown += [f"and {more} more"] if more else []
        raise ValueError(
            f"{folder}: {len(problems)} problems in the answers:\n  "
            + "\n  ".join(shown)
            + "\nCorrect the files in answers/, or ask the annotator."
        )
    judgments = [
        _unblind(line, answers[item][1], _seconds(answers[item][0].values))
        for item, line in key.items()
        if item in answers
    ]
    return study, judgments


def read_key(
    folder: str | os.PathLike[str],
) -> tuple[studies.Study, dict[str, studies.KeyLine]]:
    """Return a study and its key by item.

    Raises:
      ValueError: the folder is of no study.
    """
    folder = pathlib.Path(folder) / sheets.KEY
    for name in (sheets.STUDY_FILE, sheets.KEY_FILE):
        if not (folder / name).is_file():
            raise ValueError(
                f"{folder / name} is not there; accepted: the folder that "
                "'experiments.human make' wrote, with its key"
            )
    path = folder / sheets.STUDY_FILE
    facts = jsonl.read_object(path)
    try:
        study = schema.from_dict(studies.Study, facts)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    lines = record_files.read_jsonl(folder / sheets.KEY_FILE, studies.KeyLine)
    _check_counts(study, lines, folder / sheets.KEY_FILE)
    _check_repeats(lines, folder / sheets.KEY_FILE)
    return study, {line.item: line for line in lines}


def _check_counts(
    study: studies.Study, lines: Sequence[studies.KeyLine], path: pathlib.Path
) -> None:
    """Refuse a key that lost or gained lines since the study was made."""
    found = collections.Counter((line.annotator, line.kind) for line in lines)
    counts = {"pair": study.per_annotator, "repeat": study.repeats, "gold": study.gold}
    wanted = collections.Counter(
        {(name, kind): n for name in study.annotators for kind, n in counts.items()}
    )
    for name, kind in sorted(found.keys() | wanted.keys()):
        if found[name, kind] != wanted[name, kind]:
            raise ValueError(
                f"{path} has {found[name, kind]} lines of kind {kind!r} for annotator "
                f"{name!r}, and {path.with_name(sheets.STUDY_FILE).name} says "
                f"{wanted[name, kind]}; restore both files"
            )


def _check_repeats(lines: Sequence[studies.KeyLine], path: pathlib.Path) -> None:
    """Refuse a repeat that shows no pair of its own sheet with the sides changed."""
    shown = {line.item: line for line in lines if line.kind == "pair"}
    for line in lines:
        if line.kind != "repeat" and line.repeat_of is None:
            continue
        wanted = None
        if line.kind == "repeat" and line.repeat_of in shown:
            pair = shown[line.repeat_of]
            other = {"A": "B", "B": "A"}[pair.side_2]
            wanted = (pair.annotator, pair.prompt_id, pair.draw, other)
        if wanted != (line.annotator, line.prompt_id, line.draw, line.side_2):
            raise ValueError(
                f"{path}: item {line.item!r} is of kind {line.kind!r} with repeat_of "
                f"{line.repeat_of!r}; accepted: in repeats alone, the item of a pair "
                "of the same annotator and prompt, shown with the sides changed"
            )


def unblind(rating: int, side_2: studies.Side) -> int:
    """Return the second system's score: the rating, or 9 minus it when shown as A."""
    return rating if side_2 == "B" else SUM - rating


def _unblind(line: studies.KeyLine, rating: int, seconds: float | None) -> Judgment:
    return Judgment(
        annotator=line.annotator,
        item=line.item,
        kind=line.kind,
        prompt_id=line.prompt_id,
        draw=line.draw,
        side_2=line.side_2,
        repeat_of=line.repeat_of,
        rating=rating,
        score_2=unblind(rating, line.side_2),
        seconds=seconds,
    )


def _answer_files(folder: pathlib.Path) -> list[pathlib.Path]:
    place = folder / sheets.ANSWERS
    files = sorted(
        path
        for path in place.glob("*")
        if path.suffix.lower() in (".csv", ".json") and not path.name.startswith(".")
    )
    if not files:
        raise ValueError(
            f"{place} holds no .csv or .json file; put there what the annotators saved"
        )
    return files


def _rows(path: pathlib.Path, name: str, problems: list[str]) -> Iterator[_Row]:
    """Yield the answers of a file; what makes it unreadable is a problem."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        read = _json_rows if path.suffix.lower() == ".json" else _csv_rows
        yield from read(text, name)
    except (ValueError, RecursionError, csv.Error) as error:
        problems.append(f"{name}: cannot be read: {error}")


def _json_rows(text: str, name: str) -> Iterator[_Row]:
    """Yield the answers of the page's JSON file; their place is the list's index."""
    # A wrong number is told with its answer.
    value = json.loads(text, object_pairs_hook=jsonl.single_names)
    answers = value.get("answers") if isinstance(value, dict) else None
    if not isinstance(answers, list):
        raise ValueError("it has no list 'answers'; accepted: a file that a page saved")
    _refuse_unknown(value, OF_FILE, "it")
    for index, answer in enumerate(answers):
        where = f"{name}: answers[{index}]"
        if not isinstance(answer, dict):
            raise ValueError(f"answers[{index}] is not an object")
        _refuse_unknown(answer, OF_ANSWER, f"answers[{index}]")
        known = {name: value.get(name) for name in ("study", "annotator")}
        yield _Row(where, known | answer)


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    unknown = [field for field in given if field not in known]
    if unknown:
        raise ValueError(
            f"{what} has the field {schema.shown(unknown[0])}; accepted: "
            f"{', '.join(known)}"
        )


def _csv_rows(text: str, name: str) -> Iterator[_Row]:
    """Yield the rows of a sheet; some spreadsheets save it with ; or tabs."""
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    columns = [column.strip() for column in next(reader, [])]
    absent = [column for column in sheets.ANSWER_COLUMNS if column not in columns]
    if absent:
        raise ValueError(
            f"line 1 has no column {absent[0]!r}; required: "
            + ", ".join(sheets.ANSWER_COLUMNS)
        )
    start = reader.line_num + 1
    double = jsonl.first_double([(column, None) for column in columns if column])
    if double is not None:
        raise ValueError(
            f"line 1 has the column {schema.shown(double)} twice; give one"
        )
    for cells in reader:
        if any(cell.strip() for cell in cells):
            if any(cell.strip() for cell in cells[len(columns) :]):
                raise ValueError(
                    f"line {start} has {len(cells)} cells and line 1 {len(columns)}; "
                    "a text with the delimiter in it must stand in quotes"
                )
            cells += [""] * (len(columns) - len(cells))
            yield _Row(f"{name}:{start}", dict(zip(columns, cells, strict=False)))
        start = reader.line_num + 1


def _take(
    row: _Row,
    study: studies.Study,
    key: Mapping[str, studies.KeyLine],
    answers: dict[str, tuple[_Row, int]],
    partial: bool,
    problems: list[str],
) -> None:
    """Add an answer to `answers`, or what is wrong with it to `problems`."""
    item = row.values.get("item")
    said = {name: schema.shown(row.values.get(name)) for name in OF_ANSWER}
    if row.values.get("study") != study.id:
        problems.append(
            f"{row.where}: field 'study' is {said['study']}; accepted: "
            f"{study.id!r}, the study of this folder"
        )
    elif not isinstance(item, str) or item not in key:
        problems.append(
            f"{row.where}: field 'item' is {said['item']}; accepted: an item of the key"
        )
    elif row.values.get("annotator") not in (key[item].annotator, None):
        problems.append(
            f"{row.where}: field 'item' is {item!r}, which {key[item].annotator} was "
            f"given, in a file of {schema.shown(row.values['annotator'])}"
        )
    elif _is_blank(row.values.get("answer")):
        if not partial:
            problems.append(
                f"{row.where}: field 'answer' of {item} is empty; accepted: "
                f"{studies.LOWEST} to {studies.HIGHEST}"
            )
    elif (rating := _rating(row.values["answer"])) is None:
        problems.append(
            f"{row.where}: field 'answer' of {item} is {said['answer']}; "
            f"accepted: a whole number from {studies.LOWEST} to {studies.HIGHEST}"
        )
    elif _seconds(row.values) == math.inf:
        problems.append(
            f"{row.where}: field 'seconds' of {item} is {said['seconds']}; "
            "accepted: a number of 0 or more, or nothing"
        )
    elif item in answers:
        problems.append(
            f"{row.where}: field 'item' is {item!r}, which {answers[item][0].where} "
            "answers too; accepted: one answer an item"
        )
    else:
        answers[item] = (row, rating)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _rating(value: Any) -> int | None:
    """Return a rating in range, else None; spreadsheets may write 3 as 3.0."""
    number = _number(value)
    whole = number is not None and number.is_integer()
    return int(number) if whole and 1 <= number <= studies.HIGHEST else None


def _number(value: Any) -> float | None:
    """Return a number of a JSON file, or of a cell of digits; None: it is none."""
    if isinstance(value, str):
        return float(value) if PLAIN.fullmatch(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < sys.maxsize else None


def _seconds(values: Mapping[str, Any]) -> float | None:
    """Return the time an answer took, None if not given, infinity if not a time."""
    value = values.get("seconds")
    if _is_blank(value):
        return None
    number = _number(value)
    return number if number is not None and 0 <= number < math.inf else math.inf


def _absent(
    key: Mapping[str, studies.KeyLine], answers: Mapping[str, Any], rows: list[_Row]
) -> list[str]:
    """Return a line for each annotator whose file lacks items."""
    seen = {str(row.values.get("item")) for row in rows}  # with a problem of their own
    lacking: dict[str, list[str]] = {}
    for item, line in key.items():
        if item not in answers and item not in seen:
            lacking.setdefault(line.annotator, []).append(item)
    lines = []
    for annotator, items in lacking.items():
        shown = ", ".join(items[:5]) + (", ..." if len(items) > 5 else "")
        lines.append(
            f"answers/: field 'item': {annotator} has no answer to {len(items)} items "
            f"({shown}); accepted: all of them, or --partial"
        )
    return lines
