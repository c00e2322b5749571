"""Every Redis key, hash tag, group and channel name, in one place. Pure.

Everything of one conversation carries the hash tag of its group, so that a Cluster keeps it together.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

TURNS = "turns"
"""The group that every instance's turns listen to: wake-ups of stops, and turns that are given away."""


def group_of_conversation(conversation: str) -> str:
    """Name the group of all who have this conversation open."""
    return f"conversation.{conversation}"


def group_of_session(session: str) -> str:
    """Name the group of all connections of one session."""
    return f"session.{session}"


def redis_channel(prefix: str, kind: str, name: str) -> str:
    """Name the Redis channel of a "group", a "channel" or a "heartbeat"."""
    return f"{prefix}:{kind}:{{{name}}}"


def named(key: str) -> str:
    """Give the id in a key's hash tag: of a conversation, a session, a share or a file."""
    return key.partition("{")[2].partition("}")[0].partition(".")[2]


@dataclass(frozen=True, slots=True)
class ConversationKeys:
    """The keys of one conversation: one slot, one owner."""

    conversation: str
    """hash: session, epoch, offset, revision, tip, title, times, model, parameters, …"""
    messages: str
    """hash: message id → JSON record"""
    tree: str
    """hash: parents, children, chosen branches, the ids of sent prompts and of files"""
    log: str
    """stream: the placed events of the last minutes, entry id `offset-0`"""
    turn: str
    """hash: the answer being made; absent when none is"""
    queue: str
    """list: prompts whose answer waits its turn"""
    text: str
    """string: the text so far of the answer being made"""
    reasoning: str
    """string: likewise its reasoning"""
    fence: str
    """string: the highest fencing token given out"""
    lease: str
    """string with a TTL: who makes the answer now"""
    summaries: str
    """hash: message id → JSON of the summary of all up to it"""
    fold: str
    """hash: the summary that is wanted"""
    fold_fence: str
    """string: as fence, of who makes it"""
    fold_lease: str
    """string with a TTL: who makes it now"""
    channel: str
    """The Redis channel of the conversation's group."""

    @property
    def all(self) -> list[str]:
        """All keys that hold something of it, the conversation's own first."""
        return [getattr(self, each.name) for each in fields(self) if each.name != "channel"]


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys under one prefix: two prefixes on one Redis never meet."""

    prefix: str

    def of_conversation(self, conversation: str) -> ConversationKeys:
        """Name the keys of a conversation."""
        return _of_conversation(self.prefix, conversation)

    def conversations(self, session: str) -> str:
        """Name the sorted set of a session's conversations: id → time of last use, in ms."""
        return self._of_session(session, "conversations")

    def pinned(self, session: str) -> str:
        """Name the sorted set of a session's pinned conversations: id → time of last use, in ms. May hold stale ones."""
        return self._of_session(session, "pinned")

    def archived(self, session: str) -> str:
        """Likewise, of its archived ones."""
        return self._of_session(session, "archived")

    def temporary(self, session: str) -> str:
        """Likewise, of its temporary ones, which are in no other set."""
        return self._of_session(session, "temporary")

    def loose(self, session: str) -> str:
        """Likewise, of those that may be there and are in no other set: just deleted, or being imported."""
        return self._of_session(session, "loose")

    def leaving(self, session: str) -> str:
        """Likewise, of those that are being given to another session: what its other sets had when that began."""
        return self._of_session(session, "leaving")

    def moved(self, session: str) -> str:
        """Name the session that has all of an anonymous one, whose cookies are nobody's any more."""
        return self._of_session(session, "moved")

    def formers(self, session: str) -> str:
        """Name the sorted set of anonymous sessions whose chats became a person's: session → since when, in ms; 0: to the last one."""
        return self._of_session(session, "formers")

    def logins(self, session: str) -> str:
        """Name the hash of a person's logins: id → JSON."""
        return self._of_session(session, "logins")

    def person(self, digest: str) -> str:
        """Name the session of a person, whom a digest of the provider's name and its name for the person tells."""
        return f"{self.prefix}:person:{digest}"

    def coming(self, session: str) -> str:
        """Name the sorted set of what is on its way to a session: id → since when, in ms."""
        return self._of_session(session, "coming")

    def format(self, session: str) -> str:
        """Name the version of the form in which a session's data lies."""
        return self._of_session(session, "format")

    def prompts(self, session: str) -> str:
        """Name the hash of a session's starting prompts."""
        return self._of_session(session, "prompts")

    def shares(self, session: str) -> str:
        """Name the hash of a session's shared snapshots: token → JSON."""
        return self._of_session(session, "shares")

    def revoked(self, session: str) -> str:
        """Name the sorted set of a session's links that were taken back: token → when, in ms."""
        return self._of_session(session, "revoked")

    def share(self, token: str) -> str:
        """Name the hash of a shared snapshot."""
        return f"{self.prefix}:{{share.{token}}}:share"

    @property
    def of_sessions(self) -> str:
        """The pattern of all that all sessions have under their own hash tags."""
        return self._of_session("*", "*")

    def _of_session(self, session: str, name: str) -> str:
        return f"{self.prefix}:{{{group_of_session(session)}}}:{name}"

    def limit(self, kind: str, who: str) -> str:
        """Name the allowance of a session or an address: the time at which it will be full again, in ms."""
        return f"{self.prefix}:limit:{kind}:{who}"

    def answering(self, who: str) -> str:
        """Name the sorted set of conversations that are answered for a session or an address: entry → until when, in ms."""
        return f"{self.prefix}:answering:{who}"

    def spent(self, day: str, who: str) -> str:
        """Name the count of tokens that a session, an address or all have used on a day."""
        return f"{self.prefix}:spent:{day}:{who}"

    def sign_outs(self, session: str) -> str:
        """Name the count of a session's sign-outs."""
        return f"{self.prefix}:sign-outs:{session}"

    def attachment(self, attachment: str) -> str:
        """Name the hash of what is known of a file."""
        return f"{self.prefix}:{{attachment.{attachment}}}:facts"

    def attachment_bytes(self, attachment: str) -> str:
        """Name a file's bytes."""
        return f"{self.prefix}:{{attachment.{attachment}}}:bytes"

    def attachments_of(self, session: str) -> str:
        """Name the sorted set of a session's files: bytes and id → when it goes, in ms. Their sum is under `…:bytes`."""
        return self._of_session(session, "attachments")

    @property
    def attachments(self) -> str:
        """The sorted set of all files, as `attachments_of`."""
        return f"{self.prefix}:{{attachments}}"

    @property
    def probe(self) -> str:
        """The key that is written to see whether anything can be."""
        return f"{self.prefix}:{{probe}}"

    @property
    def probe_channel(self) -> str:
        """The channel that is published to, to see whether anything can be. It shares the probe's slot."""
        return redis_channel(self.prefix, "group", "probe")

    def shelf(self, version: str) -> str:
        """Name the bundle of a version of the page's files."""
        return f"{self.prefix}:static:{version}"

    @property
    def folds(self) -> str:
        """The sorted set of conversations that a summary is wanted of: id → when that was last noted, in seconds. May hold stale ones."""
        return f"{self.prefix}:folds"

    @property
    def work(self) -> str:
        """The sorted set of conversations with a turn: id → time it began, in ms. May hold stale entries."""
        return f"{self.prefix}:work"


@lru_cache(maxsize=256)  # of answers being made, each asks for them many times a second
def _of_conversation(prefix: str, conversation: str) -> ConversationKeys:
    group = group_of_conversation(conversation)
    stem = f"{prefix}:{{{group}}}"
    return ConversationKeys(
        conversation=f"{stem}:conversation",
        messages=f"{stem}:messages",
        tree=f"{stem}:tree",
        log=f"{stem}:log",
        turn=f"{stem}:turn",
        queue=f"{stem}:queue",
        text=f"{stem}:text",
        reasoning=f"{stem}:reasoning",
        fence=f"{stem}:fence",
        lease=f"{stem}:lease",
        summaries=f"{stem}:summaries",
        fold=f"{stem}:fold",
        fold_fence=f"{stem}:fold-fence",
        fold_lease=f"{stem}:fold-lease",
        channel=redis_channel(prefix, "group", group),
    )
