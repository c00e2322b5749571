"""The picture in the README: made here, kept by `make screenshot`."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.async_api import expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, button, chats, say
from tests.fakes import Model
from tests.instances import Instance

SMALLEST_PICTURE = 20_000  # bytes; an empty page is smaller
ANSWER = """A rainbow is sunlight, sorted by drops of water:

1. Light enters a drop and **bends**; each colour bends by a little more or less.
2. It is reflected once at the back of the drop.
3. It leaves the drop, and bends again.

You see each colour where its angle fits:

```python
angles = {"red": 42.4, "green": 41.5, "violet": 40.7}

for colour, degrees in angles.items():
    print(f"{colour:>6} at {degrees}° from the point opposite the sun")
```

So the sun is always *behind* you, and red is always outside.
"""


async def test_page_makes_the_picture_of_the_readme(
    open_page: OpenPage, instances: tuple[Instance, Instance], model: Model, tmp_path: Path
) -> None:
    page = await open_page(instances[0], viewport={"width": 1280, "height": 800})
    for number, prompt in enumerate(("Ideas for a quiet weekend", "A thank-you note for Amina"), start=1):
        await say(page, prompt)
        await expect(answers(page)).to_have_count(1)
        await expect(chats(page)).to_have_count(number)
        await expect(button(page, "Send")).to_be_visible()
        await page.get_by_role("button", name="New chat").first.click()
    model.answer(ANSWER)
    await say(page, "How does a rainbow form? Show me the angles in Python.")
    await expect(answers(page)).to_contain_text("red is always outside")
    await expect(button(page, "Send")).to_be_visible()
    picture = Path(os.environ.get("SCREENSHOT") or tmp_path / "screenshot.png")
    taken = await page.screenshot(path=picture)
    assert len(taken) > SMALLEST_PICTURE
