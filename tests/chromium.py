"""One headless Chromium, spoken to over a pipe by the DevTools protocol.

Nothing but Debian's package `chromium` is needed: no driver, and no port.
"""

import base64
import collections
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from typing import Any

FOUND = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --hide-scrollbars "
    "--disable-extensions --disable-dev-shm-usage --remote-debugging-pipe"
)
PATIENCE = 60.0  # seconds; a machine may be busy
KEYS = {
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "ArrowLeft": {"code": "ArrowLeft", "windowsVirtualKeyCode": 37},
    "ArrowRight": {"code": "ArrowRight", "windowsVirtualKeyCode": 39},
}


class Browser:
    """A running Chromium; `tab` opens pages in it."""

    def __init__(self, profile: pathlib.Path) -> None:
        theirs_in, self._write = os.pipe()
        self._read, theirs_out = os.pipe()
        # The browser speaks on descriptors 3 and 4.
        start = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, FOUND, *FLAGS.split(), f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._left = b""
        self._count = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: dict[str, collections.Counter] = {}
        self.accepts = True  # what a dialogue of a page is answered with

    def command(self, name: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and return its result."""
        self._count += 1
        asked = self._send(self._count, name, session, params)
        end = time.monotonic() + PATIENCE
        while asked not in self._answers:
            assert time.monotonic() < end, f"no answer to {name}"
            self._listen()
        answer = self._answers.pop(asked)
        assert "error" not in answer, (name, answer["error"])
        return answer["result"]

    def wait(self, session: str, event: str, count: int) -> None:
        """Return when an event has come to a page so often."""
        end = time.monotonic() + PATIENCE
        while self.seen(session, event) < count:
            assert time.monotonic() < end, f"no {event}"
            self._listen()

    def seen(self, session: str, event: str) -> int:
        """Return how often an event has come to a page."""
        return self._events.get(session, {}).get(event, 0)

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(OSError):
            self._send(0, "Browser.close", "", {})
        self._process.wait(PATIENCE)
        os.close(self._read)
        os.close(self._write)

    def _send(self, number: int, name: str, session: str, params: dict) -> int:
        message = {"id": number, "method": name, "params": params}
        message |= {"sessionId": session} if session else {}
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        return number

    def _listen(self) -> None:
        """Take in what the browser says within a moment."""
        ready, _, _ = select.select([self._read], [], [], 0.5)
        if not ready:
            return
        said = os.read(self._read, 1 << 20)
        assert said, "the browser has ended"
        *whole, self._left = (self._left + said).split(b"\0")
        for message in map(json.loads, whole):
            session = message.get("sessionId", "")
            if "id" in message:
                self._answers[message["id"]] = message
                continue
            self._events.setdefault(session, collections.Counter())[
                message["method"]
            ] += 1
            if message["method"] == "Page.javascriptDialogOpening":
                accept = {"accept": self.accepts}
                self._send(0, "Page.handleJavaScriptDialog", session, accept)


class Tab:
    """One page, with a storage of its own."""

    def __init__(self, browser: Browser, downloads: pathlib.Path | None = None) -> None:
        self.browser = browser
        made = browser.command("Target.createBrowserContext", disposeOnDetach=True)
        self._context = made["browserContextId"]
        made = browser.command(
            "Target.createTarget", url="about:blank", browserContextId=self._context
        )
        attached = browser.command(
            "Target.attachToTarget", targetId=made["targetId"], flatten=True
        )
        self._session = attached["sessionId"]
        self.command("Page.enable")
        if downloads:
            browser.command(
                "Browser.setDownloadBehavior",
                behavior="allow",
                downloadPath=str(downloads),
                browserContextId=self._context,
            )

    def command(self, name: str, **params: Any) -> dict[str, Any]:
        """Send a command about this page."""
        return self.browser.command(name, self._session, **params)

    def open(self, path: pathlib.Path) -> None:
        """Load a file."""
        loaded = self.browser.seen(self._session, "Page.loadEventFired")
        self.command("Page.navigate", url=path.as_uri())
        self.browser.wait(self._session, "Page.loadEventFired", loaded + 1)

    def look(self, *, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the size of the screen and which colours its owner prefers."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])

    def run(self, script: str, *args: Any) -> Any:
        """Return what the body of a function returns, or what it promises."""
        given = json.dumps(args)
        made = self.command(
            "Runtime.evaluate",
            expression=f"(function () {{ {script} }}).apply(null, {given})",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in made, made["exceptionDetails"]
        return made["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text that is shown of an element."""
        return self.run(
            "return document.querySelector(arguments[0]).innerText", selector
        )

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element."""
        script = """const e = document.querySelector(arguments[0]);
            e.scrollIntoView({block: "center", behavior: "instant"});
            const r = e.getBoundingClientRect();
            return [r.x + r.width / 2, r.y + r.height / 2];"""
        x, y = self.run(script, selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.command(
                "Input.dispatchMouseEvent",
                type=kind, x=x, y=y, button="left", clickCount=1,
            )  # fmt: skip

    def press(self, *keys: str) -> None:
        """Press keys, one after the other: letters, or names of `KEYS`."""
        for key in keys:
            more = KEYS.get(key) or {"text": key, "code": f"Digit{key}"}
            self.command("Input.dispatchKeyEvent", type="keyDown", key=key, **more)
            more = {name: value for name, value in more.items() if name != "text"}
            self.command("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def picture(self, path: pathlib.Path, *, whole: bool = True) -> None:
        """Write a PNG of the page, or of what is in sight of it."""
        made = self.command(
            "Page.captureScreenshot", format="png", captureBeyondViewport=whole
        )
        path.write_bytes(base64.b64decode(made["data"]))

    def close(self) -> None:
        """Close the page and forget what it stored."""
        self.browser.command(
            "Target.disposeBrowserContext", browserContextId=self._context
        )


@contextlib.contextmanager
def running(profile: pathlib.Path) -> Iterator[Browser]:
    """Run a browser as long as it is needed."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
