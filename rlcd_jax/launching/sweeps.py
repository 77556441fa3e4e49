"""A sweep: one run for each combination of some fields' values.

`policy.kl_coef=0.01,0.1 seed=0..2` is six runs. Each has a folder of its own, named for
its values, below that of the sweep; run again, a sweep goes on where it was.
"""

from __future__ import annotations

import itertools
import pathlib
import re
import shlex
from collections.abc import Callable, Sequence

from absl import flags

from rlcd_jax import stages
from rlcd_jax.checks import fields, refusals, rules
from rlcd_jax.command_line import config_flag

Point = dict[str, str]  # from fields to values, as they are typed
MOST = 1000  # runs
LEAVES = 75  # status of a run that was asked to leave, and goes on another time


def read(expression: str) -> list[Point]:
    """Return the points of a sweep, the last field's values changing first.

    Args:
      expression: `FIELD=VALUES`, with blanks between fields. Values stand with commas
        between them, or as `A..B`, all whole numbers from A to B; a value with commas
        of its own stands in brackets or quotation marks.

    Raises:
      ValueError: it says what is wrong, and what is accepted.
    """
    axes: dict[str, list[str]] = {}
    for part in _split(expression, " "):
        name, equals, text = part.partition("=")
        values = _values(text)
        if not equals or not all(values) or not values:
            raise ValueError(
                f"{part!r}; accepted: FIELD=VALUE,VALUE,… or FIELD=A..B, such as "
                "policy.kl_coef=0.01,0.1 or seed=0..2"
            )
        _check_field(name)
        if name in axes:
            raise ValueError(f"{name} is there twice; give all its values at once")
        if len({*values}) < len(values):
            raise ValueError(f"{part!r} has a value twice; each is a run of its own")
        axes[name] = values
    if not axes:
        raise ValueError("the sweep is empty; accepted: FIELD=VALUE,VALUE,…")
    points = [
        dict(zip(axes, values, strict=True))
        for values in itertools.product(*axes.values())
    ]
    if len(points) > MOST:
        raise ValueError(f"the sweep has {len(points)} runs; accepted: up to {MOST}")
    return points


def commands(points: Sequence[Point], words: Sequence[str]) -> list[list[str]]:
    """Return the flags of each run: those that are typed, a point's, its folder.

    Args:
      points: of the sweep.
      words: flags of one run; --workdir is the folder of all.

    Raises:
      ValueError: there is no --workdir, a field is set already, or two points would
        have one folder.
    """
    rest, workdir = _take_workdir(words)
    for name in points[0]:
        if any(word.partition("=")[0] == f"--config.{name}" for word in rest):
            raise ValueError(f"--config.{name} is set beside the sweep of {name}")
    names = [_folder(point) for point in points]
    if len({*names}) < len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"two runs of the sweep would have the folder {double!r}")
    return [
        [
            *rest,
            *(f"--config.{field}={value}" for field, value in point.items()),
            f"--workdir={pathlib.PurePath(workdir, name)}",
        ]
        for point, name in zip(points, names, strict=True)
    ]


def check(
    words: Sequence[str],
    define: Callable[[flags.FlagValues], None],
    configs: pathlib.Path,
) -> None:
    """Refuse one run's flags as the run would, before any run begins.

    Args:
      words: its flags, which are those of the process too: ml_collections looks for
        single fields there.
      define: defines the flags of a run.
      configs: folder of the project's own configs.
    """
    values = flags.FlagValues()
    define(values)
    rest = config_flag.parse(["run", *words], values, configs)
    if len(rest) > 1:
        raise ValueError(f"unexpected word {rest[1]!r}; all settings are flags")
    refusals.check_config(values.config)
    names = stages.named(values.stage, values.config)
    refusals.refuse(rules.problems(values.config, names))


def run(
    runs: Sequence[Sequence[str]],
    start: Callable[[Sequence[str]], int],
    say: Callable[[str], None],
) -> int:
    """Run one after the other; one that fails does not keep the others.

    Args:
      runs: the flags of each.
      start: runs one, and returns its exit status.
      say: shows a line.

    Returns:
      The exit status: 0, 1 if a run failed, or that of a run that was asked to leave,
      after which none is begun.
    """
    failed = []
    for number, words in enumerate(runs, start=1):
        folder = _take_workdir(words)[1]
        say(f"run {number} of {len(runs)}: {folder}")
        status = start(words)
        if status == LEAVES:
            return status
        if status:
            failed.append(f"{folder} ended with status {status}")
    for line in failed:
        say(line)
    say(f"{len(runs) - len(failed)} of {len(runs)} runs are done")
    return 1 if failed else 0


def line(words: Sequence[str], launch: Sequence[str] | None) -> str:
    """Return the command of one run, or with flags of the launcher its launch line.

    Args:
      words: flags of the run.
      launch: flags of `experiments.launch`; None: it is started here.
    """
    if launch is None:
        return shlex.join(["python", "-m", "experiments.run", *words])
    whole = ["python", "-m", "experiments.launch", *launch, "--", "run", *words]
    return shlex.join(whole)


def _split(text: str, mark: str) -> list[str]:
    """Return the parts of a text between marks that no bracket or quote encloses."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        else:
            depth += (letter in "([{") - (letter in ")]}")
        if letter == mark and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part] if mark == " " else parts


def _values(text: str) -> list[str]:
    span = re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", text)
    if not span:
        return _split(text, ",")
    first, last = int(span[1]), int(span[2])
    if not first <= last < first + MOST:
        raise ValueError(f"{text!r}; accepted: A..B with up to {MOST} numbers, rising")
    return [str(number) for number in range(first, last + 1)]


def _check_field(name: str) -> None:
    """Refuse what is no field, or is set together with others."""
    field = fields.FIELDS.get(name)
    if field is None:
        raise ValueError(
            f"{name!r} is no field of a run; accepted: those that "
            "`python -m experiments.run --help` lists"
        )
    if field.argument:
        raise ValueError(
            f"{name} is set together with other fields, by the config's argument; "
            "accepted in a sweep: single fields"
        )


def _take_workdir(words: Sequence[str]) -> tuple[list[str], str]:
    """Return flags without --workdir, and its value."""
    rest, words = [], list(words)
    workdir = ""
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if flag not in ("--workdir", "-workdir"):
            rest.append(word)
        elif equals:
            workdir = value
        elif words:
            workdir = words.pop(0)
    if not workdir:
        raise ValueError("the sweep's run has no --workdir; each run is a folder in it")
    return rest, workdir


def _folder(point: Point) -> str:
    """Return the name of a point's folder: its fields and values."""
    whole = ",".join(f"{name}={value}" for name, value in point.items())
    return re.sub(r"[^\w.=,+-]", "_", whole)[:200]
