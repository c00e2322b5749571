"""nginx with TLS before instances, in turn and without stickiness, as a child process on ports of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.system.front import Front, told

CONFIG = """
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 2048; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {told}
}}
"""


class Nginx(Front):
    """A single process, which no worker outlives, and which runs as whoever runs the tests.

    `x-served-by` has the instances, too, that it asked in vain.
    """

    program = "nginx"

    def command(self, program: str) -> Sequence[str]:
        """Write the configuration, and give the command that starts it."""
        servers = "\n".join(f"server 127.0.0.1:{each.port} max_fails=0;" for each in self._instances)
        changes = {
            "listen 80;": f"listen 127.0.0.1:{self.plain};",
            "listen 443 ssl": f"listen 127.0.0.1:{self.port} ssl",
            "/etc/ssl/chat.pem": f"{self._folder}/chain.pem",
            "/etc/ssl/chat-key.pem": f"{self._folder}/key.pem",
            "  server 127.0.0.1:8000 max_fails=0;\n": servers,
            "  server 127.0.0.1:8001 max_fails=0;\n": "",
            "proxy_pass http://chat;": "proxy_pass http://chat; add_header x-served-by $upstream_addr always;",
        }
        conf = self._folder / "nginx.conf"
        conf.write_text(CONFIG.format(folder=self._folder, told=told("nginx", changes)))
        # -e: else it first opens the log of the machine's own nginx
        return (program, "-e", "stderr", "-p", str(self._folder), "-c", str(conf))
