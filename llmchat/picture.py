"""Pictures by their bytes: of which kind, how large, and whether the end is there. Pure; decodes nothing.

A provider refuses what it cannot decode, and with it every request that has it.
"""

from __future__ import annotations

import re
from typing import Literal

MAX_SIDE = 16_384
"""Pixels, in width and in height."""
MAX_SEGMENTS = 1_000
"""Of a JPEG before its frame; those that are met have some tens."""
FRAMES = {bytes((0xFF, each)) for each in range(0xC0, 0xD0)} - {b"\xff\xc4", b"\xff\xc8", b"\xff\xcc"}
WEBP = re.compile(rb"RIFF....WEBPVP8(?:(?P<lossy> .{7}\x9d\x01\x2a)|(?P<lossless>L....\x2f)|X)", re.DOTALL)
Sides = tuple[int, int]
NONE = 0, 0


def picture_of(body: bytes) -> str | None:
    """Tell the type of a whole picture; None for what is none, has no pixel, or too many."""
    sides_of = {"image/png": _png, "image/jpeg": _jpeg, "image/gif": _gif, "image/webp": _webp}
    for kind, sides in sides_of.items():
        if all(0 < side <= MAX_SIDE for side in sides(body)):
            return kind
    return None


def _png(body: bytes) -> Sides:
    whole = body.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR") and b"IEND\xaeB`\x82" in body
    return _sides(body, 16, 4, "big") if whole else NONE


def _gif(body: bytes) -> Sides:
    whole = body.startswith((b"GIF87a", b"GIF89a")) and b"\0;" in body
    return _sides(body, 6, 2, "little") if whole else NONE


def _jpeg(body: bytes) -> Sides:
    at = 2
    for _ in range(MAX_SEGMENTS if body.startswith(b"\xff\xd8") else 0):
        marker, length = body[at : at + 2], int.from_bytes(body[at + 2 : at + 4], "big")
        if marker in FRAMES:
            height, width = _sides(body, at + 5, 2, "big")
            return (width, height) if body.find(b"\xff\xd9", at + length) > 0 else NONE
        at += 1 if marker == b"\xff\xff" else 2 + length
    return NONE


def _webp(body: bytes) -> Sides:
    head = WEBP.match(body)
    if head is None or len(body) < 8 + int.from_bytes(body[4:8], "little"):
        return NONE
    if head["lossy"]:
        width, height = _sides(body, 26, 2, "little")
        return width & 0x3FFF, height & 0x3FFF
    if head["lossless"]:
        sides = int.from_bytes(body[21:25], "little")
        return 1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)
    width, height = _sides(body, 24, 3, "little")
    return 1 + width, 1 + height


def _sides(body: bytes, at: int, size: int, order: Literal["big", "little"]) -> Sides:
    """Read two numbers, one behind the other."""
    first, second = body[at : at + size], body[at + size : at + 2 * size]
    return int.from_bytes(first, order), int.from_bytes(second, order)
