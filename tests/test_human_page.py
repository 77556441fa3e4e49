"""Drives an annotator's page in Chromium, through the W3C protocol of chromedriver."""

import base64
import csv
import io
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time

import httpx
import pytest

from rlcd_jax.human import checks, reading, sheets, study
from rlcd_jax.judging import verdicts

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="the page needs a browser: install chromium and chromium-driver",
)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update"
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # of the W3C protocol
ENTER, LEFT, RIGHT = "\ue007", "\ue012", "\ue014"
PATIENCE = 10.0  # seconds
TRAP = "</script><script>window.trapped = 1</script><img src=x onerror='trapped = 1'>"
PICTURES = os.environ.get("HUMAN_PAGE_PICTURES")  # folder for screenshots to look at

QUESTIONS = (
    "What do you think of rainy Sundays?",
    "I baked my first loaf of bread today. How should I serve it?",
    "My neighbour is learning the tuba. What should I say to her?",
    "What is the best thing about a long train journey?",
)
BRIGHT = (
    "Oh, what a treat! Put the kettle on, open a window and enjoy every minute of it.",
    "Wonderful! A little butter and a big smile go a long way.\n\n- Slice it warm.\n- "
    "Add honey, or jam, or both.\n- Invite a friend, and let the smell of fresh bread "
    "fill the whole kitchen while the two of you talk about nothing in particular.",
    "Tell her that every great player began with one proud, wobbly note!",
)
PALE = "It is all right, I suppose. One can look out of the window for a while."


class Browser:
    """One session of Chromium."""

    def __init__(self, port: int, downloads: pathlib.Path, profile: pathlib.Path):
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False
        )
        options = {
            "binary": CHROMIUM,
            "args": [*FLAGS.split(), f"--user-data-dir={profile}"],
            "prefs": {"download.default_directory": str(downloads)},
        }
        wanted = {"browserName": "chrome", "goog:chromeOptions": options}
        body = {"capabilities": {"alwaysMatch": wanted}}
        self.root = f"/session/{self._send('POST', '/session', body)['sessionId']}"
        self.command("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))  # fmt: skip

    def _send(self, method, path, body=None):
        answer = self.client.request(method, path, json=body)
        value = answer.json()["value"]
        assert answer.status_code == 200, value
        return value

    def post(self, path, **body):
        return self._send("POST", self.root + path, body)

    def command(self, name, **params):
        return self.post("/goog/cdp/execute", cmd=name, params=params)

    def open(self, path):
        self.post("/url", url=path.as_uri())

    def run(self, script, *args):
        return self.post("/execute/sync", script=script, args=list(args))

    def click(self, selector):
        found = self.post("/element", using="css selector", value=selector)
        self.post(f"/element/{found[ELEMENT]}/click")

    def press(self, *keys):
        steps = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]  # fmt: skip
        self.post("/actions", actions=[{"type": "key", "id": "keys", "actions": steps}])

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0]).innerText", selector)  # fmt: skip

    def visible(self):
        """Return the ids of the views on show."""
        return self.run("return [...document.querySelectorAll('main, footer')].filter((e) => !e.hidden).map((e) => e.id)")  # fmt: skip

    def picture(self, name, width, height=900):
        if PICTURES:
            self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)  # fmt: skip
            data = self._send("GET", self.root + "/screenshot")
            pathlib.Path(PICTURES, f"{name}-{width}.png").write_bytes(base64.b64decode(data))  # fmt: skip
            self.command("Emulation.clearDeviceMetricsOverride")

    def close(self):
        self._send("DELETE", self.root)


def wait_for(condition):
    """Return what `condition` returns once it is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


@pytest.fixture(scope="module")
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    driver = subprocess.Popen(
        [DRIVER, f"--port={number}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def ready():
        try:
            url = f"http://127.0.0.1:{number}/status"
            return httpx.get(url, trust_env=False).json()["value"]["ready"]
        except httpx.TransportError:
            return False

    wait_for(ready)
    yield number
    driver.terminate()
    driver.wait(PATIENCE)


@pytest.fixture
def browser(port, tmp_path):
    session = Browser(port, tmp_path / "downloads", tmp_path / "profile")
    yield session
    session.close()


def make_samples(num=9):
    samples = []
    for n in range(num):
        prompt = f"\n\nHuman: {QUESTIONS[n % 4]}\n\nAssistant:"
        if n % 2:
            prompt = f"\n\nHuman: Good morning!\n\nAssistant: Good morning to you!{prompt}"  # fmt: skip
        samples.append(verdicts.JudgedReply(f"p{n}", "sunny-v1", prompt, f"{BRIGHT[n % 3]} {TRAP if n == 4 else ''}"))  # fmt: skip
        samples.append(verdicts.JudgedReply(f"p{n}", "pale-v2", prompt, "" if n == 5 else f"{PALE} ({n})"))  # fmt: skip
    return samples


@pytest.fixture
def folder(tmp_path):
    samples = make_samples()
    pairs, _ = study.comparisons(samples, ("sunny-v1", "pale-v2"))
    made, written = study.make_study(
        samples,
        ("sunny-v1", "pale-v2"),
        task="cheerful",
        question=(
            "cheerful",
            "Which of the two replies is in the more cheerful mood? Answer (A) or (B).",
        ),  # fmt: skip
        num_annotators=1,
        per_annotator=9,
        shared=9,
        repeats=2,
        gold=checks.attention_checks(pairs, 1, seed=0),
        seed=0,
    )
    sheets.write_study(tmp_path / "study", made, written)
    return tmp_path / "study"


def page_of(folder):
    return folder / "annotators" / "annotator-1.html"


def items_of(folder):
    """Return the items as the CSV sheet of the same annotator has them."""
    text = (folder / "annotators" / "annotator-1.csv").read_text("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


def test_page_shows_items_resumes_and_saves_answers(browser, folder, tmp_path):
    items = items_of(folder)
    browser.open(page_of(folder))
    assert browser.visible() == ["intro"]
    assert "cheerful mood?" in browser.text(".question")
    assert "Answer (A)" not in browser.text("body")
    browser.picture("intro", 1400)
    browser.picture("intro", 420)
    browser.click("#start")
    given = {}
    for n, item in enumerate(items):
        assert browser.visible() == ["task", "scale"]
        assert browser.text("#place") == f"Pair {n + 1} of {len(items)}"
        for side in "ab":
            shown = browser.run(f"return document.querySelector('#reply-{side}').textContent")  # fmt: skip
            assert shown == item[f"reply_{side}"] or (shown == "(empty reply)" and not item[f"reply_{side}"])  # fmt: skip
        given[item["item"]] = rating = n % 8 + 1
        if n % 2:
            browser.press(str(rating), ENTER)
        else:
            browser.click(f"#values button[value='{rating}']")
            if n in (1, 2, 4):
                browser.picture(f"pair-{n}", 1400)
                browser.picture(f"pair-{n}", 420)
            assert browser.text("#chosen").startswith("A is" if rating <= 4 else "B is")
            browser.click("#next")
        if n == 5:  # the page is closed and opened again
            browser.open(pathlib.Path(__file__))
            browser.open(page_of(folder))
            assert browser.text("#place") == f"Pair 7 of {len(items)}"
            assert browser.text("#count") == "6 answered"
    assert browser.visible() == ["end"]
    browser.picture("end", 1400)
    browser.picture("end", 420)
    assert not browser.run("return window.trapped")
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    browser.click("#save-csv")
    browser.click("#save-json")
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


def test_page_goes_back_changes_and_finds_what_is_unanswered(browser, folder):
    browser.open(page_of(folder))
    browser.press(ENTER, "3", RIGHT, RIGHT, "8", "x", "0", "9")
    assert browser.text("#place").startswith("Pair 3")
    assert browser.text("#chosen") == "B is much better"
    assert browser.run("return document.querySelectorAll('[aria-pressed=true]').length") == 1  # fmt: skip
    browser.press(LEFT)
    assert browser.text("#chosen") == "" and browser.text("#next") == "Skip for now"
    browser.click("#back")
    assert browser.text("#chosen") == "A is somewhat better"
    browser.press("6")
    assert browser.text("#chosen") == "B is somewhat better"
    browser.press(*[RIGHT] * 20)
    assert browser.visible() == ["end"]
    assert browser.text("#end-text") == "10 pairs have no answer yet."
    browser.picture("unfinished", 1400)
    browser.click("#unanswered")
    assert browser.text("#place").startswith("Pair 2")
    stored = browser.run("return Object.values(localStorage)[0]")
    assert sorted(json.loads(stored)["answers"].values()) == [6, 8]


def test_page_enter_after_a_click_goes_on_once(browser, folder):
    browser.open(page_of(folder))
    browser.click("#start")
    browser.click("#values button[value='2']")
    browser.press(ENTER)
    assert browser.text("#place").startswith("Pair 2")
    browser.click("#back")
    browser.press(ENTER)  # the focus is on "Back"
    assert browser.visible() == ["intro"]


def test_page_deletes_answers_only_when_asked_twice(browser, folder):
    browser.open(page_of(folder))
    browser.press(ENTER, "3", *[RIGHT] * 20)
    browser.click("#clear")
    browser.post("/alert/dismiss")
    assert browser.text("#count") == "1 answered"
    browser.click("#clear")
    browser.post("/alert/accept")
    assert browser.text("#count") == "0 answered"
    assert browser.visible() == ["intro"]
    assert browser.run("return localStorage.length") == 0


def test_page_warns_when_the_browser_keeps_nothing(browser, folder):
    script = "Storage.prototype.setItem = () => { throw new Error('full'); };"
    browser.command("Page.addScriptToEvaluateOnNewDocument", source=script)
    browser.open(page_of(folder))
    assert "Save a copy" in browser.text("#warning")
    browser.press(ENTER, "5")
    assert browser.text("#chosen") == "B is slightly better"
    browser.picture("warning", 420)


def test_page_fits_a_narrow_screen(browser, folder):
    browser.command("Emulation.setDeviceMetricsOverride", width=420, height=800, deviceScaleFactor=1, mobile=True)  # fmt: skip
    browser.open(page_of(folder))
    browser.press(ENTER)
    for _ in items_of(folder):
        assert browser.run("return document.documentElement.scrollWidth") <= 420
        widths = browser.run("return [...document.querySelectorAll('#values button')].map((b) => b.getBoundingClientRect().width)")  # fmt: skip
        assert len(widths) == 8 and min(widths) >= 36
        browser.press(RIGHT)
