"""What command lines share: flags of a config file, methods' configs, errors.

Importing it brings no JAX, so that commands which only read files start at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

# Before the first import of transformers, which else says that there is no torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def for_people(action: Callable[[], None]) -> None:
    """Run a command; a mistake of the user ends in one message, not in a trace."""
    try:
        action()
    except (ValueError, OSError) as error:
        if os.environ.get("RLCD_JAX_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that has no config file."""
    return argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def start(action: Callable[[ConfigDict, str], None]) -> None:
    """Run a command that takes a config file and a workdir.

    Args:
      action: of the config and the workdir; its own flags are defined before.
    """
    config = config_flags.DEFINE_config_file(
        "config", None, "Config file with its argument: configs/NAME.py[:name=value,…]."
    )
    workdir = flags.DEFINE_string("workdir", None, "Folder of results; made if absent.")
    flags.mark_flags_as_required(["config", "workdir"])
    for name in ("config", "workdir"):  # so that --help lists them
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(
                f"unexpected argument {argv[1]!r}; all settings are flags"
            )
        for_people(lambda: action(config.value, workdir.value))

    for_people(lambda: app.run(main, flags_parser=parse_flags))


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the flags; a mistake in them is a ValueError of one line.

    ml_collections tells an unknown field without its section, and a mistake in a
    config's argument with a trace.
    """
    try:
        rest = flags.FLAGS(argv)
        flags.FLAGS["config"].value.is_locked  # noqa: B018  an absent file shows here
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


def refuse_overrides(names: Sequence[str]) -> None:
    """Refuse flags that would rename what the config's argument has set.

    Args:
      names: of fields that the argument sets together with others.
    """
    for name in names:
        if name in flags.FLAGS["config"].override_values:
            raise ValueError(
                f"--config.{name} would change the name alone; accepted: the config's "
                f"argument, --config FILE:{name}=VALUE"
            )


def method_config(name: str, argument: str) -> ConfigDict:
    """Return the config of a method, from the file of its name under configs."""
    return importlib.import_module(f"configs.{name}").get_config(argument)


def find_preset(workdir: str) -> dict[str, Any] | None:
    """Return what `preset_of` says of the config of a run's folder."""
    try:
        return preset_of(
            json.loads((pathlib.Path(workdir) / "config.json").read_bytes())
        )
    except (OSError, ValueError):
        return None


def preset_of(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the config that a run's method, task, model, preset and size stand for.

    None when the config does not say them, or no config of the method accepts them.
    """
    try:
        fields = {name: config[name] for name in ("task", "preset", "size")}
        fields["model"] = config["model"]["spec"]
        argument = ",".join(f"{name}={value}" for name, value in fields.items())
        return method_config(config["name"], argument).to_dict()
    except (OSError, ImportError, KeyError, TypeError, ValueError):
        return None
