"""Requests that a proxy may read otherwise than we do, on a raw socket: one request in is one answer out, or none."""

from __future__ import annotations

import asyncio
import re

import pytest

from llmchat.doors import HEADERS, policy
from tests.instances import Instance
from tests.waiting import within

Instances = tuple[Instance, Instance]

HOST = "Host: localhost"
HIDDEN = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""What a smuggler hides in what a proxy takes for a body."""
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ANSWER = re.compile(rb"HTTP/1\.1 (\d\d\d) ")


def request(*lines: str, first: str = "GET / HTTP/1.1", body: str = "") -> bytes:
    """Put a request together; its lines stand as they are given."""
    return "\r\n".join([first, *lines, "", body]).encode("latin-1")


def upgrade(*, without: str = "", first: str = "GET /ws/chat/ HTTP/1.1", **changed: str) -> bytes:
    """Ask for a websocket, with headers changed or left out."""
    headers = {
        "host": "localhost",
        "upgrade": "websocket",
        "connection": "Upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": KEY,
        **{name.replace("_", "-"): value for name, value in changed.items()},
    }
    return request(*(f"{name}: {value}" for name, value in headers.items() if name != without), first=first)


async def heard_to_the_end(instance: Instance, said: bytes) -> bytes:
    """Say something, and read until the other side ends the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", instance.port)
    try:
        writer.write(said)
        async with within(20, lambda: f"{said!r} is answered, and the connection ended"):
            return await reader.read(-1)
    finally:
        writer.transport.abort()


REFUSED = {
    "two lengths of a body": (
        400,
        request(HOST, "Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n" + HIDDEN),
    ),
    "length behind the coding": (
        400,
        request(HOST, "Transfer-Encoding: chunked", "Content-Length: 5", body="0\r\n\r\n" + HIDDEN),
    ),
    "coding of HTTP/1.0": (
        400,
        request(HOST, "Transfer-Encoding: chunked", first="POST / HTTP/1.0", body="0\r\n\r\n" + HIDDEN),
    ),
    "lengths that differ": (400, request(HOST, "Content-Length: 0", f"Content-Length: {len(HIDDEN)}", body=HIDDEN)),
    "lengths that differ in one line": (400, request(HOST, f"Content-Length: 0, {len(HIDDEN)}", body=HIDDEN)),
    "length with a sign": (400, request(HOST, "Content-Length: +5")),
    "length below zero": (400, request(HOST, "Content-Length: -5")),
    "length with an underscore": (400, request(HOST, "Content-Length: 1_0")),
    "length in hexadecimal": (400, request(HOST, "Content-Length: 0x5")),
    "length of nothing": (400, request(HOST, "Content-Length: ")),
    "coding nobody knows": (501, request(HOST, "Transfer-Encoding: xchunked", body="0\r\n\r\n" + HIDDEN)),
    "coding of identity": (501, request(HOST, "Transfer-Encoding: identity", body=HIDDEN)),
    "two codings": (501, request(HOST, "Transfer-Encoding: chunked, identity", body="0\r\n\r\n" + HIDDEN)),
    "coding twice": (501, request(HOST, *["Transfer-Encoding: chunked"] * 2, body="0\r\n\r\n" + HIDDEN)),
    "coding in quotation marks": (501, request(HOST, 'Transfer-Encoding: "chunked"')),
    "coding behind a tab that is none": (400, request(HOST, "Transfer-Encoding: \x0bchunked")),
    "line that goes on": (400, request(HOST, "X-One: a", " b")),
    "coding that goes on": (400, request(HOST, "Transfer-Encoding:", " chunked", body="0\r\n\r\n" + HIDDEN)),
    "bare LF": (400, request(HOST).replace(b"\r\n", b"\n")),
    "bare LF before the end": (400, request("Host: localhost\nX-One: a")),
    "bare LF in a value": (400, request(HOST, "X-One: a\nTransfer-Encoding: chunked")),
    "bare CR in a value": (400, request(HOST, "X-One: a\rTransfer-Encoding: chunked")),
    "space before the colon": (400, request(HOST, "Content-Length : 5")),
    "tab before the colon": (400, request(HOST, "Content-Length\t: 5")),
    "space in a name": (400, request(HOST, "Content Length: 5")),
    "no colon": (400, request(HOST, "Content-Length")),
    "no name": (400, request(HOST, ": 5")),
    "NUL in a value": (400, request(HOST, "X-One: a\x00b")),
    "control character in a value": (400, request(HOST, "X-One: a\x01b")),
    "delete in a value": (400, request(HOST, "X-One: a\x7fb")),
    "NUL in a name": (400, request(HOST, "X-\x00One: a")),
    "no Host": (400, request("X-One: a")),
    "two Hosts": (400, request(HOST, "Host: evil.example")),
    "address with a host": (400, request(HOST, first="GET http://localhost/ HTTP/1.1")),
    "address with another host": (400, request(HOST, first="GET http://evil.example/ HTTP/1.1")),
    "address of a host alone": (400, request(HOST, first="CONNECT localhost:443 HTTP/1.1")),
    "address of everything": (400, request(HOST, first="GET * HTTP/1.1")),
    "address without a slash": (400, request(HOST, first="GET healthz HTTP/1.1")),
    "two spaces": (400, request(HOST, first="GET  / HTTP/1.1")),
    "address with a space": (400, request(HOST, first="GET /a b HTTP/1.1")),
    "address with strange bytes": (400, request(HOST, first="GET /\xe4 HTTP/1.1")),
    "no version": (400, request(HOST, first="GET /")),
    "older version": (505, request(HOST, first="GET / HTTP/0.9")),
    "newer version": (505, request(HOST, first="GET / HTTP/2.0")),
    "method that is none": (400, request(HOST, first="G(ET / HTTP/1.1")),
    "long address": (431, request(HOST, first=f"GET /{'a' * 100_000} HTTP/1.1")),
    "long header": (431, request(HOST, f"X-One: {'a' * 100_000}")),
    "many headers": (431, request(HOST, *["X-One: a"] * 10_000)),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)),
    "body behind a handshake": (400, upgrade(content_length="5") + b"\x81\x80\x00\x00\x00"),
    "coded body behind a handshake": (400, upgrade(transfer_encoding="chunked") + b"0\r\n\r\n"),
    "handshake of HTTP/1.0": (400, upgrade(first="GET /ws/chat/ HTTP/1.0")),
    "handshake without a key": (400, upgrade(without="sec-websocket-key")),
    "handshake with a short key": (400, upgrade(sec_websocket_key="dGhlIHNhbXBsZQ==")),
    "handshake with a long key": (400, upgrade(sec_websocket_key="dGhlIHNhbXBsZSBub25jZQAA")),
    "handshake with a key that is none": (400, upgrade(sec_websocket_key="*" * 24)),
    "handshake with two keys": (400, upgrade(sec_websocket_key=f"{KEY}\r\nsec-websocket-key: {KEY}")),
    "handshake of an older version": (426, upgrade(sec_websocket_version="8")),
    "handshake of two versions": (426, upgrade(sec_websocket_version="13, 8")),
    "handshake without a version": (426, upgrade(without="sec-websocket-version")),
    "handshake of a foreign Host": (400, upgrade(host="evil.example")),
    "handshake of a foreign Origin": (403, upgrade(origin="https://evil.example")),
    "handshake for another protocol": (400, upgrade(sec_websocket_protocol="other")),
    "handshake for nothing": (404, upgrade(first="GET /nothing HTTP/1.1")),
    "handshake with words behind it": (400, upgrade() + b"\x89\x80\x00\x00\x00\x00"),
}  # fmt: skip


@pytest.mark.parametrize(("status", "said"), REFUSED.values(), ids=REFUSED)
async def test_doubtful_request_is_refused_once_and_the_connection_ended(
    instances: Instances, status: int, said: bytes
) -> None:
    behind = b"" if b"websocket" in said else HIDDEN.encode()
    heard = await heard_to_the_end(instances[0], said + behind)
    assert ANSWER.findall(heard) == [str(status).encode()], heard
    head = heard.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    for name, _ in (policy(), *HEADERS):
        assert head.count(b"\r\n" + name + b": ") == 1, heard
    assert b"\r\nconnection: close\r\n" in head
    if status == 426:
        assert b"\r\nsec-websocket-version: 13\r\n" in head


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: websocket"],
        ["Connection: Upgrade"],
        ["Connection: Upgrade", "Upgrade: h2c"],
        ["Connection: close", "Upgrade: websocket"],
        ["Connection: Upgrade", "Upgrade: websocket, foo"],
    ],
    ids=", ".join,
)
async def test_handshake_that_is_none_is_answered_as_a_request(
    instances: Instances, lines: list[str]
) -> None:
    keys = [f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13"]
    first = "GET /ws/chat/ HTTP/1.1"
    said = request(HOST, *keys, *lines, first=first)
    reader, writer = await asyncio.open_connection("127.0.0.1", instances[0].port)
    writer.write(said)
    async with within(20, "it is answered"):
        assert ANSWER.match(await reader.readline())[1] == b"400"  # type: ignore[index]
    writer.transport.abort()


@pytest.mark.parametrize(
    "body",
    [
        *(
            "0x5",
            "+5",
            "-5",
            "5 5",
            "5_0",
            "g",
            "",
            " 5",
            "5\nabcde",
            "5\rabcde",
            "5;a\nabcde",
            "0" * 20 + "5",
        ),
        *(
            "5\r\nabcdeXX",
            "5\r\nabcde\n\n",
            "0\r\nX-One : a\r\n",
            "0\r\nX-One: a\n",
            "0\r\nX-One: a\r\n b\r\n",
        ),
    ],
)
async def test_body_whose_pieces_are_doubtful_is_refused_and_nothing_behind_it_answered(
    instances: Instances, body: str
) -> None:
    form = "Content-Type: application/x-www-form-urlencoded"
    said = request(HOST, form, "Transfer-Encoding: chunked", first="POST /sign-in HTTP/1.1", body=body)
    heard = await heard_to_the_end(instances[0], said + b"\r\n0\r\n\r\n" + HIDDEN.encode())
    assert ANSWER.findall(heard) == [b"400"], heard


async def test_requests_one_behind_the_other_are_answered_one_by_one(instances: Instances) -> None:
    first = request(HOST, "Content-Length: 5", first="GET /healthz HTTP/1.1", body="abcde")
    second = request(
        HOST, "Transfer-Encoding: Chunked", first="GET /healthz HTTP/1.1", body="1;x=y\r\na\r\n0\r\n\r\n"
    )
    last = request(HOST, "Connection: close", first="GET /nothing HTTP/1.1")
    heard = await heard_to_the_end(instances[0], first + second + last)
    assert ANSWER.findall(heard) == [b"200", b"200", b"404"], heard


@pytest.mark.parametrize(
    ("first", "status"),
    [
        ("GET /", 200),
        ("HEAD /", 200),
        ("OPTIONS /", 200),
        ("GET /settings", 200),
        ("GET /session", 200),
        ("GET /healthz", 200),
        ("GET /nothing", 404),
        ("GET /c/nobodys", 404),
        ("GET /s/nothing", 404),
        ("GET /attachments/nothing", 404),
        ("GET /static/nothing", 404),
        ("TRACE /", 405),
        ("PROPFIND /", 405),
        ("PUT /settings", 405),
        ("DELETE /session", 405),
        ("POST /sign-out", 303),
        ("POST /attachments", 400),
        ("OPTIONS *", 404),
    ],
)
async def test_answer_has_the_headers_that_browsers_obey_whatever_was_asked(
    instances: Instances, first: str, status: int
) -> None:
    said = request(HOST, "Cookie: secret=words", "Connection: close", first=f"{first} HTTP/1.1")
    heard = await heard_to_the_end(instances[0], said)
    assert ANSWER.findall(heard) == [str(status).encode()], heard
    head = heard.partition(b"\r\n\r\n")[0].lower() + b"\r\n"
    for name, _ in (policy(), *HEADERS):
        assert head.count(b"\r\n" + name + b": ") == 1, heard
    for line in head.splitlines():
        assert not line.startswith((b"server:", b"x-powered-by:", b"strict-transport-security:"))
        if line.startswith(b"set-cookie:"):
            assert b"; httponly" in line
            assert b"; samesite=lax" in line
    assert re.search(rb"\r\ncache-control: (no-store|private, no-cache)\r\n", head), heard
    assert b"secret=words" not in heard, "a request is not told back"


async def test_form_that_is_too_large_is_refused_with_the_headers_that_browsers_obey(
    instances: Instances,
) -> None:
    form = ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 70000", "Connection: close"]
    said = request(HOST, *form, first="POST / HTTP/1.1", body="a" * 70_000)
    heard = await heard_to_the_end(instances[0], said)
    assert ANSWER.findall(heard) == [b"413"], heard
    for name, _ in (policy(), *HEADERS):
        assert heard.lower().count(b"\r\n" + name + b": ") == 1, heard
