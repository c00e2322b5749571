// The prompts that wait for the answer before them, in rows above the box, the oldest first.
// Events: `send-now`, `withdraw` and `discard` (detail: message id), `unfocused` where what had the focus is gone.
// It does not know the transcript, whose messages they are, nor what becomes of them.

import { until } from "../labels.js";

const CHARACTERS = 200; // of each
const low = matchMedia("(height < 480px)"); // there the conversation needs the room

// As in _waiting.html.
function beginning(text) {
  const characters = [...text];
  return characters.length > CHARACTERS ? `${characters.slice(0, CHARACTERS).join("")}…` : text;
}

class QueueChips extends HTMLElement {
  #list;
  #more;
  #rows = new WeakMap(); // a prompt's key -> its row
  #ticking = 0;

  connectedCallback() {
    this.#list = this.querySelector("ul");
    this.#more = this.querySelector(".more");
    this.#more.addEventListener("click", () => this.#unfold());
    low.addEventListener("change", () => this.#fold());
    this.addEventListener("click", ({ target }) => this.#pressed(target));
  }

  /** Show prompts: {key, id, text, state, notBefore, next}. `next`: nothing but an answer is before it. */
  show(line) {
    const held = this.#held();
    const rows = line.map((prompt) => this.#row(prompt));
    for (const row of [...this.#list.children]) if (!rows.includes(row)) row.remove();
    rows.forEach((row, index) => this.#list.children[index] === row || this.#list.insertBefore(row, this.#list.children[index] ?? null));
    this.hidden = rows.length === 0;
    this.#fold();
    this.#countDown(line.filter(({ state }) => state === "delayed"));
    if (held) this.#focus(held, rows);
  }

  /** The id of the prompt that is the last to be sent; undefined where none waits. */
  get last() {
    return this.#list.lastElementChild?.dataset.id;
  }

  #row({ key, id, text, state, next }) {
    const row = this.#rows.get(key) ?? this.#drawn(id) ?? document.importNode(document.getElementById("waiting-row").content, true).firstElementChild;
    this.#rows.set(key, row);
    const words = row.querySelector(".words");
    if (row.dataset.id !== id) {
      row.dataset.id = id;
      words.id = `waits-${id}`;
      for (const button of row.querySelectorAll("button")) button.setAttribute("aria-describedby", words.id);
    }
    const shown = beginning(text);
    if (words.textContent !== shown) words.textContent = shown;
    row.dataset.state = state;
    row.querySelector(".now").hidden = !next || ["delayed", "unsent"].includes(state);
    return row;
  }

  // What came with the page.
  #drawn(id) {
    return [...this.#list.children].find((row) => row.dataset.id === id);
  }

  #countDown(delayed) {
    clearInterval(this.#ticking);
    const tick = () => {
      for (const { key, notBefore } of delayed) this.#rows.get(key).querySelector(".early").textContent = `Will be sent in ${until(notBefore)}`;
    };
    if (delayed.length > 0) this.#ticking = setInterval(tick, 1000);
    tick();
  }

  #unfold() {
    this.toggleAttribute("data-open");
    this.#fold();
  }

  #fold() {
    const folded = this.#list.children.length - (low.matches ? 1 : 3);
    if (folded < 1) this.toggleAttribute("data-open", false);
    const open = this.hasAttribute("data-open");
    this.#more.hidden = folded < 1;
    this.#more.textContent = open ? "Show fewer" : `${folded} more waiting`;
    this.#more.setAttribute("aria-expanded", String(open));
  }

  #held() {
    const button = document.activeElement;
    if (!this.contains(button)) return null;
    return { button, index: [...this.#list.children].indexOf(button.closest("li")) };
  }

  // The hand stays where it was, on what has moved up there.
  #focus({ button, index }, rows) {
    if (button.isConnected && button.checkVisibility()) return;
    const row = rows[Math.min(index, rows.length - 1)];
    const same = row && [...row.querySelectorAll("button")].find(({ className, hidden }) => className === button.className && !hidden);
    if (same?.checkVisibility()) same.focus();
    else this.#say("unfocused");
  }

  #pressed(target) {
    const row = target.closest("li");
    const { id } = row?.dataset ?? {};
    if (target.closest(".now")) this.#say("send-now", id);
    else if (target.closest(".edit")) this.#say("withdraw", id);
    else if (target.closest(".discard")) this.#say("discard", id);
    else if (target.closest(".words")) row.toggleAttribute("data-whole");
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}

customElements.define("queue-chips", QueueChips);
