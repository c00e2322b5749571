"""No pages: the chat is its websocket."""

from typing import Any

urlpatterns: list[Any] = []
