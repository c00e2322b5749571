"""Tells a session's connections, on every instance, what changed in its list of conversations."""

from __future__ import annotations

import logging
from contextlib import suppress

from llmchat.broadcaster import Broadcaster
from llmchat.conversation import Conversation
from llmchat.conversations import Conversations
from llmchat.errors import NO_CONVERSATION, NotFound, Unavailable
from llmchat.events import ConversationDeleted, ConversationUpdated, Event
from llmchat.keys import group_of_session
from llmchat.models import Models

log = logging.getLogger(__name__)


class Listing:
    """What it tells is a courtesy: a connection that misses it lists again."""

    def __init__(self, conversations: Conversations, broadcaster: Broadcaster, models: Models) -> None:
        self._conversations = conversations
        self._broadcaster = broadcaster
        self._models = models

    def _event(self, conversation: Conversation) -> ConversationUpdated:
        """Shape a conversation for the list."""
        return ConversationUpdated(conversation=conversation.listed(self._models.offered))

    async def updated(self, session: str, conversation: str, *, used: bool = False) -> None:
        """Tell that a conversation changed; one that was `used` goes to the head of the list, out of the archive.

        A temporary one is told of to nobody.
        """
        with suppress(Unavailable, NotFound):
            known = await self._conversations.conversation(session, conversation)
            if used and known.archived:
                known = await self._conversations.update(session, conversation, {"archived": "0"})
            if used:
                await self._conversations.touch(session, known)
            await self.changed(session, known)

    async def changed(self, session: str, known: Conversation) -> ConversationUpdated:
        """Tell of a conversation as it was found, and give what was told last, for whoever asked for the change.

        Where it changed meanwhile it is told again: what was read before a change may be told behind it. Raises NotFound
        where it was deleted meanwhile, which is told, too.
        """
        event = self._event(known)
        if known.temporary:
            return event
        now: ConversationUpdated | ConversationDeleted = event
        told = None
        with suppress(Unavailable):
            while told != now:
                await self._tell(session, now)
                told = now
                now = await self._now(session, known.id)
        if isinstance(now, ConversationDeleted):
            raise NotFound(NO_CONVERSATION)
        return now

    async def _now(self, session: str, conversation: str) -> ConversationUpdated | ConversationDeleted:
        try:
            return self._event(await self._conversations.conversation(session, conversation))
        except NotFound:
            return ConversationDeleted(conversation=conversation)

    async def deleted(self, session: str, conversation: str) -> None:
        """Tell that a conversation is gone."""
        with suppress(Unavailable):
            await self._tell(session, ConversationDeleted(conversation=conversation))

    async def _tell(self, session: str, event: Event) -> None:
        await self._broadcaster.group_send(
            group_of_session(session), {"type": "session.event", "frame": event.encode()}
        )
