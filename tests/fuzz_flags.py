"""Command lines of a run, odd in the config, its argument, a field or a value."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags
from fuzz_records import Case
from hypothesis import strategies as st

import experiments
from experiments import command
from rlcd_jax.checks import fields, refusals
from rlcd_jax.command_line import config_flag

CONFIGS = (
    *("rlcd", "rlaif", "quickstart", "configs/rlcd.py", "paper", "common", "nosuch"),
    *("", ".", "..", "/", "/etc/passwd", "../configs/rlcd.py", "rlcd.py", "a" * 5000),
    *("\x00", "rlcd\n", "réseau", "gs://b/x.py", "con fig", "/dev/null", "rlcd.py.py"),
)
ARGUMENTS = (
    *("", "task=cheerful", "size=smoke", "model=random:tiny", "task=", "=", ",", "x=1"),
    *("task=cheerful,task=outline", "size=huge", "preset=none", "hardware=8xh100"),
    *("hardware=9x", "model=hf:../x", "task=/etc/passwd", "task=a.toml", ":", "size"),
    *(
        "model=" + "x" * 5000,
        "task=\x00",
        "size=smoke,",
        "task=cheerful=1",
        "SIZE=smoke",
    ),
)
NAMES = (
    *sorted(fields.FIELDS),
    *("", ".", "policy", "policy.", ".steps", "policy.steps.x", "nope", "policy.nope"),
    *("__class__", "policy.__init__", "items", "policy.update", "lock", "seed ", "[0]"),
)
VALUES = (
    *("", "0", "1", "-1", "1e3", "1.0", "1e400", "nan", "inf", "-inf", "True", "true"),
    *(
        "None",
        "x",
        " ",
        "0x10",
        "1_000",
        "٣",
        "9" * 5000,
        "(",
        "()",
        "((",
        "(1,",
        "1,2",
    ),
    *(
        "('a','b')",
        "[1]",
        "{}",
        "{'a':1}",
        "__import__('os')",
        "f'{1}'",
        "1+1",
        "10**10",
    ),
    *("(" * 3000, "[" * 3000, "-" * 3000 + "1", "'" + "x" * 9000 + "'", "\x00", "\n"),
    *("\ud800", "lambda: 0", "=", "a=b", "../x", "/etc/passwd", "gs://b/x", "<script>"),
    *("('a',)*10**9", "b'x'", "...", "cheerful", "simulate,preference", "1j"),
)


def command_line(folder: pathlib.Path) -> Case:
    path = folder / "words.json"
    override = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES))

    @st.composite
    def damaged(draw: Any) -> bytes:
        name = draw(st.sampled_from(("rlcd",) * 6 + CONFIGS))
        argument = draw(st.sampled_from(("task=cheerful",) * 6 + ARGUMENTS))
        words = [f"--config={name}:{argument}" if argument else f"--config={name}"]
        words += [f"--config.{n}={v}" for n, v in draw(st.lists(override, max_size=2))]
        if draw(st.integers(0, 9)) == 0:
            words.append(
                draw(st.sampled_from(("--config", "--nope", "x", "--", "-x=1")))
            )
        return json.dumps(words).encode()

    def read() -> bool:
        words = json.loads(path.read_bytes())
        values = flags.FlagValues()
        command.define_config(values)
        rest = config_flag.parse(["run", *words], values, experiments.CONFIGS)
        if told := refusals.problems(values.config):
            raise ValueError("; ".join(told))
        return len(rest) >= 1

    return Case(
        path, damaged(), read, lambda data: True, exact=False, said=" ", share=1 / 3
    )  # fmt: skip


CASES: dict[str, Callable[[pathlib.Path], Case]] = {"command_line": command_line}
