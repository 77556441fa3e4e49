"""Reads the paper's official wording from a checkout that the user names.

The instructions of the release are long texts of other authors, so this package ships
its own wording and reads theirs on request. Files are parsed, never run.
"""

import ast
import dataclasses
import pathlib

from rlcd_jax.tasks import layout

SCRIPT = "scripts/simulate_preference_data.py"
JUDGE = "scripts/gpt4_compare.py"


@dataclasses.dataclass(frozen=True)
class Wording:
    """The texts of one task in the released code.

    Attributes:
      file: the file they were read from.
      affixes: (positive, negative) pairs, parentheses removed.
      instructions: scoring instructions, aligned with `affixes`.
      opening: the line that a scoring prompt opens with.
      judge: what an API judge is told, and its questions.
    """

    file: str
    affixes: tuple[tuple[str, str], ...]
    instructions: tuple[str, ...]
    opening: str
    judge: layout.JudgeWording
    questions: dict[str, str]


def read_wording(checkout: str | pathlib.Path, task_name: str) -> Wording:
    """Read the affix pairs, the scoring and the judging of a task.

    The script is searched for module-level assignments of a list of strings whose
    name starts with the task's name and holds POSITIVE, NEGATIVE or INSTRUCTION.

    Args:
      checkout: folder of the checkout.
      task_name: name of the task; the release knows "harmless" and "helpful".

    Returns:
      The wording.

    Raises:
      ValueError: when the script is absent or does not hold the three lists.

    Source: github.com/facebookresearch/RLCD, the two scripts named above.
    """
    script, parsed = _parse(pathlib.Path(checkout), SCRIPT)
    lists = string_lists(parsed)
    positive = _find(lists, task_name, "POSITIVE", script)
    negative = _find(lists, task_name, "NEGATIVE", script)
    instructions = _find(lists, task_name, "INSTRUCTION", script)
    if not len(positive) == len(negative) == len(instructions):
        raise ValueError(
            f"official wording: the lists of '{task_name}' in '{script}' are uneven: "
            f"{len(positive)} positive, {len(negative)} negative, "
            f"{len(instructions)} instructions. Name a checkout of the release."
        )
    asking, compared = _parse(pathlib.Path(checkout), JUDGE)
    judge, questions = _judge(compared, asking, task_name)
    return Wording(
        file=str(script),
        affixes=tuple(zip(map(_bare, positive), map(_bare, negative), strict=True)),
        instructions=tuple(text.strip() for text in instructions),
        opening=_opening(parsed, script),
        judge=judge,
        questions=questions,
    )


def _parse(checkout: pathlib.Path, name: str) -> tuple[pathlib.Path, ast.Module]:
    """Return a file of a checkout and its syntax."""
    script = checkout / name
    if not script.is_file():
        raise ValueError(
            f"official wording: no file '{script}'; accepted is a checkout of "
            f"facebookresearch/RLCD, which holds {name}. Name its folder."
        )
    try:
        return script, ast.parse(script.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(
            f"official wording: '{script}' is not a Python file ({error}). "
            "Name a checkout of facebookresearch/RLCD."
        ) from error


def _lacks(what: str, script: pathlib.Path) -> ValueError:
    return ValueError(
        f"official wording: '{script}' has no {what}. Name a checkout of the release."
    )


def _first_text(node: ast.expr) -> str | None:
    """Return the text that a sum of texts begins with, or None."""
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        node = node.left
    found = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if found else None


def _opening(parsed: ast.Module, script: pathlib.Path) -> str:
    """Return the first line of the scoring prompt, which a call of `append` joins."""
    for node in ast.walk(parsed):
        if not isinstance(node, ast.Call) or len(node.args) != 1:
            continue
        named = isinstance(node.func, ast.Attribute) and node.func.attr == "append"
        text = _first_text(node.args[0])
        if named and isinstance(node.args[0], ast.BinOp) and text and text.strip():
            return text.strip()
    raise _lacks("opening line of the scoring prompt", script)


def _judge(
    parsed: ast.Module, script: pathlib.Path, task_name: str
) -> tuple[layout.JudgeWording, dict[str, str]]:
    """Return what the judge is told, and its questions about a task by their names.

    The system message stands in a dictionary whose role is "system"; the introduction
    begins what is assigned to `prompt`; under `task == NAME` two texts are added to it:
    the lead of the replies, before the first letter, and the question.
    """
    system = intro = ""
    asked: dict[str, tuple[str, str]] = {}
    for node in ast.walk(parsed):
        if isinstance(node, ast.Dict):
            held = {
                key.value: value.value
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
            }
            if held.get("role") == "system":
                system = str(held.get("content", ""))
        elif isinstance(node, ast.Assign) and _is_prompt(node.targets[0]):
            intro = intro or (_first_text(node.value) or "").strip()
        elif isinstance(node, ast.If) and (name := _compared_task(node.test)):
            added = [
                _first_text(one.value) or ""
                for one in node.body
                if isinstance(one, ast.AugAssign) and _is_prompt(one.target)
            ]
            if len(added) == 2:
                lead = added[0].partition("(A)")[0].strip()
                asked[name] = (lead, added[1].strip())
    own = {n: a for n, a in asked.items() if n.partition("_")[0] == task_name}
    leads = {lead for lead, _ in own.values()}
    for what, found in (
        ("system message of the judge", system.strip()),
        ("introduction of the judge's prompt", intro),
        (f"question of the judge about '{task_name}'", own),
        (f"one lead of the replies to '{task_name}'", len(leads) == 1 and min(leads)),
    ):
        if not found:
            raise _lacks(what, script)
    wording = layout.JudgeWording(system.strip(), intro, min(leads))
    return wording, {name: question for name, (_, question) in own.items()}


def _is_prompt(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "prompt"


def _compared_task(test: ast.expr) -> str:
    """Return NAME of a test `task == NAME`, or ""."""
    if not (isinstance(test, ast.Compare) and isinstance(test.left, ast.Name)):
        return ""
    right = test.comparators[0]
    named = test.left.id == "task" and isinstance(right, ast.Constant)
    return str(right.value) if named else ""


def string_lists(parsed: ast.Module) -> dict[str, tuple[str, ...]]:
    """Return the module-level lists and tuples of strings of a source, by name."""
    texts = {}
    for node in parsed.body:
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
