"""Files: how one comes, in one request of its own, and how it is shown to whom it belongs. Knows no message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from typing import Any
from urllib.parse import quote

import quart
from quart import Blueprint, Response, make_response, request
from quart.typing import ResponseReturnValue
from werkzeug.http import parse_options_header

from llmchat.attachment import TEXT
from llmchat.attachments import Attachment
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import RETRY_SECONDS, headers_of
from llmchat.doors import ABORT
from llmchat.errors import AttachmentRefused, NotFound, RateLimited, Unavailable
from llmchat.events import ID
from llmchat.limits import network_of

PATH = "/attachments"
IMPORT_PATH = "/import"
SECONDS = 120.0
"""For a whole file to come or go, at most."""
SILENT_SECONDS = 10.0
"""Between two pieces of one that comes."""
BYTES_A_SECOND = 20_000
"""A file that comes more slowly than in SILENT_SECONDS and so fast would hold a place for next to nothing."""
AT_ONCE = 40
"""Files that come to one instance at the same time: so much memory they may take."""
AT_ONCE_OF_ADDRESS = 24
AT_ONCE_OF_SESSION = 8
"""A browser has six connections to a host."""
FORGOTTEN = "Everything was deleted while this file came. Attach it again."
HARMLESS = "default-src 'none'; sandbox"
"""Whatever a file says, opened by itself it is a picture or a text."""

blueprint = Blueprint("attachments", __name__)


class Request(quart.Request):
    """A request whose body is read piece by piece, where it is a file: only what is not read yet is bounded."""

    def __init__(self, method: str, scheme: str, path: str, *given: Any, **options: Any) -> None:
        if method == "POST" and path in (PATH, IMPORT_PATH):
            options["max_content_length"] = None
        super().__init__(method, scheme, path, *given, **options)


@blueprint.post(PATH)
async def take() -> ResponseReturnValue:
    """Take a file: its bytes are the body, its name is in Content-Disposition."""
    here = rooms()
    try:
        with _coming(here):  # before anything is awaited: the body comes meanwhile
            who = await here.visitor(request)
            if here.draining:
                raise AttachmentRefused(503, "This instance restarts.", retry_after=RETRY_SECONDS)
            if not who.granted:
                raise AttachmentRefused(401, "You are not signed in.")
            key = request.headers.get("Idempotency-Key", "")
            if not ID.fullmatch(key):
                raise AttachmentRefused(400, "Idempotency-Key must be 1 to 64 letters, digits, _ or -.")
            size = _size(here.attachments.largest)
            await who.allowance.attachment()
            kept = await _kept(here, who.session, key, size)
            cookies = await here.cookies(who)
    except AttachmentRefused as refused:
        return {"detail": refused.detail}, refused.status, headers_of(refused.retry_after)
    except RateLimited as limited:
        return {"detail": limited.detail}, 429, headers_of(limited.retry_after)
    except Unavailable as away:
        return {"detail": away.detail}, 503, headers_of(RETRY_SECONDS)
    response = await make_response(kept.shaped(), 201, headers_of())
    response.headers["Location"] = f"{PATH}/{kept.id}"
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


async def _kept(here: Rooms, session: str, key: str, size: int) -> Attachment:
    """Keep the file that comes, unless all is let go of meanwhile. Raises AttachmentRefused."""
    async with here.arrivals.expect(session) as arrival:
        kept = await here.attachments.put(session, key, _name(), await _body(size))
        if not await here.arrivals.wanted(arrival):
            await here.attachments.erase(session, [kept.id])
            raise AttachmentRefused(409, FORGOTTEN)
    return kept


@blueprint.get(f"{PATH}/<attachment>")
async def show(attachment: str) -> ResponseReturnValue:
    """Give a file to the session that has it."""
    here = rooms()
    who = await here.visitor(request)
    known = None
    if who.known and who.granted and ID.fullmatch(attachment):
        known = (await here.attachments.find(who.session, [attachment]))[0]
    if known is None:
        quart.abort(404)
    if known.conversation:
        try:
            await here.chat.place(who.session, known.conversation)
        except NotFound:  # deleted
            quart.abort(404)
    if known.digest in request.if_none_match:
        response = Response(b"", 304)
    else:
        abort = request.scope.get("state", {}).get(ABORT)
        response = Response(until_gone(here.attachments.pieces(known), abort))
        response.content_length, response.timeout = known.size, SECONDS
    response.set_etag(known.digest)
    response.headers["Content-Type"] = f"{known.type}; charset=utf-8" if known.type == TEXT else known.type
    response.headers["Content-Disposition"] = f"inline; filename*=UTF-8''{quote(known.name)}"
    response.headers["Content-Security-Policy"] = HARMLESS
    response.headers["Cache-Control"] = "private, no-cache"
    return response


@blueprint.delete(f"{PATH}/<attachment>")
async def drop(attachment: str) -> ResponseReturnValue:
    """Let go of a file that no message has; what a message has stays."""
    here = rooms()
    who = await here.visitor(request)
    if who.known and who.granted and ID.fullmatch(attachment):
        await here.attachments.drop(who.session, attachment)
    return "", 204, headers_of()


async def until_gone(
    pieces: AsyncGenerator[bytes, None], abort: Callable[[], None] | None
) -> AsyncGenerator[bytes, None]:
    """Give a file's pieces; where it goes meanwhile, or Redis, end the connection: a part is not the whole."""
    with suppress(Unavailable):
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                if not piece:
                    break
            else:
                return
    if abort is not None:
        abort()
        await asyncio.Event().wait()  # until the server has seen it, and ends this


def _size(most: int) -> int:
    """Tell how many bytes will come."""
    size = request.content_length
    if size is None:
        raise AttachmentRefused(411, "Content-Length is missing.")
    if not most:
        raise AttachmentRefused(413, "This chat takes no files.")
    if size > most:
        raise AttachmentRefused(413, f"This file is too large: at most {most / 1e6:.3g} MB are taken.")
    return size


def _name() -> str:
    _, told = parse_options_header(request.headers.get("Content-Disposition"))
    return told.get("filename", "")


@contextmanager
def _coming(here: Rooms) -> Iterator[None]:
    """Count a file that comes, as long as it does. Raises AttachmentRefused where there are too many."""
    session = here.session_of(request) or id(request)  # without one, it is alone
    counted = f"session {session}", f"address {network_of(request.remote_addr or '')}", "all"
    uploads = here.uploads
    if uploads[counted[0]] >= AT_ONCE_OF_SESSION or uploads[counted[1]] >= AT_ONCE_OF_ADDRESS:
        raise AttachmentRefused(429, "Too many files come at once.", retry_after=RETRY_SECONDS)
    if uploads["all"] >= AT_ONCE:
        raise AttachmentRefused(503, "This instance is full.", retry_after=RETRY_SECONDS)
    uploads.update(counted)
    try:
        yield
    finally:
        uploads.subtract(counted)
        for each in counted:
            if not uploads[each]:
                del uploads[each]


async def _body(size: int) -> bytes:
    """Read what was announced, in time. Raises AttachmentRefused."""
    body = bytearray()
    pieces = aiter(request.body)
    try:
        async with asyncio.timeout(min(SECONDS, SILENT_SECONDS + size / BYTES_A_SECOND)):
            while len(body) < size:
                async with asyncio.timeout(SILENT_SECONDS):
                    body += await anext(pieces)
    except StopAsyncIteration:
        raise AttachmentRefused(400, "The file did not come whole. Send it again.") from None
    except TimeoutError:
        raise AttachmentRefused(408, "The file came too slowly. Send it again.") from None
    if len(body) > size:
        raise AttachmentRefused(400, "More came than Content-Length says.")
    return bytes(body)
