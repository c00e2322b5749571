"""What must hold when all is quiet. Pure: compares what tabs know; a tab that opened afresh is the measure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from tests.instances import Client, Mirror
from tests.instances.drill.ledger import Ledger, place
from tests.instances.drill.plan import Prompt
from tests.instances.drill.tab import Tab
from tests.instances.mirror import Event


def differences(conversation: str, fresh: Client, readers: Sequence[Tab]) -> list[str]:
    """Say in what the readers of a conversation differ from a new one: places, messages, HTML."""
    measure = fresh.mirrors[conversation]
    found = []
    for tab in readers:
        mirror = tab.mirrors[conversation]
        if mirror.at != measure.at:
            found.append(f"{tab.name} stands at {mirror.at} of {conversation}, a new tab at {measure.at}")
        if mirror.hash() != measure.hash():
            found.append(f"{tab.name} differs in {conversation}: {_first_difference(mirror, measure)}")
        found += _html_differences(tab, fresh, mirror, measure)
    return found


def _html_differences(tab: Tab, fresh: Client, mirror: Mirror, measure: Mirror) -> list[str]:
    """Compare the HTML of answers that a tab saw from their first block on."""
    whole = [one.id for one in mirror.branch() if one.blocks is not None and one.state == "done"]
    return [
        f"{tab.name} shows {tab.html(answer)!r}, a new tab {fresh.html(answer)!r}"
        for answer in whole
        if answer in measure.messages and tab.html(answer) != fresh.html(answer)
    ]


def _first_difference(one: Mirror, other: Mirror) -> str:
    for mine, theirs in zip_longest(one.branch(), other.branch()):
        shown = [each and (each.id, each.role, each.parent, each.text, each.state) for each in (mine, theirs)]
        if shown[0] != shown[1]:
            return f"{shown[0]} against {shown[1]}"
    return "only in reasons or codes"


def prompt(asked: Prompt, accepted: Event, fresh: Client, ledger: Ledger) -> list[str]:
    """Say what is wrong with an accepted prompt: it is there once, where it was said to be, answered once."""
    conversation = accepted["conversation"]
    found = []
    messages = fresh.mirrors[conversation].messages.values()
    stored = [message.id for message in messages if message.role == "user" and message.text == asked.text]
    if stored != [accepted["message"]]:
        found.append(f"prompt {asked.text!r}, accepted as {accepted}, is stored as {stored}")
    answers = [message for message in messages if message.parent == accepted["message"]]
    if [answer.id for answer in answers] != [accepted["answer"]]:
        found.append(f"{accepted} has the answers {answers}")
    for answer in answers:
        if answer.state not in {"done", "failed"}:
            found.append(f"the answer of {accepted} is {answer.state}")
        if answer.finish_reason == "stop" and answer.text != "".join(asked.pieces):
            found.append(f"the answer of {accepted} is {answer.text!r}, the model said {asked.pieces}")
    fact = ledger.facts.get(place(conversation, accepted["at"]))
    if fact and (fact["type"] != "message.added" or fact["message"]["id"] != accepted["message"]):
        found.append(f"{accepted} names the place of {fact}")
    return found + _siblings(accepted, fresh)


def refused(asked: Prompt, conversation: str, fresh: Client) -> list[str]:
    """Say where a prompt is stored that was refused, also where only its repeat was."""
    messages = fresh.mirrors[conversation].messages.values()
    return [f"{asked.text!r} is stored and was refused" for one in messages if one.text == asked.text]


def _siblings(accepted: Event, fresh: Client) -> list[str]:
    """Say where a message of a prompt is not the only one in its place, which no snapshot's branch would show."""
    shown = (event for event in reversed(fresh.seen) if event["type"] == "conversation.snapshot")
    snapshot = next(event for event in shown if event["conversation"] == accepted["conversation"])
    names = {accepted["message"], accepted["answer"]}
    return [
        f"{message['id']} of {accepted} has the siblings {message['siblings']}"
        for message in snapshot["messages"]
        if message["id"] in names and message.get("siblings", [message["id"]]) != [message["id"]]
    ]
