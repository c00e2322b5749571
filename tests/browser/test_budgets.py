"""What a person sees where the tokens of a day are used up, and how the words come through."""

from __future__ import annotations

import re
import secrets
from datetime import date, timedelta

from playwright.async_api import Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, box, button, messages, say
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Store

USED_UP = "Your tokens for today are used up, or too few for this."
IN_WORDS = re.compile(
    re.escape(USED_UP) + r" Will be sent in (\d+ hours?( \d+ minutes?)?|\d+ minutes?|\d+ s)$"
)


async def spend_all(store: Store, prefix: str, *, back: bool = False) -> None:
    """Use up everybody's tokens of the day, and of the next, should this be midnight; or give them back."""
    async with store.client() as redis:
        found = [key.decode() async for key in redis.scan_iter(f"{prefix}:spent:*")]
        assert found
        for key in found:
            _, _, day, who = key.split(":")
            for each in (date.fromisoformat(day), date.fromisoformat(day) + timedelta(days=1)):
                await redis.set(f"{prefix}:spent:{each}:{who}", 0 if back else 10**6)


async def test_prompt_without_tokens_waits_with_the_time_in_words_and_is_sent_when_there_are_new_ones(
    store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    prefix = f"budget-{secrets.token_hex(4)}"
    page = await open_page(await start_instance(store, TOKENS_PER_DAY="100000", REDIS_PREFIX=prefix))
    await say(page, "One")
    await expect(answers(page)).to_contain_text("You said: One")
    await spend_all(store, prefix)
    await say(page, "Two")
    await expect(messages(page).get_by_text(IN_WORDS)).to_be_visible()
    await expect(page.get_by_role("status")).to_contain_text(f"{USED_UP} Your message will be sent in ")
    await page.clock.install()
    await page.reload()
    await expect(messages(page).get_by_text(IN_WORDS)).to_be_visible()
    await spend_all(store, prefix, back=True)
    await page.clock.fast_forward("25:00:00")
    await expect(answers(page).last).to_contain_text("You said: Two")
    await expect(messages(page)).to_have_count(4)


async def test_answer_that_the_tokens_end_in_stays_and_its_continuation_says_when_there_are_new_ones(
    store: Store, start_instance: StartInstance, open_page: OpenPage, model: Model
) -> None:
    prefix = f"budget-{secrets.token_hex(4)}"
    page: Page = await open_page(
        await start_instance(store, TOKENS_PER_DAY="1500", CONTEXT_TOKENS="1000", REDIS_PREFIX=prefix)
    )
    model.answer(*["word " * 100] * 30, Gate(), "never said")
    await say(page, "One")
    await expect(answers(page)).to_contain_text("Cut off at the length limit")
    await expect(answers(page)).to_contain_text("word word")
    await button(page, "Continue").click()
    notices = page.get_by_role("region", name="Notices")
    await expect(notices).to_contain_text(re.compile(rf"{re.escape(USED_UP)} There are new ones in \d"))
    await expect(answers(page)).to_contain_text("word word")
    await expect(box(page)).to_have_value("")
