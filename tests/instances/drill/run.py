"""One run: people talk in twelve tabs while things break, and in the end all of them must have seen the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from random import Random

import aiohttp
from redis.exceptions import RedisError

from llmchat.lease import LEASE_SECONDS
from tests.instances import Broken, Client, Refused
from tests.instances.drill import checks
from tests.instances.drill.ledger import Ledger
from tests.instances.drill.plan import TABS, Fault, Plan, Prompt, Talk, draw
from tests.instances.drill.report import Failed, Report, told
from tests.instances.drill.service import Act, Service, opened
from tests.instances.drill.tab import Tab
from tests.instances.mirror import Event
from tests.waiting import eventually, within

RUN_SECONDS = 90.0
ANSWER_SECONDS = 30.0
QUIET_SECONDS = 20.0
SLOW_WAY_SECONDS = 0.05
WAY_SECONDS = 5.0


async def run(seed: int, service: Service, report: Report, *, slow: bool = True) -> None:
    """Play a seed and write into its report. Raises Failed."""
    loop = asyncio.get_running_loop()
    began, lines = loop.time(), [len(instance.log) for instance in service.instances]
    playing = Run(draw(seed, slow=slow), service, report)
    try:
        async with within(RUN_SECONDS, "the run ends"):
            await playing.play()
    except Exception as error:
        playing.found += told(error)
    finally:
        report.seconds = loop.time() - began
    playing.found += service.bugs(lines)
    if playing.found:
        raise Failed(f"seed {seed}:\n" + "\n".join(dict.fromkeys(playing.found)))


class Run:
    """One seed while it is played; `found` is what went wrong."""

    def __init__(self, plan: Plan, service: Service, report: Report) -> None:
        self.found: list[str] = []
        self._plan = plan
        self._service = service
        self._report = report
        self._ledger = Ledger()
        self._jar = aiohttp.CookieJar(unsafe=True)
        self._tabs = [
            Tab(f"tab{number}", self._jar, service.instances, Random(f"{plan.seed}-{number}"), self._ledger)
            for number in range(TABS)
        ]
        self._accepted: list[tuple[Prompt, Event]] = []
        self._busy: list[tuple[Prompt, str]] = []
        self._conversations: list[str] = []
        self._over = False  # nobody says anything more

    async def play(self) -> None:
        """Play it, and look at the end whether all saw the same."""
        for prompt in self._plan.prompts:
            ending = [Act(partial(self._cut_off, "kill pubsub"))] if prompt.breaks_ending else []
            self._service.teach(prompt, ending)
        async with self._living():
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._break())
                await self._talk_all(tasks)
                self._over = True
                self._ledger.bell.ring()
            await self._settle()
        self._count()

    @asynccontextmanager
    async def _living(self) -> AsyncIterator[None]:
        """Keep all tabs alive; the first connects alone, for the cookie of all."""
        living = [asyncio.create_task(self._tabs[0].live())]
        try:
            await self._until(lambda: self._tabs[0].connected, "the first tab is connected")
            living += [asyncio.create_task(tab.live()) for tab in self._tabs[1:]]
            await self._until(lambda: all(tab.connected for tab in self._tabs), "all tabs are connected")
            yield
        finally:
            for task in living:
                task.cancel()
            ended = await asyncio.gather(*living, return_exceptions=True)
            self.found += [f"{type(each).__name__}: {each}" for each in ended if isinstance(each, Exception)]
            self.found += [tab.faults[0] for tab in self._tabs if tab.faults]
            await asyncio.gather(*(tab.close() for tab in self._tabs))

    async def _until(self, check: Callable[[], bool], what: str, *, seconds: float = QUIET_SECONDS) -> None:
        """Wait for a state; not any longer once a tab has found something wrong."""

        def checked() -> bool:
            self._raise_faults()
            return check()

        await self._ledger.bell.until(checked, seconds=seconds, what=lambda: f"{what}\n{self._standings()}")

    def _raise_faults(self) -> None:
        if any(tab.faults for tab in self._tabs):
            raise Broken("the run was given up")

    # What people say

    async def _talk_all(self, reading: asyncio.TaskGroup) -> None:
        async with asyncio.TaskGroup() as talking:
            for talk in self._plan.talks:
                talking.create_task(self._talk(talk, reading))

    async def _talk(self, talk: Talk, reading: asyncio.TaskGroup) -> None:
        (begun,) = await self._say(talk.rounds[0], None)
        conversation = str(begun["conversation"])
        self._conversations.append(conversation)
        for number, after in talk.readers.items():
            reading.create_task(self._read_along(self._tabs[number], conversation, after))
        if not talk.eager:
            await self._ended(begun)
        for prompts in talk.rounds[1:]:
            for prompt in prompts:
                self._tabs[prompt.sender].follow(conversation)
            said = await self._say(prompts, conversation)
            for accepted in [] if talk.eager else said:
                await self._ended(accepted)

    async def _read_along(self, tab: Tab, conversation: str, after: int) -> None:
        await self._passed(after)
        tab.follow(conversation)

    async def _say(self, prompts: tuple[Prompt, ...], conversation: str | None) -> list[Event]:
        """Send prompts at once and return what was accepted."""
        said = await asyncio.gather(*(self._say_one(prompt, conversation) for prompt in prompts))
        return [accepted for accepted in said if accepted]

    async def _say_one(self, prompt: Prompt, conversation: str | None) -> Event | None:
        try:
            accepted = await self._tabs[prompt.sender].say(
                prompt.text,
                conversation,
                breaking=partial(self._break_sending, prompt),
                loses_reply=prompt.breaks == "reply",
            )
        except Refused as refused:
            if refused.code != "busy":
                raise
            self._report.counts["busy"] += 1
            self._busy.append((prompt, str(conversation)))
            return None
        self._accepted.append((prompt, accepted))
        return accepted

    async def _break_sending(self, prompt: Prompt) -> None:
        if prompt.breaks == "drop":
            self._report.counts["drops while sending"] += self._tabs[prompt.sender].lose()
        elif prompt.breaks.startswith("kill "):
            await self._cut_off(prompt.breaks)

    async def _ended(self, accepted: Event) -> None:
        conversation, answer = accepted["conversation"], accepted["answer"]

        def ended() -> bool:
            known = (tab.mirrors[conversation].messages for tab in self._tabs if conversation in tab.mirrors)
            return any(answer in messages and messages[answer].state != "running" for messages in known)

        await self._until(ended, f"answer {answer} of {accepted} ends", seconds=ANSWER_SECONDS)

    # What breaks

    async def _break(self) -> None:
        async with asyncio.TaskGroup() as away:
            for fault in self._plan.faults:
                await self._passed(fault.gap)
                await self._strike(fault, away)

    async def _passed(self, events: int, tab: Tab | None = None) -> None:
        """Wait until so many events passed, or as long as it makes sense: until a tab is needed, or all is said."""
        goal = len(self._ledger.facts) + events
        await self._until(
            lambda: self._over or len(self._ledger.facts) >= goal or bool(tab and tab.unsent),
            f"{events} events pass",
            seconds=2 * ANSWER_SECONDS,
        )

    async def _strike(self, fault: Fault, away: asyncio.TaskGroup) -> None:
        tab, counts = self._tabs[fault.tab], self._report.counts
        if fault.kind == "drop":
            counts["drops"] += tab.lose()
        elif fault.kind == "reload":
            counts["reloads"] += tab.reload()
        elif fault.kind == "away":
            away.create_task(self._stay_away(tab, fault.events))
        elif fault.kind in {"kill pubsub", "kill normal"}:
            await self._cut_off(fault.kind)
        elif fault.kind.endswith("instance") or fault.kind == "zombie":
            away.create_task(self._lose_instance(fault))
        elif fault.kind.endswith("way"):
            away.create_task(self._lose_way(fault))
        else:
            await self._lose_store(fault)

    async def _cut_off(self, kind: str) -> None:
        with suppress(RedisError):  # while the store is away there is nothing to cut off
            await self._service.cut_off(kind.removeprefix("kill "))
            self._report.counts["kills"] += 1

    async def _stay_away(self, tab: Tab, events: int) -> None:
        if not tab.present:
            return
        self._report.counts["away"] += tab.leave()
        await self._passed(events, tab)
        tab.come_back()

    async def _lose_instance(self, fault: Fault) -> None:
        """End an instance, in order or not, and start it again; or freeze it for longer than its leases last."""
        instance = self._service.instances[fault.which]
        self._report.counts[f"faults: {fault.kind}"] += 1
        async with self._service.striking:
            if fault.kind == "zombie":
                instance.freeze()
                await asyncio.sleep(LEASE_SECONDS + 1)
                instance.thaw()
            elif fault.kind == "kill instance":
                await instance.kill()
                await instance.start()
            else:
                await instance.restart()

    async def _lose_way(self, fault: Fault) -> None:
        """Cut, delay or half close the way to the store that some instances have."""
        proxy = self._service.proxy
        assert proxy
        self._report.counts[f"faults: {fault.kind}"] += 1
        if fault.kind == "cut way":
            proxy.cut()
        elif fault.kind == "delay way":
            proxy.delay_seconds = SLOW_WAY_SECONDS
        else:
            proxy.flowing.clear()
        try:
            with suppress(TimeoutError):  # all that is left to be said may wait for this very way
                async with asyncio.timeout(WAY_SECONDS):
                    await self._passed(fault.events)
        finally:
            proxy.delay_seconds = 0
            proxy.flowing.set()

    async def _lose_store(self, fault: Fault) -> None:
        store = self._service.store
        epochs = {epoch for _, epoch, _ in self._ledger.facts}
        if fault.kind == "restart":
            await store.restart()
        elif fault.kind == "kill":
            await store.kill()
            await store.start()
        else:
            store.freeze()
            await asyncio.sleep(fault.seconds)
            store.thaw()
        self._report.counts[{"freeze": "freezes", "kill": "store kills"}.get(fault.kind, "restarts")] += 1
        began = asyncio.get_running_loop().time()
        await self._recovered(epochs)
        self._report.recoveries.append((fault.kind, asyncio.get_running_loop().time() - began))

    async def _recovered(self, epochs: set[str]) -> None:
        """Wait until every tab that is not away stands where the store stood after its return, or further."""
        probe = await opened(self._service.instances[0], self._jar, self._conversations)
        places = {each: dict(mirror.at or {}) for each, mirror in probe.mirrors.items()}
        await probe.close()
        await self._until(
            lambda: all(tab.has_reached(places, epochs) for tab in self._tabs if tab.present),
            f"all tabs reach {places}",
            seconds=ANSWER_SECONDS,
        )

    # The end

    async def _settle(self) -> None:
        """Wait until all is quiet, then compare; where it does not become quiet, tell the differences, too."""
        fresh = await opened(self._service.instances[0], self._jar, self._conversations)
        try:
            await eventually(
                lambda: self._is_quiet(fresh), seconds=QUIET_SECONDS, what="all tabs stand still"
            )
        except AssertionError as error:
            self.found += [str(error), self._standings()]
        finally:
            self._compare(fresh)
            await fresh.close()

    async def _is_quiet(self, fresh: Client) -> bool:
        """Tell whether no answer runs and every tab stands where a snapshot of now stands."""
        self._raise_faults()
        if not all(tab.settled for tab in self._tabs):
            return False
        for conversation in self._conversations:
            fresh.mirror(conversation).forget_place()
            snapshot = await fresh.command("conversation.open", conversation=conversation)
            if snapshot["running"] is not None:
                return False
        return all(
            mirror.at == fresh.mirror(conversation).at
            for tab in self._tabs
            for conversation, mirror in tab.mirrors.items()
        )

    def _compare(self, fresh: Client) -> None:
        self.found += self._ledger.faults()
        for conversation in self._conversations:
            readers = [tab for tab in self._tabs if conversation in tab.following]
            self.found += checks.differences(conversation, fresh, readers)
        for prompt, accepted in self._accepted:
            self.found += checks.prompt(prompt, accepted, fresh, self._ledger)
        for prompt, conversation in self._busy:
            self.found += checks.refused(prompt, conversation, fresh)

    def _count(self) -> None:
        counts = self._report.counts
        counts["events"] += sum(len(tab.seen) for tab in self._tabs)
        counts["placed"] += len(self._ledger.facts)
        epochs = {(conversation, epoch) for conversation, epoch, _ in self._ledger.facts}
        counts["epochs after the first"] += len(epochs) - len({conversation for conversation, _ in epochs})
        counts["prompts"] += len(self._accepted)
        counts["conversations"] += len(self._conversations)
        for tab in self._tabs:
            counts.update(tab.counts)
        for fact in self._ledger.facts.values():
            counts["attempts after the first"] += fact["type"] == "completion.started" and fact["attempt"] > 1
            counts["answers failed"] += fact["type"] == "completion.failed"
            counts["answers interrupted"] += fact.get("finish_reason") == "interrupted"

    def _standings(self) -> str:
        """Say where everybody stands."""
        return "\n".join(
            f"{tab.name}: present {tab.present}, connected {tab.connected}, settled {tab.settled}, unsent"
            f" {[*tab.unsent]}, at { {each: mirror.at for each, mirror in tab.mirrors.items()} }"
            for tab in self._tabs
        )
