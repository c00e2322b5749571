"""A share of the time."""

from __future__ import annotations

from llmchat.budget import Budget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_budget_is_spent_and_fills_by_its_share_of_the_time() -> None:
    clock = Clock()
    budget = Budget(0.25, 1.0, clock)
    assert budget.fill()
    with budget.spent():
        clock.now += 3.0
    assert not budget.fill()  # 1.0 and a quarter of 3.0, less 3.0
    clock.now += 4.9
    assert not budget.fill()
    clock.now += 0.2
    assert budget.fill()


def test_budget_holds_no_more_than_is_spent_at_once() -> None:
    clock = Clock()
    budget = Budget(0.25, 1.0, clock)
    clock.now += 1000.0
    assert budget.fill()
    with budget.spent():
        clock.now += 1.5
    assert not budget.fill()
