"""A session's conversations: its lists, and what belongs to each as a whole. Knows Redis; knows no message and no wire.

What is listed where is said by each conversation itself; the sets that lead to it may hold stale entries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import RESTORE_SECONDS, TEMPORARY_SECONDS, Conversation, milliseconds, timestamp
from llmchat.errors import NO_CONVERSATION, NotFound, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import available, together
from llmchat.script import Script, Several

FORMAT = 2
"""Of a session's data: 1 has no sets of what is pinned and archived."""
SEARCHED = 200
"""Conversations of a session whose titles are searched."""
READ_AT_ONCE = 100
STALE_MS = 3_600_000
"""An entry of a list without a conversation that belongs into it, so old, is taken off."""


class Conversations:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._several = Several(redis)
        self._retention_ms = history_days * 86_400_000
        self._update = Script(redis, "update")
        self._delete = Script(redis, "delete")
        self._give = Script(redis, "give")

    # Lists

    async def announce(self, session: str, conversation: str, *, temporary: bool) -> None:
        """List a conversation that is about to begin, where it is not listed yet."""
        now_ms = milliseconds(timestamp())
        if temporary:
            await self._note_temporary(session, conversation, now_ms)
        else:
            await self._list({self._keys.conversations(session): conversation}, now_ms, new=True)

    async def touch(self, session: str, known: Conversation) -> None:
        """Put a conversation where its last use belongs in the session's lists."""
        used_ms = milliseconds(known.updated)
        if known.temporary:
            await self._note_temporary(session, known.id, used_ms)
            return
        lists = {self._keys.conversations(session): known.id}
        if known.pinned:
            lists[self._keys.pinned(session)] = known.id
        if known.archived:
            lists[self._keys.archived(session)] = known.id
        await self._list(lists, used_ms)
        await self._last(
            [self._keys.pinned(session), self._keys.archived(session), self._keys.format(session)]
        )

    async def listed(
        self,
        session: str,
        *,
        before_ms: int | None,
        limit: int,
        query: str | None = None,
        pinned: bool | None = None,
        archived: bool | None = None,
    ) -> tuple[list[Conversation], bool]:
        """List a session's conversations, last used first, and tell whether there are more.

        `query` keeps those whose title has it, of the newest SEARCHED ones. `pinned` and `archived` keep those that are,
        or that are not.
        """

        def wanted(each: Conversation) -> bool:
            return (
                (query is None or query.casefold() in each.title.casefold())
                and pinned in (None, each.pinned)
                and archived in (None, each.archived)
            )

        with suppress(Unavailable):  # a store that takes no writes can be read all the same
            await self._migrate(session)
        key, belongs = self._keys.conversations(session), _is_listed
        if archived:
            key, belongs = self._keys.archived(session), _is_archived
        elif pinned:
            key, belongs = self._keys.pinned(session), _is_pinned
        found: list[Conversation] = []
        async for some in self._walk(
            session, key, belongs, before_ms, limit + 1 if query is None else SEARCHED
        ):
            if key == self._keys.conversations(session):
                with suppress(Unavailable):  # as above
                    await self._mend(session, some)
            found += [each for each in some if wanted(each)]
            if len(found) > limit or query is not None:
                break
        return found[:limit], len(found) > limit

    async def _walk(
        self,
        session: str,
        key: str,
        belongs: Callable[[Conversation], bool],
        before_ms: int | None,
        first: int,
    ) -> AsyncIterator[list[Conversation]]:
        """Read a list from a time on, `first` so many, and take off what does not belong into it."""
        newest = "+inf" if before_ms is None else f"({before_ms}"
        position, count = 0, first
        while True:
            async with available():
                scored: list[Any] = await self._redis.zrange(
                    key, newest, "-inf", desc=True, byscore=True, offset=position, num=count, withscores=True
                )
            used = {each.decode(): int(used_ms) for each, used_ms in scored}
            there = [each for each in await self.several(session, used) if belongs(each)]
            position += count - await self._take_off(key, used, {each.id for each in there})
            yield there
            if len(scored) < count:
                return
            count = READ_AT_ONCE

    async def _mend(self, session: str, some: Sequence[Conversation]) -> None:
        """Put pinned and archived ones into their lists: an instance that knows no such lists may have changed them."""
        pinned, archived = self._keys.pinned(session), self._keys.archived(session)
        flagged = [each for each in some if each.pinned or each.archived]
        if not flagged:
            return
        async with available():
            pipe = together(self._redis)
            for each in flagged:
                for key in [pinned] * each.pinned + [archived] * each.archived:
                    pipe.zadd(key, {each.id: milliseconds(each.updated)}, nx=True)
            await pipe.execute()
        await self._last([pinned, archived])

    async def _take_off(self, key: str, used: dict[str, int], there: set[str]) -> int:
        """Take stale entries off a list, and count them: what was only announced has a while to come."""
        missing = [each for each in used if each not in there]
        now_ms = await self._now_ms(key) if missing else 0
        stale = [each for each in missing if now_ms - used[each] > STALE_MS]
        if not stale:
            return 0
        try:
            async with available():
                return int(await self._redis.zrem(key, *stale))
        except Unavailable:  # as above
            return 0

    async def _list(self, lists: dict[str, str], used_ms: int, *, new: bool = False) -> None:
        async with available():
            pipe = together(self._redis)
            for key, conversation in lists.items():
                pipe.zadd(key, {conversation: used_ms}, nx=new)
            self._have_last(pipe, lists)
            await pipe.execute()

    async def _note_temporary(self, session: str, conversation: str, used_ms: int) -> None:
        key = self._keys.temporary(session)
        async with available():
            pipe = together(self._redis)
            pipe.zadd(key, {conversation: used_ms})
            pipe.pexpire(key, TEMPORARY_SECONDS * 1000)
            pipe.zremrangebyscore(key, "-inf", used_ms - TEMPORARY_SECONDS * 1000)
            await pipe.execute()

    async def _last(self, keys: Iterable[str]) -> None:
        """Have keys of a session last as long as the conversations that were used just now."""
        async with available():
            pipe = together(self._redis)
            self._have_last(pipe, keys)
            await pipe.execute()

    def _have_last(self, pipe: Any, keys: Iterable[str]) -> None:
        for key in keys:
            if self._retention_ms:
                pipe.pexpire(key, self._retention_ms)
            else:
                pipe.persist(key)

    async def _migrate(self, session: str) -> None:
        """Bring a session's data into the present form, where it has another."""
        form = self._keys.format(session)
        async with available():
            found: Any = await self._redis.get(form)
        if found is not None and int(found) >= FORMAT:
            return
        every = self._keys.conversations(session)
        async for some in self._walk(session, every, _is_listed, None, READ_AT_ONCE):
            await self._mend(session, some)
        async with available():
            if await self._redis.exists(every):
                await self._redis.set(form, FORMAT, px=self._retention_ms or None)

    # One of them

    async def check(self, session: str, conversation: str) -> None:
        """Raise NotFound for a conversation that is not the session's own, or deleted."""
        key = self._keys.of_conversation(conversation).conversation
        async with available():
            found: Any = await self._redis.hmget(key, "session", "deleted")
        owner, deleted = found
        if owner is None or owner.decode() != session or deleted is not None:
            raise NotFound(NO_CONVERSATION)

    async def conversation(self, session: str, conversation: str) -> Conversation:
        """Read what is known of a conversation. Raises NotFound."""
        found = await self.several(session, [conversation])
        if not found:
            raise NotFound(NO_CONVERSATION)
        return found[0]

    async def update(
        self, session: str, conversation: str, changes: Mapping[str, str], dropped: Sequence[str] = ()
    ) -> Conversation:
        """Set fields of a conversation: title, pinned, archived, system, model, parameters; and take back others.

        Raises NotFound.
        """
        fields = [part for pair in changes.items() for part in pair]
        key = self._keys.of_conversation(conversation).conversation
        if (fields or dropped) and await self._update(
            [key], session, " ".join(dropped), *fields
        ) == b"not_found":
            raise NotFound(NO_CONVERSATION)
        known = await self.conversation(session, conversation)
        for flag, list_of in (("pinned", self._keys.pinned), ("archived", self._keys.archived)):
            # What is so no more stays in the set for a while: another tab may have made it so again.
            if changes.get(flag) == "1" and not known.temporary:
                await self._list({list_of(session): conversation}, milliseconds(known.updated))
        return known

    async def delete(self, session: str, conversation: str) -> tuple[str, list[str]]:
        """Hide a conversation; RESTORE_SECONDS later Redis drops it: until then it can be deleted again.

        Gives the answer being made, "" where none is, and the ids of all files that it ever had. Raises NotFound.
        """
        answer, *files = await self._doom(session, conversation, doom=True)
        return answer, files

    async def unlist(self, session: str, conversation: str) -> None:
        """Take a conversation off the session's lists."""
        async with available():
            pipe = together(self._redis)
            for key in self._lists(session):
                pipe.zrem(key, conversation)
            await pipe.execute()

    async def restore(self, session: str, conversation: str) -> tuple[Conversation, list[str]]:
        """Bring back a conversation deleted a moment ago; gives it, and the ids of its files. Raises NotFound."""
        _, *files = await self._doom(session, conversation, doom=False)
        restored = await self.conversation(session, conversation)
        await self.touch(session, restored)
        return restored, files

    async def give(self, session: str, other: str) -> list[str]:
        """Give all conversations of a session to another one; gives those that are in its list, last used first.

        Each belongs to one of them at any moment, and is in a list of that one, or in the set of those that leave, until
        it is in the other's. What only was announced stays for the next time.
        """
        keys = self._keys
        lists = [*self._lists(session), keys.loose(session)]
        leaving = keys.leaving(session)
        _, _, flat = await self._several(
            [leaving, *lists],
            ("ZUNIONSTORE", leaving, len(lists) + 1, leaving, *lists, "AGGREGATE", "MAX"),
            ("PEXPIRE", leaving, self._retention_ms) if self._retention_ms else ("PERSIST", leaving),
            ("ZRANGE", leaving, 0, -1, "REV", "WITHSCORES"),
        )
        used = dict(zip((each.decode() for each in flat[::2]), map(float, flat[1::2]), strict=True))
        now_ms = milliseconds(timestamp())
        given: list[str] = []
        for start in range(0, len(used), READ_AT_ONCE):
            some = list(used)[start : start + READ_AT_ONCE]
            told = await self._give.each(
                [([keys.of_conversation(each).conversation], [session, other]) for each in some]
            )
            owned = {each: state for each, state in zip(some, told, strict=True) if state[0] != b"none"}
            given += await self._take_in(other, owned)
            done = [each for each in some if each in owned or now_ms - used[each] > STALE_MS]
            if done:
                await self._several([leaving, *lists], *(("ZREM", each, *done) for each in (leaving, *lists)))
        return given

    async def _take_in(self, session: str, owned: Mapping[str, Sequence[bytes]]) -> list[str]:
        """List conversations of a session as they say of themselves; gives those of the list that came just now."""
        keys = self._keys
        listed: list[str] = []
        touched: set[str] = set()
        async with available():
            pipe = together(self._redis)
            for each, (outcome, deleted, temporary, pinned, archived, updated) in owned.items():
                used_ms = milliseconds(updated.decode())
                if deleted == b"1":
                    pipe.zadd(keys.loose(session), {each: milliseconds(timestamp())})
                    pipe.pexpire(keys.loose(session), STALE_MS)
                    continue
                if temporary == b"1":
                    pipe.zadd(keys.temporary(session), {each: used_ms}, nx=True)
                    pipe.pexpire(keys.temporary(session), TEMPORARY_SECONDS * 1000)
                    continue
                for key in (
                    [keys.conversations(session)]
                    + [keys.pinned(session)] * (pinned == b"1")
                    + [keys.archived(session)] * (archived == b"1")
                ):
                    pipe.zadd(key, {each: used_ms}, nx=True)
                    touched.add(key)
                listed += [each] * (outcome == b"given")
            self._have_last(pipe, touched)
            await pipe.execute()
        return listed

    def _lists(self, session: str) -> list[str]:
        keys = self._keys
        of = keys.conversations, keys.pinned, keys.archived, keys.temporary
        return [list_of(session) for list_of in of]

    async def _doom(self, session: str, conversation: str, *, doom: bool) -> list[str]:
        keys = self._keys.of_conversation(conversation)
        outcome, *told = await self._delete(
            [
                keys.conversation,
                keys.messages,
                keys.tree,
                keys.log,
                keys.turn,
                keys.queue,
                keys.text,
                keys.reasoning,
                keys.summaries,
                keys.fold,
            ],
            *(session, int(doom), RESTORE_SECONDS * 1000, self._retention_ms),
        )
        if outcome == b"not_found":
            raise NotFound(NO_CONVERSATION)
        return [part.decode() for part in told]

    async def several(self, session: str, ids: Iterable[str]) -> list[Conversation]:
        """Read those of some conversations that are the session's own, and not deleted."""
        ids = list(ids)
        async with available():
            pipe = together(self._redis)
            for each in ids:
                keys = self._keys.of_conversation(each)
                pipe.hgetall(keys.conversation)
                pipe.hgetall(keys.turn)
            found = iter(await pipe.execute())
        states = [(each, _texts(next(found)), _texts(next(found))) for each in ids]
        return [
            Conversation.read(each, state, turn)
            for each, state, turn in states
            if state.get("session") == session and "deleted" not in state
        ]

    async def _now_ms(self, key: str) -> int:
        """Tell the time by the clock of the server that has a key: it is one for all instances."""
        (time,) = await self._several([key], ("TIME",))
        return int(time[0]) * 1000 + int(time[1]) // 1000


def _is_listed(conversation: Conversation) -> bool:
    return not conversation.temporary


def _is_pinned(conversation: Conversation) -> bool:
    return conversation.pinned and not conversation.temporary


def _is_archived(conversation: Conversation) -> bool:
    return conversation.archived and not conversation.temporary


def _texts(found: dict[bytes, bytes]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in found.items()}
