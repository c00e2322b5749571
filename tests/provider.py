"""An OpenID provider of the tests' own, which can also lie: it has one person, who is always there.

A test in which something is wrong sets what the provider says wrongly. It knows nothing of llmchat.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Any, Self
from urllib.parse import unquote_plus, urlencode

from aiohttp import web
from joserfc import jwt
from joserfc.jwk import Key, RSAKey

from tests.steps import Gate

CLIENT_ID = "llmchat of the tests"
CLIENT_SECRET = "a secret: of the tests"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"


class Provider:
    """`async with Provider() as provider:` opens it on a free port; `provider.issuer` is its name."""

    def __init__(self) -> None:
        self.port = 0
        self.secret: str | None = CLIENT_SECRET
        self._key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})
        self.reset()

    def reset(self) -> None:
        """Be honest again, and forget what was asked."""
        self.person: dict[str, Any] = {"sub": "ann", "name": "Ann Example", "sid": "visit-1"}
        self.userinfo: dict[str, Any] = {}
        self.says: dict[str, Any] = {}  # of itself, beside what is true; None: leaves it out
        self.claims: dict[str, Any] = {}  # likewise, in a token
        self.answer: dict[str, str] = {}  # likewise, on the way back
        self.token: dict[str, Any] = {}  # likewise, where a code is changed for it
        self.header: dict[str, Any] = {}
        self.status: dict[str, int] = {}  # of a path, in the place of what it says
        self.body: dict[str, bytes] = {}  # likewise
        self.gate: Gate | None = None  # before it says anything at …
        self.gated = "/.well-known/openid-configuration"
        self.asked: list[str] = []  # paths
        self.ways: dict[str, dict[str, str]] = {}  # code -> what the person was sent with
        self.keys: list[Key] = [self._key]

    def turn_keys(self) -> None:
        """Sign with another key from now on, and know no other."""
        self.keys = [RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})]

    @property
    def issuer(self) -> str:
        """Its name, which is its address."""
        return f"http://127.0.0.1:{self.port}"

    def environment(self, **more: str) -> dict[str, str]:
        """What an instance is told of it."""
        secret = {"OIDC_CLIENT_SECRET": self.secret} if self.secret else {}
        return (
            {"OIDC_ISSUER": self.issuer, "OIDC_CLIENT_ID": CLIENT_ID, "OIDC_NAME": "the tests"}
            | secret
            | more
        )

    def signed(self, claims: dict[str, Any], *, key: Key | None = None, **header: Any) -> str:
        """Sign claims, with what of them and of the header is to be wrong."""
        now = int(time.time())
        told = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300} | claims | self.claims
        head = {"alg": "RS256", "kid": self.keys[0].kid} | header | self.header
        told = {name: value for name, value in told.items() if value is not None}
        head = {name: value for name, value in head.items() if value is not None}
        if head["alg"] in ("none", "HS256"):
            return self._by_hand(head, told)
        return jwt.encode(head, told, key or self.keys[0], algorithms=[head["alg"]], encoder_cls=_Ascii)

    def _by_hand(self, head: dict[str, Any], told: dict[str, Any]) -> str:
        """Sign with nothing, or with the public key, which everybody knows: no library does."""
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, told))
        public = self.keys[0].as_pem(private=False)
        made = hmac.digest(public, signed.encode(), "sha256") if head["alg"] == "HS256" else b""
        return f"{signed}.{_base64(made)}"

    def logout_token(self, **claims: Any) -> str:
        """Sign that the person's visit has ended."""
        told = {"jti": "1", "events": {LOGOUT: {}}, "sub": self.person["sub"], "sid": self.person.get("sid")}
        return self.signed(told | claims, typ="logout+jwt")

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._door])
        app.router.add_get("/.well-known/openid-configuration", self._discovery)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/jwks", self._jwks)
        app.router.add_get("/userinfo", self._userinfo)
        app.router.add_get("/end", self._end)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await self.open_door()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def open_door(self) -> None:
        """Listen (again), always on the same port."""
        self._site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def close_door(self) -> None:
        """Refuse connections, until `open_door`."""
        await self._site.stop()

    @web.middleware
    async def _door(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.gate is not None and request.path == self.gated:
            self.gate.reached.set()
            await self.gate.opened()
        name = request.path.strip("/")
        if name in self.status or name in self.body:
            headers = {"Location": f"{self.issuer}/jwks"}
            return web.Response(
                status=self.status.get(name, 200), body=self.body.get(name, b"{}"), headers=headers
            )
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _discovery(self, _: web.Request) -> web.Response:
        told = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "EdDSA", "none", "HS256"],
            "authorization_response_iss_parameter_supported": True,
            **self.says,
        }
        return web.json_response({name: value for name, value in told.items() if value is not None})

    async def _authorize(self, request: web.Request) -> web.Response:
        asked = dict(request.query)
        assert (asked["client_id"], asked["response_type"]) == (CLIENT_ID, "code")
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.ways)}"
        self.ways[code] = asked
        told = {"code": code, "state": asked["state"], "iss": self.issuer} | self.answer
        told = {name: value for name, value in told.items() if value}
        raise web.HTTPFound(f"{asked['redirect_uri']}?{urlencode(told)}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        way = self.ways.pop(str(form["code"]), None)
        if way is None or not self._knows(request, dict(form)):  # a code is good once
            return web.json_response({"error": "invalid_grant", "error_description": "s3cret"}, status=400)
        digest = sha256(str(form["code_verifier"]).encode()).digest()
        assert _base64(digest) == way["code_challenge"]
        assert form["redirect_uri"] == way["redirect_uri"]
        claims = self.person | {"nonce": way["nonce"]}
        told = {"access_token": "access", "token_type": "Bearer", "id_token": self.signed(claims)}
        return web.json_response(told | self.token)

    def _knows(self, request: web.Request, form: dict[str, Any]) -> bool:
        if self.secret is None:
            return bool(form.get("client_id") == CLIENT_ID)
        given = b64decode(request.headers.get("Authorization", "").removeprefix("Basic ")).decode()
        return [unquote_plus(part) for part in given.split(":")] == [CLIENT_ID, self.secret]

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    async def _userinfo(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer access"
        return web.json_response({"sub": self.person["sub"]} | self.userinfo)

    async def _end(self, _: web.Request) -> web.Response:
        return web.Response(
            text='<link rel="icon" href="data:,">You are signed out here, too.', content_type="text/html"
        )


class _Ascii(json.JSONEncoder):
    """Escapes what is not ASCII: also half a character."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"ensure_ascii": True})


def _base64(made: bytes) -> str:
    return urlsafe_b64encode(made).rstrip(b"=").decode()
