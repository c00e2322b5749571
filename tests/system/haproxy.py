"""HAProxy with TLS before instances whose health it checks, as a child process on ports of its own."""

from __future__ import annotations

from collections.abc import Sequence

from tests.system.front import Front, told


class HAProxy(Front):
    """A single process in the foreground."""

    program = "haproxy"

    def command(self, program: str) -> Sequence[str]:
        """Write the configuration, and give the command that starts it."""
        servers = "\n".join(
            f"  server number{number} 127.0.0.1:{each.port}" for number, each in enumerate(self._instances)
        )
        changes = {
            "bind :80\n": f"bind 127.0.0.1:{self.plain}\n",
            "bind :443": f"bind 127.0.0.1:{self.port}",
            "/etc/haproxy/chat.pem": f"{self._folder}/both.pem",
            "  server one 127.0.0.1:8000\n": f"{servers}\n  http-response set-header x-served-by %si:%sp\n",
            "  server two 127.0.0.1:8001\n": "",
        }
        conf = self._folder / "haproxy.cfg"
        conf.write_text(told("haproxy", changes))
        return (program, "-db", "-f", str(conf))
