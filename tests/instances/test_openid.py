"""Signing in by an OpenID provider: one history in all browsers, and nobody else's."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from llmchat.keys import Keys
from llmchat.redis_client import connect as redis_client
from llmchat.variables import ADDRESS_SHARE
from tests.conftest import Connect, StartInstance, pair_of
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Page, Store, handshake
from tests.provider import CLIENT_SECRET, Provider
from tests.waiting import eventually

Pair = tuple[Instance, Instance]
Another = Callable[..., Client]


@pytest.fixture(scope="module")
async def running_provider() -> AsyncIterator[Provider]:
    async with Provider() as provider:
        yield provider


@pytest.fixture
def provider(running_provider: Provider) -> Provider:
    """With a person whom nobody knows yet."""
    running_provider.reset()
    running_provider.person["sub"] = secrets.token_hex(8)
    return running_provider


@pytest.fixture(scope="module")
async def running_pair(running_provider: Provider, store: Store, model_server: Model) -> AsyncIterator[Pair]:
    told = running_provider.environment(REDIS_PREFIX=f"openid-{secrets.token_hex(4)}")
    async with pair_of(store, model_server, **told) as pair:
        yield pair


@pytest.fixture
def pair(running_pair: Pair, provider: Provider, model: Model) -> Pair:
    """Two instances of one service that has the provider, and lets in anonymous sessions, too."""
    return running_pair


@pytest.fixture
async def another() -> AsyncIterator[Another]:
    """Open one more browser; with another's jar, one more tab of it."""
    async with AsyncExitStack() as leaving:

        def open_client(instance: Instance, like: Client | None = None) -> Client:
            client = Client(like.jar if like else None)
            leaving.push_async_callback(client.close)
            client.instance = instance
            return client

        yield open_client


@pytest.fixture
async def browser(another: Another, pair: Pair) -> Client:
    return another(pair[0])


async def go(client: Client, path: str = "/sign-in/openid") -> str:
    """Go to the provider; gives the path with which it leads back."""
    there = await client.page(path)
    assert there.status == 303
    async with client._http.get(there.headers["Location"], allow_redirects=False) as answer:
        back = urlsplit(answer.headers["Location"])
    return f"{back.path}?{back.query}"


async def sign_in(client: Client, instance: Instance, path: str = "/sign-in/openid") -> Page:
    """Sign in, and open the page that this leads to."""
    client.instance = instance
    back = await client.page(await go(client, path))
    assert back.status == 303
    return await client.page(back.headers["Location"])


async def all_chats(client: Client) -> list[dict[str, Any]]:
    """List all chats, page by page."""
    page = await client.command("conversation.list")
    found: list[dict[str, Any]] = page["conversations"]
    while page["more"]:
        page = await client.command("conversation.list", before=found[-1]["updated"])
        found += page["conversations"]
    return found


def cookies(client: Client) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in client.jar}


async def test_person_has_one_history_in_two_browsers_and_what_was_anonymous_is_in_it(
    pair: Pair, browser: Client, connect: Connect
) -> None:
    one, two = pair
    tab = await connect(one)
    await tab.prompt("Said on the first")
    page = await sign_in(tab, one)
    assert "Said on the first" in page.text
    assert "1 chat of this browser came along" in page.text
    assert "Ann Example" in page.text
    assert await tab.closed() == 1012  # to come back as the person
    assert set(cookies(tab)) == {"llmchat-person"}
    await tab.connect(two)
    listed = await tab.command("conversation.list")
    assert [each["title"] for each in listed["conversations"]] == ["Said on the first"]

    other = await connect(two, browser)
    await other.prompt("Said on the second")
    page = await sign_in(other, two)
    assert "Said on the first" in page.text
    assert "Said on the second" in page.text
    await tab.until(
        lambda: [
            event
            for event in tab.seen
            if event["type"] == "conversation.updated"
            and event["conversation"]["title"] == "Said on the second"
        ],
        what="the first browser is told of what came along on the second",
    )
    assert "came along" not in (await other.page("/")).text


async def test_prompts_go_on_while_the_history_moves_and_none_is_lost_or_said_twice(
    pair: Pair, connect: Connect, another: Another, model: Model
) -> None:
    one, two = pair
    tab = await connect(one)
    gate = Gate()
    model.answer("Slowly ", gate, "to its end", to="Tell me")
    running = await tab.command("message.send", text="Tell me", id="tell")
    await gate.reached.wait()
    writer = await connect(two, tab)
    other = another(one, tab)  # signs in from another tab

    moved = asyncio.Event()

    async def write() -> list[str]:
        """Begin one chat after the other until a while after the move, and come back where one has to."""
        written: list[str] = []
        while not written or written[-1] != "The last one":
            text = "The last one" if moved.is_set() else f"Prompt {len(written)}"
            try:
                await writer.command("message.send", text=text, id=f"sent-{len(written)}")
            except (AssertionError, aiohttp.ClientConnectionResetError):
                assert await writer.closed() == 1012
                await writer.connect(two)
                await writer.command("message.send", text=text, id=f"sent-{len(written)}")
            written.append(text)
        return written

    async def take_along() -> None:
        await sign_in(other, one)
        moved.set()

    written, _ = await asyncio.gather(write(), take_along())
    assert await tab.closed() == 1012
    await tab.connect(one)
    await tab.command("conversation.open", conversation=running["conversation"])
    gate.open()
    await tab.ending(running["answer"])
    assert tab.text(running["answer"]) == "Slowly to its end"
    titles = [each["title"] for each in await all_chats(tab)]
    assert sorted(titles) == sorted(["Tell me", *written])


async def test_move_goes_on_at_another_instance_when_its_own_is_killed(
    pair: Pair, store: Store, another: Another, start_instance: StartInstance
) -> None:
    _, two = pair
    one = await start_instance(
        store, **{name: two.environment[name] for name in two.environment if name != "PORT"}
    )
    tab = another(two)
    await tab.connect(two)
    written = [f"Prompt {number}" for number in range(60)]
    for text in written:
        await tab.command("message.send", text=text)
    session = cookies(tab)["llmchat"].split(".")[0]
    tab.instance = one
    assert (await tab.page(await go(tab))).status == 303
    keys = Keys(two.environment["REDIS_PREFIX"])
    async with redis_client(store.url) as redis:
        moving = asyncio.create_task(tab.page("/"))  # the first of the person's

        async def begun() -> bool:
            return bool(await redis.exists(keys.moved(session)))

        await eventually(begun, seconds=30, what="the move begins")
    await one.kill()
    await asyncio.wait([moving])
    moving.exception()  # it may have come through
    assert await tab.closed() == 1012
    await tab.connect(two)
    assert sorted(each["title"] for each in await all_chats(tab)) == sorted(written)


async def test_sign_out_ends_this_browser_and_everywhere_all_of_them(
    pair: Pair, browser: Client, connect: Connect
) -> None:
    one, two = pair
    here, there = await connect(one), await connect(two, browser)
    await here.prompt("Remember me")
    await sign_in(here, one)
    await sign_in(there, two)
    for client, instance in ((here, one), (there, two)):
        assert await client.closed() == 1012
        await client.connect(instance)
    copied = f"llmchat-person={cookies(here)['llmchat-person']}"

    left = await here.page("/sign-out", method="POST")
    assert left.headers["Location"] == "/sign-in?left=yes"
    assert await here.closed() == 4401
    assert (await there.command("ping"))["type"] == "pong"
    assert "Sign out of the tests, too" in (await here.page("/sign-in?left=yes")).text
    async with handshake(one, cookie=copied) as answer:
        assert "llmchat=" in answer.headers["set-cookie"]  # somebody new, for the copy is worth nothing
    page = await here.page("/")
    assert page.status == 200
    assert "Remember me" not in page.text

    await sign_in(here, one)
    await here.connect(one)
    await there.page("/sign-out", method="POST", data={"everywhere": "yes"})
    assert await there.closed() == 4401
    assert await here.closed() == 4401
    assert "Remember me" not in (await here.page("/")).text
    assert "Remember me" in (await sign_in(here, one)).text


async def test_history_of_a_browser_can_be_left_to_it(pair: Pair, connect: Connect) -> None:
    one, _ = pair
    tab = await connect(one)
    await tab.prompt("For this browser")
    assert "leave=yes" in (await tab.page("/sign-in")).text
    page = await sign_in(tab, one, "/sign-in/openid?leave=yes")
    assert "For this browser" not in page.text
    await tab.page("/sign-out", method="POST")
    assert "For this browser" in (await tab.page("/")).text


async def test_anonymous_cookie_is_nobodys_once_its_chats_have_moved(
    pair: Pair, connect: Connect, another: Another
) -> None:
    one, two = pair
    tab = await connect(one)
    await tab.prompt("Once anonymous")
    before = f"llmchat={cookies(tab)['llmchat']}"
    await sign_in(tab, one)
    stranger = another(two)
    page = await stranger.page("/", headers={"Cookie": before})
    assert page.status == 200
    assert "Once anonymous" not in page.text
    assert before.split(".")[0] not in page.headers["Set-Cookie"]
    session = re.search(r'value="([0-9a-f]{32})"', (await tab.page("/settings")).text)
    assert session
    assert session[1] not in before


async def test_way_back_is_good_once_and_only_in_the_browser_that_went(
    pair: Pair, browser: Client, another: Another
) -> None:
    one, _ = pair
    thief = another(one)
    back, second = await go(browser), await go(browser)  # two tabs
    assert (await thief.page(back)).status == 400
    assert (await browser.page(back)).headers["Location"] == "/"
    assert (await browser.page(back)).status == 303  # signed in as it is
    assert (await thief.page(back)).status == 400
    assert (await browser.page(second)).headers["Location"] == "/"
    assert set(cookies(browser)) == {"llmchat-person"}
    forged = dict(parse_qsl(urlsplit(await go(thief)).query)) | {"state": "forged"}
    page = await thief.page("/sign-in/callback", params=forged)
    assert page.status == 400
    assert "Begin again" in page.text


async def test_whoever_signs_in_is_led_to_where_they_were_and_nowhere_else(
    pair: Pair, browser: Client
) -> None:
    for asked, led in (("/settings", "/settings"), ("//evil.example", "/"), ("https://evil.example", "/")):
        there = await go(browser, f"/sign-in/openid?to={asked}")
        assert (await browser.page(there)).headers["Location"] == led


async def test_link_of_another_site_leads_to_the_page_that_asks_first(pair: Pair, browser: Client) -> None:
    page = await browser.page("/sign-in/openid?to=/settings", headers={"Sec-Fetch-Site": "cross-site"})
    assert (page.status, page.headers["Location"]) == (303, "/sign-in?to=/settings")
    assert "llmchat-sign-in" not in cookies(browser)


async def test_page_says_what_went_wrong_at_the_provider_and_offers_another_try(
    pair: Pair, browser: Client, provider: Provider
) -> None:
    back = await go(browser)
    await provider.close_door()
    try:
        page = await browser.page(back)
    finally:
        await provider.open_door()
    assert (page.status, "cannot be reached" in page.text) == (503, True)
    back = await go(browser)
    provider.claims = {"nonce": "another"}
    page = await browser.page(back)
    assert (page.status, "Sign in with the tests" in page.text) == (502, True)
    assert "llmchat-person" not in cookies(browser)
    provider.claims, provider.answer = {}, {"error": "access_denied", "code": ""}
    page = await browser.page(await go(browser))
    assert (page.status, "You were not signed in there" in page.text) == (403, True)


async def test_provider_signs_a_person_out(
    pair: Pair, browser: Client, connect: Connect, provider: Provider
) -> None:
    one, two = pair
    here = await connect(one)
    await sign_in(here, one)
    assert await here.closed() == 1012
    await here.connect(one)
    provider.person |= {"sid": "visit-2"}
    await sign_in(browser, two)
    await browser.connect(two)

    async def end(token: str) -> int:
        async with here._http.post(f"{two.url}/sign-in/backchannel", data={"logout_token": token}) as answer:
            return answer.status

    assert await end("forged") == 400
    assert await end(provider.logout_token(sid="visit-1")) == 200
    assert await here.closed() == 4401
    assert (await browser.command("ping"))["type"] == "pong"
    assert await end(provider.logout_token(sid=None)) == 200
    assert await browser.closed() == 4401
    assert await end(provider.logout_token(sub="nobody")) == 200


async def test_strangers_who_send_sign_outs_keep_neither_the_provider_out_nor_the_log_full(
    provider: Provider, store: Store, start_instance: StartInstance, another: Another
) -> None:
    told = provider.environment(PAGES_PER_MINUTE="2", REDIS_PREFIX=f"openid-{secrets.token_hex(4)}")
    instance = await start_instance(store, **told)
    browser = another(instance)

    async def end(token: str) -> tuple[int, bool]:
        address = f"{instance.url}/sign-in/backchannel"
        async with browser._http.post(address, data={"logout_token": token}) as answer:
            return answer.status, "Retry-After" in answer.headers

    tokens = ["forged", provider.logout_token(aud="another"), "forged" * 10_000] * 100
    told_of = []
    for token in tokens:  # some are earned again while they come
        told_of.append(await end(token))
        if told_of[-1] == (429, True):
            break
    assert len(told_of) > 2 * ADDRESS_SHARE
    assert set(told_of[:-1]) == {(400, False)}
    assert told_of[-1] == (429, True)
    assert await end(provider.logout_token()) == (200, False)
    assert [line for line in instance.log if "WARN" in line.upper()] == []


async def test_nobody_comes_in_anonymously_where_signing_in_is_required(
    provider: Provider, store: Store, start_instance: StartInstance, another: Another
) -> None:
    told = provider.environment(OIDC_ALLOWED="example.com", REDIS_PREFIX=f"openid-{secrets.token_hex(4)}")
    instance = await start_instance(store, **told)
    browser = another(instance)
    page = await browser.page("/")
    assert (page.status, page.headers["Location"]) == (303, "/sign-in?to=/")
    assert "Chat without signing in" not in (await browser.page("/sign-in")).text
    async with handshake(instance) as answer:
        assert answer.status == 401
    page = await browser.page(await go(browser))
    assert (page.status, "may not chat here" in page.text) == (403, True)
    provider.person |= {"email": "ann@example.com", "email_verified": True}
    assert (await sign_in(browser, instance)).status == 200
    await browser.connect(instance)
    assert CLIENT_SECRET not in instance.text


async def test_password_and_provider_each_let_in(
    provider: Provider, store: Store, start_instance: StartInstance, another: Another
) -> None:
    told = provider.environment(
        ACCESS_PASSWORD="correct horse battery", REDIS_PREFIX=f"openid-{secrets.token_hex(4)}"
    )
    instance = await start_instance(store, **told)
    browser = another(instance)
    page = await browser.page("/sign-in")
    assert "Or with the password" in page.text
    assert "Sign in with the tests" in page.text
    await browser.page("/sign-in", method="POST", data={"password": "correct horse battery"})
    assert (await browser.page("/")).status == 200
    assert "Sign in with the tests" in (await browser.page("/sign-in")).text
    await browser.connect(instance)
    await browser.prompt("By password")
    assert "By password" in (await sign_in(browser, instance)).text
    assert await browser.closed() == 1012
    stranger = another(instance)
    assert "By password" in (await sign_in(stranger, instance)).text


@pytest.mark.long
async def test_open_pages_stay_signed_in_while_the_keys_turn(
    provider: Provider, store: Store, start_instance: StartInstance, another: Another
) -> None:
    old, new = (f"{name}-{'0123456789' * 4}" for name in ("old", "new"))
    told = provider.environment(
        ACCESS_PASSWORD="correct horse battery", REDIS_PREFIX=f"openid-{secrets.token_hex(4)}"
    )
    instance = await start_instance(store, SECRET_KEY=old, **told)
    browser, anonymous = another(instance), another(instance)
    await sign_in(browser, instance)
    await anonymous.page("/sign-in", method="POST", data={"password": "correct horse battery"})
    for client in (browser, anonymous):
        await client.connect(instance)
        await client.prompt("Before")
    for change in ({"SECRET_KEY": new, "SECRET_KEY_FALLBACKS": old}, {"SECRET_KEY": new}):
        await instance.stop()
        instance.environment = {**instance.environment, "SECRET_KEY_FALLBACKS": "", **change}
        await instance.start()
        for client in (browser, anonymous):
            await client.reconnect()  # nothing but the websocket: its page stays open
            listed = await client.command("conversation.list")
            assert [each["title"] for each in listed["conversations"]] == ["Before"]
