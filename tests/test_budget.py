"""budget: money is reserved before a call and never overspent."""

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlcd_jax.judging import budget


def test_budget_reserves_before_and_settles_after():
    one = budget.Budget(1.0)
    one.reserve(0.6)
    assert one.left == pytest.approx(0.4) and one.spent == 0.0
    with pytest.raises(budget.Spent, match="spent 0.3000; another call may cost 0.8"):
        one.settle(0.6, 0.3)
        one.reserve(0.8)
    one.reserve(0.7)
    one.settle(0.7, 0.7)
    assert one.spent == pytest.approx(1.0) and one.left == pytest.approx(0.0)


def test_budget_waits_for_what_may_come_back():
    one, order = budget.Budget(1.0), []
    one.reserve(0.9)

    def second():
        one.reserve(0.5)
        order.append("second")
        one.settle(0.5, 0.1)

    thread = threading.Thread(target=second)
    thread.start()
    time.sleep(0.05)
    order.append("first")
    one.settle(0.9, 0.2)
    thread.join(timeout=5)
    assert order == ["first", "second"] and one.spent == pytest.approx(0.3)


@given(st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 1)), max_size=30))
def test_budget_is_never_overspent_by_bounded_calls(calls):
    one = budget.Budget(1.0)
    for bound, part in calls:
        try:
            one.reserve(bound)
        except budget.Spent:
            continue
        one.settle(bound, bound * part)
    assert one.spent <= 1.0 + budget.ROUNDING
