"""Whatever asking a model server may raise -> a ProviderError, in our words alone. Pure."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2  # the SDK's transport: its errors come where a body is read

from llmchat.errors import ModelMissing, ProviderError, RequestRefused
from llmchat.lean_openai import openai

MAX_WAIT_SECONDS = 86_400.0
"""What is told of a Retry-After, at most."""
NOT_PAID = 402
NOT_IN_TIME = 408
NO_MODEL = "model_not_found"
CONTEXT_CODES = {"context_length_exceeded", "exceed_context_size_error"}
CONTEXT_WORDS = re.compile(
    r"context (length|window|size)|prompt is too long|token count .*exceeds", re.IGNORECASE
)
MODEL_WORDS = re.compile(
    r"(invalid|unknown) model|not a valid model|model\b.{0,100}\b(not (exist|found)|is invalid)",
    re.IGNORECASE,
)
"""How the servers say it that have no code for it, or another status."""


def provider_error(error: Exception) -> ProviderError:
    """Say what it was, to a person and to the log."""
    told = _told(error)
    told.kind = _kind(error)
    return told


def falls_over(error: ProviderError) -> bool:
    """Tell whether another provider may do what one could not: not where the request is what is wrong."""
    if isinstance(error, ModelMissing):
        return True
    return not isinstance(error, RequestRefused) and error.code != "context_too_long"


def retry_after(error: openai.APIError) -> float | None:
    """Read how many seconds to wait, said as a number or as a date; None where it is not said, or in no such way."""
    if not isinstance(error, openai.APIStatusError):
        return None
    said = error.response.headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        seconds = _seconds_until(said)
    return min(max(0.0, seconds), MAX_WAIT_SECONDS) if math.isfinite(seconds) else None


def _told(error: Exception) -> ProviderError:
    match error:
        case openai.AuthenticationError() | openai.PermissionDeniedError():
            return ProviderError(
                "provider_auth", "The model server did not accept this chat's key.", retryable=False
            )
        case openai.APIStatusError(status_code=code) if code == NOT_PAID:
            return ProviderError(
                "provider_auth",
                "The model server asks for money that this chat's account lacks.",
                retryable=False,
            )
        case openai.RateLimitError():
            return ProviderError(
                "provider_rate_limited",
                "The model server is asked too much right now.",
                retryable=True,
                retry_after=retry_after(error),
            )
        case openai.APITimeoutError() if type(error.__cause__).__name__ == "ConnectTimeout":
            # What the SDK's aiohttp transport makes of a refused connection and of an unknown host, too.
            return ProviderError(
                "provider_unavailable", "The model server cannot be reached.", retryable=True
            )
        case openai.APITimeoutError() | httpx2.TimeoutException() | TimeoutError():
            return ProviderError("provider_timeout", "The model server took too long.", retryable=True)
        case openai.APIStatusError(status_code=code) if code == NOT_IN_TIME:
            return ProviderError("provider_timeout", "The model server took too long.", retryable=True)
        case openai.InternalServerError():
            return ProviderError("provider_unavailable", "The model server has a problem.", retryable=True)
        case openai.APIStatusError() if _context_exceeded(error):
            return ProviderError(
                "context_too_long", "This conversation is too long for the model.", retryable=False
            )
        case openai.APIStatusError():
            return ModelMissing() if _model_missing(error) else RequestRefused()
        case openai.APIConnectionError() | httpx2.TransportError() | OSError():
            return ProviderError(
                "provider_unavailable", "The model server cannot be reached.", retryable=True
            )
    return ProviderError("provider_refused", "The model server's answer cannot be read.", retryable=True)


def _kind(error: Exception) -> str:
    """Name it for the log: the status of a response, else what lies at the bottom of it."""
    if isinstance(error, openai.APIStatusError):
        return f"HTTP {error.status_code}"
    while isinstance(error.__cause__, Exception):  # a timeout comes of a cancelling, which tells nothing
        error = error.__cause__
    return type(error).__name__


def _seconds_until(date: str) -> float:
    """Tell how far off an HTTP date is; NaN where it is none."""
    try:
        then = parsedate_to_datetime(date)
    except ValueError:
        return math.nan
    return (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()


def _context_exceeded(error: openai.APIStatusError) -> bool:
    return bool(_codes(error) & CONTEXT_CODES) or CONTEXT_WORDS.search(_words(error)) is not None


def _model_missing(error: openai.APIStatusError) -> bool:
    missing = isinstance(error, openai.NotFoundError) or NO_MODEL in _codes(error)
    return missing or MODEL_WORDS.search(_words(error)) is not None


def _codes(error: openai.APIStatusError) -> set[str]:
    body = error.body if isinstance(error.body, dict) else {}
    return {str(body.get("code")), str(body.get("type"))}


def _words(error: openai.APIStatusError) -> str:
    return str(error.body.get("message")) if isinstance(error.body, dict) else ""
