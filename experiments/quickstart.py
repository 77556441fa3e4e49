"""The whole job on the embedded real model: pairs, preference model, PPO, a table.

  python -m experiments.quickstart [--size full] [--workdir runs/quickstart]

Two CPU cores are enough. `--size full` takes hours there and minutes on a GPU.
"""

from __future__ import annotations

import argparse
import pathlib

from configs import common, quickstart
from experiments import command, launch


def main() -> None:
    """Run the quickstart config and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", default="", help="folder of the run")
    parser.add_argument("--size", default="quick", choices=list(common.SIZES))
    parser.add_argument("--task", default="cheerful", help="task name or file")
    parser.add_argument("--model", default="smollm2-135m", help="model spec")
    asked = parser.parse_args()
    workdir = asked.workdir or f"runs/quickstart-{asked.task}-{asked.size}"

    def action() -> None:
        launch.prepare()
        config = quickstart.get_config(
            f"task={asked.task},model={asked.model},size={asked.size}"
        )
        launch.run_stages(config, workdir, config.stages, config.to_dict())
        print((pathlib.Path(workdir) / "evaluate" / "table.md").read_text())
        print(f"Everything else: {workdir}/report.html")

    command.for_people(action)


if __name__ == "__main__":
    main()
