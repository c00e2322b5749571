"""The password, where one is asked: the page that asks it, and the way out. Knows no chat."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from quart import Blueprint, make_response, redirect, render_template, request, url_for
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import rooms
from llmchat.blueprints.visitors import cookies_of, headers_of
from llmchat.errors import RateLimited

OWN_PAGE = re.compile(
    r"/(c/[A-Za-z0-9_-]{1,64}(/options|/deleted)?|settings(/data)?|search(\?q=[A-Za-z0-9%+._~!$'()*,/:;?@-]{1,2500})?)?"
)
MAX_PASSWORD = 1000
NO_COOKIE = (
    "This browser kept no cookie of this page, and without one you cannot be let in. Allow it, and sign in."
)

blueprint = Blueprint("sign_in", __name__)


@blueprint.get("/sign-in")
async def show() -> ResponseReturnValue:
    """Ask for the password; whoever needs none is led on."""
    wanted = _wanted(request.args.get("to"))
    if (await rooms().visitor(request)).granted:
        return redirect(wanted, 303)
    comes_of_it = urlsplit(request.referrer or "").path == url_for(
        "sign_in.show"
    )  # whoever is led here is not
    return await _page(wanted, NO_COOKIE if comes_of_it else "")


@blueprint.post("/sign-in")
async def sign_in() -> ResponseReturnValue:
    """Let in whoever knows the password."""
    form = await request.form
    here, wanted = rooms(), _wanted(form.get("to"))
    who = await here.visitor(request)
    if not here.access.required:
        return redirect(wanted, 303)
    try:
        knew = here.access.knew(cookies_of(request), who.session, secure=who.secure)
        await who.allowance.sign_in(knew=knew)
    except RateLimited as error:
        return await _page(wanted, error.detail, 429, retry_after=error.retry_after)
    given = form.get("password", "")
    if len(given) > MAX_PASSWORD or not await here.access.matches(given):
        return await _page(wanted, "This is not the password.", 403)
    response = await make_response(redirect(wanted, 303))
    response.headers.add("Set-Cookie", here.sessions.cookie(who.session, secure=who.secure))
    response.headers.add("Set-Cookie", await here.access_cookie(who))
    response.headers.add("Set-Cookie", here.access.reminder(who.session, secure=who.secure))
    return response


@blueprint.post("/sign-out")
async def sign_out() -> ResponseReturnValue:
    """Sign this browser out, in all its tabs. Its chats stay its own for when it comes back."""
    here = rooms()
    if not here.access.required:
        return redirect("/", 303)
    who = await here.visitor(request)
    response = await make_response(redirect("/sign-in", 303))
    response.headers["Set-Cookie"] = here.access.gone(secure=who.secure)
    if who.known and who.granted:
        await here.sign_out(who.session)
    return response


async def _page(
    wanted: str, problem: str = "", status: int = 200, retry_after: int | None = None
) -> ResponseReturnValue:
    page = await render_template("sign_in.html", to=wanted, problem=problem, static=rooms().static)
    return page, status, headers_of(retry_after)


def _wanted(path: str | None) -> str:
    """Lead to a page of ours only."""
    return path if path and OWN_PAGE.fullmatch(path) else "/"
