"""Write the page of a run, or of two runs side by side.

Command:  python -m experiments.report --workdir runs/rlcd
          python -m experiments.report --workdir runs/rlcd --studies studies/one
          python -m experiments.report --workdir runs --compare runs/rlcd runs/rlaif

The first writes report.html, the second adds the results of human studies to it, the
third writes compare.html, all into the workdir. The page shows what was changed from
the run's preset, when its config file still exists.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from rlcd_jax import report


def main(argv: Sequence[str] | None = None) -> pathlib.Path:
    """Write a page, say where it is, and return its path."""
    parser = argparse.ArgumentParser(prog="python -m experiments.report")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="two workdirs")
    parser.add_argument(
        "--studies",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="of human studies, read by experiments.human",
    )
    flags = parser.parse_args(argv)
    if flags.compare and flags.studies:
        parser.error("--studies belong to the report of one run; leave out --compare")
    try:
        if flags.compare:
            path = pathlib.Path(flags.workdir) / report.COMPARISON_NAME
            path = report.write_comparison(*flags.compare, path)
        else:
            preset = find_preset(flags.workdir)
            path = report.write_report(
                flags.workdir, preset=preset, studies=flags.studies
            )
    except ValueError as error:
        parser.error(str(error))
    print(path)
    return path


def find_preset(workdir: str) -> dict[str, Any] | None:
    """Return the config that a run's method, task, model, preset and size stand for.

    None when config.json does not say them, or no config of the method accepts them.
    """
    try:
        config = json.loads((pathlib.Path(workdir) / "config.json").read_bytes())
        fields = {name: config[name] for name in ("task", "preset", "size")}
        fields["model"] = config["model"]["spec"]
        method = importlib.import_module(f"configs.{config['name']}")
        arg = ",".join(f"{name}={value}" for name, value in fields.items())
        return method.get_config(arg).to_dict()
    except (OSError, ImportError, KeyError, TypeError, ValueError):
        return None


if __name__ == "__main__":
    main()
