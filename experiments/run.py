"""Run one method of one config, from prompts to a table.

  python -m experiments.run --config configs/rlcd.py:task=harmless,model=llama-7b \
      --workdir runs/rlcd [--stage preference] [--config.policy.steps=40]

The same command starts and resumes: what is done is skipped.
"""

from __future__ import annotations

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from experiments import launch

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
    config = _CONFIG.value

    def command() -> None:
        launch.prepare()
        stages = config.stages if _STAGE.value == "all" else (_STAGE.value,)
        launch.run_stages(config, _WORKDIR.value, stages)

    launch.for_people(command)


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them is a ValueError of one line.

    ml_collections tells an unknown field without its section, and a mistake in a
    config's argument with a trace.
    """
    try:
        rest = flags.FLAGS(argv)
        _CONFIG.value.stages  # noqa: B018  a file that is not there shows here
        return rest
    except (AttributeError, KeyError) as error:
        raise ValueError(_unknown_field(argv) or repr(error)) from error
    except flags.Error as error:
        inner: BaseException = error
        while inner.__context__ is not None:
            inner = inner.__context__
        told = error if "\n" not in str(error) else inner
        raise ValueError(str(told)) from error
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the config cannot be read: {reason}") from error


def _unknown_field(argv: list[str]) -> str:
    """Say which override names a field that the config does not have."""
    joined = " ".join(argv).replace("--config=", "--config ").split("--config ")
    whole = flags.FLAGS["config"].parser.parse(joined[1].split()[0])
    for flag in argv:
        if not flag.startswith("--config."):
            continue
        path = flag.removeprefix("--config.").partition("=")[0]
        section = whole
        for name in path.split("."):
            if not isinstance(section, ConfigDict) or name not in section:
                names = section if isinstance(section, ConfigDict) else ()
                return (
                    f"the config has no field {path!r}; accepted in place of "
                    f"{name!r}: {', '.join(sorted(names)) or 'nothing'}"
                )
            section = section[name]
    return ""


def start() -> None:
    """Start the command; a mistake in the config is one message too."""
    flags.mark_flags_as_required(["config", "workdir"])
    launch.for_people(lambda: app.run(main, flags_parser=parse_flags))


if __name__ == "__main__":
    start()
