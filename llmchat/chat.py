"""The story: a prompt, a stop, a branch, opening a conversation. Where the rooms meet; knows no socket."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass
from typing import Any

from llmchat import events
from llmchat.answering import Answering
from llmchat.attachment import is_image
from llmchat.attachments import Attachment, Attachments
from llmchat.conversation import (
    NO_CHOICES,
    Branch,
    Choices,
    Conversation,
    Summary,
    derived_id,
    estimated_tokens,
    first_words,
    milliseconds,
    takes_system,
)
from llmchat.conversations import Conversations
from llmchat.erasure import Erasure
from llmchat.errors import BadField, Busy, CommandError, NoAttachment, NotFound, TooLong, Unavailable
from llmchat.events import (
    ConversationFound,
    ConversationListed,
    ConversationOlderEvent,
    ConversationSnapshot,
    ConversationSummaryEvent,
    ConversationUpdated,
    MessageAccepted,
    ShareCreated,
    ShareListed,
    ShareRevoked,
)
from llmchat.history import TIP, History
from llmchat.limits import Allowance
from llmchat.listing import Listing
from llmchat.markdown import render
from llmchat.models import Models
from llmchat.search import Query
from llmchat.searches import Found, Searches
from llmchat.settings import Settings
from llmchat.shares import SHARED_BYTES, SHARED_MESSAGES, Shared, Shares
from llmchat.spending import Spending
from llmchat.summaries import Summaries
from llmchat.summary import CORRECTED_CHARACTERS
from llmchat.title import has_word, one_line
from llmchat.titles import BY_PERSON
from llmchat.turns import Turns

SNAPSHOT_TEXT_BYTES = 300 * 1024
"""Of stored text in one frame: with its HTML it stays below what a frame may have, nearly always."""
PLAIN_CHARACTERS = 600
"""Of texts without code, formulas and tables: they are rendered in the time it takes to have another thread do it."""
COSTLY = re.compile(r"[`~$\\|<\[]|    |\t|://")
SHED = {"html", "reasoning"}
"""What a message goes without where it would not fit in a frame."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """A prompt that is stored, and the place up to which whoever sent it knows the conversation."""

    event: MessageAccepted
    told: dict[str, Any]
    repeated: bool


class Chat:
    """Carries out commands of a session. Raises CommandError where one cannot be."""

    def __init__(
        self,
        settings: Settings,
        history: History,
        conversations: Conversations,
        turns: Turns,
        listing: Listing,
        summaries: Summaries,
        attachments: Attachments,
        erasure: Erasure,
        searches: Searches,
        models: Models,
        shares: Shares,
        answering: Answering,
        spending: Spending,
    ) -> None:
        self._settings = settings
        self._models = models
        self._history = history
        self._conversations = conversations
        self._turns = turns
        self._listing = listing
        self._summaries = summaries
        self._attachments = attachments
        self._erasure = erasure
        self._searches = searches
        self._shares = shares
        self._answering = answering
        self._spending = spending

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models on offer, the default first."""
        return self._models.shaped

    @property
    def limits(self) -> dict[str, int]:
        """What a client should know before it sends: characters of a text, bytes of an attachment."""
        return {"text": self._settings.max_prompt_chars, "attachment": self._settings.attachment_bytes}

    @property
    def sharing(self) -> bool:
        """Whether chats can be shared here."""
        return self._settings.share_links

    def system_of(self, conversation: Conversation) -> str:
        """Give what the model is told before a conversation."""
        return self._settings.system_prompt if conversation.system is None else conversation.system

    async def snapshot(
        self, session: str, conversation: str, *, command: str | None = None
    ) -> ConversationSnapshot:
        """Read the current branch's newest messages and where the conversation stands. Raises NotFound."""
        branch = await self._history.read(
            session, conversation, limit=events.MAX_MESSAGES, max_bytes=SNAPSHOT_TEXT_BYTES
        )
        known = branch.conversation
        if known.turn is not None:
            with suppress(Unavailable):  # a full store can be read all the same
                await self._history.keep_findable(conversation)
        messages, cut = _fitting(await self._shaped(branch))
        return ConversationSnapshot(
            id=command,
            conversation=conversation,
            title=known.title,
            model=known.model_among(self._offered),
            system=self.system_of(known),
            parameters=known.parameters,
            archived=known.archived,
            temporary=known.temporary,
            messages=messages,
            more=branch.more or cut,
            running=known.running,
            at=known.at,
        )

    async def after(
        self, session: str, conversation: str, place: events.Place
    ) -> tuple[list[str], dict[str, Any]]:
        """Read the frames after a place and the place they lead to.

        Raises NotFound, and LookupError where only a snapshot helps.
        """
        return await self._history.after(session, conversation, place.epoch, place.offset)

    async def older(
        self, session: str, command: events.ConversationOlder, *, through: bool = False
    ) -> ConversationOlderEvent:
        """Read what comes before a message; with `through`, that one, too. Raises NotFound."""
        branch = await self._history.read(
            session,
            command.conversation,
            start=command.before,
            above=not through,
            limit=command.limit,
            max_bytes=SNAPSHOT_TEXT_BYTES,
        )
        messages, cut = _fitting(await self._shaped(branch))
        return ConversationOlderEvent(
            id=command.id, conversation=command.conversation, messages=messages, more=branch.more or cut
        )

    async def listed(self, session: str, command: events.ConversationList) -> ConversationListed:
        """List the session's conversations, last used first. Raises BadField."""
        before_ms = None
        if command.before is not None:
            try:
                before_ms = milliseconds(command.before)
            except (ValueError, OverflowError):
                raise BadField("The field before is wrong: it must be an RFC 3339 time.") from None
        found, more = await self._conversations.listed(
            session,
            before_ms=before_ms,
            limit=command.limit,
            query=command.query,
            pinned=command.pinned,
            archived=command.archived,
        )
        shaped = [each.listed(self._offered) for each in found]
        return ConversationListed(id=command.id, conversations=shaped, more=more)

    async def search(self, session: str, command: events.ConversationSearch) -> ConversationFound:
        """Find conversations by words of their titles and messages, last used first. Raises BadField, Busy."""
        try:
            query = Query.read(command.query)
        except ValueError:
            raise BadField("Type a word to search for.") from None
        found, searched = await self._searches.search(session, query, limit=command.limit)
        several = await self._conversations.several(session, [each.conversation for each in found])
        there = {each.id: each for each in several}  # what was deleted meanwhile is not
        results = [
            self._result(there[each.conversation], each) for each in found if each.conversation in there
        ]
        return ConversationFound(
            id=command.id, query=command.query, results=results, searched=asdict(searched)
        )

    def _result(self, known: Conversation, found: Found) -> dict[str, Any]:
        title = {"title": found.title.shaped()} if found.title else {}
        matches = [each.shaped() for each in found.matches]
        return {"conversation": known.listed(self._offered), **title, "matches": matches, "more": found.more}

    async def check(self, session: str, conversation: str) -> None:
        """Raise NotFound for a conversation that is not the session's own."""
        await self._conversations.check(session, conversation)

    async def place(self, session: str, conversation: str) -> dict[str, Any]:
        """Find the conversation's place. Raises NotFound."""
        return (await self._conversations.conversation(session, conversation)).at

    async def conversation_of(self, session: str, command: events.MessageSend) -> str:
        """Name the conversation of a prompt: the one it names, or the one that follows from session and id.

        Where the prompt was sent before by an anonymous session that became a person's meanwhile, it is that one's.
        """
        if command.conversation:
            return command.conversation
        first = derived_id("conversation", session, command.id)
        if self._settings.oidc_issuer is None:
            return first
        for former in (await self._erasure.sessions(session))[1:]:
            conversation = derived_id("conversation", former, command.id)
            if await self._history.has_prompt(session, conversation, _prompt_of(conversation, command)):
                return conversation
        return first

    async def send(self, session: str, command: events.MessageSend, allowance: Allowance) -> Accepted:
        """Take a prompt, once for each id, and have it answered.

        Raises TooLong, BadField, NotFound, NoAttachment, Conflict, Busy, Overloaded, RateLimited, QuotaSpent.
        """
        with self._turns.room():
            return await self._take(session, command, allowance)

    async def _take(self, session: str, command: events.MessageSend, allowance: Allowance) -> Accepted:
        text = command.text if command.text.strip() else ""
        self._check_text("text", text)
        if not text and not command.attachments:
            raise BadField("The field text is wrong: it must have a word in it.")
        choices = self._choices(command)
        conversation = await self.conversation_of(session, command)
        message = _prompt_of(conversation, command)
        model = ""
        repeated = await self._history.has_prompt(session, conversation, message)
        if not repeated:
            model = self._checked_model(command.model)  # of a repeat, no field but the text counts
            await allowance.prompt()
        temporary = choices.temporary
        if command.conversation and (not model or command.attachments):
            known = await self._conversations.conversation(session, conversation)
            model, temporary = model or known.model_among(self._offered), known.temporary
        files = [] if repeated else await self._files(session, conversation, command.attachments)
        if not repeated:
            self._check_sees(model or self._offered[0], files)
        try:
            async with nullcontext() if repeated else self._admitted(allowance, conversation, text):
                sent = await self._history.send(
                    session=session,
                    conversation=conversation,
                    new=command.conversation is None,
                    title=first_words(text or (files[0].name if files else "")),
                    message=message,
                    text=text,
                    parent=(command.parent or "") if command.names_parent else TIP,
                    answer=derived_id("answer", conversation, command.id),
                    model=model or self._offered[0],
                    attachments=[each.shaped() for each in files],
                    choices=choices,
                )
        except Busy:
            self._turns.begin(conversation)  # should nobody make the answer that is in the way
            raise
        self._turns.begin(conversation)
        if command.attachments:
            with suppress(Unavailable):  # whoever makes the answer keeps them, too
                await self._attachments.keep(session, conversation, command.attachments, temporary=temporary)
        accepted = MessageAccepted(
            id=command.id, conversation=conversation, message=message, answer=sent.answer, at=sent.at
        )
        # Where the store says that it was there, and it was not a moment ago, the answer to our own first try was lost,
        # or another tab was quicker: its events come to whoever joined before.
        before = {**sent.at, "offset": sent.at["offset"] - 1}
        return Accepted(accepted, sent.now if repeated else before, repeated)

    @asynccontextmanager
    async def _admitted(self, allowance: Allowance, conversation: str, text: str = "") -> AsyncIterator[None]:
        """Count a conversation among those that are answered, unless the body fails. Raises QuotaSpent, RateLimited."""
        session, network = allowance.session, self._answering.network(allowance.address)
        tokens = min(estimated_tokens(text), self._settings.context_tokens)
        await self._spending.account(session, network).check(tokens)
        new = await self._answering.enter(session, network, conversation)
        try:
            yield
        except CommandError as error:
            if new and not isinstance(error, Unavailable):  # else it may have been done
                with suppress(Unavailable):  # it runs out
                    await self._answering.leave(session, conversation, network)
            raise
        if not new:  # the answer before may have ended in this moment
            with suppress(Unavailable):
                await self._answering.stay(session, conversation, network)

    async def tell_list(self, session: str, conversation: str) -> None:
        """Tell all the session's connections that a conversation was used. For after `send`, when nobody waits."""
        await self._listing.updated(session, conversation, used=True)

    async def withdraw(self, session: str, command: events.MessageWithdraw) -> bool:
        """Take back a prompt that waits; False where that was done before. Raises NotFound, BadField, Busy."""
        return await self._history.withdraw(session, command.conversation, command.message)

    async def stop(self, session: str, command: events.CompletionStop) -> bool:
        """Stop the running answer, if it is the one meant. Tells whether it was. Raises NotFound."""
        conversation = command.conversation
        answer = await self._history.request_stop(session, conversation, command.message or "")
        if answer is None:
            return False
        await self._turns.wake_for_stop(conversation, answer)
        self._turns.begin(conversation)  # should nobody make it any more: then it ends here
        return True

    async def regenerate(
        self, session: str, command: events.CompletionRegenerate, allowance: Allowance
    ) -> bool:
        """Have a prompt answered once more; False where this very command did before.

        Raises NotFound, BadField, Busy, Overloaded, RateLimited, QuotaSpent.
        """
        with self._turns.room():
            return await self._make_anew(session, command, allowance)

    async def _make_anew(
        self, session: str, command: events.CompletionRegenerate, allowance: Allowance
    ) -> bool:
        known = await self._conversations.conversation(session, command.conversation)
        message = await self._history.message(session, command.conversation, command.message)
        prompt = message["parent"] if message["role"] == "assistant" else message["id"]
        model = self._checked_model(command.model) or known.model_among(self._offered)
        attempt = command.id or str(known.at["offset"])
        answer = derived_id("answer", known.id, message["id"], attempt)
        answers = [each["id"] for each in await self._history.answers(known.id, prompt)]
        new = answer not in answers and (known.turn is None or known.turn.answer != answer)
        if new:
            if message["id"] == prompt and known.turn is None and await self._answered(known.id, prompt):
                raise BadField("The field message is wrong: this prompt has an answer; name the answer.")
            await allowance.prompt()
        async with self._admitted(allowance, known.id) if new else nullcontext():
            made = await self._history.regenerate(
                session=session,
                conversation=known.id,
                prompt=prompt,
                answer=answer,
                model=model,
            )
        self._turns.begin(known.id)
        await self._listing.updated(session, known.id, used=True)
        return made

    async def go_on(self, session: str, command: events.CompletionContinue, allowance: Allowance) -> bool:
        """Have an answer go on where it ended; False where this very command did before.

        Raises NotFound, BadField, Busy, Overloaded, RateLimited, QuotaSpent.
        """
        with self._turns.room():
            return await self._continue(session, command, allowance)

    async def _continue(self, session: str, command: events.CompletionContinue, allowance: Allowance) -> bool:
        known = await self._conversations.conversation(session, command.conversation)
        identity = command.id or "{epoch}.{offset}".format_map(known.at)
        new = not await self._history.has_gone_on(known.id, command.message, identity)
        if new:
            await allowance.prompt()
        async with self._admitted(allowance, known.id) if new else nullcontext():
            made = await self._history.go_on(
                session=session,
                conversation=known.id,
                message=command.message,
                command=identity,
                model=known.model_among(self._offered),
            )
        self._turns.begin(known.id)
        await self._listing.updated(session, known.id, used=True)
        return made

    async def select(self, session: str, command: events.MessageSelect) -> None:
        """Make the branch through a message the current one, for all. Raises NotFound."""
        await self._history.select(session, command.conversation, command.message)

    async def update(self, session: str, command: events.ConversationUpdate) -> ConversationUpdated:
        """Change what belongs to a conversation as a whole. Raises NotFound, BadField, TooLong."""
        changes: dict[str, str] = {}
        if command.title is not None:
            changes |= {"title": one_line(command.title), "titled": BY_PERSON}
            if not has_word(changes["title"]):
                raise BadField("The field title is wrong: it must have a word in it.")
        for flag in ("pinned", "archived"):
            if (value := getattr(command, flag)) is not None:
                changes[flag] = str(int(value))
        if command.system is not None:
            self._check_system(command.system)
            changes["system"] = command.system
        if command.model is not None:
            changes["model"] = self._checked_model(command.model)
        if command.parameters is not None:
            changes["parameters"] = command.parameters.model_dump_json(exclude_none=True)
        if command.pinned or command.archived:
            await self._check_listed(session, command.conversation)
        dropped = ["system"] if command.drops_system else []
        known = await self._conversations.update(session, command.conversation, changes, dropped)
        return await self._listing.changed(session, known)

    async def _check_listed(self, session: str, conversation: str) -> None:
        if (await self._conversations.conversation(session, conversation)).temporary:
            raise BadField("A temporary chat is in no list: it cannot be pinned or archived.")

    async def summary(self, session: str, command: events.ConversationSummary) -> ConversationSummaryEvent:
        """Read what stands for the beginning of the current branch. Raises NotFound."""
        return _summary_event(command, await self._summaries.newest(session, command.conversation))

    async def correct(self, session: str, command: events.SummaryCorrect) -> ConversationSummaryEvent:
        """Replace the words of a summary. Raises NotFound, Conflict, TooLong."""
        most = CORRECTED_CHARACTERS
        text = command.text.strip()
        if len(text) > most:
            raise TooLong(f"The text has {len(text)} characters; at most {most} are taken.")
        corrected = await self._summaries.correct(session, command.conversation, command.message, text)
        return _summary_event(command, corrected)

    async def delete(self, session: str, conversation: str) -> None:
        """Delete a conversation; a running answer is stopped. What a repeat finds undone, it does. Raises NotFound."""
        answer, files = await self._conversations.delete(session, conversation)
        await self._erasure.note(session, conversation)  # in no list any more, and there for a moment yet
        await self._conversations.unlist(session, conversation)
        if answer:
            await self._turns.wake_for_stop(conversation, answer)
        await self._listing.deleted(session, conversation)
        await self._attachments.doom(session, conversation, files)
        await self._shares.doom(session, conversation)

    async def restore(self, session: str, conversation: str) -> ConversationUpdated:
        """Bring back a conversation deleted a moment ago. Raises NotFound."""
        restored, files = await self._conversations.restore(session, conversation)
        await self._attachments.restore(session, conversation, files, temporary=restored.temporary)
        await self._shares.restore(session, conversation)
        await self._erasure.strike(session, conversation)
        return await self._listing.changed(session, restored)

    async def read(self, session: str, conversation: str) -> ConversationUpdated:
        """Note that a person has seen the newest answer of a conversation. Raises NotFound."""
        known = await self._conversations.update(session, conversation, {}, ["unread"])
        return await self._listing.changed(session, known)

    async def about(self, session: str, conversation: str) -> Conversation:
        """Read what is known of a conversation, without its messages. Raises NotFound."""
        return await self._conversations.conversation(session, conversation)

    async def share(self, session: str, command: events.ShareCreate) -> ShareCreated:
        """Keep a copy of the current branch under a link, once for each id. Raises NotFound, BadField."""
        if not self.sharing:
            raise BadField("Sharing is turned off on this server.")
        branch = await self._history.read(
            session, command.conversation, limit=SHARED_MESSAGES, max_bytes=SHARED_BYTES, texts_only=True
        )
        if branch.conversation.temporary:
            raise BadField("A temporary chat cannot be shared: it is gone in an hour.")
        share = await self._shares.create(session, command.id, branch)
        return ShareCreated(id=command.id, share=share.shaped())

    async def shares(self, session: str, command: events.ShareList) -> ShareListed:
        """List the session's shares, the newest first; those of a conversation, where one is named."""
        found = await self._shares.listed(session, command.conversation)
        return ShareListed(id=command.id, shares=[each.shaped() for each in found])

    async def revoke(self, session: str, command: events.ShareRevoke) -> ShareRevoked:
        """Take a link back."""
        await self._shares.revoke(session, command.share)
        return ShareRevoked(id=command.id, share=command.share)

    async def shared(self, token: str) -> Shared | None:
        """Find what is shared under a token; None where there is no such, or its conversation was deleted."""
        found = await self._shares.find(token) if self.sharing else None
        if found is None:
            return None
        try:
            await self._conversations.conversation(found.session, found.conversation)
        except NotFound:
            return None
        return found

    async def answer(
        self, session: str, conversation: str, answer: str
    ) -> tuple[Conversation, dict[str, Any] | None]:
        """Read a conversation's state and an answer as it is stored, None before it began. Raises NotFound."""
        known = await self._conversations.conversation(session, conversation)
        try:
            return known, await self._history.message(session, conversation, answer)
        except NotFound:
            return known, None

    async def _files(self, session: str, conversation: str, ids: Sequence[str]) -> list[Attachment]:
        """Find what a prompt names, each once. Raises NoAttachment."""
        found = await self._attachments.find(session, list(dict.fromkeys(ids)))
        files = [each for each in found if each is not None and each.conversation in ("", conversation)]
        if len(files) < len(found):
            raise NoAttachment("A file of this message is not here any more. Attach it again.")
        return files

    def _check_sees(self, model: str, files: Sequence[Attachment]) -> None:
        if any(is_image(each.type) for each in files) and not self._settings.sees(model):
            label = self._settings.label_of(model)
            raise BadField(f"{label} cannot see pictures. Choose another model, or remove the picture.")

    async def _answered(self, conversation: str, prompt: str) -> bool:
        """Tell whether the newest answer to a prompt did not fail."""
        answers = await self._history.answers(conversation, prompt)
        return bool(answers) and answers[-1]["state"] != "failed"

    def _check_text(self, field: str, text: str) -> None:
        limit = self._settings.max_prompt_chars
        if len(text) > limit:
            raise TooLong(f"The {field} has {len(text)} characters; at most {limit} are taken.")

    def _check_system(self, system: str) -> None:
        if not takes_system(system, self._settings.max_prompt_chars, self._settings.context_tokens):
            self._check_text("system prompt", system)
            raise TooLong("The system takes more than half of what the model can be sent; shorten it.")

    def _choices(self, command: events.MessageSend) -> Choices:
        """Read what a prompt chooses for the conversation that it begins; another one has its own already."""
        if command.conversation is not None:
            return NO_CHOICES
        if command.system is not None:
            self._check_system(command.system)
        parameters = command.parameters.model_dump_json(exclude_none=True) if command.parameters else ""
        return Choices(command.system, parameters, command.temporary)

    @property
    def _offered(self) -> Sequence[str]:
        """The models on offer, the default first."""
        return self._models.offered

    def _checked_model(self, model: str | None) -> str:
        if model is None:
            return ""
        if not self._models.offers(model):
            raise BadField("The field model is wrong: this model is not on offer here.")
        return model

    async def _shaped(self, branch: Branch) -> list[dict[str, Any]]:
        """Add the HTML, off the event loop: fifty long answers take a while."""
        said = "\n".join(message["text"] for message in branch.messages if message["role"] == "assistant")
        if len(said) <= PLAIN_CHARACTERS and not COSTLY.search(said):
            return _with_html(branch.messages)
        return await asyncio.to_thread(_with_html, branch.messages)


def _prompt_of(conversation: str, command: events.MessageSend) -> str:
    return derived_id("message", conversation, command.id)


def _summary_event(
    command: events.ConversationSummary | events.SummaryCorrect, summary: Summary | None
) -> ConversationSummaryEvent:
    return ConversationSummaryEvent(
        id=command.id, conversation=command.conversation, summary=asdict(summary) if summary else None
    )


def _with_html(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shaped = []
    for message in messages:
        if message["role"] == "assistant":
            html = "".join(render(message["text"], running=message["state"] == "running"))
            message = message | {"html": html}
        shaped.append(message)
    return shaped


def _fitting(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Keep the newest messages that a frame has room for; a single one too large goes without its HTML."""
    left = events.MAX_SNAPSHOT_BYTES
    for index in range(len(messages) - 1, -1, -1):
        left -= len(json.dumps(messages[index], ensure_ascii=False).encode())
        if left < 0 and index == len(messages) - 1:
            return [{name: value for name, value in messages[index].items() if name not in SHED}], index > 0
        if left < 0:
            return messages[index + 1 :], True
    return messages, False
