"""Drives an annotator's page in Chromium."""

import json
import os
import pathlib
import shutil
import time

import chromium
import pytest
from made_study import items_of, page_of, write_study

from rlcd_jax.human import reading

pytestmark = pytest.mark.skipif(
    not chromium.FOUND, reason="the page needs a browser: install chromium"
)
ENTER, LEFT, RIGHT = "Enter", "ArrowLeft", "ArrowRight"
PATIENCE = 20.0  # seconds
PICTURES = os.environ.get("HUMAN_PAGE_PICTURES")  # folder for screenshots to look at


class Page(chromium.Tab):
    """A page of an annotator in the one browser of these tests."""

    def visible(self):
        """Return the ids of the views on show."""
        return self.run("return [...document.querySelectorAll('main, footer')].filter((e) => !e.hidden).map((e) => e.id)")  # fmt: skip

    def photograph(self, name, width, height=900):
        if PICTURES:
            for dark in (False, True):
                self.look(width=width, height=height, dark=dark)
                shown = "dark" if dark else "light"
                self.picture(pathlib.Path(PICTURES, f"{name}-{width}-{shown}.png"), whole=False)  # fmt: skip
            self.look(width=1200)


def wait_for(condition):
    """Return what `condition` returns once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium.running(tmp_path_factory.mktemp("chromium")) as one:
        yield one


@pytest.fixture
def page(browser, tmp_path):
    made = Page(browser, tmp_path / "downloads")
    made.look(width=1200)
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    return write_study(tmp_path / "study")


def test_page_shows_items_resumes_and_saves_answers(page, folder, tmp_path):
    items = items_of(folder)
    page.open(page_of(folder))
    assert page.visible() == ["intro"]
    assert "cheerful mood?" in page.text(".question")
    assert "Answer (A)" not in page.text("body")
    page.photograph("intro", 1400)
    page.photograph("intro", 420)
    page.click("#start")
    given = {}
    for n, item in enumerate(items):
        assert page.visible() == ["task", "scale"]
        assert page.text("#place") == f"Pair {n + 1} of {len(items)}"
        for side in "ab":
            shown = page.run(f"return document.querySelector('#reply-{side}').textContent")  # fmt: skip
            assert shown == item[f"reply_{side}"] or (shown == "(empty reply)" and not item[f"reply_{side}"])  # fmt: skip
        given[item["item"]] = rating = n % 8 + 1
        if n % 2:
            page.press(str(rating), ENTER)
        else:
            page.click(f"#values button[value='{rating}']")
            if n in (1, 2, 4):
                page.photograph(f"pair-{n}", 1400)
                page.photograph(f"pair-{n}", 420)
            assert page.text("#chosen").startswith("A is" if rating <= 4 else "B is")
            page.click("#next")
        if n == 5:  # the page is closed and opened again
            page.open(pathlib.Path(__file__))
            page.open(page_of(folder))
            # A page may be there before what the one before it has stored.
            wait_for(lambda: page.text("#place") != f"{len(items)} pairs")
            assert page.text("#place") == f"Pair 7 of {len(items)}"
            assert page.text("#count") == "6 answered"
    assert page.visible() == ["end"]
    page.photograph("end", 1400)
    page.photograph("end", 420)
    assert not page.run("return window.trapped")
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    page.click("#save-csv")
    page.click("#save-json")
    names = {f"answers-annotator-1.{ending}" for ending in ("csv", "json")}
    place = tmp_path / "downloads"
    wait_for(lambda: place.exists() and {p.name for p in place.iterdir()} == names)
    for ending in ("csv", "json"):
        answers = folder / "answers"
        shutil.rmtree(answers)
        answers.mkdir()
        shutil.copy(place / f"answers-annotator-1.{ending}", answers)
        made, judgments = reading.read_study(folder)
        assert {j.item: j.rating for j in judgments} == given
        assert all(0 <= j.seconds < 60 for j in judgments)
        assert sum(j.seconds for j in judgments) > 0


def test_page_goes_back_changes_and_finds_what_is_unanswered(page, folder):
    page.open(page_of(folder))
    page.press(ENTER, "3", RIGHT, RIGHT, "8", "x", "0", "9")
    assert page.text("#place").startswith("Pair 3")
    assert page.text("#chosen") == "B is much better"
    assert page.run("return document.querySelectorAll('[aria-pressed=true]').length") == 1  # fmt: skip
    page.press(LEFT)
    assert page.text("#chosen") == "" and page.text("#next") == "Skip for now"
    page.click("#back")
    assert page.text("#chosen") == "A is somewhat better"
    page.press("6")
    assert page.text("#chosen") == "B is somewhat better"
    page.press(*[RIGHT] * 20)
    assert page.visible() == ["end"]
    assert page.text("#end-text") == "10 pairs have no answer yet."
    page.photograph("unfinished", 1400)
    page.click("#unanswered")
    assert page.text("#place").startswith("Pair 2")
    stored = page.run("return Object.values(localStorage)[0]")
    assert sorted(json.loads(stored)["answers"].values()) == [6, 8]


def test_page_takes_answers_that_the_browser_shows_it_late(page, folder):
    page.open(page_of(folder))
    page.press(ENTER, "3", RIGHT, "8")
    name = page.run("return Object.keys(localStorage)[0]")
    stored = page.run("return localStorage.getItem(arguments[0])", name)
    page.run("localStorage.clear()")  # as it is for a page that comes too early
    page.command("Page.addScriptToEvaluateOnNewDocument", source="localStorage.clear()")
    page.open(page_of(folder))
    assert page.visible() == ["intro"]
    page.run("document.dispatchEvent(new Event('visibilitychange'))")
    assert page.run("return localStorage.length") == 0  # nothing replaces what is there
    page.run(
        "localStorage.setItem(...arguments); const [key, newValue] = arguments;"
        "window.dispatchEvent(new StorageEvent('storage', {key, newValue}))",
        name,
        stored,
    )
    assert page.text("#place").startswith("Pair 2")
    assert page.text("#count") == "2 answered"
    page.press(RIGHT, "5")
    kept = page.run("return localStorage.getItem(arguments[0])", name)
    assert sorted(json.loads(kept)["answers"].values()) == [3, 5, 8]


def test_page_enter_after_a_click_goes_on_once(page, folder):
    page.open(page_of(folder))
    page.click("#start")
    page.click("#values button[value='2']")
    page.press(ENTER)
    assert page.text("#place").startswith("Pair 2")
    page.click("#back")
    page.press(ENTER)  # the focus is on "Back"
    assert page.visible() == ["intro"]


def test_page_deletes_answers_only_when_asked_twice(page, folder):
    page.open(page_of(folder))
    page.press(ENTER, "3", *[RIGHT] * 20)
    page.browser.accepts = False
    page.click("#clear")
    assert page.text("#count") == "1 answered"
    page.browser.accepts = True
    page.click("#clear")
    assert page.text("#count") == "0 answered"
    assert page.visible() == ["intro"]
    assert page.run("return localStorage.length") == 0


def test_page_warns_when_the_browser_keeps_nothing(page, folder):
    script = "Storage.prototype.setItem = () => { throw new Error('full'); };"
    page.command("Page.addScriptToEvaluateOnNewDocument", source=script)
    page.open(page_of(folder))
    assert "Save a copy" in page.text("#warning")
    page.press(ENTER, "5")
    assert page.text("#chosen") == "B is slightly better"
    page.photograph("warning", 420)


def test_page_fits_a_narrow_screen(page, folder):
    page.look(width=420, height=800)
    page.open(page_of(folder))
    page.press(ENTER)
    for _ in items_of(folder):
        assert page.run("return document.documentElement.scrollWidth") <= 420
        widths = page.run("return [...document.querySelectorAll('#values button')].map((b) => b.getBoundingClientRect().width)")  # fmt: skip
        assert len(widths) == 8 and min(widths) >= 36
        page.press(RIGHT)
