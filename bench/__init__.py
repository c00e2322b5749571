"""Measures llmchat beside the stack that it replaces: `make bench`. Knows llmchat's wire, and nothing of its inside
but where that is what is measured (`turn`, `group`)."""
