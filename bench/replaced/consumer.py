"""One websocket of a chat; whoever has the chat open is in its group."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from openai import AsyncOpenAI
from redis.asyncio import Redis

from bench.replaced.history import History

MODEL = "bench"
CONTEXT_MESSAGES = 20
client = AsyncOpenAI()
history = History(Redis.from_url(settings.REDIS_URL))


class ChatConsumer(AsyncWebsocketConsumer):
    """Takes prompts, and shows what is sent to the group."""

    async def connect(self) -> None:
        self.chat = self.scope["url_route"]["kwargs"]["chat"]
        self.group = f"chat_{self.chat}"
        self.answering: set[asyncio.Task[None]] = set()
        await self.channel_layer.group_add(self.group, self.channel_name)
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self.channel_layer.group_discard(self.group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        answering = asyncio.create_task(self.answer(json.loads(text_data or "{}")["prompt"]))
        self.answering.add(answering)
        answering.add_done_callback(self.answering.discard)

    async def answer(self, prompt: str) -> None:
        """Ask the model, and send the group each piece of what it says. `index` lets a page notice a hole."""
        messages = await history.read(self.chat)
        messages.append({"role": "user", "content": prompt})
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=messages[-CONTEXT_MESSAGES:],  # type: ignore[arg-type]
            stream=True,
        )
        said: list[str] = []
        async for event in stream:
            text = event.choices[0].delta.content if event.choices else None
            if text:
                told = {"type": "chat.delta", "text": text, "index": len(said)}
                said.append(text)
                await self.channel_layer.group_send(self.group, told)
        messages.append({"role": "assistant", "content": "".join(said)})
        await history.write(self.chat, messages)
        await self.channel_layer.group_send(self.group, {"type": "chat.finished"})

    async def chat_delta(self, event: dict[str, Any]) -> None:
        """Show a piece."""
        await self.send(
            text_data=json.dumps({"type": "delta", "text": event["text"], "index": event["index"]})
        )

    async def chat_finished(self, event: dict[str, Any]) -> None:
        """Tell that the answer is whole."""
        await self.send(text_data=json.dumps({"type": "finished"}))
