"""The mirror of the tests notices every way of breaking the protocol."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.instances.mirror import Broken, Event, Mirror


def at(offset: int, epoch: str = "e") -> dict[str, Any]:
    return {"epoch": epoch, "offset": offset}


def added(offset: int, message: str = "m1", parent: str | None = None, **fields: Any) -> Event:
    user = {"id": message, "role": "user", "parent": parent, "text": "Hi", "state": "done", **fields}
    return event("message.added", offset, message=user, answer=f"a{message}")


def event(kind: str, offset: int, **fields: Any) -> Event:
    return {"type": kind, "conversation": "c1", "at": at(offset), **fields}


def started(offset: int, message: str = "am1", parent: str = "m1", **fields: Any) -> Event:
    return event(
        "completion.started",
        offset,
        **{"message": message, "parent": parent, "text": "", "attempt": 1, **fields},
    )


def delta(offset: int, text: str, blocks: list[Any], count: int, message: str = "am1") -> Event:
    return event("completion.delta", offset, message=message, text=text, blocks=blocks, count=count)


def finished(offset: int, text: str, message: str = "am1", **fields: Any) -> Event:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return event(
        "completion.finished",
        offset,
        **{"message": message, "finish_reason": "stop", "digest": digest, "blocks": [], "count": 1, **fields},
    )


def mirrored(*events: Event) -> Mirror:
    mirror = Mirror("c1")
    for one in events:
        mirror.apply(one)
    return mirror


def answered() -> list[Event]:
    return [
        added(1),
        started(2),
        delta(3, "He", [[0, "<p>He</p>"]], 1),
        delta(4, "llo", [], 1),
        finished(5, "Hello", blocks=[[0, "<p>Hello</p>"]]),
    ]


def snapshot(
    offset: int, messages: list[dict[str, Any]], running: str | None = None, epoch: str = "e"
) -> Event:
    return {
        "type": "conversation.snapshot",
        "conversation": "c1",
        "messages": messages,
        "running": running,
        "at": at(offset, epoch),
    }


def answer_record() -> dict[str, Any]:
    return {"id": "am1", "role": "assistant", "parent": "m1", "text": "He", "state": "running"}


def test_text_is_what_started_kept_and_the_deltas_after_it() -> None:
    mirror = mirrored(*answered())
    assert mirror.text("am1") == "Hello"
    assert mirror.html("am1") == "<p>Hello</p>"
    assert [one.id for one in mirror.branch()] == ["m1", "am1"]


def test_takeover_starts_the_text_anew() -> None:
    mirror = mirrored(
        *answered()[:4], started(5, attempt=2, text="He"), delta(6, "y", [], 1), finished(7, "Hey")
    )
    assert mirror.text("am1") == "Hey"
    assert mirror.messages["am1"].attempt == 2


def test_snapshot_and_live_events_come_to_the_same_hash() -> None:
    user = {"id": "m1", "role": "user", "parent": None, "text": "Hi", "state": "done"}
    resumed = mirrored(snapshot(3, [user, answer_record()], running="am1"), *answered()[3:])
    assert resumed.hash() == mirrored(*answered()).hash()
    assert resumed.hash() != mirrored(*answered()[:4]).hash()


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([added(1), started(3)], id="hole"),
        pytest.param([added(1), added(1)], id="repeat"),
        pytest.param([added(1), {**started(2), "at": at(2, "f")}], id="another epoch"),
        pytest.param([added(1), {**started(2), "id": "x"}], id="echoes an id"),
        pytest.param([added(1), snapshot(0, [])], id="snapshot from before"),
        pytest.param([snapshot(2, [], running="am1")], id="snapshot runs an answer to nothing"),
        pytest.param(
            [snapshot(2, [{**answer_record(), "state": "done"}], running="am1")], id="finished one runs"
        ),
        pytest.param([added(1), {"type": "conversation.current", "at": at(2)}], id="current ahead"),
        pytest.param([*answered()[:4], finished(5, "Hallo")], id="digest of another text"),
        pytest.param([*answered(), delta(6, "!", [], 1)], id="delta after the end"),
    ],
)
def test_mirror_notices(events: list[Event]) -> None:
    mirror = mirrored(*events[:-1])
    with pytest.raises(Broken):
        mirror.apply(events[-1])


def test_snapshot_of_a_new_epoch_replaces_everything() -> None:
    mirror = mirrored(*answered(), snapshot(1, [], epoch="f"))
    assert mirror.branch() == []
    assert mirror.at == at(1, "f")


def test_answer_elsewhere_is_not_known_after_a_snapshot_that_jumps() -> None:
    mirror = mirrored(added(1), started(2), delta(3, "Hel", [[0, "<p>Hel</p>"]], 1), snapshot(5, []))
    assert "am1" not in mirror.messages
    mirror.apply(finished(6, "Hello"))
    same = mirrored(added(1), started(2), delta(3, "Hel", [[0, "<p>Hel</p>"]], 1), snapshot(3, []))
    assert same.messages["am1"].text == "Hel"


def test_place_that_was_forgotten_is_taken_as_it_comes() -> None:
    mirror = mirrored(added(1))
    mirror.forget_place()
    mirror.apply(added(7, "m2", "am1"))
    assert mirror.at == at(7)


def test_regenerated_answer_becomes_the_tip_and_selecting_goes_back() -> None:
    mirror = mirrored(*answered(), started(6, "b"), finished(7, "", "b", count=0))
    assert [one.id for one in mirror.branch()] == ["m1", "b"]
    mirror.apply(event("conversation.selected", 8, message="am1"))
    assert [one.id for one in mirror.branch()] == ["m1", "am1"]


def test_queued_prompt_stays_the_tip_when_the_answer_before_it_starts() -> None:
    mirror = mirrored(added(1), added(2, "m2", "am1", state="queued"), started(3))
    assert [one.id for one in mirror.branch()] == ["m1", "am1", "m2"]


def test_what_was_queued_behind_a_withdrawn_prompt_moves_to_its_parent() -> None:
    mirror = mirrored(
        added(1),
        added(2, "m2", "am1", state="queued"),
        added(3, "m3", "am2", state="queued"),
        event("message.withdrawn", 4, message="m2"),
    )
    assert mirror.messages["m3"].parent == "am1"
    assert [one.id for one in mirror.branch()] == ["m1", "m3"]
