"""Conversations, messages and the event log. Knows Redis; knows neither the wire, nor the model, nor who is asking.

What a script of this room places, it also publishes, in the broadcaster's envelope, to the conversation's group.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from redis.asyncio import Redis

from llmchat.conversation import NO_CHOICES, Branch, Choices, Conversation, Summary, Turn, digest, timestamp
from llmchat.conversations import Conversations
from llmchat.errors import NO_CONVERSATION, BadField, Behind, Busy, Conflict, Fenced, NotFound
from llmchat.events import Event, MessageAdded, MessageWithdrawn
from llmchat.keys import Keys
from llmchat.redis_client import available, together
from llmchat.script import Script, Several
from llmchat.turn import MAX_ANSWER_BYTES

LOG_SECONDS = 600
"""An entry of the log goes so long after its event, as soon as another is placed, and the log after its last one: it
bridges reconnects."""
RESUME_ENTRIES = 500
RESUME_BYTES = 512 * 1024
MAX_QUEUED = 20
"""Prompts of a conversation that may wait."""
LOG_LIMITS = (LOG_SECONDS * 1000, RESUME_ENTRIES, 2 * RESUME_BYTES)
"""What the log keeps: milliseconds, entries and bytes, each somewhat more at times."""
BESIDE_TEXT_BYTES = 320
"""Of a message's record, beside its text."""
WORK_ENTRIES = 10_000


@dataclass(frozen=True, slots=True)
class Sent:
    """Where a prompt was stored, now or before."""

    answer: str
    at: dict[str, Any]
    """Of its message.added."""
    now: dict[str, Any]
    """The conversation's place after it."""
    repeated: bool


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where a message would be added: under which parent, beside which others, at which revision of the tree."""

    revision: str
    parent: str
    siblings: list[str]
    free: bool
    """Nothing known speaks against it."""
    queued: bool = False
    """An answer is being made: the prompt has to wait."""


@dataclass(frozen=True, slots=True)
class Work:
    """An entry in the index of work: a conversation that may have a turn. Times are Redis' own."""

    conversation: str
    since_ms: int
    age_seconds: float


TIP = "\0tip"
"""As a parent: the tip of the current branch, whatever it is."""
NO_MESSAGE = "There is no such message in this conversation."
BUSY = "An answer is still being written here. Wait for it or stop it."
FULL = f"{MAX_QUEUED} messages wait for their answers already. Wait for one."
BEGUN = "The answer to this message is being written already. Stop it instead."
COVERED = (
    "The field message is wrong: this answer is so old that a summary tells of it. Ask in a new message."
)
ENDINGS = {"length", "stopped", "interrupted"}
"""What an answer that can be continued has for its finish_reason."""


class History:
    """Every method raises Unavailable when Redis is away; each write may be repeated without harm."""

    def __init__(self, redis: Redis, keys: Keys, conversations: Conversations, *, history_days: int) -> None:
        self._redis = redis
        self._keys = keys
        self._conversations = conversations
        self._several = Several(redis)
        self._retention_ms = history_days * 86_400_000
        self._send = Script(redis, "send")
        self._regenerate = Script(redis, "regenerate")
        self._begin = Script(redis, "begin")
        self._append = Script(redis, "append")
        self._continue = Script(redis, "continue")
        self._withdraw = Script(redis, "withdraw")
        self._hand_over = Script(redis, "hand_over")
        self._recover = Script(redis, "recover")
        self._finish = Script(redis, "finish")
        self._renew = Script(redis, "renew")
        self._select = Script(redis, "select")
        self._stop = Script(redis, "stop")
        self._read = Script(redis, "read")
        self._forget = Script(redis, "forget")
        self._work = Script(redis, "work")
        self._note = Script(redis, "note_work")

    # Prompts and branches

    async def send(
        self,
        *,
        session: str,
        conversation: str,
        new: bool,
        title: str,
        message: str,
        text: str,
        parent: str,
        answer: str,
        model: str,
        attachments: Sequence[dict[str, Any]] = (),
        choices: Choices = NO_CHOICES,
    ) -> Sent:
        """Store a prompt and make its turn takeable, or put it behind those that wait, once for each message id.

        `parent` is a message id, "" for the root, or TIP. With `new` the conversation may begin here, with its `choices`.
        Raises NotFound, BadField, Conflict, and Busy where too many wait.
        """
        keys = self._keys.of_conversation(conversation)
        outcome, rest = "moved", [""]
        while outcome == "moved":  # the tree changed between reading and writing
            spot = await self._where_to_grow(session, conversation, message, parent)
            if (
                spot.free
            ):  # the indexes lie in other slots, and are written before what they lead to: they may be stale
                if new:
                    await self._conversations.announce(session, conversation, temporary=choices.temporary)
                await self._note_work(conversation)
            created = timestamp()
            record: dict[str, Any] = {
                "id": message,
                "role": "user",
                "parent": spot.parent or None,
                "text": text,
                "created": created,
                "state": "done",
            }
            if attachments:
                record["attachments"] = list(attachments)
            shown = record | ({"siblings": [*spot.siblings, message]} if spot.siblings else {})
            if spot.queued:
                shown["state"] = "queued"
            added = MessageAdded(conversation=conversation, message=shown, answer=answer)
            outcome, *rest = _decoded(
                await self._send(
                    [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.queue],
                    *(session, int(new), _new_epoch(), created, title, message, digest(text)[:32]),
                    *(_json(record), spot.revision, spot.parent, answer, model, int(spot.queued), MAX_QUEUED),
                    " ".join(each["id"] for each in attachments),
                    *choices.stored(),
                    *self._placing(added, keys.channel),
                )
            )
        match outcome:
            case "not_found":
                raise NotFound(NO_CONVERSATION)
            case "conflict":
                raise Conflict("This id was used before with another text. Send it with a new id.")
            case "busy":
                raise Busy(FULL)
        answer, epoch, offset = rest[0].split(" ")
        return Sent(answer, _at(epoch, offset), _at(rest[1], rest[2]), repeated=outcome == "repeated")

    async def has_prompt(self, session: str, conversation: str, message: str) -> bool:
        """Tell whether a prompt was stored."""
        keys = self._keys.of_conversation(conversation)
        owner, sent = await self._several(
            [keys.conversation, keys.tree],
            ("HGET", keys.conversation, "session"),
            ("HEXISTS", keys.tree, f"sent:{message}"),
        )
        return bool(sent) and owner.decode() == session

    async def _where_to_grow(self, session: str, conversation: str, message: str, parent: str) -> _Spot:
        """Find where a prompt's message would go. Raises NotFound, BadField."""
        keys = self._keys.of_conversation(conversation)
        (owner, revision, tip), (sent, node, children), running = await self._several(
            [keys.conversation, keys.tree, keys.turn],
            ("HMGET", keys.conversation, "session", "revision", "tip"),
            ("HMGET", keys.tree, f"sent:{message}", parent, f"children:{parent}"),
            ("HGETALL", keys.turn),
        )
        turn = Turn.read(_pairs(running)) if running else None
        if owner is None:
            if parent not in ("", TIP):
                raise NotFound(NO_CONVERSATION)
            return _Spot("0", "", [], free=True)
        if owner.decode() != session or sent is not None:
            return _Spot("", "", [], free=False)  # the script knows what to say
        if parent == TIP:
            end = tip.decode()
            if turn and end and end in (turn.instead, turn.prompt):
                end = turn.answer  # to come
            return _Spot(revision.decode(), end, [], free=True, queued=turn is not None)
        if parent and node is None:
            raise NotFound(NO_MESSAGE)
        if parent and not node.startswith(b"assistant"):
            raise BadField("The field parent is wrong: it must be an answer's id, or null.")
        siblings = children.decode().split() if children else []
        return _Spot(revision.decode(), parent, siblings, free=True, queued=turn is not None)

    async def regenerate(
        self, *, session: str, conversation: str, prompt: str, answer: str, model: str
    ) -> bool:
        """Make a turn for a prompt that is there; False where it was made before. Raises NotFound, Busy."""
        keys = self._keys.of_conversation(conversation)
        await self._note_work(conversation)
        outcome = await self._regenerate(
            [keys.conversation, keys.messages, keys.tree, keys.turn],
            *(session, prompt, answer, model, timestamp(), self._retention_ms),
        )
        if outcome == b"not_found":
            raise NotFound(NO_CONVERSATION)
        if outcome == b"busy":
            raise Busy(BUSY)
        return bool(outcome == b"accepted")

    async def has_gone_on(self, conversation: str, message: str, command: str) -> bool:
        """Tell whether a command had an answer of a conversation that is one's own go on."""
        keys = self._keys.of_conversation(conversation)
        (done,) = await self._several([keys.tree], ("HGET", keys.tree, f"continued:{message}"))
        return done is not None and command in done.decode().split()

    async def go_on(self, *, session: str, conversation: str, message: str, command: str, model: str) -> bool:
        """Make a turn that goes on with an answer, once for each command; False where this one did before.

        Raises NotFound, Busy, and BadField for what is no answer, has an end, or is told by a summary.
        """
        keys = self._keys.of_conversation(conversation)
        await self._note_work(conversation)
        outcome: bytes = b"moved"
        while outcome == b"moved":
            (stored,) = await self._several([keys.messages], ("HGET", keys.messages, message))
            record = json.loads(stored or "{}")
            text = record.get("text", "")
            may = record.get("finish_reason") in ENDINGS and len(text.encode()) < MAX_ANSWER_BYTES
            outcome = await self._continue(
                [keys.conversation, keys.messages, keys.tree, keys.turn, keys.text, keys.reasoning],
                *(session, message, command, stored or "", int(may), text, model, timestamp()),
                self._retention_ms,
            )
        match outcome:
            case b"not_found":
                raise NotFound(NO_MESSAGE)
            case b"busy":
                raise Busy(BUSY)
            case b"bad_field":
                raise BadField("The field message is wrong: this is no answer that can go on.")
            case b"covered":
                raise BadField(COVERED)
        return bool(outcome == b"accepted")

    async def withdraw(self, session: str, conversation: str, message: str) -> bool:
        """Take back a prompt that waits; False where that was done before.

        Raises NotFound, Busy where its turn has come, BadField where it had.
        """
        keys = self._keys.of_conversation(conversation)
        withdrawn = MessageWithdrawn(conversation=conversation, message=message)
        outcome = await self._withdraw(
            [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.queue],
            *(session, message, withdrawn.encode()[:-1], _selected(conversation), keys.channel, *LOG_LIMITS),
        )
        match outcome:
            case b"not_found":
                raise NotFound(NO_MESSAGE)
            case b"busy":
                raise Busy(BEGUN)
            case b"bad_field":
                raise BadField("The field message is wrong: this message does not wait.")
        return bool(outcome == b"ok")

    async def select(self, session: str, conversation: str, message: str) -> None:
        """Make the branch through a message the current one. Raises NotFound."""
        keys = self._keys.of_conversation(conversation)
        outcome = await self._select(
            [keys.conversation, keys.messages, keys.tree, keys.log],
            *(session, message, _selected(conversation), keys.channel, *LOG_LIMITS),
        )
        if outcome == b"not_found":
            raise NotFound(NO_MESSAGE)

    # The turn, by the holder of its fence

    async def begin(
        self,
        conversation: str,
        fence: str,
        attempt: int,
        record: dict[str, Any],
        kept: str,
        started: Event,
        *,
        before: Turn | None = None,
    ) -> bool:
        """Place completion.started, behind the attempts of the turn `before`. Tells whether a stop is wanted.

        Raises Fenced.
        """
        keys = self._keys.of_conversation(conversation)
        return _stop_wanted(
            await self._begin(
                [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.queue, keys.text,
                 keys.reasoning, keys.fence],
                *(fence, record["id"], attempt, record["parent"], _json(record), kept),
                *((before.cost, max(before.furthest, before.said)) if before else (0, 0)),
                *self._placing(started, keys.channel),
            )
        )  # fmt: skip

    async def append(
        self,
        conversation: str,
        fence: str,
        answer: str,
        attempt: int,
        count: int,
        text: str,
        reasoning: str,
        delta: Event,
    ) -> bool:
        """Place the turn's `count`th completion.delta. Tells whether a stop is wanted.

        Raises Fenced, and Behind where the store has lost deltas before it: `recover` puts them back.
        """
        keys = self._keys.of_conversation(conversation)
        return _stop_wanted(
            await self._append(
                [keys.conversation, keys.log, keys.turn, keys.text, keys.reasoning, keys.fence],
                *(fence, answer, attempt, count, text, reasoning, *self._placing(delta, keys.channel)),
            )
        )

    async def recover(
        self,
        conversation: str,
        fence: str,
        attempt: int,
        count: int,
        record: dict[str, Any],
        text: str,
        reasoning: str,
    ) -> None:
        """Put back what the store has lost of the turn's first `count` deltas. Begins a new epoch. Raises Fenced."""
        keys = self._keys.of_conversation(conversation)
        _stop_wanted(
            await self._recover(
                [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.queue, keys.text,
                 keys.reasoning, keys.fence],
                *(fence, record["id"], attempt, count, record["parent"], _json(record), text, reasoning),
                self._retention_ms,
            )
        )  # fmt: skip

    async def finish(
        self,
        conversation: str,
        fence: str,
        attempt: int,
        count: int,
        record: dict[str, Any],
        calibration: float | None,
        ended: Event,
    ) -> None:
        """Place the turn's last event, after `count` deltas, and store the message whole. Raises Fenced."""
        keys = self._keys.of_conversation(conversation)
        without = {name: value for name, value in record.items() if name != "reasoning"}
        _stop_wanted(
            await self._finish(
                [keys.conversation, keys.messages, keys.tree, keys.log, keys.turn, keys.queue, keys.text,
                 keys.reasoning, keys.fence, keys.summaries],
                *(fence, record["id"], attempt, count, _json(without), record.get("reasoning", ""), timestamp()),
                *(str(calibration or ""), *self._placing(ended, keys.channel)),
            )
        )  # fmt: skip

    async def earlier(self, conversation: str, answer: str) -> str:
        """Read the last text of an answer being made that another attempt replaced ("" if none was)."""
        keys = self._keys.of_conversation(conversation)
        (text,) = await self._several([keys.messages], ("HGET", keys.messages, f"earlier:{answer}"))
        return text.decode() if text else ""

    async def hand_over(self, conversation: str, fence: str) -> bool:
        """Let another instance go on with a turn, without an attempt being counted. Tells whether there is one."""
        keys = self._keys.of_conversation(conversation)
        return bool(await self._hand_over([keys.turn, keys.fence], fence))

    async def request_stop(self, session: str, conversation: str, answer: str = "") -> str | None:
        """Make the stop of the answer being made a durable fact, if it is the one meant ("": any).

        Gives its id, None if there is no such. Raises NotFound.
        """
        keys = self._keys.of_conversation(conversation)
        stopped: bytes | None = await self._stop([keys.conversation, keys.turn], session, answer)
        if stopped is None:
            raise NotFound(NO_CONVERSATION)
        return stopped.decode() or None

    async def turn(self, conversation: str) -> tuple[str, Turn] | None:
        """Find the session and the turn of a conversation, if it has one."""
        keys = self._keys.of_conversation(conversation)
        session, turn, said = await self._several(
            [keys.conversation, keys.turn, keys.text],
            ("HGET", keys.conversation, "session"),
            ("HGETALL", keys.turn),
            ("STRLEN", keys.text),
        )
        return (session.decode(), replace(Turn.read(_pairs(turn)), said=said)) if session and turn else None

    async def owner(self, conversation: str) -> str | None:
        """Tell whose a conversation is now: it may have been given to another session while its answer was made."""
        async with available():
            found: Any = await self._redis.hget(
                self._keys.of_conversation(conversation).conversation, "session"
            )
        return found.decode() if found else None

    async def work(self) -> tuple[list[Work], str]:
        """List the conversations that may have a turn; and name the store, which has another name once it started
        anew or failed over ("" where it does not tell).
        """
        time, store, found = await self._work([self._keys.work], WORK_ENTRIES - 1)
        now_ms = _milliseconds_of(time)
        entries = [
            Work(each, int(since), (now_ms - int(since)) / 1000) for each, since in _pairs(found).items()
        ]
        return entries, store.decode()

    async def open_turns(self) -> int:
        """Count the turns of all instances, with what is stale in the index. Raises Unavailable."""
        async with available():
            count: int = await self._redis.zcard(self._keys.work)
        return count

    async def with_turn(self, conversations: Sequence[str]) -> list[bool]:
        """Tell for each conversation whether it has a turn."""
        async with available():
            pipe = together(self._redis)
            for conversation in conversations:
                pipe.exists(self._keys.of_conversation(conversation).turn)
            return [bool(found) for found in await pipe.execute()]

    async def stop_wanted(self, conversation: str) -> bool:
        """Tell whether the stop of the turn is wanted."""
        async with available():
            return await self._redis.hget(self._keys.of_conversation(conversation).turn, "stop") is not None

    async def forget_work(self, entry: Work) -> None:
        """Take a stale entry off the index of work, unless it was renewed."""
        await self._forget([self._keys.work], entry.conversation, entry.since_ms)

    async def keep_findable(self, conversation: str) -> None:
        """Put a conversation that has a turn on the index of work, where it is not there: that lies on another server."""
        async with available():
            await self._redis.zadd(self._keys.work, {conversation: 0}, nx=True)

    async def _note_work(self, conversation: str) -> None:
        await self._note([self._keys.work], conversation)

    # Reading

    async def read(
        self,
        session: str,
        conversation: str,
        *,
        start: str = "",
        above: bool = False,
        limit: int,
        max_bytes: int,
        texts_only: bool = False,
        to_summary: bool = False,
    ) -> Branch:
        """Read a branch upwards from `start` (the tip if ""; from its parent with `above`), in one step.

        Reads at most `limit` messages and `max_bytes` of them, but always one. With `texts_only` it leaves the
        reasoning out, and counts hardly more than the texts. With `to_summary` it ends before a message, other than the
        first, that a summary stands for, and gives that; where it ended earlier, one of at most `limit` messages further up.

        Raises NotFound.
        """
        keys = self._keys.of_conversation(conversation)
        found = await self._read(
            [
                keys.conversation,
                keys.messages,
                keys.tree,
                keys.turn,
                keys.queue,
                keys.text,
                keys.reasoning,
                keys.summaries,
            ],
            *(session, start, int(above), limit, max_bytes),
            *((BESIDE_TEXT_BYTES, 0) if texts_only else (0, 1)),
            int(to_summary),
        )
        if found is None:
            raise NotFound(NO_MESSAGE if start else NO_CONVERSATION)
        state, turn, text, waiting, reasoning, records, reasonings, parents, siblings, more, summary = found
        known = Conversation.read(conversation, _pairs(state), _pairs(turn))
        queued = {entry.partition(b" ")[0].decode() for entry in waiting}
        if known.turn and known.turn.queued:
            queued.add(known.turn.prompt)
        messages = []
        found = zip(records, reasonings, parents, siblings, strict=True)
        for record, reasons, parent, ids in reversed(list(found)):
            message = json.loads(record) | {
                "parent": parent.decode() or None,
                "siblings": ids.decode().split(),
            }
            if message["id"] in queued:
                message["state"] = "queued"
            if known.turn and message["id"] == known.turn.answer:
                message["text"] = text.decode()
                reasons = reasoning
            if reasons:
                message["reasoning"] = reasons.decode()
            messages.append(message)
        return Branch(known, messages, bool(more), Summary.read(*summary) if summary else None)

    async def message(self, session: str, conversation: str, message: str) -> dict[str, Any]:
        """Read one message. Raises NotFound."""
        branch = await self.read(session, conversation, start=message, limit=1, max_bytes=0)
        if branch.messages[0]["id"] != message:  # an answer to come
            raise NotFound(NO_MESSAGE)
        return branch.messages[0]

    async def answers(self, conversation: str, prompt: str) -> list[dict[str, Any]]:
        """Read the answers to a prompt of a conversation that is one's own, oldest first, as they are stored."""
        keys = self._keys.of_conversation(conversation)
        async with available():
            children: Any = await self._redis.hget(keys.tree, f"children:{prompt}")
            records = await self._redis.hmget(keys.messages, children.decode().split()) if children else []
        return [json.loads(record) for record in records if record]

    async def after(
        self, session: str, conversation: str, epoch: str, offset: int
    ) -> tuple[list[str], dict[str, Any]]:
        """Read the frames after a place, and the place they lead to.

        Raises NotFound, and LookupError where the log does not have them all: another epoch, the future, too long ago,
        or more than RESUME_ENTRIES or RESUME_BYTES, where a snapshot is shorter.
        """
        keys = self._keys.of_conversation(conversation)
        (owner, deleted, now_epoch, now_offset), entries = await self._several(
            [keys.conversation, keys.log],
            ("HMGET", keys.conversation, "session", "deleted", "epoch", "offset"),
            ("XRANGE", keys.log, f"{offset + 1}-0", "+", "COUNT", RESUME_ENTRIES + 1),
        )
        if owner is None or owner.decode() != session or deleted is not None:
            raise NotFound(NO_CONVERSATION)
        frames: list[bytes] = [fields[1] for _, fields in entries]
        if int(now_offset) < offset:  # what was told is lost, or was never there
            await self._renew([keys.conversation, keys.log], session, epoch, offset)
        complete = len(frames) == int(now_offset) - offset and len(frames) <= RESUME_ENTRIES
        if now_epoch.decode() != epoch or not complete or sum(map(len, frames)) > RESUME_BYTES:
            raise LookupError(conversation)
        return [frame.decode() for frame in frames], _at(epoch, now_offset)

    def _placing(self, event: Event, channel: str) -> tuple[str | int, ...]:
        """Give the arguments with which every placing script ends."""
        return event.encode()[:-1], channel, *LOG_LIMITS, self._retention_ms


def _selected(conversation: str) -> str:
    """Give the beginning of a conversation.selected, up to the id that only the script knows."""
    return f'{{"type":"conversation.selected","conversation":"{conversation}","message":"'


def _stop_wanted(outcome: list[bytes]) -> bool:
    if outcome[0] == b"fenced":
        raise Fenced
    if outcome[0] == b"behind":
        raise Behind
    return outcome[1] == b"1"


def _milliseconds_of(time: list[bytes]) -> int:
    return int(time[0]) * 1000 + int(time[1]) // 1000


def _new_epoch() -> str:
    return secrets.token_hex(6)


def _at(epoch: str, offset: str | int) -> dict[str, Any]:
    return {"epoch": epoch, "offset": int(offset)}


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _decoded(outcome: list[bytes]) -> list[str]:
    return [part.decode() for part in outcome]


def _pairs(flat: list[bytes]) -> dict[str, str]:
    texts = _decoded(flat)
    return dict(zip(texts[::2], texts[1::2], strict=True))
