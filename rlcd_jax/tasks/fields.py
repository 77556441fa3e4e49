"""The fields of a task file: their types, their defaults, and what must fit together.

A file must hold a name, `[[affixes]]` and prompts; whatever else it leaves out has
the default written here, or is made of the affix pairs by `rlcd_jax.tasks.defaults`.
No other field is accepted, so a misspelt name is an error and never a silent default.
A row of `[[affixes]]` holds all that belongs to one pair: one index serves affixes,
system messages and scoring instructions.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from typing import Literal

from rlcd_jax import records, schema

FORMATS = ("dialogue", "chat")
CleanupMode = Literal["corrected", "released"]
Unfinished = Literal["reject", "cut_sentence", "keep"]
Strength = Literal["weak", "middle", "strong"]
MIDDLE: Strength = "middle"
TEXT_GROUPS = ("affixes", "systems", "scoring", "judge_questions", "prompts")
SPLITS = ("train", "dev", "test")
HH_CONFIGS = ("harmless-base", "helpful-base")  # subsets of hh-rlhf
# What each lexicon can measure: a task whose attribute is another is not scored by it.
LEXICONS = {"vader": ("cheerful", "happy", "joyful", "optimistic", "positive")}
HEADER_BREAKERS = re.compile(r"[()\r\n]")  # an affix stands in parentheses in a header


@dataclasses.dataclass(frozen=True)
class AffixPair:
    """A row of `[[affixes]]`: two sides of one contrast and the texts about it.

    Attributes:
      positive: affix that asks for the attribute, without parentheses.
      negative: affix that asks for its opposite, alike on the surface.
      system_positive: system message of the chat format; "": made of the affix.
      system_negative: the same for the negative side.
      instruction: question for scored labels; "": made of the pair.
      strength: how far apart the two sides are; a run draws from those it asks for.
    """

    positive: str = schema.filled()
    negative: str = schema.filled()
    system_positive: str = ""
    system_negative: str = ""
    instruction: str = ""
    strength: Strength = MIDDLE

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class ScaleFile:
    """A row of `[[scales]]`: one attribute asked for by grades, the most first.

    Attributes:
      grades: how much of the attribute, falling; 0: neither it nor its opposite.
        A margin is in these units.
      affixes: one of each grade, without parentheses, alike on the surface.
      systems: system messages of the chat format; (): made of the affixes.
    """

    grades: tuple[float, ...]
    affixes: tuple[str, ...] = schema.filled()
    systems: tuple[str, ...] = ()

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class Shot:
    """A row of `[[shots]]`: a solved example for whoever scores pairs.

    Attributes:
      prompt: one human turn, as in `prompts.texts`.
      better: the reply that is right for the task.
      worse: the other one.
      reason: why, in a sentence; shown where the scorer is to give reasons itself.
    """

    prompt: str = schema.filled()
    better: str = schema.filled()
    worse: str = schema.filled()
    reason: str = schema.filled()

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """A word list that may score the replies of a task without any model.

    Attributes:
      name: which word list, one of `LEXICONS`.
      attribute: what it measures here; must be the task's attribute.
    """

    name: str
    attribute: str

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class CleanupRules:
    """How a raw reply becomes a reply, or is rejected.

    Attributes:
      mode: "corrected" (role markers count only at the start of a line, a reply
        that ended by itself is accepted) or "released" (the rule of the code
        published with the paper, kept for comparison).
      role_names: names that open a turn, human first, without the colon.
      unfinished: what becomes of a reply that hit the token limit: "reject" (as in
        the paper), "cut_sentence" (kept up to its last whole sentence) or "keep".
      min_characters: a shorter reply is rejected as empty.
    """

    mode: CleanupMode = "corrected"
    role_names: tuple[str, ...] = schema.filled(default=("Human", "Assistant"))
    unfinished: Unfinished = "reject"
    min_characters: int = schema.between(1, records.MOST, default=1)

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class PromptSet:
    """The prompts of a task, and how they are split.

    Attributes:
      file: JSONL file, relative to the folder of the task file; "": none.
      texts: prompts of one human turn each, in place of a file.
      train: share of the prompts that belong to training, in [0, 1].
      dev: share used for choices between runs.
      test: share used for the final table; the three add up to 1.
    """

    file: str = ""
    texts: tuple[str, ...] = ()
    train: float = schema.between(0.0, 1.0, default=0.66)
    dev: float = schema.between(0.0, 1.0, default=0.13)
    test: float = schema.between(0.0, 1.0, default=0.21)

    def __post_init__(self):
        schema.validate(self, exact=False)


@dataclasses.dataclass(frozen=True)
class TaskFile:
    """The fields of a task file; `Task` says what each means.

    Only `name` and `affixes` are needed here, and prompts: `prompts` or `hh_config`.
    """

    name: str = schema.filled()
    affixes: tuple[AffixPair, ...] = schema.filled()
    scales: tuple[ScaleFile, ...] = ()
    shots: tuple[Shot, ...] = ()
    instructions: tuple[str, ...] = ()
    attribute: str = ""
    description: str = ""
    format: Literal["dialogue", "chat"] = "dialogue"
    human_marker: str = schema.filled(default="\n\nHuman:")
    assistant_marker: str = schema.filled(default="\n\nAssistant:")
    prompt_template: str = schema.filled(default="{text}")
    lead_in: str = ""
    stop_strings: tuple[str, ...] | None = None
    forbidden_strings: tuple[str, ...] = ("\\", "\\\\", "`", "```")
    prompt_tokens: int = schema.between(1, records.MOST, default=192)
    reply_tokens: int = schema.between(1, records.MOST, default=300)
    hh_config: str = ""
    judge_questions: dict[str, str] = dataclasses.field(default_factory=dict)
    lexicon: Lexicon | None = None
    cleanup: CleanupRules = CleanupRules()
    prompts: PromptSet = PromptSet()
    source: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        schema.validate(self, exact=False)


def broken_rules(held: TaskFile) -> Iterator[str]:
    """Yield what does not fit together in a task file of well formed fields."""
    if not re.fullmatch(r"[\w .-]+", held.name):
        yield (
            f"field 'name' is {schema.shown(held.name)}; accepted: letters, digits, "
            "blanks, '_', '-' and '.', because ids of prompts begin with it"
        )
    for index, pair in enumerate(held.affixes):
        yield from _broken_pair(pair, f"affixes[{index}]")
    for index, scale in enumerate(held.scales):
        yield from _broken_scale(scale, f"scales[{index}]")
    yield from _broken_scoring(held)
    if held.prompt_template.count("{text}") != 1:
        yield (
            f"field 'prompt_template' is {schema.shown(held.prompt_template)}; "
            "accepted: text that holds '{text}' exactly once"
        )
    if held.format == "chat" and held.stop_strings:
        yield (
            f"field 'stop_strings' is {schema.shown(list(held.stop_strings))}; "
            "accepted: an empty list when format is 'chat', where the end-of-turn "
            "token ends a reply"
        )
    for name in ("stop_strings", "forbidden_strings"):
        if "" in (getattr(held, name) or ()):
            yield f"field '{name}' holds an empty text; accepted: texts of a character"
    markers = [held.human_marker, held.assistant_marker]
    names = [marker.strip().removesuffix(":") for marker in markers]
    roles = list(held.cleanup.role_names)
    if len(roles) != 2 or (held.format == "dialogue" and roles != names):
        yield (
            f"field 'cleanup.role_names' is {schema.shown(roles)}; accepted: two "
            "names, "
            "human first, which in the dialogue format are those of the markers, "
            f"{schema.shown(names)}"
        )
    for name, text in held.judge_questions.items():
        if schema.is_blank(text):
            yield f"field 'judge_questions.{name}' is blank; accepted: a question"
    for group in held.source:
        if group not in TEXT_GROUPS:
            near = schema.near(group, TEXT_GROUPS)
            yield (
                f"unknown field 'source.{group}' {near}".rstrip()
                + f"; accepted: {schema.listed(TEXT_GROUPS)}"
            )
    yield from _broken_lexicon(held)
    yield from _broken_prompts(held)


def _broken_pair(pair: AffixPair, name: str) -> Iterator[str]:
    for side in ("positive", "negative"):
        text = getattr(pair, side)
        if HEADER_BREAKERS.search(text):
            yield (
                f"field '{name}.{side}' is {schema.shown(text)}; accepted: one line "
                "without parentheses, because it stands in parentheses in a header"
            )
    if pair.positive == pair.negative:
        yield (
            f"field '{name}.negative' is {schema.shown(pair.negative)}, as is "
            f"'{name}.positive'; accepted: two texts that differ"
        )
    if bool(pair.system_positive) != bool(pair.system_negative):
        yield (
            f"field '{name}' has one of 'system_positive' and 'system_negative'; "
            "accepted: both, or neither (they are then made of the affixes)"
        )


def _broken_scale(scale: ScaleFile, name: str) -> Iterator[str]:
    grades, affixes = list(scale.grades), list(scale.affixes)
    if len(grades) < 2 or any(a <= b for a, b in itertools.pairwise(grades)):
        yield (
            f"field '{name}.grades' is {schema.shown(grades)}; accepted: two numbers "
            "or more, each lower than the one before"
        )
    for field in ("affixes", "systems"):
        texts = getattr(scale, field)
        if len(texts) != len(grades) and (texts or field == "affixes"):
            yield (
                f"field '{name}.{field}' has {len(texts)} texts; accepted: one of each "
                f"of the {len(grades)} grades"
            )
        if len(set(texts)) < len(texts):
            yield f"field '{name}.{field}' has a text twice; accepted: each once"
    for number, text in enumerate(affixes):
        if HEADER_BREAKERS.search(text):
            yield (
                f"field '{name}.affixes[{number}]' is {schema.shown(text)}; accepted: "
                "one line without parentheses, because it stands in parentheses in a "
                "header"
            )


def _broken_scoring(held: TaskFile) -> Iterator[str]:
    """Yield what is wrong with the questions and examples for scored labels."""
    known = [pair.instruction for pair in held.affixes if pair.instruction]
    for index, text in enumerate(held.instructions):
        name = f"instructions[{index}]"
        if schema.is_blank(text):
            yield f"field '{name}' is blank; accepted: a question"
        elif text in known:
            yield (
                f"field '{name}' is {schema.shown(text)}, which is asked already; "
                "accepted: each question once"
            )
        known.append(text)
    for index, shot in enumerate(held.shots):
        if shot.better == shot.worse:
            yield (
                f"field 'shots[{index}].worse' is {schema.shown(shot.worse)}, as is "
                f"'shots[{index}].better'; accepted: two replies that differ"
            )


def _broken_lexicon(held: TaskFile) -> Iterator[str]:
    lexicon, attribute = held.lexicon, held.attribute or held.name
    if lexicon is None:
        return
    if lexicon.name not in LEXICONS:
        yield (
            f"field 'lexicon.name' is {schema.shown(lexicon.name)}; accepted: "
            f"{schema.listed(LEXICONS)}"
        )
        return
    if lexicon.attribute not in LEXICONS[lexicon.name]:
        yield (
            f"field 'lexicon.attribute' is {schema.shown(lexicon.attribute)}; "
            "accepted, "
            f"being what {lexicon.name!r} measures: "
            f"{schema.listed(LEXICONS[lexicon.name])}. For "
            "any other attribute take [lexicon] out: a language model then judges"
        )
    elif lexicon.attribute != attribute:
        yield (
            f"field 'lexicon.attribute' is {schema.shown(lexicon.attribute)}, but the "
            f"attribute of the task is {schema.shown(attribute)} (field 'attribute', "
            "else the name); accepted: the same. Take [lexicon] out (a language model "
            "then judges), or say in "
            "'attribute' that the task is about what the lexicon measures"
        )


def _broken_prompts(held: TaskFile) -> Iterator[str]:
    prompts = held.prompts
    if prompts.file and prompts.texts:
        yield "fields 'prompts.file' and 'prompts.texts' are both there; accepted: one"
    if not (prompts.file or prompts.texts or held.hh_config):
        yield (
            "no prompts; accepted: 'prompts.file' (JSONL, relative to the task file), "
            "'prompts.texts' (a list of texts) or 'hh_config' (prompts of hh-rlhf)"
        )
    if held.hh_config and held.hh_config not in HH_CONFIGS:
        yield (
            f"field 'hh_config' is {schema.shown(held.hh_config)}; accepted: "
            f"{schema.listed(HH_CONFIGS)}"
        )
    first: dict[str, int] = {}
    for index, text in enumerate(prompts.texts):
        name, words = f"prompts.texts[{index}]", " ".join(text.split())
        if schema.is_blank(words):
            yield (
                f"field '{name}' is {schema.shown(text)}; accepted: text that is not "
                "blank"
            )
        elif words in first:
            yield (
                f"field '{name}' is {schema.shown(text)}, as is "
                f"'prompts.texts[{first[words]}]'; accepted: each text once"
            )
        first.setdefault(words, index)
    shares = [getattr(prompts, split) for split in SPLITS]
    if abs(sum(shares) - 1.0) > 1e-9:
        yield (
            f"fields 'prompts.train/dev/test' are {shares}; accepted: shares that add "
            "up to 1"
        )
