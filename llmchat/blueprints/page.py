"""The page: a new chat at /, a conversation at /c/<conversation>, its newest messages in the first response."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from quart import Blueprint, make_response, redirect, render_template, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from llmchat import __version__
from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.doors import request_id
from llmchat.errors import NotFound, Unavailable
from llmchat.events import ID, PROTOCOL, ConversationList, ConversationSnapshot

RELOAD_SECONDS = 3
"""After them a page that could not be made is asked for again."""

INLINE_BYTES = 48 * 1024
"""Of the first response, what its messages take: with a full list of chats beside them it stays below 100 KB."""

REASONS = {
    HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take that.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "That is more than this address takes.",
    HTTPStatus.REQUEST_TIMEOUT: "The request came too slowly.",
}

blueprint = Blueprint("page", __name__)


@blueprint.get("/")
async def new_chat() -> ResponseReturnValue:
    """Show an empty chat."""
    return await _page(None)


@blueprint.get("/c/<conversation>")
async def conversation(conversation: str) -> ResponseReturnValue:
    """Show a conversation; 404 where this session has no such one."""
    return await _page(conversation)


@blueprint.get("/session")
async def session() -> ResponseReturnValue:
    """Tell a page why its websocket is refused: by the same status, which a page cannot see there."""
    here = rooms()
    refusal = await here.refusal(await here.visitor(request), look=True)
    if refusal is not None:
        return {"detail": refusal.detail}, refusal.status, headers_of(refusal.retry_after)
    return {"protocol": PROTOCOL, "version": __version__}, 200, headers_of()


@blueprint.app_errorhandler(Unavailable)
async def unavailable(error: Unavailable) -> ResponseReturnValue:
    """Say that Redis is away, in a page that needs nothing of it."""
    page = await error_page("One moment", error.detail, link="", words="Try again", again=RELOAD_SECONDS)
    return page, 503, headers_of(RELOAD_SECONDS)


@blueprint.app_errorhandler(404)
async def not_found(error: Exception) -> ResponseReturnValue:
    """Say that there is no such page."""
    return await error_page("There is nothing here", "The address may be mistyped."), 404, headers_of()


@blueprint.app_errorhandler(HTTPException)
async def refused(error: HTTPException) -> ResponseReturnValue:
    """Say what a request lacked, in our own words."""
    status = HTTPStatus(error.code or 500)
    headers = headers_of()
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.valid_methods or ())
    return (
        await error_page(status.phrase, REASONS.get(status, "The request cannot be answered.")),
        status,
        headers,
    )


@blueprint.app_errorhandler(500)
async def failed(error: Exception) -> ResponseReturnValue:
    """Say that it is our fault; the log has the rest under the same number."""
    detail = f"Something is wrong on our side. If you report it, quote {request_id.get()}."
    return await error_page("That did not work", detail), 500, headers_of()


@blueprint.app_errorhandler(OSError)
async def no_such_file(error: OSError) -> ResponseReturnValue:
    """Say so also of a path whose name no file can have."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    return await not_found(error)


async def error_page(
    title: str, detail: str, *, link: str = "/", words: str = "New chat", again: int | None = None
) -> str:
    """Make a page that needs nothing of the chat."""
    return await render_template(
        "error.html", title=title, detail=detail, link=link, words=words, again=again, static=rooms().static
    )


async def _page(wanted: str | None) -> ResponseReturnValue:
    here = rooms()
    who = await here.visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=request.path), 303)
    snapshot: ConversationSnapshot | None = None
    conversations: list[dict[str, Any]] = []
    more = False
    if who.known:
        listed = await here.chat.listed(who.session, ConversationList(type="conversation.list"))
        conversations, more = listed.conversations, listed.more
        if wanted is not None and ID.fullmatch(wanted):
            try:
                snapshot = await here.chat.snapshot(who.session, wanted)
            except NotFound:
                snapshot = None
    missing = wanted is not None and snapshot is None
    labels = {model["id"]: model["label"] for model in here.chat.models}
    messages = await _inline(snapshot.messages, labels) if snapshot else []
    page = await render_template(
        "page.html",
        title=snapshot.title if snapshot else None,
        conversation=wanted if snapshot else None,
        snapshot=asdict(snapshot) if snapshot else None,
        messages=messages,
        cut=snapshot is not None and len(messages) < len(snapshot.messages),
        missing=missing,
        conversations=conversations,
        more=more,
        models=here.chat.models,
        labels=labels,
        limits=here.chat.limits,
        version=__version__,
        socket_url=f"{'wss' if who.secure else 'ws'}://{request.host}/ws/chat/",
        signed_in=here.access.required,
        static=here.static,
    )
    response = await make_response(page, 404 if missing else 200)
    response.headers.add("Set-Cookie", here.sessions.cookie(who.session, secure=who.secure))
    if here.access.required:  # renewed, as the session is
        response.headers.add("Set-Cookie", await here.access_cookie(who))
    response.headers["Cache-Control"] = "private, no-cache"
    return response


async def _inline(messages: Sequence[dict[str, Any]], labels: dict[str, str]) -> list[str]:
    """Draw the newest messages that the first response has room for, at least one; the page asks for the others."""
    drawn: list[str] = []
    left = INLINE_BYTES
    for message in reversed(messages):
        markup = await render_template("_message.html", message=message, labels=labels)
        left -= len(markup.encode())
        if drawn and left < 0:
            break
        drawn.insert(0, markup)
    return drawn
