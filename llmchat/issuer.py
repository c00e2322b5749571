"""An OpenID provider: where a person is sent to sign in, and who it says has come back.

Knows no session, no cookie and no page. Imported only where a provider is configured: what it needs is large.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc.jwk import Key

from llmchat.errors import SignInFailed, StartError
from llmchat.id_token import (
    ALGORITHMS,
    Untrue,
    claims_of_leaver,
    claims_of_visitor,
    fitting,
    header_of,
    keys_of,
)
from llmchat.person import Leaver, Person
from llmchat.settings import is_secure_url
from llmchat.title import one_line

ASK_SECONDS = 10.0
ANSWER_BYTES = 256 * 1024
FRESH_SECONDS = 3600
"""So long what the provider tells of itself is believed …"""
ANEW_SECONDS = 3.0
"""… then it is looked for anew, for no longer than this: what it told last is true until there is more."""
AGAIN_SECONDS = 60
"""Between two such looks, where the first was in vain."""
KEYS_SECONDS = 10
"""Between two looks for a key that is not known: anybody can name one."""
TELL_SECONDS = 60
"""Between two lines of the log on what anybody may send."""
NAME_CHARACTERS = 80
MAIL = {"email", "email_verified"}
NAMES = ("name", "preferred_username", "nickname", "email")
AWAY = "The sign-in service cannot be reached now. Try again in a moment."
STRANGE = "The sign-in service said something that cannot be taken. Try again; if it stays so, tell whoever runs this chat."
DENIED = "You were not signed in there."
NOT_ALLOWED = "This account may not chat here. Sign in with another one, or ask whoever runs this chat."

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Told:
    """What the provider tells of itself."""

    issuer: str
    said: Mapping[str, Any]
    algorithms: Sequence[str]
    at: float


class Issuer:
    """Every method that asks the provider raises SignInFailed, but for `look`."""

    def __init__(
        self,
        address: str,
        client_id: str,
        client_secret: str | None,
        *,
        allowed: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`allowed` are mail addresses, and domains of such, that may come in; all may, where it is empty."""
        self._address = address.rstrip("/")
        self._client_id = client_id
        self._client_secret = client_secret
        self._allowed = {each.lower().removeprefix("@") for each in allowed}
        self._clock = clock
        self._tls = httpx2.create_ssl_context()
        self._asking = asyncio.Lock()
        self._told: _Told | None = None
        self._looked_at = float("-inf")
        self._keys: list[Key] = []
        self._keys_at = float("-inf")  # when they were looked for
        self._keys_problem: tuple[int, str] | None = None  # of the last look: status, detail
        self._untrue = 0  # sign-outs, since the log was told
        self._untrue_told_at = float("-inf")

    async def look(self) -> str:
        """Say in a line that the provider can be asked, to whoever configures it. Raises StartError."""
        try:
            async with asyncio.timeout(ASK_SECONDS), self._client() as client:
                told = await self._discovered(client)
                found = await _asked(client, told.said["jwks_uri"])
        except (TimeoutError, httpx2.HTTPError) as error:
            raise StartError(
                f"The OpenID provider at {self._address} cannot be reached ({type(error).__name__}). Check OIDC_ISSUER."
            ) from None
        except Untrue as untrue:
            raise StartError(
                f"The OpenID provider at {self._address} cannot be believed: {untrue}. Check OIDC_ISSUER."
            ) from None
        if not told.algorithms or not keys_of(found.get("keys")):
            raise StartError(
                f"The OpenID provider at {self._address} signs with no key that proves anything: let it use RS256."
            )
        return f"The OpenID provider {told.issuer} answers; whether it knows OIDC_CLIENT_ID a sign-in shows"

    async def way_in(self, back: str, *, state: str, nonce: str, verifier: str) -> str:
        """Give the address at which a person signs in, to be led `back` from there."""
        async with self._talking() as (client, told):
            address, _ = client.create_authorization_url(
                told.said["authorization_endpoint"],
                state=state,
                code_verifier=verifier,
                nonce=nonce,
                redirect_uri=back,
            )
            return str(address)

    async def way_out(self, back: str) -> str | None:
        """Give the address at which a person signs out there, too, where there is one."""
        async with self._talking() as (_, told):
            end = told.said.get("end_session_endpoint")
        if not is_secure_url(end):
            return None
        asked = urlencode({"client_id": self._client_id, "post_logout_redirect_uri": back})
        return f"{end}{'&' if '?' in end else '?'}{asked}"

    async def person(self, back: str, answer: Mapping[str, str], *, nonce: str, verifier: str) -> Person:
        """Tell who came back, by what the address says with which they did."""
        async with self._talking() as (client, told):
            tells_issuer = told.said.get("authorization_response_iss_parameter_supported") is True
            if answer.get("iss", "" if tells_issuer else told.issuer) != told.issuer:
                raise Untrue("somebody came back from another issuer")
            if "error" in answer:
                raise SignInFailed(403, DENIED)
            try:
                given = await client.fetch_token(
                    told.said["token_endpoint"],
                    grant_type="authorization_code",
                    code=answer.get("code", ""),
                    code_verifier=verifier,
                    redirect_uri=back,
                )
            except ValueError:
                raise Untrue("it gives no JSON object for a code") from None
            except httpx2.HTTPStatusError as error:
                if error.response.is_server_error:
                    raise
                raise Untrue(f"it answers a code with {error.response.status_code}") from None
            token, access_token = given.get("id_token"), given.get("access_token")
            claims = claims_of_visitor(
                token,
                await self._keys_for(client, told, token),
                issuer=told.issuer,
                client_id=self._client_id,
                nonce=nonce,
                access_token=access_token,
            )
            claims = await self._with_rest(client, told, claims, access_token)
        if self._allowed and not self._allows(claims):
            raise SignInFailed(403, NOT_ALLOWED)
        return Person(told.issuer, claims["sub"], _name_of(claims), _text(claims.get("sid")))

    async def leaver(self, token: str) -> Leaver | None:
        """Tell whose visit there has ended, by the token with which the provider says so; None where it is not true."""
        async with self._talking() as (client, told):
            try:
                keys = await self._keys_for(client, told, token)
                claims = claims_of_leaver(token, keys, issuer=told.issuer, client_id=self._client_id)
            except Untrue as untrue:  # anybody may send one
                self._tell_of_untrue(untrue)
                return None
        return Leaver(Person(told.issuer, claims["sub"], visit=_text(claims.get("sid"))), claims["iat"])

    def _tell_of_untrue(self, untrue: Untrue) -> None:
        self._untrue += 1
        if self._clock() - self._untrue_told_at >= TELL_SECONDS:
            log.warning(
                "Sign-outs were sent that the OpenID provider did not sign, or not so: %d; of the last, %s.",
                self._untrue,
                untrue,
            )
            self._untrue, self._untrue_told_at = 0, self._clock()

    @asynccontextmanager
    async def _talking(self) -> AsyncIterator[tuple[AsyncOAuth2Client, _Told]]:
        """Give a client for a few questions, within a time, and what the provider tells of itself."""
        try:
            async with asyncio.timeout(ASK_SECONDS), self._client() as client:
                told = await self._settled(client)
                client.token_endpoint_auth_method = self._login_way(told)
                yield client, told
        except (TimeoutError, httpx2.HTTPError) as error:
            log.warning("The OpenID provider cannot be reached: %s", type(error).__name__)
            raise SignInFailed(503, AWAY) from None
        except Untrue as untrue:
            log.warning("The OpenID provider cannot be believed: %s.", untrue)
            raise SignInFailed(502, STRANGE) from None
        except OAuthError:
            log.warning(
                "The OpenID provider gave no token for a code: see OIDC_CLIENT_ID, OIDC_CLIENT_SECRET."
            )
            raise SignInFailed(502, STRANGE) from None

    def _client(self) -> AsyncOAuth2Client:
        client = AsyncOAuth2Client(
            self._client_id,
            self._client_secret,
            scope="openid profile email" if self._allowed else "openid profile",
            code_challenge_method="S256",
            verify=self._tls,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_bound]},
        )
        client.register_client_auth_method(("client_secret_basic", _basic))
        return client

    async def _settled(self, client: AsyncOAuth2Client) -> _Told:
        """Read what the provider tells of itself, now and then; where that is in vain, what it told last is true."""
        async with self._asking:
            if self._told is None:
                self._told = await self._discovered(client)
            elif (
                self._clock() - self._told.at > FRESH_SECONDS
                and self._clock() - self._looked_at > AGAIN_SECONDS
            ):
                self._looked_at = self._clock()
                try:
                    async with asyncio.timeout(ANEW_SECONDS):
                        self._told = await self._discovered(client)
                except (TimeoutError, httpx2.HTTPError, Untrue) as error:
                    why = str(error) if isinstance(error, Untrue) else type(error).__name__
                    log.warning(
                        "What the OpenID provider tells of itself cannot be had anew (%s): what it told last counts.",
                        why,
                    )
            return self._told

    async def _discovered(self, client: AsyncOAuth2Client) -> _Told:
        said = await _asked(client, f"{self._address}/.well-known/openid-configuration")
        issuer = said.get("issuer")
        if not isinstance(issuer, str) or issuer.rstrip("/") != self._address:
            raise Untrue("it calls itself otherwise than OIDC_ISSUER does")
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            if not is_secure_url(said.get(name)):
                raise Untrue(f"its {name} is no https address")
        named = said.get("id_token_signing_alg_values_supported")
        algorithms = [each for each in ALGORITHMS if isinstance(named, list) and each in named]
        return _Told(issuer, said, algorithms, self._clock())

    def _login_way(self, told: _Told) -> str:
        if self._client_secret is None:
            return "none"
        ways = told.said.get("token_endpoint_auth_methods_supported", ())
        return "client_secret_post" if ways == ["client_secret_post"] else "client_secret_basic"

    async def _keys_for(self, client: AsyncOAuth2Client, told: _Told, token: object) -> list[Key]:
        """Find the keys that may have signed a token; asks for them anew where there are none, now and then."""
        header = header_of(token, told.algorithms)
        async with self._asking:
            if not fitting(self._keys, header) and self._clock() - self._keys_at > KEYS_SECONDS:
                self._keys_at, self._keys_problem = self._clock(), (503, AWAY)
                try:
                    found = await _asked(client, told.said["jwks_uri"])
                except Untrue as untrue:
                    log.warning("The OpenID provider's keys cannot be believed: %s.", untrue)
                    self._keys_problem = 502, STRANGE
                else:
                    self._keys, self._keys_problem = keys_of(found.get("keys")), None
        keys = fitting(self._keys, header)
        if not keys and self._keys_problem:
            raise SignInFailed(*self._keys_problem)
        return keys

    async def _with_rest(
        self, client: AsyncOAuth2Client, told: _Told, claims: dict[str, Any], access_token: object
    ) -> dict[str, Any]:
        """Add what is to be known and the ID token does not tell: many providers tell it elsewhere."""
        address = told.said.get("userinfo_endpoint")
        if _name_of(claims) and (not self._allowed or claims.keys() >= MAIL):
            return claims
        if not is_secure_url(address) or not isinstance(access_token, str):
            return claims
        said = await _asked(client, address, Authorization=f"Bearer {access_token}")
        if said.get("sub") != claims["sub"]:
            raise Untrue("it tells of somebody else")
        mail = claims if claims.keys() >= MAIL else said  # an address of one is not proved by the other
        return said | claims | {name: mail.get(name) for name in MAIL}

    def _allows(self, claims: Mapping[str, Any]) -> bool:
        email = _text(claims.get("email")).lower()
        proved = claims.get("email_verified") in (True, "true")
        return proved and bool({email, email.rpartition("@")[2]} & self._allowed)


async def _asked(client: AsyncOAuth2Client, address: str, **headers: str) -> dict[str, Any]:
    """Ask for a JSON object. Raises Untrue."""
    response = await client.request("GET", address, headers=headers, withhold_token=True)
    if response.is_server_error:
        response.raise_for_status()
    try:
        found = response.json() if response.status_code == 200 else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise Untrue(f"it answers with {response.status_code}, and no JSON object")
    return found


async def _bound(response: httpx2.Response) -> None:
    if "content-encoding" in response.headers:
        raise Untrue("it packs what it says, which nobody asked for")
    response.stream = _Bounded(response.stream)


class _Bounded(httpx2.AsyncByteStream):
    """An answer that is not too long."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        left = ANSWER_BYTES
        async for piece in self._stream:
            left -= len(piece)
            if left < 0:
                raise Untrue("it says too much")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


def _basic(client: AsyncOAuth2Client, method: str, uri: str, headers: Any, body: str) -> tuple[str, Any, str]:
    """Log in as RFC 6749 has it: each part is encoded, which only tells where one has odd signs."""
    told = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(told.encode()).decode()}"
    return uri, headers, body


def _name_of(claims: Mapping[str, Any]) -> str:
    names = (one_line(_text(claims.get(each))) for each in NAMES)
    return next(filter(None, names), "")[:NAME_CHARACTERS]


def _text(found: object) -> str:
    return found if isinstance(found, str) else ""
