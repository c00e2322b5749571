"""Compression of websockets, against wsproto's own at the other end."""

from __future__ import annotations

import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage
from wsproto.extensions import PerMessageDeflate

from llmchat.deflate import TAIL, WINDOW_BITS, Deflate

MOST = 1000
OFFERS = {
    "permessage-deflate": "client_no_context_takeover",
    "permessage-deflate; client_max_window_bits": "client_no_context_takeover",
    "permessage-deflate; client_max_window_bits=10": "client_no_context_takeover",
    "permessage-deflate; client_no_context_takeover": "client_no_context_takeover",
    "permessage-deflate; server_max_window_bits=15": "client_no_context_takeover; server_max_window_bits=12",
    'permessage-deflate; server_max_window_bits="12"': "client_no_context_takeover; server_max_window_bits=12",
    "permessage-deflate; server_max_window_bits=11": None,
    "permessage-deflate; server_max_window_bits": None,
    "permessage-deflate; server_max_window_bits=99": None,
    "permessage-deflate; server_no_context_takeover": None,
    "permessage-deflate; client_max_window_bits=7": None,
    "permessage-deflate; something=else": None,
    "permessage-deflate; server_max_window_bits=15; server_max_window_bits=12": None,
}


def accepted(most: int = MOST) -> Deflate:
    deflate = Deflate(most)
    assert deflate.accept("permessage-deflate") is not None
    return deflate


def peers(most: int = MOST) -> tuple[Connection, Connection]:
    """Make a client with wsproto's extension, and a server with ours."""
    theirs = PerMessageDeflate(client_no_context_takeover=True)
    theirs.finalize("permessage-deflate; client_no_context_takeover")
    return Connection(ConnectionType.CLIENT, [theirs]), Connection(ConnectionType.SERVER, [accepted(most)])


def received(server: Connection, data: bytes) -> list[Any]:
    server.receive_data(data)
    return list(server.events())


def data_of(events: list[Any]) -> list[Any]:
    """Put the pieces of messages together."""
    messages, pieces = [], []
    for event in events:
        if isinstance(event, Message):
            pieces.append(event.data)
            if event.message_finished:
                messages.append(type(event.data)().join(pieces))
                pieces = []
    return messages


@pytest.mark.parametrize(("offer", "answer"), OFFERS.items())
def test_offers_are_answered_by_the_book(offer: str, answer: str | None) -> None:
    deflate = Deflate(MOST)
    assert deflate.accept(offer) == answer
    assert deflate.enabled() == (answer is not None)


def test_first_offer_that_suits_is_the_one() -> None:
    deflate = Deflate(MOST)
    offers = ("server_no_context_takeover", "client_max_window_bits", "server_max_window_bits=15")
    answers = [deflate.accept(f"permessage-deflate; {offer}") for offer in offers]
    assert answers == [None, "client_no_context_takeover", None]


@given(messages=st.lists(st.one_of(st.text(max_size=300), st.binary(max_size=300))), cut=st.integers(1, 50))
def test_what_a_client_compresses_comes_as_it_was(messages: list[str | bytes], cut: int) -> None:
    client, server = peers(most=4 * 300)
    sent = b"".join(
        client.send(TextMessage(each) if isinstance(each, str) else BytesMessage(each)) + client.send(Ping())
        for each in messages
    )
    events = [event for at in range(0, len(sent), cut) for event in received(server, sent[at : at + cut])]
    assert data_of(events) == messages


@given(parts=st.lists(st.text(max_size=50), min_size=1))
def test_message_in_several_frames_comes_as_it_was(parts: list[str]) -> None:
    client, server = peers(most=10_000)
    sent = b""
    for number, part in enumerate(parts):
        sent += client.send(TextMessage(part, message_finished=number == len(parts) - 1)) + client.send(
            Ping()
        )
    assert data_of(received(server, sent)) == ["".join(parts)]


@pytest.mark.parametrize("parts", [1, 7])
def test_message_is_inflated_up_to_the_limit(parts: int) -> None:
    most = 50_000
    client, server = peers(most)
    bomb = b"\0" * 10_000_000
    sent = b"".join(
        client.send(BytesMessage(bomb[number::parts], message_finished=number == parts - 1))
        for number in range(parts)
    )
    assert len(sent) < 20_000
    assert sum(len(each) for each in data_of(received(server, sent))) == most + 1
    assert data_of(received(server, client.send(TextMessage("after it")))) == ["after it"]


@pytest.mark.parametrize(
    "frame", [b"\xc1\x84\0\0\0\0\xff\xff\xff\xff", b"\xc9\x80\0\0\0\0", b"\x01\x80\0\0\0\0\xc0\x80\0\0\0\0"]
)
def test_what_is_compressed_wrongly_ends_the_connection(frame: bytes) -> None:
    _, server = peers()
    assert any(isinstance(event, CloseConnection) for event in received(server, frame))


@given(messages=st.lists(st.tuples(st.binary(max_size=9000), st.booleans())))
def test_what_is_compressed_here_is_inflated_there_with_one_window(
    messages: list[tuple[bytes, bool]],
) -> None:
    deflate, inflater = accepted(), zlib.decompressobj(-WINDOW_BITS)
    for message, rests in messages:
        if rests:
            deflate.rest()
        assert inflater.decompress(deflate.deflated(message) + TAIL) == message


def test_window_reaches_over_messages_and_is_let_go_of_when_nothing_is_sent() -> None:
    deflate, message = accepted(), bytes(range(256)) * 4
    first, second = len(deflate.deflated(message)), len(deflate.deflated(message))
    assert second < first / 4
    deflate.rest()
    assert len(deflate.deflated(message)) == second  # in use since
    deflate.rest()
    deflate.rest()
    assert len(deflate.deflated(message)) == first


@pytest.mark.parametrize("endless", [b"\x03\x00" + b"x" * 100, b"\x00\x00\x00\xff\xff" * 20])
def test_message_that_goes_on_without_becoming_anything_ends_the_connection(endless: bytes) -> None:
    _, server = peers()
    head = b"\xc1\xff" + (1 << 40).to_bytes(8, "big") + b"\0\0\0\0"
    events = received(server, head)
    for _ in range(100):
        events += received(server, endless)
        if any(isinstance(event, CloseConnection) for event in events):
            break
    assert any(isinstance(event, CloseConnection) for event in events)
    assert not data_of(events)
