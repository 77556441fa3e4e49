"""Pages stay inert, whatever prompts, replies, names and values hold.

The property: a page with hostile texts has the elements, the scripts and the loads of
the same page with harmless ones, and the JSON in it says exactly these texts.
"""

import collections
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess

import hypothesis
import pytest
from hypothesis import strategies as st

from rlcd_jax import record_files, report, trackers
from rlcd_jax.human import checks, sheets, study
from rlcd_jax.judging import verdicts

PIECES = (
    *("</script>", "</SCRIPT >", "<script>", "<script src=//x.example>", "<!--", "-->"),
    *("<!--<script>", "]]>", "<![CDATA[", "</style>", "</title>", "</textarea>"),
    *("<img src=x onerror=alert(1)>", "<svg/onload=alert(1)>", "<a href=javascript:0>"),
    *(
        "<iframe srcdoc='<script>alert(1)</script>'>",
        "<base href=//x.example>",
        "</div>",
    ),
    *("<meta http-equiv=refresh content=0>", "<form><button>", "<noscript>", "</svg>"),
    *("javascript:alert(1)", "data:text/html,x", "{{ 7*7 }}", "{% raw %}", "{# #}"),
    *("${alert(1)}", "`", '"', "'", "' onmouseover='alert(1)", '" autofocus x="', "\\"),
    *(
        "&lt;",
        "&#60;",
        "&",
        "&quot;",
        "<",
        ">",
        "\\u003c",
        "$\\frac{1}$",
        "%s",
        "%(x)s",
    ),
    *("\u2028", "\u2029", "\u202e", "\u2066", "\u200f", "\ufeff", "\u0000", "\x1b[2J"),
    *(
        "\x08",
        "\x7f",
        "\x85",
        "\ud800",
        "\udfff",
        "\U0001f600",
        "\ufffe",
        "\r",
        "\n",
        "\t",
    ),
    *("=1+1", "@x", "+1", "-1", "=cmd|'/C calc'!A0", "x" * 300, "é", "漢"),
)
TEXTS = st.lists(st.sampled_from(PIECES), min_size=1, max_size=4).map("".join)
# Files in which half of a surrogate pair stands are refused, and shown as such.
WHOLE = TEXTS.map(lambda text: text.encode("utf-8", "replace").decode())
DRAWN = (
    "title",
    "circle",
    "svg",
    "defs",
    "style",
    "g",
    "path",
    "text",
    "tspan",
    "use",
    "clippath",
    "rect",
)
LOADS = (
    "src",
    "srcset",
    "srcdoc",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "data",
)
EXAMPLES = 12 * int(os.environ.get("RLCD_JAX_FUZZ", "1"))


def fuzzed(examples):
    return hypothesis.settings(
        max_examples=examples,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


class Page(html.parser.HTMLParser):
    """What a page is made of: elements with their attributes' names, and scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements = collections.Counter()
        self.loads, self.scripts, self.words, self.others = [], [], [], []
        self.script, self.plots = None, 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        names = tuple(sorted(name for name, _ in attrs if name != "class"))
        self.loads += [(tag, value) for name, value in attrs if name in LOADS]
        self.plots += tag == "svg"
        if self.plots:  # whose lines and ticks depend on how wide a name is
            assert tag in DRAWN and not any(name.startswith("on") for name in names)
            return
        self.elements[tag, names] += 1
        if tag == "script":
            self.script = dict(attrs).get("type", "")
            self.scripts.append((self.script, ""))

    def handle_endtag(self, tag):
        self.script = None if tag == "script" else self.script
        self.elements[f"/{tag}"] += not self.plots
        self.plots -= tag == "svg"

    def handle_data(self, data):
        if self.script is None:
            self.words.append(data)
        else:
            kind, before = self.scripts.pop()
            self.scripts.append((kind, before + data))

    def handle_comment(self, data):
        self.others.append("comment")

    def handle_decl(self, decl):
        self.others.append(decl)

    def handle_pi(self, data):
        self.others.append("pi")

    unknown_decl = handle_pi

    @property
    def code(self):
        return [text for kind, text in self.scripts if not kind]

    @property
    def data(self):
        return [json.loads(text) for kind, text in self.scripts if kind]

    @property
    def parts(self):
        """All but texts: what must be the same whatever the texts are."""
        away = [load for load in self.loads if not load[1].startswith("#")]
        return (self.elements, away, self.code, set(self.others), self.plots)


def texts_in(value):
    """Return all texts of a JSON value."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value
    return (
        [one for part in inner for one in texts_in(part)]
        if isinstance(value, dict | list)
        else []
    )


# --- the rating page ------------------------------------------------------------------


def write_study(folder, question, texts):
    """Write a study of replies that are these texts; return its one sheet's stem."""
    samples = []
    for n in range(4):
        prompt = f"\n\nHuman: {texts[3 * n]} {n}\n\nAssistant:"
        for system, text in zip(("one", "two"), texts[3 * n + 1 :], strict=False):
            samples.append(
                verdicts.JudgedReply(
                    f"p{n}", system, prompt, f"{text} as said by {system}"
                )
            )
    pairs, _ = study.comparisons(samples, ("one", "two"))
    made, written = study.make_study(
        samples,
        ("one", "two"),
        task="cheerful",
        question=("mood", f"Which {question}?"),
        num_annotators=1,
        per_annotator=4,
        shared=4,
        repeats=1,
        gold=checks.attention_checks(pairs, 1, seed=0),
        seed=0,
    )
    sheets.write_study(folder, made, written)
    return written[0], folder / sheets.PAGES / written[0].annotator


def well(text):
    """Return a text as a file in UTF-8 holds it: half of a pair is a "?"."""
    return text.encode("utf-8", "replace").decode()


@fuzzed(EXAMPLES)
@hypothesis.given(question=WHOLE, texts=st.lists(TEXTS, min_size=12, max_size=12))
def test_the_rating_page_and_its_sheet_are_inert(question, texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    _, plain = write_study(folder / "plain", "is it", ["word"] * 12)
    sheet, stem = write_study(folder / "own", question, texts)
    page = Page(stem.with_suffix(".html").read_text("utf-8"))
    assert page.parts == Page(plain.with_suffix(".html").read_text("utf-8")).parts
    (data,) = page.data
    assert [(one["a"], one["b"]) for one in data["items"]] == [
        (one.reply_a, one.reply_b) for one in sheet.items
    ]
    shown = [[turn["text"] for turn in one["turns"]] for one in data["items"]]
    assert shown == [
        [turn["text"] for turn in sheets.shown_turns(one.prompt)] for one in sheet.items
    ]
    assert data["question"] == sheets.shown_question(f"Which {question}?")
    # The same in a spreadsheet: the texts, and no formula.
    text = stem.with_suffix(".csv").read_bytes().decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    for row, one in zip(rows, sheet.items, strict=True):
        for name, reply in (("reply_a", one.reply_a), ("reply_b", one.reply_b)):
            assert row[name] in (well(reply), "'" + well(reply))
        assert not any((cell or "").startswith(sheets.FORMULA) for cell in row.values())
    shutil.rmtree(folder)


# --- the report -----------------------------------------------------------------------


def write_run(folder, say):
    """Write all that a report shows, with `say(n)` wherever a text may stand."""
    config = {
        "name": say(0),
        "task": say(1),
        "model": {"spec": say(2), say(3): say(4)},
        "stages": ["policy", say(5)],
        say(6): {say(7): [say(8), {say(9): 1}]},
    }
    record_files.write_json(folder / "config.json", config)
    environment = {"packages": {say(10): say(11)}, "commit": say(12), say(13): 1}
    record_files.write_json(folder / "environment.json", environment)
    rows = [
        {
            "stage": "policy",
            "step": n,
            "wall_time": 1.0 + n,
            say(14): 0.5 * n,
            "policy/loss": 1.0,
        }
        for n in (1, 2, 3)
    ] + [{"stage": say(15), "step": 1, "wall_time": 5.0, say(16): 0.5}]
    record_files.write_jsonl(folder / "metrics.jsonl", rows)
    estimate = {"value": 0.5, "low": 0.25, "high": 0.75, "num": 9, "level": 0.95}
    columns = [
        {"name": say(17), "digits": 2},
        {"name": say(18), "digits": 2},
        {"name": "Judge"},
    ]
    cells = {say(17): estimate, say(18): {"missing": say(19)}, "Judge": say(20)}
    table = {
        "caption": say(21),
        "row_header": say(22),
        "columns": columns,
        "rows": [{"name": say(23), "cells": cells}, {"name": say(24), "cells": cells}],
        "notes": [say(25)],
    }
    evaluate = folder / "evaluate"
    record_files.write_json(evaluate / "table.json", table)
    sample = {"prompt_id": say(26), "prompt": say(27), "reply": say(28)}
    both = [
        sample | {"system": say(29), "finish": say(30)},
        sample | {"system": say(31)},
    ]
    record_files.write_jsonl(evaluate / "samples.jsonl", both)
    verdict = {"prompt_id": say(26), "judge": say(32), "system_1": say(29)}
    verdict |= {"system_2": say(31), "winner": "1"}
    record_files.write_jsonl(evaluate / "verdicts.jsonl", [verdict])
    record_files.write_jsonl(folder / "policy/samples/000002.jsonl", [sample])
    summary = {
        "seconds": 1.5,
        say(33): say(34),
        "dropped_by_side": {say(35): {say(36): 1}},
        "cells": {say(37): {"pairs": 1, "sides": {say(38): {"tries": {say(39): 2}}}}},
        "too_long": {say(40): {"of": 1, "dropped": 0, "shortened": 0, "identical": 0}},
        "judge_cost": say(41),
    }
    for name in ("pairs", "policy", "evaluate"):
        record_files.write_json(folder / name / "summary.json", summary)
        record_files.write_text(folder / name / "DONE", "{}")
    grid = {"headings": [say(42), "b"], "rows": [[say(43), say(44)]]}
    plan = {"notes": [say(45)], "table": grid, "compiled": grid, "verdicts": [say(46)]}
    record_files.write_json(folder / "plan.json", {"shown": plan})
    record_files.write_json(folder / "study/results/table.json", table)
    return folder


def pages(folder, run):
    """Return the report of a run, a comparison, and its tables as a page of their own."""
    studies = [folder / "study"]
    both = report.write_comparison([run, run], folder / "compare.html")
    (table,) = [json.loads((run / "evaluate/table.json").read_text())]
    alone = report.write_tables(
        folder / "t.html", {"one": [table]}, title=table["caption"]
    )
    report.write_report(run, preset={"task": "x"}, studies=studies)
    made = (run / trackers.REPORT, both, alone)
    return [Page(path.read_text("utf-8")) for path in made]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory):
    """Return the pages of a run whose texts harm nobody."""
    folder = tmp_path_factory.mktemp("plain")
    return pages(folder, write_run(folder / "plain", lambda n: f"word {n}"))


@fuzzed(EXAMPLES // 4)
@hypothesis.given(texts=st.lists(WHOLE, min_size=47, max_size=47))
def test_the_report_is_inert(texts, harmless, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    # A number behind each text keeps names that must differ apart.
    own = write_run(folder / "own", lambda n: f"{texts[n]} {n}")
    made = pages(folder, own)
    for page, right in zip(made, harmless, strict=True):
        assert page.parts == right.parts
        assert all(target.startswith("#") for _, target in page.loads)
    whole = [well(one) for data in made[0].data for one in texts_in(data)]
    for n in (26, 27, 28):
        assert well(f"{texts[n]} {n}") in whole
    shutil.rmtree(folder)


@pytest.mark.skipif(not shutil.which("chromium"), reason="there is no chromium")
def test_a_browser_runs_nothing_of_what_the_pages_hold(tmp_path):
    """Once for real: all pieces at once in a page that a browser loads."""
    says = "window.document.title='ran'"
    trap = well("".join(piece.replace("alert(1)", says) for piece in PIECES))
    trap += f"</script><script>{says}</script><img src=x onerror={says}>"
    run = write_run(tmp_path / "run", lambda n: f"{trap} {n}")
    page = report.write_report(run)
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    flags += [
        "--virtual-time-budget=2000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    made = subprocess.run(
        ["chromium", *flags, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    title = re.search(r"<title>(.*?)</title>", made.stdout, re.DOTALL)
    assert title and title[1] != "ran", made.stderr[-500:]
    assert "<img" not in made.stdout
