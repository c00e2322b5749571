"""A cookie whose value only we can make. Pure: knows neither session nor password."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

from itsdangerous import BadSignature, TimestampSigner


class SignedCookie:
    """A cookie whose value only we can make; signed with the first key, read with all."""

    def __init__(
        self, name: str, seconds: int, salt: str, secret_key: str, fallbacks: Sequence[str] = ()
    ) -> None:
        self._name = name
        self._seconds = seconds
        self._signer = TimestampSigner([*reversed(fallbacks), secret_key], salt=f"llmchat.{salt}")

    def read(self, cookies: str | None, *, secure: bool, aged: bool = False) -> str | None:
        """Find the value in a Cookie header; None without a valid one, with `aged` also where it is too old."""
        for value in _values(cookies or "", cookie_name(self._name, secure)):
            with suppress(BadSignature, ValueError):
                found, signed = self._signer.unsign(value, return_timestamp=True)
                if not aged or time.time() - signed.timestamp() <= self._seconds:
                    return found.decode()
        return None

    def give(self, value: str, *, secure: bool) -> str:
        """Give the Set-Cookie header's value."""
        return self._header(self._signer.sign(value).decode(), self._seconds, secure)

    def gone(self, *, secure: bool) -> str:
        """Give the Set-Cookie header's value that takes the cookie away."""
        return self._header("", 0, secure)

    def _header(self, value: str, seconds: int, secure: bool) -> str:
        flags = f"Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        return f"{cookie_name(self._name, secure)}={value}; {flags}"


def cookie_name(name: str, secure: bool) -> str:
    """Name a cookie: over https with the prefix that browsers guard."""
    return ("__Host-" if secure else "") + "llmchat" + (f"-{name}" if name else "")


def _values(cookies: str, name: str) -> Iterator[str]:
    """Find all values of a cookie, whatever the other cookies look like: ports of one host share them."""
    for part in cookies.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            yield value
