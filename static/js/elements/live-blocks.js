// Keeps the HTML blocks of one answer while it grows: places what the server rendered, shows the rest as plain text.
// It does not know messages, states or the wire.

import { codeHeader } from "./code-header.js";

const policy = globalThis.trustedTypes?.createPolicy("llmchat", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

const FLOW = "ul, ol, li, blockquote, dl, dd";
const TAKES_TEXT = "p, ul, ol, blockquote, dl";

export class LiveBlocks {
  #element;
  #tail = null; // the text node that holds what came after the last rendering
  #plain = null; // a paragraph of our own for text that has no block yet

  constructor(element) {
    this.#element = element;
    this.#furnish();
  }

  /** Show finished HTML in place of everything. */
  show(html) {
    this.#tail = this.#plain = null;
    this.#element.replaceChildren(this.#place(html));
    this.#furnish();
  }

  /** Show text that has no rendering yet in place of everything. */
  showPlain(text) {
    this.#tail = this.#plain = null;
    this.#element.replaceChildren();
    if (text) this.#append(text);
  }

  /** One delta: blocks that changed and how many there are, or only more text. */
  grow({ text = "", blocks, count }) {
    if (blocks.length === 0) return text && this.#append(text);
    const open = this.#openCode();
    const untouched = open && !blocks.some(([index]) => index === this.#element.children.length - 1);
    this.mend(blocks, count);
    if (untouched && open.isConnected && text) this.#append(text);
  }

  mend(blocks, count) {
    if (blocks.length > 0) this.#clearTail();
    for (const [index, html] of blocks) this.#replace(index, html);
    while (blocks.length > 0 && this.#element.children.length > count) this.#element.lastElementChild.remove();
    this.#furnish();
  }

  #place(html) {
    const holder = document.createElement("template");
    holder.innerHTML = policy.createHTML(html);
    return holder.content;
  }

  #replace(index, html) {
    const block = this.#place(html);
    const old = this.#element.children[index];
    if (!old) return this.#element.append(block);
    if (old.hasAttribute("data-wrap")) block.firstElementChild?.toggleAttribute("data-wrap", true);
    old.replaceWith(block);
  }

  #openCode() {
    const last = this.#element.lastElementChild;
    return last?.matches("figure.code[data-open]") ? last.querySelector("code") : null;
  }

  #append(text) {
    if (!this.#tail?.isConnected) this.#begin(text);
    else if (this.#startsBlock(text)) this.#beginPlain(text.trimStart());
    else this.#tail.appendData(text);
  }

  #startsBlock(text) {
    return !this.#plain && !this.#openCode() && /\n\s*\n/.test(this.#tail.data.slice(-3) + text);
  }

  #begin(text) {
    const last = this.#element.lastElementChild;
    const flow = this.#openCode() ?? (last?.matches(TAKES_TEXT) && !/\n\s*\n/.test(text) ? deepest(last) : null);
    if (!flow) return this.#beginPlain(text.trimStart());
    this.#tail = document.createTextNode(text);
    flow.append(last.matches("ul, ol") ? keepingLines(this.#tail) : this.#tail);
  }

  #beginPlain(text) {
    this.#plain = document.createElement("p");
    this.#plain.toggleAttribute("data-plain", true);
    this.#tail = document.createTextNode(text);
    this.#plain.append(this.#tail);
    this.#element.append(this.#plain);
  }

  // A rendering covers all text up to it; only an open code block keeps what was appended.
  #clearTail() {
    if (!this.#openCode()) this.#tail?.remove();
    this.#element.querySelector("span[data-plain]")?.remove();
    this.#plain?.remove();
    this.#tail = this.#plain = null;
  }

  #furnish() {
    for (const figure of this.#element.querySelectorAll("figure.code:not(:has(> code-header))")) {
      figure.prepend(codeHeader(figure.dataset.language));
    }
  }
}

// The next items of a list are on lines of their own also before they are rendered.
function keepingLines(text) {
  const span = document.createElement("span");
  span.toggleAttribute("data-plain", true);
  span.append(text);
  return span;
}

function deepest(element) {
  let flow = element;
  while (flow.matches(FLOW) && flow.lastElementChild?.matches(`p, ${FLOW}`)) flow = flow.lastElementChild;
  return flow;
}
