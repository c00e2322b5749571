"""/c/<conversation>/options: what the menu of a chat does, for where no script runs. Forms only.

What could not be done is said in the page, with the words that were sent in their form.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from quart import Blueprint, redirect, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from llmchat.blueprints.forms import NO_COOKIE, STATUSES, TOO_MUCH, command_of
from llmchat.blueprints.page import error_page, own_page
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import Visitor, headers_of
from llmchat.conversation import RESTORE_SECONDS, Conversation
from llmchat.errors import BadField, CommandError, NotFound, Unavailable
from llmchat.events import ID, ShareList

NOT_HERE = "It may have been deleted, or it belongs to another browser."
TOO_LATE = f"The chat could be brought back for {RESTORE_SECONDS} seconds. They are over, and it is gone."
WORDS_KEPT = "Go back with your browser: your words should still be there. Then save them once more."
NO_TITLE = "A chat needs a title: write at least one word. It keeps the title that it had."
LONG_TITLE = "A title has at most 200 characters."
DONE = {
    "renamed": "The chat has its new title.",
    "pinned": "The chat is pinned.",
    "unpinned": "The chat is not pinned any more.",
    "archived": "The chat is archived. It is listed in the settings.",
    "unarchived": "The chat is among your chats again.",
    "set": "The settings of this chat are saved.",
    "shared": "The link is made.",
    "revoked": "The link is revoked: it shows nothing any more.",
    "restored": "The chat is back.",
}
"""What is said after a form, by the name that the address has."""
NUMBERS = {
    "temperature": (float, "Temperature is a number from 0 to 2, or empty."),
    "top_p": (float, "Top p is a number above 0, up to 1, or empty."),
    "max_tokens": (int, "Longest answer is a whole number from 1 to 1,000,000, or empty."),
}
"""The fields of a chat's parameters: how each is read, and what is said of one that cannot be."""

blueprint = Blueprint("options", __name__)


@blueprint.get("/c/<conversation>/options")
async def show(conversation: str) -> ResponseReturnValue:
    """Show what can be done with a chat."""
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=request.path), 303)
    return await _page(who, conversation)


@blueprint.get("/c/<conversation>/deleted")
async def deleted(conversation: str) -> ResponseReturnValue:
    """Say that a chat is deleted, and how it comes back."""
    who = await rooms().visitor(request)
    if not who.granted or not ID.fullmatch(conversation):
        return redirect(url_for("sign_in.show"), 303)
    return await own_page(who, "deleted.html", conversation=conversation, seconds=RESTORE_SECONDS)


@blueprint.post("/c/<conversation>/options")
async def act(conversation: str) -> ResponseReturnValue:
    """Carry out what a button asks for."""
    form = await request.form
    try:
        who = await rooms().visitor(request)
        if not who.granted:
            return await _refused("You are signed out", f"Sign in in another tab first. {WORDS_KEPT}", 401)
        if not who.known:
            return await _refused("Nothing was changed", NO_COOKIE, 400)
        return await _carry_out(who, conversation, form)
    except Unavailable as error:
        return await _refused("One moment", f"{error.detail} {WORDS_KEPT}", 503)


@blueprint.errorhandler(RequestEntityTooLarge)
async def too_large(error: RequestEntityTooLarge) -> ResponseReturnValue:
    """Say that this is too much; the browser alone has the words."""
    return await _refused("That is too long to be saved", TOO_MUCH, 413)


async def _refused(title: str, detail: str, status: int) -> ResponseReturnValue:
    page = await error_page(title, detail, link=request.path, words="Back to the chat's options")
    return page, status, headers_of()


async def _carry_out(who: Visitor, conversation: str, form: Mapping[str, str]) -> ResponseReturnValue:
    name = next((name for name in ACTS if form.get(name)), "")
    try:
        await who.allowance.frames(1)
        if not name or not ID.fullmatch(conversation):
            raise BadField("This is not possible here any more.")
        return redirect(await ACTS[name](rooms(), who, conversation, form), 303)
    except Unavailable:
        raise
    except CommandError as error:
        if name == "restore" and isinstance(error, NotFound):
            page = await error_page("That was too late", TOO_LATE)
            return page, 404, headers_of()
        words, status = error.detail, STATUSES.get(type(error), 422)
        return await _page(who, conversation, name, form, words, status=status, retry_after=error.retry_after)


async def _page(
    who: Visitor,
    conversation: str,
    failed: str = "",
    form: Mapping[str, str] | None = None,
    problem: str = "",
    **answer: Any,
) -> ResponseReturnValue:
    here = rooms()
    try:
        if not who.known or not ID.fullmatch(conversation):
            raise NotFound(NOT_HERE)
        known = await here.chat.about(who.session, conversation)
    except NotFound:
        page = await error_page("This chat is not here", NOT_HERE)
        return page, 404, headers_of()
    shares = await here.chat.shares(who.session, ShareList(type="share.list", conversation=conversation))
    fields = _fields(here, known)
    if form:  # what was sent stays as it was sent
        fields |= {name: form[name] for name in fields if name in form}
    return await own_page(
        who,
        "options.html",
        conversation=known,
        fields=fields,
        models=here.chat.models,
        shares=shares.shares,
        sharing=here.chat.sharing,
        form_id=secrets.token_urlsafe(12),
        failed=failed,
        problem=problem,
        done=DONE.get(request.args.get("done", "")),
        origin=f"{'https' if who.secure else 'http'}://{request.host}",
        **answer,
    )


def _fields(here: Rooms, known: Conversation) -> dict[str, str]:
    """Give the words in the forms, as the chat has them now."""
    numbers = {name: known.parameters.get(name) for name in NUMBERS}
    return {
        "title": known.title,
        "system": here.chat.system_of(known),
        "model": known.model_among([model["id"] for model in here.chat.models]),
        **{name: "" if value is None else f"{value:g}" for name, value in numbers.items()},
    }


# What a form can ask for: each gives the address of what to look at next


def _next(conversation: str, done: str, part: str = "") -> str:
    return url_for("options.show", conversation=conversation, done=done) + part


async def _update(here: Rooms, who: Visitor, conversation: str, **changes: Any) -> None:
    await here.chat.update(
        who.session, command_of("conversation.update", conversation=conversation, **changes)
    )


async def _rename(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    title = form.get("title", "").strip()
    if not title:
        raise BadField(NO_TITLE)
    if len(title) > 200:
        raise BadField(LONG_TITLE)
    await _update(here, who, conversation, title=title)
    return _next(conversation, "renamed")


async def _pin(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await _update(here, who, conversation, pinned=form["pin"] == "yes")
    return _next(conversation, "pinned" if form["pin"] == "yes" else "unpinned")


async def _archive(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await _update(here, who, conversation, archived=form["archive"] == "yes")
    return _next(conversation, "archived" if form["archive"] == "yes" else "unarchived")


async def _set(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    """Save the settings of a chat; what is as it was is not written: it may be what the operator sets."""
    before = _fields(here, await here.chat.about(who.session, conversation))
    system = form.get("system", "").replace("\r\n", "\n").strip()
    changes: dict[str, Any] = {"parameters": _parameters(form)}
    if system != before["system"].strip():
        changes["system"] = system
    if form.get("model", before["model"]) != before["model"]:
        changes["model"] = form["model"]
    await _update(here, who, conversation, **changes)
    return _next(conversation, "set", "#settings")


def _parameters(form: Mapping[str, str]) -> dict[str, float]:
    """Read the numbers of a form, with a point or a comma. Raises BadField, in words of the page."""
    found: dict[str, float] = {}
    for name, (read, words) in NUMBERS.items():
        given = form.get(name, "").strip().replace(",", ".")
        if not given:
            continue
        try:
            command_of("conversation.update", conversation="c", parameters={name: read(given)})
        except (ValueError, OverflowError, CommandError):
            raise BadField(words) from None
        found[name] = read(given)
    return found


async def _delete(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await here.chat.delete(who.session, conversation)
    return url_for("options.deleted", conversation=conversation)


async def _restore(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await here.chat.restore(who.session, conversation)
    return _next(conversation, "restored")


async def _share(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await here.chat.share(
        who.session, command_of("share.create", id=form["share"], conversation=conversation)
    )
    return _next(conversation, "shared", "#shares")


async def _revoke(here: Rooms, who: Visitor, conversation: str, form: Mapping[str, str]) -> str:
    await here.chat.revoke(who.session, command_of("share.revoke", share=form["revoke"]))
    return _next(conversation, "revoked", "#shares")


ACTS: dict[str, Callable[[Rooms, Visitor, str, Mapping[str, str]], Awaitable[str]]] = {
    "rename": _rename,
    "pin": _pin,
    "archive": _archive,
    "set": _set,
    "delete": _delete,
    "restore": _restore,
    "share": _share,
    "revoke": _revoke,
}
