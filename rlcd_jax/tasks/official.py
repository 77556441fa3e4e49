"""Reads the paper's official wording from a checkout that the user names.

The instructions of the release are long texts of other authors, so this package ships
its own wording and reads theirs on request. The file is parsed, never run.
"""

import ast
import dataclasses
import pathlib

SCRIPT = "scripts/simulate_preference_data.py"


@dataclasses.dataclass(frozen=True)
class Wording:
    """The texts of one task in the released code.

    Attributes:
      file: the file they were read from.
      affixes: (positive, negative) pairs, parentheses removed.
      instructions: scoring instructions, aligned with `affixes`.
    """

    file: str
    affixes: tuple[tuple[str, str], ...]
    instructions: tuple[str, ...]


def read_wording(checkout: str | pathlib.Path, task_name: str) -> Wording:
    """Read the affix pairs and scoring instructions of a task.

    The script is searched for module-level assignments of a list of strings whose
    name starts with the task's name and holds POSITIVE, NEGATIVE or INSTRUCTION.

    Args:
      checkout: folder of the checkout, or the script itself.
      task_name: name of the task; the release knows "harmless" and "helpful".

    Returns:
      The wording.

    Raises:
      ValueError: when the script is absent or does not hold the three lists.

    Source: github.com/facebookresearch/RLCD, scripts/simulate_preference_data.py.
    """
    path = pathlib.Path(checkout)
    script = path if path.suffix == ".py" else path / SCRIPT
    if not script.is_file():
        raise ValueError(
            f"official wording: no file '{script}'; accepted is a checkout of "
            f"facebookresearch/RLCD, which holds {SCRIPT}. Name its folder."
        )
    try:
        lists = string_lists(script.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"official wording: '{script}' is not a Python file ({error}). "
            "Name a checkout of facebookresearch/RLCD."
        ) from error
    positive = _find(lists, task_name, "POSITIVE", script)
    negative = _find(lists, task_name, "NEGATIVE", script)
    instructions = _find(lists, task_name, "INSTRUCTION", script)
    if not len(positive) == len(negative) == len(instructions):
        raise ValueError(
            f"official wording: the lists of '{task_name}' in '{script}' are uneven: "
            f"{len(positive)} positive, {len(negative)} negative, "
            f"{len(instructions)} instructions. Name a checkout of the release."
        )
    return Wording(
        file=str(script),
        affixes=tuple(zip(map(_bare, positive), map(_bare, negative), strict=True)),
        instructions=tuple(text.strip() for text in instructions),
    )


def string_lists(source: str) -> dict[str, tuple[str, ...]]:
    """Return the module-level lists and tuples of strings of a source, by name."""
    texts = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            targets = node.targets
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        else:
            continue
        try:
            value = ast.literal_eval(node.value)
        except (ValueError, TypeError):
            continue  # A computed value: not one of the lists of texts.
        if not isinstance(value, list | tuple) or not value:
            continue
        if all(isinstance(item, str) for item in value):
            names = (t.id for t in targets if isinstance(t, ast.Name))
            texts.update({name: tuple(value) for name in names})
    return texts


def _find(
    lists: dict[str, tuple[str, ...]], task_name: str, word: str, script: pathlib.Path
) -> tuple[str, ...]:
    prefix = task_name.upper() + "_"
    names = [n for n in lists if n.upper().startswith(prefix) and word in n.upper()]
    if len(names) != 1:
        raise ValueError(
            f"official wording: {len(names)} lists of strings named "
            f"'{prefix}...{word}...' in '{script}', 1 is needed; lists found: "
            f"{', '.join(lists) or 'none'}. The release covers harmless and helpful."
        )
    return lists[names[0]]


def _bare(affix: str) -> str:
    affix = affix.strip()
    if affix.startswith("(") and affix.endswith(")"):
        affix = affix[1:-1]
    return affix.strip()
