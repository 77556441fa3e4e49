"""The files of a study: what annotators are given, and the key that they are not.

annotators/<name>.html  one page: works from disk, keeps answers, saves them as files
annotators/<name>.csv   the same items for a spreadsheet
key/                    what the items are; never give this to an annotator
answers/                where the files that come back are put
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Sequence

import jinja2

from rlcd_jax import record_files
from rlcd_jax.human import study as studies
from rlcd_jax.text import dialogue_format

PAGES, KEY, ANSWERS = "annotators", "key", "answers"
STUDY_FILE, KEY_FILE = "study.json", "key.jsonl"
ANSWER_COLUMNS = ("study", "item", "answer")
LETTERS = re.compile(r"\s*Answer \(A\) or \(B\)\.?$")  # asked of judges with letters
SCALE = " Answer from 1 (A is much better) to 8 (B is much better)."
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for a formula


def write_study(
    folder: str | os.PathLike[str],
    study: studies.Study,
    sheets: Sequence[studies.Sheet],
) -> None:
    """Write the sheets and the key of a study into a new folder.

    Raises:
      ValueError: a study is there already; annotators may be at work on it.
    """
    folder = pathlib.Path(folder)
    if (folder / KEY / STUDY_FILE).exists():
        raise ValueError(
            f"{folder} holds a study already and its answers would lose their key; "
            "choose a new folder"
        )
    for sheet in sheets:
        stem = folder / PAGES / sheet.annotator
        record_files.write_text(stem.with_suffix(".html"), page(study, sheet))
        record_files.write_text(stem.with_suffix(".csv"), table(study, sheet))
    (folder / ANSWERS).mkdir(parents=True, exist_ok=True)
    key = [line for sheet in sheets for line in sheet.key]
    record_files.write_jsonl(folder / KEY / KEY_FILE, key)
    record_files.write_json(folder / KEY / STUDY_FILE, dataclasses.asdict(study))


def page(study: studies.Study, sheet: studies.Sheet) -> str:
    """Return the HTML page of one annotator. It names no system and loads nothing."""
    data = {
        "study": study.id,
        "annotator": sheet.annotator,
        "question": shown_question(study.question),
        "items": [
            {
                "item": item.item,
                "turns": shown_turns(item.prompt),
                "a": item.reply_a,
                "b": item.reply_b,
            }
            for item in sheet.items
        ],
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.get_template("page.html").render(data=data)
    return text.encode("utf-8", "replace").decode()


def table(study: studies.Study, sheet: studies.Sheet) -> str:
    """Return the CSV sheet of one annotator; the column `answer` is empty.

    It starts with a byte order mark, without which spreadsheets misread UTF-8, and a
    text that a spreadsheet would compute has an apostrophe in front.
    """
    out = io.StringIO()
    writer = csv.writer(out)  # whose ends of lines, CR and LF, quote either in a text
    question = shown_question(study.question) + SCALE
    writer.writerow(
        ["study", "item", "question", "prompt", "reply_a", "reply_b", "answer"]
    )
    for item in sheet.items:
        turns = (
            f"{turn['role'].capitalize()}: {turn['text']}".removeprefix(": ")
            for turn in shown_turns(item.prompt)
        )
        texts = (question, "\n\n".join(turns), item.reply_a, item.reply_b)
        writer.writerow([study.id, item.item, *map(_harmless_cell, texts), ""])
    return "\ufeff" + out.getvalue().encode("utf-8", "replace").decode()


def shown_question(question: str) -> str:
    """Return a judge's question without the request to answer with a letter."""
    return LETTERS.sub("", question.strip())


def shown_turns(prompt: str) -> list[dict[str, str]]:
    """Return a dialogue as turns to show; another text is one turn without a role."""
    try:
        turns, begun = dialogue_format.parse_dialogue(prompt)
    except ValueError:  # not in the format of a dialogue: shown as it is
        return [{"role": "", "text": prompt}]
    shown = [{"role": turn.role, "text": turn.text} for turn in turns]
    if begun:  # the words that both replies continue
        shown.append({"role": "assistant", "text": begun + " …"})
    return shown


def _harmless_cell(text: str) -> str:
    return "'" + text if text.startswith(FORMULA) else text
