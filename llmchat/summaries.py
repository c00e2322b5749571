"""Summaries of conversations, and which are wanted. Knows Redis; knows neither the model nor what a summary says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import Summary
from llmchat.errors import Conflict, Fenced, NotFound
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script, Several

FOLDS_LISTED = 1000
TRIES = 3
"""Of one fold; the end of the next turn asks for another."""
CHANGED = "The summary was changed meanwhile. Read it again."


@dataclass(frozen=True, slots=True)
class Wanted:
    """A fold that somebody should make."""

    session: str
    up_to: str
    model: str
    tries: int


class Summaries:
    """Every method raises Unavailable when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_ms = history_days * 86_400_000
        self._several = Several(redis)
        self._want = Script(redis, "want_fold")
        self._fold = Script(redis, "fold")
        self._find = Script(redis, "find_summary")
        self._correct = Script(redis, "correct_summary")

    # Folds

    async def want(self, conversation: str, up_to: str, model: str) -> None:
        """Have a conversation folded up to a message, by whichever instance; one fold at a time is wanted."""
        keys = self._keys.of_conversation(conversation)
        await self._want([keys.conversation, keys.fold], up_to, model, self._retention_ms)
        await self._list(conversation)  # after the wish: `close` may be on its way

    async def open(self) -> list[str]:
        """List the conversations that a fold may be wanted of, the oldest wish first."""
        async with available():
            found: list[Any] = await self._redis.zrange(self._keys.folds, 0, FOLDS_LISTED - 1)
        return [each.decode() for each in found]

    async def close(self, conversation: str) -> None:
        """Take a conversation off the list, unless a fold is wanted of it."""
        async with available():
            await self._redis.zrem(self._keys.folds, conversation)
            wanted = await self._redis.exists(self._keys.of_conversation(conversation).fold)
        if wanted:
            await self._list(conversation)

    async def _list(self, conversation: str) -> None:
        (time,) = await self._several([self._keys.folds], ("TIME",))
        async with available():
            await self._redis.zadd(self._keys.folds, {conversation: int(time[0])})

    async def wanted(self, conversation: str) -> Wanted | None:
        """Find the fold that is wanted of a conversation, and count a try; None after TRIES, or where it is gone."""
        keys = self._keys.of_conversation(conversation)
        session, fold = await self._several(
            [keys.conversation, keys.fold],
            ("HGET", keys.conversation, "session"),
            ("HMGET", keys.fold, "up_to", "model", "tries"),
        )
        up_to, model, tries = fold
        if session is None or up_to is None:
            return None
        if int(tries or 0) >= TRIES:
            await self.forgo(conversation)
            return None
        await self._several([keys.fold], ("HINCRBY", keys.fold, "tries", 1))
        return Wanted(session.decode(), up_to.decode(), model.decode(), int(tries or 0))

    async def forgo(self, conversation: str) -> None:
        """Want no fold of a conversation any more."""
        keys = self._keys.of_conversation(conversation)
        await self._several([keys.fold], ("DEL", keys.fold))

    async def fold(
        self, conversation: str, fence: str, before: Summary | None, after: Summary, *, last: bool
    ) -> bool:
        """Store a summary that came of the one `before`; the `last` one ends the fold.

        False where the one before was corrected meanwhile, or the messages are gone. Raises Fenced.
        """
        keys = self._keys.of_conversation(conversation)
        outcome = await self._fold(
            [keys.conversation, keys.messages, keys.summaries, keys.fold, keys.fold_fence],
            *(fence, before.message if before else "", _json(before) if before else ""),
            *(after.message, _json(after), int(last), self._retention_ms),
        )
        if outcome == b"fenced":
            raise Fenced
        return bool(outcome == b"ok")

    # Reading and correcting

    async def newest(self, session: str, conversation: str, start: str = "") -> Summary | None:
        """Find the summary that holds for a branch, upwards from `start` (the tip if ""). Raises NotFound."""
        keys = self._keys.of_conversation(conversation)
        found = await self._find([keys.conversation, keys.tree, keys.summaries], session, start)
        if found is None:
            raise NotFound("There is no such conversation.")
        return Summary.read(*found) if found else None

    async def correct(self, session: str, conversation: str, message: str, text: str) -> Summary:
        """Replace the words of the summary under a message. Raises NotFound, and Conflict where it is not the newest."""
        before = await self.newest(session, conversation)
        if before is None or before.message != message:
            raise Conflict(CHANGED)
        after = Summary(message, text, before.messages, before.created, corrected=True)
        keys = self._keys.of_conversation(conversation)
        if not await self._correct([keys.summaries], message, _json(before), _json(after)):
            raise Conflict(CHANGED)
        return after


def _json(summary: Summary) -> str:
    record = asdict(summary)
    del record["message"]
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
