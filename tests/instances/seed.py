"""A client of the seed's protocol: no subprotocol, prompts in, whole answers out."""

from __future__ import annotations

import json
from typing import Any, Self

import aiohttp

from tests.instances.instance import Instance
from tests.waiting import within


class SeedClient:
    """One connection, one conversation. `jar` makes it another client of the same session, see `Client`."""

    def __init__(self, instance: Instance, jar: aiohttp.CookieJar | None = None) -> None:
        self._instance = instance
        self._http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True) if jar is None else jar)

    async def send(self, frame: dict[str, Any] | str) -> None:
        """Send a frame, of any form."""
        await self._socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))

    async def answer(self, *, seconds: float = 10) -> dict[str, Any]:
        """Wait for the next frame."""
        async with within(seconds, "the seed's protocol answers"):
            frame: dict[str, Any] = json.loads(await self._socket.receive_str())
        return frame

    async def ask(self, prompt: str) -> dict[str, Any]:
        """Send a prompt and wait for its answer."""
        await self.send({"prompt": prompt})
        return await self.answer()

    async def __aenter__(self) -> Self:
        address = f"ws://127.0.0.1:{self._instance.port}/ws/chat/"
        self._socket = await self._http.ws_connect(address, max_msg_size=0)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()
        await self._http.close()
