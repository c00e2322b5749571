"""All turns of this instance: takes them, holds their leases, stops them, and takes over those of the dead.

The answers belong to the app, never to the socket that asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

from llmchat.answering import Answering, Place
from llmchat.attachments import Attachments
from llmchat.attempt import Attempt
from llmchat.broadcaster import Broadcaster, ChannelLapsed
from llmchat.budget import Budget
from llmchat.completion import Completions
from llmchat.conversation import Turn
from llmchat.errors import Fenced, Unavailable
from llmchat.failures import Failures
from llmchat.folds import Folds
from llmchat.history import History, Work
from llmchat.keys import TURNS
from llmchat.lease import Lease, Leases
from llmchat.listing import Listing
from llmchat.models import Models
from llmchat.pressure import Pressure, overloaded
from llmchat.settings import Settings
from llmchat.spending import Spending
from llmchat.subject import concerns
from llmchat.tally import HANDED, LOST, UNBEGUN, Tally
from llmchat.titles import Titles

WATCH_SECONDS = 0.25
GRACE_SECONDS = 1.0
"""A turn so young is left to the instance that accepted its prompt."""
SLOW_SECONDS = 1.0
"""A look at the store that took longer: it was away, or we were, and leases ran out that will be renewed."""
PATIENCE_SECONDS = 1.0
"""For the holders to renew them, when the store is back."""
STALE_SECONDS = 5.0
"""An entry in the index of work without a turn, so old, is taken off."""
TAKE_TRIES = 3
TAKE_SECONDS = 0.1
"""Between tries to take a lease whose holder may just be giving it back."""
TOGETHER_SECONDS, MORE_SECONDS, MOST_SECONDS = 0.05, 0.0001, 0.075
"""What the model says within so many is one event, with so much more for each answer that is made here, up to so much:
an event costs a step in Redis, and a frame for each reader."""
RENDERING_SHARE, RENDERING_AT_ONCE = 0.15, 0.1
"""Of the time, and seconds: what the blocks of all running answers together may take. Their text goes on."""
REPEAT_SECONDS = 0.25
"""Before listening again, while Redis is away."""
RELEASE_SECONDS = 0.5
RESERVE_SECONDS = 0.5
"""How long a grown instance leaves the turns of others to younger ones."""
GROWN_SECONDS = 20.0

log = logging.getLogger(__name__)


class _Running:
    """A turn that this instance makes."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None  # once the lease is ours
        self.again = False  # a turn was accepted while this one ended


class _LookForStop:
    """Looks whether an answer's stop is wanted, where no delta was placed since the last time: that tells it, too."""

    def __init__(self, history: History, attempt: Attempt) -> None:
        self._history = history
        self._attempt = attempt
        self._placed = -1

    async def __call__(self) -> None:
        placed, self._placed = self._placed, self._attempt.placed
        if placed == self._placed and await self._history.stop_wanted(self._attempt.conversation):
            self._attempt.stop()


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
        folds: Folds,
        attachments: Attachments,
        models: Models,
        titles: Titles,
        answering: Answering,
        spending: Spending,
        pressure: Pressure,
    ) -> None:
        self._settings = settings
        self._titles = titles
        self._answering = answering
        self._spending = spending
        self._pressure = pressure
        self._models = models
        self._attachments = attachments
        self._rendering = Budget(RENDERING_SHARE, RENDERING_AT_ONCE)
        self._history = history
        self._leases = leases
        self._broadcaster = broadcaster
        self._completions = completions
        self._listing = listing
        self._folds = folds
        self._running: dict[str, _Running] = {}  # conversation -> its turn, while it is made here
        self._coming = 0  # turns that may begin
        self.overloaded = 0
        """How often a prompt was refused because there is as much to do as can be."""
        self.tally = Tally()
        self._failures = Failures()  # conversations whose turns could not be made here
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_away = False  # in the log, since the last lease
        self._store = ""  # the name of the store at the last look
        self._lost = False  # whether messages were, then
        self._patient_until = 0.0  # by the loop's clock: nothing is taken over before
        self._stopping = False
        self._born = 0.0  # by the loop's clock

    @property
    def running(self) -> int:
        """How many turns are made here."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        self._born = self._now
        self._spawn(self._watch(), "watch")
        self._spawn(self._listen(), "messages")
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

    @contextmanager
    def room(self) -> Iterator[None]:
        """Hold a place for a turn that the body may begin.

        Raises Overloaded where this instance takes no further prompt: what it took before it can do.
        """
        if self._pressure.high or len(self._running) + self._coming >= self._settings.answers_per_instance:
            self.overloaded += 1
            raise overloaded()
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    def begin(self, conversation: str, *, takeover: bool = False) -> None:
        """Make the open turns of a conversation, unless somebody does already."""
        if conversation in self._running:
            self._running[conversation].again = True
        elif not self._stopping:
            self._running[conversation] = _Running()
            self._spawn(self._take(conversation, takeover=takeover), f"turn {conversation}")

    async def wake_for_stop(self, conversation: str, answer: str) -> None:
        """Tell whichever instance makes an answer that its stop is wanted."""
        with suppress(Unavailable):  # the flag is stored: appends and renewals see it
            await self._broadcaster.group_send(
                TURNS, {"type": "turn.stop", "conversation": conversation, "answer": answer}
            )

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
                        await self._hear(channel)
            except Unavailable:
                log.debug("Redis is away; listening for messages of turns again in a moment.")
            except Exception:
                log.exception("Listening for messages of turns failed.")
            await asyncio.sleep(REPEAT_SECONDS)

    async def _hear(self, channel: str) -> None:
        with suppress(ChannelLapsed):
            message = await self._broadcaster.receive(channel)
            match message:  # others than we may publish in our Redis
                case {"type": "turn.stop", "conversation": str(conversation), "answer": answer}:
                    running = self._running.get(conversation)
                    attempt = running.attempt if running else None
                    if attempt is not None and attempt.turn.answer == answer:
                        attempt.stop()
                case {"type": "turn.open", "conversation": str(conversation)}:
                    self.begin(conversation, takeover=True)

    async def _watch(self) -> None:
        """Take over what nobody makes: the turns of instances that died."""
        while not self._stopping:
            try:
                await self._look_for_work()
            except Unavailable:
                log.debug("Redis is away; looking for work again in a moment.")
            except Exception:
                log.exception("Looking for work failed.")
            await asyncio.sleep(WATCH_SECONDS)

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def _patient(self) -> bool:
        return self._now < self._patient_until

    @contextmanager
    def _noticing_outages(self) -> Iterator[None]:
        """Be patient after a look at the store that failed, or took too long."""
        began = self._now
        away = True
        try:
            yield
            away = self._now - began > SLOW_SECONDS
        finally:
            if away:
                self._patient_until = self._now + PATIENCE_SECONDS

    async def _look_for_work(self) -> None:
        with self._noticing_outages():
            found = await self._work()
        for entry, has_turn, is_held in found:
            if has_turn and not is_held:
                self.begin(entry.conversation, takeover=True)
            elif not has_turn and entry.age_seconds > STALE_SECONDS:
                await self._history.forget_work(entry)

    async def _work(self) -> list[tuple[Work, bool, bool]]:
        """List what may be taken over: whether it has a turn, and whether somebody holds it."""
        works, store = await self._history.work()
        lost = self._broadcaster.lost.is_set()
        if (lost and not self._lost) or (self._store and store != self._store):
            self._patient_until = self._now + PATIENCE_SECONDS  # leases may be lost, or renewed elsewhere
        self._lost, self._store = lost, store
        self._failures.only({entry.conversation for entry in works})
        entries = [
            entry
            for entry in works
            if entry.age_seconds > GRACE_SECONDS
            and entry.conversation not in self._running
            and not self._failures.leaves(entry.conversation)
        ]
        names = [entry.conversation for entry in entries]
        turns = await self._history.with_turn(names)
        held = await self._leases.held(names)
        return list(zip(entries, turns, held, strict=True))

    async def _take(self, conversation: str, *, takeover: bool) -> None:
        running = self._running[conversation]
        concerns(conversation=conversation)
        lease: Lease | None = None
        try:
            if takeover:
                await asyncio.sleep(self._reserve)
            lease = await self._lease(conversation) if await self._may_take(conversation) else None
            if lease is not None:
                await self._make_all(lease, running, takeover=takeover)
        except* Fenced:
            self.tally.fenced += 1
            log.warning("Another instance took over the turn of a conversation.")
        except* Unavailable:
            if not self._told_away:
                log.warning("Redis is away, full or read-only; turns will be taken up when it is back.")
            self._told_away = True
        except* Exception:
            log.exception("A turn failed; it is left alone for %g s.", self._failures.note(conversation))
            lease = None  # it runs out by itself: not again at once
        finally:
            try:
                await self._give_back(lease)
            finally:
                del self._running[conversation]
                if running.again:
                    self.begin(conversation)

    @property
    def _reserve(self) -> float:
        """Seconds that turns of others are left to younger instances: in a deploy it is they who stay."""
        return RESERVE_SECONDS * min(1.0, (self._now - self._born) / GROWN_SECONDS)

    async def _make_all(self, lease: Lease, running: _Running, *, takeover: bool) -> None:
        """Make the turn of a conversation, and those whose prompts wait behind it."""
        made, place = "", Place(self._answering, lease.conversation)
        while (found := await self._next(lease.conversation, made, place)) is not None:
            session, turn = found
            if made or takeover:
                await place.stay(session)
            else:
                place.take_up(session)
            made = turn.answer
            concerns(session=session, turn=turn.answer)
            if takeover:
                self._tell_takeover(turn)
                takeover = False  # what waits behind it is nobody else's
            running.attempt = attempt = Attempt(
                self._settings,
                self._history,
                self._completions,
                self._listing,
                self._folds,
                lease,
                session,
                turn,
                self._attachments,
                self._models,
                self._rendering,
                self._pace,
                self._answering,
                self._spending,
                self.tally,
            )
            self._told_away = False
            async with self._leases.holding(lease, _LookForStop(self._history, attempt)):
                await attempt.make()
            self._completions.learn(attempt.turn.model)  # a takeover has no time for it
            self._spawn(self._want_fold(attempt), f"fold wish {lease.conversation}")
            session = await self._owner(lease.conversation, session)
            place.take_up(session)
            await self._listing.updated(session, lease.conversation, used=True)
            if (said := attempt.ended_well) is not None:  # the list is told of a title last
                self._titles.want(
                    session, lease.conversation, attempt.turn.model, *said, network=attempt.network
                )

    async def _next(self, conversation: str, made: str, place: Place) -> tuple[str, Turn] | None:
        """Find the turn after the one that was made; where there is none, the conversation is answered no more."""
        found = await self._history.turn(conversation)
        if found is None or found[1].answer == made:
            await place.leave()
            found = await self._history.turn(conversation)  # a prompt may have come in this moment
        return found if found is not None and found[1].answer != made else None

    def _tell_takeover(self, turn: Turn) -> None:
        if turn.handed:
            from_whom, why = HANDED, "its instance gave it away"
        elif turn.attempt:
            from_whom, why = LOST, "its instance is gone"
        else:
            from_whom, why = UNBEGUN, "nobody had begun it"
        self.tally.taken_over[from_whom] += 1
        log.info("A turn is taken over: %s.", why)

    async def _owner(self, conversation: str, session: str) -> str:
        """Tell whose a conversation is by now; while Redis is away, whose it was."""
        with suppress(Unavailable):
            return await self._history.owner(conversation) or session
        return session

    def _pace(self) -> float:
        return min(TOGETHER_SECONDS + len(self._running) * MORE_SECONDS, MOST_SECONDS)

    async def _want_fold(self, attempt: Attempt) -> None:
        """Have a conversation folded where it should be, beside its next turn."""
        try:
            await attempt.want_fold()
        except Unavailable:
            log.debug("Redis is away; the next turn asks for a fold.")
        except Exception:
            log.exception("A fold could not be asked for.")

    async def _may_take(self, conversation: str) -> bool:
        """Tell whether nobody else is expected to go on: a turn that was begun has a holder, who may just renew."""
        if not self._patient:
            return True
        found = await self._history.turn(conversation)
        return found is not None and (found[1].attempt == 0 or found[1].handed)

    async def _lease(self, conversation: str) -> Lease | None:
        for _ in range(TAKE_TRIES - 1):
            lease = await self._leases.take(conversation)
            if lease is not None:
                return lease
            await asyncio.sleep(TAKE_SECONDS)
        return await self._leases.take(conversation)

    async def _give_back(self, lease: Lease | None) -> None:
        """Give a lease back; while this instance stops, others are asked at once to go on with what there is."""
        if lease is None:
            return
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                open_turn = self._stopping and await self._history.hand_over(lease.conversation, lease.fence)
                await self._leases.release(lease)
                if open_turn:
                    await self._broadcaster.group_send(
                        TURNS, {"type": "turn.open", "conversation": lease.conversation}
                    )
