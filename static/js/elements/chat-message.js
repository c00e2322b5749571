// One message: its words or blocks, its state, its actions. Everything that can be seen follows from attributes.
// Events: `regenerate`, `retry`, `continue`, `withdraw` (detail: message id), `version` (detail: sibling's id), `edit`
// (detail: {text, parent}), `unfocused` where what had the focus is hidden. It does not know its neighbours.

import "./attachment-list.js"; // before a message is: it may open its editor at once
import { labelOf } from "../labels.js";
import { copyFrom } from "../clipboard.js";
import { readEdit, writeEdit } from "../drafts.js";
import { LiveBlocks } from "./live-blocks.js";

const NOTES = {
  stopped: "Stopped",
  interrupted: "Broken off before the end",
  length: "Cut off at the length limit",
  content_filter: "Cut off by the model’s content filter",
};
const PATIENCE_SECONDS = 5;

/** A new element for a message of the protocol's shape. */
export function messageElement(message) {
  const template = document.getElementById(`message-${message.role}`);
  const element = document.importNode(template.content, true).firstElementChild;
  element.update(message);
  return element;
}

class ChatMessage extends HTMLElement {
  notBefore = 0; // the time at which a prompt that came too fast is sent
  #text = null;
  #blocks = null;
  #waiting = null; // the timer that counts the seconds of waiting
  #until = 0; // when a retry is possible, in milliseconds
  #countdown = null;
  #listening = false;

  connectedCallback() {
    this.#count();
    this.#countDown();
    if (this.#listening) return;
    this.#listening = true;
    if (this.dataset.role === "assistant") void this.#live; // furnishes the blocks that came with the page
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("input", ({ target }) => writeEdit(this.dataset.id, target.value));
    this.addEventListener("submit", (event) => this.#submitted(event));
    this.addEventListener("click", ({ target }) => this.#click(target.closest("button")));
    const draft = this.dataset.role === "user" ? readEdit(this.dataset.id) : null;
    if (draft !== null) this.#openEditor(draft);
  }

  disconnectedCallback() {
    clearInterval(this.#waiting);
    clearInterval(this.#countdown);
  }

  get text() {
    return this.#text ?? this.dataset.text;
  }

  get attachments() {
    return this.querySelector("attachment-list")?.files ?? [];
  }

  get siblings() {
    return this.dataset.siblings.split(" ").filter(Boolean);
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
    this.setSiblings(message.siblings ?? [message.id]);
    this.setModel(message.model);
    if (message.error) this.#showError(message.error);
    this.setState(message.state, message.finish_reason);
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
    const quote = this.querySelector(".quote");
    if (quote) quote.textContent = id;
  }

  get early() {
    return this.notBefore > Date.now();
  }

  /** `state` is the protocol's, or `waiting` (no sign of the answer yet), `sending`, `unsent`, `delayed`. */
  setState(state, finish = "") {
    this.dataset.state = state;
    this.dataset.finish = finish;
    if (state !== "running" && this.hasAttribute("data-anew")) this.#settle();
    const note = this.querySelector(".note .why");
    if (note) note.textContent = NOTES[finish] ?? "";
    this.#count();
    if (this.contains(document.activeElement) && !document.activeElement.checkVisibility()) this.#say("unfocused");
  }

  setSiblings(siblings) {
    this.dataset.siblings = siblings.join(" ");
    const position = siblings.indexOf(this.dataset.id);
    this.querySelector(".versions").hidden = siblings.length < 2;
    this.querySelector(".versions .count").textContent = `${position + 1}/${siblings.length}`;
    this.querySelector(".previous").disabled = position <= 0;
    this.querySelector(".next").disabled = position === siblings.length - 1;
  }

  setModel(model) {
    this.dataset.model = model ?? "";
    const by = this.querySelector(".by");
    if (by && by.textContent !== labelOf(model)) by.textContent = labelOf(model);
  }

  /** The answer begins, perhaps anew, with the text that is kept of an earlier attempt. */
  start({ text, model }) {
    this.#goesOnFrom(text);
    if (text !== this.text) this.#showWords(text);
    this.#setText(text);
    this.setModel(model);
    this.setState("running");
  }

  grow(delta) {
    this.#setText(this.text + delta.text);
    this.#live.grow(delta);
  }

  finish({ blocks, count, finish_reason }) {
    this.#live.mend(blocks, count);
    this.setState("done", finish_reason);
  }

  fail(error) {
    this.#showError(error);
    this.setState("failed");
  }

  // An attempt that kept nothing begins anew; what stands here keeps its place until there are other words.
  #goesOnFrom(text) {
    if (!this.text || text.startsWith(this.text)) return;
    this.#live.fade();
    this.toggleAttribute("data-anew", true);
  }

  #settle() {
    this.#live.settle();
    this.toggleAttribute("data-anew", false);
  }

  #showWords(text, html) {
    if (this.dataset.role === "user") this.querySelector(".words").textContent = text;
    else if (!text && this.hasAttribute("data-anew")) return;
    else if (html) this.#live.show(html, text);
    else this.#live.showPlain(text);
  }

  #setText(text) {
    this.#text = text;
    if (this.hasAttribute("data-text")) this.removeAttribute("data-text");
    this.toggleAttribute("data-words", text !== "");
  }

  #showError({ code, detail, retry_after }) {
    this.querySelector(".failure .detail").textContent = detail;
    this.querySelector(".failure .code").textContent = code;
    this.dataset.error = code;
    if (retry_after > 0) this.#until = Date.now() + retry_after * 1000; // a snapshot does not say it again
    this.#countDown();
  }

  #countDown() {
    clearInterval(this.#countdown);
    if (!this.#until) return;
    const retry = this.querySelector(".retry");
    const show = () => {
      const seconds = Math.ceil((this.#until - Date.now()) / 1000);
      retry.disabled = seconds > 0;
      retry.textContent = seconds > 0 ? `Retry in ${seconds} s` : "Retry";
      if (seconds <= 0) clearInterval(this.#countdown);
    };
    this.#countdown = setInterval(show, 1000);
    show();
  }

  #count() {
    clearInterval(this.#waiting);
    if (this.dataset.state === "delayed") return this.#countDelay();
    const elapsed = this.querySelector(".elapsed");
    if (!elapsed || !["waiting", "running"].includes(this.dataset.state) || this.text) return;
    const since = Date.now();
    elapsed.textContent = "";
    this.#waiting = setInterval(() => {
      const seconds = Math.floor((Date.now() - since) / 1000);
      if (this.text) clearInterval(this.#waiting);
      else if (seconds >= PATIENCE_SECONDS) elapsed.textContent = `${seconds} s`;
    }, 1000);
  }

  #countDelay() {
    const show = () => {
      this.querySelector(".early").textContent = `Will be sent in ${Math.ceil((this.notBefore - Date.now()) / 1000)} s`;
      if (!this.early) this.setState("sending");
    };
    this.#waiting = setInterval(show, 1000);
    show();
  }

  #click(button) {
    if (!button || button.closest("code-header")) return;
    const { id } = this.dataset;
    const beside = this.siblings.indexOf(id) + (button.matches(".next") ? 1 : -1);
    if (button.matches(".copy")) copyFrom(button, this.text, "Message copied");
    else if (button.matches(".regenerate")) this.#say("regenerate", id);
    else if (button.matches(".retry")) this.#say("retry", id);
    else if (button.matches(".continue")) this.#say("continue", id);
    else if (button.matches(".withdraw")) this.#say("withdraw", id);
    else if (button.matches(".edit")) this.edit(this.text);
    else if (button.matches(".cancel")) this.#leave();
    else if (button.matches(".previous, .next")) this.#say("version", this.siblings[beside]);
  }

  // Editing takes the place of the words until it is sent or left; over reloads and other chats, too.

  /** Open the editor, with these words in it. */
  edit(text) {
    if (!this.querySelector(".editor")) this.#openEditor(text);
    const box = this.querySelector(".editor textarea");
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
    editor.querySelector("textarea").value = text;
    this.querySelector(".words").after(editor);
    this.querySelector("attachment-list").edit(true);
    this.toggleAttribute("data-editing", true);
  }

  #leave() {
    writeEdit(this.dataset.id, null);
    this.querySelector(".editor").remove();
    this.querySelector("attachment-list").edit(false);
    this.toggleAttribute("data-editing", false);
    this.querySelector(".edit").focus();
  }

  #pressed(event) {
    const editor = event.target.closest(".editor");
    if (!editor || event.isComposing) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) editor.requestSubmit();
    else if (event.key === "Escape") this.#leave();
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
