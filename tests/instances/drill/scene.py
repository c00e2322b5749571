"""Where one drill is played: tabs that live on the service, a ledger of what all saw, and what must hold at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from random import Random
from typing import Any, TypeVar

import aiohttp

from tests.fakes import Request
from tests.instances import Broken, Instance
from tests.instances.drill import checks, rest
from tests.instances.drill.ledger import Ledger
from tests.instances.drill.report import Report
from tests.instances.drill.service import Service, opened
from tests.instances.drill.tab import Tab
from tests.instances.mirror import Event, Message
from tests.steps import Pause, Step, Text
from tests.waiting import eventually

T = TypeVar("T")
WAIT_SECONDS = 30.0
ENDS = ("completion.finished", "completion.failed")


class Scene:
    """One drill of one seed while it is played."""

    def __init__(self, seed: int, service: Service, report: Report, tabs: int) -> None:
        self.random = Random(f"{report.drill}-{seed}")
        self.service = service
        self.report = report
        self.ledger = Ledger()
        self.jar = aiohttp.CookieJar(unsafe=True)
        instances = service.instances
        self.tabs = [
            Tab(
                f"tab{number}",
                self.jar,
                instances,
                Random(f"{seed}-{number}"),
                self.ledger,
                first=instances[number % len(instances)],
            )
            for number in range(tabs)
        ]
        self.accepted: list[Event] = []
        self.mark = f"{report.drill}/{seed}"
        self._number = 0

    @property
    def now(self) -> float:
        """Seconds by the loop's clock."""
        return asyncio.get_running_loop().time()

    # What people and the model say

    def text(self) -> str:
        """Return a prompt that no other drill has."""
        self._number += 1
        return f"Prompt [{self.mark}/{self._number}], please"

    def pieces(self, least: int = 20, most: int = 60) -> list[str]:
        """Return what a model might say."""
        return [f"word{number} " for number in range(self.random.randint(least, most))]

    def teach(
        self, prompt: str, pieces: Sequence[str | Step], *, pause_seconds: float, times: int = 1000
    ) -> None:
        """Have the model say this to a prompt."""
        steps: list[Step] = []
        for piece in pieces:
            steps += [Pause(pause_seconds), Text(piece) if isinstance(piece, str) else piece]
        self.service.model.answer(*steps, to=prompt, times=times)

    async def say(self, tab: Tab, text: str, conversation: str | None = None, **options: Any) -> Event:
        """Send a prompt until it is accepted; all tabs open a new conversation."""
        accepted = await tab.say(text, conversation, **options)
        self.accepted.append(accepted)
        self.follow(accepted["conversation"])
        return accepted

    def follow(self, conversation: str) -> None:
        """Have all tabs open a conversation."""
        for tab in self.tabs:
            tab.follow(conversation)

    # What all saw

    def facts(self, answer: str, *kinds: str) -> list[Event]:
        """Return what anybody saw placed of an answer, in order; what only snapshots told is not there."""
        found = [
            fact
            for fact in self.ledger.facts.values()
            if fact.get("message") == answer and (not kinds or fact["type"] in kinds)
        ]
        epochs = list(dict.fromkeys(epoch for _, epoch, _ in self.ledger.facts))
        return sorted(found, key=lambda fact: (epochs.index(fact["at"]["epoch"]), fact["at"]["offset"]))

    def known(self, answer: str) -> list[Message]:
        """Return an answer as each tab knows it that does."""
        return [
            mirror.messages[answer]
            for tab in self.tabs
            for mirror in tab.mirrors.values()
            if answer in mirror.messages
        ]

    def deltas(self, answer: str) -> int:
        """Count the deltas that anybody saw."""
        return len(self.facts(answer, "completion.delta"))

    async def until(self, find: Callable[[], T | None], what: str, *, seconds: float = WAIT_SECONDS) -> T:
        """Wait for a state; not any longer once a tab has found something wrong."""

        def checked() -> T | None:
            if any(tab.faults for tab in self.tabs):
                raise Broken("; ".join(tab.faults[0] for tab in self.tabs if tab.faults))
            return find()

        return await self.ledger.bell.until(checked, seconds=seconds, what=lambda: f"{what}\n{self._told()}")

    async def begun(self, answer: str, deltas: int = 1) -> None:
        """Wait until so many deltas of an answer were seen, or it is over."""
        await self.until(
            lambda: (
                self.deltas(answer) >= deltas or any(each.state != "running" for each in self.known(answer))
            ),
            f"{answer} has {deltas} deltas",
        )

    async def started(self, answer: str, attempt: int, *, seconds: float = WAIT_SECONDS) -> Event:
        """Wait for the start of an attempt, or of a later one."""
        return await self.until(
            lambda: next(
                (fact for fact in self.facts(answer, "completion.started") if fact["attempt"] >= attempt),
                None,
            ),
            f"attempt {attempt} of {answer} starts",
            seconds=seconds,
        )

    async def ended(self, answer: str, *, seconds: float = WAIT_SECONDS) -> Message:
        """Wait until an answer is over, and return it as somebody knows it."""
        return await self.until(
            lambda: next((each for each in self.known(answer) if each.state != "running"), None),
            f"{answer} ends",
            seconds=seconds,
        )

    def asked(self, text: str) -> list[Request]:
        """Return what the model server was asked for a prompt."""
        return [request for request in self.service.model.requests if text in request.prompt]

    # Who makes what

    def other(self, instance: Instance) -> Tab:
        """Return a tab that is connected elsewhere."""
        return next(tab for tab in self.tabs if tab.connected and tab.instance is not instance)

    @staticmethod
    def owner(tab: Tab) -> Instance:
        """Return the instance that makes the answer to what a tab just sent."""
        assert isinstance(tab.instance, Instance)
        return tab.instance

    # The end

    async def end(self) -> None:
        """Wait until all is quiet; then clients, store and model server must tell the same. Raises AssertionError."""
        conversations = list(dict.fromkeys(accepted["conversation"] for accepted in self.accepted))
        fresh = await opened(self.service.instances[0], self.jar, conversations)
        try:

            async def quiet() -> bool:
                for conversation in conversations:
                    fresh.mirror(conversation).forget_place()
                    snapshot = await fresh.command("conversation.open", conversation=conversation)
                    if snapshot["running"] is not None:
                        return False
                return all(
                    tab.settled and tab.mirror(each).at == fresh.mirror(each).at
                    for tab in self.tabs
                    for each in conversations
                )

            await eventually(quiet, seconds=WAIT_SECONDS, what=f"all is quiet\n{self._told()}")
            found = self.ledger.faults()
            for conversation in conversations:
                found += checks.differences(conversation, fresh, self.tabs)
            found += await rest.left(self.service, fresh, conversations, self.mark)
        finally:
            await fresh.close()
        assert not found, "\n".join(found)

    def _told(self) -> str:
        kinds = [
            f"{fact['at']['offset']} {fact['type']} {fact.get('message')}"
            for fact in self.ledger.facts.values()
            if fact["type"] != "completion.delta"
        ]
        tabs = [f"{tab.name}: connected {tab.connected}, settled {tab.settled}" for tab in self.tabs]
        return "\n".join([*kinds[-20:], *tabs])


@asynccontextmanager
async def scene(seed: int, service: Service, report: Report, *, tabs: int = 6) -> AsyncIterator[Scene]:
    """Open a scene whose tabs live; at its end all must agree, and all instances serve again."""
    await service.reset()
    playing = Scene(seed, service, report, tabs)
    living = [asyncio.create_task(playing.tabs[0].live())]
    try:
        await playing.until(lambda: playing.tabs[0].connected, "the first tab is connected")
        living += [asyncio.create_task(tab.live()) for tab in playing.tabs[1:]]
        await playing.until(lambda: all(tab.connected for tab in playing.tabs), "all tabs are connected")
        yield playing
        await service.revive()
        await playing.end()
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)
        await asyncio.gather(*(tab.close() for tab in playing.tabs), return_exceptions=True)
        await service.revive()
    faults = [tab.faults[0] for tab in playing.tabs if tab.faults]
    assert not faults, "\n".join(faults)
    report.counts["events"] += sum(len(tab.seen) for tab in playing.tabs)
    report.counts["prompts"] += len(playing.accepted)
