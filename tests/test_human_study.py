"""human.study and human.checks: who is shown which pair, on which side, and when."""

import collections
import dataclasses

import pytest
from human_study import make_samples, make_study
from scipy import stats

from rlcd_jax.human import checks, study

SYSTEMS = ("sunny-v1", "pale-v2")


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
