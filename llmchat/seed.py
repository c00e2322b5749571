"""One websocket of the seed's protocol: {"prompt"} in, {"prompt", "response"} out when the answer is whole."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from contextlib import suppress
from typing import Any

from llmchat import events
from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.chat import Chat
from llmchat.connection import (
    BUG,
    FLOOD,
    GONE,
    Closing,
    Meter,
    Socket,
    Welcome,
    check_welcome,
    close,
    code_of,
    frames,
    send,
)
from llmchat.errors import CommandError, NotFound, Unavailable
from llmchat.keys import group_of_conversation, group_of_session
from llmchat.limits import Allowance

PROMPTS_WAITING = 100
REPEAT_SECONDS = 0.25
ENDINGS = (b'{"type":"completion.finished"', b'{"type":"completion.failed"')
LOOK_SECONDS = 5.0
"""An answer's end that was not told is looked for so often."""

log = logging.getLogger(__name__)


class SeedConnection:
    """One connection is one conversation with memory; prompts are answered one after the other."""

    def __init__(
        self,
        socket: Socket,
        allowance: Allowance,
        chat: Chat,
        broadcaster: Broadcaster,
        *,
        welcome: Welcome | None = None,
    ) -> None:
        self._socket = socket
        self._session = allowance.session
        self._allowance = allowance
        self._meter = Meter(allowance)
        self._welcome = welcome  # where sign-outs are to be heard of
        self._chat = chat
        self._broadcaster = broadcaster
        self._conversation: str | None = None
        self._prompts: asyncio.Queue[str] = asyncio.Queue(PROMPTS_WAITING)
        self._closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self.ended = GONE
        """The close code, once it was served."""

    def close(self, code: int, reason: str) -> None:
        """End the connection from outside."""
        if not self._closing.done():
            self._closing.set_result(Closing(code, reason))

    async def serve(self) -> None:
        """Serve until either side ends it."""
        closing: BaseException = Closing(BUG, "An error of ours.")
        parts = (
            self._read,
            self._answer_all,
            self._until_signed_out,
            self._until_closing,
            self._count,
        )
        try:
            async with asyncio.TaskGroup() as tasks:  # each part ends only by raising
                for part in parts:
                    tasks.create_task(part())
        except* Closing as ended:
            closing = ended.exceptions[0]
        except* Exception:
            log.exception("A connection failed.")
        finally:
            await self._meter.settle()
        self.ended = code_of(closing)
        await close(self._socket, closing)

    async def _count(self) -> None:
        due = asyncio.Event()
        self._meter.begin = due.set
        while True:
            await due.wait()
            due.clear()
            await self._meter.take()

    async def _until_closing(self) -> None:
        raise await self._closing

    async def _until_signed_out(self) -> None:
        while self._welcome is not None:
            try:
                async with self._broadcaster.channel("seed.") as channel:
                    await self._broadcaster.group_add(group_of_session(self._session), channel)
                    while True:
                        await check_welcome(self._welcome)  # what was sent before, or lost, was not heard
                        await self._hear_of_sign_out(channel)
            except Unavailable:
                await self._broadcaster.ready.wait()
                await asyncio.sleep(REPEAT_SECONDS)

    async def _hear_of_sign_out(self, channel: str) -> None:
        """Return when there was one, or may have been."""
        with suppress(ChannelLapsed):
            while (await self._broadcaster.receive(channel)).get("type") != "signed_out":
                pass

    async def _read(self) -> None:
        async for frame in frames(self._socket, self._meter):
            prompt = _prompt(frame) if frame is not None else None
            if prompt is None:
                continue
            try:
                self._prompts.put_nowait(prompt)
            except asyncio.QueueFull:
                raise Closing(FLOOD, "Too many prompts at once.") from None

    async def _answer_all(self) -> None:
        while True:
            prompt = await self._prompts.get()
            try:
                outcome = await self._answer(prompt)
            except CommandError as error:
                if isinstance(error, NotFound):
                    self._conversation = None  # deleted elsewhere: the next prompt begins a new one
                outcome = {"response": "", "error": error.detail}
            frame = json.dumps({"prompt": prompt} | outcome, ensure_ascii=False)
            await send(self._socket, frame)

    async def _answer(self, prompt: str) -> dict[str, str]:
        command = events.MessageSend(
            type="message.send", id=secrets.token_hex(16), text=prompt, conversation=self._conversation
        )
        conversation = await self._chat.conversation_of(self._session, command)
        async with self._broadcaster.channel("seed.") as channel:
            await self._broadcaster.group_add(group_of_conversation(conversation), channel)
            accepted = await self._chat.send(self._session, command, self._allowance)
            self._conversation = conversation
            await self._chat.tell_list(self._session, conversation)
            while True:
                message = await self._ended(conversation, accepted.event.answer)
                if message is not None:
                    break
                await self._news(channel)
        failure = message.get("error")
        if failure is not None:
            return {"response": "", "error": failure["detail"]}
        return {"response": message["text"]}

    async def _ended(self, conversation: str, answer: str) -> dict[str, Any] | None:
        """Read the answer, if it has begun and ended."""
        try:
            known, message = await self._chat.answer(self._session, conversation, answer)
        except Unavailable:
            return None
        running = known.turn is not None and known.turn.answer == answer
        return None if running else message

    async def _news(self, channel: str) -> None:
        """Wait until the answer may have ended."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                while True:
                    message = await self._broadcaster.receive(channel)
                    match message.get("frame"):  # others than we may publish in our Redis
                        case bytes(frame) if frame.startswith(ENDINGS):
                            return
        except (ChannelLapsed, TimeoutError):
            return


def _prompt(frame: str) -> str | None:
    try:
        given = json.loads(frame)
        prompt = given["prompt"]
        prompt.encode()
    except (ValueError, RecursionError, TypeError, KeyError, AttributeError):
        return None
    return prompt if isinstance(prompt, str) else None
