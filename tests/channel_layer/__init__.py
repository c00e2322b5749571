"""What docs/channel-layer.md promises, as tests that run on every kind of server."""

import pytest

for _module in ("rules", "connection_rules", "steps"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")
