// The bar over a code block: its language, Wrap and Copy code. The code itself is none of its business.

import { copyFrom } from "../clipboard.js";

/** A new bar, from the page's template. */
export function codeHeader(language) {
  const header = document.importNode(document.getElementById("code-header").content, true).firstElementChild;
  header.querySelector(".language").textContent = language || "text";
  return header;
}

class CodeHeader extends HTMLElement {
  #listening = false;

  connectedCallback() {
    const wrap = this.querySelector(".wrap");
    wrap.setAttribute("aria-pressed", String(this.#figure.hasAttribute("data-wrap")));
    if (this.#listening) return;
    this.#listening = true;
    wrap.addEventListener("click", () => this.#toggleWrap(wrap));
    this.querySelector(".copy").addEventListener("click", ({ currentTarget }) => this.#copy(currentTarget));
  }

  get #figure() {
    return this.closest("figure");
  }

  #toggleWrap(wrap) {
    wrap.setAttribute("aria-pressed", String(this.#figure.toggleAttribute("data-wrap")));
  }

  #copy(button) {
    copyFrom(button, this.#figure.querySelector("code").textContent, "Code copied");
  }
}

customElements.define("code-header", CodeHeader);
