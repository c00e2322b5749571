"""What a page sends where no script runs, or none runs yet: prompts, and what its buttons do.

Carries each out as a websocket would, and answers with the page. A form says nothing twice: its id is the command's.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from quart import Blueprint, redirect, render_template, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from llmchat.blueprints.page import Box, error_page, page_of
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import Visitor, headers_of
from llmchat.conversation import derived_id
from llmchat.errors import BadField, Busy, CommandError, Conflict, NotFound, RateLimited, Unavailable
from llmchat.events import ID, parse_frame

STATUSES = {NotFound: 404, Busy: 409, Conflict: 409, RateLimited: 429}
NO_WORDS = "Write a message first."
NO_COOKIE = "This browser kept no cookie of this page, and without one no chat can be yours. Allow it, and send again."
TOO_MUCH = (
    "Go back with your browser: your words should still be there. Make them shorter, or send them in parts."
)
WORDS_KEPT = "Go back with your browser: your words should still be there. Then save them once more."
STALE = "This is not possible here any more."
OTHERS_STALE = "That message is not here any more."

blueprint = Blueprint("forms", __name__)


@dataclass(frozen=True, slots=True)
class Sent:
    """What came of a form."""

    box: Box
    rest: str
    """What the box has beside the words that are sent: a suggestion was pressed."""
    conversation: str | None
    act: str
    """A button's name, or "send"."""
    message: str
    """The one that the button is about."""
    model: str | None
    temporary: bool
    """A chat that begins here is to be."""

    def id_of(self, *what: str) -> str:
        """Name the command: the same form and the same wish give the same id."""
        return derived_id("form", self.box.id, self.act, *what)


@blueprint.post("/")
async def begin() -> ResponseReturnValue:
    """Take the first prompt of a chat."""
    return await _take(None)


@blueprint.post("/c/<conversation>")
async def go_on(conversation: str) -> ResponseReturnValue:
    """Take a prompt, or what a button asks for, in a chat."""
    return await _take(conversation)


@blueprint.errorhandler(RequestEntityTooLarge)
async def too_large(error: RequestEntityTooLarge) -> ResponseReturnValue:
    """Say that this is no message any more; nobody has read it, so the browser alone has the words."""
    return await _nothing_done("That is too long to be sent", TOO_MUCH, 413)


async def _take(conversation: str | None) -> ResponseReturnValue:
    sent = await _sent(conversation)
    try:
        who = await rooms().visitor(request)
        if not who.granted:
            return await _kept(sent, "You are signed out", 401)
        if not who.known:
            return await _not_taken(who, sent, NO_COOKIE, 400)
        return await _carry_out(who, sent)
    except Unavailable as error:
        return await _kept(sent, "One moment", 503, detail=error.detail, retry_after=1)


async def _sent(conversation: str | None) -> Sent:
    form = await request.form
    act = next((name for name in ACTS if form.get(name)), "send")
    typed = form.get("text", "").replace("\r\n", "\n").strip()  # a form's lines end with both
    suggested, given, model = form.get("say", ""), form.get("id", ""), form.get("model")
    box = Box(suggested or typed)
    return Sent(
        box=Box(box.words, id=given) if ID.fullmatch(given) else box,
        rest=typed if suggested else "",
        conversation=conversation,
        act=act,
        message=form.get(act, ""),
        temporary=conversation is None and "temporary" in form,
        model=model if model in {each["id"] for each in rooms().chat.models} else None,
    )


async def _carry_out(who: Visitor, sent: Sent) -> ResponseReturnValue:
    try:
        await who.allowance.frames(1)
        if sent.conversation is not None and not ID.fullmatch(sent.conversation):
            raise NotFound(STALE)
        done = await ACTS[sent.act](rooms(), who, sent)
    except Unavailable:
        raise
    except CommandError as error:
        return await _refused(who, sent, error)
    if done.words:
        return await page_of(who, done.conversation, Box(done.words), write=True)
    there = url_for("page.conversation", conversation=done.conversation)
    return redirect(f"{there}#by-{done.message}", 303)


async def _refused(who: Visitor, sent: Sent, error: CommandError) -> ResponseReturnValue:
    """Give the page again, with the words in its box and the reason why they were not sent."""
    words = {BadField: STALE, NotFound: OTHERS_STALE}.get(type(error), error.detail)
    if sent.act == "send" and not sent.box.words:
        words = NO_WORDS
    return await _not_taken(who, sent, words, STATUSES.get(type(error), 422), error.retry_after)


async def _not_taken(
    who: Visitor, sent: Sent, problem: str, status: int, retry_after: int | None = None
) -> ResponseReturnValue:
    box = Box(sent.box.words, problem, sent.box.id)
    return await page_of(who, sent.conversation, box, write=True, status=status, retry_after=retry_after)


async def _kept(
    sent: Sent, title: str, status: int, *, detail: str = "", retry_after: int | None = None
) -> ResponseReturnValue:
    """Give the words back in a page that needs nothing of the chat: from there they can be sent again."""
    page = await render_template(
        "kept.html",
        title=title,
        detail=detail,
        sent=sent,
        path=request.path,
        static=rooms().static,
    )
    return page, status, headers_of(retry_after)


# Forms of pages beside the chat


@dataclass(frozen=True, slots=True)
class Failed:
    """What a form asked for, and why it could not be done."""

    who: Visitor
    act: str
    """A button's name; "" where the form has none that is known."""
    form: Mapping[str, str]
    error: CommandError

    @property
    def answer(self) -> dict[str, Any]:
        """Give what the page that says so is answered with."""
        return {"status": STATUSES.get(type(self.error), 422), "retry_after": self.error.retry_after}


Acts = Mapping[str, Callable[..., Awaitable[str]]]
"""By the names of buttons: each gives the address of what to look at next."""
Refused = Callable[..., Awaitable[ResponseReturnValue]]
"""Makes of what Failed the page that says so."""


async def act_on(acts: Acts, refused: Refused, *about: str) -> ResponseReturnValue:
    """Carry out what a button of a form asks for; `refused` makes the page that says why that could not be."""
    form = await request.form
    try:
        who = await rooms().visitor(request)
        if not who.granted:
            return await _nothing_done(
                "You are signed out", f"Sign in in another tab first. {WORDS_KEPT}", 401
            )
        if not who.known:
            return await _nothing_done("Nothing was saved", NO_COOKIE, 400)
        return await _acted(who, acts, form, refused, about)
    except Unavailable as error:
        return await _nothing_done("One moment", f"{error.detail} {WORDS_KEPT}", 503, retry_after=1)


async def _acted(
    who: Visitor,
    acts: Acts,
    form: Mapping[str, str],
    refused: Refused,
    about: tuple[str, ...],
) -> ResponseReturnValue:
    act = next((name for name in acts if form.get(name)), "")
    try:
        await who.allowance.frames(1)
        if not act:
            raise BadField(STALE)
        return redirect(await acts[act](rooms(), who, *about, form), 303)
    except Unavailable:
        raise
    except CommandError as error:
        return await refused(Failed(who, act, form, error), *about)


async def _nothing_done(
    title: str, detail: str, status: int, *, retry_after: int | None = None
) -> ResponseReturnValue:
    page = await error_page(title, detail, link=request.path, words="Show the page anew")
    return page, status, headers_of(retry_after)


# What a form of the chat can ask for


@dataclass(frozen=True, slots=True)
class Done:
    """What came of it: where to look now, or words that are to be in the box."""

    conversation: str | None
    message: str
    words: str = ""


async def _send(here: Rooms, who: Visitor, sent: Sent) -> Done:
    named = {"conversation": sent.conversation, "model": sent.model, "temporary": sent.temporary}
    command = command_of(
        "message.send",
        id=sent.id_of(sent.box.words),
        text=sent.box.words,
        **{k: v for k, v in named.items() if v},
    )
    accepted = await here.chat.send(who.session, command, who.allowance)
    conversation = accepted.event.conversation
    if not accepted.repeated:
        await here.chat.tell_list(who.session, conversation)
    return Done(conversation, accepted.event.message, sent.rest)


async def _stop(here: Rooms, who: Visitor, sent: Sent) -> Done:
    await here.chat.stop(who.session, _about(sent, "completion.stop"))
    return _done(sent)


async def _regenerate(here: Rooms, who: Visitor, sent: Sent) -> Done:
    named = {"model": sent.model} if sent.model else {}
    command = _about(sent, "completion.regenerate", **named)
    await here.chat.regenerate(who.session, command, who.allowance)
    return _done(sent)


async def _continue(here: Rooms, who: Visitor, sent: Sent) -> Done:
    await here.chat.go_on(who.session, _about(sent, "completion.continue"), who.allowance)
    return _done(sent)


async def _select(here: Rooms, who: Visitor, sent: Sent) -> Done:
    await here.chat.select(who.session, _about(sent, "message.select"))
    return _done(sent)


async def _withdraw(here: Rooms, who: Visitor, sent: Sent) -> Done:
    """Take back a prompt: whoever does may want to write it in other words, before what is in the box."""
    command = _about(sent, "message.withdraw")
    _, message = await here.chat.answer(who.session, command.conversation, command.message)
    await here.chat.withdraw(who.session, command)
    texts = [message["text"] if message else "", sent.box.words]
    return Done(sent.conversation, sent.message, "\n\n".join(text for text in texts if text))


ACTS: dict[str, Callable[[Rooms, Visitor, Sent], Awaitable[Done]]] = {
    "stop": _stop,
    "regenerate": _regenerate,
    "continue": _continue,
    "select": _select,
    "withdraw": _withdraw,
    "send": _send,
}


def command_of(kind: str, **fields: Any) -> Any:
    """Make a command of what a form has, as strictly as of a frame. Raises BadField."""
    return parse_frame(json.dumps({"type": kind, **fields}))


def _about(sent: Sent, kind: str, **fields: Any) -> Any:
    if sent.conversation is None:
        raise BadField(STALE)
    return command_of(
        kind, id=sent.id_of(sent.message), conversation=sent.conversation, message=sent.message, **fields
    )


def _done(sent: Sent) -> Done:
    return Done(sent.conversation, sent.message, sent.box.words)
