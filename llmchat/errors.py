"""The tree of errors. Each says whose fault it is and carries the code that a client gets.

LlmchatError
├── SettingsError            the operator's: a variable is missing or malformed
├── StartError               the operator's: a port, a folder or a part of the machine
├── CommandError             the client's: becomes an `error` event
│   ├── BadFrame             not JSON, not an object, binary
│   ├── UnknownType          not a command
│   ├── BadField             a field missing, mistyped, malformed or impossible
│   ├── TooLong              a text over the limit
│   ├── NotFound             no such conversation or message, or another session's
│   ├── Conflict             an id used before with another text
│   ├── Busy                 an answer is running
│   │   └── Overloaded       this instance has as much to do as it can
│   ├── NoAttachment         a file of a prompt is not there, or not for this conversation
│   ├── RateLimited          so much at once is more than a session or an address may
│   ├── QuotaSpent           the tokens of the day are used up
│   └── Unavailable          Redis is away, full or read-only (ours to mend, the client's to repeat)
├── AttachmentRefused        the client's: a file that is not taken, said by HTTP
├── Unreadable               the client's: a file of chats, or one of its chats, that cannot be read
├── Fenced                   ours: another instance holds the turn now
├── Behind                   ours: the store has lost some of the answer that is being made
└── ProviderError            the model server's: becomes `completion.failed`
    └── RequestRefused       it does not take what it was asked: less of it may do
        └── ModelMissing     it does not have the model that it was asked for: another provider may
"""

from __future__ import annotations

import math

MINUTE = 60
PROVIDER_CODES = (
    "provider_unavailable",
    "provider_timeout",
    "provider_auth",
    "provider_rate_limited",
    "provider_refused",
    "context_too_long",
)
"""Of what a model server may answer."""
NO_CONVERSATION = "There is no such conversation."


class LlmchatError(Exception):
    """The root of everything this package raises on purpose."""


class SettingsError(LlmchatError):
    """A variable is missing or malformed; the text is one line that names it."""


class StartError(LlmchatError):
    """Something that a start needs cannot be had; the text is one line that says what to do."""


class CommandError(LlmchatError):
    """What a command ends in when it cannot be carried out. `detail` is a sentence for a person."""

    code = "internal"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after: int | None = None
        """In seconds, where waiting helps."""
        self.id: str | None = None
        """Of the command, where it could be read."""


class BadFrame(CommandError):
    """The frame is no JSON object."""

    code = "bad_frame"


class UnknownType(CommandError):
    """The frame's type is not a command."""

    code = "unknown_type"


class BadField(CommandError):
    """A field is missing, mistyped, malformed or asks for what cannot be."""

    code = "bad_field"


class TooLong(CommandError):
    """A text is over the limit."""

    code = "too_long"


class NotFound(CommandError):
    """No such conversation or message, or another session's: nobody can tell which."""

    code = "not_found"


class Conflict(CommandError):
    """The id was used before with another text."""

    code = "conflict"


class Busy(CommandError):
    """An answer is running in this conversation."""

    code = "busy"


class Overloaded(Busy):
    """This instance has as much to do as it can: nothing was done. `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"The server has very much to do just now. Try again in {in_words(retry_after)}.")
        self.retry_after = retry_after


class NoAttachment(CommandError):
    """A file that a prompt names is not there any more, is another session's or another conversation's."""

    code = "no_attachment"


class RateLimited(CommandError):
    """More than a session, or an address, may do in a minute. `retry_after` is in seconds."""

    code = "rate_limited"

    def __init__(self, retry_after: float, why: str = "That was a lot at once.") -> None:
        seconds = math.ceil(retry_after)
        super().__init__(f"{why} Try again in {in_words(seconds)}.")
        self.retry_after = seconds


class QuotaSpent(CommandError):
    """What is left of the day's tokens is too little for an answer. `retry_after` is in seconds, until the next day."""

    code = "quota"

    def __init__(self, whose: str, retry_after: int) -> None:
        super().__init__(
            f"{whose} tokens for today are used up, or too few for this. There are new ones in {in_words(retry_after)}."
        )
        self.retry_after = retry_after


class Unavailable(CommandError):
    """Redis is away, full or read-only. A repeat with the same id is safe, and stores nothing twice."""

    code = "unavailable"

    def __init__(self, detail: str = "The store cannot be reached now. Try again in a moment.") -> None:
        super().__init__(detail)


class AttachmentRefused(LlmchatError):
    """A file is not taken. `status` is HTTP's, `detail` a sentence for a person."""

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after = retry_after
        """In seconds, where waiting helps."""


class SignInFailed(LlmchatError):
    """An OpenID sign-in came to nothing. `status` is HTTP's, `detail` a sentence for a person; neither has a word of the provider's."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Unreadable(LlmchatError):
    """A file of chats, or a chat in it, cannot be read; `why` is a sentence for a person."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Fenced(LlmchatError):
    """The turn was taken by another instance: nothing was written and nothing may be."""


class Behind(LlmchatError):
    """The store has lost what was placed of the answer: its maker has it still, and puts it back."""


class ProviderError(LlmchatError):
    """The model server refused, hung or broke off.

    `code` is the protocol's, `detail` a sentence for a person, `kind` what the log calls it; none holds a word of the
    provider's.
    """

    kind = ""

    def __init__(self, code: str, detail: str, *, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after


class RequestRefused(ProviderError):
    """The model server does not take what it was asked, whatever it is; a request of another form may do."""

    def __init__(self, detail: str = "The model server refused the request.") -> None:
        super().__init__("provider_refused", detail, retryable=True)


class ModelMissing(RequestRefused):
    """The model server does not have the model that it was asked for."""


def in_words(seconds: int) -> str:
    """Say for a person how long something takes; a length of minutes and more is rounded up to whole ones."""
    if seconds <= 2 * MINUTE:
        return _counted(seconds, "second")
    hours, minutes = divmod(math.ceil(seconds / MINUTE), MINUTE)
    parts = [_counted(number, unit) for number, unit in ((hours, "hour"), (minutes, "minute")) if number]
    return " ".join(parts)


def _counted(number: int, unit: str) -> str:
    return f"{number} {unit}{'s' * (number != 1)}"
