"""What command lines share: their flags, their help, and how they end.

Importing it brings no JAX, so that commands which only read files start at once. For
the same reason a command imports what it works with inside the function that works:
`--help` and a mistake in the flags are answered before any of it, in half a second
instead of three.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable

from absl import app, flags
from ml_collections import ConfigDict, config_flags

import experiments
from rlcd_jax.command_line import config_flag, flag_help

HELP = {"--help", "-help", "-h", "--helpshort", "-helpshort"}

# Before the first import of transformers, which else says that there is no torch.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")


def for_people(action: Callable[[], None]) -> None:
    """Run a command; a mistake of the user ends in one message, not in a trace."""
    try:
        action()
    except (ValueError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return
        if os.environ.get("RLCD_JAX_TRACE"):
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


def make_parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return the parser of a command that has no config file."""
    return argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        formatter_class=flag_help.Help,
    )


def define_config(values: flags.FlagValues) -> None:
    """Define the flag of a config file."""
    config_flags.DEFINE_config_file(
        config_flag.FLAG,
        None,
        "Name of a config, or its file, with its argument: rlcd[:name=value,…].",
        flag_values=values,
    )
    flags.mark_flag_as_required(config_flag.FLAG, values)


def define_workdir(values: flags.FlagValues, default: str = "") -> None:
    """Define the flag of the folder that a command writes into.

    Args:
      values: in which the flag is defined.
      default: words for the folder that the command takes by itself; "": it takes none.
    """
    told = "Folder of results; made when absent." + f" Default: {default}." * bool(
        default
    )
    flags.DEFINE_string("workdir", "" if default else None, told, flag_values=values)
    if not default:
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
    if asks_help():
        own = flags.FlagValues()
        define(own)
        listed = flag_help.of_flags(own)
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


def parse_flags(argv: list[str]) -> list[str]:
    """Parse the process's flags; return the words that are none."""
    return config_flag.parse(argv, flags.FLAGS, experiments.CONFIGS)


def asks_help() -> bool:
    """Say whether the command line asks what the command can do."""
    return not HELP.isdisjoint(sys.argv[1:])


def print_help(text: str) -> None:
    """Print a text; whoever reads it through a pipe may stop before its end."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _reader_left()


def _reader_left() -> bool:
    """Say whether nobody reads standard output; the rest of it goes nowhere then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left must not fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def method_config(name: str, argument: str) -> ConfigDict:
    """Return the config of a method, from the file of its name under configs."""
    return importlib.import_module(f"configs.{name}").get_config(argument)
