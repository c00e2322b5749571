// The bar over a code block: its language, Wrap and Copy code. The code itself is none of its business.

import { copyFrom } from "../clipboard.js";

/** A new bar, from the page's template. */
export function codeHeader(language) {
  const header = document.importNode(document.getElementById("code-header").content, true).firstElementChild;
  const name = header.querySelector(".language");
  name.textContent = name.title = language || "text";
  return header;
}

function figuresIn(nodes) {
  return [...nodes].flatMap((node) => (node.matches("figure.code") ? [node] : [...node.querySelectorAll("figure.code")]));
}

/** Blocks take the place of others: code that a person had wrapped stays wrapped. Both are lists of elements. */
export function keepWraps(old, blocks) {
  const next = figuresIn(blocks);
  figuresIn(old).forEach((figure, index) => next[index]?.toggleAttribute("data-wrap", figure.hasAttribute("data-wrap")));
}

class CodeHeader extends HTMLElement {
  connectedCallback() {
    this.querySelector(".wrap").setAttribute("aria-pressed", String(this.#figure.hasAttribute("data-wrap")));
    this.addEventListener("click", this);
  }

  handleEvent({ target }) {
    const button = target.closest("button");
    if (button?.matches(".wrap")) button.setAttribute("aria-pressed", String(this.#figure.toggleAttribute("data-wrap")));
    else if (button) copyFrom(button, this.#code, "Code copied");
  }

  get #figure() {
    return this.closest("figure");
  }

  // As it stands between its fences: the break before the last fence is not part of it. What still grows may have \r in it.
  get #code() {
    return this.#figure.querySelector("code").textContent.replaceAll(/\r\n?/g, "\n").replace(/\n$/, "");
  }
}

customElements.define("code-header", CodeHeader);
