"""The connection of a page: it notices sleep and death, comes back with measure, resumes, and says how it stands."""

from __future__ import annotations

import json
import re
import secrets

import pytest
from playwright.async_api import Locator, Page, expect

from tests.browser.conftest import OpenPage
from tests.browser.line import TRY_AGAIN_LATER, Line
from tests.browser.person import answers, button, chats, idle, messages, say
from tests.browser.watch import Watch
from tests.conftest import StartInstance
from tests.fakes import Gate, Model
from tests.instances import Instance, Store

Instances = tuple[Instance, Instance]
LIST = '"conversation.list","archived":false,"limit":40'  # of the newest; of the pinned there is another
RECONNECTING = "Reconnecting…"
OLD_NEWS = json.dumps(
    {
        "type": "conversation.updated",
        "conversation": {"id": "c1", "title": "Old", "updated": "2026-11-22T10:00:00.000Z"},
    }
)
LATER = "Your message will be sent when the connection is back"
LISTEN = """() => {
  const heard = (window.heard = []);
  const listen = (element, name) => new MutationObserver(() => heard.push([name, element.textContent])).observe(
    element, { childList: true, characterData: true, subtree: true });
  listen(document.querySelector("[role=status]"), "status");
  listen(document.querySelector("connection-pill .words"), "pill");
}"""
COUNT_TIMERS = """
window.timers = new Set();
window.listeners = 0;
window.sockets = [];
for (const kind of ["Timeout", "Interval"]) {
  const set = window[`set${kind}`], clear = window[`clear${kind}`];
  window[`set${kind}`] = (act, ...rest) => {
    const id = set((...args) => { if (kind === "Timeout") timers.delete(id); act(...args); }, ...rest);
    timers.add(id);
    return id;
  };
  window[`clear${kind}`] = (id) => { timers.delete(id); clear(id); };
}
const add = EventTarget.prototype.addEventListener;
EventTarget.prototype.addEventListener = function (...args) {
  if (!(this instanceof WebSocket)) window.listeners += 1;
  return add.apply(this, args);
};
window.WebSocket = class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.greeted = new Promise((resolve) => this.addEventListener("message", resolve, { once: true }));
    sockets.push(this);
  }
};
"""
RECONNECT = """async (times) => {
  for (let time = 0; time < times; time++) {
    const before = sockets.length;
    sockets.at(-1).close();
    while (sockets.length === before) {
      window.dispatchEvent(new Event("online"));
      await new Promise((resolve) => requestAnimationFrame(resolve));
    }
    await sockets.at(-1).greeted;
  }
  const held = sockets.slice(0, -1).filter(({ onopen, onmessage, onclose }) => onopen || onmessage || onclose);
  return { timers: timers.size, listeners, held: held.length };
}"""


def pill(page: Page) -> Locator:
    return page.locator("connection-pill")


def lost(page: Page) -> Locator:
    """The conversation while there is no connection."""
    return page.locator("chat-transcript[data-lost]")


async def stop_clock(page: Page) -> None:
    """From here on time passes on the page where the test says so; what is random is always the most."""
    await page.evaluate("Math.random = () => 0.999")
    await page.clock.pause_at(await page.evaluate("Date.now() / 1000 + 1"))


async def pass_time(page: Page, line: Line, seconds: int) -> None:
    """Let seconds pass, each when what the one before it brought about is done."""
    for _ in range(seconds):
        await page.clock.run_for(1_000)
        await page.evaluate("0")
        await line.closed()


async def heard(page: Page, name: str) -> list[str]:
    """All words since LISTEN, one after the other."""
    return [words for where, words in await page.evaluate("heard") if where == name]


async def emit(page: Page, target: str, event: str) -> None:
    await page.evaluate(f"{target}.dispatchEvent(new Event('{event}'))")


@pytest.fixture
async def line(page: Page) -> Line:
    """The line of `page`, whose clock is the test's."""
    await page.clock.install()
    line = await Line.lay(page)
    await line.told("conversation.listed", 1)
    await expect(pill(page)).to_be_hidden()  # a slow connection was told of, and is for a second yet
    return line


# Sleep and death


async def test_page_notices_by_the_clock_that_it_slept_through_the_end_of_its_connection(
    page: Page, line: Line
) -> None:
    await stop_clock(page)
    line.silent = True
    pings = line.count('"ping"')
    await page.clock.set_system_time(await page.evaluate("Date.now() / 1000 + 600"))
    await page.clock.run_for(5_000)  # timers do not know of the sleep: these are those of any five seconds
    await line.asked('"ping"', pings + 1)
    await page.clock.run_for(3_000)
    await page.clock.run_for(250)
    await line.connected(2)


@pytest.mark.parametrize(
    ("target", "event"),
    [
        ("document", "new Event('resume')"),  # after a freeze, which a headless Chromium does not do
        ("document", "new Event('visibilitychange')"),
        ("window", "new PageTransitionEvent('pageshow', { persisted: true })"),
        ("window", "new Event('online')"),
    ],
    ids=["thawed", "seen", "shown from the cache", "online"],
)
async def test_page_that_may_have_missed_the_end_of_its_connection_asks_at_once(
    page: Page, line: Line, target: str, event: str
) -> None:
    await stop_clock(page)
    line.silent = True
    pings = line.count('"ping"')
    await page.evaluate(f"{target}.dispatchEvent({event})")
    await line.asked('"ping"', pings + 1)
    await page.clock.run_for(3_000)
    await expect(lost(page)).to_be_attached()


async def test_page_gives_up_a_connection_that_was_made_and_says_nothing(page: Page, line: Line) -> None:
    await stop_clock(page)
    line.silent = True
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await page.clock.run_for(500)
    await line.connected(2)
    await expect(lost(page)).not_to_be_attached()
    await page.clock.run_for(10_000)
    await expect(lost(page)).to_be_attached()


async def test_frame_that_waited_through_a_sleep_is_no_sign_of_life(page: Page, line: Line) -> None:
    await stop_clock(page)
    line.silent = True
    await emit(page, "document", "visibilitychange")
    line.tell('{"type": "pong", "id": "ping-0"}')
    line.tell(OLD_NEWS)
    await expect(chats(page)).to_have_text(["Old"])
    await page.clock.run_for(3_000)
    await expect(lost(page)).to_be_attached()


async def test_deadline_of_a_ping_is_not_put_off_by_another(page: Page, line: Line) -> None:
    await stop_clock(page)
    line.silent = True
    for _ in range(3):
        await emit(page, "document", "visibilitychange")
        await page.clock.run_for(1_000)
    await expect(lost(page)).to_be_attached()


# Coming back


async def test_server_that_closes_at_once_is_not_hammered_and_told_of_once(page: Page, line: Line) -> None:
    await page.evaluate(LISTEN)
    await stop_clock(page)
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await pass_time(page, line, 120)
    assert 8 < line.connections < 25  # 0.25 s doubled, at most 10 s
    assert await heard(page, "status") == [RECONNECTING]
    assert "" not in await heard(page, "pill")


async def test_promise_of_a_prompt_outlasts_the_words_of_the_loss_and_goes_with_it(
    page: Page, line: Line, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_INTERNET_DISCONNECTED")
    await stop_clock(page)
    await page.context.set_offline(True)
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await say(page, "Written at once")
    await page.clock.run_for(200)  # the loss is not shown yet
    await expect(page.get_by_role("status")).to_have_text(LATER)
    await pass_time(page, line, 2)
    await expect(page.get_by_role("status")).to_have_text(f"Offline: messages will be sent later. {LATER}")
    await page.context.set_offline(False)
    await page.clock.resume()
    await expect(answers(page)).to_contain_text("You said: Written at once")
    await expect(page.get_by_role("status")).not_to_contain_text(LATER)


async def stay(page: Page, line: Line, milliseconds: int) -> int:
    """Wait for a connection, cut it when it has stayed so long, and count those that there were."""
    listed = sum("conversation.listed" in frame for frame in line.received)
    before = line.connections
    for _ in range(11):
        if line.connections == before:
            await pass_time(page, line, 1)
    await line.told("conversation.listed", listed + 1)
    await page.clock.run_for(milliseconds)
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await page.clock.run_for(300)  # a first failure is followed within 250 ms
    await page.evaluate("0")
    return line.connections


async def test_first_failure_after_a_connection_that_stayed_is_a_first_one(page: Page, line: Line) -> None:
    await stop_clock(page)
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await pass_time(page, line, 30)
    await expect(button(page, "Try now")).to_be_visible()
    line.closing = None
    before = line.connections
    assert await stay(page, line, 5_000) == before + 1
    await stay(page, line, 11_000)
    await line.connected(before + 3)
    await expect(lost(page)).not_to_be_attached()


@pytest.mark.parametrize("visible", [True, False], ids=["that is seen", "that is hidden"])
async def test_page_comes_back_with_the_network(page: Page, line: Line, watch: Watch, visible: bool) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_INTERNET_DISCONNECTED")
    await stop_clock(page)
    await page.context.set_offline(True)
    await line.cut(TRY_AGAIN_LATER)
    await pass_time(page, line, 100)
    assert line.connections < 6
    await expect(pill(page)).to_contain_text("Offline")
    await expect(button(page, "Try now")).to_be_hidden()
    before = 0
    while before != line.connections:  # an attempt of a moment ago would be waited for
        before = line.connections
        await pass_time(page, line, 4)
    if not visible:  # many tabs: not all in one moment
        await page.evaluate("Object.defineProperty(document, 'visibilityState', { value: 'hidden' })")
    await page.context.set_offline(False)
    if not visible:
        await page.evaluate("0")
        assert line.connections == before
        await page.clock.run_for(2_000)
    await line.connected(before + 1)
    await line.asked(LIST, 2)
    await page.clock.run_for(1_000)
    await expect(pill(page)).to_be_hidden()


@pytest.mark.long
async def test_attempt_that_began_without_a_network_is_not_waited_for(
    store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("closed before the connection is established")
    instance = await start_instance(store)
    page = await open_page(instance)
    await page.clock.install()
    line = await Line.lay(page)
    await line.asked(LIST)
    await stop_clock(page)
    instance.freeze()  # takes connections, and says nothing
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await page.clock.run_for(250)
    await line.connected(2)
    await page.clock.run_for(4_000)
    await emit(page, "window", "online")
    await line.connected(3)
    instance.thaw()
    await line.asked(LIST, 2)


@pytest.mark.long
async def test_page_waits_as_long_as_the_server_says(
    store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("429")
    prefix = f"wait-{secrets.token_hex(4)}"
    page = await open_page(await start_instance(store, CONNECTIONS_PER_MINUTE="2", REDIS_PREFIX=prefix))
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    line = await Line.lay(page)
    await line.asked(LIST)
    await line.cut(TRY_AGAIN_LATER)
    await expect(pill(page)).to_have_text(re.compile(r"Reconnecting… \([1-9]\d s\)"))
    await emit(page, "window", "online")
    await emit(page, "document", "visibilitychange")
    await emit(page, "document", "resume")
    await page.evaluate("0")
    assert line.connections == 2


async def test_backoff_is_anything_up_to_a_bound(page: Page) -> None:
    module = await page.locator("link[href$='/js/socket.js']").get_attribute("href")
    seconds = """async (module) => {
      const { backoffSeconds } = await import(module);
      const most = [1, 2, 3, 4, 5, 6, 7, 1000].map((failures) => backoffSeconds(failures, () => 1));
      const tabs = Array.from({ length: 200 }, () => backoffSeconds(7));
      return { most, least: backoffSeconds(7, () => 0), tenths: new Set(tabs.map(Math.floor)).size };
    }"""
    found = await page.evaluate(seconds, module)
    assert found == {"most": [0.25, 0.5, 1, 2, 4, 8, 10, 10], "least": 0, "tenths": 10}


@pytest.mark.long
@pytest.mark.timeout(300)  # real ones
async def test_many_reconnects_leave_nothing_behind(open_page: OpenPage, instances: Instances) -> None:
    page = await open_page(instances[0])
    await page.add_init_script(COUNT_TIMERS)
    await page.reload()
    await say(page, "Hello")
    await expect(answers(page)).to_contain_text("You said: Hello")
    await idle(page)
    early = await page.evaluate(RECONNECT, 10)
    late = await page.evaluate(RECONNECT, 290)
    assert late["held"] == 0
    assert late["listeners"] == early["listeners"]
    assert late["timers"] <= early["timers"] + 2  # such as that of the pill
    await say(page, "Still there")
    await expect(answers(page).last).to_contain_text("You said: Still there")


# Resuming by place


async def test_answer_goes_on_from_its_place_after_a_reconnect(page: Page, model: Model) -> None:
    line = await Line.lay(page)
    gate = Gate()
    model.answer("Half ", gate, "whole.")
    await say(page, "Tell me")
    await expect(answers(page)).to_contain_text("Half")
    await line.cut(TRY_AGAIN_LATER)
    opened = json.loads(await line.asked("conversation.open"))
    assert opened["after"]["offset"] >= 2
    gate.open()
    await idle(page)
    await expect(answers(page).locator(".blocks")).to_have_text("Half whole.")
    assert not any("conversation.snapshot" in frame for frame in line.received)
    assert line.count("conversation.open") == 1


async def test_hole_is_asked_for_and_filled(page: Page, model: Model) -> None:
    line = await Line.lay(page)
    first, second = Gate(), Gate()
    model.answer("One, ", first, "two, ", second, "three.")
    await say(page, "Count")
    await expect(answers(page)).to_contain_text("One,")
    lost: list[str] = []

    def lose(frame: str) -> str:
        if lost or '"completion.delta"' not in frame:
            return frame
        lost.append(frame)
        return ""

    line.bend = lose
    first.open()
    await second.wait()
    second.open()
    await idle(page)
    await expect(answers(page).locator(".blocks")).to_have_text("One, two, three.")
    assert lost
    assert json.loads(await line.asked("conversation.open"))["after"]


@pytest.mark.parametrize("reconnects", [True, False], ids=["after a reconnect", "on the same connection"])
async def test_running_answer_is_not_doubled_in_another_epoch(
    page: Page, model: Model, reconnects: bool
) -> None:
    line = await Line.lay(page)
    first, second = Gate(), Gate()
    model.answer("One, ", first, "two, ", second, "three.")
    await say(page, "Count")
    await expect(answers(page)).to_contain_text("One,")
    line.bend = lambda frame: re.sub(r'("epoch":\s*")', r"\1other-", frame)
    if reconnects:
        await line.cut(TRY_AGAIN_LATER)
        await line.asked("conversation.open")
        await expect(answers(page)).to_contain_text("One,")
    first.open()
    await expect(answers(page).locator(".blocks")).to_have_text("One, two,")
    await second.wait()
    second.open()
    await idle(page)
    await expect(answers(page).locator(".blocks")).to_have_text("One, two, three.")
    await expect(messages(page)).to_have_count(2)
    assert any("conversation.snapshot" in frame for frame in line.received)


@pytest.mark.long
async def test_chat_and_prompt_are_asked_for_rarely_while_the_store_is_away_and_come_when_it_is_back(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage
) -> None:
    page = await open_page(await start_instance(fresh_store))
    for text in ("One", "Two"):
        await button(page, "New chat").first.click()
        await say(page, text)
        await expect(answers(page)).to_contain_text(f"You said: {text}")
        await idle(page)
    await page.clock.install()
    line = await Line.lay(page)
    await line.told("conversation.current", 1)
    await fresh_store.stop()
    await expect(pill(page)).to_contain_text("The store is away")
    await stop_clock(page)
    await chats(page).filter(has_text="One").click()
    await line.asked("conversation.open", 2)
    await say(page, "One more")
    for _ in range(60):
        await line.told('"error"', line.count("conversation.open") - 1 + line.count("message.send"))
        await page.clock.run_for(1_000)
        await page.evaluate("0")
    assert 3 < line.count("conversation.open") < 15  # 1.5 s doubled, at most 12 s
    assert 3 < line.count("message.send") < 15
    await fresh_store.start()
    await expect(answers(page)).to_contain_text(["You said: One", "You said: One more"], timeout=20_000)


# A stop


async def test_stop_is_seen_at_once_and_done_however_late_the_connection_is_back(
    page: Page, line: Line, model: Model
) -> None:
    gate = Gate()
    model.answer("As far as ", gate, "this")
    await say(page, "Go on")
    await expect(answers(page)).to_contain_text("As far as")
    await stop_clock(page)
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await button(page, "Stop").click()
    await expect(button(page, "Stopping…")).to_be_visible()
    await expect(page.get_by_role("status")).to_have_text(
        "The answer will be stopped when the connection is back"
    )
    await page.clock.fast_forward(600_000)
    await expect(button(page, "Stopping…")).to_be_visible()
    line.closing = None
    await emit(page, "window", "online")
    await expect(answers(page)).to_contain_text("Stopped")
    await (await model.asked()).closed()
    await idle(page)


async def test_stop_that_went_into_a_dead_line_is_done_over_the_next(
    page: Page, line: Line, model: Model
) -> None:
    model.answer("As far as ", Gate(), "this")
    await say(page, "Go on")
    await expect(answers(page)).to_contain_text("As far as")
    line.silent = True
    await button(page, "Stop").click()
    await line.asked("completion.stop")
    line.silent = False
    await line.cut(TRY_AGAIN_LATER)
    await expect(answers(page)).to_contain_text("Stopped")
    await (await model.asked()).closed()


# The pill


async def test_drop_of_less_than_a_second_is_not_told(page: Page, line: Line) -> None:
    await page.evaluate(LISTEN)
    await stop_clock(page)
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await page.clock.run_for(900)
    await line.asked(LIST, 2)
    await expect(lost(page)).not_to_be_attached()
    await page.clock.run_for(2_000)
    assert await heard(page, "pill") == []
    assert await heard(page, "status") == []


async def test_end_of_a_chat_stays_where_it_is_while_the_connection_is_lost(
    page: Page, line: Line, model: Model
) -> None:
    model.answer("A line of many.\n\n" * 60 + "The end.")
    await say(page, "A long one")
    end = answers(page).get_by_text("The end.")
    await expect(end).to_be_in_viewport()
    await idle(page)
    before = await end.bounding_box()
    await stop_clock(page)
    await line.cut(TRY_AGAIN_LATER)
    await expect(lost(page)).to_be_attached()
    await page.evaluate("document.querySelector('[role=log]').scrollTop = 1e6")
    assert await end.bounding_box() == before


@pytest.mark.long
async def test_pill_says_that_the_server_restarts_until_it_takes_too_long_for_that(
    store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_CONNECTION_REFUSED")
    watch.allow("/session)")  # 503 while it stops
    instance = await start_instance(store)
    page = await open_page(instance)
    await expect(lost(page)).not_to_be_attached()
    await page.evaluate("Math.random = () => 0.999")
    await page.evaluate(LISTEN)
    instance.terminate()
    await expect(pill(page)).to_contain_text("The server is restarting")
    await instance.ended()
    await expect(pill(page)).to_contain_text("The server cannot be reached")
    await instance.start()
    await expect(pill(page)).to_be_hidden(timeout=20_000)
    words = ["The server is restarting…", "The server cannot be reached.", ""]
    assert await heard(page, "status") == words


async def test_pill_says_that_the_server_refused_and_a_person_may_try_again(page: Page, line: Line) -> None:
    await line.cut(1008)
    await expect(pill(page)).to_contain_text("The server closed the connection.")
    await button(page, "Try now").click()
    await line.asked(LIST, 2)
    await expect(pill(page)).to_be_hidden()


@pytest.mark.long
async def test_pill_names_the_cause_that_matters_when_there_are_two(
    fresh_store: Store, start_instance: StartInstance, open_page: OpenPage, watch: Watch
) -> None:
    watch.allow("WebSocket connection to")
    watch.allow("ERR_INTERNET_DISCONNECTED")
    page = await open_page(await start_instance(fresh_store))
    line = await Line.lay(page)
    await line.asked(LIST)
    await fresh_store.stop()
    await expect(pill(page)).to_contain_text("The store is away")
    await page.evaluate(LISTEN)
    await line.cut(TRY_AGAIN_LATER)
    await line.connected(2)
    await expect(lost(page)).not_to_be_attached()
    assert await heard(page, "pill") == []  # a short drop changes nothing
    await page.context.set_offline(True)
    await line.cut(TRY_AGAIN_LATER)
    await expect(pill(page)).to_contain_text("Offline")
    await page.context.set_offline(False)
    await expect(pill(page)).to_contain_text("The store is away")
    await fresh_store.start()
    await expect(pill(page)).to_be_hidden(timeout=20_000)
    assert await heard(page, "status") == [
        "Offline: messages will be sent later",
        "The store is away; nothing is lost",
        "",
    ]


async def test_pill_forgets_the_store_of_a_server_that_was_left(page: Page, line: Line) -> None:
    line.tell('{"type": "session.store", "available": false, "detail": "The store is away"}')
    await expect(pill(page)).to_contain_text("The store is away")
    await line.cut(TRY_AGAIN_LATER)
    await expect(pill(page)).to_be_hidden()


async def test_end_of_a_trouble_takes_no_other_words_from_the_ear(
    page: Page, line: Line, model: Model
) -> None:
    gate = Gate()
    model.answer("Half ", gate, "whole.")
    await say(page, "Tell me")
    await expect(answers(page)).to_contain_text("Half")
    await stop_clock(page)
    line.closing = TRY_AGAIN_LATER
    await line.cut(TRY_AGAIN_LATER)
    await pass_time(page, line, 8)
    await expect(page.get_by_role("status")).to_have_text(RECONNECTING)
    line.closing = None
    await emit(page, "window", "online")
    gate.open()
    await expect(page.get_by_role("status")).to_have_text("Answer complete. Half whole.")
    await page.clock.run_for(2_000)
    await expect(pill(page)).to_be_hidden()
    await expect(page.get_by_role("status")).to_have_text("Answer complete. Half whole.")
