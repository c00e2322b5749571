"""The page of what a search finds, for where no script runs."""

from __future__ import annotations

from quart import Blueprint, redirect, render_template, request, url_for
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import Visitor, headers_of
from llmchat.errors import BadField, Busy, RateLimited
from llmchat.events import MAX_MESSAGES, MAX_QUERY, ConversationSearch

TOO_LONG = f"At most {MAX_QUERY} characters can be searched for. Use fewer words."
STATUSES = {Busy: 503, RateLimited: 429}

blueprint = Blueprint("search", __name__)


@blueprint.get("/search")
async def search() -> ResponseReturnValue:
    """Show the chats that have the words of `q`; without any, a box to write them in."""
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to="/"), 303)
    query = " ".join(request.args.get("q", "").replace("\0", " ").split())
    if len(query) > MAX_QUERY:
        return await _page(query, problem=TOO_LONG, status=422)
    if not query or not who.known:
        return await _page(query)
    return await _found(who, query)


async def _found(who: Visitor, query: str) -> ResponseReturnValue:
    command = ConversationSearch(type="conversation.search", query=query, limit=MAX_MESSAGES)
    try:
        await who.allowance.frames(1)
        found = await rooms().chat.search(who.session, command)
    except BadField:  # signs that nobody sees
        return await _page(query, results=[])
    except (Busy, RateLimited) as error:
        status, wait = STATUSES[type(error)], error.retry_after or 1
        return await _page(query, problem=error.detail, status=status, retry_after=wait)
    return await _page(query, results=found.results, searched=found.searched)


async def _page(
    query: str, *, status: int = 200, retry_after: int | None = None, **found: object
) -> ResponseReturnValue:
    page = await render_template("search.html", static=rooms().static, query=query, **found)
    return page, status, headers_of(retry_after)
