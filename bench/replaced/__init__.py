"""The stack that llmchat replaces, as it is used: Channels over channels_redis' core layer, served by daphne.

A chat in the shape that its tutorials have: no log, no leases, no Markdown, no limits. It runs in `.venv-bench`.
"""
