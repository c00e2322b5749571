"""Files of sessions: their bytes under a cap and for a time. Knows Redis; knows neither messages nor who asks.

A file goes a day after it came, unless a message has it: then it goes some days after it was last sent to a model, or
with its conversation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis

from llmchat.attachment import TEXT, Attached, data_url, excerpt, is_image, kind_of, sound_name
from llmchat.conversation import derived_id
from llmchat.errors import AttachmentRefused
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script
from llmchat.settings import SESSION_PART

DAY_MS = 86_400_000
UNSENT_MS = DAY_MS
DOOMED_MS = 30_000
"""After its conversation was deleted: as long as that can be brought back."""
BYTES_SECONDS = 8.0
"""For the bytes of one file to come from Redis, or to go there."""
FULL = "There is no room for more files on this server now. Try again later, or write without the file."
FULL_OF_YOURS = "Your chats have as many files as are kept for one person. Delete a chat that has some."
OTHER_FILE = "This key was used for another file. Send it with another one."


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

    def shaped(self) -> dict[str, Any]:
        """Give the protocol's shape."""
        return {"id": self.id, "name": self.name, "type": self.type, "size": self.size}


class Attachments:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, *, largest: int, room: int, days: int) -> None:
        self._redis = redis
        self._keys = keys
        self.largest = largest
        """Bytes of one file; 0: none are taken."""
        self._room = room  # bytes of all
        self._lifetime_ms = days * DAY_MS  # after the last use; 0: for ever
        self._book = Script(redis, "book_attachment")
        self._keep = Script(redis, "keep_attachment")

    async def put(self, session: str, key: str, name: str, body: bytes) -> Attachment:
        """Keep a file, once for each key of a session. Raises AttachmentRefused."""
        kind = kind_of(body)
        if kind is None or not body:
            raise AttachmentRefused(
                415, "Only pictures (PNG, JPEG, GIF, WebP) and plain text can be attached."
            )
        digest = hashlib.sha256(body).hexdigest()
        new = Attachment(
            derived_id("attachment", session, key), sound_name(name, kind), kind, len(body), digest, ""
        )
        known = (await self.find(session, [new.id]))[0]
        if known is not None:
            if known.digest != digest:
                raise AttachmentRefused(409, OTHER_FILE)
            return known
        await self._take_room(session, new)
        facts, content = self._keys.attachment(new.id), self._keys.attachment_bytes(new.id)
        async with available(BYTES_SECONDS):
            await self._redis.set(content, body, px=UNSENT_MS)
        await self._keep([facts, content], "put", session, "", UNSENT_MS, new.name, kind, len(body), digest)
        return new

    async def _take_room(self, session: str, new: Attachment) -> None:
        """Raise AttachmentRefused where there is none."""
        if not await self._note(
            self._keys.attachments_of(session), new, UNSENT_MS, self._room // SESSION_PART
        ):
            raise AttachmentRefused(507, FULL_OF_YOURS)
        if not await self._note(self._keys.attachments, new, UNSENT_MS, self._room):
            await self._note(self._keys.attachments_of(session), new, 1)
            raise AttachmentRefused(507, FULL)

    async def _note(self, index: str, each: Attachment, lifetime_ms: int, room: int = -1) -> bool:
        """Count a file for so long, where there is room (-1: whatever there is)."""
        return bool(await self._book([index, f"{index}:bytes"], each.id, each.size, lifetime_ms, room))

    async def find(self, session: str, ids: Sequence[str]) -> list[Attachment | None]:
        """Look for files of a session, in order; None for what is not there, or not its own."""
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for each in ids:
                pipe.hgetall(self._keys.attachment(each))
                pipe.exists(self._keys.attachment_bytes(each))
            found = await pipe.execute() if ids else []
        return [
            _attachment(each, facts) if there and facts.get(b"session") == session.encode() else None
            for each, facts, there in zip(ids, found[::2], found[1::2], strict=True)
        ]

    async def read(self, each: Attachment) -> bytes | None:
        """Read a file's bytes; None where it has gone."""
        async with available(BYTES_SECONDS):
            return cast(bytes | None, await self._redis.get(self._keys.attachment_bytes(each.id)))

    async def keep(self, session: str, conversation: str, ids: Iterable[str]) -> None:
        """Keep what a conversation's messages have, as if it were used just now."""
        for each in await self.find(session, list(ids)):
            if each is not None:
                await self._live(session, conversation, each, "keep", self._lifetime_ms)

    async def doom(self, session: str, conversation: str, ids: Iterable[str]) -> None:
        """Hide what a deleted conversation's messages have; Redis drops it a moment later."""
        for each in await self.find(session, list(ids)):
            if each is not None:
                await self._live(session, conversation, each, "doom", DOOMED_MS)

    async def restore(self, session: str, conversation: str, ids: Sequence[str]) -> None:
        """Bring back what `doom` hid."""
        for each in ids:
            hidden = self._keys.attachment(each), self._keys.attachment_bytes(each)
            await self._keep(list(hidden), "restore", session, conversation, self._lifetime_ms)
        await self.keep(session, conversation, ids)

    async def _live(
        self, session: str, conversation: str, each: Attachment, way: str, lifetime_ms: int
    ) -> None:
        keys = [self._keys.attachment(each.id), self._keys.attachment_bytes(each.id)]
        if await self._keep(keys, way, session, conversation, lifetime_ms):
            for index in (self._keys.attachments_of(session), self._keys.attachments):
                await self._note(index, each, lifetime_ms)

    async def attached(
        self, session: str, conversation: str, ids: Sequence[str], *, images: bool, text_bytes: int
    ) -> dict[str, Attached]:
        """Read files as a model is sent them, of a text at most so many bytes; what is sent is kept for longer.

        What is not there, and pictures where `images` is false, is left out.
        """
        read: dict[str, Attached] = {}
        for each in await self.find(session, ids):
            if each is None or each.conversation not in ("", conversation):
                continue
            if is_image(each.type):
                body = await self.read(each) if images else None
                if body is not None:
                    read[each.id] = Attached(each.name, each.type, url=data_url(each.type, body))
            else:
                text = await self._text(each, text_bytes)
                read[each.id] = Attached(each.name, TEXT, text=text)
        await self.keep(session, conversation, read)
        return read

    async def _text(self, each: Attachment, most: int) -> str:
        if each.size <= most:
            return excerpt(await self.read(each) or b"")
        key = self._keys.attachment_bytes(each.id)
        async with available():
            head = await cast(Awaitable[bytes], self._redis.getrange(key, 0, most // 2 - 1))
            tail = await cast(Awaitable[bytes], self._redis.getrange(key, each.size - most // 2, -1))
        return excerpt(head, tail)


def _attachment(name: str, facts: dict[bytes, bytes]) -> Attachment | None:
    told = {field.decode(): value.decode() for field, value in facts.items()}
    if "doomed" in told:
        return None
    return Attachment(
        name, told["name"], told["type"], int(told["size"]), told["digest"], told["conversation"]
    )
