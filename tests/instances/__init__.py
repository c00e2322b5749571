"""Real processes for tests: a store, instances, and clients that speak the protocol to them."""

from tests.instances.client import Client, Page, Refused
from tests.instances.handshake import Handshake, handshake
from tests.instances.instance import Instance
from tests.instances.mirror import Broken, Mirror
from tests.instances.proxy import Proxy
from tests.instances.seed import SeedClient
from tests.instances.store import Store

__all__ = [
    "Broken",
    "Client",
    "Handshake",
    "Instance",
    "Mirror",
    "Page",
    "Proxy",
    "Refused",
    "SeedClient",
    "Store",
    "handshake",
]
