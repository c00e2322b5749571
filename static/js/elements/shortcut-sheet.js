// The list of all shortcuts, and the switch that turns them off. It does not know what they do.

import { keyNames, SHORTCUTS } from "../shortcuts.js";

class ShortcutSheet extends HTMLElement {
  #dialog;

  connectedCallback() {
    this.#dialog = this.querySelector("dialog");
    this.querySelector(".close").addEventListener("click", () => this.#dialog.close());
    this.querySelector("input").addEventListener("change", ({ target }) => this.dispatchEvent(new CustomEvent("switch", { detail: target.checked })));
    this.#dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation()); // for it alone
  }

  /** Show the list, and whether shortcuts are on, or hide it. */
  toggle(on) {
    if (this.#dialog.open) return this.#dialog.close();
    const list = this.querySelector("dl");
    if (!list.hasChildNodes()) list.append(...SHORTCUTS.map(row));
    this.querySelector("input").checked = on;
    this.#dialog.showModal();
  }
}

function row({ keys, words, in: where }) {
  const row = document.createElement("div");
  const name = Object.assign(document.createElement("dt"), { textContent: words });
  const value = document.createElement("dd");
  if (where) name.append(Object.assign(document.createElement("small"), { textContent: ` in ${where}` }));
  keyNames(keys).forEach((names, index) => value.append(...(index > 0 ? [" "] : []), key(names)));
  row.append(name, value);
  return row;
}

// A sign is for the eye; the ear gets its name.
function key([seen, spoken]) {
  const element = document.createElement("kbd");
  element.textContent = seen;
  if (!spoken) return element;
  const sign = Object.assign(document.createElement("span"), { textContent: seen, ariaHidden: "true" });
  const name = Object.assign(document.createElement("span"), { textContent: spoken, className: "unseen" });
  element.replaceChildren(sign, name);
  return element;
}

customElements.define("shortcut-sheet", ShortcutSheet);
