"""The version before this one, taken out of git, to run beside it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

VERSION_FILE = "llmchat/__init__.py"
RELEASES = "v[0-9]*"
SHALLOW = (
    "This clone is shallow, so the version before is not in it, and nothing can be told of a deploy: "
    "`git fetch --unshallow --tags` brings it."
)
NONE_BEFORE = (
    "There is no version before this one: neither a tag v… before this commit, nor another __version__."
)


def revision_before(clone: Path) -> str:
    """Name the commit of the version before: the newest release that this commit comes after.

    Without one, the last commit with another `__version__`. A shallow clone fetches what it lacks. Fails where the clone
    cannot have it: never is a test of two versions passed over.
    """
    if _is_shallow(clone):
        _git(clone, "fetch", "--quiet", "--unshallow", "--tags", may_fail=True)
    assert not _is_shallow(clone), SHALLOW
    if tag := _git(clone, "describe", "--tags", "--abbrev=0", "--match", RELEASES, "HEAD^", may_fail=True):
        return tag
    began = _git(clone, "log", "-1", "--format=%H", "-G^__version__ = ", "--", VERSION_FILE)
    before = began and _git(
        clone, "rev-parse", "--verify", "--quiet", f"{began}^:{VERSION_FILE}", may_fail=True
    )
    assert before, NONE_BEFORE
    return f"{began}^"


def unpack(clone: Path, revision: str, folder: Path) -> None:
    """Lay the files of a revision into a folder."""
    made = subprocess.run(["git", "archive", revision], cwd=clone, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _is_shallow(clone: Path) -> bool:
    return _git(clone, "rev-parse", "--is-shallow-repository") == "true"


def _git(clone: Path, *words: str, may_fail: bool = False) -> str:
    """Give what git says; where it may fail, "" says that it did."""
    asked = subprocess.run(["git", *words], cwd=clone, check=False, capture_output=True, text=True)
    assert may_fail or asked.returncode == 0, f"git {' '.join(words)}: {asked.stderr.strip()}"
    return asked.stdout.strip() if asked.returncode == 0 else ""
