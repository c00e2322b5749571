"""Files beside a prompt, as plain functions: what they are, how they are called, what a model is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.attachment import IMAGE_TOKENS, NAME_CHARACTERS, TEXT, Attached, excerpt, kind_of, sound_name
from llmchat.conversation import MESSAGE_TOKENS, context, estimated_tokens
from llmchat.summary import fold_up_to, question, weight
from tests.pictures import PNG

PICTURE = Attached("cat.png", "image/png", url="data:image/png;base64,AAAA")
NOTES = Attached("notes.txt", TEXT, text="Buy milk.")
FILES = [
    {"id": "f1", "name": "cat.png", "type": "image/png", "size": 3},
    {"id": "f2", "name": "notes.txt", "type": TEXT, "size": 9},
]
IMAGE = {"type": "image_url", "image_url": {"url": PICTURE.url}}


def user(text: str, *attached: Attached) -> dict[str, Any]:
    return {"id": "u", "role": "user", "text": text, "attachments": FILES, "attached": list(attached)}


def assistant(text: str) -> dict[str, Any]:
    return {"id": "a", "role": "assistant", "text": text}


def contents(*branch: dict[str, Any], tokens: int = 8_000) -> list[Any]:
    return [message["content"] for message in context("", branch, tokens).messages]


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (PNG, "image/png"),
        (PNG[:-1], None),
        (b"GIF89a<script>", TEXT),
        (b"RIFF\x10\x00\x00\x00WAVEfmt ", None),
        (b"....\x10...WEBPVP8 ", TEXT),
        ("Grüße, 世界".encode(), TEXT),
        (b"<svg onload=alert(1)>", TEXT),
        (b"<!doctype html><script>alert(1)</script>", TEXT),
        (b"%PDF-1.7\n\x00", None),
        (b"\xfe\xff\x00h", None),
        (b"caf\xe9", None),
    ],
)
def test_type_is_told_by_the_bytes(body: bytes, kind: str | None) -> None:
    assert kind_of(body) == kind


@pytest.mark.parametrize(
    ("given_name", "name"),
    [
        ("cat.png", "cat.png"),
        ("C:\\fakepath\\cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        ("a\u202egnp.exe\n", "a gnp.exe"),
        ("", "picture.png"),
        ("\u0301 \u3164\u2800", "picture.png"),
        ("e\u0301.", "e\u0301."),
        ("x" * 300 + ".jpeg", "x" * 91 + "….jpeg"),
    ],
)
def test_name_is_one_that_can_be_shown(given_name: str, name: str) -> None:
    assert sound_name(given_name, "image/png") == name


@given(st.text(max_size=400))
def test_name_is_never_empty_long_or_a_path_whatever_is_given(name: str) -> None:
    sound = sound_name(name, TEXT)
    assert 0 < len(sound) <= NAME_CHARACTERS
    assert "/" not in sound
    sound.encode()


def test_excerpt_bears_letters_that_are_cut() -> None:
    assert excerpt("aé".encode()[:2], "éb".encode()[1:]) == "a\n[…]\nb"


def test_pictures_are_parts_and_texts_are_words_before_the_prompt() -> None:
    assert contents(user("Look", PICTURE, NOTES)) == [
        [{"type": "text", "text": "File notes.txt:\nBuy milk.\n\nLook"}, IMAGE]
    ]
    assert contents(user("Look", NOTES)) == ["File notes.txt:\nBuy milk.\n\nLook"]
    assert contents(user("", PICTURE)) == [[IMAGE]]


def test_picture_that_is_not_sent_is_a_word() -> None:
    assert contents(user("Look", PICTURE.instead)) == ["[Picture: cat.png]\n\nLook"]


def test_picture_counts_as_what_it_takes_of_the_context() -> None:
    chosen = context("", [user("Look", PICTURE)], 8_000)
    assert chosen.estimate == estimated_tokens("Look") + MESSAGE_TOKENS + IMAGE_TOKENS


def test_earlier_pictures_are_sent_while_they_fit_and_are_words_then() -> None:
    branch = [user("One", PICTURE), assistant("Yes"), user("Two", PICTURE), assistant("Yes"), user("Three")]
    assert contents(*branch, tokens=8_000)[0] == [{"type": "text", "text": "One"}, IMAGE]
    older, _, newer, *_ = contents(*branch, tokens=1_600)
    assert older == "[Picture: cat.png]\n\nOne"
    assert newer == [{"type": "text", "text": "Two"}, IMAGE]


def test_newest_prompt_keeps_the_pictures_that_fit_and_never_less_of_its_words_than_their_share() -> None:
    (parts,) = contents(user("word " * 9_000, *[PICTURE] * 6), tokens=4_000)
    assert len(parts) == 1 + 3
    assert len(parts[0]["text"]) > 900


def test_text_of_a_file_is_shortened_as_a_prompt_is() -> None:
    long = Attached("long.txt", TEXT, text="word " * 9_000)
    chosen = context("", [user("What is it?", long)], 2_000)
    (text,) = [message["content"] for message in chosen.messages]
    assert text.startswith("File long.txt:\nword")
    assert text.endswith("What is it?")
    assert chosen.estimate <= 1_500


def test_summary_is_told_that_there_were_files() -> None:
    asked = question("", [user("Look"), assistant("A cat.")], 8_000, 1.0)[1]["content"]
    assert "User: [Picture: cat.png]\n\n[File: notes.txt]\n\nLook" in asked


def test_pictures_count_for_when_a_conversation_is_folded() -> None:
    turn = [user("Look"), assistant("A cat.")]
    assert weight(turn[0]) > IMAGE_TOKENS
    assert fold_up_to([*turn, *turn, *turn], 4 * IMAGE_TOKENS) == "a"
    assert (
        fold_up_to([each | {"attachments": []} for each in [*turn, *turn, *turn]], 4 * IMAGE_TOKENS) is None
    )
