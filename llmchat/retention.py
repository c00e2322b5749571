"""Has what is there live no longer than is set now: each use sets it anew, and what nobody uses has what was set then.

Walks over all keys in slices. Knows how long things are kept; knows no session and no wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from llmchat.attachments import Attachments
from llmchat.conversation import milliseconds, timestamp
from llmchat.keys import Keys, named
from llmchat.redis_client import available, servers
from llmchat.script import Script

FILE = "file:"
"""How the fields of a chat's tree begin that name its files."""
SLICE = 200
"""Keys that Redis looks at in one step."""
SLACK_MS = 60_000
"""What clocks differ by, and what a walk takes, is no longer life."""

Call = tuple[list[str], int | None, str]
"""Keys, for how many ms they may live, and when their conversation was used last ("" of other keys)."""


@dataclass
class Lowered:
    """What lived longer than is set: how many of each. Of chats, links and files some go at once."""

    chats: int = 0
    links: int = 0
    files: int = 0
    lists: int = 0
    gone: int = 0


class Retention:
    """Raises Unavailable when Redis is away; may be repeated, and goes on where it was broken off."""

    def __init__(self, redis: Redis, keys: Keys, attachments: Attachments, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._attachments = attachments
        self._retention_ms = history_days * 86_400_000
        self._lower = Script(redis, "lower")

    async def lower(self, *, change: bool) -> Lowered:
        """Shorten the life of all that was kept for longer; without `change`, only count it.

        A chat counts from the end of its last turn, a link from when it was made; what does not tell when it was used
        last (lists, starting prompts, imported chats that nobody went on with, files) has the whole time from now on.
        """
        lowered = Lowered()
        if self._retention_ms:
            async for some in self._slices(self._keys.of_conversation("*").conversation):
                await self._chats(some, lowered, change=change)
            async for some in self._slices(self._keys.share("*")):
                await self._links(some, lowered, change=change)
            async for some in self._slices(self._keys.of_sessions):
                await self._lists(some, lowered, change=change)
        async for some in self._slices(self._keys.attachment("*")):
            await self._files(some, lowered, change=change)
        return lowered

    async def _chats(self, found: Sequence[str], lowered: Lowered, *, change: bool) -> None:
        calls, files = [], []
        for key, (updated, logged) in zip(found, await self._told(found, "updated", "logged"), strict=True):
            if updated is not None:
                keys, left_ms = self._keys.of_conversation(named(key)), self._chat_left_ms(updated, logged)
                calls.append((keys.all, left_ms, updated.decode()))
                files.append([] if left_ms else await self._files_of(keys.tree))
        for (_, left_ms, _), longer, its in zip(calls, await self._each(calls, change), files, strict=True):
            lowered.chats += bool(longer)
            lowered.gone += bool(longer and not left_ms)
            if longer and change:  # else they are met as files
                await self._files(its, lowered, change=True, gone=True)

    async def _files_of(self, tree: str) -> list[str]:
        """Find the files of a chat that may go: nothing leads to them then."""
        async with available():
            fields: list[Any] = await cast(Awaitable[Any], self._redis.hkeys(tree))
        names = [field.decode() for field in fields]
        return [self._keys.attachment(each.removeprefix(FILE)) for each in names if each.startswith(FILE)]

    async def _links(self, found: Sequence[str], lowered: Lowered, *, change: bool) -> None:
        calls = [
            ([key], self._left_ms(created), "")
            for key, (created,) in zip(found, await self._told(found, "created"), strict=True)
            if created is not None
        ]
        for (_, left_ms, _), longer in zip(calls, await self._each(calls, change), strict=True):
            lowered.links += longer
            lowered.gone += bool(longer and not left_ms)

    async def _lists(self, found: Sequence[str], lowered: Lowered, *, change: bool) -> None:
        calls: list[Call] = [
            ([key], self._retention_ms, "") for key in found if not key.startswith(self._others(named(key)))
        ]
        lowered.lists += sum(await self._each(calls, change))

    def _others(self, session: str) -> tuple[str, ...]:
        """Name what a session has that is no list: an account lives as its files do, the others tell who is who."""
        keys = self._keys
        of_files = keys.attachments_of(session)
        return of_files, keys.moved(session), keys.formers(session), keys.logins(session)

    async def _files(
        self, found: Sequence[str], lowered: Lowered, *, change: bool, gone: bool = False
    ) -> None:
        """Files live no longer than their chat. One that is not there may be on its way, unless it is known to be `gone`."""
        told = await self._told(found, "session", "conversation")
        sent = [
            (session.decode(), conversation.decode(), named(key))
            for key, (session, conversation) in zip(found, told, strict=True)
            if session and conversation
        ]
        chats = [self._keys.of_conversation(conversation).conversation for _, conversation, _ in sent]
        for each, (updated, logged) in zip(sent, await self._told(chats, "updated", "logged"), strict=True):
            most_ms = 0 if gone else self._chat_left_ms(updated, logged)
            left_ms = await self._attachments.lower(*each, most_ms=most_ms, slack_ms=SLACK_MS, change=change)
            lowered.files += left_ms is not None
            lowered.gone += left_ms == 0

    async def _each(self, calls: Sequence[Call], change: bool) -> list[int]:
        """Lower what lives longer than so many ms; gives how many keys of each did."""
        words = [(keys, (left_ms or 0, SLACK_MS, updated, int(change))) for keys, left_ms, updated in calls]
        return await self._lower.each(words) if words else []

    async def _told(self, hashes: Sequence[str], *names: str) -> list[list[bytes | None]]:
        """Read fields of each."""
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for key in hashes:
                pipe.hmget(key, *names)
            found: list[list[bytes | None]] = await pipe.execute() if hashes else []
        return found

    def _chat_left_ms(self, updated: bytes | None, logged: bytes | None) -> int | None:
        """Tell how long a chat is there yet; None sets no bound. One of which nothing was said here was imported some day."""
        if updated is None or not self._retention_ms:
            return None
        return self._left_ms(updated) if logged else self._retention_ms

    def _left_ms(self, used: bytes) -> int:
        return max(0, milliseconds(used.decode()) + self._retention_ms - milliseconds(timestamp()))

    async def _slices(self, pattern: str) -> AsyncIterator[list[str]]:
        """Give the keys of a pattern, some at a time, with as much rest after each as it took."""
        loop = asyncio.get_running_loop()
        async with available():
            every = await servers(self._redis)
        for server in every:
            cursor = None
            while cursor != 0:
                began = loop.time()
                async with available():
                    told: Any = await server.scan(cursor or 0, match=pattern, count=SLICE)
                cursor, found = told
                yield [key.decode() for key in found]
                await asyncio.sleep(loop.time() - began)
