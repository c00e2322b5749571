"""/settings: starting prompts, archived chats, shared links, this browser. Forms only: it works without scripts.

What could not be done is said in the page, with the words that were sent in their form.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quart import Blueprint, Response, abort, redirect, request, url_for
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from llmchat.blueprints.forms import Failed, act_on, command_of, too_large
from llmchat.blueprints.page import own_page
from llmchat.blueprints.rooms import Rooms, rooms
from llmchat.blueprints.visitors import Visitor, headers_of, origin_of
from llmchat.errors import NotFound
from llmchat.events import ID, ConversationDelete, ShareList, ShareRevoke
from llmchat.prompts import MOST_PROMPTS, NAME_CHARACTERS

PATH = "/settings"
DONE = {
    "added": "The starting prompt is saved. It is there when you begin a chat.",
    "changed": "The starting prompt is changed.",
    "deleted": "The starting prompt is deleted.",
    "unarchived": "The chat is among your chats again.",
    "revoked": "The link is revoked: it shows nothing any more.",
}
"""What is said after a form, by the name that the address has."""
PROMPT_GONE = "This starting prompt was deleted meanwhile. Your words are here: save them as a new one."

blueprint = Blueprint("preferences", __name__)


@dataclass(frozen=True, slots=True)
class Draft:
    """A starting prompt that was sent and not kept, and why; or an empty form."""

    prompt: str = ""
    """Which one it was to change; "" a new one."""
    title: str = ""
    text: str = ""
    problem: str = ""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    """Of the form: what is sent twice with it is kept once."""


@blueprint.get(PATH)
async def show() -> ResponseReturnValue:
    """Show what a person has and has chosen here."""
    who = await rooms().visitor(request)
    if not who.granted:
        return redirect(url_for("sign_in.show", to=PATH), 303)
    return await _page(who, Draft())


@blueprint.post(PATH)
async def act() -> ResponseReturnValue:
    """Carry out what a button asks for."""
    return await act_on(ACTS, _refused)


blueprint.register_error_handler(RequestEntityTooLarge, too_large)


@blueprint.get("/prompts/<prompt>")
async def starting_prompt(prompt: str) -> ResponseReturnValue:
    """Give the text of a starting prompt, for the box."""
    here = rooms()
    who = await here.visitor(request)
    if not (who.known and who.granted and ID.fullmatch(prompt)):
        abort(404)
    try:
        found = await here.prompts.find(who.session, prompt)
    except NotFound:
        abort(404)
    return Response(found.text, 200, headers_of(), content_type="text/plain; charset=utf-8")


async def _refused(failed: Failed) -> ResponseReturnValue:
    if failed.act not in ("add", "change"):
        return await _page(failed.who, Draft(), problem=failed.error.detail, **failed.answer)
    if isinstance(failed.error, NotFound):
        draft = _draft(failed.form, PROMPT_GONE, "")
    else:
        prompt = failed.form["change"] if failed.act == "change" else ""
        draft = _draft(failed.form, failed.error.detail, prompt)
    return await _page(failed.who, draft, **failed.answer)


def _draft(form: Mapping[str, str], problem: str, prompt: str) -> Draft:
    given = form.get("id", "")
    words = {"title": form.get("title", ""), "text": _lines(form.get("text", "")), "problem": problem}
    return Draft(prompt, **words, id=given) if ID.fullmatch(given) else Draft(prompt, **words)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")  # a form's lines end with both


async def _page(who: Visitor, draft: Draft, *, problem: str = "", **answer: Any) -> ResponseReturnValue:
    here, session = rooms(), who.session
    archived, more = await _archived(here, session) if who.known else ([], False)
    return await own_page(
        who,
        "settings.html",
        session=session,
        openid=here.openid,
        login=who.login,
        draft=draft,
        problem=problem,
        done=DONE.get(request.args.get("done", "")),
        prompts=await here.prompts.listed(session) if who.known else [],
        most={"prompts": MOST_PROMPTS, "name": NAME_CHARACTERS, "text": here.chat.limits["text"]},
        archived=archived,
        more_archived=more,
        shares=await _shares(here, session) if who.known else [],
        origin=origin_of(who),
        **answer,
    )


async def _archived(here: Rooms, session: str) -> tuple[list[dict[str, Any]], bool]:
    listed = await here.chat.listed(session, command_of("conversation.list", archived=True))
    return listed.conversations, listed.more


async def _shares(here: Rooms, session: str) -> list[dict[str, Any]]:
    return (await here.chat.shares(session, ShareList(type="share.list"))).shares


# What a form can ask for: each gives the address of what to look at next


async def _add(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    draft = _draft(form, "", "")
    await here.prompts.add(who.session, draft.id, draft.title, draft.text)
    return f"{PATH}?done=added#prompts"


async def _change(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    await here.prompts.change(
        who.session, form["change"], form.get("title", ""), _lines(form.get("text", ""))
    )
    return f"{PATH}?done=changed#prompts"


async def _delete(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    await here.prompts.delete(who.session, form["delete"])
    return f"{PATH}?done=deleted#prompts"


async def _unarchive(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    command = command_of("conversation.update", conversation=form["unarchive"], archived=False)
    await here.chat.update(who.session, command)
    return f"{PATH}?done=unarchived#archived"


async def _delete_chat(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    command: ConversationDelete = command_of("conversation.delete", conversation=form["delete-chat"])
    await here.chat.delete(who.session, command.conversation)
    return url_for("options.deleted", conversation=command.conversation)


async def _revoke(here: Rooms, who: Visitor, form: Mapping[str, str]) -> str:
    command: ShareRevoke = command_of("share.revoke", share=form["revoke"])
    await here.chat.revoke(who.session, command)
    return f"{PATH}?done=revoked#shares"


ACTS: dict[str, Callable[[Rooms, Visitor, Mapping[str, str]], Awaitable[str]]] = {
    "add": _add,
    "change": _change,
    "delete": _delete,
    "unarchive": _unarchive,
    "delete-chat": _delete_chat,
    "revoke": _revoke,
}
