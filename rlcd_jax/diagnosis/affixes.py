"""A linter for affix pairs, whose sides should differ in meaning and nothing else.

The paper asks two things of a pair of contrast prompts: the positive one must bring out
the attribute more than the negative one, and the two must otherwise look alike. The
second is the one that matters more in practice, because whatever else differs is learnt
as if it were the attribute. The first shows in replies (`pair_readings`); the second
shows in the text, and is looked at here. A finding is a hint for a reader: antonyms may
have no letters in common and still be the best pair there is.

Source: RLCD (arXiv 2307.12950) section 3.2.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import re
from collections.abc import Callable, Sequence

from rlcd_jax.statistics import tables, wording

ERROR, WARNING, NOTE = "error", "warning", "note"  # worst first
SEVERITIES = (ERROR, WARNING, NOTE)
SEPARATORS = re.compile(r"[^\w\s'-]")
ARTICLES = ("a", "an", "the")
AKIN_LETTERS = 3  # a run of so many common letters, and
AKIN_SHARE = 0.4  # of so much of the longer word, makes two words akin
LENGTH_RATIO = 1.5  # longer side over shorter side, in characters
TOKEN_GAP = 3  # tokens


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a rule says about one pair; `others` are the other rows it is about."""

    index: int
    rule: str
    severity: str
    detail: str
    others: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Difference:
    """The two sides word by word.

    Attributes:
      shared: number of words that both have, articles counted as equal.
      positive: the other words of the positive side.
      negative: those of the negative side.
      akin: pairs of other words that are forms of one word, as in (kind, unkind).
    """

    shared: int
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    akin: tuple[tuple[str, str], ...]


def lint(
    pairs: Sequence[tuple[str, str]],
    encode: Callable[[str], Sequence[int]] | None = None,
) -> list[Finding]:
    """Return what is unlike in the pairs, worst first within each pair.

    Args:
      pairs: (positive, negative) affixes, or system messages.
      encode: the generator's tokenizer; None leaves lengths in tokens out.
    """
    findings = _duplicates(pairs)
    for index, (positive, negative) in enumerate(pairs):
        for rule in (_words, _lengths, _marks):
            findings += [
                Finding(index, *parts) for parts in rule(positive.strip(), negative)
            ]
        if encode is not None:
            findings += _tokens(index, positive, negative, encode)
    return sorted(findings, key=lambda f: (f.index, SEVERITIES.index(f.severity)))


def difference(positive: str, negative: str) -> Difference:
    """Return what two sides share and what they do not."""
    one, two = (
        collections.Counter(
            "a" if word in ARTICLES else word for word in wording.words(text)
        )
        for text in (positive, negative)
    )
    ours, theirs = list((one - two).elements()), list((two - one).elements())
    akin, left = [], list(theirs)
    for word in ours:
        match = next((other for other in left if is_akin(word, other)), None)
        if match is not None:
            akin.append((word, match))
            left.remove(match)
    return Difference((one & two).total(), tuple(ours), tuple(theirs), tuple(akin))


def is_akin(word: str, other: str) -> bool:
    """Say whether two words look like forms of one: honest, dishonest."""
    matcher = difflib.SequenceMatcher(None, word, other, autojunk=False)
    run = matcher.find_longest_match().size
    return run >= AKIN_LETTERS and run >= AKIN_SHARE * max(len(word), len(other))


def findings_table(
    pairs: Sequence[tuple[str, str]], findings: Sequence[Finding], caption: str
) -> tables.Table:
    """Return the findings as a table with one row each."""
    rows = []
    for finding in findings:
        positive, negative = pairs[finding.index]
        cells = (finding.severity, finding.rule, finding.detail, positive, negative)
        rows.append((str(finding.index), cells))
    names = ("severity", "rule", "what was found", "positive", "negative")
    without = sorted(set(range(len(pairs))) - {f.index for f in findings})
    listed = ", ".join(map(str, without)) or "none"
    return tables.Table(
        caption=caption,
        row_header="pair",
        columns=tuple(map(tables.Column, names)),
        rows=tuple(rows),
        notes=(f"Pairs without a finding: {listed}.",),
    )


def _duplicates(pairs: Sequence[tuple[str, str]]) -> list[Finding]:
    """Report wordings that occur twice, on one side or on both."""
    plain = [tuple(" ".join(wording.words(t)) for t in pair) for pair in pairs]
    findings = []
    for index, (positive, negative) in enumerate(plain):
        others = [i for i in range(len(plain)) if i != index]
        if positive == negative:
            findings.append(
                Finding(index, "identical", ERROR, "both sides have the same words")
            )
        same = tuple(i for i in others if plain[i] == plain[index])
        if same:
            findings.append(_duplicate(index, "pair", ERROR, same))
        for side, name in ((0, "positive"), (1, "negative")):
            alike = tuple(
                i
                for i in others
                if plain[i][side] == plain[index][side] and i not in same
            )
            if alike:
                findings.append(_duplicate(index, name, WARNING, alike))
        crossed = tuple(i for i in others if plain[i][1] == positive)
        if crossed:
            detail = f"its positive is the negative of {_listed(crossed)}"
            findings.append(Finding(index, "crossed", ERROR, detail, crossed))
    return findings


def _duplicate(index: int, name: str, severity: str, rows: tuple[int, ...]) -> Finding:
    detail = f"the same {name} as in {_listed(rows)}"
    return Finding(index, f"duplicate_{name}", severity, detail, rows)


def _words(positive: str, negative: str) -> list[tuple[str, str, str]]:
    """Compare the words: which differ, how they are related, how many there are."""
    findings, apart = [], difference(positive, negative)
    lone_positive = [w for w in apart.positive if w not in {a for a, _ in apart.akin}]
    lone_negative = [w for w in apart.negative if w not in {b for _, b in apart.akin}]
    if lone_positive or lone_negative:
        detail = (
            f"{_quoted(lone_positive)} against {_quoted(lone_negative)}: no form of "
            "one another"
        )
        severity = NOTE if apart.akin else WARNING
        findings.append(("unmatched_words", severity, detail))
    if not apart.shared and (apart.positive or apart.negative):
        findings.append(("no_shared_words", NOTE, "the sides have no word in common"))
    numbers = [len(wording.words(text)) for text in (positive, negative)]
    if numbers[0] != numbers[1]:
        severity = NOTE if abs(numbers[0] - numbers[1]) == 1 else WARNING
        detail = f"{numbers[0]} words against {numbers[1]}"
        findings.append(("word_count", severity, detail))
    return findings


def _lengths(positive: str, negative: str) -> list[tuple[str, str, str]]:
    """Compare the lengths in characters."""
    lengths = [len(text.strip()) for text in (positive, negative)]
    if max(lengths) <= LENGTH_RATIO * max(1, min(lengths)):
        return []
    detail = f"{lengths[0]} characters against {lengths[1]}"
    return [("length", WARNING, detail)]


def _marks(positive: str, negative: str) -> list[tuple[str, str, str]]:
    """Compare punctuation, hyphens and the case of the first letter."""
    findings = []
    marks = [sorted(SEPARATORS.findall(text)) for text in (positive, negative)]
    if marks[0] != marks[1]:
        shown = ["".join(side) or "none" for side in marks]
        findings.append(("punctuation", WARNING, f"{shown[0]} against {shown[1]}"))
    hyphens = [text.count("-") for text in (positive, negative)]
    if hyphens[0] != hyphens[1]:
        detail = f"{hyphens[0]} hyphens against {hyphens[1]}"
        findings.append(("hyphens", NOTE, detail))
    if positive[:1].isupper() != negative.strip()[:1].isupper():
        findings.append(("capitals", WARNING, "only one side starts with a capital"))
    return findings


def _tokens(
    index: int, positive: str, negative: str, encode: Callable[[str], Sequence[int]]
) -> list[Finding]:
    """Compare the lengths in tokens."""
    counts = [len(encode(text)) for text in (positive, negative)]
    if abs(counts[0] - counts[1]) < TOKEN_GAP:
        return []
    detail = f"{counts[0]} tokens against {counts[1]}"
    return [Finding(index, "token_count", NOTE, detail)]


def _listed(rows: Sequence[int]) -> str:
    return "pair " + " and ".join(map(str, rows))


def _quoted(words: Sequence[str]) -> str:
    return ", ".join(words) or "nothing"
