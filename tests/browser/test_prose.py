"""What an answer holds beside words and code: formulas, tasks, tables; live, by keyboard, on a phone."""

from __future__ import annotations

from playwright.async_api import Locator, expect

from tests.browser.conftest import OpenPage
from tests.browser.person import answers, idle, say
from tests.fakes import Gate, Model
from tests.instances import Instance

BEFORE = "Let $x^2$ be as in\n\n$$\n\\frac{1}{x}"
AFTER = (
    " = \\sum_{i=1}^{n} a_i + \\sum_{j=1}^{m} b_j + \\sum_{k=1}^{l} c_k + \\sum_{i=1}^{n} d_i + \\sum_{j=1}^{m} e_j\n$$\n\n"
    "where $" + " + ".join("abcdefghijklmnopqrstuvw") + "$ is long, and $5 or $6 is a price.\n\n"
    "- [x] Read it\n- [ ] Prove it\n\n"
    "| Name | שם | Third | Fourth | Fifth | Sixth |\n| --- | --- | --: | --- | --- | --- |\n"
    "| Gauss | שלום | $y$ | four words stand here | five words also stand here | six |\n\nThe end."
)
SCROLLED = "element => element.scrollLeft > 0"
WHERE = """cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const words = range.getBoundingClientRect(), box = cell.getBoundingClientRect();
  return words.left - box.left < box.right - words.right ? "left" : "right";
}"""


async def scrolls_by_keyboard(part: Locator) -> None:
    """Focus a box and press an arrow."""
    await part.focus()
    await part.press("ArrowRight")
    handle = await part.element_handle()
    await part.page.wait_for_function(SCROLLED, arg=handle)


async def test_formulas_tasks_and_tables_are_live_and_scroll_in_their_own_boxes_on_a_phone(
    open_page: OpenPage, instances: tuple[Instance, Instance], model: Model
) -> None:
    page = await open_page(instances[0], viewport={"width": 320, "height": 640})
    gate = Gate()
    model.answer(BEFORE, gate, AFTER)
    await say(page, "Prove it")
    answer = answers(page)
    await expect(answer.locator("p math msup")).to_have_text("x2")
    await expect(answer).to_contain_text("\\frac{1}{x}")
    gate.open()
    await expect(answer).to_contain_text("The end.")
    await idle(page)
    formulas = answer.get_by_role("group", name="Formula", exact=True)
    await expect(formulas).to_have_count(2)
    await expect(formulas.first.locator("mfrac")).to_have_text("1x")
    await expect(answer).not_to_contain_text("\\frac")
    await expect(answer).to_contain_text("is long, and $5 or $6 is a price.")
    table = answer.get_by_role("group", name="Table", exact=True)
    for part in (formulas.first, formulas.last, table):
        await scrolls_by_keyboard(part)
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    assert await page.get_by_role("log").evaluate("log => log.scrollWidth === log.clientWidth")
    fraction = await formulas.first.locator("mfrac").bounding_box()
    letter = await formulas.first.locator("mfrac mi").bounding_box()
    assert fraction
    assert letter
    assert fraction["height"] > 1.5 * letter["height"]  # it is laid out as a formula
    done, not_done = (page.get_by_role("img", name=name, exact=True) for name in ("done", "not done"))
    await expect(answer.get_by_role("listitem").filter(has=done)).to_have_text("Read it")
    await expect(answer.get_by_role("listitem").filter(has=not_done)).to_have_text("Prove it")
    await expect(answer.get_by_role("listitem").first).to_have_css("list-style-type", "none")
    cells = table.get_by_role("cell")
    assert [await cells.nth(index).evaluate(WHERE) for index in range(3)] == ["left", "left", "right"]
    await page.reload()
    await expect(formulas).to_have_count(2)
    await expect(done).to_be_visible()
