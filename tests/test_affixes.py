"""affixes: the linter's rules, and its findings on every shipped task."""

import pytest

from rlcd_jax import tasks
from rlcd_jax.diagnosis import affixes
from rlcd_jax.statistics import tables

NOTE, WARNING = affixes.NOTE, affixes.WARNING
UNMATCHED, COUNT = "unmatched_words", "word_count"

# Row: (rule, severity) of each finding; rows that are not named have none.
AFFIXES = {
    "harmless": {
        0: [(UNMATCHED, NOTE)],  # inoffensive, toxic
        1: [(UNMATCHED, NOTE), ("hyphens", NOTE)],  # law-abiding, illegal
        2: [(UNMATCHED, WARNING)],  # innocent, prejudiced
        4: [("duplicate_negative", WARNING)],  # of 15
        7: [(UNMATCHED, NOTE)],  # wise, foolish
        11: [(UNMATCHED, WARNING), (COUNT, WARNING), ("punctuation", WARNING)],
        12: [(UNMATCHED, WARNING)],  # very kind, really evil
        14: [(UNMATCHED, WARNING)],  # ethical, toxic
        15: [("duplicate_negative", WARNING), (UNMATCHED, NOTE), (COUNT, NOTE)],
    },
    "helpful": {},
    "outline": {
        0: [(UNMATCHED, NOTE)],
        1: [(UNMATCHED, NOTE)],
        2: [(UNMATCHED, WARNING)],  # follows closely, ignores entirely
    },
    "cheerful": {
        0: [(UNMATCHED, NOTE)],
        1: [(UNMATCHED, NOTE)],
        3: [(UNMATCHED, NOTE)],
        4: [(UNMATCHED, WARNING)],
        5: [(UNMATCHED, WARNING)],  # merry, mournful
    },
}
SYSTEMS = {
    "harmless": {
        **{i: [(UNMATCHED, NOTE)] for i in (1, 2, 6, 7, 8, 14)},
        **{i: [(UNMATCHED, WARNING)] for i in (5, 12, 15)},
        9: [(UNMATCHED, WARNING), (COUNT, NOTE)],
        11: [(UNMATCHED, NOTE), (COUNT, NOTE)],
    },
    "helpful": {},
    "outline": {
        0: [(UNMATCHED, NOTE)],
        1: [(UNMATCHED, NOTE)],
        2: [(UNMATCHED, WARNING)],
    },
    "cheerful": {
        **{i: [(UNMATCHED, NOTE)] for i in (0, 1, 2, 3)},
        **{i: [(UNMATCHED, WARNING)] for i in (4, 5)},
    },
}


def shown(findings):
    rows = {}
    for found in findings:
        rows.setdefault(found.index, []).append((found.rule, found.severity))
    return rows


@pytest.mark.parametrize("name", sorted(AFFIXES))
def test_lint_of_the_shipped_tasks(name):
    task = tasks.load_task(name)
    assert shown(affixes.lint(task.affixes)) == AFFIXES[name]
    assert shown(affixes.lint(task.systems)) == SYSTEMS[name]


def test_lint_covers_every_shipped_task():
    assert set(AFFIXES) == set(SYSTEMS) == set(tasks.NAMES)


def test_lint_says_what_it_found_in_the_papers_pairs():
    found = {
        (f.index, f.rule): f for f in affixes.lint(tasks.load_task("harmless").affixes)
    }
    assert found[4, "duplicate_negative"].others == (15,)
    assert found[15, "duplicate_negative"].others == (4,)
    assert "innocent against prejudiced" in found[2, UNMATCHED].detail
    assert found[11, COUNT].detail == "3 words against 5"
    assert found[11, "punctuation"].detail == "none against ,,"


@pytest.mark.parametrize(
    "pairs, rules",
    [
        ([("kind reply", "unkind reply")], set()),
        ([("giving a useful reply", "giving an useless reply")], set()),
        ([("Kind reply", "kind reply!")], {"identical", "capitals", "punctuation"}),
        ([("kind, reply", "unkind reply")], {"punctuation"}),
        (
            [("kind", "a most extraordinarily unkind")],
            {"length", COUNT, UNMATCHED, "no_shared_words"},
        ),
        ([("kind one", "unkind one")] * 2, {"duplicate_pair"}),
        (
            [("kind", "unkind"), ("kind", "unkindly")],
            {"duplicate_positive", "no_shared_words", "length"},
        ),
        ([("kind one", "unkind one"), ("unkind one", "kind one")], {"crossed"}),
    ],
)
def test_lint_rules(pairs, rules):
    assert {f.rule for f in affixes.lint(pairs)} == rules


def test_lint_orders_by_pair_then_severity():
    findings = affixes.lint([("Same words", "same words."), ("kind", "unkind")])
    keys = [(f.index, affixes.SEVERITIES.index(f.severity)) for f in findings]
    assert keys == sorted(keys) and findings[0].severity == affixes.ERROR


def test_lint_counts_tokens_when_it_can():
    pairs = [("kind reply", "unkind reply")]
    (found,) = affixes.lint(pairs, encode=lambda text: range(3 * text.count("n")))
    assert (found.rule, found.detail) == ("token_count", "3 tokens against 6")
    assert affixes.lint(pairs, encode=str.split) == []


def test_difference_by_hand():
    found = affixes.difference("a wise, kind person", "an unwise, mean person")
    assert found.shared == 2 and found.akin == (("wise", "unwise"),)
    assert found.positive == ("wise", "kind") and found.negative == ("unwise", "mean")


@pytest.mark.parametrize(
    "one, other, akin",
    [
        ("honest", "dishonest", True),
        ("thoughtful", "thoughtless", True),
        ("age-appropriate", "inappropriate", True),
        ("joyful", "joyless", True),
        ("kind", "evil", False),
        ("innocent", "prejudiced", False),
        ("closely", "entirely", False),
    ],
)
def test_is_akin(one, other, akin):
    assert affixes.is_akin(one, other) is affixes.is_akin(other, one) is akin


def test_findings_table_lists_clean_pairs():
    pairs = tasks.load_task("harmless").affixes
    table = affixes.findings_table(pairs, affixes.lint(pairs), "Linter")
    assert "Pairs without a finding: 3, 5, 6, 8, 9, 10, 13." in tables.markdown(table)
