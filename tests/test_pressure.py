"""An instance with as much to do as it can knows it, and one on a machine that others use does not think so."""

from __future__ import annotations

import asyncio

from llmchat.pressure import LOOK_SECONDS, Pressure
from tests.waiting import eventually


class Loop:
    """An event loop by its clocks."""

    def __init__(self) -> None:
        self.clock = 0.0
        self.worked = 0.0
        self.pressure = Pressure(lambda: self.clock, lambda: self.worked)
        self.pressure.begin()

    def goes_on(self, seconds: float, *, busy: float, late_seconds: float = 0.0) -> bool:
        """Let time pass, looks and all; tells whether new work is refused after it."""
        until = self.clock + seconds
        while self.clock < until:
            self.clock += LOOK_SECONDS + late_seconds
            self.worked += (LOOK_SECONDS + late_seconds) * busy
            self.pressure.look()
        return self.pressure.high


def test_instance_that_is_busy_and_late_refuses_new_work_until_it_is_not() -> None:
    loop = Loop()
    assert not loop.goes_on(10, busy=0.5)
    assert loop.goes_on(5, busy=1.0, late_seconds=0.3)
    assert loop.goes_on(5, busy=0.95, late_seconds=0.06), "it was relieved, and not enough"
    assert not loop.goes_on(3, busy=0.6, late_seconds=0.01)


def test_instance_that_does_much_and_is_in_time_refuses_nothing() -> None:
    assert not Loop().goes_on(30, busy=1.0, late_seconds=0.02)


def test_instance_that_is_late_because_others_have_the_processor_refuses_nothing() -> None:
    assert not Loop().goes_on(30, busy=0.3, late_seconds=2.0)


def test_moment_of_work_refuses_nothing() -> None:
    loop = Loop()
    assert not loop.goes_on(5, busy=0.1)
    assert not loop.goes_on(0.3, busy=1.0, late_seconds=0.2)


async def test_it_is_looked_at_for_as_long_as_the_context_is_entered() -> None:
    looks = 0

    def counted() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    async def looked_often() -> bool:
        return looks > 3

    async with Pressure(worked=counted):
        await eventually(looked_often, seconds=10, what="looks")
    ended = looks
    await asyncio.sleep(0)
    assert looks == ended
