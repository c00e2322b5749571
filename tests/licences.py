"""`python -m tests.licences`: writes docs/licences.md, the licences of all that the product is installed with."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "licences.md"
PINNED = ("requirements.txt", "requirements-local.txt")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", re.MULTILINE)
ROW = re.compile(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
KNOWN = re.compile(
    r"(MIT(-0)?|BSD(-[23]-Clause)?|Apache(-2\.0)?|Apache Software|ISC|PSF-2\.0|Python Software Foundation|"
    r"Mozilla Public License 2\.0 \(MPL 2\.0\)|MPL-2\.0)( License)?"
)
"""Which a self-hosted server may use, changed or not, whatever its own licence is."""
HEAD = """\
# Licences

Of all that llmchat is installed with: `requirements.txt`, and of the embedded parts of `make run`, `requirements-local.txt`. llmchat itself is under the [MIT licence](../LICENSE). The page has no code, font or picture of others.

Made by `make requirements`; a test fails where it is not of the pinned versions, or a licence is none that anybody may use in a server of their own.

| package | version | licence |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Licence:
    """Of a package, as its own metadata say it."""

    package: str
    version: str
    name: str

    @property
    def usable(self) -> bool:
        """Whether each part of it is among the known ones, or one of those to choose from."""
        choices = re.split(r" OR ", self.name)
        return any(
            all(KNOWN.fullmatch(part.strip()) for part in re.split(r" AND |;", each)) for each in choices
        )


def plain(name: str) -> str:
    """Give a package's name in the one spelling that packages are compared by."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pinned() -> dict[str, str]:
    """Read which versions are pinned, of what the product is installed with."""
    texts = [(ROOT / file).read_text() for file in PINNED]
    return {plain(name): version for text in texts for name, version in PIN.findall(text)}


def told() -> list[Licence]:
    """Read what the page says."""
    rows = [Licence(*row) for row in ROW.findall(PAGE.read_text())]
    return [each for each in rows if each.package != "package" and not each.package.startswith("---")]


@cache
def installed() -> list[Licence]:
    """Ask the packages that are installed here; those for other systems are not among them."""
    command = [sys.executable, "-m", "piplicenses", "--from=mixed", "--format=json", "--with-system"]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    wanted = pinned()
    licences = [Licence(plain(each["Name"]), each["Version"], each["License"]) for each in found]
    return sorted((each for each in licences if each.package in wanted), key=lambda each: each.package)


if __name__ == "__main__":
    PAGE.write_text(
        HEAD + "".join(f"| {each.package} | {each.version} | {each.name} |\n" for each in installed())
    )
