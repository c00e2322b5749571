"""What an anonymous session has becomes a person's. Knows Redis; knows neither cookies nor who the person is.

It is noted first: from then on nobody is the anonymous session any more. Then all is given, one thing after the other,
each in a step that may be repeated: whoever comes as the person next goes on with what was broken off. And for a while
it is looked again, for what was under way to the anonymous session then: a prompt, an import.
"""

from __future__ import annotations

import time
from typing import Any

from redis.asyncio import Redis

from llmchat.answering import Answering
from llmchat.arrivals import LONGEST_MS
from llmchat.attachments import Attachments
from llmchat.broadcaster import Broadcaster
from llmchat.conversations import Conversations
from llmchat.keys import Keys, group_of_session
from llmchat.listing import Listing
from llmchat.prompts import Prompts
from llmchat.redis_client import available
from llmchat.script import Several
from llmchat.session import COOKIE_SECONDS
from llmchat.shares import Shares

MOST_FORMERS = 100
"""Of a person, the newest, that are known for what they were."""
TOLD = 20
"""Chats, the newest, that the person's other tabs are told of; whoever wants more lists them."""


class Moves:
    """Every method raises Unavailable when Redis is away; each may be repeated without harm."""

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        conversations: Conversations,
        attachments: Attachments,
        shares: Shares,
        prompts: Prompts,
        listing: Listing,
        broadcaster: Broadcaster,
        answering: Answering,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._several = Several(redis)
        self._conversations = conversations
        self._attachments = attachments
        self._shares = shares
        self._prompts = prompts
        self._listing = listing
        self._broadcaster = broadcaster
        self._answering = answering

    async def begin(self, former: str, session: str) -> None:
        """Note that all of an anonymous session is a person's from now on, unless it is another's, and close its connections."""
        formers, moved = self._keys.formers(session), self._keys.moved(former)
        # First, or who comes as the person meanwhile would find the former one to be nobody's.
        await self._several([moved], ("SET", moved, session, "NX", "EX", COOKIE_SECONDS))
        await self._several(
            [formers],
            ("ZADD", formers, "NX", _now_ms(), former),
            ("ZREMRANGEBYRANK", formers, 0, -1 - MOST_FORMERS),
            ("EXPIRE", formers, COOKIE_SECONDS),
        )
        await self._broadcaster.group_send(group_of_session(former), {"type": "signed_out"})

    async def has_moved(self, session: str) -> bool:
        """Tell whether an anonymous session is a person's."""
        async with available():
            return await self._redis.get(self._keys.moved(session)) is not None

    async def finish(self, session: str) -> int:
        """Give the person what its former sessions have; gives how many chats came into the list."""
        key = self._keys.formers(session)
        async with available():
            pending: list[Any] = await self._redis.zrange(key, 1, "+inf", byscore=True, withscores=True)
        came = 0
        for former, since_ms in pending:
            began_ms = _now_ms()
            came += await self._give(former.decode(), session)
            if began_ms - since_ms > LONGEST_MS:
                async with available():
                    await self._redis.zadd(key, {former: 0}, xx=True)
        return came

    async def _give(self, former: str, session: str) -> int:
        async with available():
            owner: Any = await self._redis.get(self._keys.moved(former))
        if owner is None:
            return 0
        if owner != session.encode():
            async with available():
                await self._redis.zrem(self._keys.formers(session), former)
            return 0
        given = await self._conversations.give(former, session)
        for part in (self._attachments, self._shares, self._prompts, self._answering):
            await part.give(former, session)
        for conversation in reversed(given[:TOLD]):
            await self._listing.updated(session, conversation)
        return len(given)


def _now_ms() -> int:
    return int(time.time() * 1000)
