"""Pictures by their bytes: whole ones of each kind, and what is no picture that a provider could decode."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmchat.picture import MAX_SIDE, picture_of
from tests.pictures import PNG

LOSSY = base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AA/u/e")
LOSSLESS = base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")
JPEG_HEAD = b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"
THUMBNAIL = b"\xff\xe1\0\x08\xff\xd8\xff\xd9.."


def gif(width: int, height: int) -> bytes:
    sides = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    return b"GIF89a" + sides + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\1\0\1\0\0\2\2D\1\0;"


def jpeg(width: int, height: int, frame: bytes = b"\xc0") -> bytes:
    sides = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return (
        JPEG_HEAD
        + THUMBNAIL
        + b"\xff\xff"
        + frame
        + b"\0\x0b\x08"
        + sides
        + b"\1\1\x11\0\xff\xda\0\2.\xff\xd9"
    )


def png(width: int, height: int) -> bytes:
    return PNG[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PNG[24:]


def extended(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + (22).to_bytes(4, "little") + b"WEBPVP8X\x0a\0\0\0\0\0\0\0" + sides


WHOLE = [
    (PNG, "image/png"),
    (PNG + b"more", "image/png"),
    (gif(3, 2), "image/gif"),
    (gif(3, 2).replace(b"89a", b"87a"), "image/gif"),
    (jpeg(3, 2), "image/jpeg"),
    (jpeg(3, 2, b"\xc2"), "image/jpeg"),
    (LOSSY, "image/webp"),
    (LOSSLESS, "image/webp"),
    (extended(3, 2), "image/webp"),
]


@pytest.mark.parametrize(("body", "kind"), WHOLE)
def test_whole_picture_is_told_by_its_bytes_and_one_that_is_cut_is_none(body: bytes, kind: str) -> None:
    assert picture_of(body) == kind
    end = len(body) - (4 if body.endswith(b"more") else 0)
    assert {picture_of(body[:at]) for at in range(end)} == {None}


@pytest.mark.parametrize("make", [png, gif, jpeg, extended])
def test_picture_without_a_pixel_or_with_too_many_is_none(make: Callable[[int, int], bytes]) -> None:
    assert picture_of(make(1, MAX_SIDE)) == picture_of(make(MAX_SIDE, 1)) is not None
    for sides in ((1, MAX_SIDE + 1), (MAX_SIDE + 1, 1), *([] if make is extended else [(0, 1), (1, 0)])):
        assert picture_of(make(*sides)) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"RIFF1234WEBP",
        b"GIF89a<script>",
        JPEG_HEAD + THUMBNAIL + b"\xff\xd9",
        jpeg(1, 1, b"\xc4"),
        b"\xff\xd8" + b"\xff" * 1_000_000,
    ],
)
def test_what_only_begins_like_a_picture_is_none(body: bytes) -> None:
    assert picture_of(body) is None


@given(st.sampled_from([body for body, _ in WHOLE]), st.binary(max_size=60), st.integers(0, 30))
def test_whatever_is_behind_a_beginning_is_borne(body: bytes, rest: bytes, at: int) -> None:
    assert picture_of(body[:at] + rest) in {None, "image/png", "image/jpeg", "image/gif", "image/webp"}
