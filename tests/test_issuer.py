"""An OpenID provider is believed only as far as all that it says is true."""

from __future__ import annotations

import asyncio
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import pytest
from joserfc.jwk import ECKey, OKPKey, RSAKey

from llmchat.errors import SignInFailed, StartError
from llmchat.issuer import (
    AGAIN_SECONDS,
    ANSWER_BYTES,
    FRESH_SECONDS,
    KEYS_SECONDS,
    Issuer,
)
from llmchat.person import Person
from tests.provider import CLIENT_ID, CLIENT_SECRET, Provider
from tests.steps import Gate
from tests.waiting import eventually, within

BACK = "http://localhost/sign-in/callback"
WAY = {"nonce": "the nonce", "verifier": "v" * 43}
PATHS = {"discovery": ".well-known/openid-configuration"}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class House:
    """A provider, and what asks it."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.clock = Clock()
        self.issuer = self.make()

    def make(self, secret: str | None = CLIENT_SECRET, allowed: tuple[str, ...] = ()) -> Issuer:
        """Make one more that asks it."""
        return Issuer(self.provider.issuer, CLIENT_ID, secret, allowed=allowed, clock=self.clock)

    async def sign_in(self, issuer: Issuer | None = None, **changed: str) -> Person:
        """Go there and come back, with `changed` on the way back."""
        asked = issuer or self.issuer
        address = await asked.way_in(BACK, state="the state", **WAY)
        async with aiohttp.ClientSession() as http, http.get(address, allow_redirects=False) as response:
            answer = dict(parse_qsl(urlsplit(response.headers["Location"]).query))
        assert answer["state"] == "the state"
        return await asked.person(BACK, answer | changed, **WAY)


@pytest.fixture(scope="module")
async def running_provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest.fixture
async def provider(running_provider: Provider) -> Provider:
    running_provider.reset()
    return running_provider


@pytest.fixture
def house(provider: Provider) -> House:
    return House(provider)


async def test_person_is_told_with_name_and_visit(house: House) -> None:
    person = await house.sign_in()
    assert person == Person(house.provider.issuer, "ann", "Ann Example", "visit-1")
    assert house.provider.asked.count("/userinfo") == 0
    await house.sign_in()
    assert house.provider.asked.count("/.well-known/openid-configuration") == 1
    assert house.provider.asked.count("/jwks") == 1


async def test_way_in_asks_for_no_more_than_is_shown(house: House) -> None:
    asked = parse_qs(urlsplit(await house.issuer.way_in(BACK, state="s", **WAY)).query)
    assert asked["scope"] == ["openid profile"]
    assert asked["redirect_uri"] == [BACK]
    assert WAY["verifier"] not in str(asked)
    limited = house.make(allowed=("example.com",))
    asked = parse_qs(urlsplit(await limited.way_in(BACK, state="s", **WAY)).query)
    assert asked["scope"] == ["openid profile email"]


async def test_public_client_has_no_secret(house: House) -> None:
    house.provider.secret = None
    try:
        assert (await house.sign_in(house.make(secret=None))).subject == "ann"
    finally:
        house.provider.secret = CLIENT_SECRET


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSAKey.generate_key(2048), "PS256"),
        (ECKey.generate_key("P-256"), "ES256"),
        (OKPKey.generate_key("Ed25519"), "Ed25519"),
        (OKPKey.generate_key("Ed25519"), "EdDSA"),
    ],
    ids=["PS256", "ES256", "Ed25519", "EdDSA"],
)
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # by the provider, which signs
async def test_each_kind_of_key_is_believed_where_it_is_announced(
    house: House, key: Any, algorithm: str
) -> None:
    house.provider.keys = [key]
    house.provider.header = {"alg": algorithm, "kid": None}
    house.provider.says = {"id_token_signing_alg_values_supported": ["RS256"]}
    with pytest.raises(SignInFailed):
        await house.sign_in()
    house.provider.says = {"id_token_signing_alg_values_supported": [algorithm]}
    assert (await house.sign_in(house.make())).subject == "ann"


NOW = int(time.time())
LIES: dict[str, dict[str, Any]] = {
    "another nonce": {"claims": {"nonce": "another"}},
    "no nonce": {"claims": {"nonce": None}},
    "for somebody else": {"claims": {"aud": "another"}},
    "for several, and not told for whom": {"claims": {"aud": [CLIENT_ID, "another"]}},
    "for several, and given to another": {"claims": {"aud": [CLIENT_ID, "another"], "azp": "another"}},
    "of another issuer": {"claims": {"iss": "https://evil.example"}},
    "too old": {"claims": {"exp": NOW - 3600}},
    "without an end": {"claims": {"exp": None}},
    "of tomorrow": {"claims": {"iat": NOW + 86_400}},
    "of nobody": {"claims": {"sub": None}},
    "of an empty name": {"claims": {"sub": ""}},
    "of a number": {"claims": {"sub": 7}},
    "of several": {"claims": {"sub": ["ann"]}},
    "of too long a name": {"claims": {"sub": "a" * 1001}},
    "of half a character": {"claims": {"sub": "\ud800"}},
    "it says nothing that can be taken apart": {"body": {"discovery": b"[" * 100_000}},
    "it gives nothing for a code that can be taken apart": {"body": {"token": b"[" * 100_000}},
    "it publishes no key": {"body": {"jwks": b'{"keys": []}'}},
    "with another token": {"claims": {"at_hash": "AAAA"}},
    "unsigned": {"header": {"alg": "none"}},
    "signed with the public key": {"header": {"alg": "HS256"}},
    "signed with no key": {"header": {"kid": "unknown"}},
    "no token": {"token": {"id_token": None}},
    "a strange token": {"token": {"id_token": "a.b.c"}},
    "a token that is none": {"token": {"id_token": 7}},
    "it calls itself otherwise": {"says": {"issuer": "https://evil.example"}},
    "it has no address": {"says": {"token_endpoint": None}},
    "it talks in the clear": {"says": {"token_endpoint": "http://evil.example/token"}},
    "it is no object": {"body": {"discovery": b"[]"}},
    "it says nothing": {"body": {"discovery": b""}},
    "it says too much": {"body": {"discovery": b'{"issuer": "' + b"x" * ANSWER_BYTES + b'"}'}},
    "it leads elsewhere": {"status": {"jwks": 302}},
    "it gives no keys": {"body": {"jwks": b'{"keys": [{"kty": "RSA"}, 7]}'}},
    "it gives no token": {"status": {"token": 400}, "body": {"token": b"no"}},
    "it came from another issuer": {"answer": {"iss": "https://evil.example"}},
    "it does not tell from which issuer": {"answer": {"iss": ""}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_nobody_is_signed_in_by_what_is_not_true(
    house: House, lie: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in lie.items():
        if name in ("body", "status"):
            value = {PATHS.get(path, path): said for path, said in value.items()}
        setattr(house.provider, name, value)
    with pytest.raises(SignInFailed) as failed:
        await house.sign_in()
    assert failed.value.status == 502
    assert "evil" not in failed.value.detail + caplog.text
    assert "cannot be believed" in caplog.text or "gave no token" in caplog.text


async def test_signature_of_another_key_by_the_same_name_is_not_believed(house: House) -> None:
    await house.sign_in()
    kid = house.provider.keys[0].kid
    house.provider.keys = [RSAKey.generate_key(2048, {"kid": kid})]
    with pytest.raises(SignInFailed):
        await house.sign_in()


async def test_turned_keys_are_looked_for_and_not_too_often(house: House) -> None:
    await house.sign_in()
    house.provider.turn_keys()
    with pytest.raises(SignInFailed):
        await house.sign_in()
    house.clock.now += KEYS_SECONDS + 1
    assert (await house.sign_in()).subject == "ann"
    asked = house.provider.asked.count("/jwks")
    house.provider.header = {"kid": "unknown"}
    for _ in range(3):
        with pytest.raises(SignInFailed):
            await house.sign_in()
    assert house.provider.asked.count("/jwks") == asked


async def test_provider_that_is_away_is_told_apart_and_what_it_told_stands(house: House) -> None:
    await house.provider.close_door()
    try:
        with pytest.raises(SignInFailed) as failed:
            await house.issuer.way_in(BACK, state="s", **WAY)
    finally:
        await house.provider.open_door()
    assert failed.value.status == 503
    await house.sign_in()
    house.clock.now += FRESH_SECONDS + 1
    house.provider.status = {PATHS["discovery"]: 500}
    assert (await house.sign_in()).subject == "ann"
    house.provider.status = {"token": 503}
    with pytest.raises(SignInFailed) as failed:
        await house.sign_in()
    assert failed.value.status == 503


@pytest.mark.parametrize("how", ["away", "silent", "upkeep", "another issuer"])
async def test_what_the_provider_told_counts_while_it_is_asked_anew_and_one_look_is_for_all(
    house: House, how: str
) -> None:
    provider = house.provider
    await house.sign_in()
    house.clock.now += FRESH_SECONDS + 1
    before = provider.asked.count(f"/{PATHS['discovery']}")
    if how == "away":
        provider.status = {PATHS["discovery"]: 500}
    elif how == "silent":
        provider.gate = Gate()
    elif how == "upkeep":
        provider.body = {PATHS["discovery"]: b"<h1>Back soon</h1>"}
    else:
        provider.says = {"issuer": "https://another.example"}
    for _ in range(3):
        assert (await house.sign_in()).subject == "ann"

    async def looked() -> bool:
        return house.issuer._told._task is None

    if provider.gate:
        async with within(30):
            await provider.gate.reached.wait()
        provider.gate.open()
    await eventually(looked, seconds=30, what="the look ends")
    assert provider.asked.count(f"/{PATHS['discovery']}") == before + 1
    house.clock.now += FRESH_SECONDS + 1
    assert (await house.sign_in()).subject == "ann"
    await eventually(looked, seconds=30, what="the look ends")
    assert provider.asked.count(f"/{PATHS['discovery']}") == before + 2


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"status": {"jwks": 500}}, 503), ({"body": {"jwks": b"<h1>Back soon</h1>"}}, 502)],
)
async def test_keys_that_cannot_be_had_are_not_asked_for_by_each_and_those_that_are_known_serve(
    house: House, answer: dict[str, Any], status: int
) -> None:
    known = house.provider.keys
    await house.sign_in()
    house.clock.now += KEYS_SECONDS + 1
    house.provider.turn_keys()
    vars(house.provider).update(answer)
    asked = house.provider.asked.count("/jwks")
    for _ in range(3):
        with pytest.raises(SignInFailed) as failed:
            await house.sign_in()
        assert failed.value.status == status
    assert house.provider.asked.count("/jwks") == asked + 1
    house.provider.keys = known
    assert (await house.sign_in()).subject == "ann"


async def test_person_who_did_not_want_to_is_told_so(house: House) -> None:
    with pytest.raises(SignInFailed) as failed:
        await house.sign_in(error="access_denied", error_description="<b>evil</b>")
    assert failed.value.status == 403
    assert "evil" not in failed.value.detail


async def test_name_may_be_told_elsewhere_and_is_cleaned(house: House) -> None:
    house.provider.person = {"sub": "ann"}
    house.provider.userinfo = {"name": "Ann\u202e\n " + "x" * 200}
    person = await house.sign_in()
    assert person.name == ("Ann " + "x" * 200)[:80]
    house.provider.userinfo = {"sub": "bob", "name": "Bob"}
    with pytest.raises(SignInFailed):
        await house.sign_in()
    house.provider.says = {"userinfo_endpoint": None}
    assert (await house.sign_in(house.make())).name == ""


@pytest.mark.parametrize(
    ("claims", "comes_in"),
    [
        ({"email": "ann@example.com", "email_verified": True}, True),
        ({"email": "Ann@EXAMPLE.com", "email_verified": "true"}, True),
        ({"email": "bob@other.example", "email_verified": True}, True),
        ({"email": "ann@other.example", "email_verified": True}, False),
        ({"email": "ann@example.com.evil.example", "email_verified": True}, False),
        ({"email": "ann@example.com", "email_verified": False}, False),
        ({"email": "ann@example.com"}, False),
        ({}, False),
        ({"email": "", "email_verified": True}, False),
    ],
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the token", "elsewhere"])
async def test_only_proved_addresses_come_in_where_some_are_named(
    house: House, claims: dict[str, Any], comes_in: bool, elsewhere: bool
) -> None:
    if elsewhere:
        house.provider.userinfo = claims
    else:
        house.provider.person = house.provider.person | claims
    issuer = house.make(allowed=("example.com", "bob@other.example"))
    if comes_in:
        assert (await house.sign_in(issuer)).subject == "ann"
        return
    with pytest.raises(SignInFailed) as failed:
        await house.sign_in(issuer)
    assert failed.value.status == 403


@pytest.mark.parametrize("token", [{"email": "ann@example.com"}, {"email_verified": True}])
async def test_address_of_one_source_is_not_proved_by_another(house: House, token: dict[str, Any]) -> None:
    house.provider.person = house.provider.person | token
    issuer = house.make(allowed=("example.com",))
    house.provider.userinfo = {"email": "evil@other.example", "email_verified": True}
    with pytest.raises(SignInFailed):
        await house.sign_in(issuer)
    house.provider.userinfo = {"email": "ann@example.com"}
    with pytest.raises(SignInFailed):
        await house.sign_in(issuer)
    house.provider.userinfo = {"email": "ann@example.com", "email_verified": True}
    assert (await house.sign_in(issuer)).subject == "ann"


async def test_way_out_leads_back(house: House) -> None:
    address = await house.issuer.way_out("http://localhost/sign-in")
    assert address
    assert address.startswith(f"{house.provider.issuer}/end?")
    told = parse_qs(urlsplit(address).query)
    assert told == {"client_id": [CLIENT_ID], "post_logout_redirect_uri": ["http://localhost/sign-in"]}
    house.provider.says = {"end_session_endpoint": None}
    assert await house.make().way_out("http://localhost/sign-in") is None


async def test_end_of_a_visit_is_believed_only_where_it_is_one(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    leaver = await house.issuer.leaver(house.provider.logout_token(iat=NOW))
    assert (leaver.person.subject, leaver.person.visit, leaver.at) == ("ann", "visit-1", NOW)
    assert leaver.person.digest == (await house.sign_in()).digest
    lies: list[dict[str, Any]] = [
        {"events": {}},
        {"nonce": "n"},
        {"aud": "another"},
        {"sub": None},
        {"sub": 7},
        {"exp": NOW - 3600},
        {"jti": None},
        {"jti": ""},
        {"jti": 7},
    ]
    for lie in lies:
        with pytest.raises(SignInFailed) as failed:
            await house.issuer.leaver(house.provider.logout_token(**lie))
        assert failed.value.status == 400, lie
    assert caplog.messages == []  # anybody may send them
    house.provider.status = {"jwks": 500}
    with pytest.raises(SignInFailed) as failed:
        await house.make().leaver(house.provider.logout_token())
    assert failed.value.status == 503


async def test_provider_is_asked_nothing_for_what_is_no_token_and_once_for_many_that_are(
    house: House,
) -> None:
    issuer, asked = house.make(), house.provider.asked
    crooked = urlsafe_b64encode(b'{"alg": "RS256", "crit": 7}').decode().rstrip("=")
    deep = urlsafe_b64encode(b'{"alg": ' + b"[" * 9000).decode().rstrip("=")
    for forged in ("forged", f"{deep}.e30.AAAA", "." * 100):
        with pytest.raises(SignInFailed) as failed:
            await issuer.leaver(forged)
        assert (failed.value.status, asked) == (400, [])
    with pytest.raises(SignInFailed) as failed:
        await house.issuer.leaver(f"{crooked}.e30.AAAA")
    assert failed.value.status == 400
    asked.clear()
    house.provider.status = {PATHS["discovery"]: 500}
    for _ in range(5):
        with pytest.raises(SignInFailed) as failed:
            await issuer.leaver(house.provider.logout_token())
        assert failed.value.status == 503
    assert len(asked) == 1
    house.clock.now += AGAIN_SECONDS + 1
    with pytest.raises(SignInFailed):
        await issuer.leaver(house.provider.logout_token())
    assert len(asked) == 2


@pytest.mark.parametrize("path", ["discovery", "jwks"])
async def test_who_goes_away_while_the_provider_is_asked_ends_that_for_nobody(
    house: House, path: str
) -> None:
    issuer, provider = house.make(), house.provider
    provider.gate = Gate()
    provider.gated = f"/{PATHS.get(path, path)}"
    stranger = asyncio.create_task(issuer.leaver(provider.logout_token(sub="nobody")))
    async with within(30):
        await provider.gate.reached.wait()
    stranger.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stranger
    coming = asyncio.create_task(house.sign_in(issuer))
    provider.gate.open()
    assert (await coming).subject == "ann"
    assert provider.asked.count(provider.gated) == 1


async def test_provider_is_looked_at_for_whoever_configures_it(house: House) -> None:
    provider = house.provider
    assert (await house.issuer.look()).startswith(f"The OpenID provider {provider.issuer} answers")
    for change, told in (
        ({"says": {"issuer": "https://another.example"}}, "it calls itself otherwise than OIDC_ISSUER"),
        ({"body": {PATHS["discovery"]: b"<h1>Hello</h1>"}}, "it answers with 200, and no JSON object"),
        ({"status": {PATHS["discovery"]: 404}}, "it answers with 404"),
        ({"status": {"jwks": 500}}, r"cannot be reached \(http://127.0.0.1:\d+/jwks answers with 500\)"),
        ({"body": {"jwks": b'{"keys": []}'}}, "signs with no key that proves anything"),
        ({"says": {"id_token_signing_alg_values_supported": ["none"]}}, "signs with no key"),
        ({"says": {"id_token_signing_alg_values_supported": ["ES256"]}}, "signs with no key"),
    ):
        provider.reset()
        vars(provider).update(change)
        with pytest.raises(StartError, match=told):
            await house.make().look()
    provider.reset()
    await provider.close_door()
    try:
        with pytest.raises(StartError, match=r"cannot be reached \(ConnectError\). Check OIDC_ISSUER"):
            await house.make().look()
    finally:
        await provider.open_door()
