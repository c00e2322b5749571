"""Makes answers: lease, completion, log, takeover. The answers belong to the app, never to the socket that asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar

from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.completion import Completions
from llmchat.conversation import Branch, Context, Turn, calibrated, context, timestamp
from llmchat.errors import Fenced, NotFound, ProviderError, Unavailable
from llmchat.events import CompletionDelta
from llmchat.history import History
from llmchat.keys import TURNS
from llmchat.lease import RENEW_SECONDS, Lease, Leases
from llmchat.listing import Listing
from llmchat.settings import Settings
from llmchat.turn import Answer

COALESCE_SECONDS = 0.04
WATCH_SECONDS = 0.25
GRACE_SECONDS = 1.0
"""A turn so young is left to the instance that accepted its prompt."""
STALE_SECONDS = 5.0
"""An entry in the index of work without a turn, so old, is taken off."""
MAX_ATTEMPTS = 3
REPEAT_SECONDS = 0.25
"""Between tries to write while Redis is away."""
RELEASE_SECONDS = 0.5
CONTEXT_MESSAGES = 1000
BYTES_PER_TOKEN = 8
"""An upper bound: what is read for the context, never less than what fits."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Running:
    """A turn that this instance makes."""

    def __init__(self) -> None:
        self.stopped = False
        self.again = False  # a turn was accepted while this one ended
        self.reading: asyncio.Task[None] | None = None  # while the model is asked

    def stop(self) -> None:
        """Ask the model for no more. Wanted by a wake-up, an append or a renewal, whichever sees it first."""
        self.stopped = True
        if self.reading is not None:
            self.reading.cancel()


class Turns:
    """All turns of this instance, for as long as its context is entered."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        leases: Leases,
        broadcaster: Broadcaster,
        completions: Completions,
        listing: Listing,
    ) -> None:
        self._settings = settings
        self._history = history
        self._leases = leases
        self._broadcaster = broadcaster
        self._completions = completions
        self._listing = listing
        self._running: dict[str, _Running] = {}  # conversation -> its turn, while it is made here
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def __aenter__(self) -> Self:
        self._spawn(self._watch(), "watch")
        self._spawn(self._listen(), "stops")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """End all turns here and give their leases back: another instance goes on, or this one's next start."""
        self._stopping = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def begin(self, conversation: str) -> None:
        """Make the open turn of a conversation, unless somebody does already."""
        if conversation in self._running:
            self._running[conversation].again = True
        elif not self._stopping:
            self._running[conversation] = _Running()
            self._spawn(self._take(conversation), f"turn {conversation}")

    async def wake_for_stop(self, conversation: str) -> None:
        """Tell whichever instance makes the turn that its stop is wanted."""
        with suppress(Unavailable):  # the flag is stored: appends and renewals see it
            await self._broadcaster.group_send(TURNS, {"type": "turn.stop", "conversation": conversation})

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _listen(self) -> None:
        while not self._stopping:
            try:
                async with self._broadcaster.channel("turns.") as channel:
                    await self._broadcaster.group_add(TURNS, channel)
                    while True:
                        with suppress(ChannelLapsed):
                            message = await self._broadcaster.receive(channel)
                            running = self._running.get(message["conversation"])
                            if running is not None:
                                running.stop()
            except Unavailable:
                await asyncio.sleep(REPEAT_SECONDS)

    async def _watch(self) -> None:
        """Take over what nobody makes: the turns of instances that died."""
        while True:
            try:
                await self._look_for_work()
            except Unavailable:
                log.debug("Redis is away; looking for work again in a moment.")
            except Exception:
                log.exception("Looking for work failed.")
            await asyncio.sleep(WATCH_SECONDS)

    async def _look_for_work(self) -> None:
        entries = [
            entry
            for entry in await self._history.work()
            if entry.age_seconds > GRACE_SECONDS and entry.conversation not in self._running
        ]
        if not entries:
            return
        names = [entry.conversation for entry in entries]
        turns = await self._history.with_turn(names)
        held = await self._leases.held(names)
        for entry, has_turn, is_held in zip(entries, turns, held, strict=True):
            if has_turn and not is_held:
                self.begin(entry.conversation)
            elif not has_turn and entry.age_seconds > STALE_SECONDS:
                await self._history.forget_work(entry)

    async def _take(self, conversation: str) -> None:
        running = self._running[conversation]
        lease: Lease | None = None
        try:
            lease = await self._leases.take(conversation)
            found = await self._history.turn(conversation) if lease else None
            if lease is not None and found is not None:
                await self._hold(lease, running, *found)
        except* Fenced:
            log.warning("Another instance took over the turn of a conversation.")
        except* Unavailable:
            log.warning("Redis is away; the turn will be taken up when it is back.")
        except* Exception:
            log.exception("A turn failed.")
        finally:
            if lease is not None:
                with suppress(Unavailable, TimeoutError):
                    async with asyncio.timeout(RELEASE_SECONDS):
                        await self._leases.release(lease)
            del self._running[conversation]
            if running.again:
                self.begin(conversation)

    async def _hold(self, lease: Lease, running: _Running, session: str, turn: Turn) -> None:
        """Make the turn for as long as the lease is ours."""
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(self._renew(lease, running))
            await self._make(lease, running, session, turn)
            renewing.cancel()

    async def _renew(self, lease: Lease, running: _Running) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with suppress(Unavailable):  # a lease that ran out is still ours until another takes it
                if not await self._leases.renew(lease):
                    raise Fenced
                if await self._history.stop_wanted(lease.conversation):
                    running.stop()

    async def _make(self, lease: Lease, running: _Running, session: str, turn: Turn) -> None:
        """Make one attempt at the answer."""
        conversation = lease.conversation
        began = time.monotonic()
        branch = await self._branch(session, conversation, turn.prompt)
        if branch is None:
            return  # deleted: gone in a moment, or restored and found again
        if turn.attempt >= MAX_ATTEMPTS or (turn.attempt and turn.stop):
            await self._settle(lease, session, turn)
            return
        answer = Answer(
            conversation=conversation,
            message=turn.answer,
            prompt=turn.prompt,
            model=turn.model,
            created=timestamp(),
            attempt=turn.attempt + 1,
        )
        if await self._persist(
            lambda: self._history.begin(
                conversation, lease.fence, turn.attempt + 1, answer.record(), "", answer.started()
            )
        ):
            running.stop()
        await self._listing.updated(session, conversation)
        error: ProviderError | None = None
        sent = self._context(branch)
        if not running.stopped:
            try:
                await self._stream(lease, running, turn, answer, branch, sent.messages)
            except ProviderError as failure:
                error = failure
        ended = answer.end(
            seconds=time.monotonic() - began,
            error=error,
            stopped=running.stopped and not answer.complete,
        )
        counted = (answer.usage or {}).get("prompt_tokens", 0)
        calibration = calibrated(branch.conversation.calibration, sent.estimate, counted)
        await self._persist(
            lambda: self._history.finish(conversation, lease.fence, answer.record(ended), calibration, ended)
        )
        await self._listing.updated(session, conversation, used=True)

    async def _stream(
        self,
        lease: Lease,
        running: _Running,
        turn: Turn,
        answer: Answer,
        branch: Branch,
        messages: list[dict[str, str]],
    ) -> None:
        """Place what the model says, until it ends, fails (ProviderError) or is stopped."""
        parameters = dict(branch.conversation.parameters)
        if self._settings.temperature is not None:
            parameters.setdefault("temperature", self._settings.temperature)
        news = asyncio.Event()
        reading = asyncio.create_task(self._read(turn.model, messages, parameters, answer, news))
        reading.add_done_callback(lambda _: news.set())
        running.reading = reading
        count = 0
        try:
            while True:
                if not reading.done():
                    await news.wait()
                    news.clear()
                delta = answer.delta()
                if delta is not None:
                    count += 1
                    if await self._persist(self._place(lease, turn.answer, count, delta)):
                        running.stop()
                elif reading.done():
                    break
                await asyncio.wait((reading,), timeout=COALESCE_SECONDS)
            if not reading.cancelled():
                reading.result()
        finally:
            running.reading = None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(
        self,
        model: str,
        messages: list[dict[str, str]],
        parameters: dict[str, Any],
        answer: Answer,
        news: asyncio.Event,
    ) -> None:
        """Take what the model says. Raises ProviderError."""
        async with self._completions.stream(model, messages, parameters) as deltas:
            async for delta in deltas:
                answer.take(delta)
                news.set()
                if answer.complete and not (delta.finish_reason or delta.usage):
                    return  # longer than an answer may be

    def _place(
        self, lease: Lease, answer: str, count: int, delta: CompletionDelta
    ) -> Callable[[], Awaitable[bool]]:
        return lambda: self._history.append(
            lease.conversation, lease.fence, answer, count, delta.text, delta.reasoning or "", delta
        )

    async def _settle(self, lease: Lease, session: str, turn: Turn) -> None:
        """End a turn that cannot be made any more, with the text there is."""
        branch = await self._branch(session, lease.conversation, turn.answer)
        if branch is None:
            return  # deleted meanwhile
        told = branch.messages[-1]
        answer = Answer(
            conversation=lease.conversation,
            message=turn.answer,
            prompt=turn.prompt,
            model=turn.model,
            created=told["created"],
            attempt=turn.attempt,
            kept=told["text"],
            reasoning=told.get("reasoning", ""),
        )
        error = ProviderError(
            "provider_unavailable", "The answer was begun several times in vain.", retryable=True
        )
        ended = answer.end(seconds=0.0, error=error, stopped=turn.stop)
        await self._persist(
            lambda: self._history.finish(lease.conversation, lease.fence, answer.record(ended), None, ended)
        )
        await self._listing.updated(session, lease.conversation, used=True)

    async def _branch(self, session: str, conversation: str, message: str) -> Branch | None:
        """Read what leads to a message; None where the conversation was deleted."""
        with suppress(NotFound):
            return await self._history.read(
                session,
                conversation,
                start=message,
                limit=CONTEXT_MESSAGES,
                max_bytes=self._settings.context_tokens * BYTES_PER_TOKEN,
            )
        return None

    def _context(self, branch: Branch) -> Context:
        system = branch.conversation.system
        return context(
            self._settings.system_prompt if system is None else system,
            branch.messages,
            self._settings.context_tokens,
            branch.conversation.calibration,
        )

    async def _persist(self, write: Callable[[], Awaitable[T]]) -> T:
        """Write, again and again while Redis is away: the model's words are kept meanwhile. Raises Fenced."""
        while True:
            try:
                return await write()
            except Unavailable:
                await asyncio.sleep(REPEAT_SECONDS)
