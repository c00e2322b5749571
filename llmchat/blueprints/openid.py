"""Signing in by an OpenID provider: the way there, the way back, and what the provider says by itself. Knows no chat."""

from __future__ import annotations

import json
import secrets
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from dataclasses import asdict, dataclass, field

from quart import Blueprint, Response, abort, make_response, redirect, request, url_for
from quart.typing import ResponseReturnValue

from llmchat.blueprints.rooms import OpenId, rooms
from llmchat.blueprints.sign_in import own_page_of, sign_in_page
from llmchat.blueprints.visitors import Visitor, address_of, cookies_of, headers_of
from llmchat.errors import RateLimited, SignInFailed, Unavailable

WAY_SECONDS = 600
"""To the provider and back."""
MOST_WAYS = 4
"""Of a browser at once, the newest: each tab may be on one."""
MOST_TO = 300
"""Characters of the page to show then: the cookie that has it may have 4 KiB."""
MOST_TOKEN = 16 * 1024
OLD = "This sign-in was finished already, or took too long. Begin again."

blueprint = Blueprint("openid", __name__)


@dataclass(frozen=True, slots=True)
class Way:
    """To the provider and back, which a tab of this browser is on: it ends once."""

    to: str
    """The page of ours to show then."""
    brings: bool
    """The chats of this browser come along."""
    state: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    nonce: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    until: float = field(default_factory=lambda: time.time() + WAY_SECONDS)


@blueprint.get("/sign-in/openid")
async def begin() -> ResponseReturnValue:
    """Lead to the provider. A link rather than a form, which the Content Security Policy lets lead nowhere else."""
    here, openid = rooms(), _openid()
    who = await here.visitor(request)
    wanted, brings = own_page_of(request.args.get("to")), "leave" not in request.args
    if len(wanted) > MOST_TO:
        wanted = "/"
    if request.headers.get("Sec-Fetch-Site") == "cross-site":  # a link that nobody here has seen
        return redirect(url_for("sign_in.show", to=wanted), 303)
    way = Way(wanted if brings or not wanted.startswith("/c/") else "/", brings)
    try:
        await who.allowance.sign_in()
        address = await openid.issuer.way_in(
            address_of(who, "openid.end"), state=way.state, nonce=way.nonce, verifier=way.verifier
        )
    except RateLimited as error:
        return await sign_in_page(who, way.to, error.detail, 429, retry_after=error.retry_after)
    except SignInFailed as failed:
        return await sign_in_page(who, way.to, failed.detail, failed.status)
    response = await make_response(redirect(address, 303))
    response.headers["Set-Cookie"] = _kept(openid, who, [*_ways(openid, who), way])
    response.headers.update(headers_of())
    return response


@blueprint.get("/sign-in/callback")
async def end() -> ResponseReturnValue:
    """Sign in whoever comes back from the provider."""
    here, openid = rooms(), _openid()
    who = await here.visitor(request)
    ways = {each.state: each for each in _ways(openid, who)}
    way = ways.pop(request.args.get("state", ""), None)
    if way is None:
        return redirect("/", 303) if who.login else await sign_in_page(who, "/", OLD, 400)
    try:
        person = await openid.issuer.person(
            address_of(who, "openid.end"), request.args, nonce=way.nonce, verifier=way.verifier
        )
    except SignInFailed as failed:
        response = await make_response(await sign_in_page(who, way.to, failed.detail, failed.status))
        response.headers.add("Set-Cookie", _kept(openid, who, list(ways.values())))
        return response
    anonymous = who.session if way.brings and here.brings(who) else ""
    login = await openid.logins.begin(person, who.login, anonymous)
    if who.login is not None and who.session != login.session:
        await openid.logins.end(who.login)
        await here.tell_signed_out(who.session)
    response = await make_response(redirect(way.to, 303))
    response.headers.update(headers_of())
    response.headers.add("Set-Cookie", openid.cookie(login, secure=who.secure))
    response.headers.add("Set-Cookie", _kept(openid, who, list(ways.values())))
    if anonymous:
        response.headers.add("Set-Cookie", here.sessions.gone(secure=who.secure))
    return response


@blueprint.post("/sign-in/backchannel")
async def leave() -> ResponseReturnValue:
    """Sign a person out of whose visit at the provider that tells the end: OpenID Connect Back-Channel Logout 1.0."""
    here, openid = rooms(), _openid()
    token = (await request.form).get("logout_token", "")
    try:
        if len(token) > MOST_TOKEN:
            raise SignInFailed(400, "it is too long")
        leaver = await openid.issuer.leaver(token)
    except SignInFailed as failed:
        return await _refuse(openid, failed)
    session = await openid.logins.end_visit(leaver)
    if session is not None:
        await here.tell_signed_out(session)
    return Response(status=200, headers=headers_of())


async def _refuse(openid: OpenId, failed: SignInFailed) -> ResponseReturnValue:
    """Refuse the word of a sign-out; only what is refused is counted, so that strangers keep the provider out of nothing."""
    if failed.status == 400:
        openid.untrue.note(failed.detail)
    try:
        with suppress(Unavailable):
            await rooms().limits.page(None, request.remote_addr or "")
    except RateLimited as error:
        return {"error": "invalid_request"}, 429, headers_of(error.retry_after)
    return {"error": "invalid_request"}, 400 if failed.status == 400 else 503, headers_of()


def _openid() -> OpenId:
    openid = rooms().openid
    return openid if openid is not None else abort(404)


def _ways(openid: OpenId, who: Visitor) -> list[Way]:
    """Read which ways this browser is on."""
    told = openid.on_the_way.read(cookies_of(request), secure=who.secure, aged=True)
    ways = [Way(**each) for each in json.loads(urlsafe_b64decode(f"{told}=="))] if told else []
    return [each for each in ways if each.until > time.time()]


def _kept(openid: OpenId, who: Visitor, ways: list[Way]) -> str:
    if not ways:
        return openid.on_the_way.gone(secure=who.secure)
    told = json.dumps([asdict(each) for each in ways[-MOST_WAYS:]])
    return openid.on_the_way.give(urlsafe_b64encode(told.encode()).decode().rstrip("="), secure=who.secure)
