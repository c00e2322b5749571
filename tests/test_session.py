"""Who somebody is: cookies signed, read, forged and mangled."""

from __future__ import annotations

from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.events import ID
from llmchat.session import COOKIE_SECONDS, Sessions
from llmchat.signed_cookie import cookie_name

KEY = "0123456789" * 4
OTHER_KEY = "abcdefghij" * 4
LATIN_1 = st.characters(max_codepoint=255)

SESSIONS = Sessions(KEY)


def sent_back(sessions: Sessions, session: str, *, secure: bool = False) -> str:
    """The Cookie header of a browser that was given the session."""
    return sessions.cookie(session, secure=secure).partition(";")[0]


@pytest.mark.parametrize("secure", [False, True])
def test_session_is_read_from_the_cookie_that_it_was_given(secure: bool) -> None:
    session = SESSIONS.new()
    assert SESSIONS.read(sent_back(SESSIONS, session, secure=secure), secure=secure) == session


def test_sessions_are_new_every_time_and_sound_ids() -> None:
    made = {SESSIONS.new() for _ in range(100)}
    assert len(made) == 100
    assert all(ID.fullmatch(session) and len(session) == 32 for session in made)


@pytest.mark.parametrize("secure", [False, True])
def test_cookie_has_its_flags(secure: bool) -> None:
    jar = SimpleCookie(SESSIONS.cookie("s1", secure=secure))
    [(name, cookie)] = jar.items()
    assert name == cookie_name("", secure)
    assert name.startswith("__Host-") == secure
    assert cookie["path"] == "/"
    assert cookie["domain"] == ""
    assert cookie["max-age"] == str(COOKIE_SECONDS)
    assert cookie["samesite"] == "Lax"
    assert cookie["httponly"] is True
    assert bool(cookie["secure"]) is secure


@pytest.mark.parametrize("secure", [False, True])
def test_session_is_not_read_from_the_cookie_of_the_other_scheme(secure: bool) -> None:
    cookies = sent_back(SESSIONS, "s1", secure=not secure)
    assert SESSIONS.read(cookies, secure=secure) is None


@pytest.mark.parametrize(
    "cookies", [None, "", ";", "llmchat", "llmchat=", "llmchat=s1", "llmchat=s1.x.y", "=;=;"]
)
def test_nobody_is_read_from_a_header_without_a_valid_cookie(cookies: str | None) -> None:
    assert SESSIONS.read(cookies, secure=False) is None


def test_session_of_another_key_is_nobody() -> None:
    assert SESSIONS.read(sent_back(Sessions(OTHER_KEY), "s1"), secure=False) is None


def test_session_of_an_old_key_is_read_when_it_is_a_fallback() -> None:
    rotated = Sessions(KEY, [OTHER_KEY, "third" * 8])
    for key in (KEY, OTHER_KEY, "third" * 8):
        assert rotated.read(sent_back(Sessions(key), "s1"), secure=False) == "s1"


def test_session_is_signed_with_the_first_key_when_there_are_fallbacks() -> None:
    cookies = sent_back(Sessions(KEY, [OTHER_KEY]), "s1")
    assert SESSIONS.read(cookies, secure=False) == "s1"
    assert Sessions(OTHER_KEY).read(cookies, secure=False) is None


@pytest.mark.parametrize(
    "other",
    [
        "theme=dark",
        "a/b=1",
        "a,b=1",
        "a[]=1",
        "@x=1",
        "path=/",
        "secure",
        "foo bar=1",
        'j={"a": "b"}',
        '{"a": 1}',
        'j="unclosed',
        "=v",
        "x=é",
        "llmchat=forged",
    ],
)
def test_session_is_read_when_its_cookie_is_among_others(other: str) -> None:
    mine = sent_back(SESSIONS, "s1")
    assert SESSIONS.read(f"{other}; {mine}", secure=False) == "s1"
    assert SESSIONS.read(f"{mine}; {other}", secure=False) == "s1"


def test_session_is_read_by_an_instance_whose_clock_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cookies = sent_back(SESSIONS, "s1")
    with monkeypatch.context() as patch:
        patch.setattr("itsdangerous.timed.TimestampSigner.get_timestamp", lambda _: 1_000_000_000)
        assert SESSIONS.read(cookies, secure=False) == "s1"


@given(st.text(LATIN_1) | st.text('ab/=;, "\\@{}[]é'), st.booleans())
def test_nothing_is_raised_whatever_the_header(cookies: str, secure: bool) -> None:
    assert SESSIONS.read(cookies, secure=secure) is None


@given(st.text(LATIN_1.filter(lambda character: character != ";"), max_size=60))
def test_nothing_is_raised_whatever_the_value(value: str) -> None:
    assert SESSIONS.read(f"llmchat={value}", secure=False) is None


@given(st.data())
def test_nobody_becomes_another_when_a_cookie_is_tampered_with(data: st.DataObject) -> None:
    cookies = sent_back(SESSIONS, "session-of-mine")
    place = data.draw(st.integers(len("llmchat="), len(cookies) - 1))
    character = data.draw(st.sampled_from("abcXYZ019-_."))
    tampered = cookies[:place] + character + cookies[place + 1 :]
    assert SESSIONS.read(tampered, secure=False) in (None, "session-of-mine")
    assert (SESSIONS.read(tampered, secure=False) is None) or tampered[:-1] == cookies[:-1]
