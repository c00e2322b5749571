"""Who may chat where a password is asked: checks it, and remembers a session that knew it in a signed cookie.

Knows no request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from llmchat.signed_cookie import SignedCookie

ACCESS_SECONDS = 30 * 86_400
KNEW_SECONDS = 400 * 86_400
"""As long as browsers keep a cookie."""
CHECKS_AT_ONCE = 2
"""Of an argon2 hash: each takes 64 MiB for as long as it runs."""


class Access:
    """Lets everybody in where there is no password."""

    def __init__(self, password: str | None, secret_key: str, fallbacks: Sequence[str] = ()) -> None:
        self._password = password
        # Its own, for a check goes on where whoever asked for it has gone.
        self._checks = ThreadPoolExecutor(CHECKS_AT_ONCE, "password")
        # With another password, nobody is signed in any more.
        salt = hashlib.sha256((password or "").encode()).hexdigest()[:16]
        self._cookie = SignedCookie("access", ACCESS_SECONDS, f"access.{salt}", secret_key, fallbacks)
        self._reminder = SignedCookie("knew", KNEW_SECONDS, f"knew.{salt}", secret_key, fallbacks)

    @property
    def required(self) -> bool:
        """Whether a password is asked."""
        return self._password is not None

    def granted(self, cookies: str | None, session: str | None, *, secure: bool) -> int | None:
        """Find after how many sign-outs this session gave the password, by its Cookie header; None if it did not."""
        found = self._cookie.read(cookies, secure=secure, aged=True) or ""
        owner, _, sign_outs = found.partition(".")
        return int(sign_outs or 0) if session is not None and owner == session else None

    def knew(self, cookies: str | None, session: str, *, secure: bool) -> bool:
        """Tell whether this session once gave the password, by its Cookie header; also after it signed out."""
        return self._reminder.read(cookies, secure=secure, aged=True) == session

    async def matches(self, given: str) -> bool:
        """Tell whether `given` is the password."""
        password = self._password or ""
        if not password.startswith("$argon2"):
            return hmac.compare_digest(given.encode(errors="replace"), password.encode())
        checking = asyncio.get_running_loop().run_in_executor
        return await checking(self._checks, _verified, password, given.encode(errors="replace"))

    def close(self) -> None:
        """Check no more."""
        self._checks.shutdown(wait=False, cancel_futures=True)

    def cookie(self, session: str, sign_outs: int, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that lets a session in until its next sign-out."""
        return self._cookie.give(f"{session}.{sign_outs}", secure=secure)

    def reminder(self, session: str, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that says so. It lets nobody in."""
        return self._reminder.give(session, secure=secure)

    def gone(self, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that signs it out."""
        return self._cookie.gone(secure=secure)


def hash_of(password: str) -> str:
    """Hash a password, for ACCESS_PASSWORD."""
    return PasswordHasher().hash(password)


def _verified(password_hash: str, given: bytes) -> bool:
    try:
        return PasswordHasher().verify(password_hash, given)
    except VerifyMismatchError:
        return False
