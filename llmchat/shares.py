"""Shared snapshots: copies of a branch under links that nobody can guess. Knows Redis; knows neither HTML nor who looks.

A copy is written once and never again. Whether it may still be seen is decided by its session's list, which lies in
another slot: it is written before the copy and struck first.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import RESTORE_SECONDS, Branch, milliseconds, timestamp
from llmchat.errors import BadField
from llmchat.keys import Keys
from llmchat.redis_client import available
from llmchat.script import Script

MOST_SHARES = 100
"""Of a session."""
SHARED_MESSAGES = 500
SHARED_BYTES = 1024 * 1024
"""Of text, in one copy."""
MOST_REVOKED = 300
"""Of a session, the newest, that are known for what they were."""
TOKEN_BYTES = 24
STALE_MS = 3_600_000
"""An entry without its copy, so old, is taken off: within that somebody may be writing it."""
REVOKED = "This link was revoked. Share again for a new one."
NOTHING = "There is nothing to share in this chat yet. Wait for an answer."


@dataclass(frozen=True, slots=True)
class Share:
    """A shared snapshot as its session's list has it."""

    id: str
    """Its token: whoever has it may read the copy."""
    conversation: str
    title: str
    created: str
    messages: int

    def shaped(self) -> dict[str, Any]:
        """Give the protocol's shape."""
        return {**asdict(self), "path": f"/s/{self.id}"}


@dataclass(frozen=True, slots=True)
class Copy:
    """What of a branch is shared."""

    messages: list[dict[str, Any]]
    earlier: bool
    """Older messages are left out, for there are too many."""
    unfinished: bool
    """What was being written, or waited, is left out."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A copy as it was kept."""

    session: str
    conversation: str
    title: str
    created: str
    copy: Copy


class Shares:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, secret_key: str, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._secret = secret_key.encode()
        self._retention_ms = history_days * 86_400_000
        self._note = Script(redis, "keep_entry")
        self._keep = Script(redis, "keep_share")
        self._revoke = Script(redis, "revoke_share")
        self._give = Script(redis, "give_share")

    async def create(self, session: str, command: str, branch: Branch) -> Share:
        """Keep a copy of a branch, once for each command's id: a repeat keeps what there is. Raises BadField."""
        copied = copy_of(branch)
        if not copied.messages:
            raise BadField(NOTHING)
        known = branch.conversation
        share = Share(self._token(session, command), known.id, known.title, timestamp(), len(copied.messages))
        share = await self._noted(session, share)
        await self._keep(
            [self._keys.share(share.id)],
            *(self._retention_ms, "session", session, "conversation", known.id, "title", share.title),
            *("created", share.created, "copy", _json(asdict(copied))),
        )
        if not await self._listed_there(session, share.id):  # revoked meanwhile
            await self._drop(share.id)
        if await self._there(session, [share]) != [share]:  # or its chat was deleted
            await self.doom(session, known.id)
        return share

    async def listed(self, session: str, conversation: str | None = None) -> list[Share]:
        """List a session's shares, the newest first; those of a conversation, where one is named.

        Those of a chat that was deleted are not listed; while it can be brought back they are kept.
        """
        shares = await self._there(session, await self._noted_of(session))
        shares.sort(key=lambda each: (each.created, each.id), reverse=True)
        return [each for each in shares if conversation in (None, each.conversation)]

    async def find(self, token: str) -> Shared | None:
        """Find what is shared under a token; None where that was revoked, or never was."""
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(self._keys.share(token))
        if not found:
            return None
        told = {name.decode(): value.decode() for name, value in found.items()}
        if not await self._listed_there(told["session"], token):
            return None
        copied = Copy(**json.loads(told.pop("copy")))
        return Shared(**told, copy=copied)

    async def revoke(self, session: str, token: str) -> None:
        """Take a link back; a repeat, and another session's, changes nothing."""
        keys = [self._keys.shares(session), self._keys.revoked(session)]
        if await self._revoke(keys, token, MOST_REVOKED, self._retention_ms):
            await self._drop(token)

    async def give(self, session: str, other: str) -> None:
        """Give all links of a session to another one, however many that has. They show what they did all the while.

        One whose copy is just being made is in both lists until the next time.
        """
        own, others = self._keys.shares(session), self._keys.shares(other)
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(own)
        for token, record in found.items():
            async with available():
                await self._redis.hsetnx(others, token, record)
            if await self._give([self._keys.share(token.decode())], other):
                async with available():
                    await self._redis.hdel(own, token)
        if found and self._retention_ms:
            async with available():
                await self._redis.pexpire(others, self._retention_ms)

    async def doom(self, session: str, conversation: str) -> None:
        """Let the copies of a deleted conversation go when it goes itself."""
        await self._last(session, conversation, RESTORE_SECONDS * 1000)

    async def restore(self, session: str, conversation: str) -> None:
        """Keep them again, for the conversation is back."""
        await self._last(session, conversation, self._retention_ms)

    async def _last(self, session: str, conversation: str, lifetime_ms: int) -> None:
        shares = [each for each in await self._noted_of(session) if each.conversation == conversation]
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for key in (self._keys.share(each.id) for each in shares):
                if lifetime_ms:
                    pipe.pexpire(key, lifetime_ms)
                else:
                    pipe.persist(key)
            await pipe.execute()

    async def _noted_of(self, session: str) -> list[Share]:
        async with available():
            found: dict[Any, Any] = await self._redis.hgetall(self._keys.shares(session))
        return [_share(token.decode(), record) for token, record in found.items()]

    async def _noted(self, session: str, share: Share) -> Share:
        record = asdict(share)
        del record["id"]
        keys = [self._keys.shares(session), self._keys.revoked(session)]
        outcome, *kept = await self._note(keys, share.id, _json(record), 1, MOST_SHARES, self._retention_ms)
        if outcome == b"struck":
            raise BadField(REVOKED)
        if outcome == b"full":
            raise BadField(
                f"You have {MOST_SHARES} shared links, and that is all there can be. Revoke one first."
            )
        return _share(share.id, kept[0])

    async def _there(self, session: str, shares: Sequence[Share]) -> list[Share]:
        """Keep the shares whose copy and chat are there; strike the others, unless they are being made or may come back."""
        if not shares:
            return []
        async with available():
            pipe = self._redis.pipeline(transaction=False)
            for each in shares:
                pipe.exists(self._keys.share(each.id))
                pipe.hmget(self._keys.of_conversation(each.conversation).conversation, "session", "deleted")
            found = await pipe.execute()
        now_ms = milliseconds(timestamp())
        gone, there = [], []
        for each, copied, (owner, deleted) in zip(shares, found[::2], found[1::2], strict=True):
            stale = now_ms - milliseconds(each.created) > STALE_MS
            if owner is None or (not copied and stale):
                gone.append(each.id)
            elif copied and owner == session.encode() and deleted is None:
                there.append(each)
        if gone:
            async with available():
                await self._redis.hdel(self._keys.shares(session), *gone)
        return there

    async def _listed_there(self, session: str, token: str) -> bool:
        async with available():
            return bool(await self._redis.hexists(self._keys.shares(session), token))

    async def _drop(self, token: str) -> None:
        async with available():
            await self._redis.delete(self._keys.share(token))

    def _token(self, session: str, command: str) -> str:
        """Name a share: the same command gives the same token, which nobody can guess without our key."""
        told = f"share\n{session}\n{command}".encode()
        made = hmac.digest(self._secret, told, hashlib.sha256)[:TOKEN_BYTES]
        return urlsafe_b64encode(made).decode()


def copy_of(branch: Branch) -> Copy:
    """Choose what of a branch is shared: what was said, by whom and when, and the names of files."""
    said = [each for each in branch.messages if each["state"] in ("done", "failed")]
    unfinished = len(said) < len(branch.messages) or branch.conversation.running is not None
    shown = [_shown(each) for each in said]
    return Copy([each for each in shown if each["text"] or each.get("files")], branch.more, unfinished)


def _shown(message: dict[str, Any]) -> dict[str, Any]:
    shown = {name: message[name] for name in ("role", "text", "created", "model") if name in message}
    files = [each["name"] for each in message.get("attachments", ())]
    return shown | ({"files": files} if files else {})


def _share(token: str, record: bytes) -> Share:
    return Share(id=token, **json.loads(record))


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))
