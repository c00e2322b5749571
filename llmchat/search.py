"""Words found in texts of any script, and what stands around them. Pure: knows neither Redis nor conversations.

Texts are compared folded: without case, accents, vowel points, widths and what nobody sees. A text is cut between units only: what
stands together folds together, so the fold of a text is that of its units, one after the other.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Self

BEFORE, AFTER = 40, 80
"""Characters of a snippet around what was found, about."""
STRIDE = 2000
"""Characters that are folded at once on the way to what was found."""
CONTROLS = "\u202a-\u202e\u2066-\u2069"
"""They turn the direction of what follows, also behind the end of a snippet."""
UNSEEN = f"\u00ad\u061c\u200b-\u200f\u2060-\u2064\ufeff{CONTROLS}"
POINTS = "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\ufb1e"
"""Vowels and accents of Hebrew."""
HARAKAT = "\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff"
"""Those of Arabic, with the hamza and madda that an alef is decomposed into."""
TATWEEL = "\u0640"
DROPPED = re.compile(f"[\u0300-\u036f{POINTS}{HARAKAT}{TATWEEL}{UNSEEN}]+")
"""Beside them accents of Latin, Greek and Cyrillic: what may as well not be written. Marks of other scripts are letters
to whoever reads them."""
JOINED = re.compile(f"[{TATWEEL}{UNSEEN}\U0001f3fb-\U0001f3ff\u1160-\u11ff\ufe00-\ufe0f]")
"""What belongs to what is before it: beside marks a drawn-out line, the unseen, skin tones, and the second and third part
of a Hangul syllable."""
MOST_MARKS = 30
"""On one letter that are compared, as in Unicode's Stream-Safe Text Format: to put them in order takes the square of them,
and the interpreter meanwhile."""
MARKS = re.compile(r"[^\w\s\x00-\x7f]{4,}")
"""Where there may be more marks than that: one may be decomposed into a few."""
JOINER = "\u200d"
TURNING = re.compile(f"[{CONTROLS}]")
BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
QUOTED = re.compile(r'"([^"]*)"|\S+')
ELLIPSIS = "…"


def fold(text: str) -> str:
    """Give a text as it is compared."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", bounded(text)).casefold())
    return unicodedata.normalize("NFC", bounded(DROPPED.sub("", decomposed)))


def bounded(text: str) -> str:
    """Leave out what is more than MOST_MARKS on one letter."""
    return MARKS.sub(lambda run: "".join(_few(run[0])), text)


def _few(run: str) -> Iterator[str]:
    marks = 0
    for character in run:
        decomposed = unicodedata.normalize("NFKD", character)
        are_marks = [unicodedata.combining(part) != 0 for part in decomposed]
        if all(are_marks):
            marks += len(are_marks)
        else:
            marks = are_marks[::-1].index(False)
        if marks <= MOST_MARKS:
            yield character
        else:
            marks -= len(are_marks)


def begins_unit(text: str, index: int) -> bool:
    """Tell whether a text may be cut before a character."""
    character = text[index]
    if index == 0 or (character.isascii() and text[index - 1].isascii()):
        return True
    if text[index - 1] == JOINER:
        return False
    first = unicodedata.normalize("NFKD", character)[0]
    return not (unicodedata.category(first).startswith("M") or JOINED.match(first))


def units(text: str) -> Iterator[str]:
    """Cut a text into its units."""
    start = 0
    for index in range(1, len(text)):
        if begins_unit(text, index):
            yield text[start:index]
            start = index
    if text:
        yield text[start:]


@dataclass(frozen=True, slots=True)
class Snippet:
    """What was found, and what stands around it. `hit` folded has the word in it: half a unit is not shown."""

    before: str
    hit: str
    after: str

    def shaped(self) -> dict[str, str]:
        """Give the shape that it has on the wire."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Query:
    """Words, of which a text has to have all."""

    words: tuple[re.Pattern[str], ...]

    @classmethod
    def read(cls, typed: str) -> Self:
        """Read what a person typed; between quotation marks words stand together. Raises ValueError without a word."""
        parts = [
            found[1] if found[1] is not None else found[0] for found in QUOTED.finditer(BLANK.sub(" ", typed))
        ]
        words = dict.fromkeys(word for part in parts if (word := tuple(fold(part).split())))
        if not words:
            raise ValueError("no word")
        return cls(tuple(re.compile(r"\s+".join(map(re.escape, word))) for word in words))

    def matches(self, text: str) -> bool:
        """Tell whether all words are in a text."""
        folded = fold(text)
        return all(word.search(folded) for word in self.words)

    def snippet(self, text: str, before: int = BEFORE, after: int = AFTER) -> Snippet:
        """Give the first word found in a text that matches, and what stands around it."""
        folded = fold(text)
        found = min((match for word in self.words if (match := word.search(folded))), key=re.Match.start)
        start, end = _unfolded(text, *found.span())
        return Snippet(_end_of(text, start, before), _plain(text[start:end]), _start_of(text, end, after))


def _unfolded(text: str, start: int, end: int) -> tuple[int, int]:
    """Find the units of a text of which a part of its fold comes: where they begin and end."""
    first, last = 0, 0
    for at, after, folded in _steps(text, start):
        if folded <= start:
            first = at
        if folded < end:
            last = after
        else:
            break
    return first, last


def _steps(text: str, wanted: int) -> Iterator[tuple[int, int, int]]:
    """Go through the units of a text, in strides as far as what is wanted is not near: where each begins and ends, and
    where it begins in the fold."""
    at = folded = 0
    while (further := _cut(text, at + STRIDE)) < len(text):
        length = len(fold(text[at:further]))
        if folded + length > wanted:
            break
        at, folded = further, folded + length
    for unit in units(text[at:]):
        if length := len(fold(unit)):
            yield at, at + len(unit), folded
        at, folded = at + len(unit), folded + length


def _cut(text: str, index: int) -> int:
    while index < len(text) and not begins_unit(text, index):
        index += 1
    return min(index, len(text))


def _end_of(text: str, end: int, characters: int) -> str:
    """Give the last characters before a place, from the beginning of a word if there is one."""
    cut = _cut(text, max(0, end - characters))
    blank = BLANK.search(text, cut, end)
    if 0 < cut < end and blank and blank.end() < end:
        cut = blank.end()
    return (ELLIPSIS if cut > 0 else "") + _plain(text[min(cut, end) : end]).lstrip()


def _start_of(text: str, start: int, characters: int) -> str:
    """Give the first characters behind a place, to the end of a word if there is one."""
    cut = _cut(text, start + characters)
    blanks = list(BLANK.finditer(text, start, cut))
    if cut < len(text) and blanks and blanks[-1].start() > start:
        cut = blanks[-1].start()
    return _plain(text[start:cut]).rstrip() + (ELLIPSIS if cut < len(text) else "")


def _plain(text: str) -> str:
    return BLANK.sub(" ", bounded(TURNING.sub("", text)))
