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

import experiments

# Modules of configs that are no config of their own.
SHARED = ("__init__", "common", "sizes")
HELP = ("--help", "-help", "-h", "--helpshort", "-helpshort")

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


def define_config(values: flags.FlagValues) -> None:
    """Define the flag of a config file."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Name of a config, or its file, with its argument: rlcd[:name=value,…].",
        flag_values=values,
    )
    flags.mark_flag_as_required("config", values)


def define_workdir(values: flags.FlagValues) -> None:
    """Define the flag of the folder that a command writes into."""
    flags.DEFINE_string(
        "workdir", None, "Folder of results; made when absent.", flag_values=values
    )
    flags.mark_flag_as_required("workdir", values)


def start(
    action: Callable[[ConfigDict], None],
    define: Callable[[flags.FlagValues], None],
    description: str,
    describe_fields: Callable[[], str],
) -> None:
    """Run a command that takes a config; a mistake of the user is one message.

    Args:
      action: of the config.
      define: defines all flags of the command.
      description: what `--help` says first.
      describe_fields: returns what `--help` says of the config's fields.
    """
    if asks_help(sys.argv):
        own = flags.FlagValues()
        define(own)
        listed = "\n".join(f"  --{name}  {own[name].help}" for name in own)
        print_help(f"{description}\nFlags:\n{listed}\n\n{describe_fields()}")
        return
    define(flags.FLAGS)

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(
                f"unexpected argument {argv[1]!r}; all settings are flags"
            )
        for_people(lambda: action(flags.FLAGS.config))

    for_people(lambda: app.run(main, flags_parser=parse_flags))


def asks_help(argv: Sequence[str]) -> bool:
    """Say whether a command line asks what it can do."""
    return any(word in HELP for word in argv[1:])


def print_help(text: str) -> None:
    """Print a text; whoever reads it through a pipe may stop before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # what is left must not fail again when Python ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse_flags(
    argv: Sequence[str], values: flags.FlagValues = flags.FLAGS
) -> list[str]:
    """Parse the flags; a mistake in them is a ValueError of one line.

    ml_collections tells an unknown field without its section, and a mistake in a
    config's argument with a trace.

    Args:
      argv: the command line, its program first.
      values: in which the flags are defined.

    Returns:
      The words that are no flags, the program first.
    """
    argv = find_config(argv)
    try:
        rest = values(argv)
        values["config"].value.is_locked  # noqa: B018  an absent file shows here
        return rest
    except (AttributeError, KeyError) as error:
        told = _unknown_field(argv, values) or repr(error)
        raise ValueError(told) from error
    except flags.Error as error:
        inner: BaseException = error
        while inner.__context__ is not None:
            inner = inner.__context__
        told = error if "\n" not in str(error) else inner
        raise ValueError(str(told)) from error
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the config cannot be read: {reason}") from error


def find_config(argv: Sequence[str]) -> list[str]:
    """Return a command line whose `--config` is a file, where it was a name.

    A name is that of a config of this project, whatever the current folder holds. So
    is `configs/NAME.py` where no such file is: an installed package has no clone.

    Args:
      argv: the command line, its program first.

    Raises:
      ValueError: no config has this name.
    """
    found, place = list(argv), _config_place(argv)
    if place is None:
        return found
    index, start = place
    name, colon, argument = argv[index][start:].partition(":")
    file = pathlib.Path(name)
    own = experiments.CONFIGS / f"{file.stem}.py"
    is_name = file.suffix != ".py" and len(file.parts) <= 1
    if is_name and (file.stem in SHARED or not own.exists()):
        names = {path.stem for path in own.parent.glob("*.py")} - {*SHARED}
        raise ValueError(
            f"--config {name}: no config has this name; accepted: "
            f"{', '.join(sorted(names))}, or the path of a config file, NAME.py"
        )
    in_clone = file.parts == ("configs", own.name) and not file.exists()
    if is_name or (in_clone and own.exists()):
        found[index] = f"{argv[index][:start]}{own}{colon}{argument}"
    return found


def _config_place(argv: Sequence[str]) -> tuple[int, int] | None:
    """Return which word holds the config, and at which letter; None if none does."""
    for index, word in enumerate(argv[1:], start=1):
        flag, equals, _ = word.partition("=")
        if flag in ("--config", "-config"):
            if equals:
                return index, len(flag) + 1
            return (index + 1, 0) if index + 1 < len(argv) else None
    return None


def _unknown_field(argv: Sequence[str], values: flags.FlagValues) -> str:
    """Say which override names a field that the config does not have."""
    place = _config_place(argv)
    if place is None:
        return ""
    whole = values["config"].parser.parse(argv[place[0]][place[1] :])
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
