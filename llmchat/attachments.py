"""Files of sessions: their bytes under a cap and for a time. Knows Redis; knows neither messages nor who asks.

A file goes a day after it came, unless a message has it: then it goes some days after it was last sent to a model, or
with its conversation.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from llmchat.attachment import TEXT, Attached, data_url, excerpt, is_image, kind_of, sound_name
from llmchat.conversation import TEMPORARY_SECONDS, derived_id
from llmchat.errors import AttachmentRefused
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script
from llmchat.settings import SESSION_PART

DAY_MS = 86_400_000
UNSENT_MS = DAY_MS
COMING_MS = 60_000
"""For what is written first of a file: where the rest is not, it goes by itself, and leaves its room to others."""
DOOMED_MS = 30_000
"""After its conversation was deleted: as long as that can be brought back."""
USED_MS = 3_600_000
"""Within that after one use another one is none: it would keep the file hardly longer."""
FOR_EVER, GONE = -1, -2
"""What Redis tells of the lifetime of what has no end, and of what is not there."""
PIECE_BYTES = 128 * 1024
"""Of a file that is shown, in memory at once for each who reads it."""
BYTES_SECONDS = 8.0
"""For the bytes of one file to come from Redis, or to go there."""
FULL = "There is no room for more files on this server now. Try again later, or write without the file."
FULL_OF_YOURS = "That is more than is kept for one person. Remove files that are not sent yet, or delete chats with files."
OTHER_TYPE = "Only whole pictures (PNG, JPEG, GIF, WebP) of at most 16,384 pixels a side, and plain text, can be attached."
OTHER_FILE = "This key was used for another file. Send it with another one."
DOOMED_FILE = "This file goes with the chat that was deleted. Send it with another key."


@dataclass(frozen=True, slots=True)
class Attachment:
    """What is known of a file without its bytes."""

    id: str
    name: str
    type: str
    size: int
    digest: str
    conversation: str
    """The one whose message has it; "" while none has."""
    doomed: bool = False
    """That one was deleted."""
    left_ms: int = FOR_EVER
    """How long it is there yet."""
    session: str = ""

    def shaped(self) -> dict[str, Any]:
        """Give the protocol's shape."""
        return {"id": self.id, "name": self.name, "type": self.type, "size": self.size}


class Attachments:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, *, largest: int, most_bytes: int, days: int) -> None:
        self._redis = redis
        self._keys = keys
        self.largest = largest
        """Bytes of one file; 0: none are taken."""
        self._most_bytes = most_bytes  # of all
        self._lifetime_ms = days * DAY_MS  # after the last use; 0: for ever
        self._book = Script(redis, "book_attachment")
        self._keep = Script(redis, "keep_attachment")
        self._unbook = Script(redis, "unbook_attachment")
        self._give = Script(redis, "give_attachment")

    async def put(self, session: str, key: str, name: str, body: bytes) -> Attachment:
        """Keep a file, once for each key of a session. Raises AttachmentRefused."""
        kind = kind_of(body)
        if kind is None or not body:
            raise AttachmentRefused(415, OTHER_TYPE)
        digest = hashlib.sha256(body).hexdigest()
        new = Attachment(
            derived_id("attachment", session, key), sound_name(name, kind), kind, len(body), digest, ""
        )
        known = (await self.find(session, [new.id]))[0]
        if known is not None:
            if known.digest != digest:
                raise AttachmentRefused(409, OTHER_FILE)
            if known.doomed:
                raise AttachmentRefused(409, DOOMED_FILE)
            return known
        await self._count(session, new)
        async with available(BYTES_SECONDS):
            await self._redis.set(self._keys.attachment_bytes(new.id), body, px=COMING_MS, nx=True)
        await self._live("put", session, "", new, UNSENT_MS)
        return new

    async def _count(self, session: str, new: Attachment) -> None:
        """Count a file that comes. Raises AttachmentRefused where it is too much."""
        own = self._keys.attachments_of(session)
        if not await self._note(own, new, COMING_MS, self._most_bytes // SESSION_PART):
            raise AttachmentRefused(507, FULL_OF_YOURS)
        if not await self._note(self._keys.attachments, new, COMING_MS, self._most_bytes):
            await self._note(own, new, 1)
            raise AttachmentRefused(507, FULL)

    async def _note(self, index: str, each: Attachment, lifetime_ms: int, most: int | None = None) -> bool:
        """Count a file for so long; one that comes only where all of them are not more than `most` bytes."""
        told = "" if most is None else most
        return bool(await self._book([index, f"{index}:bytes"], each.id, each.size, lifetime_ms, told))

    async def find(self, session: str, ids: Sequence[str]) -> list[Attachment | None]:
        """Look for files of a session, in order; None for what is not there, or not its own."""
        found = await self._find(ids)
        return [each if each is not None and each.session == session else None for each in found]

    async def _find(self, ids: Sequence[str]) -> list[Attachment | None]:
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for each in ids:
                pipe.hgetall(self._keys.attachment(each))
                pipe.pttl(self._keys.attachment_bytes(each))
            found = await pipe.execute() if ids else []
        return [
            _attachment(each, facts, left_ms) if left_ms != GONE and facts else None
            for each, facts, left_ms in zip(ids, found[::2], found[1::2], strict=True)
        ]

    async def read(self, each: Attachment) -> bytes | None:
        """Read a file's bytes; None where it has gone."""
        async with available(BYTES_SECONDS):
            return cast(bytes | None, await self._redis.get(self._keys.attachment_bytes(each.id)))

    async def pieces(self, each: Attachment) -> AsyncGenerator[bytes, None]:
        """Read a file's bytes as they are taken; what has gone meanwhile ends early."""
        for start in range(0, each.size, PIECE_BYTES):
            yield await self._piece(each, start, start + PIECE_BYTES)

    async def _piece(self, each: Attachment, start: int, end: int) -> bytes:
        key = self._keys.attachment_bytes(each.id)
        async with available():
            return await cast(Awaitable[bytes], self._redis.getrange(key, start, end - 1))

    async def drop(self, session: str, attachment: str) -> None:
        """Let go of a file that no message has."""
        await self._each("drop", session, "", await self.find(session, [attachment]), 1)

    async def keep(
        self, session: str, conversation: str, ids: Sequence[str], *, temporary: bool = False
    ) -> None:
        """Keep what a conversation's messages have, as if it were used just now; of a temporary one, not for long."""
        await self._used(session, conversation, await self.find(session, ids), temporary)

    async def doom(self, session: str, conversation: str, ids: Sequence[str]) -> None:
        """Have Redis drop a moment later what a deleted conversation's messages have."""
        await self._each("doom", session, conversation, await self.find(session, ids), DOOMED_MS)

    async def restore(
        self, session: str, conversation: str, ids: Sequence[str], *, temporary: bool = False
    ) -> None:
        """Keep what was doomed."""
        lifetime_ms = self._lifetime_of(temporary)
        await self._each("restore", session, conversation, await self.find(session, ids), lifetime_ms)

    async def lower(
        self,
        session: str,
        conversation: str,
        attachment: str,
        *,
        most_ms: int | None,
        slack_ms: int,
        change: bool,
    ) -> int | None:
        """Have what a conversation's message has live no longer than is set now, nor than `most_ms`.

        Gives how long that is, in ms; None where it does not live longer. Without `change` nothing is changed.
        """
        (each,) = await self.find(session, [attachment])
        bounds = [ms for ms in (self._lifetime_ms or None, most_ms) if ms is not None]
        if each is None or each.doomed or not bounds or 0 <= each.left_ms <= min(bounds) + slack_ms:
            return None
        if change:
            await self._live("keep", session, conversation, each, max(1, min(bounds)))
        return min(bounds)

    def _lifetime_of(self, temporary: bool) -> int:
        return TEMPORARY_SECONDS * 1000 if temporary else self._lifetime_ms

    async def erase(self, session: str, ids: Collection[str] | None = None) -> None:
        """Let go of files of a session; of all, where none are named."""
        own = self._keys.attachments_of(session)
        for entry in await self._entries(session):
            name = entry.partition(" ")[2]
            if ids is not None and name not in ids:
                continue
            async with available():
                await self._redis.delete(self._keys.attachment(name), self._keys.attachment_bytes(name))
            for index in (self._keys.attachments, own):
                await self._unbook([index, f"{index}:bytes"], entry)

    async def give(self, session: str, other: str) -> None:
        """Give all files of a session to another one, whatever that has. What is just being noted stays for the next time."""
        own, others = self._keys.attachments_of(session), self._keys.attachments_of(other)
        for entry in await self._entries(session):
            size, _, name = entry.partition(" ")
            keys = [self._keys.attachment(name), self._keys.attachment_bytes(name)]
            left_ms: int = await self._give(keys, session, other)
            if left_ms == GONE:
                continue
            lifetime_ms = max(left_ms, 1) if left_ms != FOR_EVER else 0
            await self._book([others, f"{others}:bytes"], name, size, lifetime_ms, "")
            await self._unbook([own, f"{own}:bytes"], entry)

    async def _entries(self, session: str) -> list[str]:
        async with available():
            entries: list[Any] = await self._redis.zrange(self._keys.attachments_of(session), 0, -1)
        return [each.decode() for each in entries]

    async def _used(
        self, session: str, conversation: str, found: Iterable[Attachment | None], temporary: bool
    ) -> None:
        lifetime_ms = self._lifetime_of(temporary)
        lasts_ms = max(lifetime_ms - USED_MS, lifetime_ms // 2)
        old = [
            each
            for each in found
            if each is not None and (each.conversation != conversation or (0 <= each.left_ms < lasts_ms))
        ]
        await self._each("keep", session, conversation, old, lifetime_ms)

    async def _each(
        self, way: str, session: str, conversation: str, found: Iterable[Attachment | None], lifetime_ms: int
    ) -> None:
        files = [each for each in found if each is not None]
        await asyncio.gather(*(self._live(way, session, conversation, each, lifetime_ms) for each in files))

    async def _live(
        self, way: str, session: str, conversation: str, each: Attachment, lifetime_ms: int
    ) -> None:
        keys = [self._keys.attachment(each.id), self._keys.attachment_bytes(each.id)]
        facts = each.name, each.type, each.size, each.digest
        if await self._keep(keys, way, session, conversation, lifetime_ms, *facts):
            for index in (self._keys.attachments_of(session), self._keys.attachments):
                await self._note(index, each, lifetime_ms)

    async def attached(
        self,
        session: str,
        conversation: str,
        ids: Sequence[str],
        *,
        images: bool,
        text_bytes: int,
        temporary: bool = False,
    ) -> dict[str, Attached]:
        """Read files as a model is sent them, of a text at most so many bytes; what is sent is kept for longer.

        What is not there, and pictures where `images` is false, is left out. A file of the conversation is its own also
        while one of them is another session's: what is given to one goes one after the other.
        """
        files = [
            each
            for each in await self._find(ids)
            if each is not None
            and (each.conversation == conversation or (not each.conversation and each.session == session))
            and (images or not is_image(each.type))
        ]
        read = await asyncio.gather(*(self._attached(each, text_bytes) for each in files))
        await self._used(session, conversation, files, temporary)
        return {each.id: one for each, one in zip(files, read, strict=True) if one is not None}

    async def _attached(self, each: Attachment, text_bytes: int) -> Attached | None:
        if is_image(each.type):
            body = await self.read(each)
            return None if body is None else Attached(each.name, each.type, url=data_url(each.type, body))
        return Attached(each.name, TEXT, text=await self._text(each, text_bytes))

    async def _text(self, each: Attachment, most: int) -> str:
        if each.size <= most:
            return excerpt(await self.read(each) or b"")
        half = most // 2
        return excerpt(await self._piece(each, 0, half), await self._piece(each, each.size - half, each.size))


def _attachment(name: str, facts: dict[bytes, bytes], left_ms: int) -> Attachment:
    told = {field.decode(): value.decode() for field, value in facts.items()}
    return Attachment(
        name,
        told["name"],
        told["type"],
        int(told["size"]),
        told["digest"],
        told["conversation"],
        "doomed" in told,
        left_ms,
        told["session"],
    )
