"""Where turns begin in the text of a dialogue, whatever ends its lines."""

import dataclasses
import re

# Characters of no width, such as U+200B.
NO_WIDTH = r"[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
UNSEEN = rf"(?:[^\S\n]|{NO_WIDTH})*"  # what is not seen in a line
HEADER = re.compile(rf"{UNSEEN}(Human|Assistant):")
BLANK_LINE = re.compile(rf"{UNSEEN}\Z")
# Ends of lines that Windows does not know either: VT, FF, the separators of files,
# groups and records, NEL, U+2028 and U+2029.
OTHER_ENDS = re.compile("[\v\f\x1c-\x1e\x85\u2028\u2029]")


@dataclasses.dataclass(frozen=True)
class Section:
    """A header and the words up to the next one; `loose`: no blank line before it."""

    role: str
    loose: bool
    header: str  # as it is in the text
    lines: list[str]  # the first follows the header

    @property
    def words(self) -> str:
        """The lines as text, without those at its ends in which nothing is seen."""
        seen = [n for n, line in enumerate(self.lines) if not BLANK_LINE.match(line)]
        return "\n".join(self.lines[seen[0] : seen[-1] + 1]) if seen else ""


def read_sections(text: str) -> list[Section]:
    """Return the headers of a dialogue, each with the words after it.

    A header is "Human:" or "Assistant:" at the start of a line: after a blank line, or
    where it is another role's than the header before it.

    Raises:
      ValueError: the text does not start with a header.
    """
    text = _with_plain_ends(text)
    sections: list[Section] = []
    after_blank = True
    for line in text.split("\n"):
        blank = bool(BLANK_LINE.match(line))
        header = HEADER.match(line)
        role = header[1].lower() if header else ""
        if header and (after_blank or role != sections[-1].role):
            words = [line[header.end() :]]
            sections.append(Section(role, not after_blank, header[0], words))
        elif sections:
            sections[-1].lines.append(line)
        elif not blank:
            raise ValueError(
                f"the dialogue starts with {text.strip()[:30]!r}; accepted: 'Human:' "
                "or 'Assistant:' at the start of its first line"
            )
        after_blank = blank
    if not sections:
        raise ValueError(
            f"the dialogue starts with {text[:30]!r}, which holds no word; accepted: "
            "'Human:' or 'Assistant:' at the start of its first line"
        )
    return sections


def _with_plain_ends(text: str) -> str:
    r"""Return a text whose lines end in "\n".

    Line ends that plain texts may hold inside a line, such as U+2028, count as such
    only in a text that has one before a header.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    pieces = OTHER_ENDS.split(text)
    return "\n".join(pieces) if any(map(HEADER.match, pieces[1:])) else text
