"""What a page sends where no script runs: forms, over plain HTTP. Sent on one instance, read on the other."""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.conftest import Connect, StartInstance
from tests.fakes import Gate, Model
from tests.instances import Client, Instance, Store
from tests.instances.client import Page
from tests.instances.talk import begin, send
from tests.waiting import eventually

Instances = tuple[Instance, Instance]
PASSWORD = "correct horse battery"
HOSTILE = "</textarea><script>alert(1)</script>\"'&lt;b>\n<b>x</b>"


class Browser:
    """A browser without scripts: it keeps cookies, and sends back what a form has."""

    def __init__(self, client: Client, instance: Instance) -> None:
        self.client = client
        self.client.instance = instance
        self.shown = Page(0, {}, "")

    async def look(self, path: str = "/") -> Page:
        """Open a page."""
        self.shown = await self.client.page(path)
        return self.shown

    async def press(self, path: str, **fields: str) -> Page:
        """Send the form of the page that is shown; `fields` are what was typed, or the button pressed."""
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in {"id": self.id, **fields}.items():
            form.add_field(name, value)
        return await self.client.page(path, method="POST", data=form)

    @property
    def id(self) -> str:
        """The id of the form that is shown."""
        found = re.search(r'<input type="hidden" name="id" value="([\w-]+)"', self.shown.text)
        assert found, self.shown.text[:500]
        return found[1]


def box(page: Page) -> str:
    """What is in the box of a page."""
    found = re.search(r"<textarea [^>]*name=\"text\"[^>]*>(.*?)</textarea>", page.text, re.DOTALL)
    assert found
    return unescape(found[1])


def problem(page: Page) -> str:
    """What a page says of the words in its box."""
    found = re.search(r'<p class="problem" id="problem"( hidden)?>(.*?)</p>', page.text)
    assert found
    assert (found[1] is None) == (found[2] != "")
    return unescape(found[2])


def prompts(page: Page) -> list[str]:
    """The prompts that a page shows."""
    return [
        unescape(each)
        for each in re.findall(r'<p class="words"[^>]*>(.*?)</p>', page.text, re.DOTALL)
        if each
    ]


def led_to(page: Page) -> str:
    """Where a form led, without the message there."""
    assert page.status == 303, page.text[:2000]
    return urlsplit(page.headers["Location"]).path


def acts(page: Page, name: str) -> list[str]:
    """What the buttons of a kind are about."""
    found: list[str] = re.findall(rf'<button type="submit"[^>]* name="{name}" value="([^"]+)"', page.text)
    return found


@pytest.fixture
async def browser(instances: Instances) -> AsyncIterator[Browser]:
    """A browser that has looked at the page of a new chat."""
    browser = Browser(Client(), instances[0])
    await browser.look()
    yield browser
    await browser.client.close()


async def answered(browser: Browser, path: str, instance: Instance) -> Page:
    """Read a chat on an instance, as often as the page itself would, until nothing of it is being made."""
    browser.client.instance = instance

    async def whole() -> bool:
        return 'http-equiv="refresh"' not in (await browser.look(path)).text

    await eventually(whole, seconds=10, what=f"{path} renews itself no more")
    return browser.shown


async def test_prompt_of_a_form_is_stored_once_and_answered_and_told_to_every_tab(
    browser: Browser, instances: Instances, connect: Connect, model: Model
) -> None:
    tab = await connect(instances[1], browser.client)
    text = "One\r\ntwo  \r\n"
    first = await browser.press("/", text=text)
    again = await browser.press("/", text=text)
    path = led_to(first)
    assert first.headers["Location"] == again.headers["Location"]
    assert re.fullmatch(r"/c/\w+#by-\w+", first.headers["Location"])
    listed = await tab.event("conversation.updated")
    assert listed["conversation"]["id"] == path.removeprefix("/c/")
    page = await answered(browser, path, instances[1])
    assert prompts(page) == ["One\ntwo"]
    assert "You said: " in page.text
    assert [request.prompt for request in model.requests] == ["One\ntwo"]
    assert box(page) == ""

    # The same words once more, from the page that has come since, are another prompt; so are others from an old one.
    old = browser.id
    assert led_to(await browser.press(path, text="One\ntwo")) == path
    page = await answered(browser, path, instances[0])
    assert led_to(await browser.press(path, id=old, text="Three")) == path
    assert prompts(await answered(browser, path, instances[0])) == ["One\ntwo", "One\ntwo", "Three"]


async def test_page_renews_itself_while_an_answer_is_made_and_not_under_the_hands(
    browser: Browser, instances: Instances, model: Model
) -> None:
    gate = Gate()
    model.answer("As far as ", gate, "this")
    path = led_to(await browser.press("/", text="Go on"))
    await gate.wait()
    renewing = f'<noscript><meta http-equiv="refresh" content="2;url={path}"></noscript>'
    browser.client.instance = instances[1]
    page = await browser.look(path)
    assert renewing in page.text
    (answer,) = acts(page, "stop")
    assert 'http-equiv="refresh"' not in (await browser.look(f"{path}?write")).text
    assert led_to(await browser.press(path, text="Then this")) == path
    page = await browser.look(path)
    assert renewing in page.text
    waiting = acts(page, "withdraw")[-1]

    # Taken back, it is in the box, before what was typed meanwhile; and nothing renews it away.
    page = await browser.press(path, withdraw=waiting, text="And that")
    assert (page.status, box(page)) == (200, "Then this\n\nAnd that")
    assert 'http-equiv="refresh"' not in page.text
    assert prompts(page) == ["Go on"]

    await browser.look(path)
    assert led_to(await browser.press(path, stop=answer)) == path
    await (await model.asked()).closed()
    page = await answered(browser, path, instances[1])
    assert 'http-equiv="refresh"' not in page.text
    assert "Stopped" in page.text

    # It goes on, is made anew, and either version can be shown.
    model.answer("as far as that.")
    assert led_to(await browser.press(path, **{"continue": answer})) == path
    page = await answered(browser, path, instances[0])
    model.answer("A second version.")
    for _ in range(2):  # once
        assert led_to(await browser.press(path, regenerate=answer)) == path
    page = await answered(browser, path, instances[0])
    assert "2/2" in page.text
    assert "A second version." in page.text
    assert answer in acts(page, "select")
    assert led_to(await browser.press(path, select=answer)) == path
    page = await browser.look(path)
    assert "1/2" in page.text
    assert "A second version." not in page.text

    # Words that are in the box while a button is pressed stay there.
    page = await browser.press(path, select=acts(page, "select")[-1], text="Half a")
    assert (page.status, box(page)) == (200, "Half a")


async def test_form_is_refused_in_words_and_keeps_what_was_typed(
    browser: Browser, instances: Instances, connect: Connect
) -> None:
    page = await browser.press("/", text=" \r\n ")
    assert (page.status, problem(page)) == (422, "Write a message first.")
    long = "ä" * 16_001
    page = await browser.press("/", text=long)
    assert (page.status, box(page)) == (422, long)
    assert "16001 characters; at most 16000" in problem(page)
    assert 'name="robots" content="noindex"' in page.text
    page = await browser.press("/", text="😀" * 16_000)  # as many as may be, as wide as they come
    assert page.status == 303
    page = await browser.press("/", text="x" * 70_000)
    assert page.status == 413
    assert "too long to be sent" in page.text

    owner = await connect(instances[1])
    foreign = await begin(owner, "Mine")
    for conversation in (foreign, "nowhere", "a.b", "x" * 65):
        page = await browser.press(f"/c/{conversation}", text=HOSTILE)
        assert (page.status, box(page)) == (404, HOSTILE.strip())
        assert "Your message is here" in problem(page)
        assert 'action="/"' in page.text
        assert "<script>alert" not in page.text
        for act in ("stop", "regenerate", "continue", "select", "withdraw"):
            page = await browser.press(f"/c/{conversation}", **{act: "message"})
            assert page.status == 404, (conversation, act)
    assert len(list(owner.mirror(foreign).branch())) == 2


async def test_button_of_an_old_page_does_no_harm(
    browser: Browser, instances: Instances, model: Model
) -> None:
    path = led_to(await browser.press("/", text="One"))
    page = await answered(browser, path, instances[0])
    (answer,) = set(acts(page, "regenerate"))
    for act, message, status in (
        ("stop", answer, 303),  # it has ended
        ("withdraw", answer, 422),
        ("continue", answer, 422),
        ("regenerate", "nothing", 404),
        ("select", "a b", 422),
    ):
        page = await browser.press(path, **{act: message})
        assert page.status == status, act
        if status != 303:
            assert problem(page)
            assert prompts(page) == ["One"]
    assert (await browser.press("/", stop=answer)).status == 422
    gate = Gate()
    model.answer(gate)
    await browser.look(path)
    assert led_to(await browser.press(path, text="Two")) == path
    page = await browser.press(path, regenerate=answer, text="Half")
    assert (page.status, box(page)) == (409, "Half")
    for number in range(20):
        await browser.press(path, text=f"waits {number}")
    page = await browser.press(path, text="One too many")
    assert (page.status, box(page)) == (409, "One too many")
    assert problem(page)
    gate.open()


async def test_hostile_words_and_fields_are_words(browser: Browser, instances: Instances) -> None:
    path = led_to(await browser.press("/", text=HOSTILE, model="none", id="../" * 9))
    page = await answered(browser, path, instances[1])
    assert prompts(page) == [HOSTILE]
    assert "<script>alert" not in page.text
    for body, kind in (
        (b"\xff\xfe", "a/b"),
        (b"text=%FF%00&id=%00", "application/x-www-form-urlencoded"),
        (b"--x\r\n", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data"),
    ):
        page = await browser.client.page("/", method="POST", data=body, headers={"Content-Type": kind})
        assert page.status in (303, 400, 422), (body, page.text)
    for origin in ("https://evil.example", "null"):
        page = await browser.client.page(path, method="POST", data={"text": "Hi"}, headers={"Origin": origin})
        assert page.status == 403
    assert prompts(await answered(browser, path, instances[0])) == [HOSTILE]


async def test_browser_without_cookies_is_told_so_and_keeps_its_words(instances: Instances) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as http:
        for path in ("/", "/c/some"):
            async with http.post(
                instances[0].url + path, data={"text": "Hello", "id": "x"}, allow_redirects=False
            ) as answer:
                page = Page(answer.status, dict(answer.headers), await answer.text())
            assert (page.status, box(page)) == (400, "Hello")
            assert "kept no cookie" in problem(page)
            assert "llmchat=" in page.headers["Set-Cookie"]


@pytest.mark.long
async def test_forms_count_as_frames_do_and_say_how_long_to_wait(
    store: Store, start_instance: StartInstance
) -> None:
    prefix = f"forms-{secrets.token_hex(4)}"
    instance = await start_instance(store, PROMPTS_PER_MINUTE="1", REDIS_PREFIX=prefix)
    few = await start_instance(store, FRAMES_PER_MINUTE="2", REDIS_PREFIX=f"{prefix}-few")
    for limited in (instance, few):
        browser = Browser(Client(), limited)
        try:
            await browser.look()
            for number in range(4):
                page = await browser.press("/", text=f"Prompt {number}")
                if page.status != 303:
                    break
            assert page.status == 429
            assert box(page) == f"Prompt {number}"
            assert re.search(rf"Try again in {page.headers['Retry-After']} second", problem(page))
            if limited is instance:
                assert number == 1
                assert (await browser.press("/", text="Prompt 0")).status == 303  # a repeat counts nothing
        finally:
            await browser.client.close()


@pytest.mark.long
async def test_words_outlast_a_store_that_is_away(
    fresh_store: Store, start_instance: StartInstance, model: Model
) -> None:
    browser = Browser(Client(), await start_instance(fresh_store))
    try:
        await browser.look()
        await fresh_store.stop()
        page = await browser.press("/", text=HOSTILE)
        assert (page.status, box(page)) == (503, HOSTILE)
        assert page.headers["Retry-After"] == "1"
        assert "<script>alert" not in page.text
        await fresh_store.start()
        browser.shown = page
        assert (await browser.press("/", text=box(page))).status == 303
    finally:
        await browser.client.close()


@pytest.mark.long
async def test_words_outlast_a_sign_out(store: Store, start_instance: StartInstance) -> None:
    asking = await start_instance(
        store, ACCESS_PASSWORD=PASSWORD, REDIS_PREFIX=f"forms-{secrets.token_hex(4)}"
    )
    browser = Browser(Client(), asking)
    client = browser.client
    try:
        login = {"password": PASSWORD, "to": "/"}
        assert (await client.page("/sign-in", method="POST", data=login)).status == 303
        await browser.look()
        await client.page("/sign-out", method="POST")
        page = await browser.press("/", text="Half a thought")
        assert (page.status, box(page)) == (401, "Half a thought")
        assert "Hi" not in page.text
        assert 'href="/sign-in?to=/"' in page.text
        browser.shown = page
        assert (await client.page("/sign-in", method="POST", data=login)).status == 303
        assert (await browser.press("/", text=box(page))).status == 303
    finally:
        await client.close()


async def test_older_messages_and_chats_have_addresses(
    browser: Browser, instances: Instances, connect: Connect
) -> None:
    tab = await connect(instances[1], browser.client)
    conversation = await begin(tab, "Prompt 0")
    for number in range(1, 27):
        await tab.ending(await send(tab, conversation, f"Prompt {number}"))
    path = f"/c/{conversation}"
    page = await browser.look(path)
    found = prompts(page)
    while before := re.findall(rf'href="{path}\?before=(\w+)"', page.text):
        page = await browser.look(f"{path}?before={before[0]}")
        assert "Newest messages</a>" in page.text
        found = prompts(page) + found
    assert found == [f"Prompt {number}" for number in range(27)]
    assert prompts(page) != found
    for wrong in ("nothing", "a.b", ""):
        page = await browser.look(f"{path}?before={wrong}")
        assert (page.status, prompts(page)[-1]) == (200, "Prompt 26")

    for number in range(50):
        await tab.command("message.send", text=f"Chat {number}")
    page = await browser.look()
    (older,) = re.findall(r'href="(\?chats=[^"]+)"', page.text)
    page = await browser.look(f"/{older}")
    assert re.findall(r'<span class="title" dir="auto">([^<]+)', page.text)[:1] == ["Prompt 0"]
    assert "Newest chats</a>" in page.text
    assert (await browser.look("/?chats=yesterday")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("HEAD", "/", 200, ""),
        ("HEAD", "/c/nowhere", 404, ""),
        ("GET", "/nowhere", 404, "There is nothing here"),
        ("POST", "/nowhere", 404, "There is nothing here"),
        ("PUT", "/", 405, "That cannot be done here"),
        ("DELETE", "/c/some", 405, "That cannot be done here"),
        ("POST", "/session", 405, "That cannot be done here"),
    ],
)
async def test_every_address_answers_every_method_in_our_words(
    browser: Browser, method: str, path: str, status: int, words: str
) -> None:
    page = await browser.client.page(path, method=method)
    assert (page.status, words in page.text) == (status, True)
    if status == 404 or path.startswith("/c/"):
        assert method == "HEAD" or 'name="robots" content="noindex"' in page.text
    if status == 200:
        assert page.headers["Cache-Control"] == "private, no-cache"


async def test_new_chat_may_be_found_by_search_engines_and_others_may_not(browser: Browser) -> None:
    assert "noindex" not in browser.shown.text
    path = led_to(await browser.press("/", text="Private"))
    assert 'name="robots" content="noindex"' in (await browser.look(path)).text
