"""Shared chats as HTML, drawn once for all who look and kept for a while. Knows neither who looks nor what may be seen.

A copy never changes, so what was drawn of it stays right.
"""

from __future__ import annotations

import asyncio
import sys
from collections import OrderedDict
from collections.abc import Sequence
from time import thread_time
from typing import Any

from llmchat.markdown import render

AT_ONCE = 2
SECONDS = 1.0
"""Of a processor, that drawing a chat takes at most, and the last answer: those behind it are shown as they were written."""
LONGEST = 50_000
"""Characters of an answer that is drawn: some Markdown takes the square of them."""
KEPT_BYTES = 16 * 1024 * 1024
KEPT_SECONDS = 600.0

Messages = Sequence[dict[str, Any]]


class Drawings:
    """One for each instance."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Messages] = OrderedDict()
        self._bytes = 0
        self._drawing: dict[str, asyncio.Task[Messages]] = {}
        self._places = asyncio.Semaphore(AT_ONCE)

    async def of(self, token: str, messages: Messages) -> Messages:
        """Give the messages of a copy, answers with their `html`: what is without is to be shown as it was written."""
        if token in self._kept:
            self._kept.move_to_end(token)
            return self._kept[token]
        if token not in self._drawing:
            self._drawing[token] = asyncio.create_task(self._draw(token, messages))
        # Who goes away does not end it: then the next would begin another one beside it.
        return await asyncio.shield(self._drawing[token])

    def drop(self, token: str) -> None:
        """Let go of what may not be seen any more."""
        self._bytes -= sum(map(_size, self._kept.pop(token, ())))

    def _expire(self, token: str, drawn: Messages) -> None:
        if self._kept.get(token) is drawn:  # and not what was drawn anew since
            self.drop(token)

    async def _draw(self, token: str, messages: Messages) -> Messages:
        try:
            async with self._places:
                drawn = await asyncio.to_thread(draw, messages)
        finally:
            del self._drawing[token]
        self._keep(token, drawn)
        return drawn

    def _keep(self, token: str, drawn: Messages) -> None:
        self._kept[token] = drawn
        self._bytes += sum(map(_size, drawn))
        while self._bytes > KEPT_BYTES:
            self.drop(next(iter(self._kept)))
        asyncio.get_running_loop().call_later(KEPT_SECONDS, self._expire, token, drawn)


def draw(messages: Messages) -> Messages:
    """Draw answers for as long as that may take. Not on the event loop: it is a lot of text."""
    until = thread_time() + SECONDS
    return [_drawn(each, until) for each in messages]


def _drawn(message: dict[str, Any], until: float) -> dict[str, Any]:
    if message["role"] != "assistant" or len(message["text"]) > LONGEST or thread_time() > until:
        return message
    return message | {"text": "", "html": "".join(render(message["text"]))}


def _size(message: dict[str, Any]) -> int:
    return sys.getsizeof(message["text"]) + sys.getsizeof(message.get("html", ""))
