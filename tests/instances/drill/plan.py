"""What happens in one run, all of it drawn from the seed before it begins. Pure.

Nothing is drawn in seconds but what is a duration by itself (a model's pace, a frozen store): the rest happens
after so many events.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

TABS = 12
QUICK = {"drop": 6, "reload": 2, "away": 3, "kill pubsub": 2, "kill normal": 2}
"""Faults that are over at once, and how likely each is."""
SLOW = {"": 10, "restart": 3, "kill": 3, "freeze": 4}
"""Faults of the store, at most one in a run."""
INSTANCE = {"": 3, "kill instance": 3, "stop instance": 2, "zombie": 2}
"""Faults of an instance, at most one in a run."""
WAY = {"": 2, "cut way": 2, "delay way": 2, "hold way": 2}
"""Faults of the way to the store that half of the instances have, at most one in a run."""
SENDING = {"": 5, "drop": 2, "reply": 2, "kill normal": 1}
"""What breaks as a prompt is sent: the connection after it, or before its `message.accepted`, or those to the store."""
WORDS = ["the", "*answer*", "of", "a `model`", "grows,", "**word**", "by", "word.", "ü", "日本語", "<b>", "&"]
LAYOUT = [
    "\n\n",
    "\n\n## Title\n\n",
    "\n\n- item ",
    "\n\n```python\nx = 1\n",
    "\n```\n\n",
    "\n\n1. one\n2. two ",
]


@dataclass(frozen=True)
class Prompt:
    """One prompt, and what the model says to it."""

    sender: int
    text: str
    pieces: tuple[str, ...]
    pause_seconds: float
    breaks: str = ""  # what breaks as it is sent
    breaks_ending: bool = False  # subscribers are cut off just before the last events of its answer


@dataclass(frozen=True)
class Talk:
    """One conversation: its rounds of prompts (two in one round are rivals, of whom one waits), and who opens it after so many events."""

    rounds: tuple[tuple[Prompt, ...], ...]
    readers: dict[int, int]
    eager: bool = False  # the next round does not wait until the one before is answered


@dataclass(frozen=True)
class Fault:
    """One thing that breaks, `gap` events after the one before; `events` is how long a tab stays away."""

    kind: str
    gap: int
    tab: int = 0
    events: int = 0
    seconds: float = 0
    which: int = 0  # of the instances


@dataclass(frozen=True)
class Plan:
    """A whole run. The witness opens every conversation and never stays away."""

    seed: int
    witness: int
    talks: tuple[Talk, ...]
    faults: tuple[Fault, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """All prompts that somebody will try to send."""
        return [prompt for talk in self.talks for prompts in talk.rounds for prompt in prompts]


def draw(seed: int, *, slow: bool = True) -> Plan:
    """Draw a run; `slow`: with a fault of the store, now and then."""
    random = Random(seed)
    witness = random.randrange(TABS)
    talks = tuple(_talk(random, seed, number, witness) for number in range(random.randint(1, 3)))
    faults = [_quick(random, witness) for _ in range(random.randint(8, 16))]
    kind = random.choices([*SLOW], [*SLOW.values()])[0]
    fault = Fault(kind, random.randint(5, 40), seconds=random.uniform(0.2, 2))
    where = random.randrange(len(faults))
    if kind and slow:
        faults.insert(where, fault)
    for kinds in (INSTANCE, WAY) if slow else ():
        if kind := random.choices([*kinds], [*kinds.values()])[0]:
            fault = Fault(
                kind, random.randint(3, 20), events=random.randint(5, 40), which=random.randrange(4)
            )
            faults.insert(random.randrange(len(faults)), fault)
    return Plan(seed, witness, talks, tuple(faults))


def _talk(random: Random, seed: int, number: int, witness: int) -> Talk:
    readers = {tab: random.choice([0, random.randint(0, 60)]) for tab in range(TABS) if random.random() < 0.8}
    readers[witness] = 0
    rounds = []
    for turn in range(random.randint(2, 4)):
        rivals = 2 if turn and random.random() < 0.3 else 1
        senders = random.sample(sorted(readers), min(rivals, len(readers)))
        rounds.append(tuple(_prompt(random, f"[{seed}/{number}/{turn}/{each}]", each) for each in senders))
    return Talk(tuple(rounds), readers, random.random() < 0.4)


def _prompt(random: Random, mark: str, sender: int) -> Prompt:
    said = [_piece(random) for _ in range(random.randint(25, 60))]
    pause_seconds = random.uniform(0.3, 1.5) / len(said)
    breaks = random.choices([*SENDING], [*SENDING.values()])[0]
    pieces = (f"To {mark}: ", *said)
    return Prompt(sender, f"Prompt {mark}, please", pieces, pause_seconds, breaks, random.random() < 0.25)


def _piece(random: Random) -> str:
    return random.choice(LAYOUT) if random.random() < 0.1 else random.choice(WORDS) + " "


def _quick(random: Random, witness: int) -> Fault:
    kind = random.choices([*QUICK], [*QUICK.values()])[0]
    tab = random.randrange(TABS)
    if kind == "away" and tab == witness:
        kind = "drop"
    return Fault(kind, random.randint(1, 14), tab, random.randint(3, 50))
