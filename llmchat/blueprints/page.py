"""The page: a new chat at /, a conversation at /c/<conversation>, its newest messages in the first response."""

from __future__ import annotations

import errno
from dataclasses import asdict
from typing import Any

from quart import Blueprint, make_response, render_template, request
from quart.typing import ResponseReturnValue

from llmchat import __version__
from llmchat.blueprints.rooms import rooms
from llmchat.errors import NotFound, Unavailable
from llmchat.events import ID, PROTOCOL, ConversationList, ConversationSnapshot

RELOAD_SECONDS = 3
"""After them a page that could not be made is asked for again."""

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
    if rooms().draining:
        refusal = {"detail": "This instance restarts."}
        return refusal, 503, {"Cache-Control": "no-store", "Retry-After": "1"}
    return {"protocol": PROTOCOL, "version": __version__}, 200, {"Cache-Control": "no-store"}


@blueprint.app_errorhandler(Unavailable)
async def unavailable(error: Unavailable) -> ResponseReturnValue:
    """Say that Redis is away, in a page that needs nothing of it."""
    page = await render_template(
        "error.html",
        title="One moment",
        detail=error.detail,
        link="",
        words="Try again",
        again=RELOAD_SECONDS,
        static=_static,
    )
    return page, 503, {"Retry-After": str(RELOAD_SECONDS), "Cache-Control": "no-store"}


@blueprint.app_errorhandler(404)
async def not_found(error: Exception) -> ResponseReturnValue:
    """Say that there is no such page."""
    page = await render_template(
        "error.html",
        title="There is nothing here",
        detail="The address may be mistyped.",
        link="/",
        words="New chat",
        static=_static,
    )
    return page, 404


@blueprint.app_errorhandler(OSError)
async def no_such_file(error: OSError) -> ResponseReturnValue:
    """Say so also of a path whose name no file can have."""
    if error.errno != errno.ENAMETOOLONG:
        raise error
    return await not_found(error)


async def _page(wanted: str | None) -> ResponseReturnValue:
    here = rooms()
    secure = request.scheme == "https"
    who = here.sessions.read(request.headers.get("Cookie"), secure=secure)
    snapshot: ConversationSnapshot | None = None
    conversations: list[dict[str, Any]] = []
    more = False
    if who is not None:
        listed = await here.chat.listed(who, ConversationList(type="conversation.list"))
        conversations, more = listed.conversations, listed.more
        if wanted is not None and ID.fullmatch(wanted):
            try:
                snapshot = await here.chat.snapshot(who, wanted)
            except NotFound:
                snapshot = None
    missing = wanted is not None and snapshot is None
    page = await render_template(
        "page.html",
        title=snapshot.title if snapshot else None,
        conversation=wanted if snapshot else None,
        snapshot=asdict(snapshot) if snapshot else None,
        missing=missing,
        conversations=conversations,
        more=more,
        models=here.chat.models,
        labels={model["id"]: model["label"] for model in here.chat.models},
        limits=here.chat.limits,
        version=__version__,
        socket_url=f"{'wss' if secure else 'ws'}://{request.host}/ws/chat/",
        static=_static,
    )
    response = await make_response(page, 404 if missing else 200)
    response.headers["Set-Cookie"] = here.sessions.cookie(who or here.sessions.new(), secure=secure)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


def _static(path: str) -> str:
    return f"/static/{path}"
