"""The flag `--config` and its overrides: which file it names, what is wrong in them."""

from __future__ import annotations

import contextlib
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

FLAG = "config"
REQUIRED = re.compile(r"Flag --(\w+) must have a value other than None")


def parse(
    words: Sequence[str], values: flags.FlagValues, folder: pathlib.Path
) -> list[str]:
    """Parse a command line; a mistake in it is a ValueError of one line.

    ml_collections tells an unknown field without its section, and a mistake in a
    config's argument with a trace.

    Args:
      words: the command line, its program first.
      values: in which the flags are defined, `--config` among them.
      folder: of the project's own configs.

    Returns:
      The words that are no flags, the program first.
    """
    words = name_file(words, folder)

    def whole() -> ConfigDict | None:
        place = _place(words)
        if place is None:
            return None
        return values[FLAG].parser.parse(words[place[0]][place[1] :])

    with _mistakes_told(words, values, whole):
        rest = values(words)
        values[FLAG].value.is_locked  # noqa: B018  an absent file shows here
        return rest


def with_fields(config: ConfigDict, words: Sequence[str]) -> ConfigDict:
    """Return a config with the fields that words set, `--config.policy.steps=40`.

    Args:
      config: of a command that has no flag for its file.
      words: what its own flags have left of the command line.

    Raises:
      ValueError: a word sets no field of the config.
    """
    line, values = ["", *words], flags.FlagValues()
    with _mistakes_told(line, values, lambda: config):
        config_flags.DEFINE_config_dict(FLAG, config, flag_values=values, sys_argv=line)
        rest = values(line)
    if rest[1:]:
        raise ValueError(f"unexpected argument {rest[1]!r}; all settings are flags")
    return values[FLAG].value


@contextlib.contextmanager
def _mistakes_told(
    words: Sequence[str],
    values: flags.FlagValues,
    whole: Callable[[], ConfigDict | None],
) -> Iterator[None]:
    """Make one line of a mistake in flags; `whole` returns the config without them."""
    try:
        yield
    except (AttributeError, KeyError) as error:
        told = _unknown_field(words, whole()) or repr(error)
        raise ValueError(told) from error
    except flags.Error as error:
        inner: BaseException = error
        while inner.__context__ is not None:
            inner = inner.__context__
        told = error if "\n" not in str(error) else inner
        if missing := REQUIRED.search(str(told)):
            name = missing.group(1)
            told = f"--{name} is missing. {values[name].help}"
        raise ValueError(str(told)) from error
    except SyntaxError as error:  # the file is no program
        where = f"{error.filename}, line {error.lineno}"
        raise ValueError(f"the config cannot be read: {where}: {error.msg}") from error
    except OSError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ValueError(f"the config cannot be read: {reason}") from error


def name_file(words: Sequence[str], folder: pathlib.Path) -> list[str]:
    """Return a command line whose `--config` is a file, where it was a name.

    A name is that of a config of this project, whatever the current folder holds. So
    is `configs/NAME.py` where no such file is: an installed package has no clone.

    Args:
      words: the command line, its program first.
      folder: of the project's own configs.

    Raises:
      ValueError: no config has this name.
    """
    named, place = list(words), _place(words)
    if place is None:
        return named
    index, start = place
    name, colon, argument = words[index][start:].partition(":")
    file = pathlib.Path(name)
    own = folder / f"{file.stem}.py"
    is_name = file.suffix != ".py" and len(file.parts) <= 1
    if is_name and file.stem not in (names := config_names(folder)):
        raise ValueError(
            f"--config {name}: no config has this name; accepted: "
            f"{', '.join(names)}, or the path of a config file, NAME.py"
        )
    in_clone = file.parts == (folder.name, own.name) and not file.exists()
    if is_name or (in_clone and own.exists()):
        named[index] = f"{words[index][:start]}{own}{colon}{argument}"
    return named


def config_names(folder: pathlib.Path) -> list[str]:
    """Return the names of the configs in a folder, among what they share."""
    return sorted(
        path.stem
        for path in folder.glob("*.py")
        if "\ndef get_config(" in path.read_text("utf-8")
    )


def refuse_overrides(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Refuse flags that would rename what the config's argument has set.

    Args:
      values: of a command line that is parsed.
      names: of fields that the argument sets together with others.
    """
    for name in names:
        if name in values[FLAG].override_values:
            raise ValueError(
                f"--config.{name} would change the name alone; accepted: the config's "
                f"argument, --config FILE:{name}=VALUE"
            )


def _place(words: Sequence[str]) -> tuple[int, int] | None:
    """Return which word holds the config, and at which letter; None if none does."""
    for index, word in enumerate(words[1:], start=1):
        flag, equals, _ = word.partition("=")
        if flag in (f"--{FLAG}", f"-{FLAG}"):
            if equals:
                return index, len(flag) + 1
            return (index + 1, 0) if index + 1 < len(words) else None
    return None


def _unknown_field(words: Sequence[str], whole: ConfigDict | None) -> str:
    """Say which override names a field that the config does not have."""
    if whole is None:
        return ""
    for word in words:
        if not word.startswith(f"--{FLAG}."):
            continue
        path = word.removeprefix(f"--{FLAG}.").partition("=")[0]
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
