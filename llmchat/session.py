"""Who you are: the session id in a signed cookie. Pure: knows no request."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress

from itsdangerous import BadSignature, TimestampSigner

COOKIE_SECONDS = 400 * 86_400


class Sessions:
    """Signs session ids with the first key; accepts those of all keys."""

    def __init__(self, secret_key: str, fallbacks: Sequence[str] = ()) -> None:
        self._signer = TimestampSigner([*reversed(fallbacks), secret_key], salt="llmchat.session")

    def new(self) -> str:
        """Make an unguessable session id."""
        return secrets.token_hex(16)

    def read(self, cookies: str | None, *, secure: bool) -> str | None:
        """Find the session in a Cookie header; None without a valid one."""
        for value in _values(cookies or "", cookie_name(secure)):
            with suppress(BadSignature, ValueError):
                return self._signer.unsign(value).decode()  # its age is the browser's to count: clocks differ
        return None

    def cookie(self, session: str, *, secure: bool) -> str:
        """Give the Set-Cookie header's value."""
        value = self._signer.sign(session).decode()
        flags = f"Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        return f"{cookie_name(secure)}={value}; {flags}"


def cookie_name(secure: bool) -> str:
    """Name the cookie: over https with the prefix that browsers guard."""
    return "__Host-llmchat" if secure else "llmchat"


def _values(cookies: str, name: str) -> Iterator[str]:
    """Find all values of a cookie, whatever the other cookies look like: ports of one host share them."""
    for part in cookies.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            yield value
