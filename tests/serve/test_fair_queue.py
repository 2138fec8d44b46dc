"""Deficit round robin: equal seconds for callers who wait, whatever they ask for."""

import pytest

from lens.errors import QueueFullError
from lens.serve.engine.fair_queue import FairQueue


def queue(max_items=1000, max_cost_s=1e6):
    return FairQueue(max_items, max_cost_s)


def taken(fair, count):
    return [fair.pop() for _ in range(count)]


def test_one_caller_is_served_in_order_and_by_priority():
    fair = queue()
    for number, priority in enumerate([0, 2, 0, 2, 1]):
        fair.push(number, "a", 1.0, priority)
    assert taken(fair, 5) == [1, 3, 4, 0, 2]
    assert fair.peek() is None and len(fair) == 0 and fair.total_cost_s == 0


def test_while_both_wait_a_caller_of_large_pictures_and_one_of_small_get_equal_seconds():
    fair = queue()
    for _ in range(300):
        fair.push(("large", 7.0), "large", 7.0)
        fair.push(("small", 0.5), "small", 0.5)
        fair.push(("middle", 2.0), "middle", 2.0)
    seconds = {"large": 0.0, "small": 0.0, "middle": 0.0}
    for _ in range(320):
        caller, cost = fair.pop()
        seconds[caller] += cost
    assert max(seconds.values()) - min(seconds.values()) <= 2 * 7.0  # a round's share either way
    assert min(seconds.values()) > 100


def rejected_until(fair, busy_s, cost_s=9.0):
    with pytest.raises(QueueFullError) as caught:
        fair.push("late", "b", cost_s, busy_s=busy_s)
    return caught.value.retry_after_s


def test_those_who_are_turned_away_are_told_when_places_are_free_one_after_the_other():
    fair = queue(max_items=3)
    for number in range(3):
        fair.push(number, "a", 9.0)
    told = [rejected_until(fair, busy_s=27.0) for _ in range(3)]
    assert told == pytest.approx([27.0, 36.0, 45.0], abs=0.1)
    assert max(rejected_until(fair, busy_s=27.0) for _ in range(100)) <= 27.0 + 27.0  # then nobody is ahead
    full = queue(max_cost_s=20.0)
    full.push("first", "a", 18.0)
    assert rejected_until(full, busy_s=4.0) == pytest.approx(4.0 + 7.0, abs=0.1)


def test_a_caller_who_floods_the_queue_does_not_delay_the_one_who_comes_later():
    fair = queue()
    for number in range(100):
        fair.push(("flood", number), "flood", 1.0)
    taken(fair, 10)
    fair.push(("late", 0), "late", 1.0)
    assert ("late", 0) in taken(fair, 2)


def test_credit_is_not_saved_up_while_idle():
    fair = queue()
    fair.push("b0", "b", 1.0)
    for number in range(50):
        fair.push(f"a{number}", "a", 1.0)
    taken(fair, 30)  # b has been idle for long
    for number in range(10):
        fair.push(f"b{number}", "b", 1.0)
    next_ten = taken(fair, 10)
    assert sum(name.startswith("b") for name in next_ten) == 5


def test_the_order_that_is_foretold_is_the_order_that_comes():
    fair = queue()
    costs = [3.0, 1.0, 0.25, 2.0, 5.0, 1.5]
    for number in range(30):
        fair.push(number, f"caller{number % 4}", costs[number % 6], priority=number % 3)
    for _ in range(30):
        foretold = fair.items()
        assert foretold[0] == fair.peek() == fair.pop()
        assert foretold[1:] == fair.items()


def test_an_item_leaves_out_of_turn_once():
    fair = queue()
    items = [[number] for number in range(5)]  # told apart by identity
    for item in items:
        fair.push(item, "a", 1.0)
    assert fair.remove(items[2]) and not fair.remove(items[2])
    assert fair.items() == [[0], [1], [3], [4]] and fair.total_cost_s == 4


@pytest.mark.parametrize(("count", "retry_after_s"), [(4, 10.0), (10, 10.0)])
def test_more_pictures_than_may_wait_are_refused(count, retry_after_s):
    fair = queue(max_items=count)
    for number in range(count):
        fair.push(number, "a", 10.0)
    with pytest.raises(QueueFullError) as caught:
        fair.push("more", "b", 1.0)
    assert caught.value.retry_after_s == retry_after_s  # one picture's time: then there is room for another
    assert len(fair) == count


def test_more_seconds_than_may_wait_are_refused_but_never_a_picture_alone():
    fair = queue(max_cost_s=30.0)
    fair.push("huge", "a", 50.0)
    fair.pop()
    fair.push("one", "a", 20.0)
    with pytest.raises(QueueFullError) as caught:
        fair.push("two", "b", 15.0)
    assert caught.value.retry_after_s == 5.0
    fair.push("three", "b", 10.0)
    assert fair.total_cost_s == 30.0
