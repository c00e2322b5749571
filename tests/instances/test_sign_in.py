"""The password: whoever does not know it gets nothing but the page that asks for it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import aiohttp
import pytest

from llmchat.access import hash_of
from llmchat.limits import SIGN_INS_PER_MINUTE
from tests.conftest import Connect, ConnectSeed, StartInstance
from tests.instances import Client, Instance, Store, handshake
from tests.instances.test_requests import heard_to_the_end

pytestmark = pytest.mark.long

PASSWORD = "correct horse battery"


@pytest.fixture
async def asking(request: pytest.FixtureRequest, store: Store, start_instance: StartInstance) -> Instance:
    """An instance that asks for the password, which it was told as it is unless the test names a hash of it."""
    told = getattr(request, "param", PASSWORD)
    return await start_instance(store, ACCESS_PASSWORD=told, REDIS_PREFIX=f"sign-in-{secrets.token_hex(4)}")


@pytest.fixture
async def stranger(asking: Instance) -> AsyncIterator[Client]:
    """A browser that has been nowhere yet."""
    client = Client()
    client.instance = asking
    yield client
    await client.close()


async def sign_in(client: Client, password: str = PASSWORD, to: str = "/") -> int:
    """Send the form, and return the status."""
    page = await client.page("/sign-in", method="POST", data={"password": password, "to": to})
    if page.status == 303:
        assert page.headers["Location"] == to
    return page.status


async def test_stranger_gets_the_page_that_asks_and_nothing_else(stranger: Client, asking: Instance) -> None:
    for path in ("/", "/c/some"):
        page = await stranger.page(path)
        assert (page.status, page.headers["Location"]) == (303, f"/sign-in?to={path}")
        assert "Set-Cookie" not in page.headers
    page = await stranger.page("/sign-in?to=/c/some")
    assert page.status == 200
    assert 'value="/c/some"' in page.text
    assert (await stranger.page("/session")).status == 401
    for subprotocol in ("llmchat.v1", None):
        async with handshake(asking, subprotocol=subprotocol) as answer:
            assert answer.status == 401
            assert "set-cookie" not in answer.headers
    for path in ("/healthz", "/readyz"):
        assert (await stranger.page(path)).status == 200


@pytest.mark.parametrize("asking", [PASSWORD, hash_of(PASSWORD)], ids=["as it is", "a hash"], indirect=True)
async def test_whoever_knows_it_is_let_in_and_stays_so(stranger: Client, asking: Instance) -> None:
    assert await sign_in(stranger, "wrong horse battery") == 403
    assert (await stranger.page("/")).status == 303
    assert await sign_in(stranger, to="/c/some") == 303
    assert (await stranger.page("/")).status == 200
    assert (await stranger.page("/session")).status == 200
    assert (await stranger.page("/sign-in?to=/c/some")).headers["Location"] == "/c/some"
    await stranger.connect(asking)
    await stranger.prompt("Hello")


@pytest.mark.parametrize(
    "to", ["https://evil.example", "//evil.example", "/\\evil.example", "/sign-in", "/c/", "javascript:1"]
)
async def test_nobody_is_led_elsewhere(stranger: Client, to: str) -> None:
    page = await stranger.page("/sign-in", method="POST", data={"password": PASSWORD, "to": to})
    assert (page.status, page.headers["Location"]) == (303, "/")


async def test_sign_out_ends_every_tab_and_keeps_the_chats(
    stranger: Client, asking: Instance, connect: Connect, connect_seed: ConnectSeed
) -> None:
    assert await sign_in(stranger) == 303
    await stranger.connect(asking)
    await stranger.prompt("Remember me")
    tab = await connect(asking, stranger)
    copied = "; ".join(f"{cookie.key}={cookie.value}" for cookie in stranger.jar)
    page = await stranger.page("/sign-out", method="POST")
    assert (page.status, page.headers["Location"]) == (303, "/sign-in")
    assert await stranger.closed() == 4401
    assert await tab.closed() == 4401
    assert (await stranger.page("/session")).status == 401
    async with handshake(asking, cookie=copied) as answer:
        assert answer.status == 401
    assert await sign_in(stranger) == 303
    async with handshake(asking, cookie=copied) as answer:
        assert answer.status == 401
    assert "Remember me" in (await stranger.page("/")).text


async def test_another_session_cannot_use_the_cookie_nor_a_forged_one(
    stranger: Client, asking: Instance
) -> None:
    assert await sign_in(stranger) == 303
    cookies = {cookie.key: cookie.value for cookie in stranger.jar}
    other = Client()
    other.instance = asking
    await other.page("/sign-in")
    try:
        for sent in (
            f"llmchat-access={cookies['llmchat-access']}",
            f"llmchat={cookies['llmchat']}; llmchat-access={cookies['llmchat']}",
            f"llmchat={cookies['llmchat']}",
            f"llmchat={cookies['llmchat']}; llmchat-access={cookies['llmchat-access'][:-1]}",
        ):
            assert (await other.page("/", headers={"Cookie": sent})).status == 303
    finally:
        await other.close()


async def test_browser_without_cookies_is_told_so_when_the_password_led_to_nothing(
    stranger: Client, asking: Instance
) -> None:
    assert "kept no cookie" not in (await stranger.page("/sign-in?to=/")).text
    assert await sign_in(stranger) == 303
    stranger.jar.clear()  # as if it had kept none
    came_from = {"Referer": f"{asking.url}/sign-in?to=/"}
    page = await stranger.page("/", headers=came_from)
    assert page.status == 303
    page = await stranger.page(page.headers["Location"], headers=came_from)
    assert (page.status, "kept no cookie" in page.text) == (200, True)


async def test_form_of_another_site_is_refused(stranger: Client) -> None:
    for path in ("/sign-in", "/sign-out"):
        page = await stranger.page(
            path, method="POST", data={"password": PASSWORD}, headers={"Origin": "https://evil.example"}
        )
        assert page.status == 403
        assert "Set-Cookie" not in page.headers


async def test_guesses_are_limited_for_a_browser_and_for_a_script(stranger: Client) -> None:
    for _ in range(SIGN_INS_PER_MINUTE):
        assert await sign_in(stranger, "a wrong guess") == 403
    # Each guess came without a session, so they count for their address alone.
    async with aiohttp.ClientSession() as http:
        for _ in range(100):
            assert stranger.instance
            async with http.post(
                stranger.instance.url + "/sign-in", data={"password": "a wrong guess"}
            ) as page:
                status, text = page.status, await page.text()
            if status == 429:
                break
            assert status == 403
    assert status == 429
    assert int(page.headers["Retry-After"]) >= 1
    assert "Try again in" in text


async def test_browser_that_once_knew_the_password_signs_in_while_strangers_at_its_address_guess(
    stranger: Client, asking: Instance
) -> None:
    assert await sign_in(stranger) == 303
    assert (await stranger.page("/sign-out", method="POST")).status == 303
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        for _ in range(100):
            async with http.post(f"{asking.url}/sign-in", data={"password": "a wrong guess"}) as page:
                if page.status == 429:
                    break
    assert page.status == 429
    assert (await stranger.page("/")).status == 303, "the reminder lets nobody in"
    assert await sign_in(stranger) == 303
    statuses = [await sign_in(stranger, "a wrong guess") for _ in range(SIGN_INS_PER_MINUTE + 1)]
    assert statuses[-1] == 429, "its own guesses are counted"


async def test_cookies_that_come_in_several_lines_are_read_as_one(stranger: Client, asking: Instance) -> None:
    assert await sign_in(stranger) == 303
    cookies = [f"{each.key}={each.value}" for each in stranger.jar]
    lines = [f"Cookie: {each}" for each in [*cookies, "other=1"]]
    for order in (lines, lines[::-1]):
        head = ["GET / HTTP/1.1", "Host: localhost", *order, "Connection: close", "", ""]
        assert (await heard_to_the_end(asking, "\r\n".join(head).encode())).startswith(b"HTTP/1.1 200 ")


async def test_long_or_strange_guess_is_wrong_and_harmless(stranger: Client) -> None:
    for guess in ("x" * 1001, "\0", "€" * 300, ""):
        assert await sign_in(stranger, guess) == 403
    page = await stranger.page("/sign-in", method="POST", data={"password": "x" * 70_000})
    assert page.status == 413
    page = await stranger.page("/sign-in", method="POST", data=b"\xff\xfe", headers={"Content-Type": "a/b"})
    assert page.status == 403
