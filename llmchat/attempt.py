"""One attempt at one answer, under one lease: asks the model and places what it says. Knows no other turn.

Every write may raise Fenced: then another instance has the turn, and nothing more is written here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from llmchat.answering import Answering
from llmchat.attachment import Attached, mentioned
from llmchat.attachments import Attachments
from llmchat.budget import Budget
from llmchat.completion import Completions
from llmchat.conversation import (
    CALIBRATION_STEP,
    MAX_CALIBRATION,
    MAX_COST,
    Branch,
    Context,
    Turn,
    budget_of,
    calibrated,
    context,
    estimated_tokens,
    going_on,
    timestamp,
)
from llmchat.errors import (
    Behind,
    Fenced,
    NotFound,
    ProviderError,
    QuotaSpent,
    RequestRefused,
    Unavailable,
)
from llmchat.events import CompletionDelta, CompletionFailed, CompletionFinished
from llmchat.folds import Folds
from llmchat.history import History
from llmchat.lease import Lease
from llmchat.listing import Listing
from llmchat.models import Models
from llmchat.settings import Settings
from llmchat.spending import Account, Spending
from llmchat.summary import fold_up_to, with_summary
from llmchat.tally import Tally
from llmchat.turn import Answer, Delta

REPEAT_SECONDS = 0.25
"""Between tries to write while Redis is away."""
CONTEXT_MESSAGES = 1000
KEPT_SHARE = 2
"""One part in so many of the context is the most that the beginning of an answer may take."""
BYTES_PER_TOKEN = 12
"""Of texts that are read for the context: more than fit, however they are calibrated."""
IN_VAIN = ProviderError("provider_unavailable", "The answer was begun several times in vain.", retryable=True)
PICTURE_REFUSED = RequestRefused(
    "The model server refused the request. The picture may be why: edit the message without it, or with another one."
)
BUG = ProviderError("internal", "Something is wrong on our side.", retryable=True)
OTHER = "other"
"""What a model counts as that is not on offer: anybody may ask for one of any name."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class Attempt:
    """Makes the answer of a turn that this instance holds."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        completions: Completions,
        listing: Listing,
        folds: Folds,
        lease: Lease,
        session: str,
        turn: Turn,
        attachments: Attachments,
        models: Models,
        rendering: Budget,
        pace: Callable[[], float],
        answering: Answering,
        spending: Spending,
        tally: Tally,
    ) -> None:
        """`pace` tells for how many seconds what the model says is one event."""
        self._settings = settings
        self._models = models
        self._attachments = attachments
        self._rendering = rendering
        self._pace = pace
        self._answering = answering
        self._spending = spending
        self._tally = tally
        self._history = history
        self._completions = completions
        self._listing = listing
        self._folds = folds
        self._lease = lease
        self.conversation = lease.conversation
        self._session = session
        self.network = ""
        """Whose budget pays beside the session's, once that is known."""
        self.turn = turn
        self._stopped = False
        self._reading: asyncio.Task[None] | None = None  # while the model is asked
        self._count = 0  # deltas placed
        self._given = ""  # the answer's beginning, where the model goes on from one
        self._told: tuple[Branch, Answer] | None = None  # once the answer ended
        self._seen = ""  # the answer's text before this attempt
        self._began = time.monotonic()
        self._spoken = False  # the model has said something
        self._counted_as = ""  # the model, once the attempt is

    @property
    def placed(self) -> int:
        """How many deltas were."""
        return self._count

    def stop(self) -> None:
        """Ask the model for no more. Wanted by a wake-up, an append or a renewal, whichever sees it first."""
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()

    async def make(self) -> None:
        """Make the answer, or end the turn that cannot have one. Raises Fenced."""
        try:
            await self._make()
        except (Fenced, Unavailable):
            raise
        except Exception:
            log.exception("An answer failed.")
            await self._settle(BUG)

    async def _make(self) -> None:
        found = await self._branch()
        if found is None:
            return  # deleted: gone in a moment, or restored and found again
        branch, before = found
        self._seen = before["text"] if before else ""
        if self.turn.cost >= MAX_COST or (self.turn.attempt and self.turn.stop):
            await self._settle(IN_VAIN)
            return
        await self._models.settled()
        if not self._models.offers(self.turn.model):  # not any more, or not here yet
            model = branch.conversation.model_among(self._models.offered)
            self.turn = replace(self.turn, model=model)
        kept = await self._kept(branch, before)
        answer = self._answer(before, self.turn.attempt + 1, kept)
        if await self._begin(answer):
            if self.turn.attempt:
                await self._settle(IN_VAIN)  # stopped in this moment: the text of the attempt before stays
                return
            self.stop()
        await self._listing.updated(self._session, self.conversation)
        self._tally_begun()
        with_files = await _persist(lambda: self._with_attached(branch))
        calibration, error = await self._ask_what_is_taken(answer, with_files)
        await self._end(answer, error, calibration)
        self._told = branch, answer

    @property
    def ended_well(self) -> tuple[str, str] | None:
        """The first words that were said, a prompt's and its answer's, of a chat whose answer came to its end here."""
        if self._told is None or not self._told[1].complete or self._stopped:
            return None
        branch, answer = self._told
        said = [*branch.messages, {"role": "assistant", "text": answer.text}]
        prompt = next((at for at, each in enumerate(said) if each["role"] == "user"), None)
        if prompt is None or not answer.text.strip():
            return None
        return mentioned(said[prompt]), said[prompt + 1]["text"]

    async def want_fold(self) -> None:
        """Have what will soon have no room in the context told in few words, after an answer. Raises Unavailable."""
        if self._told is None:
            return
        branch, answer = self._told
        system = self._system(branch)
        budget = budget_of(self._settings.context_tokens, branch.conversation.calibration)
        said = {"id": self.turn.answer, "role": "assistant", "text": answer.text}
        up_to = fold_up_to([*branch.messages, said], budget - estimated_tokens(system))
        if up_to is not None:
            await self._folds.want(self.conversation, up_to, self.turn.model)

    async def _kept(self, branch: Branch, before: dict[str, Any] | None) -> str:
        """Choose what is kept of the text there is: all where the model goes on from it, else what a person has kept."""
        text = str(before["text"]) if before else ""
        most = self._settings.context_tokens / KEPT_SHARE / branch.conversation.calibration
        goes_on = 0 < estimated_tokens(text) <= most and await self._completions.continues(self.turn.model)
        if not (goes_on and self.turn.attempt):
            text = text.encode()[: self.turn.kept or 0].decode(errors="ignore")
        self._given = text if goes_on else ""
        return text

    async def _settle(self, error: ProviderError) -> None:
        """End the turn with the text there is, or with `error` where there is none."""
        turn = await self._history.turn(self.conversation)
        if turn is None or turn[1].answer != self.turn.answer:
            return  # ended meanwhile
        self.turn = turn[1]
        found = await self._branch()
        if found is None:
            return  # deleted meanwhile
        self._count = self.turn.count
        before = found[1]
        if before:
            self.turn = replace(self.turn, model=before["model"])
        answer = self._answer(before, max(1, self.turn.attempt), before["text"] if before else "")
        if not self.turn.attempt:
            await self._begin(answer)
        self._stopped = self._stopped or self.turn.stop
        await self._end(answer, error, None)

    def _answer(self, before: dict[str, Any] | None, attempt: int, kept: str) -> Answer:
        """Make the answer anew, from what is kept of the one `before`."""
        told = before or {}
        return Answer(
            conversation=self.conversation,
            message=self.turn.answer,
            prompt=self.turn.prompt,
            model=self.turn.model,
            created=told.get("created") or timestamp(),
            attempt=attempt,
            earlier=int(self.turn.continues),
            kept=kept,
            reasoning=told.get("reasoning", "") if kept else "",
            reasoning_seconds=told.get("reasoning_seconds") if kept else None,
        )

    async def _begin(self, answer: Answer) -> bool:
        """Place completion.started. Tells whether a stop is wanted already."""
        return await _persist(
            lambda: self._history.begin(
                self.conversation,
                self._lease.fence,
                answer.attempt,
                answer.record(),
                answer.kept,
                answer.started(),
                before=self.turn,
            )
        )

    async def _end(self, answer: Answer, error: ProviderError | None, calibration: float | None) -> None:
        if self.turn.attempt and not answer.text.encode()[self.turn.kept or 0 :].strip():
            earlier = await _persist(lambda: self._history.earlier(self.conversation, self.turn.answer))
            answer.fall_back(earlier or self._seen)
        answer.mend()
        while (delta := answer.delta()) is not None:
            await self._place(answer, delta)
        seconds = time.monotonic() - self._began
        ended: CompletionFinished | CompletionFailed = answer.end(
            seconds=seconds,
            error=error,
            stopped=self._stopped and not answer.complete,
        )
        await _persist(
            lambda: self._history.finish(
                self.conversation,
                self._lease.fence,
                answer.attempt,
                self._count,
                answer.record(ended),
                calibration,
                ended,
            )
        )
        ending = ended.finish_reason if isinstance(ended, CompletionFinished) else "failed"
        self._tally_begun()
        self._tally.end(self._counted_as, ending, seconds)

    async def _ask_what_is_taken(self, answer: Answer, branch: Branch) -> tuple[float, ProviderError | None]:
        """Ask, and where that is refused once more without earlier pictures: one may be why. Tells the calibration."""
        calibration, error = await self._ask_what_fits(answer, branch)
        unseen = _without_earlier_pictures(branch)
        if isinstance(error, RequestRefused) and unseen != branch:
            calibration, error = await self._ask_what_fits(answer, unseen)
        own = branch.messages[-1].get("attached", ()) if branch.messages else ()
        if isinstance(error, RequestRefused) and any(each.url for each in own):
            error = PICTURE_REFUSED
        return calibration, error

    async def _ask_what_fits(self, answer: Answer, branch: Branch) -> tuple[float, ProviderError | None]:
        """Ask, with less of the conversation for as long as it is too much for the model. Tells the calibration."""
        calibration = branch.conversation.calibration
        sent = self._context(branch, answer, calibration)
        error = await self._ask(answer, branch, sent)
        while error is not None and error.code == "context_too_long" and not self._stopped:
            before = sent
            while sent.messages == before.messages and calibration < MAX_CALIBRATION:
                calibration = min(MAX_CALIBRATION, calibration * CALIBRATION_STEP)
                sent = self._context(branch, answer, calibration)
            if sent.messages == before.messages:
                break
            error = await self._ask(answer, branch, sent)
        if calibration > branch.conversation.calibration:
            log.warning("The model refused a context for its length: CONTEXT_TOKENS may be too much for it.")
        self._count_tokens(answer, sent, calibration)
        if error is not None:  # less may not have been the remedy
            calibration = branch.conversation.calibration
        counted = 0 if sent.images else (answer.usage or {}).get("prompt_tokens", 0)  # it is of words
        return calibrated(calibration, sent.estimate, counted), error

    def _count_tokens(self, answer: Answer, sent: Context, calibration: float) -> None:
        said = estimated_tokens(answer.text) - estimated_tokens(answer.kept)
        if said or answer.usage:
            self._tally.use(
                self._counted_as,
                answer.usage or {},
                prompt=round(sent.estimate * calibration),
                completion=round(said * calibration),
            )

    def _tally_begun(self) -> None:
        """Count the attempt, once, by its model as it is then."""
        if not self._counted_as:
            self._counted_as = self.turn.model if self.turn.model in self._models.offered else OTHER
            self._tally.begin(self._counted_as)

    async def _ask(self, answer: Answer, branch: Branch, sent: Context) -> ProviderError | None:
        """Place what the model says, until it ends, fails (with what is returned), is stopped, or the day's tokens end."""
        account = await self._account()
        prompt_tokens = int(sent.estimate * branch.conversation.calibration)
        try:
            await account.open(prompt_tokens)
        except QuotaSpent as error:
            return ProviderError(error.code, error.detail, retryable=True, retry_after=error.retry_after)
        asked = not self._stopped
        failure = await self._ask_and_place(answer, branch, sent, account)
        with suppress(Unavailable):  # and what is cut short pays for what was taken
            await account.close(in_vain=failure is not None or not asked)
        return failure

    async def _account(self) -> Account:
        """Open the account of what is asked of the model."""
        if self._spending.limited and not self.network:
            networks = await _persist(lambda: self._answering.networks_of(self._session, self.conversation))
            self.network = next(iter(networks), "")
        return self._spending.account(self._session, self.network)

    async def _ask_and_place(
        self, answer: Answer, branch: Branch, sent: Context, account: Account
    ) -> ProviderError | None:
        news = asyncio.Event()
        parameters = dict(branch.conversation.parameters)
        if self._settings.temperature is not None:
            parameters.setdefault("temperature", self._settings.temperature)
        self._reading = reading = asyncio.create_task(
            self._read(answer, sent.messages, parameters, account, news)
        )
        reading.add_done_callback(lambda _: news.set())
        if self._stopped:
            reading.cancel()
        try:
            while True:
                if not (reading.done() or answer.pending):
                    await news.wait()
                    news.clear()
                delta = self._delta(answer)
                if delta is not None:
                    await self._place(answer, delta)
                elif reading.done():
                    break
            if not reading.cancelled():
                reading.result()
        except ProviderError as failure:
            self._tally.fail(self._counted_as, failure.code)
            return failure
        finally:
            self._reading = None
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        return None

    def _delta(self, answer: Answer) -> CompletionDelta | None:
        """Say what was taken; its blocks too, as long as all answers here do not take too much of the time for them."""
        render = self._rendering.fill()
        with self._rendering.spent():
            return answer.delta(render=render)

    async def _read(
        self,
        answer: Answer,
        messages: list[dict[str, Any]],
        parameters: dict[str, Any],
        account: Account,
        news: asyncio.Event,
    ) -> None:
        """Take what the model says. Raises ProviderError."""
        stream = self._completions.stream(
            self.turn.model, messages, parameters, kept=self._given, every=self._pace
        )
        async with stream as deltas:
            async for delta in deltas:
                answer.take(delta, time.monotonic() - self._began)
                news.set()
                if not (await account.covers(delta.tokens, delta.counted) or answer.complete):
                    answer.take(Delta(finish_reason="length"))
                    return
                if not self._spoken and (delta.text or delta.reasoning):
                    self._speak()
                if answer.complete and not delta.finish_reason and (delta.text or not delta.usage):
                    return  # longer than an answer may be

    def _speak(self) -> None:
        self._spoken = True
        if self._tally.speak(self._counted_as, time.monotonic() - self._began):
            log.info("The model server answers again.")

    async def _place(self, answer: Answer, delta: CompletionDelta) -> None:
        self._count += 1
        while True:
            try:
                stop_wanted = await self._append(answer.attempt, delta)
                break
            except Behind:
                await self._recover(answer, delta)
        if stop_wanted:
            self.stop()

    async def _recover(self, answer: Answer, delta: CompletionDelta) -> None:
        """Put back what the store has lost of what was said before a delta."""
        log.warning("The store has lost some of an answer; it is put back.")
        text, reasoning = answer.before(delta)
        await _persist(
            lambda: self._history.recover(
                self.conversation,
                self._lease.fence,
                answer.attempt,
                self._count - 1,
                answer.record(),
                text,
                reasoning,
            )
        )

    async def _append(self, attempt: int, delta: CompletionDelta) -> bool:
        return await _persist(
            lambda: self._history.append(
                self.conversation,
                self._lease.fence,
                self.turn.answer,
                attempt,
                self._count,
                delta.text,
                delta.reasoning or "",
                delta,
            )
        )

    async def _branch(self) -> tuple[Branch, dict[str, Any] | None] | None:
        """Read what leads to the answer, and the answer as it is, if it is there; None where all was deleted."""
        begun = self.turn.attempt or self.turn.continues
        try:
            branch = await self._history.read(
                self._session,
                self.conversation,
                start=self.turn.answer if begun else self.turn.prompt,
                limit=CONTEXT_MESSAGES,
                max_bytes=self._settings.context_tokens * BYTES_PER_TOKEN,
                texts_only=True,
                to_summary=True,
            )
        except NotFound:
            return None
        if not branch.messages or branch.messages[-1]["id"] != self.turn.answer:
            return branch, None
        return replace(branch, messages=branch.messages[:-1]), branch.messages[-1]

    async def _with_attached(self, branch: Branch) -> Branch:
        """Read the files of the newest messages, as many as can fit: of the others, words say that they were there."""
        sees = self._settings.sees(self.turn.model)
        left = budget_of(self._settings.context_tokens, branch.conversation.calibration)
        messages = []
        for message in reversed(branch.messages):
            attachments = message.get("attachments", ())
            read: dict[str, Attached] = {}
            if attachments and left > 0:
                read = await self._attachments.attached(
                    self._session,
                    self.conversation,
                    [each["id"] for each in attachments],
                    images=sees,
                    text_bytes=self._settings.context_tokens * BYTES_PER_TOKEN,
                    temporary=branch.conversation.temporary,
                )
            left -= estimated_tokens(message["text"]) + sum(each.tokens for each in read.values())
            attached = [read.get(each["id"], Attached(each["name"], each["type"])) for each in attachments]
            messages.append(message | {"attached": attached} if attached else message)
        return replace(branch, messages=messages[::-1])

    def _system(self, branch: Branch) -> str:
        """Give what the model is told before the messages."""
        system = branch.conversation.system
        return with_summary(
            self._settings.system_prompt if system is None else system,
            branch.summary,
            self._settings.context_tokens,
            branch.conversation.calibration,
        )

    def _context(self, branch: Branch, answer: Answer, calibration: float) -> Context:
        """Choose what the model is sent. One that cannot be given a beginning is asked in words to go on."""
        kept = answer.kept if not self._given else ""
        chosen = context(
            self._system(branch),
            [*branch.messages, *going_on(kept, self._settings.context_tokens, calibration)],
            self._settings.context_tokens - int(estimated_tokens(self._given) * calibration),
            calibration,
        )
        return replace(chosen, estimate=chosen.estimate + estimated_tokens(self._given))


def _without_earlier_pictures(branch: Branch) -> Branch:
    """Put words in the place of all pictures but those of the newest prompt."""
    earlier = [
        message | {"attached": [each.unseen for each in message["attached"]]}
        if "attached" in message
        else message
        for message in branch.messages[:-1]
    ]
    return replace(branch, messages=[*earlier, *branch.messages[-1:]])


async def _persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write, again and again while Redis is away: the model's words are kept meanwhile. Raises Fenced."""
    while True:
        try:
            return await write()
        except Unavailable:
            await asyncio.sleep(REPEAT_SECONDS)
