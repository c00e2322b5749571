"""What a person has here, as a whole: taken away, brought in, let go of. Knows no message.

Without a script all of it works by form; with one, an import tells how far it is, in lines of JSON.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any, BinaryIO, cast

from quart import Blueprint, Response, abort, redirect, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Epilogue, File, MultipartDecoder, NeedData

from llmchat.blueprints.attachments import BYTES_A_SECOND, IMPORT_PATH, SILENT_SECONDS, until_gone
from llmchat.blueprints.page import error_page, own_page
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import RETRY_SECONDS, Visitor, headers_of
from llmchat.doors import ABORT
from llmchat.errors import AttachmentRefused, NotFound, RateLimited, Unavailable, Unreadable
from llmchat.events import ID
from llmchat.import_file import EMPTY
from llmchat.intake import Report
from llmchat.transcript import disposition

IMPORT_SECONDS = 1800.0
"""For a file of chats to come, at most; and likewise to be read, or for an archive to go."""
AT_ONCE = 2
"""Imports of one instance, and likewise archives."""
PATH = "/settings/data"
NDJSON = "application/x-ndjson"
FORM_BYTES = 64 * 1024
"""Of what a form has beside its file."""
SLICE_BYTES = FORM_BYTES // 2
"""Given to the form's reader at once: it refuses what is more than a form may have, also of the file."""
NO_FILE = "Choose a file first."
NOT_YOURS = (
    "This browser kept no cookie of this page, and without one no chat can be yours. Allow it, and try again."
)
NOT_CONFIRMED = "Nothing was deleted: tick the box first."
ONE_IMPORT = "An import of yours is running already. Wait for its end."
ONE_ARCHIVE = "An archive of your chats is being made already. Wait for its end."
NO_ROOM = "There is no room for this file on the server now. Try again later."
TOO_LONG = "The import took too long and ends here. Import the same file again, and it goes on."
FULL = "This instance is busy with other people's files. Try again in a moment."
SIGNED_OUT = "You are not signed in."

blueprint = Blueprint("takeout", __name__)


@blueprint.get(PATH)
async def show() -> ResponseReturnValue:
    """Show what can be done."""
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=PATH), 303)
    return await _page(who)


# Taking away


@blueprint.get("/c/<conversation>/export.<any(md, json):ending>")
async def one(conversation: str, ending: str) -> ResponseReturnValue:
    """Give a chat as a file."""
    here = rooms()
    who = await here.visitor(request)
    if not (who.known and who.granted and ID.fullmatch(conversation)):
        abort(404)
    try:
        outline = await here.takeout.outline(who.session, conversation)
    except NotFound:
        abort(404)
    whole = here.takeout.as_markdown(outline) if ending == "md" else here.takeout.as_json(outline)
    kind = "text/markdown; charset=utf-8" if ending == "md" else "application/json"
    return _file(whole, kind, disposition(outline.transcript.title, ending))


@blueprint.get("/export")
async def every() -> ResponseReturnValue:
    """Give all chats, and their files, as one archive."""
    here = rooms()
    who = await here.visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=PATH), 303)  # a download would leave one at the password
    pieces = _counted(here, who)
    try:
        await anext(pieces)
    except (RateLimited, AttachmentRefused) as refused:
        return await _refused(who, refused)
    return _file(pieces, "application/zip", disposition("llmchat", "zip"))


async def _counted(here: Rooms, who: Visitor) -> AsyncGenerator[bytes, None]:
    """Give the archive, and count it from the first piece, which is empty, to its end.

    Raises RateLimited, AttachmentRefused in place of the first piece.
    """
    with _only_one(here, "archive", who.session, ONE_ARCHIVE):
        await who.allowance.import_()
        yield b""
        async with aclosing(here.takeout.archive(who.session)) as pieces:
            async for piece in pieces:
                yield piece


def _file(pieces: AsyncGenerator[bytes, None], kind: str, named: str) -> Response:
    response = Response(until_gone(_not_empty(pieces), request.scope.get("state", {}).get(ABORT)))
    response.timeout = IMPORT_SECONDS
    response.headers["Content-Type"] = kind
    response.headers["Content-Disposition"] = named
    response.headers.update(headers_of())
    return response


async def _not_empty(pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Leave out pieces without a byte: one says that what is shown has gone."""
    async with aclosing(pieces):
        async for piece in pieces:
            if piece:
                yield piece


# Bringing in


@blueprint.post(IMPORT_PATH)
async def bring() -> ResponseReturnValue:
    """Import a file of chats: the body is the file, or a form with it."""
    try:
        who = await rooms().visitor(request)
        return await _brought(rooms(), who)
    except Unavailable as away:
        return await _away(away)


async def _brought(here: Rooms, who: Visitor) -> ResponseReturnValue:
    if not who.granted:
        return await _refused(who, AttachmentRefused(401, SIGNED_OUT))
    if not who.known:
        return await _refused(who, AttachmentRefused(400, NOT_YOURS))
    reports = _read(here, who)
    try:
        report = await anext(reports)
    except Unreadable as error:
        return await _refused(who, AttachmentRefused(422, error.why))
    except (RateLimited, AttachmentRefused) as refused:
        return await _refused(who, refused)
    if _wants_lines():
        response = Response(_lines(reports), headers={"Content-Type": NDJSON, **headers_of()})
        response.timeout = IMPORT_SECONDS
        return response
    problem = ""
    async with aclosing(reports):
        try:
            async with asyncio.timeout(IMPORT_SECONDS):
                async for _ in reports:  # each is the same, further on
                    pass
        except TimeoutError:
            problem = TOO_LONG
    return await _page(who, report=report, problem=problem, status=503 if problem else 200)


async def _read(here: Rooms, who: Visitor) -> AsyncGenerator[Report, None]:
    """Take the file that comes and read it, and count that for as long as it lasts.

    Raises Unreadable, RateLimited, AttachmentRefused in place of the first report.
    """
    with _only_one(here, "import", who.session, ONE_IMPORT):
        await who.allowance.import_()
        size = _size(here.import_bytes)
        with _emptied() as file:
            async with here.arrivals.expect(who.session) as arrival:
                size = await _received(file, size)
                async with aclosing(here.intake.take(arrival, file, size)) as reports:
                    async for report in reports:
                        yield report


@contextmanager
def _emptied() -> Iterator[BinaryIO]:
    """Open a file that nobody else sees, and let go of it. Raises AttachmentRefused."""
    try:
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - what fails is told apart
    except OSError:
        raise AttachmentRefused(507, NO_ROOM) from None
    try:
        yield file
    finally:
        with suppress(OSError):  # what there was no room for is written once more
            file.close()


async def _lines(reports: AsyncGenerator[Report, None]) -> AsyncIterator[str]:
    """Tell how far an import is, and at last what came of it."""
    async with aclosing(reports):
        async for report in reports:
            told = vars(report) | {"parts": report.missing}
            if not report.done:
                told = {
                    name: told[name]
                    for name in ("read", "of", "imported", "already_here", "left_out", "done")
                }
            yield json.dumps(told, ensure_ascii=False) + "\n"


def _wants_lines() -> bool:
    return NDJSON in request.headers.get("Accept", "")


def _size(most: int) -> int:
    size = request.content_length
    if size is None:
        raise AttachmentRefused(411, "Content-Length is missing.")
    if not most:
        raise AttachmentRefused(413, "This chat imports no files.")
    if size > most:
        raise AttachmentRefused(413, f"This file is too large: at most {most / 1e6:.3g} MB are imported.")
    return size


async def _received(file: BinaryIO, size: int) -> int:
    """Write what comes into a file, and tell how much that is. Raises AttachmentRefused."""
    pieces = _pieces(size)
    boundary = request.mimetype_params.get("boundary", "")
    if request.mimetype == "multipart/form-data":
        pieces = _unwrapped(pieces, boundary.encode())
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                file.write(piece)
        file.flush()
    except OSError:
        raise AttachmentRefused(507, NO_ROOM) from None
    written = file.tell()
    if not written:
        raise AttachmentRefused(422, EMPTY)
    return written


async def _pieces(size: int) -> AsyncGenerator[bytes, None]:
    """Read the body that was announced, in time. Raises AttachmentRefused."""
    loop, came = asyncio.get_running_loop(), 0
    latest = loop.time() + min(IMPORT_SECONDS, SILENT_SECONDS + size / BYTES_A_SECOND)
    body = aiter(request.body)
    while came < size:
        try:
            async with asyncio.timeout_at(min(latest, loop.time() + SILENT_SECONDS)):
                piece = await anext(body)
        except StopAsyncIteration:
            raise AttachmentRefused(400, "The file did not come whole. Send it again.") from None
        except TimeoutError:
            raise AttachmentRefused(408, "The file came too slowly. Send it again.") from None
        came += len(piece)
        if came > size:
            raise AttachmentRefused(400, "More came than Content-Length says.")
        yield piece


async def _unwrapped(pieces: AsyncGenerator[bytes, None], boundary: bytes) -> AsyncGenerator[bytes, None]:
    """Give the bytes of the file in a form."""
    try:
        decoder = MultipartDecoder(boundary, FORM_BYTES)
        within = False
        async with aclosing(pieces):
            async for piece in pieces:
                for at in range(0, len(piece), SLICE_BYTES):
                    decoder.receive_data(piece[at : at + SLICE_BYTES])
                    while not isinstance(event := decoder.next_event(), NeedData | Epilogue):
                        if isinstance(event, File):
                            within = event.name == "file"
                            if within and not event.filename:
                                raise AttachmentRefused(422, NO_FILE)
                        elif isinstance(event, Data) and within:
                            yield event.data
                    if isinstance(event, Epilogue):
                        return
    except (ValueError, RequestEntityTooLarge):
        raise AttachmentRefused(400, "This form cannot be read. Send it again.") from None


# Letting go


@blueprint.post("/forget")
async def forget() -> ResponseReturnValue:
    """Delete everything that a session has, where that was confirmed."""
    form = await request.form
    try:
        who = await rooms().visitor(request)
        if not who.granted or not who.known:
            return await _refused(who, AttachmentRefused(401, NOT_YOURS if who.granted else SIGNED_OUT))
        if form.get("confirmed") != "yes":
            return await _page(who, problem=NOT_CONFIRMED, status=422)
        await rooms().takeout.forget(who.session)
        return await _page(who, forgotten=True)
    except Unavailable as away:
        return await _away(away)


# What is shown


async def _refused(who: Visitor, refused: RateLimited | AttachmentRefused) -> ResponseReturnValue:
    status = refused.status if isinstance(refused, AttachmentRefused) else 429
    retry_after = None if refused.retry_after is None else int(refused.retry_after)
    if _wants_lines():
        return {"detail": refused.detail}, status, headers_of(retry_after)
    if not who.granted:
        return await _beside("You are signed out", refused.detail), status, headers_of(retry_after)
    return await _page(who, problem=refused.detail, status=status, retry_after=retry_after)


async def _away(away: Unavailable) -> ResponseReturnValue:
    """Say that Redis is away, in a page that does not send itself again: what was sent is gone."""
    if _wants_lines():
        return {"detail": away.detail}, 503, headers_of(RETRY_SECONDS)
    return await _beside("One moment", away.detail), 503, headers_of(RETRY_SECONDS)


async def _beside(title: str, detail: str) -> str:
    return await error_page(title, detail, link=PATH, words="Back to your data")


async def _page(
    who: Visitor, *, report: Report | None = None, problem: str = "", forgotten: bool = False, **answer: Any
) -> ResponseReturnValue:
    return await own_page(
        who,
        "your_data.html",
        report=report,
        problem=problem,
        forgotten=forgotten,
        import_bytes=rooms().import_bytes,
        **answer,
    )


@contextmanager
def _only_one(here: Rooms, what: str, session: str, words: str) -> Iterator[None]:
    """Count what lasts, for as long as it does. Raises AttachmentRefused where it is too much."""
    counted = f"{what} {session}", f"{what}s"
    if here.uploads[counted[0]]:
        raise AttachmentRefused(429, words, retry_after=RETRY_SECONDS)
    if here.uploads[counted[1]] >= AT_ONCE:
        raise AttachmentRefused(503, FULL, retry_after=RETRY_SECONDS)
    here.uploads.update(counted)
    try:
        yield
    finally:
        here.uploads.subtract(counted)
        for each in counted:
            if not here.uploads[each]:
                del here.uploads[each]
