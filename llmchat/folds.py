"""Folds what falls out of the context into summaries, in the background. Knows no turn, and no turn waits for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from llmchat.completion import Completions
from llmchat.conversation import CALIBRATION_STEP, Branch, Summary, estimated_tokens, timestamp
from llmchat.errors import Fenced, NotFound, ProviderError, QuotaSpent, Unavailable
from llmchat.failures import Failures
from llmchat.history import History
from llmchat.lease import Lease, Leases
from llmchat.models import Models
from llmchat.settings import Settings
from llmchat.spending import Account, Spending
from llmchat.subject import concerns
from llmchat.summaries import Summaries, Wanted
from llmchat.summary import first_to_fold, most_characters, question

WATCH_SECONDS = 2.0
AT_ONCE = 4
"""Folds that an instance makes."""
REPEAT_SECONDS = 2.0
"""Before the next try of one that the model server refused, and then twice as long."""
READ_MESSAGES = 400
READ_BYTES = 8 * 1024 * 1024
RELEASE_SECONDS = 0.5

log = logging.getLogger(__name__)


class Folds:
    """All folds of this instance, for as long as its context is entered."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        summaries: Summaries,
        leases: Leases,
        completions: Completions,
        models: Models,
        spending: Spending,
    ) -> None:
        self._settings = settings
        self._history = history
        self._summaries = summaries
        self._leases = leases
        self._completions = completions
        self._models = models
        self._spending = spending
        self._running: set[str] = set()  # conversations that are folded here
        self._failures = Failures()  # likewise, that could not be
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many conversations are folded here."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        self._spawn(self._watch(), "folds")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Leave all folds to others."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def want(self, conversation: str, up_to: str, model: str) -> None:
        """Have a conversation folded up to a message. Raises Unavailable."""
        await self._summaries.want(conversation, up_to, model)
        self._begin(conversation)

    def _begin(self, conversation: str) -> None:
        if conversation in self._running or len(self._running) >= AT_ONCE:
            return
        self._running.add(conversation)
        self._spawn(self._take(conversation), f"fold {conversation}")

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        """Take over what nobody folds."""
        while True:
            try:
                found = await self._summaries.open()
                self._failures.only(found)
                for conversation, held in zip(found, await self._leases.held(found), strict=True):
                    if not held and not self._failures.leaves(conversation):
                        self._begin(conversation)
            except Unavailable:
                log.debug("Redis is away; looking for folds again in a moment.")
            except Exception:
                log.exception("Looking for folds failed.")
            await asyncio.sleep(WATCH_SECONDS)

    async def _take(self, conversation: str) -> None:
        concerns(conversation=conversation)
        lease: Lease | None = None
        try:
            lease = await self._leases.take(conversation)
            if lease is not None:
                async with self._leases.holding(lease):
                    await self._fold_all(lease)
        except* (Fenced, Unavailable):
            log.debug("A fold is left to others.")
        except* Exception:
            log.exception("A fold failed; it is left alone for %g s.", self._failures.note(conversation))
        finally:
            try:
                await self._give_back(lease)
            finally:
                self._running.discard(conversation)

    async def _give_back(self, lease: Lease | None) -> None:
        if lease is not None:
            with suppress(Unavailable, TimeoutError):  # it runs out by itself
                async with asyncio.timeout(RELEASE_SECONDS):
                    await self._leases.release(lease)

    async def _fold_all(self, lease: Lease) -> None:
        """Fold the oldest again and again, until all is covered that should be."""
        while (wanted := await self._summaries.wanted(lease.conversation, lease.fence)) is not None:
            try:
                await self._fold(lease, wanted)
            except ProviderError as error:
                log.warning("A summary could not be made: %s", error.code)
                await asyncio.sleep(REPEAT_SECONDS * 2**wanted.tries)
            except (NotFound, QuotaSpent):
                break
        await self._summaries.close(lease.conversation)

    async def _fold(self, lease: Lease, wanted: Wanted) -> None:
        branch = await self._uncovered(lease.conversation, wanted)
        if branch is None:
            await self._summaries.forgo(lease.conversation, lease.fence)
            return
        before = branch.summary
        calibration = (
            branch.conversation.calibration * CALIBRATION_STEP**wanted.tries
        )  # it may have been too much
        context_tokens = self._settings.context_tokens
        folded = first_to_fold(branch.messages, context_tokens, calibration)
        answers = [each["id"] for each in folded if each["role"] == "assistant"]
        turn = branch.conversation.turn
        if turn is not None and turn.answer in answers:  # one of them goes on just now
            await asyncio.sleep(REPEAT_SECONDS * 2**wanted.tries)
            return
        offered = self._models.offered
        asked = question(before.text if before else "", folded, context_tokens, calibration)
        tokens = sum(estimated_tokens(message["content"]) for message in asked)
        async with self._spending.paying(wanted.session, int(tokens * calibration)) as account:
            text = await self._ask(
                wanted.model if wanted.model in offered else branch.conversation.model_among(offered),
                asked,
                branch.conversation.parameters,
                account,
            )
        after = Summary(
            message=str(folded[-1]["id"]),
            text=text,
            messages=(before.messages if before else 0) + len(folded),
            created=timestamp(),
        )
        await self._summaries.fold(
            lease.conversation,
            lease.fence,
            before,
            after,
            answers=answers,
            continued=branch.conversation.continued,
        )

    async def _uncovered(self, conversation: str, wanted: Wanted) -> Branch | None:
        """Read the oldest messages that no summary covers, oldest first; None where there are none. Raises NotFound."""
        limit = READ_MESSAGES
        while True:
            start = await self._summaries.oldest_uncovered(wanted.session, conversation, wanted.up_to, limit)
            if not start:
                return None
            branch = await self._history.read(
                wanted.session,
                conversation,
                start=start,
                limit=limit,
                max_bytes=READ_BYTES,
                texts_only=True,
                to_summary=True,
            )
            if (
                branch.messages[0]["parent"] == (branch.summary.message if branch.summary else None)
                or limit == 1
            ):
                return branch
            limit = max(1, limit // 4)  # so long that the oldest were not read

    async def _ask(
        self, model: str, messages: list[dict[str, str]], parameters: dict[str, Any], account: Account
    ) -> str:
        """Have the model write a summary, of which what is too long is not taken. Raises ProviderError."""
        most = most_characters(self._settings.context_tokens)
        asked = {name: value for name, value in parameters.items() if name != "max_tokens"}
        if self._settings.temperature is not None:
            asked.setdefault("temperature", self._settings.temperature)
        text = ""
        async with self._completions.stream(model, messages, asked) as deltas:
            async for delta in deltas:
                await account.covers(delta.tokens, delta.counted)
                text += delta.text
                if len(text) > most:
                    break
        text = text[:most].strip()
        if not text:
            raise ProviderError("provider_refused", "The model gave no summary.", retryable=True)
        return text
