"""What all tabs of a run got: the same bytes at the same place, and to each tab every place once and in order."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from dataclasses import dataclass

from tests.instances.mirror import PLACED, Broken, Event
from tests.waiting import Bell

Place = tuple[str, str, int]


def place(conversation: str, at: Event) -> Place:
    """Return a place with its conversation, to be compared and counted."""
    return conversation, at["epoch"], at["offset"]


@dataclass(frozen=True)
class Taken:
    """One step of a tab in a conversation: by an event, or to where a snapshot or `message.accepted` stands."""

    place: Place
    digest: str = ""  # of the event's frame


class Ledger:
    """Kept by all tabs of one run together; `bell` rings whenever any of them got anything."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.facts: dict[Place, Event] = {}
        self.times: dict[Place, float] = {}  # when it was first seen, by the loop's clock
        self.digests: dict[Place, str] = {}
        self.taken: dict[str, list[Taken]] = defaultdict(list)

    def note(self, event: Event, frame: str) -> None:
        """Compare an event's bytes with what others got at its place. Raises Broken."""
        if event["type"] not in PLACED:
            return
        where = place(event["conversation"], event["at"])
        digest = hashlib.sha256(frame.encode()).hexdigest()
        self.facts.setdefault(where, event)
        self.times.setdefault(where, asyncio.get_running_loop().time())
        if self.digests.setdefault(where, digest) != digest:
            raise Broken(f"{frame} has other bytes than {self.facts[where]}")

    def follow(self, tab: str, event: Event) -> None:
        """Write down that a tab took in an event."""
        where = place(event["conversation"], event["at"])
        self.taken[tab].append(Taken(where, self.digests[where]))

    def stand(self, tab: str, conversation: str, at: Event) -> None:
        """Write down where a tab stands without having got the events."""
        self.taken[tab].append(Taken(place(conversation, at)))

    def time(self, event: Event) -> float:
        """Tell when a placed event was first seen."""
        return self.times[place(event["conversation"], event["at"])]

    def faults(self) -> list[str]:
        """Say which tabs did not get every place exactly once, over all their connections."""
        return [f"{tab}: {fault}" for tab, taken in self.taken.items() for fault in out_of_order(taken)]


def out_of_order(taken: list[Taken]) -> list[str]:
    """Say what of a tab's steps does not follow the one before it in its conversation and epoch."""
    faults = []
    stands: dict[tuple[str, str], int] = {}
    for one in taken:
        conversation, epoch, offset = one.place
        before = stands.get((conversation, epoch))
        if before is None:
            if one.digest:
                faults.append(f"{one.place} came before any snapshot")
        elif one.digest and offset != before + 1:
            faults.append(f"{one.place} came after {before}")
        elif offset < before:
            faults.append(f"a snapshot at {one.place} came after {before}")
        stands[conversation, epoch] = offset
    return faults
