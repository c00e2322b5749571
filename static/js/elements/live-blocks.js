// Keeps the HTML blocks of one answer while it grows: places what the server rendered, shows the rest as plain text.
// It does not know messages, states or the wire.

import { BlockList } from "./block-list.js";
import { codeHeader, keepWraps } from "./code-header.js";

const policy = globalThis.trustedTypes?.createPolicy("llmchat", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

const FLOW = "ul, ol, li, blockquote, dl, dd";
const TAKES_TEXT = "p, ul, ol, blockquote, dl";
const HELD = "a, button, [tabindex]"; // what may have the focus, or is a box that scrolls sideways
const AT_END = 24; // blocks that are drawn also out of sight: more than are in sight, so that the end has its true height
const BLANK_LINE = /\n[ \t]*\n/;

export class LiveBlocks {
  #element;
  #blocks;
  #tail = null; // the text node that text is appended to: one of the next two
  #inline = null; // the text node that stands inside the last block
  #plain = null; // a paragraph of our own, for text that has no block yet
  #past = 0; // parts that are marked as not at the end any more
  #drawing = false; // a frame is awaited, with which …
  #drawn = 0; // … so many parts will have been drawn
  #end = null; // the element that text is appended in, which has the caret
  #scrolled = new WeakMap(); // boxes in blocks -> how far they are scrolled sideways
  #gap = ""; // white space at the end of the rendered text, which HTML does not keep

  /** `text` is what the element's HTML was rendered from. */
  constructor(element, text) {
    this.#element = element;
    this.#gap = gapAfter(text);
    element.addEventListener("scroll", ({ target }) => this.#scrolled.set(target, target.scrollLeft), { capture: true, passive: true });
    furnish(element);
    this.#blocks = new BlockList(element);
    this.#level();
    this.#markEnd();
    this.#markPast();
  }

  /** What is here belongs to an earlier attempt: it stays, faded, until the first words of the next take its place. */
  fade() {
    this.#element.style.minHeight = `${this.#element.offsetHeight}px`;
    this.#element.toggleAttribute("data-faded", true);
  }

  /** No more words come: their room is no larger than they are. */
  settle() {
    this.#element.style.minHeight = "";
    this.#clearFaded();
  }

  #clearFaded() {
    if (!this.#element.hasAttribute("data-faded")) return;
    this.#element.toggleAttribute("data-faded", false);
    this.showPlain("");
  }

  /** Show HTML, rendered from `text`, in place of everything. */
  show(html, text) {
    this.#element.toggleAttribute("data-faded", false);
    this.#gap = gapAfter(text);
    this.#tail = this.#inline = this.#plain = null;
    const old = [...this.#element.children];
    const blocks = this.#place(html);
    const next = [...blocks.children];
    const held = this.#holdsOf(old);
    keepWraps(old, next);
    this.#blocks.fill(blocks);
    this.#level();
    this.#markEnd();
    this.#markPastOnceDrawn([0]);
    this.#holdAgain(held, next);
  }

  /** Show text that has no rendering yet in place of everything. */
  showPlain(text) {
    this.#element.toggleAttribute("data-faded", false);
    this.#tail = this.#inline = this.#plain = null;
    this.#element.replaceChildren();
    if (text) this.#append(text);
  }

  /** One delta: blocks that changed and how many there are, or only more text. */
  grow({ text = "", blocks, count }) {
    if (text || blocks.length > 0) this.#clearFaded();
    if (blocks.length === 0) return text && this.#append(text);
    const open = this.#openCode();
    if (text) this.#gap = gapAfter(text);
    const untouched = open && !blocks.some(([index]) => index === this.#blocks.size - 1);
    this.mend(blocks, count);
    if (untouched && open.isConnected && text) this.#append(text);
  }

  /** The last rendering: it covers all text, also text that brings no block of its own, as a link's definition. */
  mend(blocks, count) {
    const held = blocks.map(([index]) => this.#holdsOf([this.#blocks.at(index)].filter(Boolean)));
    this.#clearTail();
    const placed = blocks.map(([index, html]) => this.#replace(index, html));
    while (this.#blocks.size > count) this.#blocks.remove(this.#blocks.last);
    this.#level();
    this.#markEnd();
    this.#markPastOnceDrawn(blocks.map(([index]) => this.#blocks.partOf(index)));
    placed.forEach((next, at) => this.#holdAgain(held[at], next));
  }

  // Whatever a model begins with, the outline that is heard leaves out no level below the message's own heading.
  #level() {
    let level = 2;
    for (const heading of this.#element.querySelectorAll("h3, h4, h5, h6")) {
      level = Math.min(level + 1, Number(heading.localName[1]));
      if (heading.ariaLevel !== String(level)) heading.ariaLevel = level;
    }
  }

  // A block that was never drawn has no height to keep, and what is read below it would be moved.
  #markPastOnceDrawn(changed) {
    const { parts } = this.#blocks;
    for (const part of changed) parts[part]?.toggleAttribute("data-past", false);
    this.#past = Math.min(this.#past, ...changed);
    this.#drawn = Math.min(this.#drawn, ...changed);
    if (this.#drawing || this.#beforeEnd <= this.#past) return;
    this.#drawing = true;
    this.#drawn = parts.length;
    const mark = () => {
      this.#drawing = false;
      this.#markPast(this.#drawn);
      this.#markPastOnceDrawn([]); // what came meanwhile
    };
    requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(mark))); // behind the frame, which has enough to do
  }

  #markPast(most = Infinity) {
    const end = Math.min(most, this.#beforeEnd);
    while (this.#past < end) this.#blocks.parts[this.#past++].toggleAttribute("data-past", true);
  }

  get #beforeEnd() {
    return this.#blocks.partOf(Math.max(0, this.#blocks.size - AT_END));
  }

  #place(html) {
    const holder = document.createElement("template");
    holder.innerHTML = policy.createHTML(html);
    furnish(holder.content);
    return holder.content;
  }

  #replace(index, html) {
    const [block] = this.#place(html).children;
    const old = this.#blocks.at(index);
    if (old) keepWraps([old], [block]);
    this.#blocks.put(index, block);
    return [block];
  }

  // How what is held in blocks is scrolled, and what has the focus: blocks that take their place take that over. A box is
  // not asked, for that would lay all out.
  #holdsOf(blocks) {
    return heldIn(blocks).map((element) => ({ left: this.#scrolled.get(element) ?? 0, focused: element === document.activeElement }));
  }

  #holdAgain(held, blocks) {
    const next = heldIn(blocks);
    held.slice(0, next.length).forEach(({ left, focused }, index) => {
      if (left) this.#scroll(next[index], left);
      if (focused) next[index].focus({ preventScroll: true });
    });
  }

  #scroll(box, left) {
    box.scrollLeft = left;
    this.#scrolled.set(box, left); // its event comes later than another rendering may
  }

  #openCode() {
    const { last } = this.#blocks;
    return last?.matches("figure.code[data-open]") ? last.querySelector("code") : null;
  }

  #append(text) {
    const code = this.#openCode();
    if (this.#plain) this.#tail.appendData(text);
    else if (code) this.#tailIn(code).appendData(text);
    else this.#flow((this.#tail?.data ?? this.#gap) + text);
    this.#markEnd();
  }

  #markEnd() {
    const { last } = this.#blocks;
    const end = this.#openCode() ?? (last && deepest(last));
    if (end === this.#end) return;
    this.#end?.toggleAttribute("data-end", false);
    end?.toggleAttribute("data-end", true);
    this.#end = end;
  }

  /** Show what came since the last rendering: in the last block, and from a blank line on in one of its own. */
  #flow(text) {
    const { last } = this.#blocks;
    if (!last?.matches(TAKES_TEXT)) return this.#beginPlain(text.trimStart());
    const end = text.search(BLANK_LINE);
    const next = end < 0 ? "" : text.slice(end).trimStart();
    this.#tail ??= this.#tailIn(last.matches("ul, ol") ? linesIn(deepest(last)) : deepest(last));
    this.#tail.data = next ? text.slice(0, end) : text;
    if (next) this.#beginPlain(next);
  }

  #tailIn(element) {
    if (this.#tail) return this.#tail;
    this.#tail = this.#inline = document.createTextNode("");
    element.append(this.#tail);
    return this.#tail;
  }

  #beginPlain(text) {
    this.#plain = document.createElement("p");
    this.#plain.toggleAttribute("data-plain", true);
    this.#tail = document.createTextNode(text);
    this.#plain.append(this.#tail);
    this.#blocks.append(this.#plain);
  }

  // A rendering covers all text up to it; only an open code block keeps what was appended.
  #clearTail() {
    if (!this.#openCode()) this.#inline?.remove();
    this.#element.querySelector("span[data-plain]")?.remove();
    if (this.#plain) this.#blocks.remove(this.#plain);
    this.#inline = null;
    this.#tail = this.#plain = null;
  }
}

function heldIn(blocks) {
  return blocks.flatMap((block) => [...(block.matches(HELD) ? [block] : []), ...block.querySelectorAll(HELD)]);
}

// Each block goes in the direction of its words; code has none of its own. Only new blocks: the others are finished.
function furnish(blocks) {
  for (const code of blocks.querySelectorAll("code:not([dir])")) code.dir = "ltr";
  for (const block of blocks.children) if (!block.matches("[dir], figure")) block.dir = "auto";
  for (const figure of blocks.querySelectorAll("figure.code:not(:has(> code-header))")) figure.prepend(codeHeader(figure.dataset.language));
}

// The next items of a list are on lines of their own also before they are rendered.
function linesIn(item) {
  const span = document.createElement("span");
  span.toggleAttribute("data-plain", true);
  item.append(span);
  return span;
}

function gapAfter(text) {
  return text.slice(text.trimEnd().length);
}

function deepest(element) {
  let flow = element;
  while (flow.matches(FLOW) && flow.lastElementChild?.matches(`p, ${FLOW}`)) flow = flow.lastElementChild;
  return flow;
}
