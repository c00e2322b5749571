"""Who somebody is, as an OpenID provider tells. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

LATE_SECONDS = 60
"""As far as the issuer's clock and ours may differ."""


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by what the provider calls them."""

    issuer: str
    subject: str
    """The same for ever, and nobody else's at this issuer."""
    name: str = ""
    """For people to read."""
    visit: str = ""
    """Of the person at the issuer, where it tells of them: it ends with a sign-out there."""

    @property
    def digest(self) -> str:
        """What the person is known by here."""
        return sha256(f"{self.issuer}\n{self.subject}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Leaver:
    """A person whose visit at the issuer has ended; of no visit: all have."""

    person: Person
    at: float
    """When the issuer said so, in seconds since the epoch: who came later has not left."""
