"""llmchat's own rooms over the Redis of a server: for turns that no model makes, and long chats made quickly."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

from bench.servers import SECRET_KEY

HISTORY_DAYS = 400
MODEL = "bench"


@dataclass(frozen=True, slots=True)
class Inside:
    """What is needed of the rooms. Their types are those of the llmchat that is measured."""

    redis: Any
    keys: Any
    history: Any
    leases: Any
    summaries: Any
    fold_leases: Any
    sessions: Any

    def cookie(self, session: str) -> str:
        """Give the Cookie header's value of a session."""
        given: SimpleCookie = SimpleCookie(self.sessions.cookie(session, secure=False))
        return "; ".join(f"{name}={each.value}" for name, each in given.items())

    async def prompt(self, session: str, conversation: str, number: int, text: str) -> None:
        """Store a prompt at the tip of a chat; its answer is `answer_of(number)`."""
        from llmchat.history import TIP

        await self.history.send(
            session=session,
            conversation=conversation,
            new=number == 0,
            title="Bench",
            message=f"p{number}",
            text=text,
            parent=TIP if number else "",
            answer=answer_of(number),
            model=MODEL,
        )

    async def begin(self, lease: Any, number: int) -> Any:
        """Begin the answer to a prompt; give it, for the deltas to come."""
        from llmchat.conversation import timestamp
        from llmchat.turn import Answer

        answer = Answer(
            conversation=lease.conversation,
            message=answer_of(number),
            prompt=f"p{number}",
            model=MODEL,
            created=timestamp(),
            attempt=1,
        )
        await self.history.begin(lease.conversation, lease.fence, 1, answer.record(), "", answer.started())
        return answer

    async def answer(self, lease: Any, number: int, text: str) -> None:
        """Begin and end the answer to a prompt: what the history does for it, and no Markdown."""
        from llmchat.conversation import digest, timestamp
        from llmchat.events import CompletionFinished, CompletionStarted

        chat, message, prompt = lease.conversation, answer_of(number), f"p{number}"
        created = timestamp()
        record = {"id": message, "role": "assistant", "parent": prompt, "created": created, "model": MODEL}
        started = CompletionStarted(
            conversation=chat,
            message=message,
            parent=prompt,
            created=created,
            model=MODEL,
            attempt=1,
            text="",
        )
        running = record | {"text": "", "state": "running"}
        await self.history.begin(chat, lease.fence, 1, running, "", started)
        ended = CompletionFinished(
            conversation=chat,
            message=message,
            finish_reason="stop",
            digest=digest(text),
            blocks=[],
            count=1,
            usage=None,
            seconds=1.0,
            reasoning_seconds=None,
        )
        done = record | {"text": text, "state": "done", "finish_reason": "stop", "seconds": 1.0}
        await self.history.finish(chat, lease.fence, 1, 0, done, None, ended)

    async def fold(self, conversation: str, message: str, messages: int) -> None:
        """Have a summary stand for a chat up to an answer, as an instance makes it of what no context has room for."""
        from llmchat.conversation import Summary, timestamp

        text = "What was said before. " * 8
        summary = Summary(message=message, text=text, messages=messages, created=timestamp())
        lease = await self.fold_leases.take(conversation)
        folded = await self.summaries.fold(
            conversation, lease.fence, None, summary, answers=[message], continued=0
        )
        await self.fold_leases.release(lease)
        if not folded:
            raise RuntimeError("A chat could not be folded.")

    async def grow(self, session: str, conversation: str, start: int, turns: int, text: str) -> None:
        """Put turns into a chat that has `start` of them."""
        lease = None
        for number in range(start, start + turns):
            await self.prompt(session, conversation, number, text)
            lease = lease or await self.leases.take(conversation)
            await self.answer(lease, number, text)
        if lease:
            await self.leases.release(lease)


def answer_of(number: int) -> str:
    """Name the answer to a prompt."""
    return f"a{number}"


@asynccontextmanager
async def inside(redis_url: str, root: Path) -> AsyncIterator[Inside]:
    """Make the rooms of the llmchat at `root` over a Redis."""
    sys.path.insert(0, str(root))
    from llmchat.conversations import Conversations
    from llmchat.history import History
    from llmchat.keys import Keys
    from llmchat.lease import Leases
    from llmchat.redis_client import connect
    from llmchat.session import Sessions
    from llmchat.summaries import Summaries

    keys, redis = Keys("llmchat"), connect(redis_url)
    conversations = Conversations(redis, keys, history_days=HISTORY_DAYS)
    history = History(redis, keys, conversations, history_days=HISTORY_DAYS)
    try:
        yield Inside(
            redis,
            keys,
            history,
            Leases(redis, keys),
            Summaries(redis, keys, history_days=HISTORY_DAYS),
            Leases(redis, keys, of="fold"),
            Sessions(SECRET_KEY),
        )
    finally:
        await redis.aclose()
