"""The doors: the page, the websocket, health."""
