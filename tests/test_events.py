"""Frames in, whatever they hold; events out, as the protocol spells them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat import events
from llmchat.errors import BadField, BadFrame, CommandError, UnknownType
from llmchat.events import COMMANDS, ID, Command, Event, parse_frame

AT = {"epoch": "e1", "offset": 7}

# command -> all its fields, those of docs/protocol.md, with values that are right; the optional ones second
FIELDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "conversation.open": ({"conversation": "c1"}, {"after": AT}),
    "conversation.close": ({"conversation": "c1"}, {}),
    "conversation.older": ({"conversation": "c1", "before": "m1"}, {"limit": 50}),
    "conversation.list": (
        {},
        {
            "before": "2026-11-22T10:00:00.000Z",
            "limit": 1,
            "query": "tides",
            "pinned": True,
            "archived": False,
        },
    ),
    "conversation.search": ({"query": "tides"}, {"limit": 1}),
    "conversation.update": (
        {"conversation": "c1"},
        {
            "title": "New",
            "pinned": True,
            "archived": False,
            "system": "Be kind.",
            "model": "small",
            "parameters": {"temperature": 0, "top_p": 0.5, "max_tokens": 100},
        },
    ),
    "conversation.summary": ({"conversation": "c1"}, {}),
    "summary.correct": ({"conversation": "c1", "message": "m1", "text": "Better"}, {}),
    "conversation.delete": ({"conversation": "c1"}, {}),
    "conversation.restore": ({"conversation": "c1"}, {}),
    "conversation.read": ({"conversation": "c1"}, {}),
    "message.send": (
        {"id": "m1", "text": "Hi"},
        {
            "conversation": "c1",
            "parent": "m0",
            "model": "small",
            "attachments": ["f1"],
            "system": "Be kind.",
            "parameters": {"temperature": 0},
            "temporary": True,
        },
    ),
    "message.select": ({"conversation": "c1", "message": "m1"}, {}),
    "message.withdraw": ({"conversation": "c1", "message": "m1"}, {}),
    "completion.stop": ({"conversation": "c1"}, {"message": "m1"}),
    "completion.continue": ({"conversation": "c1", "message": "m1"}, {}),
    "completion.regenerate": ({"conversation": "c1", "message": "m1"}, {"model": "small"}),
    "share.create": ({"id": "s1", "conversation": "c1"}, {}),
    "share.list": ({}, {"conversation": "c1"}),
    "share.revoke": ({"share": "s1"}, {}),
    "ping": ({}, {}),
}

REQUIRED = [(kind, name) for kind, (required, _) in FIELDS.items() for name in required]
MISTYPED = [
    (kind, name)
    for kind, fields in FIELDS.items()
    for name in [*fields[0], *fields[1]]
    if name != "parameters"  # where any object is right as long as its known fields are
]


def frame(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


def refused(text: str) -> CommandError:
    with pytest.raises(CommandError) as caught:
        parse_frame(text)
    return caught.value


def parsed(text: str) -> Command | CommandError:
    try:
        return parse_frame(text)
    except CommandError as error:
        return error


# Commands


def test_commands_are_those_of_the_protocol() -> None:
    assert COMMANDS.keys() == FIELDS.keys()


@pytest.mark.parametrize("kind", FIELDS)
def test_command_is_parsed_with_its_fields(kind: str) -> None:
    required, optional = FIELDS[kind]
    short = parse_frame(frame(kind, **required))
    assert isinstance(short, COMMANDS[kind])
    assert short.model_dump(include=set(required), exclude_unset=True) == required
    full = parse_frame(frame(kind, **{"id": "x-1", **required, **optional}))
    assert full.model_dump(exclude_unset=True) == {"type": kind, "id": "x-1", **required, **optional}


@pytest.mark.parametrize("kind", FIELDS)
def test_command_is_parsed_when_it_has_fields_that_we_do_not_know(kind: str) -> None:
    plain = parse_frame(frame(kind, **FIELDS[kind][0]))
    assert parse_frame(frame(kind, **FIELDS[kind][0], more=["a1"], later={"deep": [None]})) == plain


@pytest.mark.parametrize(("kind", "missing"), REQUIRED)
def test_command_is_refused_when_a_field_is_missing(kind: str, missing: str) -> None:
    fields = {name: value for name, value in FIELDS[kind][0].items() if name != missing}
    error = refused(frame(kind, **fields))
    assert isinstance(error, BadField)
    assert missing in error.detail


@pytest.mark.parametrize("wrong", [7.5, [7], {"x": 1}])
@pytest.mark.parametrize(("kind", "mistyped"), MISTYPED)
def test_command_is_refused_when_a_field_is_mistyped(kind: str, mistyped: str, wrong: Any) -> None:
    error = refused(frame(kind, **{**FIELDS[kind][0], mistyped: wrong}))
    assert isinstance(error, BadField)
    assert mistyped in error.detail


@pytest.mark.parametrize(
    "wrong", [7, "hot", ["x"], {"temperature": 3}, {"temperature": "1"}, {"max_tokens": 0}]
)
def test_update_is_refused_when_its_parameters_are_wrong(wrong: Any) -> None:
    error = refused(frame("conversation.update", conversation="c1", parameters=wrong))
    assert isinstance(error, BadField)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("conversation.list", {"limit": "5"}),
        ("conversation.list", {"limit": True}),
        ("conversation.list", {"limit": 0}),
        ("conversation.list", {"limit": 51}),
        ("conversation.list", {"query": "x" * 201}),
        ("conversation.open", {"after": {"epoch": "e", "offset": "7"}}),
        ("conversation.open", {"after": {"epoch": "e", "offset": -1}}),
        ("conversation.open", {"after": {"epoch": 7, "offset": 7}}),
        ("conversation.open", {"after": {"offset": 7}}),
        ("conversation.update", {"pinned": 1}),
        ("conversation.update", {"pinned": "yes"}),
        ("conversation.update", {"title": 7}),
        ("conversation.update", {"title": "x" * 201}),
        ("message.send", {"text": 7}),
        ("message.send", {"text": None}),
    ],
)
def test_command_is_refused_when_a_field_is_nearly_right(kind: str, fields: dict[str, Any]) -> None:
    assert isinstance(refused(frame(kind, **{**FIELDS[kind][0], **fields})), BadField)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_update_is_refused_when_a_parameter_is_no_number_of_json(number: str) -> None:
    text = (
        f'{{"type": "conversation.update", "conversation": "c1", "parameters": {{"temperature": {number}}}}}'
    )
    refused(text)


@pytest.mark.parametrize(
    "wrong", ["", "x" * 65, "a b", "a\n", "\na", "ä", "a/b", "a:b", "a*", "a.b", 7, True, []]
)
@pytest.mark.parametrize("kind", FIELDS)
def test_command_is_refused_when_its_id_is_malformed(kind: str, wrong: Any) -> None:
    error = refused(frame(kind, **{**FIELDS[kind][0], "id": wrong}))
    assert isinstance(error, BadField)
    assert error.id is None


def test_id_has_up_to_64_letters_digits_dashes_and_underscores() -> None:
    assert parse_frame(frame("ping", id="aZ09-_" + "x" * 58)).id == "aZ09-_" + "x" * 58


def test_parent_of_null_is_told_from_an_absent_one() -> None:
    rooted = parse_frame('{"type": "message.send", "id": "m1", "text": "Hi", "parent": null}')
    plain = parse_frame('{"type": "message.send", "id": "m1", "text": "Hi"}')
    assert isinstance(rooted, events.MessageSend)
    assert isinstance(plain, events.MessageSend)
    assert rooted.parent is plain.parent is None
    assert rooted.names_parent
    assert not plain.names_parent


# What is no command


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "ping",
        "null",
        "42",
        "NaN",
        '"ping"',
        '["ping"]',
        "{'type': 'ping'}",
        '{"type": "ping"}{',
        '\ufeff{"type": "ping"}',
        '{"type": "ping", "x": "\\ud800"}',
        '{"type": "ping", "\\udfff": 1}',
        '{"type": "ping", "x": "\udfff"}',
        '{"type": "ping", "x": ' + "[" * 30_000 + "]" * 30_000 + "}",
        '{"type": "ping", "x": ' + "9" * 5_000 + "}",
    ],
)
def test_frame_is_refused_when_it_is_no_json_object(text: str) -> None:
    assert isinstance(refused(text), BadFrame)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_frame_is_refused_when_it_has_numbers_that_json_does_not_have(number: str) -> None:
    assert isinstance(refused(f'{{"type": "ping", "x": {number}}}'), BadFrame)


@pytest.mark.parametrize(
    "kind", [None, 7, [], {}, "", "Ping", "ping ", "message.sent", "session.ready", "__class__"]
)
def test_frame_is_refused_when_its_type_is_no_command(kind: Any) -> None:
    error = refused(json.dumps({"id": "x-1", "type": kind}))
    assert isinstance(error, UnknownType)
    assert error.id == "x-1"
    assert isinstance(refused('{"id": "x-1"}'), UnknownType)


def test_error_echoes_the_id_when_a_field_is_wrong() -> None:
    assert refused('{"type": "conversation.open", "id": "x-1"}').id == "x-1"


def test_error_tells_nothing_of_what_was_sent() -> None:
    error = refused(
        frame("conversation.open", conversation="secret text", after={"epoch": "e", "offset": "hush"})
    )
    assert "secret" not in error.detail
    assert "hush" not in error.detail


ANYTHING = st.text(st.characters(exclude_categories=[]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANYTHING | st.sampled_from(["c1", "m1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANYTHING, inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(sorted({"id", *(name for _, name in MISTYPED)}))
FRAMES = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from(sorted(FIELDS)) | VALUES,
    st.dictionaries(NAMES | ANYTHING, VALUES, max_size=6),
)


@given(
    ANYTHING
    | st.binary().map(lambda sent: sent.decode("latin-1"))
    | st.text('{}[]",:\\u019d8e-+. tfn', max_size=40)
    | VALUES.map(json.dumps)
)
def test_frame_is_a_command_or_an_error_of_the_clients_whatever_it_is(text: str) -> None:
    outcome = parsed(text)
    if isinstance(outcome, CommandError):
        assert outcome.code in {"bad_frame", "unknown_type", "bad_field"}
        assert outcome.detail.isprintable()
    assert outcome.id is None or ID.fullmatch(outcome.id)


@given(FRAMES, st.booleans())
def test_frame_with_a_commands_fields_is_parsed_or_echoed_whatever_their_values(
    given_frame: dict[str, Any], ascii_only: bool
) -> None:
    given_id = given_frame.get("id")
    sound = given_id if isinstance(given_id, str) and ID.fullmatch(given_id) else None
    outcome = parsed(json.dumps(given_frame, ensure_ascii=ascii_only))
    assert outcome.id == (None if isinstance(outcome, BadFrame) else sound)
    if isinstance(outcome, Command):
        assert outcome.id == given_id
        assert outcome.model_dump_json().encode()
    else:
        assert outcome.detail.encode()


# Events

KINDS = sorted(Event.__subclasses__(), key=lambda kind: kind.__name__)


@pytest.mark.parametrize("kind", [*KINDS, *COMMANDS.values()], ids=lambda kind: kind.__name__)
def test_type_is_spelled_like_its_class(kind: Any) -> None:
    words = re.findall("[A-Z][a-z]*", kind.__name__.removesuffix("Event"))
    spelled = kind.type if issubclass(kind, Event) else kind.model_fields["type"].annotation.__args__[0]
    assert spelled == ".".join(words).lower()


def test_events_are_those_of_the_protocol() -> None:
    assert {kind.type for kind in KINDS} == {
        "conversation.found",
        "session.ready",
        "session.store",
        "conversation.snapshot",
        "conversation.current",
        "conversation.older",
        "conversation.summary",
        "conversation.listed",
        "conversation.updated",
        "conversation.deleted",
        "conversation.selected",
        "message.accepted",
        "message.added",
        "message.withdrawn",
        "completion.started",
        "completion.delta",
        "completion.finished",
        "completion.failed",
        "share.created",
        "share.listed",
        "share.revoked",
        "error",
        "pong",
    }


def test_placed_events_never_have_an_id() -> None:
    assert {kind.type for kind in events.PLACED} == {
        "message.added",
        "message.withdrawn",
        "completion.started",
        "completion.delta",
        "completion.finished",
        "completion.failed",
        "conversation.selected",
    }
    assert not any("id" in kind.__dataclass_fields__ for kind in events.PLACED)


def test_event_is_encoded_without_what_does_not_apply() -> None:
    assert events.Pong().encode() == '{"type":"pong"}'
    assert json.loads(events.Pong(id="x-1").encode()) == {"type": "pong", "id": "x-1"}
    delta = events.CompletionDelta(
        conversation="c1", message="m2", text="", blocks=[(0, "<p>Hi</p>")], count=0
    )
    assert json.loads(delta.encode()) == {
        "type": "completion.delta",
        "conversation": "c1",
        "message": "m2",
        "text": "",
        "blocks": [[0, "<p>Hi</p>"]],
        "count": 0,
    }


@pytest.mark.parametrize("running", [None, "m2"])
def test_snapshot_is_encoded_with_running_even_when_nothing_runs(running: str | None) -> None:
    snapshot = events.ConversationSnapshot(
        conversation="c1",
        title="",
        model="small",
        system="",
        parameters={},
        archived=False,
        temporary=False,
        messages=[],
        more=False,
        running=running,
        at=AT,
    )
    assert json.loads(snapshot.encode()) == {
        "type": "conversation.snapshot",
        "conversation": "c1",
        "title": "",
        "model": "small",
        "system": "",
        "parameters": {},
        "archived": False,
        "temporary": False,
        "messages": [],
        "more": False,
        "running": running,
        "at": AT,
    }


@given(st.text())
def test_text_is_encoded_as_it_is(text: str) -> None:
    encoded = events.Error(code="internal", detail=text).encode()
    assert json.loads(encoded)["detail"] == text
    assert "\n" not in encoded
    assert len(encoded.encode()) <= len(text.encode()) * 6 + 60


def test_text_beyond_ascii_is_not_escaped() -> None:
    assert '"Größe 世界 😀"' in events.Error(code="internal", detail="Größe 世界 😀").encode()
