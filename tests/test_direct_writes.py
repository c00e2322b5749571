"""What is written to a websocket past the server's layers, and what is not."""

from __future__ import annotations

from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

from llmchat.peers import AT_ONCE_BYTES, FEW
from tests.test_cost import Wire, written_to


def read(wire: Wire) -> list[str]:
    """Read what was written, as a client without compression does."""
    client, found = Connection(ConnectionType.CLIENT), []
    while not wire.frames.empty():
        client.receive_data(wire.frames.get_nowait())
        found += [event.data for event in client.events() if isinstance(event, TextMessage)]
    return found


async def test_frames_of_all_sizes_are_read_as_they_were() -> None:
    wire = Wire()
    write = written_to(wire)
    frames = ["é" * size for size in (0, 1, 62, 63, 64, 5000, AT_ONCE_BYTES // 2)]
    for frame in frames:
        assert write(frame, FEW + 1)
        assert write(frame.encode(), FEW + 1)
    assert read(wire) == [frame for frame in frames for _ in range(2)]


async def test_long_frame_goes_the_way_with_a_deadline() -> None:
    wire = Wire()
    assert not written_to(wire)("x" * (AT_ONCE_BYTES + 1), 1)
    assert wire.frames.empty()


async def test_nothing_is_written_before_what_waits() -> None:
    wire = Wire()
    write = written_to(wire)
    wire.get_write_buffer_size = lambda: 1  # type: ignore[method-assign]
    assert not write("x", 1)
    wire.is_closing = lambda: True  # type: ignore[method-assign]
    assert not write("x", 1)
    assert wire.frames.empty()
