"""nginx with TLS before instances, in turn and without stickiness, as a child process on a port of its own."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import trustme

from tests.instances import Instance
from tests.instances.child import Child, free_port
from tests.waiting import eventually

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
  upstream chat {{ {servers} }}
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/chain.pem;
    ssl_certificate_key {folder}/key.pem;
    location / {{
      proxy_pass http://chat;
      proxy_http_version 1.1;
      proxy_next_upstream error timeout http_503 non_idempotent;
      proxy_connect_timeout 2s;
      proxy_read_timeout 75s;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Real-IP $remote_addr;
      add_header X-Served-By $upstream_addr always;
    }}
  }}
}}
"""


class Nginx:
    """`async with Nginx(folder, instances) as front:`; `front.url` is its address, `front.tls` whom to trust.

    It is a single process, which no worker outlives, and which runs as whoever runs the tests. It tells in
    X-Served-By which instance answered, after those that it asked in vain.
    """

    def __init__(self, folder: Path, instances: Sequence[Instance]) -> None:
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.tls = ssl.create_default_context()
        self._folder = folder
        self._servers = " ".join(f"server 127.0.0.1:{each.port} max_fails=0;" for each in instances)
        self._child: Child | None = None

    async def __aenter__(self) -> Self:
        program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
        assert program, "nginx is missing: install the package nginx-light, or run `make test-system`"
        authority = trustme.CA()
        authority.configure_trust(self.tls)
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(self._folder / "key.pem")
        for pem in certificate.cert_chain_pems:
            pem.write_to_path(self._folder / "chain.pem", append=True)
        conf = self._folder / "nginx.conf"
        conf.write_text(CONFIG.format(folder=self._folder, port=self.port, servers=self._servers))
        # -e: else it first opens the log of the machine's own nginx
        command = (program, "-e", "stderr", "-p", str(self._folder), "-c", str(conf))
        self._child = Child(*command, env={"PATH": os.environ["PATH"]}, folder=self._folder)
        await self._child.start()
        try:
            await eventually(self._listens, seconds=20, what="nginx listens")
        except BaseException:
            await self._child.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._child
        print("\n".join([f"nginx {self.port}:", *self._child.lines]))  # shown where the test fails
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
