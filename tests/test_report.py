"""Tests of rlcd_jax.report and experiments.report on a run made by hand."""

import html.parser
import json
import re

import pytest
from made_run import FOLDED_WORD, make_pair, make_run, metric_rows

from configs import rlcd
from experiments import command
from experiments import report as report_command
from rlcd_jax import record_files, report
from rlcd_jax.report import curves, panels, plots, reading, run_preset, sections
from rlcd_jax.statistics import estimates, tables


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "rlcd")


@pytest.fixture(scope="module")
def whole_page(whole_run):
    preset = rlcd.get_config("task=cheerful,size=quick").to_dict()
    return report.write_report(whole_run, preset=preset).read_text()


class Reader(html.parser.HTMLParser):
    """Collects what a browser would show, load and fold."""

    VOID = ("meta", "br", "link", "img", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.data, self.unbalanced = (
            [],
            [],
            [],
            [],
            [],
        )
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.data.append(data)
        elif self.open and self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    @property
    def browsers(self):
        return [json.loads(data) for data in self.data if data.startswith("{")]


# --- the page of a whole run ------------------------------------------------


def test_write_report_has_every_part(whole_page):
    page = Reader(whole_page)
    for heading in ("Results", "What ran", "Curves", "Samples", "Preference pairs",
                    "Configuration", "Cost", "Environment"):  # fmt: skip
        assert heading in page.text
    assert "0.660 [0.590, 0.730]" in page.text
    assert "missing: the base model itself" in page.text
    assert re.search(r"policy\.steps 6 40", page.text)
    assert "Preference accuracy 80.0 % [70.0, 87.3] n = 80 held-out pairs" in page.text
    assert "Yes: rlcd is better than the base model." in page.text
    assert "KL from base, nats a reply 6.60 [6.00, 7.20] n = 48 prompts" in page.text
    assert "6 min 52 s" in page.text  # seconds of simulate
    assert "generate 2 min 48 s" in page.text  # 40 steps of 4.2 s
    assert [len(b["views"]) for b in page.browsers] == [3, 1, 1, 1]
    assert not re.search(r"Missing: (?!preference|distill|diagnostics)", page.text)
    assert "Over-optimisation watch No warning." in page.text
    assert "Judged by people" not in page.text
    for curve in ("Reward", "KL to the reference", "Length", "Entropy", "Distinct-2"):
        assert whole_page.count(f'aria-label="{curve}: ') == 1


def test_write_report_is_well_formed_and_loads_nothing(whole_page):
    page = Reader(whole_page)
    assert not page.unbalanced and not page.open
    assert {"script", "style", "svg", "table", "details"} <= {
        tag for tag, _ in page.tags
    }
    for tag, attributes in page.tags:
        assert tag not in ("link", "img", "iframe", "object")
        assert "src" not in attributes
        for name, value in attributes.items():
            if name.endswith("href"):
                assert value.startswith("#"), (tag, value)
    assert "url(http" not in whole_page and "@import" not in whole_page


def test_write_report_ids_are_unique_and_references_resolve(whole_page):
    ids = re.findall(r'\bid="([^"]+)"', whole_page)
    assert len(ids) == len(set(ids))
    references = re.findall(r'(?:href="#|url\(#)([^")]+)', whole_page)
    assert set(references) <= set(ids)


def test_write_report_is_the_same_file_again(whole_run, whole_page):
    preset = rlcd.get_config("task=cheerful,size=quick").to_dict()
    assert report.write_report(whole_run, preset=preset).read_text() == whole_page


def test_write_report_shows_negative_texts_only_folded(whole_page):
    page = Reader(whole_page)
    assert FOLDED_WORD not in page.text
    seen = 0
    for browser in page.browsers:
        for view in browser["views"]:
            for row in view["rows"]:
                assert FOLDED_WORD not in row["prompt"] + " ".join(row["facts"])
                for part in row["cells"] + row["more"]:
                    seen += FOLDED_WORD in part["text"]
                    assert part["fold"] or FOLDED_WORD not in part["text"]
    assert seen


def test_write_report_escapes_what_models_wrote(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> &"
    run = make_run(tmp_path / "run", pairs=1)
    record_files.write_jsonl(run / "pairs/pairs.jsonl", [make_pair(0, reply_1=evil)])
    config = json.loads((run / "config.json").read_text())
    config["task"] = config["model"]["spec"] = evil + " \ud800"  # half a surrogate pair
    (run / "config.json").write_text(json.dumps(config))
    rows = [
        {"stage": "policy", "step": n, "wall_time": 1.0, "a$b/<b>x": 1.0 * n}
        for n in range(3)
    ]
    record_files.write_jsonl(run / "metrics.jsonl", rows)
    text = report.write_report(run).read_text()
    page = Reader(text)
    assert not page.unbalanced
    assert "img" not in {tag for tag, _ in page.tags}
    assert sum(tag == "script" for tag, _ in page.tags) == 5  # four browsers and ours
    assert page.browsers[0]["views"][0]["rows"][0]["cells"][0]["text"] == evil
    assert "a$b/<b>x" in page.text


MOST_BYTES = 1_000_000


def test_the_report_of_a_long_run_stays_small(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    names = [f"more/metric_{n}" for n in range(curves.MAX_OTHERS)]
    rows = [
        {"stage": stage, "step": step, "wall_time": 1.0}
        | {name: ((step * 7919 + place) % 997) / 3 for place, name in enumerate(names)}
        for stage in ("preference", "policy")
        for step in range(1, 401)
    ]
    record_files.write_jsonl(run / "metrics.jsonl", rows)
    text = "On and on and on it went, line after line after line. " * 200
    samples = [
        {"prompt_id": f"p{n}", "prompt": text, "reply": text, "system": system}
        for n in range(50)
        for system in ("base", "rlcd")
    ]
    record_files.write_jsonl(run / "evaluate/samples.jsonl", samples)
    record_files.write_jsonl(run / "policy/samples/000001.jsonl", samples)
    assert report.write_report(run).stat().st_size < MOST_BYTES


# --- parts that are missing -------------------------------------------------


def test_write_report_names_all_that_is_missing(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    page = Reader(report.write_report(tmp_path).read_text())
    for name in ("environment.json", "metrics.jsonl", "pairs/pairs.jsonl",
                 "pairs/summary.json", "evaluate/table.json", "evaluate/samples.jsonl",
                 "policy/samples"):  # fmt: skip
        assert f"Missing: {name} is not there." in page.text
    assert "no preset was given" in page.text
    assert "no stage has left its time" in page.text
    assert not page.browsers


def test_write_report_refuses_a_folder_without_a_run(tmp_path):
    with pytest.raises(ValueError, match="holds nothing of a run.*config.json"):
        report.write_report(tmp_path)
    assert not list(tmp_path.iterdir())


def test_write_report_names_a_broken_file_and_goes_on(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    (run / "pairs/pairs.jsonl").write_text('{"id": 3}\n{}\n')
    (run / "evaluate/table.json").write_text("[]")
    (run / "evaluate/samples.jsonl").write_text('{"prompt_id": "a"}\n')
    page = Reader(report.write_report(run).read_text())
    assert "pairs/pairs.jsonl cannot be read: pairs/pairs.jsonl:1:" in page.text
    assert "evaluate/table.json cannot be read: no table" in page.text
    assert "row 1 has no field 'prompt'" in page.text
    assert str(tmp_path) not in page.text.replace(str(run), "", 2)
    assert "clip" in "".join(page.texts).lower()  # the curves are there


def test_write_report_reads_a_run_that_goes_on(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    (run / "policy/DONE").unlink()
    (run / "policy/summary.json").unlink()
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"stage": "policy", "st')
    found = reading.read_run(run)
    assert found.stage("policy").state == "begun"
    assert found.stage("distill").state == "not part of this run"
    assert found.stage("evaluate").state == "finished"
    assert len(found.metrics) == len(metric_rows(0))


# --- people, and tables alone -----------------------------------------------


def make_study(folder):
    """Write the results of a study as ``experiments.human read`` leaves them."""
    rating = estimates.Estimate(6.5, 6.15, 6.85, 0.95, 20, 0.001)
    columns = (tables.Column("Rating"), tables.Column("rlcd"))
    row = ("rlcd vs base", ("6.50 / 2.50 [6.15, 6.85]", rating))
    for stem in ("table", "annotators"):
        caption = f"Made {stem} <of> people"
        table = tables.Table(caption, "Comparison", columns, (row,))
        tables.write_table(table, folder / "results", stem)
    return folder


def test_write_report_shows_studies_and_names_those_it_cannot_read(tmp_path):
    run = make_run(tmp_path / "run", pairs=3)
    study = make_study(tmp_path / "study")
    path = report.write_report(run, studies=[study, tmp_path / "nowhere"])
    page = Reader(path.read_text())
    assert not page.unbalanced
    assert "Judged by people" in page.text and "Made table <of> people" in page.text
    assert "6.50 [6.15, 6.85] p = 0.001" in page.text
    assert f"Missing: the folder {tmp_path / 'nowhere'} is not there." in page.text


def test_write_tables_shows_tables_and_what_is_missing(tmp_path):
    make_study(tmp_path)
    found = {
        "Table 2": reading.read_tables(tmp_path / "results", "table"),
        "Table 3": reading.read_tables(tmp_path / "results", "table_3"),
    }
    drawn = plots.sheet("Curves", [panels.Panel("x", [panels.Line("a", [1], [2])])])
    path = report.write_tables(
        tmp_path / report.TABLES_NAME,
        found,
        title="All <of> it",
        figures={"Table 2": [str(drawn)]},
    )
    page = Reader(path.read_text())
    assert not page.unbalanced and "All <of> it" in page.text
    assert "6.50 [6.15, 6.85]" in page.text
    assert "Missing: table_3.json is not there." in page.text
    assert path.read_text().count('aria-label="Curves"') == 1
    targets = [a["href"][1:] for tag, a in page.tags if tag == "a"]
    assert targets == [a["id"] for tag, a in page.tags if tag == "section"]
    assert not {"script", "link", "img"} & {tag for tag, _ in page.tags}


# --- two runs ---------------------------------------------------------------


def test_write_comparison_shows_both_runs(whole_run, tmp_path):
    other = make_run(tmp_path / "other", shift=1)
    path = report.write_comparison([whole_run, other], tmp_path / "compare.html")
    page = Reader(path.read_text())
    assert not page.unbalanced
    assert "0.660 [0.590, 0.730]" in page.text and "0.710 [0.640, 0.780]" in page.text
    assert re.search(r"policy\.kl_coef 0\.02 0\.04", page.text)
    assert "rlcd · A" in page.text and "rlcd · B" in page.text  # labels of the dots
    assert "Over-optimisation watch No warning." in page.text
    (browser,) = page.browsers
    heads = [cell["head"] for cell in browser["views"][0]["rows"][0]["cells"]]
    assert heads == [
        "A · base",
        "A · distill",
        "A · rlcd",
        "B · base",
        "B · distill",
        "B · rlcd",
    ]


def test_write_comparison_with_a_run_that_has_only_a_config(whole_run, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_text("{}")
    path = report.write_comparison(
        [whole_run, tmp_path / "bare"], tmp_path / "compare.html"
    )
    page = Reader(path.read_text())
    assert "Missing: B: metrics.jsonl is not there." in page.text
    assert "B: Not recorded" not in page.text and "A : Held-out judge" in page.text
    assert "Missing: B: evaluate/table.json is not there." in page.text
    assert "0.660 [0.590, 0.730]" in page.text


# --- the command ------------------------------------------------------------


def test_command_finds_the_preset_and_shows_what_was_changed(whole_run, capsys):
    report_command.main(["--workdir", str(whole_run)])
    assert capsys.readouterr().out.strip() == str(whole_run / "report.html")
    preset = run_preset.find(whole_run, command.method_config)
    found = sections.changes(reading.read_run(whole_run), preset)
    assert [row[0] for row in found] == ["policy.steps"]


def test_command_compares(whole_run, tmp_path, capsys):
    report_command.main(
        ["--workdir", str(tmp_path), "--compare", str(whole_run), str(whole_run)]
    )
    path = tmp_path / "compare.html"
    assert capsys.readouterr().out.strip() == str(path) and path.exists()


def test_command_takes_studies_for_one_run_alone(whole_run, tmp_path, capsys):
    run = make_run(tmp_path / "run", pairs=3)
    study = make_study(tmp_path / "study")
    report_command.main(["--workdir", str(run), "--studies", str(study)])
    assert "Made table" in (run / "report.html").read_text()
    args = ["--workdir", str(tmp_path), "--compare", str(run), str(run)]
    with pytest.raises(SystemExit):
        report_command.main([*args, "--studies", str(study)])
    assert "leave out --compare" in capsys.readouterr().err


def test_command_refuses_an_empty_folder(tmp_path):
    with pytest.raises(SystemExit):
        report_command.main(["--workdir", str(tmp_path)])


def test_page_counts_what_was_too_long(whole_page, whole_run):
    (row,) = sections.too_long(reading.read_run(whole_run))
    stage, what, counts = row
    assert (stage, what) == ("simulate", "prompts") and counts[1:] == [3, 0, 0]
    shown = " ".join(" ".join(Reader(whole_page).texts).split())
    told = shown.partition("Texts that were too long")[2]
    assert (
        told.split()[:12]
        == (
            f"stage texts of dropped shortened identical simulate prompts {counts[0]} 3 0 0"
        ).split()
    )
