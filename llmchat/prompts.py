"""A session's starting prompts: texts that a person begins chats with, often with blanks to fill in. Knows Redis."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import derived_id, timestamp
from llmchat.errors import BadField, NotFound, TooLong, Unavailable
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script
from llmchat.title import has_word, one_line

MOST_PROMPTS = 50
"""Of a session."""
NAME_CHARACTERS = 60
NO_PROMPT = "This starting prompt is not here any more."


@dataclass(frozen=True, slots=True)
class StartingPrompt:
    """A text to begin a chat with, under a name."""

    id: str
    title: str
    text: str
    created: str


class Prompts:
    """Every method raises Unavailable when Redis is away."""

    def __init__(self, redis: Redis, keys: Keys, *, history_days: int, most_characters: int) -> None:
        self._redis = redis
        self._keys = keys
        self._retention_ms = history_days * 86_400_000
        self._most_characters = most_characters
        self._keep = Script(redis, "keep_entry")

    async def listed(self, session: str) -> list[StartingPrompt]:
        """List a session's prompts, the oldest first; they are kept for as long as somebody looks."""
        key = self._keys.prompts(session)
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(key)
        if found and self._retention_ms:
            with suppress(Unavailable):  # a full store can be read all the same
                async with available():
                    await self._redis.pexpire(key, self._retention_ms)
        prompts = [_prompt(name.decode(), record) for name, record in found.items()]
        return sorted(prompts, key=lambda each: each.created)

    async def find(self, session: str, prompt: str) -> StartingPrompt:
        """Find one. Raises NotFound."""
        async with available():
            record: Any = await self._redis.hget(self._keys.prompts(session), prompt)
        if record is None:
            raise NotFound(NO_PROMPT)
        return _prompt(prompt, record)

    async def add(self, session: str, command: str, title: str, text: str) -> StartingPrompt:
        """Keep a new one, once for each command's id. Raises BadField, TooLong."""
        title, text = self._checked(title, text)
        prompt = StartingPrompt(derived_id("prompt", session, command), title, text, timestamp())
        return await self._kept(session, prompt, new=True)

    async def change(self, session: str, prompt: str, title: str, text: str) -> StartingPrompt:
        """Give one other words. Raises NotFound, BadField, TooLong."""
        title, text = self._checked(title, text)
        known = await self.find(session, prompt)
        return await self._kept(session, StartingPrompt(prompt, title, text, known.created), new=False)

    async def delete(self, session: str, prompt: str) -> None:
        """Let go of one; a repeat changes nothing."""
        async with available():
            await self._redis.hdel(self._keys.prompts(session), prompt)

    async def give(self, session: str, other: str) -> None:
        """Give all prompts of a session to another one, however many that has."""
        own, others = self._keys.prompts(session), self._keys.prompts(other)
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(own)
            for name, record in found.items():
                await self._redis.hsetnx(others, name, record)
                await self._redis.hdel(own, name)
            if found and self._retention_ms:
                await self._redis.pexpire(others, self._retention_ms)

    async def _kept(self, session: str, prompt: StartingPrompt, *, new: bool) -> StartingPrompt:
        record = {"title": prompt.title, "text": prompt.text, "created": prompt.created}
        outcome, *kept = await self._keep(
            [self._keys.prompts(session)],
            *(prompt.id, json.dumps(record, ensure_ascii=False), int(new), MOST_PROMPTS, self._retention_ms),
        )
        if outcome == b"full":
            raise BadField(
                f"You have {MOST_PROMPTS} starting prompts, and that is all there can be. Delete one first."
            )
        if outcome == b"not_found":
            raise NotFound(NO_PROMPT)
        return _prompt(prompt.id, kept[0])

    def _checked(self, title: str, text: str) -> tuple[str, str]:
        title, text = one_line(title), text.strip()
        if not has_word(title):
            raise BadField("Give the starting prompt a name.")
        if len(title) > NAME_CHARACTERS:
            raise TooLong(f"The name has {len(title)} characters; at most {NAME_CHARACTERS} are taken.")
        if not text:
            raise BadField("Write the text of the starting prompt.")
        if len(text) > self._most_characters:
            raise TooLong(f"The text has {len(text)} characters; at most {self._most_characters} are taken.")
        return title, text


def _prompt(name: str, record: bytes) -> StartingPrompt:
    return StartingPrompt(id=name, **json.loads(record))
