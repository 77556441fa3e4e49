"""Our pages as a browser shows them: both grounds, wide and narrow, and by keyboard.

One browser for all pages. What axe calls serious or critical is refused.
"""

import importlib.util
import json
import pathlib

import chromium
import pytest
from made_run import make_run
from made_study import page_of, write_study

from rlcd_jax import diagnosis, record_files, report
from rlcd_jax.report import panels, plots, reading
from rlcd_jax.statistics import estimates, tables

WIDE, NARROW = 1400, 390
MOST_BYTES = 1_000_000  # of a page
PAGES = ("report", "compare", "tables", "rating")
REFUSED = ("serious", "critical")

pytestmark = pytest.mark.skipif(
    not chromium.FOUND, reason="pages are looked at in a browser: install chromium"
)


def axe() -> str:
    """Return the script of axe-core, of the extra `test`."""
    found = importlib.util.find_spec("axe_core_python")
    return pathlib.Path(found.origin).with_name("axe.min.js").read_text("utf-8")


def write_contrast(run: pathlib.Path) -> None:
    """Write the affix table of a diagnosis, as wide as real ones are."""
    columns = tuple(tables.Column(f"figure {n}, %", 1, True) for n in range(14))
    columns += (tables.Column("lexicon difference", 3),)
    cell = estimates.Estimate(0.5, 0.4, 0.6, 0.95, 40)
    rows = tuple((f"{n}: bright / pale", (cell,) * len(columns)) for n in range(5))
    table = tables.Table("Affix pairs", "affix pair", columns, rows)
    path = run / diagnosis.FOLDER / f"{diagnosis.AFFIXES}.json"
    record_files.write_json(path, {"tables": [tables.as_json(table)]})


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Write one page of each kind and return them by name."""
    folder = tmp_path_factory.mktemp("pages")
    one, other = (make_run(folder / n, shift=k) for k, n in enumerate("ab"))
    write_contrast(one)
    third = make_run(folder / "c")
    config = json.loads((third / "config.json").read_text())
    (third / "config.json").write_text(json.dumps(config | {"seed": 43}))
    lines = [panels.Line(name, [1, 2], [1.0, 2.0]) for name in ("rlcd", "rlaif")]
    drawn = plots.sheet("PPO", [panels.Panel(f"{n}", lines) for n in range(6)])
    write_study(folder / "study")
    return {
        "report": report.write_report(one),
        "compare": report.write_comparison([one, third, other], folder / "c.html"),
        "tables": report.write_tables(
            folder / "tables.html",
            {"All": reading.read_tables(one / diagnosis.FOLDER, diagnosis.AFFIXES)},
            title="Tables",
            figures={"All": [str(drawn)]},
        ),
        "rating": page_of(folder / "study"),
    }


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium.running(tmp_path_factory.mktemp("chromium")) as browser:
        yield chromium.Tab(browser)


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious_and_nothing_is_cut(tab, pages, name):
    """On light and dark ground, wide and narrow; with the rating page's task open."""
    script = axe()
    for width, dark in ((WIDE, False), (NARROW, True)):
        tab.look(width=width, dark=dark)
        tab.open(pages[name])
        if name == "rating":
            tab.click("#start")
        assert tab.run("return document.documentElement.scrollWidth") <= width
        tab.run(f"{script}; return 1")
        found = tab.run(
            "return axe.run(document, {resultTypes: ['violations']}).then((all) =>"
            "  all.violations.map((v) => [v.impact, v.id, v.nodes[0].html]))"
        )
        assert not [one for one in found if one[0] in REFUSED], (width, dark)
    ground = tab.run("return getComputedStyle(document.body).backgroundColor")
    assert max(map(int, ground[4:-1].split(", "))) < 64, "it is dark"
    assert pages[name].stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", ("report", "compare", "tables"))
def test_tables_scroll_in_boxes_that_the_keyboard_reaches(tab, pages, name):
    tab.look(width=NARROW)
    tab.open(pages[name])
    boxes = tab.run(
        "return [...document.querySelectorAll('.box')].map((e) =>"
        "  [e.scrollWidth > e.clientWidth, e.tabIndex, e.getAttribute('aria-label')])"
    )
    assert any(scrolls for scrolls, *_ in boxes)
    assert all(index == 0 and label for _, index, label in boxes)
    assert tab.run(
        "return [...document.querySelectorAll('table')].every((e) => e.closest('.box')"
        "  || e.closest('details'))"
    )


def test_the_report_is_used_by_keyboard_alone(tab, pages):
    tab.look(width=WIDE)
    tab.open(pages["report"])
    focus = "const e = document.activeElement; return e.textContent || e.className"
    tab.press("Tab")
    assert tab.run(focus) == "Results"
    tab.press("Enter")
    assert tab.run("return location.hash") == "#results"
    tab.run("document.querySelectorAll('#pairs button')[1].focus()")
    tab.press("Enter")
    chosen = tab.run(
        "return document.querySelector('#pairs [aria-pressed=true]').textContent"
    )
    assert chosen.startswith("least certain")
    # What is sampled from a negative prompt stays folded until it is asked for.
    assert not tab.run(
        "return document.querySelectorAll('#pairs details[open]').length"
    )


def test_a_run_has_one_colour_everywhere(tab, pages):
    tab.look(width=WIDE)
    tab.open(pages["compare"])
    by_run = tab.run(
        "return [...document.querySelectorAll('span.run')].map((e) =>"
        "  [e.textContent, getComputedStyle(e.firstElementChild).color])"
    )
    colours = {label: {c for name, c in by_run if name == label} for label, _ in by_run}
    assert colours.keys() >= {"A", "A1", "A2", "B"}
    assert all(len(own) == 1 for own in colours.values())
    assert colours["A1"] == colours["A2"] == colours["A"] != colours["B"]
    drawn = tab.run(
        "return [...document.querySelectorAll('svg [class^=k]')].map((e) =>"
        "  getComputedStyle(e).color)"
    )
    assert set(drawn) == colours["A"] | colours["B"]
