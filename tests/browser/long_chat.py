"""A chat of thousands of messages, put into the store directly: nobody waits for a model to write it."""

from __future__ import annotations

import json
import re

from playwright.async_api import Page
from redis.asyncio import Redis

from llmchat.keys import Keys
from tests.instances import Store

CREATED = "2026-01-05T10:00:00.000Z"
QUESTION = "Question {number}: how does part {number} work, and why is it there at all?"
ANSWER = """Answer {number} begins here, and goes on for a line or two, so that it is broken more than once on a phone.

{items}

```python
def part_{number}(value):
    return value * {number}
```

That is all about part {number}."""


def text_of(number: int) -> str:
    """Make the text of a message: questions at even numbers, answers of several heights at odd ones."""
    if number % 2 == 0:
        return QUESTION.format(number=number)
    items = "\n".join(f"- Point {point} of answer {number}" for point in range(number % 17))
    return ANSWER.format(number=number, items=items)


async def lengthen(page: Page, store: Store, messages: int) -> None:
    """Put messages above the first one of the chat that a page shows."""
    found = re.search(r"/c/([\w-]+)$", page.url)
    assert found
    keys = Keys("llmchat").of_conversation(found[1])
    async with Redis.from_url(store.url) as redis:
        first = (await redis.hget(keys.tree, "children:")).decode()
        ids = [f"seeded-{number}" for number in range(messages)]
        records, tree = {}, {}
        for number, (parent, name, child) in enumerate(zip(["", *ids], ids, [*ids[1:], first], strict=False)):
            role = "assistant" if number % 2 else "user"
            record = {"id": name, "role": role, "parent": parent or None, "text": text_of(number)}
            records[name] = json.dumps(
                record | {"created": CREATED, "state": "done", "finish_reason": "stop"}
            )
            tree |= {name: f"{role} {parent}", f"children:{name}": child, f"chosen:{name}": child}
        record = json.loads(await redis.hget(keys.messages, first))
        records[first] = json.dumps(record | {"parent": ids[-1]})
        tree |= {first: f"user {ids[-1]}", "children:": ids[0], "chosen:": ids[0]}
        await redis.hset(keys.messages, mapping=records)
        await redis.hset(keys.tree, mapping=tree)
