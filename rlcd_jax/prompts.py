"""Texts shown to models: dialogues, contrast prompts, scoring prompts; and clean-up.

A dialogue is a tuple of turns, parsed once; every text is rendered from turns. So an
affix lands in a header because it is a header, not because a search found a string.

Source: RLCD (arXiv 2307.12950) sections 3 and 4 and the code released with it; where
this module differs from the released code, its docstrings say so.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence

from rlcd_jax import records, tasks
from rlcd_jax.text import headers

Chat = Callable[[Sequence[records.Turn], str | None], str]

LOOSE_ASSISTANT = re.compile(r"\bAssistant:")
BLOCK = "\n\n\n\n"
SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]*]*(?=\s|\Z)")
LIST_MARK = re.compile(r"\s*(?:\d+[.)]|[-*•])")
EVAL_MARKERS = ("Human:", "Assistant:", "User:", "human:", "assistant:", "user:")
MARK = "\n\nHuman:"


def parse_dialogue(text: str) -> tuple[tuple[records.Turn, ...], str]:
    r"""Return the turns before the last assistant reply of a dialogue, and that reply.

    A header is "Human:" or "Assistant:" at the start of a line. After a blank line it
    opens a turn; without one, only if it is the other role's, and no last human turn
    that nothing follows. A marker inside a line is the turn's own words. Lines end in
    any way that the systems know, become "\n", and may begin with what is not seen:
    blanks, or characters of no width. Neighbouring turns of one role are one turn, so a
    reply that holds a second "Assistant:" header stays one reply. Only where the last
    human turn has no header after it is its last "Assistant:" taken as one.

    Args:
      text: a dialogue in the format of hh-rlhf, or a prompt that ends in "Assistant:".

    Returns:
      The turns, the last one human, and the reply ("" for a prompt).

    Raises:
      ValueError: the text is not a dialogue in which the assistant has a turn.

    Source: the released code cuts after the last "Assistant:" in the text and leaves
      its search mark in the prompt when no blank line is before it.
    """
    sections = headers.read_sections(text)
    turns: list[records.Turn] = []
    for section in sections:
        _add_turn(turns, section.role, section.words)
    if turns[-1].role == "human":
        loose = list(LOOSE_ASSISTANT.finditer(turns[-1].text))
        if loose:
            words, cut = turns.pop().text, loose[-1]
            _add_turn(turns, "human", words[: cut.start()])
            _add_turn(turns, "assistant", words[cut.end() :])
        elif sections[-1].loose:  # nobody answers it: it is the reply's own words
            turns.pop()
            words = f"{turns.pop().text}\n{sections[-1].header}{sections[-1].words}"
            _add_turn(turns, "assistant", words)
        else:
            raise ValueError(
                f"the dialogue ends with {text[-30:]!r} and the assistant has no turn "
                "there; accepted: a dialogue whose last header is 'Assistant:'"
            )
    reply = turns.pop().text
    if not turns:
        raise ValueError(
            f"the dialogue {text[:30]!r} has no human turn; accepted: at least one"
        )
    return tuple(turns), reply


def _add_turn(turns: list[records.Turn], role: str, words: str) -> None:
    words = words.strip()
    if turns and turns[-1].role == role:
        words = "\n\n".join(t for t in (turns.pop().text, words) if t)
    turns.append(records.Turn(role, words))


def _header(marker: str, affix: str | None) -> str:
    """Return "Assistant:" or "Assistant (affix):" with the marker's blank line."""
    return marker if affix is None else f"{marker.removesuffix(':')} ({affix}):"


def _filled(turns: Sequence[records.Turn], task: tasks.Task) -> list[records.Turn]:
    """Return the turns with the last one put into the task's template."""
    *earlier, last = turns
    text = task.prompt_template.replace("{text}", last.text)
    return [*earlier, dataclasses.replace(last, text=text)]


def render_dialogue(
    turns: Sequence[records.Turn],
    task: tasks.Task,
    final_affix: str | None = None,
    earlier_affix: str | None = None,
) -> str:
    """Return a dialogue as text that ends where the reply begins.

    Args:
      turns: the turns, the last one human.
      task: gives the markers, the template of the last turn and the lead-in.
      final_affix: text in parentheses in the header of the reply to come.
      earlier_affix: the same for the headers of all earlier assistant turns.

    Returns:
      Text that ends in "Assistant:", "Assistant (affix):" or the lead-in, without
      outer blanks.
    """
    text = ""
    for turn in _filled(turns, task):
        human = turn.role == "human"
        marker = task.human_marker if human else task.assistant_marker
        words = turn.text.strip()
        text += _header(marker, None if human else earlier_affix)
        text += f" {words}" if words else ""
    return (text + _header(task.assistant_marker, final_affix) + task.lead_in).strip()


def _render_chat(
    turns: Sequence[records.Turn],
    task: tasks.Task,
    system: str | None,
    chat: Chat | None,
) -> str:
    if chat is None:
        raise ValueError(
            f"task {task.name!r} is in the chat format and no chat template was given; "
            "pass the tokenizer's chat function, or use the dialogue format"
        )
    return chat(_filled(turns, task), system) + task.lead_in.lstrip()


def plain_prompt(
    prompt: records.Prompt, task: tasks.Task, chat: Chat | None = None
) -> str:
    """Return the prompt without an affix: what RLAIF samples from and the policy sees.

    Args:
      prompt: a dialogue.
      task: gives the format.
      chat: `(turns, system) -> text`, the tokenizer's; needed for the chat format.
    """
    if task.format == "chat":
        return _render_chat(prompt.turns, task, None, chat)
    return render_dialogue(prompt.turns, task)


def contrast_prompts(
    prompt: records.Prompt, task: tasks.Task, index: int, chat: Chat | None = None
) -> tuple[str, str]:
    """Return the positive and the negative prompt of one affix pair.

    In the dialogue format the reply's header carries the side's affix and every
    earlier assistant header the opposite one. In the chat format the system message
    carries the contrast.

    Args:
      prompt: a dialogue.
      task: gives the affix pairs or the system messages.
      index: which pair, the same for both sides.
      chat: as in `plain_prompt`.

    Source: RLCD section 3.2; the released code's treatment of earlier turns.
    """
    if not 0 <= index < len(task.affixes):
        raise ValueError(
            f"affix index {index}; task {task.name!r} accepts 0 to "
            f"{len(task.affixes) - 1}"
        )
    if task.format == "chat":
        positive, negative = (
            _render_chat(prompt.turns, task, system, chat)
            for system in task.systems[index]
        )
        return positive, negative
    positive, negative = task.affixes[index]
    return (
        render_dialogue(prompt.turns, task, positive, negative),
        render_dialogue(prompt.turns, task, negative, positive),
    )


def scoring_prompt(plain: str, reply_a: str, reply_b: str, instruction: str) -> str:
    """Return the text whose next token, A or B, says which reply is better.

    Args:
      plain: the dialogue without affixes, ending in its assistant header.
      reply_a: reply shown as (A).
      reply_b: reply shown as (B).
      instruction: what to decide, from the task.

    Source: RLCD section 4 (layout as released; the opening line is our own).
    """
    blocks = (
        "Read the following conversation between a human and an assistant.",
        plain.strip(),
        instruction.strip(),
        "Options:",
        f"(A) {reply_a}",
        f"(B) {reply_b}",
        "The answer is: (",
    )
    return BLOCK.join(blocks)


@dataclasses.dataclass(frozen=True)
class Cleaned:
    """A clean reply, or the reason why there is none: exactly one is not None."""

    text: str | None
    reason: str | None = None


def clean_reply(raw: str, finish: str, rules: tasks.CleanupRules) -> Cleaned:
    """Return the reply in a sampled text, or why the sample is rejected.

    Args:
      raw: the sampled text, with the stop string if one ended it.
      finish: "eos", "stop" or "length".
      rules: the task's rules; `mode` chooses `clean_released` or `clean_corrected`.

    Returns:
      `Cleaned`; the reasons are "no_end", "no_boundary", "unfinished" and "empty".
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
    return Cleaned(text) if text else Cleaned(None, "empty")


def clean_corrected(raw: str, finish: str, rules: tasks.CleanupRules) -> Cleaned:
    """Return the reply, told from the next turn by headers at the start of a line.

    Differs from `clean_released`: a reply ended by the end token is a reply; "Human" in
    prose is prose; blank lines stay; of two assistant turns the first is kept; a header
    with an affix, "Assistant (kind):", is a header, so that no affix leaks into a
    reply; a reply that ran into the token limit is treated by `rules.unfinished`.
    """
    human, assistant = (re.escape(name) for name in rules.role_names)
    affix = r"[ \t]*(?:\([^()\n]*\))?[ \t]*:"
    text = re.sub(rf"\A(?:\s*{assistant}{affix})+", "", raw)
    header = re.search(rf"^[ \t]*(?:{human}|{assistant}){affix}", text, re.MULTILINE)
    if header:
        text = text[: header.start()]
    elif finish == "length":
        text = _without_half_header(text, rules.role_names)
        if rules.unfinished == "reject":
            return Cleaned(None, "unfinished")
        if rules.unfinished == "cut_sentence":
            text = cut_at_sentence(text)
            if not text:
                return Cleaned(None, "unfinished")
        elif rules.unfinished != "keep":
            raise ValueError(
                f"clean-up rule 'unfinished' is {rules.unfinished!r}; accepted: "
                "'reject', 'cut_sentence', 'keep'"
            )
    text = text.strip()
    if len(text) < max(1, rules.min_characters):
        return Cleaned(None, "empty")
    return Cleaned(text)


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
