"""`python -m tests.audit FILE…`: whether what is pinned has known vulnerabilities; no answer is no finding.

Ends with 1 where one is known, and with 0 and a warning where nobody could be asked: one can work without a network.
`AUDIT` has more of pip-audit's options, as `--ignore-vuln ID` for what does not concern us; `AUDIT_STRICT=1` ends with
2 where not every package was looked up.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SECONDS = 180
"""For all packages; one that does not answer in ANSWER_SECONDS ends it."""
ANSWER_SECONDS = 10
SOME = 10
"""Names of packages that a warning has at most."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What was found, a line each; and why it is not all."""

    findings: tuple[str, ...] = ()
    packages: int = 0
    """That were looked up."""
    lacking: str = ""

    @classmethod
    def of(cls, report: Any) -> Audit:
        """Read pip-audit's JSON."""
        findings, unknown, packages = [], [], 0
        for package in report["dependencies"]:
            if "skip_reason" in package:
                unknown.append(package["name"])
                continue
            packages += 1
            findings += [
                f"{package['name']} {package['version']}: {each['id']}, mended in {', '.join(each['fix_versions']) or 'none yet'}"
                for each in package["vulns"]
            ]
        lacking = ", ".join(unknown[:SOME]) + (
            f" and {len(unknown) - SOME} more" if len(unknown) > SOME else ""
        )
        return cls(tuple(findings), packages, f"unknown to the service: {lacking}" if unknown else "")


def audit(files: Sequence[str], options: Sequence[str] = ()) -> Audit:
    """Ask the service that pip-audit asks about all packages that files pin."""
    named = [word for file in files for word in ("--requirement", file)]
    command = [
        *(
            sys.executable,
            "-m",
            "pip_audit",
            "--format",
            "json",
            "--disable-pip",
            "--progress-spinner",
            "off",
        ),
        *("--timeout", str(ANSWER_SECONDS), *named, *options),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Audit(lacking=f"the service took longer than {SECONDS} s")
    try:
        return Audit.of(json.loads(done.stdout))
    except json.JSONDecodeError:  # pip-audit has none where it fails: its last line says why
        return Audit(lacking=(done.stderr.strip() or "pip-audit said nothing").splitlines()[-1])


def main(files: Sequence[str]) -> int:
    """Audit files and tell what was found."""
    found = audit(files, shlex.split(os.environ.get("AUDIT", "")))
    for line in found.findings:
        print(line, file=sys.stderr)
    if found.lacking:
        print(
            f"WARNING: {'Not all' if found.packages else 'No'} packages could be looked up for known "
            f"vulnerabilities ({found.packages} were): {found.lacking}",
            file=sys.stderr,
        )
    elif not found.findings:
        print(f"{found.packages} packages, no known vulnerabilities.")
    if found.findings:
        return 1
    return 2 if found.lacking and os.environ.get("AUDIT_STRICT") else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
