"""What a session has, as a whole: taken away, one chat or all in an archive, and let go of. Knows no wire.

Reads in pieces: what is in memory at once does not depend on how much there is.
"""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime
from typing import IO, cast

from llmchat.attachment import is_image
from llmchat.attachments import Attachments
from llmchat.erasure import Erasure
from llmchat.errors import NotFound
from llmchat.listing import Listing
from llmchat.transcript import CLOSING, file_name, heading, line, opening, section
from llmchat.transcripts import Outline, Transcripts

PIECE_BYTES = 256 * 1024
SECOND_LOOK_SECONDS = 0.5
"""After everything was let go of: what was under way then has ended."""
README = """\
These are the chats of one session of llmchat, as of {now}.

chats/        each chat twice: as JSON with all of its branches, which can be imported again, and as Markdown with the
              branch that was shown
attachments/  the pictures and files of their messages, as far as they were still kept

{chats} chats, {files} files; {gone} files were not kept any more.
Temporary chats and summaries are not in here.
"""


class Takeout:
    """Every method raises Unavailable when Redis is away."""

    def __init__(
        self, transcripts: Transcripts, attachments: Attachments, erasure: Erasure, listing: Listing
    ) -> None:
        self._transcripts = transcripts
        self._attachments = attachments
        self._erasure = erasure
        self._listing = listing

    async def outline(self, session: str, conversation: str) -> Outline:
        """Find a chat. Raises NotFound."""
        return await self._transcripts.outline(session, conversation)

    async def as_json(self, outline: Outline) -> AsyncGenerator[bytes, None]:
        """Give a chat as JSON, with all its branches."""
        yield opening(outline.transcript).encode()
        first = True
        async for message in self._transcripts.messages(outline, list(outline.parents)):
            yield line(message, first=first).encode()
            first = False
        yield CLOSING.encode()

    async def as_markdown(self, outline: Outline) -> AsyncGenerator[bytes, None]:
        """Give the branch of a chat that is shown, as Markdown."""
        yield (await asyncio.to_thread(heading, outline.transcript)).encode()
        async for message in self._transcripts.messages(outline, outline.branch):
            yield (await asyncio.to_thread(section, message)).encode()

    async def any(self, session: str) -> bool:
        """Tell whether a session has a chat that would be in its archive."""
        return bool(await self._erasure.listed(session))

    async def archive(self, session: str) -> AsyncGenerator[bytes, None]:
        """Give all chats of a session but temporary ones as a zip archive, piece by piece."""
        archive = _Archive()
        for conversation in await self._erasure.listed(session):
            try:
                outline = await self.outline(session, conversation)
            except NotFound:  # a stale entry, or deleted meanwhile
                continue
            async with aclosing(self._chat(archive, session, outline)) as pieces:
                async for piece in pieces:
                    yield piece
        readme = README.format(
            now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            chats=archive.chats,
            files=archive.files,
            gone=archive.gone,
        )
        yield archive.whole(readme)

    async def _chat(self, archive: _Archive, session: str, outline: Outline) -> AsyncGenerator[bytes, None]:
        archive.chats += 1
        name = f"chats/{archive.chats:05d}-{file_name(outline.transcript.title, '')}"
        for ending, pieces in (("json", self.as_json(outline)), ("md", self.as_markdown(outline))):
            with archive.entry(f"{name}{ending}", zipfile.ZIP_DEFLATED) as entry:
                async with aclosing(_in_larger(pieces)) as larger:
                    async for piece in larger:
                        await asyncio.to_thread(entry.write, piece)
                        if packed := archive.taken():
                            yield packed
        async with aclosing(self._files(archive, session, outline)) as files:
            async for piece in files:
                yield piece

    async def _files(self, archive: _Archive, session: str, outline: Outline) -> AsyncGenerator[bytes, None]:
        """Pack the files that a chat's messages have, each once."""
        wanted: dict[str, None] = {}
        async for message in self._transcripts.messages(outline, list(outline.parents)):
            wanted |= dict.fromkeys(each["id"] for each in message.get("attachments", ()))
        for name in wanted:
            (known,) = await self._attachments.find(session, [name])
            if known is None:
                archive.gone += 1
                continue
            archive.files += 1
            stem, _, ending = known.name.rpartition(".")
            path = (
                f"attachments/{name}/{file_name(stem or known.name, ending if ending.isalnum() else 'bin')}"
            )
            with archive.entry(
                path, zipfile.ZIP_STORED if is_image(known.type) else zipfile.ZIP_DEFLATED
            ) as entry:
                async with aclosing(self._attachments.pieces(known)) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(entry.write, piece)
                        yield archive.taken()

    async def forget(self, session: str) -> int:
        """Let go of everything that a session has, and tell its tabs; gives how many chats there were.

        How often it signed out stays, and the session itself.
        """
        forgotten = await self._forget(session)
        await asyncio.sleep(SECOND_LOOK_SECONDS)
        return forgotten + await self._forget(session)

    async def _forget(self, session: str) -> int:
        forgotten = 0
        for each in await self._erasure.sessions(session):
            await self._erasure.erase_rest(each)
            found = await self._erasure.all(each)
            for conversation in found:
                await self._erasure.erase(each, conversation)
                await self._listing.deleted(session, conversation)
            await self._attachments.erase(each)
            forgotten += len(found)
        return forgotten


class _Archive:
    """A zip archive that is read as it is written: nothing of it is kept but the names in it."""

    def __init__(self) -> None:
        self.chats = self.files = self.gone = 0
        self._packed = bytearray()
        self._zip = zipfile.ZipFile(cast(IO[bytes], self), "w", zipfile.ZIP_DEFLATED)

    def write(self, packed: bytes) -> int:
        """Take what the archive is made of; for `zipfile`, which finds no `tell` and never goes back."""
        self._packed += packed
        return len(packed)

    def flush(self) -> None:
        """Have nothing to do: it is taken elsewhere."""

    def entry(self, name: str, kind: int) -> IO[bytes]:
        """Begin an entry."""
        entry = zipfile.ZipInfo(name, datetime.now(UTC).timetuple()[:6])
        entry.compress_type, entry.external_attr = kind, 0o600 << 16
        return self._zip.open(entry, "w", force_zip64=False)

    def taken(self) -> bytes:
        """Take what is packed so far."""
        packed = bytes(self._packed)
        self._packed.clear()
        return packed

    def whole(self, readme: str) -> bytes:
        """End it."""
        self._zip.writestr("README.txt", readme)
        self._zip.close()
        return self.taken()


async def _in_larger(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Put small pieces together: each is packed in a thread."""
    collected = bytearray()
    async with aclosing(pieces):
        async for piece in pieces:
            collected += piece
            if len(collected) >= PIECE_BYTES:
                yield bytes(collected)
                collected.clear()
    yield bytes(collected)
