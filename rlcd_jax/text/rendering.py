"""Chat templates are rendered in a process of their own, within bounds.

A template is foreign code. transformers renders it in Jinja's sandbox, which keeps it
from files and from Python, but not from loops in loops or from texts that double: so
it has only so much time and memory here, and its process can be ended. One process
renders for as long as this one lives, and ends with it.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import pathlib
import resource
import signal
import subprocess
import sys
import threading
import types
from collections.abc import Mapping
from typing import Any

SECONDS = 2.0  # of a processor, for one conversation; honest templates take 0.01
MEGABYTES = 512  # beyond those of the process before
MAX_CHARACTERS = 1 << 22  # that are written of a conversation
LONGEST_ERROR = 1000  # characters
_ADDRESSES = pathlib.Path("/proc/self/statm")


class Renderer:
    """Renders in another process, which it starts when it is first asked."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        self._ended: dict[str, str] = {}  # why, by the template that has done it
        atexit.register(self.close)

    def render(self, template: str, **request: Any) -> str:
        """Return what a template writes.

        Args:
          template: in Jinja.
          **request: `messages`, `names` and `ask` as in `chat_templates.render`.

        Raises:
          ValueError: it raised an error, or takes too much; it says which.
        """
        with self._lock:
            if template in self._ended:
                raise ValueError(self._ended[template])
            line = json.dumps({"template": template, **request}).encode()
            # Once more where it was ended, as by a signal to all of a job's processes.
            for _ in range(2):
                said, status = self._ask(line)
                if said or status == -signal.SIGPROF:
                    break
        if said:
            answer = json.loads(said)
            if "error" in answer:
                raise ValueError(answer["error"])
            return answer["text"]
        why = (
            f"it has not ended after {SECONDS:g} seconds of a processor"
            if status == -signal.SIGPROF
            else f"the process that renders it has ended twice (status {status})"
        )
        self._ended[template] = why
        raise ValueError(why)

    def close(self) -> None:
        """End the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def _ask(self, line: bytes) -> tuple[bytes, int | None]:
        """Return the answer to a line, or b"" and the status of the process."""
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # transformers tells what it does not find
                start_new_session=True,  # Ctrl-C is for the process that asks
            )
        process = self._process
        try:
            process.stdin.write(line + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass
        if (said := process.stdout.readline()).endswith(b"\n"):
            return said, None
        self._process = None
        process.stdout.close()
        return b"", process.wait()


def _chat_template_utils() -> types.ModuleType:
    """Return transformers' module that renders, without what its packages import.

    That is models and the hub, which take three times as long as the module itself, in
    every command that has a tokenizer. If the module needs them after all, they come.
    """
    names = ("transformers", "transformers.utils")
    root = importlib.util.find_spec(names[0]).submodule_search_locations[0]
    for name, folder in zip(names, (root, f"{root}/utils"), strict=True):
        bare = types.ModuleType(name)
        bare.__path__ = [folder]
        sys.modules[name] = bare
    try:
        return _imported()
    except (ImportError, AttributeError):
        for name in [n for n in sys.modules if n.split(".")[0] == names[0]]:
            del sys.modules[name]
        return _imported()


def _imported() -> types.ModuleType:
    from transformers.utils import chat_template_utils

    return chat_template_utils


def serve() -> None:
    """Answer each line of the input, until it ends."""
    chat_template_utils = _chat_template_utils()
    answers, sys.stdout = sys.stdout, sys.stderr
    if _ADDRESSES.exists():
        held = int(_ADDRESSES.read_text().split()[0]) * resource.getpagesize()
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (held + (MEGABYTES << 20), hard))
    for line in sys.stdin:
        # Its signal ends the process, in the midst of one long step as well.
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        answer = _answer(json.loads(line), chat_template_utils.render_jinja_template)
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()


def _answer(request: Mapping[str, Any], render: Any) -> dict[str, str]:
    try:
        (text,), _ = render(
            conversations=[request["messages"]],
            chat_template=request["template"],
            add_generation_prompt=request["ask"],
            **request["names"],
        )
    except MemoryError:
        return {"error": f"it takes more than {MEGABYTES} MB"}
    except Exception as error:  # foreign code: it may raise anything
        return {"error": f"{type(error).__name__}: {error}"[:LONGEST_ERROR]}
    if len(text) > MAX_CHARACTERS:
        return {
            "error": f"it writes {len(text)} characters of {MAX_CHARACTERS} at most"
        }
    return {"text": text}


if __name__ == "__main__":
    serve()
