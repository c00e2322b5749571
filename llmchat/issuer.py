"""An OpenID provider: where a person is sent to sign in, and who it says has come back.

Knows no session, no cookie and no page. Imported only where a provider is configured: what it needs is large.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
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
from llmchat.inquiry import Inquiry
from llmchat.person import Leaver, Person
from llmchat.settings import is_secure_url
from llmchat.title import one_line

ASK_SECONDS = 10.0
ANSWER_BYTES = 256 * 1024
LOOK_SECONDS = 5.0
"""For what the provider tells of itself, and for its keys."""
FRESH_SECONDS = 3600
"""So old, what it tells of itself is asked for anew; what it told last is true until there is more."""
AGAIN_SECONDS = 3
"""Between two looks for what it tells of itself, unless a person waits for it."""
KEYS_SECONDS = 10
"""Between two looks for a key that is not known: anybody can name one."""
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
        self._told = Inquiry(self._ask_about_it, SignInFailed, rest=AGAIN_SECONDS, clock=clock)
        self._keys = Inquiry(self._ask_for_keys, SignInFailed, rest=KEYS_SECONDS, clock=clock)

    async def look(self) -> str:
        """Say in a line that the provider can be asked, to whoever configures it. Raises StartError."""
        try:
            async with asyncio.timeout(ASK_SECONDS), self._client() as client:
                told = await self._discovered(client)
                found = await _asked(client, told.said["jwks_uri"])
        except (TimeoutError, httpx2.HTTPError) as error:
            raise StartError(
                f"The OpenID provider at {self._address} cannot be reached ({_why(error)}). Check OIDC_ISSUER."
            ) from None
        except Untrue as untrue:
            raise StartError(
                f"The OpenID provider at {self._address} cannot be believed: {untrue}. Check OIDC_ISSUER."
            ) from None
        keys = keys_of(found.get("keys"))
        if not any(fitting(keys, {"alg": each}) for each in told.algorithms):
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
            except (ValueError, RecursionError):
                raise Untrue("it gives no JSON object for a code") from None
            except httpx2.HTTPStatusError as error:
                if error.response.is_server_error:
                    raise
                raise Untrue(f"it answers a code with {error.response.status_code}") from None
            token, access_token = given.get("id_token"), given.get("access_token")
            claims = claims_of_visitor(
                token,
                await self._keys_for(told, token),
                issuer=told.issuer,
                client_id=self._client_id,
                nonce=nonce,
                access_token=access_token,
            )
            claims = await self._with_rest(client, told, claims, access_token)
        if self._allowed and not self._allows(claims):
            raise SignInFailed(403, NOT_ALLOWED)
        return Person(told.issuer, claims["sub"], _name_of(claims), _text(claims.get("sid")))

    async def leaver(self, token: str) -> Leaver:
        """Tell whose visit there has ended, by the token with which the provider says so.

        Where that is not true, SignInFailed has the status 400, and words for the log: anybody may send one.
        """
        with _sent_by_anybody():
            header_of(token, ALGORITHMS)  # before the provider is asked anything
        async with self._talking(at_once=False) as (_, told):
            with _sent_by_anybody():
                keys = await self._keys_for(told, token)
                claims = claims_of_leaver(token, keys, issuer=told.issuer, client_id=self._client_id)
        return Leaver(Person(told.issuer, claims["sub"], visit=_text(claims.get("sid"))), claims["iat"])

    @asynccontextmanager
    async def _talking(self, *, at_once: bool = True) -> AsyncIterator[tuple[AsyncOAuth2Client, _Told]]:
        """Give a client for a few questions, within a time, and what the provider tells of itself.

        `at_once`: a person tries again, who may do so only now and then; else it rests after it was in vain.
        """
        with _failing():
            async with asyncio.timeout(ASK_SECONDS), self._client() as client:
                told = await self._settled(at_once=at_once)
                client.token_endpoint_auth_method = self._login_way(told)
                yield client, told

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

    async def _settled(self, *, at_once: bool) -> _Told:
        """Give what the provider tells of itself; has it asked for anew now and then, for which nobody waits."""
        if self._told.answer is None:
            await self._told(at_once=at_once)
        elif self._clock() - self._told.answer.at > FRESH_SECONDS:
            self._told.begin()
        if self._told.answer is None:
            raise _again(self._told.failure)
        return self._told.answer

    async def _ask_about_it(self) -> _Told:
        with _failing():
            async with asyncio.timeout(LOOK_SECONDS), self._client() as client:
                return await self._discovered(client)

    async def _ask_for_keys(self) -> list[Key]:
        told = await self._settled(at_once=False)
        with _failing():
            async with asyncio.timeout(LOOK_SECONDS), self._client() as client:
                keys = keys_of((await _asked(client, told.said["jwks_uri"])).get("keys"))
                if not keys:
                    raise Untrue("it publishes no key")  # those that are known serve
                return keys

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

    async def _keys_for(self, told: _Told, token: object) -> list[Key]:
        """Find the keys that may have signed a token; asks for them anew where there are none, now and then."""
        header = header_of(token, told.algorithms)
        if not fitting(self._keys.answer or (), header):
            await self._keys()
        keys = fitting(self._keys.answer or (), header)
        if not keys and self._keys.failure is not None:
            raise _again(self._keys.failure)
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


@contextmanager
def _failing() -> Iterator[None]:
    """Tell the log, and whoever waits, what is wrong with the provider: raises SignInFailed."""
    try:
        yield
    except (TimeoutError, httpx2.HTTPError) as error:
        log.warning("The OpenID provider cannot be reached: %s", _why(error))
        raise SignInFailed(503, AWAY) from None
    except Untrue as untrue:
        log.warning("The OpenID provider cannot be believed: %s.", untrue)
        raise SignInFailed(502, STRANGE) from None
    except OAuthError:
        log.warning("The OpenID provider gave no token for a code: see OIDC_CLIENT_ID, OIDC_CLIENT_SECRET.")
        raise SignInFailed(502, STRANGE) from None


def _why(error: Exception) -> str:
    if isinstance(error, httpx2.HTTPStatusError):
        return f"{error.request.url.copy_with(query=None)} answers with {error.response.status_code}"
    return type(error).__name__


@contextmanager
def _sent_by_anybody() -> Iterator[None]:
    """What is not true here is not the provider's fault."""
    try:
        yield
    except Untrue as untrue:
        raise SignInFailed(400, str(untrue)) from None


def _again(failure: SignInFailed | None) -> SignInFailed:
    return SignInFailed(failure.status, failure.detail) if failure else SignInFailed(503, AWAY)


async def _asked(client: AsyncOAuth2Client, address: str, **headers: str) -> dict[str, Any]:
    """Ask for a JSON object. Raises Untrue."""
    response = await client.request("GET", address, headers=headers, withhold_token=True)
    if response.is_server_error:
        response.raise_for_status()
    try:
        found = response.json() if response.status_code == 200 else None
    except (ValueError, RecursionError):
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
