"""The flags of a command as `--help` lists them, each with its default.

Of a flag that is on or off the default goes without saying.
"""

from __future__ import annotations

import argparse

from absl import flags


class Help(argparse.RawDescriptionHelpFormatter):
    """Shows a description as it is written, and each flag's default after its help."""

    def _get_help_string(self, action: argparse.Action) -> str:
        silent = action.default in (None, "", (), [], argparse.SUPPRESS)
        if action.required or silent or isinstance(action.default, bool):
            return action.help
        return f"{action.help}; default: %(default)s"


def of_flags(values: flags.FlagValues) -> str:
    """Return a line for each flag: what it is, and its default if any.

    A number that is 0 by default says itself what 0 means.
    """
    return "\n".join(_line(values[name]) for name in values)


def _line(flag: flags.Flag) -> str:
    default = "" if flag.default in (None, "", [], False) else flag.default_as_str
    told = flag.help.rstrip(".")
    return f"  --{flag.name}  {told}" + (f"; default: {default}" if default else "")
