"""Clean-up of sampled replies: where a reply ends, and which are cut or rejected.

Source: RLCD (arXiv 2307.12950) and the code released with it; where this module
differs from the released code, its docstrings say so.
"""

import dataclasses
import re
from collections.abc import Sequence

from rlcd_jax import schema, tasks

SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*]*(?=\s|\Z)")
LIST_MARK = re.compile(r"\s*(?:\d+[.)]|[-*•])")
EVAL_MARKERS = ("Human:", "Assistant:", "User:", "human:", "assistant:", "user:")
MARK = "\n\nHuman:"


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A clean reply, or the reason why there is none: exactly one is not None.

    `shortened` says that the reply was cut and lost a sentence that was not whole; it
    is how the text came about and no part of it.
    """

    text: str | None
    reason: str | None = None
    shortened: bool = dataclasses.field(default=False, compare=False)


def clean_reply(raw: str, finish: str, rules: tasks.CleanupRules) -> Cleaned:
    """Return the reply in a sampled text, or why the sample is rejected.

    Args:
      raw: the sampled text, with the stop string if one ended it.
      finish: "eos", "stop" or "length".
      rules: the task's rules; `mode` chooses `clean_released` or `clean_corrected`.

    Returns:
      `Cleaned`; the reasons are "no_end", "no_boundary", "unfinished" and "empty".

    Raises:
      ValueError: there is no such way to finish.
    """
    if finish not in ("eos", "stop", "length"):
        raise ValueError(f"finish is {finish!r}; accepted: 'eos', 'stop', 'length'")
    if rules.mode == "released":
        return clean_released(raw, finish, rules)
    if rules.mode == "corrected":
        return clean_corrected(raw, finish, rules)
    raise ValueError(
        f"clean-up mode is {rules.mode!r}; accepted: 'corrected', 'released'"
    )


def clean_released(raw: str, finish: str, rules: tasks.CleanupRules) -> Cleaned:
    """Return the reply by the rule of the released code, its flaws included.

    Cut at the first "Human" anywhere; then at the last newline and at "</s>", one of
    which must be left; keep what follows the first "Assistant:". A reply that ended by
    itself is rejected when no "Human" follows it.

    Source: `process_filter_result` of the released simulation script.
    """
    human, assistant = rules.role_names
    ends = finish == "eos" and "</s>" not in raw
    text = raw + ("</s>" if ends else "")  # the release decodes the end token as text
    if human not in text:
        return Cleaned(None, "no_end")
    text = text.split(human, 1)[0]
    if "\n" not in text and "</s>" not in text:
        return Cleaned(None, "no_boundary")
    if "\n" in text:
        text = text.rsplit("\n", 1)[0].strip()
    if "</s>" in text:
        text = text.split("</s>", 1)[0].strip()
    if f"{assistant}:" in text:
        text = text.split(f"{assistant}:", 1)[1].strip()
    return Cleaned(None, "empty") if schema.is_blank(text) else Cleaned(text)


def clean_corrected(raw: str, finish: str, rules: tasks.CleanupRules) -> Cleaned:
    """Return the reply, told from the next turn by headers at the start of a line.

    Differs from `clean_released`: a reply ended by the end token is a reply; "Human" in
    prose is prose; blank lines stay; of two assistant turns the first is kept; a header
    with an affix, "Assistant (kind):", is a header, so that no affix leaks into a
    reply; a reply that ran into the token limit is treated by `rules.unfinished`.

    Raises:
      ValueError: the task has an unknown rule for unfinished replies.
    """
    human, assistant = (re.escape(name) for name in rules.role_names)
    affix = r"[ \t]*(?:\([^()\n]*\))?[ \t]*:"
    text = re.sub(rf"\A(?:\s*{assistant}{affix})+", "", raw)
    shortened = False
    header = re.search(rf"^[ \t]*(?:{human}|{assistant}){affix}", text, re.MULTILINE)
    if header:
        text = text[: header.start()]
    elif finish == "length":
        text = _without_half_header(text, rules.role_names)
        if rules.unfinished == "reject":
            return Cleaned(None, "unfinished")
        if rules.unfinished == "cut_sentence":
            whole = cut_at_sentence(text)
            if not whole:
                return Cleaned(None, "unfinished")
            text, shortened = whole, whole != text.strip()
        elif rules.unfinished != "keep":
            raise ValueError(
                f"clean-up rule 'unfinished' is {rules.unfinished!r}; accepted: "
                "'reject', 'cut_sentence', 'keep'"
            )
    text = text.strip()
    if schema.is_blank(text) or len(text) < rules.min_characters:
        return Cleaned(None, "empty")
    return Cleaned(text, shortened=shortened)


def _without_half_header(text: str, role_names: Sequence[str]) -> str:
    """Return the text without a last line that is the start of a header."""
    before, newline, last = text.rpartition("\n")
    line = last.strip()
    for name in role_names:
        starts = name.startswith(line) or re.match(
            rf"{re.escape(name)}[ \t]*(\([^)]*\)?)?[ \t]*\Z", line
        )
        if newline and line and starts:
            return before
    return text


def cut_at_sentence(text: str) -> str:
    """Return the text up to its last whole sentence or list line, "" if it has none.

    The dot of a list number, as in "2.", ends no sentence; a line that starts with a
    list mark is whole when another line follows it.
    """
    end = 0
    for match in SENTENCE_END.finditer(text):
        line = text[text.rfind("\n", 0, match.end()) + 1 : match.end()]
        if not LIST_MARK.fullmatch(line):
            end = match.end()
    start = 0
    for line in text.splitlines(keepends=True):
        mark = LIST_MARK.match(line)
        if line.endswith("\n") and mark and line[mark.end() :].strip():
            end = max(end, start + len(line))
        start += len(line)
    return text[:end].strip()


def postprocess_eval(text: str) -> str:
    """Return an evaluation output as the released code cuts it, its quirks included.

    Cut at the first next human turn; then, for each marker in order, remove it once
    from the front; then, for each in order, cut at its first occurrence anywhere.

    Source: the released evaluation scripts (best_of_n and postprocess).
    """
    text = text.split(MARK, 1)[0].strip()
    for marker in EVAL_MARKERS:
        text = text.removeprefix(marker).strip()
    for marker in EVAL_MARKERS:
        text = text.split(marker, 1)[0]
    return text.strip()


# What `evaluate.cleanup` does to the text of a final reply.
FINAL = {"corrected": str.strip, "released": postprocess_eval}
