"""The page by which one signs in, the password, where one is asked, and the ways out. Knows no chat."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from quart import Blueprint, make_response, redirect, render_template, request, url_for
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import OpenId, Rooms, rooms
from llmchat.blueprints.visitors import Visitor, address_of, cookies_of, headers_of
from llmchat.errors import RateLimited, SignInFailed

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
    """Show how one signs in; whoever needs to do nothing is led on."""
    here = rooms()
    came_from = urlsplit(request.referrer or "").path
    who, wanted = await here.visitor(request), own_page_of(request.args.get("to") or came_from)
    if who.login or (who.granted and here.openid is None):
        return redirect(wanted, 303)
    comes_of_it = came_from == url_for("sign_in.show")  # whoever is led here is not
    problem = NO_COOKIE if comes_of_it and not who.granted else ""
    left = "left" in request.args
    way_out = await _way_out(here.openid, who) if here.openid is not None and left else None
    return await sign_in_page(who, wanted, problem, left=left, way_out=way_out)


async def _way_out(openid: OpenId, who: Visitor) -> str | None:
    try:
        return await openid.issuer.way_out(address_of(who, "sign_in.show"))
    except SignInFailed:
        return None


@blueprint.post("/sign-in")
async def sign_in() -> ResponseReturnValue:
    """Let in whoever knows the password."""
    form = await request.form
    here, wanted = rooms(), own_page_of(form.get("to"))
    who = await here.visitor(request)
    if not here.access.required or who.login:
        return redirect(wanted, 303)
    try:
        knew = here.access.knew(cookies_of(request), who.session, secure=who.secure)
        await who.allowance.sign_in(knew=knew)
    except RateLimited as error:
        return await sign_in_page(who, wanted, error.detail, 429, retry_after=error.retry_after)
    given = form.get("password", "")
    if len(given) > MAX_PASSWORD or not await here.access.matches(given):
        return await sign_in_page(who, wanted, "This is not the password.", 403)
    response = await make_response(redirect(wanted, 303))
    for cookie in await here.cookies(who):
        response.headers.add("Set-Cookie", cookie)
    response.headers.add("Set-Cookie", here.access.reminder(who.session, secure=who.secure))
    return response


@blueprint.post("/sign-out")
async def sign_out() -> ResponseReturnValue:
    """Sign this browser out, in all its tabs, or a person everywhere. The chats stay for when they come back."""
    here = rooms()
    who = await here.visitor(request)
    if here.openid is not None and (who.login is not None or not here.access.required):
        return await _leave(here, here.openid, who)
    if not here.access.required:
        return redirect("/", 303)
    response = await make_response(redirect("/sign-in", 303))
    response.headers["Set-Cookie"] = here.access.gone(secure=who.secure)
    if who.known and who.granted:
        await here.sign_out(who.session)
    return response


async def _leave(here: Rooms, openid: OpenId, who: Visitor) -> ResponseReturnValue:
    if who.login is not None:
        if "everywhere" in await request.form:
            await openid.logins.end_all(who.session)
        else:
            await openid.logins.end(who.login)
        await here.tell_signed_out(who.session)
    response = await make_response(redirect(url_for("sign_in.show", left="yes"), 303))
    response.headers["Set-Cookie"] = openid.signed_in.gone(secure=who.secure)
    return response


async def sign_in_page(
    who: Visitor,
    wanted: str,
    problem: str = "",
    status: int = 200,
    retry_after: int | None = None,
    *,
    left: bool = False,
    way_out: str | None = None,
) -> ResponseReturnValue:
    """Make the page by which one signs in; one that was `left` says so, with the `way_out` of the provider's, too."""
    here = rooms()
    page = await render_template(
        "sign_in.html",
        to=wanted,
        problem=problem,
        password=here.access.required and not who.granted,
        openid=here.openid,
        brings=here.brings(who) and await here.takeout.any(who.session),
        anonymous=who.granted,
        left=left,
        way_out=way_out,
        static=here.static,
    )
    return page, status, headers_of(retry_after)


def own_page_of(path: str | None) -> str:
    """Lead to a page of ours only."""
    return path if path and OWN_PAGE.fullmatch(path) else "/"
