"""Two instances behind nginx with TLS, which asks them in turn: what a person and a client get, and who they are."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest
from playwright.async_api import expect

from llmchat.settings import ADDRESS_SHARE
from tests.browser.conftest import OpenPage
from tests.browser.person import answers, messages, say
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.instances.instance import SECRET_KEY
from tests.system.nginx import Nginx
from tests.waiting import eventually, within

pytest_plugins = ["tests.browser.conftest"]

Service = tuple[Nginx, tuple[Instance, Instance]]
StartService = Callable[..., Awaitable[Service]]
Come = Callable[[Nginx], Client]


@pytest.fixture
async def start_service(
    store: Store, start_instance: StartInstance, tmp_path: Path
) -> AsyncIterator[StartService]:
    """Start two instances and nginx before them."""
    async with AsyncExitStack() as leaving:

        async def start(**environment: str) -> Service:
            shared = {
                "TRUSTED_PROXY_HOPS": "1",
                "REDIS_PREFIX": f"nginx-{secrets.token_hex(4)}",
                **environment,
            }
            both = (await start_instance(store, **shared), await start_instance(store, **shared))
            return await leaving.enter_async_context(Nginx(tmp_path, both)), both

        yield start


@pytest.fixture
async def come() -> AsyncIterator[Come]:
    """Make a browser's tab that has been nowhere yet."""
    async with AsyncExitStack() as leaving:

        def come(front: Nginx) -> Client:
            client = Client(tls=front.tls)
            client.instance = front
            leaving.push_async_callback(client.close)
            return client

        yield come


# What the proxy says is followed


async def test_page_cookies_and_websocket_are_secure_behind_tls_and_only_there(
    start_service: StartService, come: Come
) -> None:
    front, (one, _) = await start_service()
    page = await come(front).page("/")
    assert f'data-socket="wss://127.0.0.1:{front.port}/ws/chat/"' in page.text
    assert page.headers["Set-Cookie"].startswith("__Host-llmchat=")
    assert "; Secure" in page.headers["Set-Cookie"]
    assert page.headers["Strict-Transport-Security"].startswith("max-age=")
    direct = Client()
    direct.instance = one
    page = await direct.page("/")
    await direct.close()
    assert f'data-socket="ws://127.0.0.1:{one.port}/ws/chat/"' in page.text
    assert page.headers["Set-Cookie"].startswith("llmchat=")
    assert "Secure" not in page.headers["Set-Cookie"]
    assert "Strict-Transport-Security" not in page.headers


async def test_nothing_a_proxy_says_is_followed_when_none_is_trusted(
    start_service: StartService, come: Come
) -> None:
    front, _ = await start_service(TRUSTED_PROXY_HOPS="0")
    page = await come(front).page("/")
    assert f'data-socket="ws://127.0.0.1:{front.port}/ws/chat/"' in page.text
    assert page.headers["Set-Cookie"].startswith("llmchat=")


# One service


async def test_session_and_history_are_the_same_on_both(start_service: StartService, come: Come) -> None:
    front, both = await start_service()
    client = come(front)
    await client.connect(front)
    ended = await client.prompt("Remember me")
    seen = set()
    for _ in range(6):
        await client.reconnect()
        seen.add([event for event in client.seen if event["type"] == "session.ready"][-1]["instance"])
        assert "Remember me" in (await client.page(f"/c/{ended['conversation']}")).text
        assert (await client.page("/session")).status == 200
    assert len(seen) == len(both)


@pytest.mark.parametrize("killed", [True, False], ids=["SIGKILL", "SIGTERM"])
async def test_answer_ends_whole_when_the_instance_of_its_connection_goes(
    start_service: StartService, come: Come, model: Model, killed: bool
) -> None:
    front, both = await start_service()
    client = come(front)
    await client.connect(front)
    gate = Gate()
    model.answer("The first ", gate, "never comes")
    model.answer("The whole answer.")
    accepted = await client.command("message.send", text="Go")
    await client.until(lambda: client.text(accepted["answer"]) == "The first ")
    for instance in both:  # one after the other, as in a deploy; one of them makes the answer
        await (instance.kill() if killed else instance.stop())
        await instance.start()

    async def back() -> bool:
        try:
            await client.reconnect()
        except (aiohttp.ClientError, AssertionError):
            return False
        return True

    await eventually(back, seconds=20, what="the client is back")
    ended = await client.ending(accepted["answer"], seconds=20)
    assert ended["finish_reason"] == "stop"
    assert client.text(accepted["answer"]) == "The whole answer."


async def test_health_is_told_through_the_proxy(start_service: StartService, come: Come) -> None:
    front, _ = await start_service()
    for path in ("/healthz", "/readyz"):
        page = await come(front).page(path, headers={"Host": "healthcheck.railway.app"})
        assert page.status == 200


# Who asks


async def statuses(front: Nginx, times: int, *, source: str = "127.0.0.1", **headers: str) -> list[int]:
    """Open so many websockets, each as a new browser with headers of its own making."""
    connector = aiohttp.TCPConnector(ssl=front.tls, local_addr=(source, 0))
    told = []
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as http:
        for number in range(times):
            forged = {name.replace("_", "-"): value.format(number) for name, value in headers.items()}
            try:
                async with http.ws_connect(
                    f"{front.url}/ws/chat/", protocols=["llmchat.v1"], headers=forged
                ) as websocket:
                    assert (await websocket.receive_json())["type"] == "session.ready"
                    told.append(101)
            except aiohttp.WSServerHandshakeError as refused:
                told.append(refused.status)
    return told


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Real-IP"])
async def test_visitor_is_known_by_the_address_that_the_proxy_saw(
    start_service: StartService, header: str
) -> None:
    front, _ = await start_service(CONNECTIONS_PER_MINUTE="1", TRUSTED_IP_HEADER=header)
    forged = {"X_Forwarded_For": "10.0.0.{}", "X_Real_IP": "10.0.0.{}", "Forwarded": "for=10.0.0.{}"}
    assert await statuses(front, ADDRESS_SHARE + 2, **forged) == [101] * ADDRESS_SHARE + [429] * 2
    assert await statuses(front, 1, source="127.0.0.2", **forged) == [101]


async def test_all_visitors_are_one_address_when_no_proxy_is_trusted(start_service: StartService) -> None:
    front, both = await start_service(CONNECTIONS_PER_MINUTE="1", TRUSTED_PROXY_HOPS="0")
    assert await statuses(front, ADDRESS_SHARE) == [101] * ADDRESS_SHARE
    assert await statuses(front, 1, source="127.0.0.2", X_Forwarded_For="10.0.0.1") == [429]
    assert any("TRUSTED_PROXY_HOPS is 0" in instance.text for instance in both)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"Origin": "https://127.0.0.1:{port}"}, 101),
        ({"Origin": "http://127.0.0.1:{port}"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "evil.example"}, 400),
        ({"Host": "localhost", "Origin": "https://localhost"}, 101),
        ({"X_Forwarded_Proto": "http", "Origin": "https://127.0.0.1:{port}"}, 101),
        ({"X_Forwarded_Proto": "http", "Origin": "http://127.0.0.1:{port}"}, 403),
        ({"X_Forwarded_Host": "evil.example"}, 101),
        ({"Cookie": "__Host-llmchat=forged.by.hand"}, 101),
    ],
    ids=str,
)
async def test_handshake_is_answered_by_its_headers_as_without_a_proxy(
    front: Nginx, headers: dict[str, str], status: int
) -> None:
    filled = {name: value.replace("{port}", str(front.port)) for name, value in headers.items()}
    assert await statuses(front, 1, **filled) == [status]


@pytest.fixture(scope="module")
async def front(
    store: Store, model_server: Model, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Nginx]:
    """nginx before one instance, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("nginx")
    async with AsyncExitStack() as leaving:
        instance = Instance(store.url, model_server.url, TRUSTED_PROXY_HOPS="1")
        await leaving.enter_async_context(instance)
        yield await leaving.enter_async_context(Nginx(folder, [instance]))


async def test_forged_cookie_is_nobody(front: Nginx, come: Come) -> None:
    client = come(front)
    page = await client.page("/", headers={"Cookie": f"__Host-llmchat={SECRET_KEY}; llmchat=x"})
    assert page.status == 200
    assert re.match(r"__Host-llmchat=[0-9a-f]{32}\.", page.headers["Set-Cookie"])


# A person


async def test_person_chats_through_the_proxy(start_service: StartService, open_page: OpenPage) -> None:
    front, _ = await start_service()
    page = await open_page(front, ignore_https_errors=True)
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    for _ in range(3):
        async with within(30, "the page is there again"):
            await page.reload()
        await expect(messages(page)).to_have_count(2)
    await say(page, "And again")
    await expect(answers(page).last).to_contain_text("You said: And again")
