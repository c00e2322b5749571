"""Chats from a file into a session: each once, and what is left out is told. Knows no wire.

An import that is broken off is gone on with by another one of the same file.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, suppress
from dataclasses import dataclass, field, replace
from typing import BinaryIO, TypeVar

from llmchat.arrivals import Arrival, Arrivals
from llmchat.attachments import Attachments
from llmchat.conversation import derived_id, milliseconds, timestamp
from llmchat.erasure import Erasure
from llmchat.errors import AttachmentRefused, Unavailable, Unreadable
from llmchat.events import ID
from llmchat.import_file import ImportFile, LeftOut
from llmchat.listing import Listing
from llmchat.message_tree import Lost
from llmchat.transcript import Transcript
from llmchat.transcripts import Known, Transcripts, with_ids_of

TOLD = 20
"""Chats, the newest of an import, that open tabs are told of; whoever wants more lists them."""
REPORTED = 100
"""What was left out, each by its title."""
PROGRESS_SECONDS = 0.25
TRIES = 3
"""Of storing a conversation whose beginning the store has lost."""
AWAY = "The store is full, or away: the import ends here. Import the same file again, and it goes on."
SAME = "Another chat in this file has the same id, and was taken in its place."
NEWER = (
    "1 chat is here already, and left as it is: what is newer in the file was not taken.",
    "{:,} chats are here already, and left as they are: what is newer in the file was not taken.",
)
LONG_SYSTEM = (
    "1 system prompt is too long, and left out.",
    "{:,} system prompts are too long, and left out.",
)
FORGOTTEN = "Everything was deleted meanwhile, and the import ends here."
DELETED = "It was deleted a moment ago. Undo that, or import it again in half a minute."
NOT_STORED = "It could not be stored. Import the file again."
NO_FILES = "1 file could not be kept.", "{:,} files could not be kept."

T = TypeVar("T")


@dataclass
class Report:
    """How far an import is, and what came of it."""

    read: int = 0
    """Bytes, …"""
    of: int = 0
    """… of so many."""
    imported: int = 0
    already_here: int = 0
    left_out: int = 0
    """Chats; what is after a place from which nothing can be read is one."""
    lost: list[dict[str, str]] = field(default_factory=list)
    """What is left out, chats and parts of chats: `title` ("" for all that comes after) and `why`."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How often each was why a chat was left out."""
    parts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How much is missing in what was imported, or newer than what is here, by what is said of one and of several."""
    done: bool = False

    @property
    def missing(self) -> list[str]:
        """What is missing in the chats that were imported or were here, in sentences."""
        return [str(Lost(count, *said)) for said, count in self.parts.items()]

    def lose(self, title: str, why: str) -> None:
        """Note a chat that is left out."""
        self.left_out += 1
        self.reasons[why] += 1
        self._note(title, why)

    def miss(self, title: str, part: Lost) -> None:
        """Note what is missing in a chat that was imported."""
        self.parts[part.one, part.several] += part.count
        self._note(title, str(part))

    def _note(self, title: str, why: str) -> None:
        if len(self.lost) < REPORTED:
            self.lost.append({"title": title, "why": why})


@dataclass
class _Import:
    """One that is under way."""

    arrival: Arrival
    source: ImportFile
    report: Report
    began: str = field(default_factory=timestamp)
    sessions: list[str] = field(default_factory=list)
    """The one that it comes to, and those whose chats became its own: what came to them is here. Empty at first."""
    taken: set[str] = field(default_factory=set)
    """What was found so far, by the ids that it has here."""
    newest: list[tuple[str, str]] = field(default_factory=list)
    """What was stored last, by its last use."""

    @property
    def session(self) -> str:
        return self.arrival.session

    def leave_as_it_is(self, found: Transcript, known: Known) -> None:
        """Note a chat that is here already; one that the file gives no time has that of its reading."""
        self.report.already_here += 1
        self.source.discount()
        if known.updated < found.updated < self.began:
            self.report.miss(found.title, Lost(1, *NEWER))


class Forgotten(Exception):
    """All that the session has was let go of since the import began."""


class Intake:
    """Takes files in."""

    def __init__(
        self,
        transcripts: Transcripts,
        attachments: Attachments,
        erasure: Erasure,
        listing: Listing,
        arrivals: Arrivals,
        takes_system: Callable[[str], bool],
    ) -> None:
        self._transcripts = transcripts
        self._attachments = attachments
        self._erasure = erasure
        self._listing = listing
        self._arrivals = arrivals
        self._takes_system = takes_system

    async def read(self, session: str, file: BinaryIO, size: int) -> AsyncGenerator[Report, None]:
        """Import a file that is there, as `take` does."""
        async with (
            self._arrivals.expect(session) as arrival,
            aclosing(self.take(arrival, file, size)) as reports,
        ):
            async for report in reports:
                yield report

    async def take(self, arrival: Arrival, file: BinaryIO, size: int) -> AsyncGenerator[Report, None]:
        """Import a file of so many bytes; gives the same report again and again, `done` at last.

        Raises Unreadable where there is nothing in it.
        """
        source = await asyncio.to_thread(ImportFile, file, size)
        report = Report(of=source.of)
        under_way = _Import(arrival, source, report)
        yield report
        told = asyncio.get_running_loop().time()
        async with aclosing(_in_thread(source)) as conversations:
            async for found in conversations:
                report.read, report.of = min(source.read, source.of), source.of
                if not await self._take(under_way, found):
                    break
                if (now := asyncio.get_running_loop().time()) - told > PROGRESS_SECONDS:
                    told = now
                    yield report
        for _, conversation in under_way.newest:
            await self._listing.updated(arrival.session, conversation)
        report.done = True
        yield report

    async def _take(self, under_way: _Import, found: Transcript | LeftOut) -> bool:
        """Take what was found; False where nothing more can be stored."""
        if isinstance(found, LeftOut):
            under_way.report.lose(found.title, found.why)
            return True
        conversation = derived_id("import", under_way.session, found.id)
        try:
            if await self._is_here(under_way, found, conversation):
                return True
            stored = await self._store(under_way, found, conversation)
        except Forgotten:
            under_way.newest.clear()
            under_way.report.imported = under_way.report.already_here = 0
            under_way.report.parts.clear()
            under_way.report.lost.clear()
            under_way.report.lose("", FORGOTTEN)
            return False
        except Unavailable:
            under_way.report.lose("", AWAY)
            return False
        if stored:
            under_way.newest.append((found.updated, conversation))
            under_way.newest.sort()
            del under_way.newest[:-TOLD]
        return True

    async def _is_here(self, under_way: _Import, found: Transcript, conversation: str) -> bool:
        """Tell whether a conversation cannot be stored, since one is there, and note that."""
        if conversation in under_way.taken:
            under_way.report.lose(found.title, SAME)
            return True
        under_way.taken.add(conversation)
        under_way.sessions = under_way.sessions or await self._erasure.sessions(under_way.session, ever=True)
        for name in (*(derived_id("import", each, found.id) for each in under_way.sessions), found.id):
            known = await self._transcripts.known(under_way.session, name) if ID.fullmatch(name) else None
            if known and known.deleted:
                under_way.report.lose(found.title, DELETED)
                return True
            if known:
                under_way.leave_as_it_is(found, known)
                return True
        return False

    async def _store(self, under_way: _Import, found: Transcript, conversation: str) -> bool:
        """Store a conversation; tells whether it is there."""
        session, lost = under_way.session, list(found.lost)
        if found.system is not None and not self._takes_system(found.system):
            found = replace(found, system=None)
            lost.append(Lost(1, *LONG_SYSTEM))
        ours = await asyncio.to_thread(with_ids_of, conversation, found)
        ours, gone = await self._with_files(session, under_way.source, ours)
        await self._erasure.note(session, conversation)
        outcome = "moved"
        for _ in range(TRIES):
            outcome = await self._transcripts.store(session, conversation, ours)
            if outcome != "moved":
                break
        if outcome in ("ok", "there"):
            await self._transcripts.list(session, conversation, ours, milliseconds(ours.updated))
        if not await self._arrivals.wanted(under_way.arrival):
            await self._erasure.erase(session, conversation)
            await self._attachments.erase(session, _files(ours))
            raise Forgotten
        if outcome not in ("ok", "there"):
            under_way.report.lose(found.title, DELETED if outcome == "deleted" else NOT_STORED)
            return False
        under_way.report.imported += 1
        for part in [*lost, *([Lost(gone, *NO_FILES)] if gone else [])]:
            under_way.report.miss(found.title, part)
        return True

    async def _with_files(self, session: str, source: ImportFile, ours: Transcript) -> tuple[Transcript, int]:
        """Keep the files that messages have, under ids of ours; tells how many could not be."""
        kept: dict[str, str] = {}
        gone = 0
        messages = []
        for message in ours.messages:
            files = []
            for each in message.get("attachments", ()):
                if each["id"] not in kept:
                    key = derived_id("import", ours.id, each["id"])
                    kept[each["id"]] = derived_id("attachment", session, key)
                    gone += not await self._keep(session, ours.id, source, each["id"], key, each["name"])
                files.append(each | {"id": kept[each["id"]]})
            messages.append(message | ({"attachments": files} if files else {}))
        return replace(ours, messages=messages), gone

    async def _keep(
        self, session: str, conversation: str, source: ImportFile, given: str, key: str, name: str
    ) -> bool:
        """Keep a file of the archive, where it is there and there is room."""
        with suppress(AttachmentRefused, Unreadable):
            body = await asyncio.to_thread(source.attachment, given)
            if body is not None and len(body) <= self._attachments.largest:
                file = await self._attachments.put(session, key, name, body)
                await self._attachments.keep(session, conversation, [file.id])
                return True
        return False


def _files(transcript: Transcript) -> set[str]:
    return {file["id"] for message in transcript.messages for file in message.get("attachments", ())}


async def _in_thread(source: ImportFile) -> AsyncGenerator[Transcript | LeftOut, None]:
    """Read a file in threads, one after the other; who ends early waits until the last has ended."""
    found = source.conversations()
    while (one := await _awaited(source, lambda: _next(found))) is not None:
        yield one


def _next(found: Iterator[T]) -> T | None:
    return next(found, None)


async def _awaited(source: ImportFile, read: Callable[[], T]) -> T:
    reading = asyncio.create_task(asyncio.to_thread(read))
    try:
        return await asyncio.shield(reading)
    except asyncio.CancelledError:
        source.stop()
        await asyncio.wait([reading])
        raise
