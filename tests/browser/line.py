"""The way between a page and its instance, on which a test listens, and which it cuts, silences and bends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from playwright.async_api import Page, WebSocketRoute

from tests.waiting import Bell

TRY_AGAIN_LATER = 1013


class Line:
    """`line = await Line.lay(page)`; it is used from the next load of the page on.

    `silent`: frames vanish, both ways, and nothing tells; a connection made meanwhile is as silent.
    `closing`: a connection is made, and closed with this code at its first frame.
    `bend`: makes another frame, or with "" none, of what the server sends.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.sent: list[str] = []
        self.received: list[str] = []
        self.held: list[str] = []
        self.silent = False
        self.closing: int | None = None
        self.bend: Callable[[str], str] = str
        self._ending: set[WebSocketRoute] = set()
        self._last: WebSocketRoute | None = None
        self._bell = Bell()

    @classmethod
    async def lay(cls, page: Page) -> Self:
        """Lay it, and load the page anew over it."""
        line = cls()
        await page.route_web_socket("**/ws/chat/", line._connect)
        await page.reload()
        await line.connected(1)
        return line

    async def connected(self, times: int) -> None:
        """Wait until the page has tried to connect so many times in all."""
        await self._bell.until(
            lambda: self.connections >= times, seconds=30, what=f"the page connects {times} times"
        )

    async def asked(self, text: str, times: int = 1) -> str:
        """Wait until the page has sent so many frames with this text, and return the last of them."""

        def found() -> str | None:
            frames = [frame for frame in self.sent if text in frame]
            return frames[times - 1] if len(frames) >= times else None

        return await self._bell.until(found, seconds=30, what=f"{text!r} is sent {times} times")

    async def told(self, text: str, times: int) -> None:
        """Wait until the page was sent so many frames with this text."""
        await self._bell.until(
            lambda: sum(text in frame for frame in self.received) >= times,
            seconds=30,
            what=f"{text!r} comes {times} times",
        )

    def hold(self, kind: str) -> None:
        """Put what comes of a kind into `held`, until `bend` is another."""

        def keep(frame: str) -> str:
            if f'"{kind}"' not in frame:
                return frame
            self.held.append(frame)
            return ""

        self.bend = keep

    async def holds(self, times: int = 1) -> None:
        """Wait until so many frames are held."""
        await self._bell.until(lambda: len(self.held) >= times, seconds=30, what=f"{times} frames are held")

    def count(self, text: str) -> int:
        """Count the frames that the page has sent with this text."""
        return sum(text in frame for frame in self.sent)

    async def cut(self, code: int) -> None:
        """Close the connection there is with a code."""
        assert self._last
        await self._last.close(code=code)

    async def closed(self) -> None:
        """Wait until each connection that was to be closed at once is."""
        await self._bell.until(lambda: not self._ending, seconds=30, what="connections are closed")

    def tell(self, frame: str) -> None:
        """Have a frame come, also over a silent line."""
        assert self._last
        self._last.send(frame)

    def _connect(self, page: WebSocketRoute) -> None:
        self.connections += 1
        self._last = page
        self._bell.ring()
        if self.closing is not None:
            self._ending.add(page)
            page.on_message(lambda _: self._end(page))
            return
        server = page.connect_to_server()

        def up(frame: str | bytes) -> None:
            self.sent.append(str(frame))
            self._bell.ring()
            if not self.silent:
                server.send(str(frame))

        def down(frame: str | bytes) -> None:
            if not self.silent and (bent := self.bend(str(frame))):
                self.received.append(bent)
                page.send(bent)
            self._bell.ring()

        page.on_message(up)
        server.on_message(down)

    async def _end(self, page: WebSocketRoute) -> None:
        await page.close(code=self.closing)
        self._ending.discard(page)
        self._bell.ring()
