// The box one writes in and its button, beside which another one stops while there is something to send. It keeps drafts
// and lets go of a text only when told that it was accepted.
// Events: `send` (detail: text), `stop`, `problem` (detail: its words). It does not know what becomes of them.

import { before, behind, readDraft, writeDraft } from "../drafts.js";

const DRAFT_MILLISECONDS = 300;
const COUNT_FROM = 0.9; // of the limit: from here on the characters left are told
const OPEN = "dialog[open], :popover-open"; // Escape closes these first
const virtualKeyboard = matchMedia("(hover: none) and (pointer: coarse)");

function characters(count) {
  return count === 1 ? "1 character" : `${count.toLocaleString("en")} characters`;
}

// Whether `main.js` has put the page together.
function isLive() {
  return "live" in document.documentElement.dataset;
}

class ChatComposer extends HTMLElement {
  limit = Infinity;
  #box;
  #button;
  #stop;
  #problem;
  #tray;
  #conversation = null; // until it belongs to one
  #draft = ""; // as it was read or written last
  #changed = false; // it is not what was read: else another tab's newer one stays
  #answering = false;
  #waits = false;
  #timer = 0;
  #lifted = []; // texts that are out of the box, and not kept elsewhere yet

  connectedCallback() {
    this.#box = this.querySelector("textarea");
    this.#box.autocomplete = "off"; // drafts are kept here; without scripts, Back brings the words again
    this.#button = this.querySelector(".act");
    this.#stop = this.querySelector(".stop");
    this.#problem = this.querySelector(".problem");
    this.#tray = this.querySelector("attachment-tray");
    this.#tray.addEventListener("attached", () => this.#update());
    this.#tray.addEventListener("unfit", ({ detail }) => this.complain(detail));
    this.#tray.addEventListener("astext", ({ detail }) => this.#insert(detail));
    this.querySelector("form").addEventListener("submit", (event) => this.#submitted(event));
    this.#box.addEventListener("input", () => this.#typed());
    this.#box.addEventListener("keydown", (event) => this.#pressed(event));
    this.querySelector(".box").addEventListener("click", ({ target }) => target.closest("button") || this.#box.focus());
    this.#stop.addEventListener("click", () => this.#say("stop"));
    addEventListener("pagehide", () => this.#keepDraft());
    const tell = () => document.documentElement.style.setProperty("--composer", `${this.offsetHeight}px`);
    new ResizeObserver(tell).observe(this); // what floats does not cover it
  }

  get text() {
    return this.#box.value;
  }

  /** Belong to another conversation: the old draft is kept, the new one is shown. */
  attach(conversation) {
    this.#keepDraft();
    this.#lifted = [];
    const first = this.#conversation === null;
    const early = first ? this.#box.value : ""; // typed before this script ran
    this.#conversation = conversation ?? "";
    this.#tray.attach(this.#conversation);
    const draft = readDraft(this.#conversation);
    this.#box.value = !early || draft.includes(early) ? draft : [draft, early].filter(Boolean).join("\n\n");
    this.#draft = draft;
    this.#changed = false;
    if (!first) this.complain(""); // what came with the page is still to be read
    this.#update();
  }

  /** The new chat that was written in has an id now: what is typed from here on belongs to it. */
  adopt(conversation) {
    if (readDraft(this.#conversation) === this.#draft) writeDraft(this.#conversation, "");
    this.#conversation = conversation;
    this.#draft = "";
    this.#keepDraft();
    this.#tray.adopt(conversation);
  }

  /** `stopping`: the answer is to be stopped, and has not ended yet. `waits`: another message is answered after it. */
  setAnswering(answering, stopping, waits) {
    this.#answering = answering;
    this.#waits = waits;
    this.toggleAttribute("data-stopping", answering && stopping);
    this.#update();
  }

  /** Take over a text that is about to be sent, as if it were typed before all else. */
  write(text) {
    this.#putBefore(text);
    this.#keepDraft();
    this.#update();
  }

  #putBefore(text) {
    this.#box.value = before(this.#box.value, text);
  }

  /** The text is on its way, and out of the box at once, so that it goes only once; its draft stays until it is kept. */
  lift(text) {
    this.#lifted.push(text);
    this.#box.value = behind(this.#box.value, text);
    this.#update();
  }

  /** The text that was lifted is kept elsewhere: its draft, which may not be shown any more, is forgotten. */
  taken(text, conversation) {
    const at = this.#lifted.indexOf(text);
    if (at >= 0) this.#lifted.splice(at, 1);
    else if ((conversation ?? "") === this.#conversation) this.#box.value = behind(this.#box.value, text); // back with its draft
    if (at >= 0 || (conversation ?? "") === this.#conversation) this.#keepDraft();
    else writeDraft(conversation, behind(readDraft(conversation), text));
    this.#update();
  }

  /** The text was not taken: it is in the box, whatever else was there. */
  rejected(text, reason) {
    this.#putBefore(text);
    this.#keepDraft();
    this.#update();
    this.complain(reason);
  }

  complain(reason) {
    this.#showProblem(reason);
    if (reason) this.#say("problem", reason);
  }

  #showProblem(reason, fault = Boolean(reason)) {
    this.#problem.textContent = reason;
    this.#problem.hidden = !reason;
    this.toggleAttribute("data-problem", fault);
  }

  focus() {
    if (!virtualKeyboard.matches) this.#box.focus({ preventScroll: true });
  }

  #submitted(event) {
    if (!isLive()) return; // nobody would hear of it: the form goes as it is
    event.preventDefault();
    if (event.submitter && event.submitter !== this.#button) return; // another's button, which has done its work
    if (this.dataset.state === "answering" && event.submitter) this.#say("stop");
    else this.#send();
  }

  #send() {
    const text = this.#box.value.trim();
    if (!text && !this.#tray.filled) return;
    if (this.#tooLong) return this.complain(this.#lengthProblem);
    if (this.#tray.problem) return this.complain(this.#tray.problem);
    this.complain("");
    this.#say("send", text);
  }

  #insert(text) {
    this.#box.setRangeText(text, this.#box.selectionStart, this.#box.selectionEnd, "end");
    this.#box.focus();
    this.#typed();
  }

  #typed() {
    this.complain("");
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#keepDraft(), DRAFT_MILLISECONDS);
    this.#update();
  }

  #pressed(event) {
    if (event.isComposing || event.keyCode === 229) return; // 229: Safari's way of saying the same
    if (event.key === "Escape" && !event.shiftKey && this.#answering && !document.querySelector(OPEN)) this.#say("stop");
    if (event.key !== "Enter" || event.shiftKey || event.altKey || virtualKeyboard.matches || !isLive()) return;
    event.preventDefault();
    this.#send();
  }

  get #tooLong() {
    return this.#length > this.limit;
  }

  get #length() {
    return [...this.#box.value.trim()].length;
  }

  #update() {
    const ready = (this.#box.value.trim() !== "" || this.#tray.filled) && !this.#tooLong;
    this.dataset.state = ready ? "ready" : this.#answering ? "answering" : "empty";
    this.toggleAttribute("data-queues", ready && this.#answering);
    const stops = this.dataset.state === "answering";
    const stop = this.hasAttribute("data-stopping") ? "Stopping…" : "Stop";
    const title = stop === "Stop" && this.#waits ? "Stop: the next message is answered then" : stop;
    const label = stops ? stop : "Send";
    this.#stop.setAttribute("aria-label", stop);
    this.#stop.title = title;
    this.#stop.hidden = !this.#answering || stops;
    this.#button.setAttribute("aria-label", label);
    const send = this.#answering ? "Send: it waits for the answer before it (Esc stops that)" : "Send";
    this.#button.title = stops ? title : send;
    this.#button.disabled = !stops && !ready;
    this.#grow();
    this.#tellLength();
  }

  #tellLength() {
    if (this.#box.value.length < this.limit * COUNT_FROM) return;
    if (this.#length > this.limit * COUNT_FROM) this.#showProblem(this.#lengthProblem, this.#tooLong);
  }

  get #lengthProblem() {
    const left = this.limit - this.#length;
    return left < 0 ? `${characters(-left)} too many. Shorten your message to send it.` : `${characters(left)} left.`;
  }

  #grow() {
    if (CSS.supports("field-sizing", "content")) return;
    this.#box.style.height = "auto";
    this.#box.style.height = `${this.#box.scrollHeight}px`;
  }

  #keepDraft() {
    clearTimeout(this.#timer);
    const words = [...this.#lifted, this.#box.value].filter(Boolean).join("\n\n");
    this.#changed ||= words !== this.#draft;
    if (this.#conversation === null || !this.#changed) return;
    if (words || readDraft(this.#conversation) === this.#draft) writeDraft(this.#conversation, words);
    this.#draft = words;
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}

customElements.define("chat-composer", ChatComposer);
