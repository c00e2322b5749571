"""A chat with a language model that anyone can run: Quart, one websocket, Redis."""

__version__ = "0.2.0"
