"""A tab as the page is one: comes back by itself, resumes by place, repeats a prompt that nobody accepted.

What it does is what `static/js/socket.js` and `static/js/wire.js` do, but that it takes nothing for granted:
a hole or a repeat is a fault, where the protocol does not allow it.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

from tests.instances import Broken, Client, Instance, Refused
from tests.instances.client import PLACED_ANSWERS
from tests.instances.drill.ledger import Ledger
from tests.instances.mirror import PLACED, Event, Mirror
from tests.waiting import within

ASK_AGAIN_SECONDS = 1.5
BACKOFF_SECONDS = (0.25, 10.0)
RESUMED_EVENTS = 500  # so many are told again, rather than a snapshot
COMING_BACK = {1006, 1012, 1013}
SAY_SECONDS = 30.0


@dataclass
class Sent:
    """A prompt that nobody accepted yet."""

    command: Event
    accepted: asyncio.Future[Event]
    loses_reply: bool = False  # the connection breaks just before its `message.accepted`
    written: asyncio.Event = field(default_factory=asyncio.Event)  # once, at least
    attempts: int = 0
    again: asyncio.TimerHandle | None = None


@dataclass
class Asked:
    """A command of a person that has no answer yet."""

    command: Event
    answered: asyncio.Future[str]


@dataclass
class Following:
    """What this connection was told of an open conversation."""

    asked: str = ""  # the id of a `conversation.open` without an answer yet, or that is asked again later
    refused: bool = False
    loose: bool = False  # opened by a prompt: events go on from now, and what is missing is asked for
    again: asyncio.TimerHandle | None = None


@dataclass
class Link:
    """What lasts as long as one connection."""

    outbox: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    opens: dict[str, tuple[str, Event | None]] = field(default_factory=dict)  # id -> conversation, after
    prompted: set[str] = field(default_factory=set)
    early: dict[str, list[Event]] = field(default_factory=dict)
    store_available: bool = True


class Tab(Client):
    """One tab. `faults` is what it found wrong; `counts` is what it went through."""

    def __init__(
        self,
        name: str,
        jar: aiohttp.CookieJar,
        instances: Sequence[Instance],
        random: Random,
        ledger: Ledger,
        *,
        first: Instance | None = None,
    ) -> None:
        super().__init__(jar)
        self.name = name
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self.accepted: dict[str, Event] = {}
        self.following: dict[str, Following] = {}
        self.unsent: dict[str, Sent] = {}
        self._instances = instances
        self._random = random
        self._ledger = ledger
        self._link: Link | None = None
        self._present = asyncio.Event()
        self._present.set()
        self.connections = 0  # made so far
        self._anew = False  # the next connection is that of a page that knows nothing
        self._lost_by_us = False
        self._deaf = False  # what still comes on this connection was lost on its way
        self._ids = 0
        self._first = first  # where it connects for the first time
        self._asked: dict[str, Asked] = {}
        self._names: set[str] = set()  # ids of what was ever asked

    # What a person does

    async def say(
        self,
        text: str,
        conversation: str | None = None,
        *,
        breaking: Callable[[], Awaitable[None]] | None = None,
        loses_reply: bool = False,
        name: str = "",
        **fields: Any,
    ) -> Event:
        """Send a prompt until it is accepted, over as many connections as it takes. Raises Refused.

        `breaking` is called when it is on its way for the first time. `name` is the command's id, where it is
        not a new one.
        """
        command = {"type": "message.send", "id": name or self._new_id(), "text": text, **fields}
        if conversation is not None:
            command["conversation"] = conversation
        sent = Sent(command, asyncio.get_running_loop().create_future(), loses_reply)
        self.unsent[command["id"]] = sent
        self._send_unsent(sent)
        self._ledger.bell.ring()
        async with within(
            SAY_SECONDS, lambda: f"{self.name}: {command} is accepted, {sent.attempts} attempts"
        ):
            if breaking:
                await sent.written.wait()
                await breaking()
            return await sent.accepted

    def follow(self, conversation: str) -> None:
        """Open a conversation, from a snapshot, and keep it open."""
        if conversation not in self.following:
            self.following[conversation] = Following(loose=self._prompted(conversation))
            self._ask(conversation)

    async def ask(self, kind: str, conversation: str, **fields: Any) -> str:
        """Ask for something until it is answered, and return the error's code, or "" where it was placed or is so."""
        command = {"type": kind, "id": self._new_id(), "conversation": conversation, **fields}
        asked = Asked(command, asyncio.get_running_loop().create_future())
        self._asked[command["id"]] = asked
        self._names.add(command["id"])
        self._send_asked(asked)
        try:
            async with within(SAY_SECONDS, lambda: f"{self.name}: {command} is answered"):
                return await asked.answered
        finally:
            del self._asked[command["id"]]

    def lose(self) -> bool:
        """Lose the connection, if there is one."""
        if self._link is None:
            return False
        self._lost_by_us = True
        self.cut()
        return True

    def reload(self) -> bool:
        """Lose the connection and what is known of places."""
        self._anew = self.lose()
        return self._anew

    def leave(self) -> bool:
        """Lose the connection and stay away."""
        self._present.clear()
        return self.lose()

    def come_back(self) -> None:
        """Connect again."""
        self._present.set()

    # What is known of it

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    @property
    def told_available(self) -> bool:
        """Whether there is a connection that was not told that the store is away."""
        return self._link is not None and self._link.store_available

    @property
    def present(self) -> bool:
        """Whether it is connected, or will be."""
        return self._present.is_set()

    @property
    def settled(self) -> bool:
        """Whether nothing is asked that has no answer."""
        return (
            self._link is not None
            and self._link.store_available
            and not self.unsent
            and not any(each.asked or each.loose for each in self.following.values())
        )

    def has_reached(self, places: dict[str, Event], before: set[str]) -> bool:
        """Tell whether it is settled, and stands at these places or after them, in all that it follows.

        An epoch that is not among those `before` is after a place in one of them.
        """
        return self.settled and all(
            self._reached(self.mirror(conversation), places[conversation], before)
            for conversation in self.following
            if conversation in places
        )

    @staticmethod
    def _reached(mirror: Mirror, at: Event, before: Collection[str] = ()) -> bool:
        if mirror.at is None:
            return False
        if mirror.at["epoch"] != at["epoch"]:
            return at["epoch"] in before and mirror.at["epoch"] not in before
        return bool(mirror.at["offset"] >= at["offset"])

    # Connections

    async def live(self) -> None:
        """Connect, and connect again, until cancelled."""
        failures = 0
        while True:
            await self._present.wait()
            try:
                first, self._first = self._first, None
                await self.connect(first or self._random.choice(self._instances))
            except (AssertionError, OSError, aiohttp.ClientError):
                await self._give_up()
                self.counts["handshakes failed"] += 1
                failures += 1
            else:
                await self._stay()
                failures = 1
            shortest, longest = BACKOFF_SECONDS
            await asyncio.sleep(self._random.random() * min(longest, shortest * 2 ** (failures - 1)))

    async def _give_up(self) -> None:
        if self._reading:
            self.cut()
            await asyncio.wait({self._reading})
            self._reading = None

    async def _stay(self) -> None:
        """Live on one connection until it ends."""
        assert self._reading
        assert self._socket
        link = self._link = Link()
        self.connections += 1
        writing = asyncio.create_task(self._write(link))
        self._resume()
        try:
            await asyncio.wait({self._reading})
        finally:
            writing.cancel()
            self._lost()
        self._reading = None
        self._deaf = False
        code = self._socket.close_code or 1006
        if not self._lost_by_us:
            self.counts[f"closed with {code}"] += 1
            if code not in COMING_BACK:
                self.faults.append(f"{self.name}: the connection was closed with {code}")
        self._lost_by_us = False

    async def _write(self, link: Link) -> None:
        assert self._socket
        with suppress(OSError, aiohttp.ClientError):
            while True:
                command = await link.outbox.get()
                await self._socket.send_str(json.dumps(command))
                if sent := self.unsent.get(command["id"]):
                    sent.written.set()

    def _resume(self) -> None:
        if self._anew:
            for mirror in self.mirrors.values():
                mirror.forget_place()
        self._anew = False
        for conversation in self.following:
            self._ask(conversation)
        for sent in self.unsent.values():
            self._send_unsent(sent)
        for asked in self._asked.values():
            self._send_asked(asked)
        self._ledger.bell.ring()

    def _lost(self) -> None:
        self._link = None
        for each in self.following.values():
            each.asked, each.refused, each.loose = "", False, False
        timers = [each.again for each in self.following.values()]
        timers += [each.again for each in self.unsent.values()]
        for timer in filter(None, timers):
            timer.cancel()

    # Commands

    def _new_id(self) -> str:
        self._ids += 1
        return f"{self.name}-{self._ids}"

    def _send_unsent(self, sent: Sent) -> None:
        if self._link is None or sent.accepted.done():
            return
        sent.attempts += 1
        self.counts["prompts repeated"] += sent.attempts > 1
        if conversation := sent.command.get("conversation"):
            self._link.prompted.add(conversation)
        for each, following in self.following.items():
            if following.refused and self._prompted(each):
                following.loose = True
        self._link.outbox.put_nowait(sent.command)

    def _send_asked(self, asked: Asked) -> None:
        if self._link is not None and not asked.answered.done():
            self._link.outbox.put_nowait(asked.command)

    def _answer(self, event: Event) -> bool:
        """Take an event as the answer to what a person asked for; tell whether it was one."""
        kind, name = event["type"], event.get("id", "")
        if kind == "error" and event["code"] == "unavailable" and name in self._asked:
            self._later(self._send_asked, self._asked[name])
            return True
        for asked in self._asked.values():
            command = asked.command
            is_answer = name == command["id"] or (
                kind in PLACED_ANSWERS[command["type"]] and event["conversation"] == command["conversation"]
            )
            if is_answer and not asked.answered.done():
                asked.answered.set_result(event["code"] if kind == "error" else "")
        return kind == "error" and name in self._names

    def _ask(self, conversation: str, *, anew: bool = False) -> None:
        if self._link is None:
            return
        following, after = self.following[conversation], None if anew else self.mirror(conversation).at
        if following.again:
            following.again.cancel()
        following.asked = self._new_id()
        self._link.opens[following.asked] = (conversation, after)
        command: Event = {"type": "conversation.open", "id": following.asked, "conversation": conversation}
        self._link.outbox.put_nowait({**command, "after": after} if after else command)

    def _later(self, act: Any, *arguments: Any) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(ASK_AGAIN_SECONDS, act, *arguments)

    # Events

    def _receive(self, frame: str) -> None:
        event = json.loads(frame)
        self._deaf = self._deaf or self._loses(event)
        if self._deaf:
            return
        self.seen.append(event)
        try:
            self._ledger.note(event, frame)
            self._sort(event)
        except (Broken, KeyError, TypeError, ValueError) as error:
            self.faults.append(f"{self.name}, connected to {self.instance and self.instance.url}: {error!r}")
        self._bell.ring()
        self._ledger.bell.ring()

    def _loses(self, event: Event) -> bool:
        """Lose the connection just before an event that should be lost with it."""
        sent = self.unsent.get(event.get("id", "")) if event["type"] == "message.accepted" else None
        if sent is None or not sent.loses_reply:
            return False
        sent.loses_reply = False
        self.counts["replies lost"] += 1
        return self.lose()

    def _sort(self, event: Event) -> None:
        kind = event["type"]
        if self._answer(event):
            return
        if kind in PLACED:
            self._placed(event)
        elif kind == "conversation.snapshot":
            self._snapshot(event)
        elif kind == "conversation.current":
            self._current(event)
        elif kind == "message.accepted":
            self._accepted(event)
        elif kind == "error":
            self._error(event)
        elif kind == "session.store" and self._link:
            self._link.store_available = event["available"]

    def _placed(self, event: Event) -> None:
        conversation = event["conversation"]
        following = self.following.get(conversation)
        if following is None:
            self._keep_early(event)
            return
        mirror = self.mirror(conversation)
        if following.loose and not self._follows(mirror, event):
            self.counts["events dropped"] += 1
            if not following.asked and not self._reached(mirror, event["at"]):
                self._ask(conversation)
        elif mirror.at is None:
            raise Broken(f"{event} came before what was asked for")
        else:
            mirror.apply(event)
            self._ledger.follow(self.name, event)
            if not mirror.leads_to_the_root and not following.asked:
                self._ask(conversation, anew=True)  # a branch that no snapshot has shown here

    @staticmethod
    def _follows(mirror: Mirror, event: Event) -> bool:
        at = event["at"]
        return mirror.at is not None and mirror.at == {**at, "offset": at["offset"] - 1}

    def _prompted(self, conversation: str) -> bool:
        """Tell whether a prompt of ours may have opened a conversation on this connection.

        One that begins a conversation may be told in it before its `message.accepted` names it: another tab
        that sent the same one knows the name already.
        """
        return self._link is not None and (
            conversation in self._link.prompted
            or any("conversation" not in sent.command for sent in self.unsent.values())
        )

    def _keep_early(self, event: Event) -> None:
        """A new conversation's first events may overtake the `message.accepted` that names it."""
        if self._link is None:
            return
        if all("conversation" in sent.command for sent in self.unsent.values()):
            raise Broken(f"{event} is of a conversation that was not opened")
        self._link.early.setdefault(event["conversation"], []).append(event)

    def _snapshot(self, event: Event) -> None:
        conversation, at = event["conversation"], event["at"]
        following, mirror = self.following[conversation], self.mirror(conversation)
        after = self._answered(following, event)
        if after and after["epoch"] == at["epoch"] and 0 <= at["offset"] - after["offset"] < RESUMED_EVENTS:
            raise Broken(f"a snapshot at {at} came in place of the events after {after}")
        self.counts["snapshots unasked"] += "id" not in event
        mirror.apply(event)
        self._ledger.stand(self.name, conversation, at)

    def _current(self, event: Event) -> None:
        conversation = event["conversation"]
        following, mirror = self.following[conversation], self.mirror(conversation)
        loose = following.loose
        if loose and event.get("id") in self._names:
            return
        self._answered(following, event)
        if loose and "id" not in event and event["at"] != mirror.at:
            if not following.asked:
                mirror.forget_place()
                self._ask(conversation)
            return
        if mirror.at is None:
            raise Broken(f"{event} came in place of a snapshot")
        mirror.apply(event)

    def _answered(self, following: Following, event: Event) -> Event | None:
        """Note that an open was answered; return the place that it named."""
        _, after = self._link.opens.pop(event.get("id", ""), ("", None)) if self._link else ("", None)
        if event.get("id") == following.asked:
            following.asked, following.refused = "", False
        following.loose = following.loose and bool(following.asked)
        return after

    def _accepted(self, event: Event) -> None:
        sent = self.unsent.pop(event["id"], None)
        if sent is None:
            if event != self.accepted[event["id"]]:
                raise Broken(f"{event} accepts otherwise than {self.accepted[event['id']]}")
            return
        conversation = event["conversation"]
        self.accepted[event["id"]] = event
        if self._link:
            self._link.prompted.add(conversation)
        if conversation not in self.following:
            self._begin(conversation, event["at"], again=sent.attempts > 1)
        if not sent.accepted.done():
            sent.accepted.set_result(event)
        for early in self._link.early.pop(conversation, []) if self._link else []:
            self._placed(early)

    def _begin(self, conversation: str, at: Event, *, again: bool) -> None:
        """Follow a conversation that our prompt began; after a repeat its first events are asked for."""
        before = {**at, "offset": at["offset"] - 1}
        self.following[conversation] = Following(loose=again)
        self.mirror(conversation).at = before
        self._ledger.stand(self.name, conversation, before)
        if again:
            self._ask(conversation)

    def _error(self, event: Event) -> None:
        name, code = event.get("id", ""), event["code"]
        if name in self.unsent and code == "unavailable":
            sent = self.unsent[name]
            if sent.again:
                sent.again.cancel()
            sent.again = self._later(self._send_unsent, sent)
        elif name in self.unsent:
            sent = self.unsent.pop(name)
            if not sent.accepted.done():
                sent.accepted.set_exception(Refused(event))
        elif self._link and name in self._link.opens and code == "unavailable":
            conversation, _ = self._link.opens.pop(name)
            following = self.following[conversation]
            following.refused = True
            following.loose = following.loose or self._prompted(conversation)
            following.again = self._later(self._ask, conversation)
            self.counts["opens unavailable"] += 1
        else:
            raise Broken(f"{event} was not to be expected")
