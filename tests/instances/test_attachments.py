"""Files over real instances: how they come, to whom they are shown, and what the model is sent of them."""

from __future__ import annotations

import asyncio
import base64
import io
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest

from llmchat.blueprints.attachments import AT_ONCE_OF_SESSION
from llmchat.keys import Keys
from llmchat.limits import ATTACHMENTS_PER_MINUTE
from llmchat.redis_client import connect as redis_client
from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.instances.talk import send
from tests.pictures import PNG
from tests.waiting import eventually, within

Instances = tuple[Instance, Instance]
URL = {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"}


async def post(
    client: Client,
    body: bytes,
    *,
    key: str = "",
    name: str = "cat.png",
    instance: Instance | None = None,
    **headers: str,
) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Send a file as the page does."""
    where = instance or client.instance
    assert where
    headers = {
        "Idempotency-Key": key or secrets.token_hex(8),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
        "Origin": where.url,
        **headers,
    }
    async with (
        within(20, "a file is taken"),
        client._http.post(f"{where.url}/attachments", data=io.BytesIO(body), headers=headers) as response,
    ):
        return response.status, await response.json(), dict(response.headers)


async def attach(client: Client, body: bytes = PNG, **options: Any) -> str:
    """Send a file, and give its id."""
    status, told, _ = await post(client, body, **options)
    assert status == 201, told
    return str(told["id"])


async def get(client: Client, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    assert client.instance
    async with client._http.get(client.instance.url + path, headers=headers) as response:
        return response.status, await response.read(), dict(response.headers)


async def ask(client: Client, text: str, **fields: Any) -> dict[str, Any]:
    """Send a prompt, and give what it is accepted with."""
    return await client.command("message.send", text=text, **fields)


def parts(model: Model, at: int = -1) -> Any:
    """What the model was sent as the newest prompt."""
    return model.requests[at].messages[-1]["content"]


async def test_file_is_taken_shown_to_its_session_alone_and_harmless(
    connect: Connect, instances: Instances
) -> None:
    alice, bob = await connect(instances[0]), await connect(instances[1])
    status, told, headers = await post(alice, PNG, name="a%20%E2%82%AC.png")
    assert (status, headers["Location"]) == (201, f"/attachments/{told['id']}")
    assert told == {"id": told["id"], "name": "a €.png", "type": "image/png", "size": len(PNG)}
    other = await connect(instances[1], alice)
    status, body, headers = await get(other, headers["Location"])
    assert (status, body, headers["Content-Type"]) == (200, PNG, "image/png")
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "private, no-cache"
    assert (await get(other, f"/attachments/{told['id']}", **{"If-None-Match": headers["Etag"]}))[0] == 304
    assert (await get(bob, f"/attachments/{told['id']}"))[0] == 404
    assert (await get(alice, "/attachments/unknown"))[0] == 404
    page = await attach(alice, b"<!doctype html><script>alert(1)</script>", name="page.html")
    _, _, headers = await get(alice, f"/attachments/{page}")
    assert headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"\x00\x01\x02", {}, 415, "PNG, JPEG, GIF, WebP"),
        (b"", {}, 415, "PNG"),
        (b"x" * 5_000_001, {}, 413, "at most 5 MB"),
        (PNG, {"Idempotency-Key": "no key"}, 400, "Idempotency-Key"),
    ],
    ids=["type", "empty", "size", "key"],
)
async def test_file_is_refused_in_words(
    connect: Connect, instances: Instances, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    client = await connect(instances[0])
    refused, told, _ = await post(client, body, **headers)
    assert refused == status
    assert words in told["detail"]


async def test_file_of_the_largest_size_is_taken_whole_and_of_another_page_not_at_all(
    connect: Connect, instances: Instances
) -> None:
    client = await connect(instances[0])
    large = PNG + secrets.token_bytes(5_000_000 - len(PNG))
    kept = await attach(client, large, key="once")
    assert await attach(client, large, key="once", instance=instances[1]) == kept
    assert (await get(client, f"/attachments/{kept}"))[1] == large
    assert client.instance
    headers = {"Origin": "http://evil.example", "Idempotency-Key": "k"}
    async with client._http.post(f"{client.instance.url}/attachments", data=PNG, headers=headers) as response:
        assert response.status == 403


async def test_program_without_a_session_gets_one_with_its_file(instances: Instances) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
        headers = {"Idempotency-Key": "k"}
        async with http.post(f"{instances[0].url}/attachments", data=b"Notes", headers=headers) as taken:
            told = await taken.json()
        async with http.get(f"{instances[0].url}/attachments/{told['id']}") as shown:
            assert await shown.text() == "Notes"


async def test_who_is_not_signed_in_sends_no_file(
    connect: Connect, start_instance: StartInstance, store: Store
) -> None:
    instance = await start_instance(store, ACCESS_PASSWORD="open sesame", ATTACHMENT_BYTES="0")
    async with aiohttp.ClientSession() as http:
        headers = {"Idempotency-Key": "k"}
        async with http.post(f"{instance.url}/attachments", data=PNG, headers=headers) as response:
            assert response.status == 401
            assert "signed in" in (await response.json())["detail"]


async def test_too_many_files_in_a_minute_are_told_when_to_come_again(
    connect: Connect, instances: Instances
) -> None:
    client = await connect(instances[0])
    taken, began = 0, time.monotonic()
    for _ in range(10 * ATTACHMENTS_PER_MINUTE):  # each second one more may come
        status, _, headers = await post(client, b"Notes", key="same")
        if status != 201:
            break
        taken += 1
    assert (status, int(headers["Retry-After"]) > 0) == (429, True)
    earned = (time.monotonic() - began) * ATTACHMENTS_PER_MINUTE / 60
    assert ATTACHMENTS_PER_MINUTE <= taken <= ATTACHMENTS_PER_MINUTE + earned + 1


async def test_picture_goes_to_the_model_with_every_answer_and_is_in_all_tabs(
    connect: Connect, instances: Instances, model: Model
) -> None:
    client, tab = await connect(instances[0]), None
    ready = client.seen[0]
    assert ready["models"][0]["images"] is True
    assert ready["limits"]["attachment"] == 5_000_000
    kept = [await attach(client), await attach(client, b"Buy milk.", name="notes.txt")]
    accepted = await ask(client, "What is it?", attachments=kept)
    await client.ending(accepted["answer"])
    picture = {"type": "image_url", "image_url": URL}
    asked = [{"type": "text", "text": "File notes.txt:\nBuy milk.\n\nWhat is it?"}, picture]
    assert parts(model) == asked
    tab = await connect(instances[1], client)
    snapshot = await tab.command("conversation.open", conversation=accepted["conversation"])
    assert snapshot["messages"][0]["attachments"] == [
        {"id": kept[0], "name": "cat.png", "type": "image/png", "size": len(PNG)},
        {"id": kept[1], "name": "notes.txt", "type": "text/plain", "size": 9},
    ]
    again = await client.command(
        "completion.regenerate", conversation=accepted["conversation"], message=accepted["answer"]
    )
    await client.ending(again["message"])
    assert parts(model) == asked
    answer = await send(client, accepted["conversation"], "And now?")
    await client.ending(answer)
    assert model.requests[-1].messages[1]["content"] == asked
    assert parts(model) == "And now?"


async def test_what_a_provider_counts_for_a_picture_takes_no_room_from_what_is_sent_later(
    connect: Connect, instances: Instances, model: Model
) -> None:
    client = await connect(instances[0])
    kept = [await attach(client), await attach(client)]
    model.answer("A house.", to="Look", usage={"prompt_tokens": 8_512, "completion_tokens": 3})
    accepted = await ask(client, "Look", attachments=kept[:1])
    await client.ending(accepted["answer"])
    for text, files in (("What colour is its roof?", []), ("And this one?", kept[1:])):
        model.answer("Red.", to=text, usage={"prompt_tokens": 8_530, "completion_tokens": 2})
        more = await ask(client, text, attachments=files, conversation=accepted["conversation"])
        await client.ending(more["answer"])
    sent = [isinstance(each["content"], list) for each in model.requests[-1].messages]
    assert sent == [False, True, False, False, False, True]


async def test_picture_that_the_provider_refuses_is_named_as_why_and_stops_no_later_prompt(
    connect: Connect, instances: Instances, model: Model
) -> None:
    client = await connect(instances[0])
    kept = [await attach(client), await attach(client)]
    model.refuse(400, to="Look")
    first = await ask(client, "Look", attachments=kept[:1])
    failed = await client.ending(first["answer"])
    assert (failed["code"], len(model.requests)) == ("provider_refused", 1)
    assert "picture" in failed["detail"]
    for text, files in (("And now?", []), ("And this one?", kept[1:])):
        model.refuse(422, to=text)
        later = await ask(client, text, attachments=files, conversation=first["conversation"])
        assert (await client.ending(later["answer"]))["finish_reason"] == "stop"
        assert model.requests[-2].messages[1]["content"] == [
            {"type": "text", "text": "Look"},
            {"type": "image_url", "image_url": URL},
        ]
        assert model.requests[-1].messages[1]["content"] == "[Picture: cat.png]\n\nLook"
    assert parts(model) == [
        {"type": "text", "text": "And this one?"},
        {"type": "image_url", "image_url": URL},
    ]
    assert len(model.requests) == 5


async def test_prompt_may_be_a_picture_alone_and_a_repeat_is_one(
    connect: Connect, instances: Instances, model: Model
) -> None:
    client = await connect(instances[0])
    kept = await attach(client)
    first = await client.command("message.send", id="one", text="", attachments=[kept])
    again = await client.command("message.send", id="one", text="", attachments=[kept])
    assert again["message"] == first["message"]
    await client.ending(first["answer"])
    assert parts(model) == [{"type": "image_url", "image_url": URL}]
    assert len(model.requests) == 1
    listed = await client.command("conversation.list")
    assert listed["conversations"][0]["title"] == "cat.png"


async def test_edit_keeps_the_files_that_it_names(
    connect: Connect, instances: Instances, model: Model
) -> None:
    client = await connect(instances[0])
    kept = await attach(client)
    first = await ask(client, "One", attachments=[kept])
    await client.ending(first["answer"])
    for named, expected in (([kept], True), ([], False)):
        edit = await ask(client, "Other", conversation=first["conversation"], parent=None, attachments=named)
        await client.ending(edit["answer"])
        assert isinstance(parts(model), list) is expected


async def test_file_that_is_not_ones_own_or_anothers_chat_is_refused(
    connect: Connect, instances: Instances
) -> None:
    alice, bob = await connect(instances[0]), await connect(instances[0])
    kept = await attach(alice)
    assert await bob.refused("message.send", id="a", text="Mine", attachments=[kept]) == "no_attachment"
    assert await alice.refused("message.send", id="b", text="", attachments=["f"] * 7) == "bad_field"
    accepted = await ask(alice, "One", attachments=[kept])
    await alice.ending(accepted["answer"])
    assert await alice.refused("message.send", id="c", text="Two", attachments=[kept]) == "no_attachment"


async def test_model_that_does_not_see_is_sent_no_picture_and_told_that_there_was_one(
    connect: Connect, start_instance: StartInstance, store: Store, model: Model
) -> None:
    instance = await start_instance(store, OPENAI_MODELS="gpt-4o-mini,small")
    client = await connect(instance)
    assert [each["images"] for each in client.seen[0]["models"]] == [True, False]
    kept = await attach(client)
    with pytest.raises(Exception, match="small cannot see pictures"):
        await ask(client, "Look", attachments=[kept], model="small")
    accepted = await ask(client, "Look", attachments=[kept])
    await client.ending(accepted["answer"])
    again = await client.command(
        "completion.regenerate",
        conversation=accepted["conversation"],
        message=accepted["answer"],
        model="small",
    )
    await client.ending(again["message"])
    assert parts(model) == "[Picture: cat.png]\n\nLook"


@pytest.mark.long
async def test_answer_that_another_instance_takes_over_has_the_picture_too(
    connect: Connect, start_instance: StartInstance, instances: Instances, store: Store, model: Model
) -> None:
    dying = await start_instance(store)
    client = await connect(dying)
    gate = Gate()
    model.answer("Half", gate, to="Look")
    kept = await attach(client)
    accepted = await ask(client, "Look", attachments=[kept])
    await gate.wait()
    await dying.kill()
    await client.reconnect(instances[0])
    await client.ending(accepted["answer"], seconds=40)
    assert (
        parts(model)
        == parts(model, 0)
        == [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": URL}]
    )


async def test_deleted_chat_takes_its_files_with_it_and_a_restored_one_brings_them_back(
    connect: Connect, instances: Instances
) -> None:
    client = await connect(instances[0])
    kept = await attach(client)
    accepted = await ask(client, "Look", attachments=[kept])
    await client.ending(accepted["answer"])
    await client.command("conversation.delete", conversation=accepted["conversation"])
    assert (await get(client, f"/attachments/{kept}"))[0] == 404
    await client.command("conversation.restore", conversation=accepted["conversation"])
    assert (await get(client, f"/attachments/{kept}"))[:2] == (200, PNG)


async def test_file_that_no_message_has_goes_when_it_is_removed(
    connect: Connect, instances: Instances
) -> None:
    client = await connect(instances[0])
    sent, spare = await attach(client), await attach(client)
    accepted = await ask(client, "Look", attachments=[sent])
    await client.ending(accepted["answer"])
    for each in (sent, spare):
        url = f"{instances[0].url}/attachments/{each}"
        async with client._http.delete(url, headers={"Origin": instances[0].url}) as response:
            assert response.status == 204

    async def gone() -> bool:
        return [(await get(client, f"/attachments/{each}"))[0] for each in (sent, spare)] == [200, 404]

    await eventually(gone, seconds=30, what="the file goes")


@pytest.mark.long
async def test_file_that_goes_while_it_is_read_is_not_taken_for_whole(
    connect: Connect, start_instance: StartInstance, fresh_store: Store
) -> None:
    client = await connect(await start_instance(fresh_store))
    kept = await attach(client, b"x" * 5_000_000)
    assert client.instance
    async with client._http.get(f"{client.instance.url}/attachments/{kept}") as response:
        async with redis_client(fresh_store.url) as redis:
            await redis.delete(Keys("llmchat").attachment_bytes(kept))
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    await attach(client)


@pytest.mark.long
async def test_file_is_taken_on_when_the_store_is_back(
    connect: Connect, start_instance: StartInstance, fresh_store: Store
) -> None:
    instance = await start_instance(fresh_store)
    client = await connect(instance)
    await fresh_store.stop()
    status, told, headers = await post(client, PNG, key="k")
    assert (status, headers["Retry-After"]) == (503, "1")
    assert "store" in told["detail"]
    await fresh_store.start()
    await attach(client, key="k")


@pytest.mark.long
async def test_files_are_counted_before_the_store_is_asked_whether_they_may_come(
    connect: Connect, start_instance: StartInstance, fresh_store: Store
) -> None:
    client = await connect(await start_instance(fresh_store))
    fresh_store.freeze()
    outcomes = await asyncio.gather(*(post(client, b"Notes") for _ in range(AT_ONCE_OF_SESSION + 1)))
    fresh_store.thaw()
    assert sorted(status for status, _, _ in outcomes) == [429, *[503] * AT_ONCE_OF_SESSION]


@pytest.mark.long
async def test_file_that_comes_too_slowly_is_given_up(instances: Instances) -> None:
    lines = ["POST /attachments HTTP/1.1", f"Host: 127.0.0.1:{instances[0].port}", "Idempotency-Key: k"]
    reader, writer = await asyncio.open_connection("127.0.0.1", instances[0].port)
    writer.write(
        "\r\n".join(
            [
                *lines,
                "Content-Length: 100",
                "",
                "",
            ]
        ).encode()
        + b"half"
    )
    reading = asyncio.create_task(reader.read())
    async with within(20, "it is given up"):
        while not (await asyncio.wait((reading,), timeout=2))[0]:
            writer.write(b".")
    answer = reading.result()
    writer.close()
    assert b" 408 " in answer.splitlines()[0]
    assert b"too slowly" in answer


async def test_session_that_sends_too_many_files_at_once_is_told_to_wait(
    connect: Connect, instances: Instances
) -> None:
    client = await connect(instances[0])
    cookie = "; ".join(f"{each.key}={each.value}" for each in client.jar)
    lines = ["POST /attachments HTTP/1.1", f"Host: 127.0.0.1:{instances[0].port}", f"Cookie: {cookie}"]
    head = "\r\n".join([*lines, "Idempotency-Key: k", "Content-Length: 100", "", ""])
    writers = []
    for _ in range(AT_ONCE_OF_SESSION):
        _, writer = await asyncio.open_connection("127.0.0.1", instances[0].port)
        writer.write(head.encode() + b"half")
        writers.append(writer)

    async def refused() -> bool:
        status, told, headers = await post(client, b"Notes")
        return (status, told.get("detail"), headers.get("Retry-After")) == (
            429,
            "Too many files come at once.",
            "1",
        )

    await eventually(refused, seconds=8, what="one more is refused")
    for writer in writers:
        writer.close()
    await eventually(taken_again(client), seconds=8, what="the next one is taken")


def taken_again(client: Client) -> Callable[[], Awaitable[bool]]:
    async def taken() -> bool:
        return (await post(client, b"Notes"))[0] == 201

    return taken
