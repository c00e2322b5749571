"""llmchat with more connections of one session, and of one address, than it lets in: a group is a hundred of them.

Nothing else differs. Run by its path, so that it serves the llmchat that PYTHONPATH names.
"""

from __future__ import annotations

import sys

from llmchat.blueprints import visitors

MOST = 100_000

visitors.CONNECTIONS_OF_SESSION = MOST
visitors.CONNECTIONS_OF_ADDRESS = MOST

from llmchat.__main__ import main  # noqa: E402 - it reads the numbers as it is imported

if __name__ == "__main__":
    sys.exit(main())
