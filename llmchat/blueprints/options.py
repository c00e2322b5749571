"""/c/<conversation>/options: what the menu of a chat does, for where no script runs. Forms only.

What could not be done is said in the page, with the words that were sent in their form.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from quart import Blueprint, abort, redirect, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from llmchat.blueprints.forms import Failed, act_on, command_of, too_large
from llmchat.blueprints.page import error_page, own_page
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import Visitor, headers_of, origin_of
from llmchat.conversation import RESTORE_SECONDS, Conversation
from llmchat.errors import BadField, CommandError, NotFound
from llmchat.events import ID, ShareList
from llmchat.title import MOST_TITLE_CHARACTERS, has_word, one_line

NOT_HERE = "It may have been deleted, or it belongs to another browser."
TOO_LATE = f"The chat could be brought back for {RESTORE_SECONDS} seconds. They are over, and it is gone."
NAMELESS = "A chat needs a name: it keeps the one it has."
LONG_TITLE = f"A title has at most {MOST_TITLE_CHARACTERS} characters."
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
    _check(conversation)
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=request.path), 303)
    return await _page(who, conversation)


@blueprint.get("/c/<conversation>/deleted")
async def deleted(conversation: str) -> ResponseReturnValue:
    """Say that a chat is deleted, and how it comes back."""
    _check(conversation)
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=request.path), 303)
    return await own_page(who, "deleted.html", conversation=conversation, seconds=RESTORE_SECONDS)


@blueprint.post("/c/<conversation>/options")
async def act(conversation: str) -> ResponseReturnValue:
    """Carry out what a button asks for."""
    _check(conversation)
    return await act_on(ACTS, _refused, conversation)


blueprint.register_error_handler(RequestEntityTooLarge, too_large)


def _check(conversation: str) -> None:
    if not ID.fullmatch(conversation):
        abort(404)


async def _refused(failed: Failed, conversation: str) -> ResponseReturnValue:
    if failed.act == "restore" and isinstance(failed.error, NotFound):
        page = await error_page("That was too late", TOO_LATE)
        return page, 404, headers_of()
    return await _page(
        failed.who, conversation, failed.act, failed.form, failed.error.detail, **failed.answer
    )


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
        if not who.known:
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
        own_system=known.system is not None,
        most_title=MOST_TITLE_CHARACTERS,
        models=here.chat.models,
        shares=shares.shares,
        sharing=here.chat.sharing,
        form_id=secrets.token_urlsafe(12),
        failed=failed,
        problem=problem,
        done=DONE.get(request.args.get("done", "")),
        origin=origin_of(who),
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
    title = one_line(form.get("title", ""))
    if not has_word(title):
        raise BadField(NAMELESS)
    if len(title) > MOST_TITLE_CHARACTERS:
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
    if form["set"] == "default":
        changes["system"] = None
    elif system != before["system"].strip():
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
