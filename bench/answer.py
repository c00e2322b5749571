"""What a model says in the bench, and when each piece of it was said and shown. Knows neither wire."""

from __future__ import annotations

import asyncio
import math
import random
import re
from array import array
from collections.abc import Callable, Iterator
from itertools import accumulate

RATE = 50
"""Pieces a second: what a fast model says."""
PIECE = re.compile(r" ?[A-Za-z]{1,7}| ?[0-9]{1,3}|\n+ *| ?[^\sA-Za-z0-9]{1,3}|\s+")
"""Cuts a text about as tokenizers do: 4.2 characters each on the whole."""
PROMPT = re.compile(r"bench (\d+) pieces=(\d+) rate=(\d+)")
WORDS = re.findall(
    r"\w+",
    "the a of to and in is it that for with as on this by from are which can when each only one server client "
    "message connection request response stream answer value function returns because however therefore between "
    "example number process memory queue writes reads order changes result without performance different "
    "important possible several following application language structure information",
)
LANGUAGES = ("python", "javascript", "sql", "bash")
FORMULAS = (r"$e^{i\pi} + 1 = 0$", r"$\frac{a}{b}$", r"\(x_1^2 + x_2^2\)", r"$\sum_{i=1}^n i$")
SHOWN_FORMULA = "$$\n\\int_0^1 x^2 \\, dx = \\frac{1}{3}\n$$\n\n"


class Answer:
    """One answer: its pieces, and for each the clock's seconds when it was said and when it was shown."""

    def __init__(self, number: int, pieces: int, rate: int = RATE) -> None:
        self.number = number
        self.rate = rate
        self.pieces = pieces_of(number, pieces)
        self.text = "".join(self.pieces)
        self.ends = list(accumulate(map(len, self.pieces)))
        self.said = array("d")
        self.shown = array("d")
        self.finished = False
        self.whole = asyncio.Event()
        """Set once all of it is said."""

    @property
    def prompt(self) -> str:
        """The prompt that asks for it."""
        return f"bench {self.number} pieces={len(self.pieces)} rate={self.rate}"

    @property
    def lost(self) -> int:
        """How many of the pieces that were said were not shown."""
        return len(self.said) - sum(not math.isnan(each) for each in self.shown)

    def show(self, length: int, now: float) -> None:
        """Note that so much of the text is shown."""
        shown, ends = self.shown, self.ends
        while len(shown) < len(ends) and ends[len(shown)] <= length:
            shown.append(now)

    def show_piece(self, index: int, now: float) -> None:
        """Note that a piece is shown, and that those before it never will be that were not."""
        self.shown.extend([math.nan] * (index - len(self.shown)))
        self.shown.append(now)

    def delays(self, start: float, end: float) -> Iterator[float]:
        """Give the delay of each piece that was said within a window, and shown."""
        times = zip(self.said, self.shown, strict=False)
        return (shown - said for said, shown in times if start <= said < end and not math.isnan(shown))


def asked_for(prompt: str) -> tuple[int, int, int] | None:
    """Read a prompt: which answer, of how many pieces, how many a second."""
    found = PROMPT.search(prompt)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def pieces_of(seed: int, count: int) -> list[str]:
    """Make the first pieces of a text that is always the same for a seed."""
    chance = random.Random(seed)
    pieces: list[str] = []
    while len(pieces) < count:
        make: Callable[[random.Random], str] = chance.choices(
            (_prose, _list, _code, _table, _formula), weights=(6, 2, 2, 0.5, 0.5)
        )[0]
        pieces += PIECE.findall(make(chance))
    del pieces[count:]
    return pieces


def _sentence(chance: random.Random) -> str:
    words = chance.choices(WORDS, k=chance.randint(6, 16))
    if chance.random() < 0.2:
        words[chance.randrange(len(words))] = f"**{chance.choice(WORDS)}**"
    if chance.random() < 0.15:
        words[chance.randrange(len(words))] = f"`{chance.choice(WORDS)}()`"
    if chance.random() < 0.05:
        words[chance.randrange(len(words))] = chance.choice(FORMULAS)
    return " ".join(words).capitalize() + "."


def _prose(chance: random.Random) -> str:
    heading = f"## {' '.join(chance.choices(WORDS, k=4)).capitalize()}\n\n" if chance.random() < 0.25 else ""
    return heading + " ".join(_sentence(chance) for _ in range(chance.randint(2, 5))) + "\n\n"


def _list(chance: random.Random) -> str:
    marks = (lambda _: "- ") if chance.random() < 0.5 else (lambda at: f"{at + 1}. ")
    return "".join(marks(at) + _sentence(chance) + "\n" for at in range(chance.randint(3, 6))) + "\n"


def _code(chance: random.Random) -> str:
    names = chance.choices(WORDS, k=chance.randint(4, 12))
    lines = [f"    {name} = {chance.choice(WORDS)}({chance.randint(0, 99)}, '{name}')" for name in names]
    return f"```{chance.choice(LANGUAGES)}\ndef {names[0]}(value):\n" + "\n".join(lines) + "\n```\n\n"


def _table(chance: random.Random) -> str:
    rows = [f"| {chance.choice(WORDS)} | {chance.randint(1, 999)} |" for _ in range(chance.randint(3, 6))]
    return "| name | value |\n| --- | --- |\n" + "\n".join(rows) + "\n\n"


def _formula(_: random.Random) -> str:
    return SHOWN_FORMULA
