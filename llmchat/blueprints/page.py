"""The page: a new chat at /, a conversation at /c/<conversation>, its newest messages in the first response."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from http import HTTPStatus
from itertools import accumulate
from typing import Any

from quart import (
    Blueprint,
    has_request_context,
    make_response,
    redirect,
    render_template,
    request,
    url_for,
    websocket,
)
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from llmchat import __version__
from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import Visitor, headers_of
from llmchat.errors import BadField, NotFound, RateLimited, Unavailable
from llmchat.events import (
    ID,
    PROTOCOL,
    ConversationList,
    ConversationListed,
    ConversationOlder,
    ConversationSnapshot,
)
from llmchat.markdown import render
from llmchat.prompts import NO_PROMPT
from llmchat.subject import subject

RELOAD_SECONDS = 3
"""After them a page that could not be made is asked for again."""
REFRESH_SECONDS = 2
"""After them a page where no script runs looks for more of an answer that is being made."""
NOTHING = "The address may be mistyped, or what was here has been deleted."
GONE = "That chat was deleted, or it is not yours. Your message is here, in a new one."

log = logging.getLogger(__name__)

INLINE_BYTES = 42 * 1024
"""Of the first response, what its messages take, also those that wait above the box: with a full list of chats beside
them it stays below 100 KB."""
ESCAPED_BYTES = 6
"""Of a character in HTML, at most."""

COUNTED_ELSEWHERE = {"attachments", "metrics", "ops", "shares"}
"""Blueprints whose requests are no pages of a session: files within a page, metrics, health, shared chats. Likewise an
OpenID provider's word of a sign-out, unless it is not true."""

REASONS = {
    HTTPStatus.METHOD_NOT_ALLOWED: ("That cannot be done here", "This address does not take that."),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("That is too much at once", "It is more than this address takes."),
    HTTPStatus.REQUEST_TIMEOUT: ("That took too long", "The request came too slowly."),
}
NO_REASON = ("That did not work", "The request cannot be answered.")

blueprint = Blueprint("page", __name__)


@blueprint.before_app_request
async def limit() -> ResponseReturnValue | None:
    """Refuse whoever asks for too much, before anything is made for them. While Redis is away, nobody counts."""
    here = rooms()
    if request.blueprint in COUNTED_ELSEWHERE or (here.openid and request.endpoint == "openid.leave"):
        return None
    try:
        with suppress(Unavailable):
            await here.limits.page(here.session_of(request), request.remote_addr or "")
    except RateLimited as error:
        if request.endpoint == "page.session":
            return {"detail": error.detail}, 429, headers_of(error.retry_after)
        page = await error_page("That was a lot at once", error.detail, link="", words="Try again")
        return page, 429, headers_of(error.retry_after)
    return None


@blueprint.get("/")
async def new_chat() -> ResponseReturnValue:
    """Show an empty chat."""
    return await _shown(None)


@blueprint.get("/c/<conversation>")
async def conversation(conversation: str) -> ResponseReturnValue:
    """Show a conversation; 404 where this session has no such one."""
    return await _shown(conversation)


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
    return await error_page("There is nothing here", NOTHING), 404, headers_of()


@blueprint.app_errorhandler(HTTPException)
async def refused(error: HTTPException) -> ResponseReturnValue:
    """Say what a request lacked, in our own words."""
    status = HTTPStatus(error.code or 500)
    headers = headers_of()
    if isinstance(error, MethodNotAllowed):
        headers["Allow"] = ", ".join(error.valid_methods or ())
    return await error_page(*REASONS.get(status, NO_REASON)), status, headers


@blueprint.app_errorhandler(500)
async def failed(error: Exception) -> ResponseReturnValue:
    """Say that it is our fault; the log has the rest under the same number."""
    detail = f"Something is wrong on our side. If you report it, quote {subject.get().request}."
    return await error_page("That did not work", detail), 500, headers_of()


def log_bug(exception_info: Any) -> None:
    """Log what went wrong, by the rule of the address alone: a path may be the key to a shared chat."""
    asked = request if has_request_context() else websocket
    log.error("%s failed.", asked.url_rule or "A request", exc_info=exception_info)


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


async def own_page(
    who: Visitor, template: str, *, status: int = 200, retry_after: int | None = None, **given: Any
) -> ResponseReturnValue:
    """Make a page beside the chat for whoever is let in, with the cookies of the page of a chat. Raises Unavailable."""
    here = rooms()
    page = await render_template(template, static=here.static, **given)
    response = await make_response(page, status, headers_of(retry_after))
    for cookie in await here.cookies(who):
        response.headers.add("Set-Cookie", cookie)
    return response


@dataclass(frozen=True, slots=True)
class Box:
    """What the page's form has in it when it is made."""

    words: str = ""
    problem: str = ""
    """Why they were not sent."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """Of the form: what is sent twice with it is stored once."""
    fresh: bool = False
    """They are to be written on before they are sent."""


async def page_of(
    who: Visitor,
    wanted: str | None,
    box: Box,
    *,
    write: bool,
    status: int = 200,
    retry_after: int | None = None,
) -> ResponseReturnValue:
    """Make the page of a conversation, None for a new chat. With `write` it stays as it is under a person's hands.

    Where there is no such conversation, words in the box are in that of a new chat. Raises Unavailable.
    """
    here = rooms()
    await here.models.settled()
    snapshot = await _snapshot(who, wanted)
    missing = wanted is not None and snapshot is None
    labels = {model["id"]: model["label"] for model in here.chat.models}
    if missing and (who.known or not box.words):
        status = 404
    if missing and box.words:
        box, missing = replace(box, problem=GONE if who.known else box.problem), False
    listed = await _listed(who)
    rows = listed.conversations if listed else []
    if any(row["id"] == wanted and row["unread"] for row in rows):
        with suppress(Unavailable, NotFound):
            await here.chat.read(who.session, str(wanted))
    older = await _older(who, snapshot) if snapshot else None
    shown: Sequence[dict[str, Any]] = older["messages"] if older else snapshot.messages if snapshot else []
    line = [message for message in snapshot.messages if _waits_above(message)] if snapshot else []
    waiting = [await render_template("_waiting.html", message=each, first=each is line[0]) for each in line]
    room = INLINE_BYTES - sum(len(row.encode()) for row in waiting)
    inline = await _inline(shown, labels, room, whole="whole" in request.args or older is not None)
    page = await render_template(
        "page.html",
        title=snapshot.title if snapshot else None,
        conversation=wanted if snapshot else None,
        snapshot=asdict(snapshot) if snapshot else None,
        messages=inline.markup,
        cut=inline.cut,
        waiting=waiting,
        earlier=_earlier(snapshot, older, inline),
        missing=missing,
        older=older is not None,
        conversations=rows,
        more=listed.more if listed else False,
        further="chats" in request.args,
        models=here.chat.models,
        labels=labels,
        limits=here.chat.limits,
        waits=snapshot is not None and _waits(snapshot, rows),
        box=box,
        sharing=here.chat.sharing,
        prompts=await here.prompts.listed(who.session) if who.known else [],
        write=write,
        refresh_seconds=REFRESH_SECONDS,
        version=__version__,
        socket_url=f"{'wss' if who.secure else 'ws'}://{request.host}/ws/chat/",
        signed_in=here.access.required or who.login is not None,
        openid=here.openid,
        login=who.login,
        came=who.came,
        static=here.static,
    )
    response = await make_response(page, status)
    for cookie in await here.cookies(who):  # renewed, by the newest key
        response.headers.add("Set-Cookie", cookie)
    response.headers["Cache-Control"] = "private, no-cache"
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    return response


@dataclass(frozen=True, slots=True)
class Inline:
    """The messages of the first response."""

    markup: list[str]
    first: str | None
    """The id of the oldest of them."""
    before: bool
    """There are others before it."""
    cut: bool = False
    """It stands alone, and is not all there: the socket brings the others."""


async def _inline(
    messages: Sequence[dict[str, Any]], labels: dict[str, str], room: int, *, whole: bool
) -> Inline:
    """Draw the newest messages that there is room for; the page asks for the others.

    Where that is none of the transcript's, draw of its newest one what there is room for, or all if it is to be `whole`.
    """
    newest = _newest(messages)
    drawn: list[str] = []
    left, seen = room, newest is None
    for message in reversed(messages):
        markup = await _drawn(message, labels)
        left -= len(markup.encode())
        if left < 0 and (seen or not whole):
            break
        seen = seen or message is newest
        drawn.insert(0, markup)
    if newest is not None and not seen:
        part = await _part(newest, labels, room)
        return Inline([part], newest["id"], newest is not messages[0], cut=True)
    first = len(messages) - len(drawn)
    return Inline(drawn, messages[first]["id"] if drawn else None, first > 0)


async def _drawn(message: dict[str, Any], labels: dict[str, str]) -> str:
    return await render_template("_message.html", message=message, labels=labels)


async def _part(message: dict[str, Any], labels: dict[str, str], room: int) -> str:
    """Draw the end of an answer, or the beginning of a prompt."""
    part = message | {"text": "", "html": "", "reasoning": "", "cut": True}
    room -= len((await _drawn(part, labels)).encode())
    if message["role"] == "user":
        return await _drawn(part | {"text": message["text"][: max(room, 0) // ESCAPED_BYTES]}, labels)
    blocks = await asyncio.to_thread(render, message["text"], running=message["state"] == "running")
    sizes = accumulate(len(block.encode()) for block in reversed(blocks))
    kept = sum(size <= room for size in sizes)
    return await _drawn(part | {"html": "".join(blocks[len(blocks) - kept :])}, labels)


def _waits_above(message: dict[str, Any]) -> bool:
    """Tell whether a message stands above the box rather than in the transcript."""
    return message["state"] == "queued" and len(message["siblings"]) < 2


def _newest(messages: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return next((message for message in reversed(messages) if not _waits_above(message)), None)


def _earlier(
    snapshot: ConversationSnapshot | None, older: dict[str, Any] | None, inline: Inline
) -> str | None:
    """Name the first message drawn, where there are others before it."""
    more = older["more"] if older else snapshot is not None and snapshot.more
    return inline.first if inline.before or more else None


async def _shown(wanted: str | None) -> ResponseReturnValue:
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=request.path), 303)
    prompt = request.args.get("prompt") if wanted is None else None
    box = await _begun(who, prompt) if prompt else Box()
    return await page_of(who, wanted, box, write="write" in request.args)


async def _begun(who: Visitor, prompt: str) -> Box:
    """Put a starting prompt of a person's own into the box."""
    try:
        if not who.known or not ID.fullmatch(prompt):
            raise NotFound(NO_PROMPT)
        return Box((await rooms().prompts.find(who.session, prompt)).text, fresh=True)
    except NotFound as error:
        return Box(problem=error.detail)


async def _snapshot(who: Visitor, wanted: str | None) -> ConversationSnapshot | None:
    if not who.known or wanted is None or not ID.fullmatch(wanted):
        return None
    try:
        return await rooms().chat.snapshot(who.session, wanted)
    except NotFound:
        return None


def _waits(snapshot: ConversationSnapshot, rows: list[dict[str, Any]]) -> bool:
    """Tell whether more of an answer will come. A snapshot tells it of one that is continued only once it goes on."""
    named = any(row["id"] == snapshot.conversation and row["running"] for row in rows)
    return named or snapshot.running is not None


async def _older(who: Visitor, snapshot: ConversationSnapshot) -> dict[str, Any] | None:
    """Read the messages that lead to the one which the address names, for whoever has no script to fetch them.

    With `at` that one is among them, with `before` it is not. None where there is no such message, or nothing after it.
    """
    at = request.args.get("at")
    message = at or request.args.get("before", "")
    if not ID.fullmatch(message) or at == (_newest(snapshot.messages) or {}).get("id", ""):
        return None
    command = ConversationOlder(type="conversation.older", conversation=snapshot.conversation, before=message)
    try:
        return asdict(await rooms().chat.older(who.session, command, through=at is not None))
    except NotFound:
        return None


async def _listed(who: Visitor) -> ConversationListed | None:
    """List the pinned and the newest conversations; those last used before a time, where the address names one."""
    if not who.known:
        return None
    try:
        if "chats" in request.args:
            return await _list(who, before=request.args["chats"], archived=False)
    except BadField:
        pass  # the newest, then
    pinned, newest = await asyncio.gather(_list(who, pinned=True, archived=False), _list(who, archived=False))
    before = {row["id"] for row in pinned.conversations}
    others = [row for row in newest.conversations if row["id"] not in before]
    return replace(newest, conversations=[*pinned.conversations, *others])


async def _list(who: Visitor, **wanted: Any) -> ConversationListed:
    return await rooms().chat.listed(who.session, ConversationList(type="conversation.list", **wanted))
