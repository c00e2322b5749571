"""What a public address has to bear: slow, many and malformed peers; and what nobody may read, in pages or logs."""

from __future__ import annotations

import asyncio
import io
import re
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from llmchat.app import create_app
from llmchat.settings import Settings
from llmchat.variables import ADDRESS_SHARE
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store, handshake
from tests.instances.test_peers import frame
from tests.waiting import eventually, within

MEMORY_KIB = 150 * 1024
"""What an attack of several hundred MB may leave behind: Python gives little back."""
HOST = "Host: 127.0.0.1"
FORM = "Content-Type: application/x-www-form-urlencoded"
LOCAL = {"Host": "localhost"}


@asynccontextmanager
async def bystander(connect: Connect, instance: Instance) -> AsyncIterator[Client]:
    """Have somebody chat meanwhile, who notices nothing: one connection, and answers on it."""
    client = await connect(instance)
    before = len(client.seen)
    yield client
    ended = await client.prompt("Did you notice?")
    assert ended["finish_reason"] == "stop"
    assert [event for event in client.seen[before:] if event["type"] in ("error", "session.ready")] == []


async def heard_to_the_end(port: int, said: bytes, dripping: bytes) -> bytes:
    """Say something, then bit by bit more, until the other side ends it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    listening = asyncio.create_task(reader.read(-1))
    try:
        async with within(60, lambda: f"{said!r} is ended"):
            while not listening.done():
                writer.write(dripping)
                await asyncio.wait([listening], timeout=0.2)
        return listening.result() if listening.exception() is None else b""
    finally:
        writer.transport.abort()


def memory_kib(instance: Instance) -> int:
    """Read how much memory a process has."""
    status = Path(f"/proc/{instance.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


# Slow


@pytest.mark.long
@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["POST /sign-in HTTP/1.1", HOST, FORM, "Content-Length: 60000", "", ""], b"408"),
        (["POST /sign-in HTTP/1.1", HOST, FORM, "Transfer-Encoding: chunked", "", "1", ""], b"4"),
        (["GET / HTTP/1.1", HOST, "Content-Length: 100000000", "", ""], b"200"),
        (["POST /nothing HTTP/1.1", HOST, "Content-Length: 100000000", "", ""], b"404"),
        (["GET / HTTP/1.1", HOST, "X-Slow: "], b""),
        (["G"], b""),
    ],
    ids=["form", "chunked form", "unread body", "body for nobody", "headers", "first line"],
)
async def test_slow_request_is_ended_and_nobody_else_notices(
    instances: tuple[Instance, Instance], connect: Connect, lines: list[str], status: bytes
) -> None:
    async with bystander(connect, instances[0]):
        heard = await heard_to_the_end(instances[0].port, "\r\n".join(lines).encode(), b"a")
        assert heard == b"" or (status and heard.startswith(b"HTTP/1.1 " + status))


# Many


async def test_flood_and_bomb_and_deaf_peers_leave_memory_bounded_and_a_bystander_alone(
    store: Store, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    instance = await start_instance(store)
    large, ping = frame("x" * 60_000), frame('{"type": "ping"}')
    model.answer("word " * 30_000)
    owner = await connect(instance)
    conversation = (await owner.prompt("Much"))["conversation"]
    cookie = "; ".join(f"{each.key}={each.value}" for each in owner.jar)
    opening = frame(f'{{"type": "conversation.open", "conversation": "{conversation}"}}')
    before = memory_kib(instance)

    async def attack(said: bytes, times: int) -> None:
        """Send until it is over or cut, and never read a word."""
        async with handshake(instance, cookie=cookie) as peer:
            try:
                for _ in range(times):
                    peer.writer.write(said)
                    await peer.writer.drain()
                await peer.reader.read(1)
            except ConnectionError:
                pass

    async with bystander(connect, instance), AsyncExitStack() as half_open:
        for _ in range(20):
            await half_open.enter_async_context(handshake(instance))
        async with within(90, "the attacks are over"), asyncio.TaskGroup() as tasks:
            for _ in range(5):
                tasks.create_task(attack(large, 1000))  # 60 MB each, no command among them
                tasks.create_task(attack(ping * 100, 1000))
                tasks.create_task(attack(frame("x" * 200_000), 300))
                tasks.create_task(attack(opening * 50, 1))
        assert memory_kib(instance) - before < MEMORY_KIB


@pytest.mark.long
async def test_many_who_ask_for_a_large_file_and_read_nothing_leave_memory_bounded(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(store)
    client = await connect(instance)
    headers = {"Idempotency-Key": "k", "Origin": instance.url}
    async with client._http.post(
        f"{instance.url}/attachments", data=io.BytesIO(b"x" * 5_000_000), headers=headers
    ) as it:
        path = it.headers["Location"]
    cookie = "; ".join(f"{each.key}={each.value}" for each in client.jar)
    asked = "\r\n".join([f"GET {path} HTTP/1.1", HOST, f"Cookie: {cookie}", "", ""]).encode()
    before = memory_kib(instance)
    writers = []
    async with bystander(connect, instance), within(30, "each is answered"):
        for _ in range(40):
            reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
            writers.append(writer)
            writer.write(asked)
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        assert memory_kib(instance) - before < MEMORY_KIB // 3
    for writer in writers:
        writer.transport.abort()


async def test_connections_over_the_limit_of_a_minute_are_refused_with_a_time(
    store: Store, start_instance: StartInstance
) -> None:
    instance = await start_instance(
        store, CONNECTIONS_PER_MINUTE="2", REDIS_PREFIX=f"limit-{secrets.token_hex(4)}"
    )
    async with AsyncExitStack() as leaving:
        let_in, began = 0, time.monotonic()
        for _ in range(20 * ADDRESS_SHARE):  # each without a cookie, and so a session of its own
            answer = await leaving.enter_async_context(handshake(instance))
            if answer.status != 101:
                break
            let_in += 1
        assert answer.status == 429
        earned = (time.monotonic() - began) * 2 * ADDRESS_SHARE / 60
        assert 2 * ADDRESS_SHARE <= let_in <= 2 * ADDRESS_SHARE + earned + 1
        assert int(answer.headers["retry-after"]) >= 1
        client = Client()
        client.instance = instance
        for _ in range(20):
            page = await client.page("/session")
            if page.status == 429:
                break
            await leaving.enter_async_context(handshake(instance))  # which takes what came back meanwhile
        assert (page.status, "Try again in" in page.text) == (429, True)
        await client.close()


async def test_pages_over_the_limit_of_a_minute_are_refused_with_a_time_and_the_rest_goes_on(
    store: Store, start_instance: StartInstance, connect: Connect
) -> None:
    instance = await start_instance(store, PAGES_PER_MINUTE="1", REDIS_PREFIX=f"limit-{secrets.token_hex(4)}")
    person = await connect(instance)  # a websocket is no page
    first = await person.page("/")
    refused = await person.page("/settings")
    assert (first.status, refused.status) == (200, 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert "Try again in" in refused.text
    assert "Set-Cookie" not in refused.headers
    told = await person.page("/session")
    assert (told.status, told.json()["detail"][:10]) == (429, "That was a")
    shown = 0
    for _ in range(20 * ADDRESS_SHARE):  # each without a cookie, and so a session of its own
        stranger = Client()
        stranger.instance = instance
        status = (await stranger.page("/nothing")).status
        await stranger.close()
        if status == 429:
            break
        assert status == 404
        shown += 1
    assert ADDRESS_SHARE - 1 <= shown < 20 * ADDRESS_SHARE
    assert (await person.prompt("Does it go on?"))["finish_reason"] == "stop"
    statics = re.findall(r'(/static/[^" >]+\.js)', first.text)
    for path in [*statics, "/healthz", "/readyz"]:
        assert (await person.page(path)).status == 200


async def test_pages_are_shown_while_nobody_can_count_them(
    fresh_store: Store, start_instance: StartInstance
) -> None:
    instance = await start_instance(fresh_store, PAGES_PER_MINUTE="1")
    await fresh_store.stop()
    client = Client()
    client.instance = instance
    for _ in range(10):
        assert (await client.page("/nothing")).status == 404
    await client.close()


async def test_session_may_have_so_many_connections_open_and_another_is_let_in(
    instances: tuple[Instance, Instance], connect: Connect
) -> None:
    client = await connect(instances[0])
    cookie = "; ".join(f"{each.key}={each.value}" for each in client.jar)
    async with AsyncExitStack() as leaving:
        statuses = []
        for _ in range(50):
            answer = await leaving.enter_async_context(handshake(instances[0], cookie=cookie))
            statuses.append(answer.status)
        assert statuses == [101] * 49 + [429]
        assert int(answer.headers["retry-after"]) >= 1
        async with handshake(instances[0]) as other, handshake(instances[1], cookie=cookie) as elsewhere:
            assert (other.status, elsewhere.status) == (101, 101)

    async def let_in() -> bool:
        async with handshake(instances[0], cookie=cookie) as answer:
            return answer.status == 101

    await eventually(let_in, seconds=40, what="the session is let in when its others are gone")


# Pages that give nothing away


async def test_error_of_ours_is_a_page_with_a_number_that_the_log_has(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(replace(settings, redis_url=store.url))
    client = app.test_client()
    async with app.test_app():
        await client.get("/", headers=LOCAL)  # for a session

        async def fail(*_: Any) -> None:
            raise RuntimeError("canary-of-a-bug")

        monkeypatch.setattr(app.extensions["llmchat"].chat, "listed", fail)
        page = await client.get("/", headers=LOCAL)
        text = await page.get_data(as_text=True)
    assert page.status_code == 500
    assert "canary" not in text
    assert "Traceback" not in text
    assert page.headers["X-Request-ID"] in text
    assert "canary-of-a-bug" in caplog.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("DELETE", "/", 405),
        ("DELETE", "/sign-in", 405),
        ("GET", "/sign-out", 405),
        ("GET", "/ws/chat/", 400),
        ("GET", "/nothing", 404),
        ("GET", "/c/%00", 404),
        ("GET", "/c/..%2f..%2fetc%2fpasswd", 404),
    ],
)
async def test_what_cannot_be_answered_is_a_page_of_ours(
    instances: tuple[Instance, Instance], method: str, path: str, status: int
) -> None:
    client = Client()
    client.instance = instances[0]
    page = await client.page(path, method=method)
    await client.close()
    assert page.status == status
    assert "llmchat" in page.text or "<main" in page.text
    for word in ("Traceback", "werkzeug", "quart", "hypercorn", "site-packages"):
        assert word.lower() not in page.text.lower()


# Logs that give nothing away


async def test_no_secret_and_no_word_of_anybody_gets_into_the_log(
    tmp_path: Path, start_instance: StartInstance, connect: Connect, model: Model
) -> None:
    canaries = {name: f"canary-{name}-{secrets.token_hex(8)}" for name in
                ("key", "redis", "password", "guess", "prompt", "answer", "title", "query", "refusal", "frame")}  # fmt: skip
    async with Store(tmp_path, requirepass=canaries["redis"]) as store:
        instance = await start_instance(
            store,
            REDIS_URL=store.url.replace("redis://", f"redis://:{canaries['redis']}@"),
            OPENAI_API_KEY=canaries["key"],
            ACCESS_PASSWORD=canaries["password"],
            OPENAI_LOG="debug",
        )
        client = Client()
        client.instance = instance
        for word in ("guess", "password"):
            await client.page("/sign-in", method="POST", data={"password": canaries[word]})
        await client.page(f"/?q={canaries['query']}")
        await client.page(f"/c/{canaries['query']}")
        await client.connect(instance)
        model.answer(canaries["answer"])
        ended = await client.prompt(canaries["prompt"])
        conversation = ended["conversation"]
        model.refuse(401, message=canaries["refusal"])
        await client.send("message.send", conversation=conversation, text=canaries["prompt"])
        await client.event("completion.failed")
        await client.command("conversation.update", conversation=conversation, title=canaries["title"])
        for bad in (canaries["frame"], f'{{"type": "{canaries["frame"]}"}}', canaries["frame"].encode()):
            await client.raw(bad)
        gate = Gate()
        model.answer(canaries["answer"], gate, "and on")
        sent = await client.command("message.send", conversation=conversation, text=canaries["prompt"])
        await client.event("completion.delta", message=sent["answer"])
        await store.kill()
        await client.send("message.send", text=canaries["prompt"])
        gate.open()
        await store.start()

        async def is_done() -> bool:
            return client.mirrors[conversation].messages[sent["answer"]].state == "done"

        await eventually(is_done, seconds=30, what="the answer ends")
        cookies = [cookie.value for cookie in client.jar]
        await client.close()
        assert await instance.stop() == 0
    assert len(cookies) == 3
    told = {
        **canaries,
        "cookie": cookies[0],
        "access": cookies[1],
        "reminder": cookies[2],
        "secret": instance.environment["SECRET_KEY"],
    }
    assert {name: word for name, word in told.items() if word in instance.text} == {}
    assert len(instance.log) >= 5
