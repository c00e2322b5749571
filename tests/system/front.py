"""What proxies before instances have alike: TLS, a port of their own, a configuration that docs/proxies.md tells."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import trustme

from tests.instances import Instance
from tests.instances.child import Child, free_port
from tests.instances.instance import ROOT
from tests.waiting import eventually

DOCUMENT = ROOT / "docs" / "proxies.md"


def told(language: str, changes: dict[str, str]) -> str:
    """Give the document's configuration in a language, with what is another here changed: each is there, once."""
    found = re.search(rf"```{language}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    text = found[1]
    for written, here in changes.items():
        assert text.count(written) == 1, f"{written!r} in docs/proxies.md"
        text = text.replace(written, here)
    return text


class Front(ABC):
    """`async with Nginx(folder, instances) as front:`; `front.url` is its address, `front.tls` whom to trust.

    It tells in `x-served-by` which instance answered. `front.plain` is its port without TLS.
    """

    program: str

    def __init__(self, folder: Path, instances: Sequence[Instance]) -> None:
        self.port, self.plain = free_port(), free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.tls = ssl.create_default_context()
        self._folder = folder
        self._instances = instances
        self._child: Child | None = None

    @abstractmethod
    def command(self, program: str) -> Sequence[str]:
        """Write the configuration, and give the command that starts it."""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._child
        return self._child.pid

    async def __aenter__(self) -> Self:
        program = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, f"{self.program} is missing: install it, or run `make test-system`"
        authority = trustme.CA()
        authority.configure_trust(self.tls)
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(self._folder / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(self._folder / "chain.pem", append=True)
        certificate.private_key_and_cert_chain_pem.write_to_path(self._folder / "both.pem")
        self._child = Child(*self.command(program), env={"PATH": os.environ["PATH"]}, folder=self._folder)
        await self._child.start()
        try:
            await eventually(self._listens, seconds=20, what=f"{self.program} listens")
        except BaseException:
            await self._child.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._child
        print("\n".join([f"{self.program} {self.port}:", *self._child.lines]))  # shown where the test fails
        if self._child.alive:
            self._child.signal(signal.SIGTERM)
        try:
            await self._child.ended()
        finally:
            await self._child.close()

    async def _listens(self) -> bool:
        assert self._child
        assert self._child.alive, self._child.lines
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True
