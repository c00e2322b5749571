"""Searches in the titles and messages of a session's conversations. Knows Redis; knows neither the wire nor sockets.

There is no index: what is deleted is gone from here at once. In its place a search has bounds, and tells how far it came.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from weakref import WeakValueDictionary

from redis.asyncio import Redis

from llmchat.errors import Busy
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script
from llmchat.search import Query, Snippet
from llmchat.title import MOST_TITLE_CHARACTERS

SEARCH_BYTES = 32 * 1024 * 1024
"""Of records that one search reads, about."""
SEARCH_SECONDS = 3.0
"""After them a search ends with what it found."""
SEARCHES_AT_ONCE = 2
"""On an instance: what takes its processor away from answers."""
WAIT_SECONDS = 8.0
"""So long a search waits for others."""
CONVERSATIONS = 10_000
"""Of a session, that a search looks at: the newest."""
AT_FIRST, AT_ONCE = 4, 50
"""Conversations whose first messages are read together: at first, and at most."""
FIRST_BYTES, FURTHER_BYTES = 64 * 1024, 1024 * 1024
"""Of one conversation's records: read together with others, and read alone."""
HANDY_BYTES = 512 * 1024
"""Of what is read together: from fewer on, more are."""
MATCHES = 3
"""Of one conversation that are shown."""
CROWDED = "Many people search just now. Try again in a moment."


@dataclass(frozen=True, slots=True)
class Match:
    """A message that was found."""

    message: str
    role: str
    snippet: Snippet
    current: bool
    """It is on the current branch."""

    def shaped(self) -> dict[str, Any]:
        """Give the shape that it has on the wire."""
        other = {} if self.current else {"current": False}
        return {"message": self.message, "role": self.role, **self.snippet.shaped(), **other}


@dataclass(frozen=True, slots=True)
class Found:
    """A conversation that was found."""

    conversation: str
    title: Snippet | None
    matches: Sequence[Match]
    more: int
    """Messages that were found beside these."""


@dataclass(slots=True)
class Searched:
    """How far a search came."""

    conversations: int
    of: int
    complete: bool


@dataclass(slots=True)
class _Look:
    """What is found in one conversation while it is read."""

    query: Query
    conversation: str
    there: bool = True
    """It may be searched: it is the session's, neither deleted nor temporary."""
    title: str = ""
    cursor: str = "0"
    """Where to read on; "0" where nothing is left."""
    taken: bool = False
    """What was read was looked through."""
    newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Messages found that are shown, by id."""
    ids: set[str] = field(default_factory=set)
    """Of all messages found: one may be read twice."""

    def take(self, answer: Sequence[Any] | None) -> None:
        """Look through what was read; None where there is nothing to be read."""
        self.there, self.cursor, self.taken = answer is not None, "0", True
        if answer is None:
            return
        title, cursor, _, records = answer
        self.title, self.cursor = title.decode(), cursor.decode()
        for each in records:
            self._look_at(json.loads(each))

    def _look_at(self, record: dict[str, Any]) -> None:
        if record["id"] in self.ids or not self.query.matches(record["text"]):
            return
        self.ids.add(record["id"])
        self.newest[record["id"]] = record
        if len(self.newest) > MATCHES:
            del self.newest[min(self.newest.values(), key=lambda each: each["created"])["id"]]

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The messages found that are shown, newest first."""
        return sorted(self.newest.values(), key=lambda each: each["created"], reverse=True)

    def found(self, current: Sequence[bool]) -> Found:
        """Give what was found, where it is told of each message shown whether it is on the current branch."""
        title = (
            self.query.snippet(self.title, MOST_TITLE_CHARACTERS, MOST_TITLE_CHARACTERS)
            if self._named
            else None
        )
        matches = [
            Match(each["id"], each["role"], self.query.snippet(each["text"]), is_current)
            for each, is_current in zip(self.shown, current, strict=True)
        ]
        return Found(self.conversation, title, matches, len(self.ids) - len(matches))

    @property
    def fits(self) -> bool:
        """Something was found."""
        return self.there and (self._named or bool(self.ids))

    @property
    def _named(self) -> bool:
        return self.query.matches(self.title)


class Searches:
    """One for each instance."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._search = Script(redis, "search")
        self._on_branch = Script(redis, "on_branch")
        self._places = asyncio.Semaphore(SEARCHES_AT_ONCE)
        self._one_each: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.waiting = 0
        """How many searches wait for others."""

    async def search(self, session: str, query: Query, *, limit: int) -> tuple[list[Found], Searched]:
        """Find at most `limit` of a session's conversations, last used first, and tell how far that came.

        Raises Busy where too many search, Unavailable.
        """
        async with self._turn(session):
            ids, count = await self._conversations(session)
            searched = Searched(0, count, complete=False)
            found: list[Found] = []
            async for look in self._looks(session, query, ids):
                if look.there:
                    searched.conversations += 1
                else:
                    searched.of -= 1
                if look.fits:
                    found.append(await self._found(look))
                if len(found) == limit:
                    break
            searched.complete = searched.conversations == searched.of
            return found, searched

    @asynccontextmanager
    async def _turn(self, session: str) -> AsyncIterator[None]:
        """Wait until few others search, and nobody else of the session. Raises Busy."""
        own = self._one_each.setdefault(session, asyncio.Lock())
        self.waiting += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await own.acquire()
                try:
                    await self._places.acquire()
                except BaseException:
                    own.release()
                    raise
        except TimeoutError:
            raise Busy(CROWDED) from None
        finally:
            self.waiting -= 1
        try:
            yield
        finally:
            self._places.release()
            own.release()

    async def _conversations(self, session: str) -> tuple[list[str], int]:
        """Read which conversations may be searched, and count all."""
        key = self._keys.conversations(session)
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrange(key, 0, CONVERSATIONS - 1, desc=True)
            pipe.zcard(key)
            found, count = await pipe.execute()
        return [each.decode() for each in found], count

    async def _looks(self, session: str, query: Query, ids: Sequence[str]) -> AsyncIterator[_Look]:
        """Look through conversations, one after the other, for as long as a search may take."""
        until, left = monotonic() + SEARCH_SECONDS, SEARCH_BYTES
        start, count = 0, AT_FIRST
        while start < len(ids):
            if left <= 0 or monotonic() > until:
                return
            looks = [_Look(query, each) for each in ids[start : start + count]]
            size = await self._read(session, looks, FIRST_BYTES, until)
            left, start = left - size, start + count
            count = min(2 * count, AT_ONCE) if size < HANDY_BYTES else max(1, count // 2)
            for look in looks:
                while look.taken and look.cursor != "0":
                    if left <= 0 or monotonic() > until:
                        return
                    left -= await self._read(session, [look], FURTHER_BYTES, until)
                if not look.taken:
                    return
                yield look

    async def _read(self, session: str, looks: Sequence[_Look], most_bytes: int, until: float) -> int:
        """Read on in conversations, and look through it off the event loop, until a time; tells how many bytes were read."""
        calls: list[tuple[list[str], list[str | int]]] = []
        for look in looks:
            keys = self._keys.of_conversation(look.conversation)
            calls.append(([keys.conversation, keys.messages], [session, look.cursor, most_bytes]))
        answers = await self._search.each(calls)
        await asyncio.to_thread(_take_all, looks, answers, until)
        return sum(answer[2] for answer in answers if answer)

    async def _found(self, look: _Look) -> Found:
        tree = self._keys.of_conversation(look.conversation).tree
        shown = [each["id"] for each in look.shown]
        current = await self._on_branch([tree], *shown) if shown else []
        return await asyncio.to_thread(look.found, [each == b"1" for each in current])


def _take_all(looks: Sequence[_Look], answers: Sequence[Any], until: float) -> None:
    for look, answer in zip(looks, answers, strict=True):
        look.taken = False
        if monotonic() > until:
            return
        look.take(answer)
