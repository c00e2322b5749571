"""Who you are while you are anonymous: the session id in a signed cookie. Pure: knows no request."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from llmchat.signed_cookie import SignedCookie

COOKIE_SECONDS = 400 * 86_400
SESSION = re.compile(r"[0-9a-f]{32}")
"""What `Sessions.new` makes."""


class Sessions:
    """Signs session ids with the first key; accepts those of all keys."""

    def __init__(self, secret_key: str, fallbacks: Sequence[str] = ()) -> None:
        self._cookie = SignedCookie("", COOKIE_SECONDS, "session", secret_key, fallbacks)

    def new(self) -> str:
        """Make an unguessable session id."""
        return secrets.token_hex(16)

    def read(self, cookies: str | None, *, secure: bool) -> str | None:
        """Find the session in a Cookie header; None without a valid one."""
        return self._cookie.read(cookies, secure=secure)

    def cookie(self, session: str, *, secure: bool) -> str:
        """Give the Set-Cookie header's value."""
        return self._cookie.give(session, secure=secure)

    def gone(self, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that makes nobody of a browser."""
        return self._cookie.gone(secure=secure)
