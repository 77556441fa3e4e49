"""Tests of rlcd_jax.human and experiments.human; test_human_page has the browser's."""

import collections
import csv
import dataclasses
import io
import json
import re

import numpy as np
import pytest
from scipy import stats

from experiments import human as command
from rlcd_jax import record_files
from rlcd_jax.human import agreement, checks, ratings, reading, results, sheets, study
from rlcd_jax.judging import verdicts
from rlcd_jax.statistics import estimates, tables

SYSTEMS = ("sunny-v1", "pale-v2")
QUESTION = ("mood", "Which reply is in the more cheerful mood? Answer (A) or (B).")


def make_samples(num=30, systems=SYSTEMS):
    """Return replies of two systems; a third one must be ignored."""
    samples = []
    for n in range(num):
        prompt = f"\n\nHuman: How was day {n}?\n\nAssistant:"
        texts = (f"What a lovely day number {n} was!", f"Day {n} was a day.", "Fine.")
        for system, text in zip((*systems, "other"), texts, strict=True):
            samples.append(verdicts.JudgedReply(f"p{n}", system, prompt, text))
    return samples


def make_study(num=30, **changes):
    samples = make_samples(num)
    settings = {
        "task": "cheerful",
        "question": QUESTION,
        "num_annotators": 3,
        "per_annotator": 20,
        "shared": 20,
        "repeats": 4,
        "gold": checks.attention_checks(study.comparisons(samples, SYSTEMS)[0], 3, 0),
        "seed": 0,
    }
    return study.make_study(samples, SYSTEMS, **settings | changes)


def answer_all(folder, made, written, rating_of, names=None):
    """Write an answer file for each annotator, as the page saves it."""
    for sheet in written:
        if names and sheet.annotator not in names:
            continue
        rows = [
            {"item": line.item, "answer": rating_of(line), "seconds": 2.5}
            for line in sheet.key
        ]
        value = {"study": made.id, "annotator": sheet.annotator, "answers": rows}
        record_files.write_json(folder / "answers" / f"{sheet.annotator}.json", value)


def likes_first(line):
    """Rate as one who finds the first system, or a gold check's better reply, better."""
    better_on_b = (line.side_2 == "B") == (line.kind == "gold")
    return 7 if better_on_b else 2


@pytest.fixture
def folder(tmp_path):
    made, written = make_study()
    sheets.write_study(tmp_path, made, written)
    return tmp_path


# --- arrangement ----------------------------------------------------------------------


def count_sides(sheet, kind):
    return collections.Counter(line.side_2 for line in sheet.key if line.kind == kind)


def test_make_study_balances_sides_for_each_annotator():
    _, written = make_study()
    for sheet in written:
        assert count_sides(sheet, "pair") == {"A": 10, "B": 10}
        assert count_sides(sheet, "repeat") == {"A": 2, "B": 2}
        assert abs(count_sides(sheet, "gold")["A"] - 1.5) == 0.5


def test_make_study_odd_numbers_alternate_over_annotators():
    _, written = make_study(num_annotators=2, per_annotator=7, shared=7, repeats=0)
    more = [count_sides(sheet, "pair")["B"] for sheet in written]
    assert more == [4, 3]


def test_make_study_sides_do_not_follow_from_place_or_prompt():
    _, written = make_study(num=200, per_annotator=200, shared=200)
    one, two, _ = ({k.prompt_id: k.side_2 for k in s.key} for s in written)
    assert 60 < sum(one[p] == two[p] for p in one) < 140
    for sheet in written:
        places = [n for n, k in enumerate(sheet.key) if k.side_2 == "B"]
        rest = [n for n, k in enumerate(sheet.key) if k.side_2 == "A"]
        assert stats.mannwhitneyu(places, rest).pvalue > 0.001


def test_make_study_shuffles_for_each_annotator():
    _, written = make_study()
    orders = [[k.prompt_id for k in s.key if k.kind == "pair"] for s in written]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1


def test_make_study_repeats_come_later_with_sides_changed():
    _, written = make_study()
    for sheet in written:
        places = {line.item: n for n, line in enumerate(sheet.key)}
        items = {item.item: item for item in sheet.items}
        again = [line for line in sheet.key if line.kind == "repeat"]
        assert len(again) == 4
        for line in again:
            assert places[line.item] - places[line.repeat_of] >= 20 // 6
            one, two = items[line.repeat_of], items[line.item]
            assert (one.reply_a, one.reply_b) == (two.reply_b, two.reply_a)


def test_make_study_shows_what_the_key_says():
    samples = {(s.prompt_id, s.system): s.reply for s in make_samples()}
    _, written = make_study()
    for sheet in written:
        for item, line in zip(sheet.items, sheet.key, strict=True):
            assert item.item == line.item
            shown_2 = item.reply_b if line.side_2 == "B" else item.reply_a
            if line.kind == "gold":
                assert shown_2 == checks.ATTENTION
            else:
                assert shown_2 == samples[line.prompt_id, SYSTEMS[1]]


def test_make_study_shares_some_pairs_only():
    _, written = make_study(per_annotator=14, shared=6)
    own = [{k.prompt_id for k in s.key if k.kind == "pair"} for s in written]
    assert [len(ids) for ids in own] == [14] * 3
    assert len(own[0] & own[1] & own[2]) == 6
    assert len(own[0] | own[1] | own[2]) == 30


def test_make_study_is_a_function_of_the_seed():
    assert make_study() == make_study()
    assert make_study(seed=1)[1] != make_study()[1]


def test_comparisons_leave_out_identical_replies_and_later_draws():
    samples = make_samples(3)
    same = [
        dataclasses.replace(samples[0], reply="Hm. "),
        dataclasses.replace(samples[1], reply="Hm."),
    ]
    drawn = [
        dataclasses.replace(
            s, prompt_id="p9", draw=n, prompt="Hi", reply=f"{s.reply} {n}"
        )
        for n in range(2)
        for s in samples[:2]
    ]
    pairs, identical = study.comparisons(same + samples[3:] + drawn, SYSTEMS)
    assert identical == 1
    assert [one.prompt_id for one, _ in pairs] == ["p1", "p2", "p9"]
    assert all((one.system, two.system) == SYSTEMS for one, two in pairs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"per_annotator": 31, "shared": 31}, "needs 31 prompts .* there are 30"),
        ({"per_annotator": 20, "shared": 2}, "needs 56 prompts"),
        ({"shared": 21}, "shared is 21"),
        ({"repeats": 7}, "repeats is 7; accepted: 0 to 6"),
        ({"num_annotators": 0}, "annotators is 0"),
    ],
)
def test_make_study_refuses_wrong_sizes(changes, message):
    with pytest.raises(ValueError, match=message):
        make_study(**changes)


def test_comparisons_refuse_unknown_systems_and_double_replies():
    with pytest.raises(ValueError, match="accepted: two of 'sunny-v1', 'pale-v2'"):
        study.comparisons(make_samples(), ("sunny-v1", "x"))
    with pytest.raises(ValueError, match="two replies to prompt 'p0'"):
        study.comparisons([*make_samples(2), make_samples(1)[0]], SYSTEMS)


def test_garbled_checks_keep_letters_and_lose_words():
    pairs, _ = study.comparisons(make_samples(), SYSTEMS)
    found = checks.garbled_checks(pairs, 5, seed=0)
    assert len({check.prompt for check in found}) == 5
    for check in found:
        assert sorted(check.worse) == sorted(check.better.lower())
        assert check.worse != check.better.lower()
    with pytest.raises(ValueError, match="accepted: 0 to 30"):
        checks.garbled_checks(pairs, 31, seed=0)


# --- sheets ---------------------------------------------------------------------------


def page_data(text):
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL
    )
    return json.loads(found[1])


def test_write_study_sheets_are_blind(folder):
    files = sorted((folder / "annotators").iterdir())
    assert len(files) == 6
    for file in files:
        text = file.read_text("utf-8")
        for word in (*SYSTEMS, "side_2", "prompt_id", "repeat_of", '"gold'):
            assert word not in text
        assert not re.search(r"https?://|src=|@import|url\(", text)
    data = page_data((folder / "annotators/annotator-1.html").read_text("utf-8"))
    assert data["question"] == "Which reply is in the more cheerful mood?"
    assert {key for item in data["items"] for key in item} == {
        "item",
        "turns",
        "a",
        "b",
    }
    assert data["items"][0]["turns"][0]["role"] == "human"


def test_write_study_page_and_table_hold_the_same(folder):
    made, written = make_study()
    for sheet in written:
        stem = folder / "annotators" / sheet.annotator
        items = page_data(stem.with_suffix(".html").read_text("utf-8"))["items"]
        text = stem.with_suffix(".csv").read_text("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [i["item"] for i in items] == [r["item"] for r in rows]
        assert [i["a"] for i in items] == [r["reply_a"] for r in rows]
        assert all(row["answer"] == "" and row["study"] == made.id for row in rows)
        assert "8 (B is much better)" in rows[0]["question"]


def test_page_cannot_be_left_by_a_text():
    made, written = make_study()
    trap = "</script><script>alert(1)</script><!-- {{ 1 }} \u2028 \ud800"
    sheet = written[0]
    item = dataclasses.replace(sheet.items[0], reply_a=trap)
    text = sheets.page(made, dataclasses.replace(sheet, items=(item,)))
    assert text.count("</script>") == 2 and "<!-- {{" not in text
    assert page_data(text)["items"][0]["a"][:10] == trap[:10]


def test_table_does_not_compute():
    made, written = make_study()
    item = dataclasses.replace(written[0].items[0], reply_a="=1+1", reply_b="- one")
    text = sheets.table(made, dataclasses.replace(written[0], items=(item,)))
    row = next(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    assert (row["reply_a"], row["reply_b"]) == ("'=1+1", "'- one")


def test_write_study_never_overwrites(folder):
    with pytest.raises(ValueError, match="holds a study already"):
        sheets.write_study(folder, *make_study())


def test_shown_turns_show_other_texts_as_they_are():
    assert sheets.shown_turns("Premise: a picnic") == [
        {"role": "", "text": "Premise: a picnic"}
    ]
    turns = sheets.shown_turns("\n\nHuman: Hi\n\nAssistant: First,")
    assert turns[-1] == {"role": "assistant", "text": "First, …"}


# --- reading --------------------------------------------------------------------------


def test_read_study_unblinds(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first)
    found, judgments = reading.read_study(folder)
    assert found == made
    assert len(judgments) == 3 * 27
    assert {j.score_2 for j in judgments if j.kind != "gold"} == {2}
    assert {j.score_2 for j in judgments if j.kind == "gold"} == {7}
    assert {j.rating for j in judgments} == {2, 7}


def test_unblind_sums_to_nine():
    for rating in range(1, 9):
        assert reading.unblind(rating, "B") == rating
        assert reading.unblind(rating, "A") + reading.unblind(rating, "B") == 9


@pytest.mark.parametrize(
    ("delimiter", "form"), [(",", "{}"), (";", "{}.0"), ("\t", " {}")]
)
def test_read_study_reads_sheets_that_spreadsheets_saved(folder, delimiter, form):
    made, written = make_study()
    for sheet in written:
        stem = folder / "annotators" / sheet.annotator
        text = stem.with_suffix(".csv").read_text("utf-8-sig")
        out = io.StringIO()
        writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
        first, *rows = csv.reader(io.StringIO(text))
        writer.writerow(first)
        for row, line in zip(rows, sheet.key, strict=True):
            writer.writerow([*row[:-1], form.format(likes_first(line))])
        path = folder / "answers" / f"{sheet.annotator}.CSV"
        path.write_bytes(out.getvalue().encode("utf-8-sig"))
    _, judgments = reading.read_study(folder)
    assert [j.rating for j in judgments] == [
        likes_first(line) for sheet in written for line in sheet.key
    ]


def test_read_study_names_all_problems(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first, names=["annotator-1", "annotator-2"])
    items = [line.item for line in written[2].key]
    lines = ["study,item,note,answer,seconds", f'{made.id},{items[0]},"two\nlines",9,']
    lines += [f"{made.id},{items[1]},,2.5,", f"{made.id},{items[2]},,,"]
    lines += [f"{made.id},{items[3]},,3,-1", f"{made.id},{items[4]},,3,"]
    lines += [
        f"{made.id},{items[4]},,3,",
        f"{made.id},nobody-1,,3,",
        f"x,{items[5]},,3,",
    ]
    lines += [f"{made.id},{items[6]},,good,"]
    (folder / "answers" / "c.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError) as error:
        reading.read_study(folder)
    text = str(error.value)
    assert "10 problems" not in text and "9 problems" in text
    for part in (
        f"answers/c.csv:2: field 'answer' of {items[0]} is '9'",
        f"answers/c.csv:4: field 'answer' of {items[1]} is '2.5'",
        f"answers/c.csv:5: field 'answer' of {items[2]} is empty",
        f"answers/c.csv:6: field 'seconds' of {items[3]} is '-1'",
        f"answers/c.csv:8: field 'item' is '{items[4]}', which answers/c.csv:7 answers too",
        "answers/c.csv:9: field 'item' is 'nobody-1'",
        f"answers/c.csv:10: field 'study' is 'x'; accepted: '{made.id}'",
        f"answers/c.csv:11: field 'answer' of {items[6]} is 'good'",
        f"annotator-3 has no answer to 20 items ({items[7]}, ",
    ):
        assert part in text


@pytest.mark.parametrize("answer", [0, 9, 4.5, "", None, True, [3], float("nan")])
def test_read_study_refuses_wrong_json_answers(folder, answer):
    made, written = make_study()
    answer_all(folder, made, written, likes_first)
    path = folder / "answers" / "annotator-2.json"
    value = json.loads(path.read_text())
    value["answers"][5]["answer"] = answer
    path.write_text(json.dumps(value))
    with pytest.raises(
        ValueError, match=r"annotator-2.json: answers\[5\]: field 'answer'"
    ):
        reading.read_study(folder)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "a.json: cannot be read: it has no list 'answers'"),
        ("a.json", '{"answers": [3]}', r"answers\[0\] is not an object"),
        ("a.json", "{", "a.json: cannot be read"),
        (
            "a.json",
            '{"answers": [{"item": [1]}]}',
            r"answers\[0\]: field 'study' is None",
        ),
        ("a.csv", "item,answer\nx,3\n", "line 1 has no column 'study'"),
        ("a.csv", b"\xff\xfe", "a.csv: cannot be read"),
    ],
)
def test_read_study_names_unreadable_files(folder, name, text, message):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / "answers" / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        reading.read_study(folder, partial=True)


def test_read_study_needs_answers_and_a_key(folder, tmp_path):
    with pytest.raises(ValueError, match="holds no .csv or .json file"):
        reading.read_study(folder)
    with pytest.raises(ValueError, match="study.json is not there"):
        reading.read_study(tmp_path / "elsewhere")


def test_read_study_partial_accepts_what_is_there(folder):
    made, written = make_study()
    answer_all(folder, made, written, likes_first, names=["annotator-2"])
    with pytest.raises(ValueError, match="annotator-1 has no answer to 27 items"):
        reading.read_study(folder)
    _, judgments = reading.read_study(folder, partial=True)
    assert {j.annotator for j in judgments} == {"annotator-2"}


# --- agreement ------------------------------------------------------------------------

# Krippendorff (2011), the example of four observers and twelve units.
PUBLISHED = """
1 2 3 3 2 1 4 1 2 . . .
1 2 3 3 2 2 4 1 2 5 . 3
. 3 3 3 2 3 4 2 2 5 1 .
1 2 3 3 2 4 4 1 2 5 1 .
"""
# Random ratings, and what krippendorff.alpha of the package krippendorff 0.9.0 says.
PACKAGE = """
7 7 3 . . . 3 5 8 . 2 3
7 . 3 6 7 2 4 4 . 7 4 5
7 5 . 8 5 1 . 3 6 6 3 3
8 8 5 8 . . 2 3 6 . 1 .
"""
PACKAGE_ALPHAS = {
    "nominal": 0.0734055355,
    "ordinal": 0.7319516401,
    "interval": 0.7466733478,
}


def matrix(text):
    rows = [line.split() for line in text.strip().splitlines()]
    return np.array([[np.nan if v == "." else float(v) for v in row] for row in rows])


def alpha_of(ratings, metric, **settings):
    return agreement.krippendorff_alpha(ratings, metric=metric, seed=0, **settings)


def slow_alpha(ratings, metric):
    """Return alpha by its definition, over all pairs of pairable values."""
    units = [[v for v in unit if not np.isnan(v)] for unit in ratings.T]
    units = [unit for unit in units if len(unit) > 1]
    values = [v for unit in units for v in unit]

    def distance(c, k):
        if metric == "ordinal":
            low, high = min(c, k), max(c, k)
            between = sum(low <= v <= high for v in values)
            return (between - (values.count(c) + values.count(k)) / 2) ** 2
        return float(c != k) if metric == "nominal" else (c - k) ** 2

    observed = sum(
        distance(unit[i], unit[j]) / (len(unit) - 1)
        for unit in units
        for i in range(len(unit))
        for j in range(len(unit))
        if i != j
    )
    expected = sum(distance(c, k) for c in values for k in values)
    return 1 - (len(values) - 1) * observed / expected


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)],
)
def test_krippendorff_alpha_matches_the_published_example(metric, expected):
    found = alpha_of(matrix(PUBLISHED), metric)
    assert round(found.value, 3) == expected
    assert found.low < expected < found.high and found.num == 11


@pytest.mark.parametrize("metric", agreement.METRICS)
def test_krippendorff_alpha_matches_definition(metric):
    rng = np.random.default_rng(3)
    for num in (2, 3, 5):
        rated = np.clip(rng.integers(1, 9, 10) + rng.integers(-2, 3, (num, 10)), 1, 8.0)
        rated[rng.random(rated.shape) < 0.2] = np.nan
        found = alpha_of(rated, metric, resamples=10)
        assert found.value == pytest.approx(slow_alpha(rated, metric), abs=1e-12)


def test_krippendorff_alpha_matches_package():
    for metric, expected in PACKAGE_ALPHAS.items():
        found = alpha_of(matrix(PACKAGE), metric, resamples=10)
        assert found.value == pytest.approx(expected, abs=1e-9)


def test_krippendorff_alpha_interval_is_a_ratio_of_variances():
    rng = np.random.default_rng(0)
    rated = rng.integers(1, 9, 40) + rng.integers(-1, 2, (3, 40))
    within = rated.var(axis=0, ddof=1).mean()
    found = alpha_of(rated, "interval", resamples=10)
    assert found.value == pytest.approx(1 - within / rated.var(ddof=1), abs=1e-12)


def test_krippendorff_alpha_bootstrap_matches_recomputing():
    rated = np.random.default_rng(1).integers(1, 5, (3, 12)).astype(float)
    found = alpha_of(rated, "ordinal", resamples=4000)
    rng = np.random.default_rng(2)
    drawn = [
        alpha_of(rated[:, rng.integers(0, 12, 12)], "ordinal", resamples=1).value
        for _ in range(1000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert found.low == pytest.approx(low, abs=0.05)
    assert found.high == pytest.approx(high, abs=0.05)


def test_krippendorff_alpha_extremes():
    same = np.tile(np.arange(1.0, 9.0), (3, 1))
    assert alpha_of(same, "ordinal").value == 1.0
    assert alpha_of(np.array([[1, 8] * 9, [8, 1] * 9]), "interval").value < -0.9
    noise = np.random.default_rng(0).integers(1, 9, (3, 500))
    assert abs(alpha_of(noise, "ordinal", resamples=10).value) < 0.1


def test_krippendorff_alpha_says_what_is_missing():
    assert (
        alpha_of(np.full((3, 5), 4.0), "ordinal").reason == "all ratings are the same"
    )
    one = np.array([[1.0, 2.0, np.nan], [np.nan, np.nan, 3.0]])
    assert "0 pairs were rated by two" in alpha_of(one, "ordinal").reason
    with pytest.raises(ValueError, match="metric is 'ratio'"):
        alpha_of(one, "ratio")
    with pytest.raises(ValueError, match="shape"):
        alpha_of(np.zeros(3), "ordinal")


def judged(scores, *, annotator="annotator-1", kind="pair", sides="AB", repeat_of=()):
    """Return judgments with the given scores of the second system."""
    out = []
    for n, score in enumerate(scores):
        side = sides[n % len(sides)]
        item = f"{annotator}-{kind}-{n}"
        origin = repeat_of[n] if repeat_of else None
        rating = reading.unblind(score, side)
        out.append(
            reading.Judgment(
                annotator, item, kind, f"p{n}", side, origin, rating, score, None
            )
        )
    return out


def test_self_consistency_by_hand():
    first = judged([2, 7, 4, 5])
    again = judged([1, 8, 5, 5], kind="repeat", repeat_of=[j.item for j in first])
    rate, apart = agreement.self_consistency(first + again)
    assert (rate.value, rate.num) == (0.75, 4)
    assert apart == (1 + 1 + 1 + 0) / 4
    rate, apart = agreement.self_consistency(first)
    assert isinstance(rate, estimates.Missing) and isinstance(apart, estimates.Missing)


def test_gold_rate_by_hand():
    found = agreement.gold_rate(judged([8, 5, 4, 7], kind="gold") + judged([1]))
    assert (found.value, found.num) == (0.75, 4)
    assert isinstance(agreement.gold_rate(judged([8])), estimates.Missing)


def test_rating_matrix_places_scores_of_pairs():
    found = judged([1, 2]) + judged([8], annotator="b") + judged([5], kind="gold")
    np.testing.assert_array_equal(
        agreement.rating_matrix(found), [[1.0, 2.0], [8.0, np.nan]]
    )


def verdict(prompt_id, winner, *, swapped=False, judge="lexicon", systems=SYSTEMS):
    one, two = systems[::-1] if swapped else systems
    return verdicts.Verdict(prompt_id, judge, one, two, winner, 5, 5)


def test_judge_agreement_by_hand():
    made, _ = make_study()
    scores_2 = {"p0": 2.0, "p1": 7.0, "p2": 4.5, "p3": 1.0, "p4": 8.0, "p5": 3.0}
    given = [verdict("p0", "1"), verdict("p1", "1"), verdict("p2", "1")]
    given += [verdict("p3", "tie"), verdict("p4", "1", swapped=True)]
    given += [verdict("p5", "none"), verdict("p9", "1")]
    given += [verdict("p0", "2", judge="other")]
    found = agreement.judge_agreement(made, scores_2, given, judge="lexicon")
    assert (found.num, found.value) == (3, pytest.approx(2 / 3))
    with pytest.raises(ValueError, match="judges in the file: lexicon, other"):
        agreement.judge_agreement(made, scores_2, given, judge="x")


# --- ratings --------------------------------------------------------------------------


def rate(judgments, *, shift="none", min_gold=0.0, resamples=2000):
    made, _ = make_study()
    return ratings.rate(
        made, judgments, shift=shift, min_gold=min_gold, seed=0, resamples=resamples
    )


def test_rate_by_hand():
    one = judged([1, 2, 6])
    two = judged([3, 4, 8], annotator="annotator-2")
    checked = judged([1], kind="gold") + judged([8], kind="repeat", repeat_of=["x"])
    found = rate(one + two + checked)
    assert found.scores_2 == {"p0": 2.0, "p1": 3.0, "p2": 7.0}
    assert found.second.value == pytest.approx(4.0)
    assert found.first.value == pytest.approx(5.0)
    assert found.first.low + found.second.high == pytest.approx(9.0)
    assert (found.first.num, found.num_judgments) == (3, 6)
    assert found.prefer_first.value == pytest.approx(2 / 3)


def test_rate_matches_scipy():
    scores = np.random.default_rng(4).integers(1, 9, 40)
    found = rate(judged(scores.tolist()), resamples=10_000)
    ones = 9 - scores
    interval = stats.bootstrap(
        (ones,), np.mean, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.first.low == pytest.approx(interval.low, abs=0.06)
    assert found.first.high == pytest.approx(interval.high, abs=0.06)
    test = stats.permutation_test(
        (ones - scores,),
        lambda x, axis: x.mean(axis=axis),
        permutation_type="samples",
        n_resamples=10_000,
        rng=np.random.default_rng(2),
    )
    assert found.first.p_value == pytest.approx(test.pvalue, abs=0.03)


def test_rate_counts_prompts_and_not_answers():
    scores = [2, 7, 3, 6, 1, 5]
    once = rate(judged(scores))
    thrice = rate([j for n in "abc" for j in judged(scores, annotator=n)])
    assert (thrice.first.low, thrice.first.high) == (once.first.low, once.first.high)
    assert thrice.num_judgments == 18


def test_rate_says_what_is_missing():
    assert rate([]).first.reason == "0 rated prompts"
    assert rate(judged([3])).prefer_first.reason == "1 rated prompts"


def test_rate_leaves_out_annotators_who_fail_checks():
    careful = judged([2, 2]) + judged([8, 8], kind="gold")
    careless = judged([8, 8], annotator="b") + judged(
        [1, 8], annotator="b", kind="gold"
    )
    found = rate(careful + careless, min_gold=0.6)
    assert found.excluded == ("b",) and found.second.value == 2.0
    assert rate(careful + careless, min_gold=0.5).second.value == 5.0
    with pytest.raises(ValueError, match="min_gold is 2"):
        rate(careful, min_gold=2)


def lean(scores, sides, right):
    """Return judgments of one who adds `right` to every rating as shown."""
    out = []
    for judgment in judged(scores, sides=sides):
        rating = judgment.rating + right
        score = reading.unblind(rating, judgment.side_2)
        out.append(dataclasses.replace(judgment, rating=rating, score_2=score))
    return out


def test_shifted_scores_side_undoes_a_lean():
    scores = [3, 4, 5, 6, 3, 4, 5, 6]  # mean 4.5 on either side
    plain = judged(scores, sides="AAAABBBB")
    found = ratings.shifted_scores(lean(scores, "AAAABBBB", 2), "side")
    assert [s for _, s in found] == pytest.approx([j.score_2 for j in plain])
    leaning = lean(scores, "AAAABBBB", 2)
    assert ratings.side_lean(leaning) == pytest.approx(2.0)
    assert rate(leaning, shift="side").first.value == pytest.approx(
        rate(leaning).first.value
    )


def test_shifted_scores_mean_makes_annotators_equal():
    both = judged([1, 2, 3]) + judged([5, 6, 7], annotator="b")
    found = ratings.shifted_scores(both, "mean")
    assert [s for _, s in found] == [3, 4, 5, 3, 4, 5]
    assert rate(both, shift="mean").second.value == rate(both).second.value
    with pytest.raises(ValueError, match="shift is 'x'"):
        ratings.shifted_scores(both, "x")


# --- tables and the command -----------------------------------------------------------


def test_rating_table_has_the_papers_layout():
    found = rate(judged([3, 4, 3, 4]))
    table = results.rating_table(found, judged([3, 4, 3, 4]), seed=0)
    shown = tables.markdown(table)
    assert re.search(
        r"sunny-v1 vs pale-v2 \| +5\.50 / 3\.50 \[5\.\d\d, \d\.\d\d\]", shown
    )
    assert "missing: 0 pairs were rated by two annotators or more" in shown
    assert tables.as_json(table)["rows"][0]["cells"]["sunny-v1"]["value"] == 5.5


def test_paper_table_puts_studies_side_by_side():
    one = rate(judged([3, 4]))
    other = dataclasses.replace(one.study, question_name="help")
    table = results.paper_table([one, dataclasses.replace(one, study=other)])
    assert [c.name for c in table.columns] == ["cheerful: mood", "cheerful: help"]
    assert table.rows[0][1][0].startswith("5.50 / 3.50 [")
    third = dataclasses.replace(other, system_2="plain")
    table = results.paper_table([one, dataclasses.replace(one, study=third)])
    assert table.rows[1][1][0] == estimates.Missing("no study")
    with pytest.raises(ValueError, match="two studies are about"):
        results.paper_table([one, one])


def test_rating_table_names_what_was_left_out():
    found = rate(judged([3, 4]) + judged([1], kind="gold"), min_gold=1.0, shift="side")
    shown = tables.markdown(results.rating_table(found, [], seed=0))
    assert "missing: 0 rated prompts" in shown
    assert "too few gold checks passed: annotator-1" in shown
    assert "shifts were removed: side" in shown


def run_command(capsys, *args):
    """Return the exit status of the command, and what it said."""
    try:
        command.main([str(arg) for arg in args])
    except SystemExit as stopped:
        return stopped.code, capsys.readouterr()
    return 0, capsys.readouterr()


def test_command_makes_sheets_and_reads_answers(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "study"
    rows = [{**dataclasses.asdict(s), "num_tokens": 5} for s in make_samples()]
    record_files.write_jsonl(run / "evaluate" / "samples.jsonl", rows)
    record_files.write_json(run / "config.json", {"task": "cheerful"})
    make = ["make", "--samples", run / "evaluate" / "samples.jsonl", "--systems"]
    make += [*SYSTEMS, "--per_annotator", 26, "--annotators", 2, "--workdir", out]
    status, shown = run_command(capsys, *make)
    assert status == 0 and "2 sheets of 28 items" in shown.out
    assert "Answer (A)" not in shown.out
    made, key = reading.read_key(out)
    assert (made.task, made.repeats, made.gold) == ("cheerful", 1, 1)
    by_sheet = collections.defaultdict(list)
    for line in key.values():
        by_sheet[line.annotator].append(line)
    written = [study.Sheet(name, (), tuple(lines)) for name, lines in by_sheet.items()]
    status, shown = run_command(capsys, "read", "--workdir", out)
    assert status == 2 and "holds no .csv or .json" in shown.err
    answer_all(out, made, written, likes_first)
    given = [verdict(f"p{n}", "2" if n % 2 else "1") for n in range(30)]
    record_files.write_jsonl(run / "evaluate" / "verdicts.jsonl", given)
    status, shown = run_command(
        capsys, "read", "--workdir", out, "--verdicts", run / "evaluate/verdicts.jsonl"
    )
    assert status == 0
    assert "7.00 / 2.00 [7.00, 7.00]" in shown.out
    assert "missing: all ratings are the same" in shown.out
    names = {path.name for path in (out / "results").iterdir()}
    assert names == {
        *(
            f"{s}.{e}"
            for s in ("table", "annotators", "judges")
            for e in ("md", "json")
        ),
        "ratings.jsonl",
    }
    back = record_files.read_jsonl(out / "results" / "ratings.jsonl", reading.Judgment)
    assert len(back) == 56
    assert run_command(capsys, *make)[0] == 2  # never overwrites


def test_command_errors_name_what_is_wrong(tmp_path, capsys):
    path = tmp_path / "samples.jsonl"
    make = [
        "make",
        "--samples",
        path,
        "--systems",
        *SYSTEMS,
        "--workdir",
        tmp_path / "o",
    ]
    assert "is not there" in run_command(capsys, *make)[1].err
    path.write_text('{"prompt_id": "p", "system": "s", "prompt": "Hi"}\n')
    assert "row 1 has no field 'reply'" in run_command(capsys, *make)[1].err
    record_files.write_jsonl(path, make_samples())
    assert "name the task with --task" in run_command(capsys, *make)[1].err
    make += ["--task", "harmless"]
    shown = run_command(capsys, *make, "--question", "x")[1].err
    assert "accepted: harmless, harmless_helpful" in shown
    assert "needs 200 prompts" in run_command(capsys, *make)[1].err


def test_command_reads_gold_checks_from_a_file(tmp_path, capsys):
    record_files.write_jsonl(tmp_path / "samples.jsonl", make_samples())
    gold = [checks.Gold("What is 2 + 2?", better="4, of course!", worse="A teapot.")]
    record_files.write_jsonl(tmp_path / "gold.jsonl", gold)
    args = ["make", "--samples", tmp_path / "samples.jsonl", "--systems", *SYSTEMS]
    args += [
        "--task",
        "cheerful",
        "--per_annotator",
        20,
        "--shared",
        5,
        "--annotators",
        2,
    ]
    args += ["--gold_file", tmp_path / "gold.jsonl", "--workdir", tmp_path / "study"]
    status, shown = run_command(capsys, *args)
    assert status == 2 and "needs 35 prompts" in shown.err
    args[args.index(5)] = 15
    assert run_command(capsys, *args)[0] == 0
    text = (tmp_path / "study/annotators/annotator-2.csv").read_text("utf-8")
    assert "A teapot." in text
