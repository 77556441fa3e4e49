"""What a task is, and the task that is made of the fields of a file."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rlcd_jax import schema
from rlcd_jax.tasks import defaults, fields
from rlcd_jax.tasks.fields import (
    FORMATS,
    SPLITS,
    TEXT_GROUPS,
    CleanupRules,
    Lexicon,
    PromptSet,
    Shot,
)

__all__ = [
    "FORMATS",
    "SPLITS",
    "TEXT_GROUPS",
    "CleanupRules",
    "Lexicon",
    "PromptSet",
    "Shot",
    "Task",
    "parse_task",
]

# Fields that are not there when they are left out.
NO_DEFAULT = ("lexicon", "hh_config", "scales", "shots", "instructions")


@dataclasses.dataclass(frozen=True)
class Scale:
    """One attribute asked for by grades, the most of it first.

    Attributes:
      grades: falling.
      affixes: one of each grade, without parentheses.
      systems: system messages, aligned with `affixes`.
    """

    grades: tuple[float, ...]
    affixes: tuple[str, ...]
    systems: tuple[str, ...]


SCORING_OPENING = "Read the following conversation between a human and an assistant."


@dataclasses.dataclass(frozen=True)
class JudgeWording:
    """What an API judge is told around a dialogue and two replies; ours by default.

    Attributes:
      system: the system message.
      intro: before the dialogue.
      lead: before the replies; "": none, and the dialogue follows the introduction at
        once, as in our wording.
    """

    system: str = "You are a careful and fair judge of replies."
    intro: str = "Below is a conversation, then two possible replies of its assistant."
    lead: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One attribute to train for: every text and number that defines it.

    Attributes:
      name: the name of the task, equal to the name of its file.
      attribute: what the replies shall be more of, in a word; default: the name.
      description: one or two sentences for a reader.
      format: "dialogue" (role markers, affix in the last header) or "chat" (the
        chat template of the tokenizer, contrast in the system message).
      human_marker: text that opens a human turn in the dialogue format.
      assistant_marker: text that opens an assistant turn in the dialogue format.
      prompt_template: what the last human turn becomes; holds "{text}" once.
      lead_in: text after the last assistant marker that the reply continues.
      affixes: (positive, negative) pairs, without parentheses, of the strengths that
        were asked for.
      systems: (positive, negative) system messages, aligned with `affixes`.
      scoring_instructions: questions for scored labels, aligned with `affixes`.
      strengths: of all affix pairs of the file, whether they were asked for or not.
      judge_questions: question by name, for the judges of the final table.
      lexicon: the word list that may judge the task, or None.
      stop_strings: texts that end a reply; none in the chat format.
      forbidden_strings: texts that are never sampled.
      cleanup: how raw replies are cleaned.
      prompt_tokens: longest prompt, in tokens.
      reply_tokens: longest reply, in tokens.
      hh_config: the hh-rlhf subset with prompts for the task, or None.
      prompts: the task's own prompts.
      source: for each text group, where its wording is from.
      folder: the folder of the task file, or None for a task of this package.
      defaults: fields that the file leaves out, and that have a default.
      scales: from the most of the attribute to the least, for graded sampling.
      scoring_opening: the line that a scoring prompt opens with.
      judge_wording: what an API judge is told around the replies.
      more_instructions: questions for scored labels beside those of the affixes.
      shots: solved examples for whoever scores.
    """

    name: str
    attribute: str
    description: str
    format: str
    human_marker: str
    assistant_marker: str
    prompt_template: str
    lead_in: str
    affixes: tuple[tuple[str, str], ...]
    systems: tuple[tuple[str, str], ...]
    scoring_instructions: tuple[str, ...]
    strengths: tuple[str, ...]
    judge_questions: dict[str, str] = dataclasses.field(hash=False)
    lexicon: Lexicon | None
    stop_strings: tuple[str, ...]
    forbidden_strings: tuple[str, ...]
    cleanup: CleanupRules
    prompt_tokens: int
    reply_tokens: int
    hh_config: str | None
    prompts: PromptSet
    source: dict[str, str] = dataclasses.field(hash=False)
    folder: str | None
    defaults: tuple[str, ...]
    scales: tuple[Scale, ...] = ()
    scoring_opening: str = SCORING_OPENING
    judge_wording: JudgeWording = JudgeWording()
    more_instructions: tuple[str, ...] = ()
    shots: tuple[Shot, ...] = ()

    @property
    def all_instructions(self) -> tuple[str, ...]:
        """All questions for scored labels, those of the affix pairs first."""
        return self.scoring_instructions + self.more_instructions


def parse_task(
    table: Mapping[str, Any],
    where: str,
    folder: str | None,
    strengths: Sequence[str] = (fields.MIDDLE,),
) -> Task:
    """Check a parsed task file and make the task of it.

    Args:
      table: what `tomllib` read.
      where: name of the file, for the errors.
      folder: folder of the file, or None for a task of this package.
      strengths: of the affix pairs that the task shall have.

    Returns:
      The task.

    Raises:
      ValueError: with a line for each thing that is wrong: the file, the field, the
        value and what is accepted.
    """
    try:
        held = schema.from_dict(fields.TaskFile, table, exact=False)
        wrong = list(fields.broken_rules(held))
    except schema.Problems as error:
        wrong = error.lines()
    if wrong:
        raise ValueError("\n".join(f"{where}: {line}" for line in wrong))
    there = tuple(dict.fromkeys(pair.strength for pair in held.affixes))
    lacking = [one for one in strengths if one not in there]
    if lacking:
        raise ValueError(
            f"{where}: no affix pair has strength {', '.join(map(repr, lacking))}; it "
            f"has {', '.join(there)}. Ask for one of these by pairs.strength, or write "
            f'a pair of [[affixes]] with strength = "{lacking[0]}".'
        )
    held = dataclasses.replace(
        held, affixes=tuple(p for p in held.affixes if p.strength in strengths)
    )
    left_out = [
        field.name
        for field in dataclasses.fields(fields.TaskFile)
        if field.name not in table and field.name not in NO_DEFAULT
    ]
    return _task(held, folder, left_out, there)


def _task(
    held: fields.TaskFile,
    folder: str | None,
    left_out: list[str],
    strengths: tuple[str, ...],
) -> Task:
    """Return the task of a file that has been checked, defaults filled in."""
    pairs = tuple((pair.positive, pair.negative) for pair in held.affixes)
    systems = tuple(
        (pair.system_positive, pair.system_negative)
        if pair.system_positive
        else tuple(map(defaults.system_message, (pair.positive, pair.negative)))
        for pair in held.affixes
    )
    instructions = tuple(
        pair.instruction or defaults.instruction(pair.positive, pair.negative)
        for pair in held.affixes
    )
    scales = tuple(
        Scale(
            tuple(map(float, one.grades)),
            one.affixes,
            one.systems or tuple(map(defaults.system_message, one.affixes)),
        )
        for one in held.scales
    )
    question = defaults.judge_question(held.attribute, *pairs[0])
    made = {
        "systems": not all(pair.system_positive for pair in held.affixes),
        "scoring": not all(pair.instruction for pair in held.affixes),
        "judge_questions": not held.judge_questions,
    }
    source = {
        group: held.source.get(group)
        or (defaults.SOURCE if made.get(group) else defaults.UNSAID)
        for group in TEXT_GROUPS
    }
    stop = () if held.format == "chat" else (held.human_marker,)
    return Task(
        name=held.name,
        attribute=held.attribute or held.name,
        description=held.description or defaults.description(*pairs[0]),
        format=held.format,
        human_marker=held.human_marker,
        assistant_marker=held.assistant_marker,
        prompt_template=held.prompt_template,
        lead_in=held.lead_in,
        affixes=pairs,
        systems=systems,
        scoring_instructions=instructions,
        strengths=strengths,
        judge_questions=dict(held.judge_questions) or {held.name: question},
        lexicon=held.lexicon,
        stop_strings=stop if held.stop_strings is None else held.stop_strings,
        forbidden_strings=held.forbidden_strings,
        cleanup=held.cleanup,
        prompt_tokens=held.prompt_tokens,
        reply_tokens=held.reply_tokens,
        hh_config=held.hh_config or None,
        prompts=held.prompts,
        source=source,
        folder=folder,
        defaults=tuple(dict.fromkeys(left_out + [g for g in made if made[g]])),
        scales=scales,
        more_instructions=held.instructions,
        shots=held.shots,
    )
