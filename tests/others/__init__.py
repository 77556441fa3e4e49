"""Programs of others that read what we have written, each in a Python that has them.

A test of them runs where this Python has the package, or one that is named in
RLCD_TEST_PYTHONS (paths with colons between), and is skipped elsewhere.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

HAS = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"


@functools.cache
def pythons(package):
    """Return the Pythons that have a package."""
    named = filter(None, os.environ.get("RLCD_TEST_PYTHONS", "").split(":"))
    return [
        python
        for python in dict.fromkeys([sys.executable, *named])
        if not subprocess.run([python, "-c", HAS, package]).returncode
    ]


def need(package):
    """Skip a test where no Python has a package; return those that have it."""
    if not (having := pythons(package)):
        pytest.skip(f"no Python here has {package}; see RLCD_TEST_PYTHONS")
    return having


def ask(package, script, question):
    """Return what a script beside this file answers, in each Python with a package.

    Args:
      package: without it the test is skipped.
      script: name of the script; it reads JSON from its input and writes a line of it.
      question: what it reads.
    """
    path, answers = pathlib.Path(__file__).with_name(script), []
    for python in need(package):
        told = subprocess.run(
            [python, str(path)],
            input=json.dumps(question),
            capture_output=True,
            text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""},
        )
        assert told.returncode == 0, f"{python} {path}\n{told.stderr[-3000:]}"
        answers.append(json.loads(told.stdout.splitlines()[-1]))
    return answers
