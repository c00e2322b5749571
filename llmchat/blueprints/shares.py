"""/s/<token>: a shared chat, for whoever has the link. No session, no cookie, no script that knows the chat."""

from __future__ import annotations

from datetime import datetime

from quart import Blueprint, make_response, render_template, request
from quart.typing import ResponseReturnValue

from llmchat.blueprints.page import error_page
from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import headers_of
from llmchat.errors import RateLimited
from llmchat.events import ID

NOBODYS = {"X-Robots-Tag": "noindex, nofollow", "Referrer-Policy": "no-referrer"}
"""The address is the key: it is not to be found, nor to be told on."""
GONE = "The link was mistyped, or whoever shared this chat has taken it back."

blueprint = Blueprint("shares", __name__)


@blueprint.get("/s/<token>")
async def show(token: str) -> ResponseReturnValue:
    """Show a shared chat; one page for a link that was revoked and for one that never was."""
    here = rooms()
    try:
        await here.limits.shared_page(request.remote_addr or "")
    except RateLimited as error:
        page = await error_page("That was a lot at once", error.detail, link=request.path, words="Try again")
        return page, 429, headers_of(error.retry_after) | NOBODYS
    shared = await here.chat.shared(token) if ID.fullmatch(token) else None
    if shared is None:
        here.drawings.drop(token)
        page = await error_page("There is nothing at this link", GONE, words="Begin a chat")
        return page, 404, headers_of() | NOBODYS
    messages = await here.drawings.of(token, shared.copy.messages)
    labels = {model["id"]: model["label"] for model in here.chat.models}
    page = await render_template(
        "shared.html",
        shared=shared,
        messages=messages,
        day=f"{datetime.fromisoformat(shared.created):%-d %B %Y}",
        labels=labels,
        static=here.static,
    )
    return await make_response(page, 200, headers_of() | NOBODYS)
