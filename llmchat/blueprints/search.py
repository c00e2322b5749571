"""The page of what a search finds, for where no script runs."""

from __future__ import annotations

from typing import Any

from quart import Blueprint, redirect, request, url_for
from quart.typing import ResponseReturnValue

from llmchat.blueprints.forms import STATUSES
from llmchat.blueprints.page import own_page
from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import Visitor
from llmchat.errors import BadField, Busy, RateLimited
from llmchat.events import MAX_MESSAGES, MAX_QUERY, ConversationSearch

TOO_LONG = f"At most {MAX_QUERY} characters can be searched for. Use fewer words."

blueprint = Blueprint("search", __name__)


@blueprint.get("/search")
async def search() -> ResponseReturnValue:
    """Show the chats that have the words of `q`; without any, a box to write them in."""
    who = await rooms().visitor(request)
    query = " ".join(request.args.get("q", "").replace("\0", " ").split())
    if not who.granted:
        there = url_for("search.search", q=query) if query else request.path
        return redirect(url_for("sign_in.show", to=there), 303)
    if len(query) > MAX_QUERY:
        return await _page(who, query, problem=TOO_LONG, status=422)
    if not query or not who.known:
        return await _page(who, query)
    return await _found(who, query)


async def _found(who: Visitor, query: str) -> ResponseReturnValue:
    command = ConversationSearch(type="conversation.search", query=query, limit=MAX_MESSAGES)
    try:
        await who.allowance.frames(1)
        found = await rooms().chat.search(who.session, command)
    except BadField as error:  # signs that nobody sees, or that are no words
        return await _page(who, query, problem=error.detail, status=422)
    except (Busy, RateLimited) as error:
        status = 503 if isinstance(error, Busy) else STATUSES[RateLimited]  # others' searches, not one's own
        wait = error.retry_after or 1
        return await _page(who, query, problem=error.detail, status=status, retry_after=wait)
    return await _page(who, query, results=found.results, searched=found.searched, most=MAX_MESSAGES)


async def _page(who: Visitor, query: str, **found: Any) -> ResponseReturnValue:
    return await own_page(who, "search.html", query=query, **found)
