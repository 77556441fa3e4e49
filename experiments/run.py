"""Run one method of one config, from prompts to a table.

  python -m experiments.run --config configs/rlcd.py:task=harmless,model=llama-7b \
      --workdir runs/rlcd [--stage preference] [--config.policy.steps=40]

The same command starts and resumes: what is done is skipped.
"""

from __future__ import annotations

from absl import app, flags
from ml_collections import config_flags

from experiments import command, launch
from rlcd_jax.checks import refusals

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file with its argument: configs/NAME.py[:name=value,…]."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made when absent.")
_STAGE = flags.DEFINE_string(
    "stage", "all", "simulate, preference, distill, policy, evaluate, or all."
)


def main(argv: list[str]) -> None:
    """Run the stages that the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; all settings are flags")
    config, source = _CONFIG.value, flags.FLAGS["config"].config_filename
    fresh = flags.FLAGS["config"].parser.parse(source)

    def action() -> None:
        refusals.check_labels(config, fresh, source)
        launch.prepare()
        stages = config.stages if _STAGE.value == "all" else (_STAGE.value,)
        launch.run_stages(config, _WORKDIR.value, stages, fresh.to_dict())

    command.for_people(action)


def start() -> None:
    """Start the command; a mistake in the config is one message too."""
    flags.mark_flags_as_required(["config", "workdir"])
    command.for_people(lambda: app.run(main, flags_parser=command.parse_flags))


if __name__ == "__main__":
    start()
