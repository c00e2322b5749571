// One message: its words or blocks, its state, its actions. Everything that can be seen follows from attributes.
// Events: `regenerate`, `retry`, `continue`, `withdraw` (detail: message id), `version` (detail: sibling's id), `edit`
// (detail: {text, parent}), `menu` (detail: {id, button, models}: other models are asked for, or what else can be done),
// `forgone` (detail: {id, words}: an edit is given up), `left` when the editor is closed, `unfold` before it grows under
// the person's hand, `unfocused` where what had the focus is hidden. It does not know its neighbours.
//
// There may be thousands: one listener each, and the parts that few messages have are taken from the template when they
// are needed.

import "./attachment-list.js"; // before a message is: it may open its editor at once
import { copyFrom } from "../clipboard.js";
import { readEdit, readLeftOut, writeEdit, writeLeftOut } from "../drafts.js";
import { ENDINGS, labelOf, until } from "../labels.js";
import { MAC } from "../shortcuts.js";
import { LiveBlocks } from "./live-blocks.js";

const PATIENCE_SECONDS = 5;
const RARE = ".unfold, .reasoning, .anew, .waiting, .note, .failure"; // in the order in which they stand
const LONG_CHARACTERS = 1800; // as in _message.html
const LONG_LINES = 24;

function template(role) {
  return document.getElementById(`message-${role}`).content;
}

/** A new element for a message of the protocol's shape. */
export function messageElement(message) {
  const element = document.importNode(template(message.role), true).firstElementChild;
  for (const part of element.querySelectorAll(RARE)) part.remove();
  element.update(message);
  return element;
}

function isLong(text) {
  return text.length > LONG_CHARACTERS || text.split("\n", LONG_LINES + 1).length > LONG_LINES;
}

// The same words as `lasted` in _macros.html, which says no number where none is known.
function lasted(seconds) {
  if (seconds < 1) return "Thought for a moment";
  const whole = Math.floor(seconds);
  return whole < 60 ? `Thought for ${whole} s` : `Thought for ${Math.floor(whole / 60)} min ${whole % 60} s`;
}

class ChatMessage extends HTMLElement {
  notBefore = 0; // the time at which a prompt that is not taken yet is sent
  why = ""; // it is not: a sentence
  #text = null;
  #blocks = null;
  #waiting = null; // the timer that counts the seconds of waiting
  #since = 0; // when the waiting began, or the thinking, in milliseconds
  #thoughts = { stale: false, due: false, seen: 0 }; // an earlier attempt's; to be scrolled; how far that went by itself
  #until = 0; // when a retry is possible, in milliseconds
  #countdown = null;
  #listening = false;
  #from = null; // what had the focus when the editor was opened

  connectedCallback() {
    this.#count();
    this.#countDown();
    if (this.#listening) return;
    this.#listening = true;
    if (this.dataset.role === "assistant") void this.#live; // furnishes the blocks that came with the page
    this.addEventListener("click", this);
    const draft = this.dataset.role === "user" ? readEdit(this.dataset.id) : null;
    if (draft !== null) this.#openEditor(draft);
  }

  disconnectedCallback() {
    clearInterval(this.#waiting);
    clearInterval(this.#countdown);
  }

  get text() {
    return this.#text ?? this.dataset.text ?? this.querySelector(".words").textContent;
  }

  /** What a listener is told of it: the words of its first block that is no code. */
  get firstWords() {
    return this.querySelector(":is(.blocks, [data-section]) > :not(figure, hr, [data-section])")?.textContent ?? "";
  }

  get attachments() {
    return this.querySelector("attachment-list")?.files ?? [];
  }

  get siblings() {
    return (this.dataset.siblings ?? this.dataset.id).split(" ").filter(Boolean);
  }

  get #live() {
    return (this.#blocks ??= new LiveBlocks(this.querySelector(".blocks"), this.text));
  }

  /** Take over a message's shape; what did not change is left alone. */
  update(message) {
    const { text, html } = message;
    const changed = text !== this.text;
    const growing = [this.dataset.state, message.state].some((state) => ["running", "waiting"].includes(state));
    this.rename(message.id);
    this.dataset.parent = message.parent ?? "";
    if (message.state === "running") this.#goesOnFrom(text);
    this.#setText(text);
    this.querySelector("attachment-list")?.show(message.attachments);
    if (changed || growing) this.#showWords(text, html);
    if (message.reasoning) this.#showThoughts(message);
    else if (message.state === "running") this.#thoughts.stale = true;
    this.#know(message);
    this.setSiblings(message.siblings ?? [message.id]);
    this.setModel(message.model);
    if (message.error) this.#showError(message.error);
    this.setState(message.state, message.finish_reason);
  }

  // What is told of the message on request.
  #know({ created, seconds, usage, reasoning_seconds }) {
    if (created) this.dataset.created = created;
    if (seconds !== undefined) this.dataset.seconds = seconds;
    if (usage) this.dataset.usage = `${usage.prompt_tokens} ${usage.completion_tokens}`;
    if (reasoning_seconds === undefined) return;
    this.dataset.reasoned = reasoning_seconds;
    if (!this.hasAttribute("data-thinking")) this.#sayLasted(reasoning_seconds);
  }

  // A part that few messages have: taken from the template where it is not here yet.
  #part(name) {
    const here = this.querySelector(`:scope > .${name}`);
    if (here) return here;
    const part = document.importNode(template(this.dataset.role).querySelector(`.${name}`), true);
    if (name === "reasoning") this.querySelector(".blocks").before(part);
    else if (name === "unfold") this.querySelector(".words").after(part);
    else this.querySelector(".actions").before(part);
    return part;
  }

  rename(id) {
    const siblings = this.siblings.map((sibling) => (sibling === this.dataset.id ? id : sibling));
    this.dataset.id = id;
    this.setSiblings(siblings);
    this.querySelector("h2").id = `by-${id}`;
    this.setAttribute("aria-labelledby", `by-${id}`);
    if (this.dataset.role === "user") {
      this.querySelector(".words").id = `words-${id}`;
      for (const button of this.querySelectorAll(".withdraw")) button.setAttribute("aria-describedby", `words-${id}`);
    }
    const quote = this.querySelector(".failure .quote");
    if (quote) quote.textContent = id;
  }

  get early() {
    return this.notBefore > Date.now();
  }

  /** `state` is the protocol's, or `waiting` (no sign of the answer yet), `sending`, `unsent`, `delayed`. */
  setState(state, finish = "") {
    this.dataset.state = state;
    if (finish) this.dataset.finish = finish;
    else delete this.dataset.finish;
    if (state !== "running" && this.hasAttribute("data-anew")) this.#settle();
    if (!["waiting", "running"].includes(state)) this.#thinkNoMore();
    if (ENDINGS[finish]) this.#part("note").querySelector(".why").textContent = ENDINGS[finish];
    this.#count();
    if (this.contains(document.activeElement) && !document.activeElement.checkVisibility()) this.#say("unfocused");
  }

  setSiblings(siblings) {
    if (siblings.length > 1) this.dataset.siblings = siblings.join(" ");
    else delete this.dataset.siblings;
    const position = siblings.indexOf(this.dataset.id);
    this.querySelector(".versions").hidden = siblings.length < 2;
    this.querySelector(".versions .count").textContent = `${position + 1}/${siblings.length}`;
    this.querySelector(".previous").disabled = position <= 0;
    this.querySelector(".next").disabled = position === siblings.length - 1;
  }

  setModel(model) {
    if (!model) return;
    this.dataset.model = model;
    const by = this.querySelector(".by");
    if (by && by.textContent !== labelOf(model)) by.textContent = labelOf(model);
  }

  /** The answer begins, perhaps anew, with the text that is kept of an earlier attempt. */
  start({ text, model, created }) {
    this.#goesOnFrom(text);
    if (!text) this.#thoughts.stale = true;
    this.#know({ created });
    if (text !== this.text) this.#showWords(text);
    this.#setText(text);
    this.setModel(model);
    this.setState("running");
  }

  grow(delta) {
    if (delta.reasoning) this.#think(delta.reasoning);
    this.#setText(this.text + delta.text);
    if (delta.text.trim()) this.#thinkNoMore();
    this.#know(delta);
    this.#live.grow(delta);
  }

  finish(event) {
    this.#live.mend(event.blocks, event.count);
    this.setState("done", event.finish_reason);
    this.#know(event);
  }

  fail(error) {
    this.#showError(error);
    this.setState("failed");
    this.#know(error);
  }

  // The model's reasoning stands above its answer: open while it comes, closed once there are words, unless a hand
  // was at it. It is followed in its own box, for as long as nobody scrolls up in it.

  #think(more) {
    const box = this.#part("reasoning").querySelector(".thoughts");
    if (this.#thoughts.stale) box.textContent = "";
    this.#thoughts.stale = false;
    if (box.firstChild) box.firstChild.appendData(more);
    else box.append(more);
    this.#beginThinking(Date.now());
    if (!this.#thoughts.due) requestAnimationFrame(() => this.#followThoughts(box));
    this.#thoughts.due = true;
  }

  #followThoughts(box) {
    this.#thoughts.due = false;
    if (box.scrollTop < this.#thoughts.seen - 1) return; // somebody reads further up
    box.scrollTop = box.scrollHeight;
    this.#thoughts.seen = box.scrollTop;
  }

  #beginThinking(since) {
    if (this.hasAttribute("data-thinking")) return;
    this.toggleAttribute("data-thinking", true);
    if (!this.text && !this.hasAttribute("data-held")) this.#part("reasoning").open = true;
    this.#since = since;
    this.#count();
  }

  #thinkNoMore() {
    if (this.#thoughts.stale) this.querySelector(".reasoning")?.remove(); // this attempt answers without
    this.#thoughts.stale = false;
    if (!this.hasAttribute("data-thinking")) return;
    this.toggleAttribute("data-thinking", false);
    const part = this.#part("reasoning");
    if (!this.#isHeld(part)) part.open = false;
    this.#sayLasted((Date.now() - this.#since) / 1000);
    this.#count();
  }

  // Opened or closed by hand, or being read: it is not closed by itself.
  #isHeld(part) {
    const box = part.querySelector(".thoughts");
    const selection = document.getSelection();
    const read = box.scrollTop < this.#thoughts.seen - 1 || part.contains(document.activeElement);
    return this.hasAttribute("data-held") || read || (!selection.isCollapsed && box.contains(selection.anchorNode));
  }

  #showThoughts({ reasoning, reasoning_seconds, state, text, created }) {
    const part = this.#part("reasoning");
    const box = part.querySelector(".thoughts");
    if (box.textContent !== reasoning) box.textContent = reasoning;
    this.#thoughts.stale = false;
    if (state === "running" && !text) this.#beginThinking(Date.parse(created));
    else if (this.hasAttribute("data-thinking")) this.#thinkNoMore();
    else if (reasoning_seconds !== undefined) this.#sayLasted(reasoning_seconds);
  }

  #sayLasted(seconds) {
    const words = this.querySelector(".reasoning .lasted");
    if (words) words.textContent = lasted(seconds);
  }

  // An attempt that kept nothing begins anew; what stands here keeps its place until there are other words.
  #goesOnFrom(text) {
    if (!this.text || text.startsWith(this.text)) return;
    this.#live.fade();
    this.#part("anew");
    this.toggleAttribute("data-anew", true);
  }

  #settle() {
    this.#live.settle();
    this.toggleAttribute("data-anew", false);
  }

  #showWords(text, html) {
    if (this.dataset.role === "user") this.#showPrompt(text);
    else if (!text && this.hasAttribute("data-anew")) return;
    else if (html) this.#live.show(html, text);
    else this.#live.showPlain(text);
  }

  #showPrompt(text) {
    const long = isLong(text);
    this.querySelector(".words").textContent = text;
    this.toggleAttribute("data-long", long);
    if (long) this.#part("unfold");
  }

  // A long prompt shows its beginning, or all of it.
  #unfold(button) {
    const open = !this.hasAttribute("data-unfolded");
    if (open) this.#say("unfold");
    this.toggleAttribute("data-unfolded", open);
    button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Show less" : "Show all";
    if (!open) button.scrollIntoView({ block: "nearest" });
  }

  #setText(text) {
    this.#text = text;
    if (this.hasAttribute("data-text")) this.removeAttribute("data-text");
    this.toggleAttribute("data-words", text !== "");
  }

  #showError({ code, detail, retryable, retry_after }) {
    const part = this.#part("failure");
    part.querySelector(".detail").textContent = detail;
    part.querySelector(".code").textContent = code;
    part.querySelector(".quote").textContent = this.dataset.id;
    this.dataset.error = code;
    this.toggleAttribute("data-final", retryable === false);
    if (retry_after > 0) this.#until = Date.now() + retry_after * 1000; // a snapshot does not say it again
    this.#countDown();
  }

  #countDown() {
    clearInterval(this.#countdown);
    if (!this.#until) return;
    const retry = this.#part("failure").querySelector(".retry");
    const show = () => {
      const early = this.#until > Date.now();
      retry.disabled = early;
      retry.textContent = early ? `Retry in ${until(this.#until)}` : "Retry";
      if (!early) clearInterval(this.#countdown);
    };
    this.#countdown = setInterval(show, 1000);
    show();
  }

  #count() {
    clearInterval(this.#waiting);
    if (this.dataset.state === "delayed") return this.#countDelay();
    const awaited = ["waiting", "running"].includes(this.dataset.state) && this.dataset.role === "assistant" && !this.text;
    if (!awaited && !this.hasAttribute("data-thinking")) {
      this.#since = 0;
      return this.querySelector(":scope > .waiting")?.remove();
    }
    this.#since ||= Math.min(Date.now(), Date.parse(this.dataset.created) || Infinity); // whoever loads it now sees the same
    if (awaited) this.#part("waiting");
    this.#waiting = setInterval(() => this.#showSeconds(awaited), 1000);
    this.#showSeconds(awaited);
  }

  #showSeconds(awaited) {
    if (awaited && this.text && !this.hasAttribute("data-thinking")) return this.#count();
    const seconds = Math.floor((Date.now() - this.#since) / 1000);
    const words = seconds >= PATIENCE_SECONDS ? `${seconds} s` : "";
    if (this.hasAttribute("data-thinking")) this.querySelector(".lasted").textContent = `Thinking… ${words}`.trimEnd();
    else this.querySelector(".elapsed").textContent = words;
  }

  #countDelay() {
    const show = () => {
      this.querySelector(".early").textContent = `${this.why} Will be sent in ${until(this.notBefore)}`.trim();
      if (!this.early) this.setState("sending");
    };
    this.#waiting = setInterval(show, 1000);
    show();
  }

  handleEvent({ target }) {
    const reasoning = target.closest("summary")?.parentElement;
    const button = target.closest("button");
    if (reasoning?.matches(".reasoning")) this.#hold(reasoning);
    else if (button && !button.closest("code-header")) this.#click(button);
  }

  #hold(reasoning) {
    this.toggleAttribute("data-held", true);
    if (!reasoning.open) this.#say("unfold");
  }

  #click(button) {
    const { id } = this.dataset;
    const beside = this.siblings.indexOf(id) + (button.matches(".next") ? 1 : -1);
    if (button.matches(".copy")) copyFrom(button, this.text, "Message copied");
    else if (button.matches(".regenerate")) this.#say("regenerate", id);
    else if (button.matches(".retry")) this.#say("retry", id);
    else if (button.matches(".continue")) this.#say("continue", id);
    else if (button.matches(".withdraw")) this.#say("withdraw", id);
    else if (button.matches(".more, .others")) this.#say("menu", { id, button, models: button.matches(".others") });
    else if (button.matches(".leave-out")) writeLeftOut(id, this.querySelector("attachment-list").left);
    else if (button.matches(".unfold")) this.#unfold(button);
    else if (button.matches(".edit")) this.edit(this.text);
    else if (button.matches(".cancel")) this.#forgo();
    else if (button.matches(".previous, .next")) this.#say("version", this.siblings[beside]);
  }

  // Editing takes the place of the words until it is sent or left; over reloads and other chats, too.

  /** Open the editor, with these words in it. */
  edit(text) {
    if (!this.querySelector(".editor")) this.#openEditor(text);
    const box = this.querySelector(".editor textarea");
    this.#from = document.activeElement;
    box.value = text;
    writeEdit(this.dataset.id, text);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  /** Give up the words in the editor that are not those of the message; "" where there are none. */
  yieldEdit() {
    const text = this.querySelector(".editor textarea")?.value ?? "";
    writeEdit(this.dataset.id, null);
    return text === this.text ? "" : text;
  }

  #openEditor(text) {
    const editor = document.importNode(document.getElementById("editor").content, true).firstElementChild;
    const box = editor.querySelector("textarea");
    const hint = editor.querySelector(".hint");
    box.value = text;
    hint.id = `hint-${this.dataset.id}`;
    box.setAttribute("aria-describedby", hint.id);
    if (MAC) hint.firstElementChild.textContent = "⌘ Enter";
    editor.addEventListener("keydown", (event) => this.#pressed(event));
    editor.addEventListener("input", () => writeEdit(this.dataset.id, box.value));
    editor.addEventListener("submit", (event) => this.#submitted(event));
    this.querySelector(".words").after(editor);
    this.querySelector("attachment-list").edit(true, readLeftOut(this.dataset.id));
    this.toggleAttribute("data-editing", true);
  }

  #leave() {
    writeEdit(this.dataset.id, null);
    this.querySelector(".editor").remove();
    this.querySelector("attachment-list").edit(false);
    this.toggleAttribute("data-editing", false);
    if (this.#from?.matches("#message")) this.#from.focus();
    else this.querySelector(".edit").focus({ preventScroll: true });
    this.#say("left");
  }

  #forgo() {
    const words = this.yieldEdit();
    this.#leave();
    if (words) this.#say("forgone", { id: this.dataset.id, words });
  }

  #pressed(event) {
    if (event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.requestSubmit();
    else if (event.key === "Escape") this.#forgo();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #submitted(event) {
    event.preventDefault();
    const text = event.target.querySelector("textarea").value.trim();
    const attachments = this.querySelector("attachment-list").kept;
    if (!text && attachments.length === 0) return event.target.querySelector("textarea").focus();
    this.#leave();
    this.#say("edit", { text, parent: this.dataset.parent || null, attachments });
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}

customElements.define("chat-message", ChatMessage);
