"""What is refused, row by row: foreign ids, malformed frames, wrong hosts; and the seed's protocol."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from tests.conftest import Connect, ConnectSeed
from tests.fakes import Gate, Model, echo
from tests.instances import Client, Instance, handshake

Instances = tuple[Instance, Instance]
FRAME_BYTES = 64 * 1024
PROMPT_CHARACTERS = 16_000

FOREIGN: list[tuple[str, dict[str, Any]]] = [
    ("conversation.open", {}),
    ("conversation.open", {"after": {"epoch": "e", "offset": 0}}),
    ("conversation.older", {"before": "message"}),
    ("conversation.update", {"title": "Mine"}),
    ("conversation.delete", {}),
    ("conversation.restore", {}),
    ("conversation.read", {}),
    ("message.send", {"text": "Hi"}),
    ("message.send", {"text": "Hi", "parent": "message"}),
    ("message.select", {"message": "message"}),
    ("completion.stop", {}),
    ("completion.regenerate", {"message": "message"}),
]

# (the frame, the code of the error)
BAD_FRAMES: list[tuple[str | bytes, str]] = [
    ("", "bad_frame"),
    ("{", "bad_frame"),
    ("null", "bad_frame"),
    ("42", "bad_frame"),
    ('["ping"]', "bad_frame"),
    ("[" * 5_000, "bad_frame"),
    (b"", "bad_frame"),
    (b'{"type": "ping"}', "bad_frame"),
    ("{}", "unknown_type"),
    ('{"type": null}', "unknown_type"),
    ('{"type": ["ping"]}', "unknown_type"),
    ('{"type": "message.sent"}', "unknown_type"),
    ('{"type": "session.ready"}', "unknown_type"),
]

# (the command, its fields, the code of the error)
BAD_FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("ping", {"id": ""}, "bad_field"),
    ("ping", {"id": "x" * 65}, "bad_field"),
    ("ping", {"id": "a b"}, "bad_field"),
    ("ping", {"id": "a\n"}, "bad_field"),
    ("ping", {"id": 7}, "bad_field"),
    ("message.send", {}, "bad_field"),
    ("message.send", {"id": None, "text": "Hi"}, "bad_field"),
    ("message.send", {"text": 7}, "bad_field"),
    ("message.send", {"text": "Hi", "conversation": 7}, "bad_field"),
    ("message.send", {"text": "Hi", "conversation": "../c"}, "bad_field"),
    ("message.send", {"text": "Hi", "parent": 7}, "bad_field"),
    ("message.send", {"text": "x" * (PROMPT_CHARACTERS + 1)}, "too_long"),
    ("message.send", {"text": "Hi", "conversation": "nowhere"}, "not_found"),
    ("conversation.open", {}, "bad_field"),
    ("conversation.open", {"conversation": None}, "bad_field"),
    ("conversation.open", {"conversation": "c", "after": 7}, "bad_field"),
    ("conversation.open", {"conversation": "c", "after": {"epoch": "e"}}, "bad_field"),
    ("conversation.open", {"conversation": "c", "after": {"epoch": "e", "offset": -1}}, "bad_field"),
    ("conversation.open", {"conversation": "c", "after": {"epoch": "e", "offset": "1"}}, "bad_field"),
    ("conversation.open", {"conversation": "c", "after": {"epoch": "e", "offset": True}}, "bad_field"),
    ("conversation.open", {"conversation": "nowhere"}, "not_found"),
    ("conversation.close", {}, "bad_field"),
    ("conversation.older", {"conversation": "c"}, "bad_field"),
    ("conversation.older", {"conversation": "c", "before": "m", "limit": 0}, "bad_field"),
    ("conversation.older", {"conversation": "c", "before": "m", "limit": 51}, "bad_field"),
    ("conversation.list", {"limit": "5"}, "bad_field"),
    ("conversation.list", {"limit": 51}, "bad_field"),
    ("conversation.list", {"before": 7}, "bad_field"),
    ("conversation.list", {"before": "yesterday"}, "bad_field"),
    ("conversation.list", {"before": "2026-01-01T00:00:00"}, "bad_field"),
    ("conversation.list", {"query": 7}, "bad_field"),
    ("conversation.update", {"conversation": "c", "title": 7}, "bad_field"),
    ("conversation.update", {"conversation": "c", "pinned": "yes"}, "bad_field"),
    ("conversation.update", {"conversation": "c", "parameters": []}, "bad_field"),
    ("conversation.delete", {}, "bad_field"),
    ("message.select", {"conversation": "c"}, "bad_field"),
    ("completion.stop", {}, "bad_field"),
    ("completion.stop", {"conversation": "nowhere"}, "not_found"),
    ("completion.regenerate", {"conversation": "c"}, "bad_field"),
]


async def still_connected(client: Client) -> bool:
    pong = await client.command("ping")
    return bool(pong["type"] == "pong")


async def begin(client: Client) -> tuple[str, str, str]:
    """Return the ids of a conversation, of its prompt and of the finished answer."""
    accepted = await client.command("message.send", text="Hi")
    await client.ending(accepted["answer"])
    return accepted["conversation"], accepted["message"], accepted["answer"]


async def test_another_sessions_ids_are_not_found_by_any_command(
    instances: Instances, connect: Connect
) -> None:
    owner, stranger = await connect(instances[0]), await connect(instances[1])
    conversation, message, answer = await begin(owner)
    before = owner.hash(conversation)
    for kind, fields in FOREIGN:
        meant = {name: answer if value == "message" else value for name, value in fields.items()}
        code = await stranger.refused(kind, conversation=conversation, **meant)
        assert code == "not_found", (kind, fields)
        code = await stranger.refused(kind, conversation="nowhere", **meant)
        assert code == "not_found", (kind, fields)
    await stranger.send("conversation.close", conversation=conversation)
    assert await still_connected(stranger)
    await owner.reconnect(after=False)
    assert owner.hash(conversation) == before
    assert [one.id for one in owner.mirror(conversation).branch()] == [message, answer]
    assert "conversation.deleted" not in [event["type"] for event in owner.seen]


@pytest.mark.parametrize(("frame", "code"), BAD_FRAMES)
async def test_bad_frame_gets_its_error_and_the_connection_stays(
    instances: Instances, connect: Connect, frame: str | bytes, code: str
) -> None:
    client = await connect(instances[0])
    await client.raw(frame)
    assert (await client.event("error"))["code"] == code
    assert await still_connected(client)


async def test_bad_fields_get_their_errors_and_the_connection_stays(
    instances: Instances, connect: Connect
) -> None:
    client = await connect(instances[0])
    for kind, fields, code in BAD_FIELDS:
        sent = await client.send(kind, **fields)
        error = await client.event("error")
        assert error["code"] == code, (kind, fields, error)
        if kind != "ping":  # the rows of ping have malformed ids, which are not echoed
            assert error.get("id") == sent["id"], (kind, fields, error)
    assert await still_connected(client)
    assert (await client.command("conversation.list"))["conversations"] == []


async def test_lone_surrogate_is_refused(instances: Instances, connect: Connect) -> None:
    client = await connect(instances[0])
    await client.raw('{"type": "message.send", "id": "x", "text": "\\ud800"}')
    assert (await client.event("error"))["code"] in {"bad_frame", "bad_field"}
    assert await still_connected(client)


async def test_impossible_commands_on_real_messages_get_their_errors(
    instances: Instances, connect: Connect, model: Model
) -> None:
    client = await connect(instances[0])
    conversation, message, answer = await begin(client)
    rows: list[tuple[str, dict[str, Any], str]] = [
        ("completion.regenerate", {"message": message}, "bad_field"),
        ("completion.regenerate", {"message": "nowhere"}, "not_found"),
        ("message.select", {"message": "nowhere"}, "not_found"),
        ("conversation.older", {"before": "nowhere"}, "not_found"),
        ("message.send", {"text": "Hi", "parent": "nowhere"}, "not_found"),
        ("message.send", {"text": "Hi", "parent": message}, "bad_field"),
    ]
    for kind, fields, code in rows:
        assert await client.refused(kind, conversation=conversation, **fields) == code, (kind, fields)
    gate = Gate()
    model.answer("Wait", gate)
    await client.command("message.send", conversation=conversation, text="Slow")
    await gate.wait()
    await client.command("message.send", id="waits", conversation=conversation, text="Fast")
    for number in range(19):
        await client.command("message.send", id=f"w{number}", conversation=conversation, text="Fast, too")
    assert await client.refused("message.send", conversation=conversation, text="One more") == "busy"
    for kind in ("completion.regenerate", "completion.continue"):
        assert await client.refused(kind, conversation=conversation, message=answer) == "busy"
    running = client.mirror(conversation)
    begun = next(each for each in running.messages.values() if each.state == "running")
    rows = [
        ("message.withdraw", {"message": "nowhere"}, "not_found"),
        ("message.withdraw", {"message": answer}, "bad_field"),
        ("message.withdraw", {"message": message}, "bad_field"),
        ("message.withdraw", {"message": begun.parent}, "busy"),
    ]
    for kind, fields, code in rows:
        assert await client.refused(kind, conversation=conversation, **fields) == code, (kind, fields)
    other = await client.command("completion.stop", conversation=conversation, message=answer)
    assert other["type"] == "conversation.current"
    for one in [each.id for each in running.messages.values() if each.state == "queued"]:
        for answer_type in ("message.withdrawn", "conversation.current"):
            told = await client.command("message.withdraw", conversation=conversation, message=one)
            assert told["type"] == answer_type
    await client.command("completion.stop", conversation=conversation, message=begun.id)
    assert (
        await client.refused("completion.continue", conversation=conversation, message=answer) == "bad_field"
    )


async def test_frame_at_the_limit_is_read_and_one_over_it_closes(
    instances: Instances, connect: Connect
) -> None:
    client = await connect(instances[0])
    ping = json.dumps({"type": "ping", "id": "big", "ignored": ""})
    await client.raw(ping[:-2] + "x" * (FRAME_BYTES - len(ping)) + ping[-2:])
    await client.event("pong", id="big")
    await client.raw(ping[:-2] + "x" * (FRAME_BYTES - len(ping) + 1) + ping[-2:])
    assert await client.closed() == 1009


async def test_size_of_a_frame_is_counted_in_bytes(instances: Instances, connect: Connect) -> None:
    client = await connect(instances[0])
    await client.raw("€" * (FRAME_BYTES // 2))
    assert await client.closed() == 1009


# The handshake


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 101),
        ({"origin": "http://127.0.0.1:{port}"}, 101),
        ({"host": "evil.example"}, 400),
        ({"host": "evil.example", "origin": "http://evil.example"}, 400),
        ({"host": ""}, 400),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": "https://127.0.0.1:{port}.evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"subprotocol": "llmchat.v9"}, 400),
        ({"subprotocol": "llmchat.v9, llmchat.v1"}, 101),
    ],
)
async def test_handshake_is_answered_by_its_headers(
    instances: Instances, headers: dict[str, Any], status: int
) -> None:
    filled = {name: value.format(port=instances[0].port) for name, value in headers.items()}
    async with handshake(instances[0], **filled) as answer:
        assert answer.status == status
        assert "set-cookie" in answer.headers or status != 101
        assert "content-security-policy" in answer.headers or status == 101


@pytest.mark.parametrize(
    ("offered", "accepted"),
    [
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_no_context_takeover"),
        ("permessage-deflate; server_no_context_takeover, x-other", None),
    ],
)
async def test_handshake_agrees_on_the_subprotocol_and_on_compression(
    instances: Instances, offered: str, accepted: str | None
) -> None:
    async with handshake(instances[0], sec_websocket_extensions=offered) as answer:
        assert answer.status == 101
        assert answer.headers["sec-websocket-protocol"] == "llmchat.v1"
        assert answer.headers.get("sec-websocket-extensions") == accepted
        cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "max-age=" in cookie


@pytest.mark.parametrize("behind", [b"\x89\x80\x00\x00\x00\x00", b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 200])
async def test_bytes_glued_to_the_handshake_harm_nobody(instances: Instances, behind: bytes) -> None:
    async with handshake(instances[0], behind=behind):
        pass
    assert await instances[0].serves()


async def test_handshake_renews_the_same_session(instances: Instances, connect: Connect) -> None:
    client = await connect(instances[0])
    conversation, _, _ = await begin(client)
    await client.reconnect(instances[1], after=False)
    assert (await client.command("conversation.list"))["conversations"][0]["id"] == conversation


# The seed's protocol


async def test_seed_gets_one_whole_answer_for_a_prompt(
    instances: Instances, connect_seed: ConnectSeed
) -> None:
    seed = await connect_seed(instances[0])
    assert await seed.ask("Hi") == {"prompt": "Hi", "response": echo("Hi")}


async def test_seed_remembers_and_answers_in_order(
    instances: Instances, connect_seed: ConnectSeed, model: Model
) -> None:
    seed = await connect_seed(instances[0])
    gate = Gate()
    model.answer(gate, "one", to="1")
    model.answer("two", to="2")
    await seed.send({"prompt": "1"})
    await seed.send("no JSON")
    await seed.send({"type": "ping"})
    await seed.send({"prompt": 7})
    await seed.send({"prompt": "2"})
    await gate.wait()
    gate.open()
    assert await seed.answer() == {"prompt": "1", "response": "one"}
    assert await seed.answer() == {"prompt": "2", "response": "two"}
    said = [message["content"] for message in model.requests[-1].messages if message["role"] != "system"]
    assert said == ["1", "one", "2"]


async def test_seed_is_told_of_a_failure_in_words(
    instances: Instances, connect_seed: ConnectSeed, model: Model
) -> None:
    seed = await connect_seed(instances[0])
    model.refuse(401, message="Incorrect API key provided: sk-secret")
    answer = await seed.ask("Hi")
    assert (answer["prompt"], answer["response"]) == ("Hi", "")
    assert answer["error"]
    assert "sk-" not in answer["error"]
    too_long = await seed.ask("x" * (PROMPT_CHARACTERS + 1))
    assert too_long["response"] == ""
    assert too_long["error"]
    assert await seed.ask("Again") == {"prompt": "Again", "response": echo("Again")}


async def test_seeds_conversation_is_listed_in_its_session(
    instances: Instances, connect: Connect, connect_seed: ConnectSeed
) -> None:
    client = await connect(instances[0])
    seed = await connect_seed(instances[1], client)
    await seed.ask("One")
    await seed.ask("Two")
    (listed,) = (await client.command("conversation.list"))["conversations"]
    await client.command("conversation.open", conversation=listed["id"])
    assert len(client.mirror(listed["id"]).branch()) == 4


@pytest.mark.parametrize(
    "path", ["/nope", "/static/nope.css", "/static/" + "a" * 300, "/static/" + "a/" * 3000]
)
async def test_address_of_nothing_is_404_in_our_own_words(instances: Instances, path: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(instances[0].url + path) as response:
        assert response.status == 404
        assert "There is nothing here" in await response.text()
        assert "content-security-policy" in response.headers
