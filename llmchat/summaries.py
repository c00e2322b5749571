"""Summaries of conversations, and which are wanted. Knows Redis; knows neither the model nor what a summary says."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import Summary
from llmchat.errors import NO_CONVERSATION, Conflict, Fenced, NotFound
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script, Several

FOLDS_LISTED = 1000
WALKED = 1000
"""Messages of a branch that one script goes up."""
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
        self._try = Script(redis, "try_fold")
        self._uncovered = Script(redis, "uncovered")
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
            wanted = await self._redis.hexists(self._keys.of_conversation(conversation).fold, "up_to")
        if wanted:
            await self._list(conversation)

    async def _list(self, conversation: str) -> None:
        (time,) = await self._several([self._keys.folds], ("TIME",))
        async with available():
            await self._redis.zadd(self._keys.folds, {conversation: int(time[0])})

    async def wanted(self, conversation: str, fence: str) -> Wanted | None:
        """Find the fold that is wanted of a conversation, and count a try; None after TRIES, or where it is gone.

        Raises Fenced.
        """
        return await self._tried(conversation, fence, TRIES)

    async def forgo(self, conversation: str, fence: str) -> None:
        """Want no fold of a conversation any more. Raises Fenced."""
        await self._tried(conversation, fence, 0)

    async def _tried(self, conversation: str, fence: str, most: int) -> Wanted | None:
        keys = self._keys.of_conversation(conversation)
        found = await self._try([keys.conversation, keys.fold, keys.fold_fence], fence, most)
        if found == b"fenced":
            raise Fenced
        if not found:
            return None
        session, up_to, model, tries = found
        return Wanted(session.decode(), up_to.decode(), model.decode(), int(tries))

    async def fold(
        self,
        conversation: str,
        fence: str,
        before: Summary | None,
        after: Summary,
        *,
        answers: Sequence[str],
        continued: int,
    ) -> bool:
        """Store a summary of some `answers`, that came of the one `before`.

        False where that was corrected meanwhile, where an answer went on since so many had `continued`, or where the
        messages are gone. Raises Fenced.
        """
        keys = self._keys.of_conversation(conversation)
        outcome = await self._fold(
            [
                keys.conversation,
                keys.messages,
                keys.tree,
                keys.turn,
                keys.summaries,
                keys.fold,
                keys.fold_fence,
            ],
            *(fence, before.message if before else "", _json(before) if before else ""),
            *(after.message, _json(after), continued, self._retention_ms),
            *answers,
        )
        if outcome == b"fenced":
            raise Fenced
        return bool(outcome == b"ok")

    # Reading and correcting

    async def newest(self, session: str, conversation: str, start: str = "") -> Summary | None:
        """Find the summary that holds for a branch, upwards from `start` (the tip if ""). Raises NotFound."""
        found: list[bytes] = []
        async for _, summary in self._walk(session, conversation, start):
            found = summary
        return Summary.read(*found) if found else None

    async def oldest_uncovered(self, session: str, conversation: str, up_to: str, limit: int) -> str:
        """Find from which message `History.read` finds the oldest that no summary stands for, at most `limit` of them.

        "" where one stands for all up to `up_to`. Raises NotFound.
        """
        oldest: list[bytes] = []
        async for ids, _ in self._walk(session, conversation, up_to):
            oldest = [*oldest, *ids][-limit:]
        return oldest[0].decode() if oldest else ""

    async def _walk(
        self, session: str, conversation: str, start: str
    ) -> AsyncIterator[tuple[list[bytes], list[bytes]]]:
        """Go up from a message to the first that has a summary: ids without one, and at last what is found."""
        keys = self._keys.of_conversation(conversation)
        more = True
        while more:
            found = await self._uncovered(
                [keys.conversation, keys.tree, keys.summaries], session, start, WALKED
            )
            if found is None:
                raise NotFound(NO_CONVERSATION)
            ids, above, summary = found
            yield ids, summary
            start, more = above.decode(), bool(above)

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
