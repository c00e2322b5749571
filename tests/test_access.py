"""The password: which is taken, and what a session that gave it carries from then on."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from llmchat import access as access_room
from llmchat.access import CHECKS_AT_ONCE, Access, hash_of

KEY, OTHER_KEY = "0123456789abcdef" * 2, "fedcba9876543210" * 2
PASSWORD = "correct horse € battery"
ACCESS = Access(PASSWORD, KEY)


def carried(access: Access, session: str, *, secure: bool = False) -> str:
    """Return the Cookie header of a browser that got the cookie."""
    return access.cookie(session, 0, secure=secure).partition(";")[0]


@pytest.mark.parametrize("kept", [PASSWORD, hash_of(PASSWORD)], ids=["in the clear", "hashed"])
@pytest.mark.parametrize(
    ("given", "right"),
    [
        (PASSWORD, True),
        (PASSWORD + " ", False),
        (PASSWORD.upper(), False),
        ("", False),
        ("\ud800", False),
        ("$argon2id$", False),
    ],
)
async def test_password_is_taken_when_it_is_the_one(kept: str, given: str, right: bool) -> None:
    assert await Access(kept, KEY).matches(given) == right


async def test_hash_is_no_password() -> None:
    kept = hash_of(PASSWORD)
    assert not await Access(kept, KEY).matches(kept)


def test_no_password_is_asked_when_there_is_none() -> None:
    assert not Access(None, KEY).required
    assert ACCESS.required


@pytest.mark.parametrize("secure", [False, True])
def test_session_that_gave_it_is_let_in_and_no_other(secure: bool) -> None:
    cookies = carried(ACCESS, "s1", secure=secure)
    assert ACCESS.granted(cookies, "s1", secure=secure) == 0
    assert ACCESS.granted(cookies, "s2", secure=secure) is None
    assert ACCESS.granted(cookies, None, secure=secure) is None
    assert ACCESS.granted(cookies, "s1", secure=not secure) is None
    assert ACCESS.granted(None, "s1", secure=secure) is None
    assert ACCESS.granted(cookies + "x", "s1", secure=secure) is None
    later = ACCESS.cookie("s1", 7, secure=secure).partition(";")[0]
    assert ACCESS.granted(later, "s1", secure=secure) == 7


def test_session_that_once_knew_it_is_told_by_a_cookie_that_lets_nobody_in() -> None:
    access, other = (Access(password, "k" * 40) for password in ("a password", "another one"))
    carried = access.reminder("mine", secure=False).split(";")[0]
    assert access.knew(carried, "mine", secure=False)
    assert not access.knew(carried, "yours", secure=False)
    assert not other.knew(carried, "mine", secure=False)
    assert access.granted(carried, "mine", secure=False) is None


def test_another_password_signs_everybody_out() -> None:
    assert Access("another password", KEY).granted(carried(ACCESS, "s1"), "s1", secure=False) is None


def test_keys_are_rotated_like_those_of_sessions() -> None:
    rotated = Access(PASSWORD, OTHER_KEY, [KEY])
    assert rotated.granted(carried(ACCESS, "s1"), "s1", secure=False) == 0
    assert Access(PASSWORD, OTHER_KEY).granted(carried(ACCESS, "s1"), "s1", secure=False) is None


def test_grant_ends_after_thirty_days(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = carried(ACCESS, "s1")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 30 * 86_400 + 60)
    assert ACCESS.granted(cookies, "s1", secure=False) is None
    monkeypatch.setattr("time.time", lambda: now - 60)  # an instance whose clock is behind
    assert ACCESS.granted(cookies, "s1", secure=False) == 0


def test_cookie_is_guarded_by_the_browser() -> None:
    given = ACCESS.cookie("s1", 0, secure=True)
    assert given.startswith("__Host-llmchat-access=")
    assert {"Path=/", "HttpOnly", "SameSite=Lax", "Secure"} <= set(given.split("; "))
    assert "Secure" not in ACCESS.cookie("s1", 0, secure=False)
    assert "Max-Age=0" in ACCESS.gone(secure=True)


async def test_checks_are_few_at_once_also_of_guesses_that_were_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    running, most, go_on = 0, 0, threading.Event()

    def slow(password_hash: str, given: bytes) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        go_on.wait(20)
        running -= 1
        return True

    monkeypatch.setattr(access_room, "_verified", slow)
    access = Access(hash_of(PASSWORD), KEY)
    for _ in range(10):
        guess = asyncio.create_task(access.matches("a guess"))
        await asyncio.sleep(0)
        guess.cancel()
        await asyncio.gather(guess, return_exceptions=True)
    last = asyncio.create_task(access.matches("a guess"))
    go_on.set()
    assert await last
    assert most <= CHECKS_AT_ONCE
    access.close()
