"""The pictures of the README: made here, kept in docs/pictures by `make pictures`."""

from __future__ import annotations

import os
from pathlib import Path

from playwright.async_api import FilePayload, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, idle, say
from tests.fakes import Gate, Model
from tests.instances import Instance

Instances = tuple[Instance, Instance]
SMALLEST = 20_000  # bytes; a picture of nothing is smaller
DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 780}
RAINBOW = """A rainbow is sunlight, sorted by drops of water:

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
SHARES = """Each of $n$ guests has the same angle of the cake, and its area is

$$
A = \\frac{1}{2} r^2 \\cdot \\frac{2 \\pi}{n} = \\frac{\\pi r^2}{n}
$$

| guests | angle | area of a 24 cm cake |
| ---: | ---: | ---: |
| 3 | 120° | 151 cm² |
| 4 | 90° | 113 cm² |
| 6 | 60° | 75 cm² |

- [x] let it cool
- [x] warm the knife
- [ ] cut the first piece for whoever baked it
"""
PLAN = """Start at the castle while it is still cool, and let the hill take you down:

1. **Alfama**, on foot, without a map.
2. Lunch where the menu is on the wall.
3. Tram 28, standing, """


async def keep(page: Page, name: str, folder: Path) -> None:
    """Take a picture once nothing moves."""
    folder = Path(os.environ.get("PICTURES") or folder)
    taken = await page.screenshot(path=folder / f"{name}.png", animations="disabled")
    assert len(taken) > SMALLEST


async def test_desk_has_its_pictures(
    open_page: OpenPage, instances: Instances, model: Model, tmp_path: Path
) -> None:
    page = await open_page(instances[0], viewport=DESK)
    for prompt in ("Ideas for a quiet weekend", "A thank-you note for Amina"):
        await say(page, prompt)
        await expect(answers(page)).to_contain_text(prompt)
        await idle(page)
        await button(page, "New chat").first.click()
    model.answer(SHARES)
    await say(page, "How do I cut a round cake fairly?")
    await expect(answers(page)).to_contain_text("whoever baked it")
    await idle(page)
    await page.emulate_media(color_scheme="dark")
    await keep(page, "desk-dark", tmp_path)
    await page.emulate_media(color_scheme="light")
    await button(page, "New chat").first.click()
    model.answer(RAINBOW)
    await say(page, "How does a rainbow form? Show me the angles in Python.")
    await expect(answers(page)).to_contain_text("red is always outside")
    await idle(page)
    await keep(page, "desk-light", tmp_path)


async def test_phone_has_its_pictures(
    open_page: OpenPage, instances: Instances, model: Model, tmp_path: Path
) -> None:
    page = await open_page(instances[0], viewport=PHONE, has_touch=True)
    await keep(page, "phone-new", tmp_path)
    picture: FilePayload = {
        "name": "view.png",
        "mimeType": "image/png",
        "buffer": (Path(__file__).parent / "view.png").read_bytes(),
    }
    await page.locator("attachment-tray input").set_input_files([picture])
    await expect(page.locator("attachment-tray [data-state=taken]")).to_have_count(1)
    gate = Gate()
    model.answer(PLAN, gate)
    await box(page).fill("We are here for one day. What do we do?")
    await button(page, "Send").click()
    await gate.wait()
    await expect(answers(page)).to_contain_text("Tram 28")
    for prompt in ("And when it rains?", "Where is the best pastel de nata?"):
        await box(page).fill(prompt)
        await button(page, "Send").click()
    await expect(page.locator("queue-chips [data-state=queued]")).to_have_count(2)
    await keep(page, "phone-light", tmp_path)
    await page.emulate_media(color_scheme="dark")
    await keep(page, "phone-dark", tmp_path)
    gate.open()
    await idle(page)  # no prompt is left for the model of another test
