// The messages of one conversation, in order, and where the reader is among them.
// Events: `older` (detail: id of the oldest message here), `line` (detail: the prompts that wait, which are not shown here),
// `displaced` (detail: the words in the editor of a message that is not here any more), `unfocused` where what had the
// focus is gone. It does not know the wire.

import { ABOVE_TURN, AnswerSpace } from "./answer-space.js";
import { messageElement } from "./chat-message.js";
import { NextFrame } from "./next-frame.js";
import { FAR, NEAR, ScrollFollower } from "./scroll-follower.js";

const CLEAR = 32; // px between what is edited and the edge below it, where the conversation fades
const FOUND_MILLISECONDS = 2500;
const EARLY = 3; // heights of the box before the top at which older messages are asked for
const KEPT_CHATS = 5; // that were shown a moment ago, for whoever comes back to them
const KEPT_MESSAGES = 60; // of each, the newest
const PENDING = ["sending", "unsent", "delayed"]; // states of prompts that nobody accepted yet
const WAITING = ["queued", ...PENDING]; // of those whose answer is not due yet: they stand last

// What stands for a prompt without words.
function namesOf(attachments) {
  return attachments.map(({ name }) => name).join(", ");
}

// Whether an element is of this prompt: two may have the same words, or none.
function isOf(element, { text, attachments = [] }) {
  const idsOf = (files) => files.map(({ id }) => `${id}`).join(" ");
  return element.text === text && idsOf(element.attachments) === idsOf(attachments);
}

// The words in the editors of messages that are given up.
function yielded(elements) {
  return elements.map((element) => element.yieldEdit()).filter(Boolean);
}

class ChatTranscript extends HTMLElement {
  #log;
  #column;
  #aside = document.createElement("div"); // what edits on their way take the place of: it is back if they do not go
  #jump;
  #space;
  #follower;
  #frame = new NextFrame(() => this.#paint());
  #grown = new Map(); // element -> deltas of it that are placed with the next frame
  #kept = new Map(); // conversation id -> {elements, more}: chats that are not shown any more, the last one last
  #coming = null; // the prompt that is shown, with its answer, behind the next frame
  #hurried = null; // the prompt that is to be sent now
  #turned = null; // {id, top, names, pinned}: the version turned to, where it was, the buttons to be found there

  connectedCallback() {
    this.#log = this.querySelector("[role=log]");
    this.#column = this.querySelector(".column");
    this.#jump = this.querySelector(".jump");
    this.#aside.className = "column aside";
    this.#aside.inert = true;
    this.#aside.ariaHidden = "true";
    this.#column.after(this.#aside);
    this.#space = new AnswerSpace(this.#log);
    this.#follower = new ScrollFollower(this.#log, this.#column, () => this.#space.free, (place) => this.#scrolled(place));
    this.#jump.addEventListener("click", () => this.#jumped());
    this.querySelector(".earlier").addEventListener("click", () => this.#askOlder());
    this.addEventListener("version", ({ target, detail }) => this.#remember(target, detail));
    this.addEventListener("unfold", () => this.#follower.stay()); // what opens is read from its top
    this.addEventListener("focusin", ({ target }) => target.closest(".editor") && this.#edited(target.closest(".editor")));
    this.addEventListener("left", () => this.#follower.back());
    for (const type of ["focusin", "focusout"]) this.addEventListener(type, () => this.#noteEditor());
    new ResizeObserver(() => this.#makeRoom()).observe(this.#log);
    const line = new MutationObserver(() => this.lineUp());
    line.observe(this.#column, { childList: true });
    line.observe(this.#log, { subtree: true, attributeFilter: ["data-state", "data-siblings"] });
    line.observe(this, { attributeFilter: ["data-running", "data-turning"] });
    new MutationObserver(() => this.#noteEditor()).observe(this.#column, { childList: true });
    this.#follower.snap();
  }

  // With `:has` in its place, each word of an answer would have the browser look through all that is here.
  #noteEditor() {
    this.toggleAttribute("data-edits", Boolean(document.activeElement.closest(".editor")));
  }

  // What is edited stays where it is, and in sight: the end is not followed under the person's hands.
  #edited(element) {
    const log = this.#log.getBoundingClientRect();
    const { top, height } = element.getBoundingClientRect();
    this.#follower.showAt(element, Math.max(log.top, Math.min(top, log.bottom - CLEAR - height)), true);
  }

  get #messages() {
    return [...this.#column.children];
  }

  get last() {
    return this.#column.lastElementChild;
  }

  message(id) {
    let element = this.last; // of thousands, it is mostly one of the newest
    while (element && element.dataset.id !== id) element = element.previousElementSibling;
    return element ?? undefined;
  }

  /** The answer that is being made, or that is the next one; "" where there is none. */
  get running() {
    return this.dataset.running ?? this.#in("queued")[0]?.dataset.answer ?? "";
  }

  /** What is shown as being made is the answer to a prompt that nobody accepted yet. */
  get awaitsAccept() {
    return PENDING.includes(this.message(this.message(this.dataset.running)?.dataset.parent)?.dataset.state);
  }

  /** Prompts wait for their answers here. */
  get waits() {
    return this.#in("queued").length > 0;
  }

  /** Whether this prompt is here and stored, and has no whole answer yet. */
  says(prompt) {
    const here = this.#messages;
    const answered = here.findLastIndex(({ dataset }) => dataset.role === "assistant" && ["done", "failed"].includes(dataset.state));
    const open = here.slice(answered + 1).filter(({ dataset }) => dataset.role === "user" && !PENDING.includes(dataset.state));
    return open.some((element) => isOf(element, prompt));
  }

  #in(...states) {
    return this.#messages.filter((element) => states.includes(element.dataset.state));
  }

  /** Have what waits behind an answer or another prompt stand in a line of its own. An edit has its place here. */
  lineUp() {
    if (this.hasAttribute("data-cut")) return; // not all came with the page: what waits is shown as it did
    this.#log.inert = this.hasAttribute("data-turning"); // what fades belongs to a chat that is left
    const here = this.#log.inert ? [] : this.#messages;
    const waiting = here.slice(here.findLastIndex(({ dataset }) => dataset.role !== "user" || !WAITING.includes(dataset.state)) + 1);
    const line = [];
    for (const [index, element] of waiting.entries()) if (this.#waits(element, index, line.length)) line.push(element);
    for (const element of here) element.toggleAttribute("data-waits", line.includes(element));
    const detail = line.map((element) => ({
      ...{ key: element, id: element.dataset.id, state: element.dataset.state, text: element.text || namesOf(element.attachments) },
      ...{ notBefore: element.notBefore, next: element === waiting[0] },
    }));
    this.dispatchEvent(new CustomEvent("line", { detail }));
  }

  // What cannot be sent now says so here, unless others before it are in the line.
  #waits({ dataset, siblings }, index, before) {
    if (dataset.edits !== undefined || siblings.length > 1) return false;
    if (dataset.state === "queued") return true;
    return dataset.state === "unsent" ? before > 0 : index > 0 || Boolean(this.dataset.running);
  }

  // Where what has this parent goes: behind the parent, or behind the prompt whose answer that is to be.
  #anchor(parent) {
    return this.message(parent) ?? this.#messages.find((element) => element.dataset.answer === parent);
  }

  clear() {
    this.#shelve();
    this.#fill(null, { elements: [], more: false });
  }

  /** What is shown is this conversation. */
  adopt(conversation) {
    this.dataset.conversation = conversation;
  }

  /** Show a conversation as it was when it was left; false where it is not here any more. */
  recall(conversation) {
    const kept = this.#kept.get(conversation);
    if (!kept) return false;
    this.#shelve();
    this.#fill(conversation, kept);
    this.#kept.delete(conversation);
    return true;
  }

  /** A conversation is gone: it is not shown again. */
  forget(conversation) {
    this.#kept.delete(conversation);
    if (this.dataset.conversation === conversation) delete this.dataset.conversation;
  }

  #fill(conversation, { elements, more }) {
    if (conversation) this.adopt(conversation);
    else delete this.dataset.conversation;
    this.#column.replaceChildren(...elements);
    this.#setMore(more);
    this.#setRunning(null);
    this.#space.clear();
    this.#follower.snap();
  }

  // Whoever comes back finds it at once, also while there is no connection.
  #shelve() {
    this.#frame.now();
    this.#bringBack();
    const { conversation } = this.dataset;
    const stored = this.#messages.filter(({ dataset }) => dataset.state !== "waiting" && !PENDING.includes(dataset.state));
    if (!conversation || stored.length === 0) return;
    const elements = stored.slice(-KEPT_MESSAGES);
    this.#kept.delete(conversation);
    this.#kept.set(conversation, { elements, more: elements.length < stored.length || this.hasAttribute("data-more") });
    if (this.#kept.size > KEPT_CHATS) this.#kept.delete(this.#kept.keys().next().value);
  }

  #setMore(more) {
    if (!more && document.activeElement.matches(".earlier")) this.#log.focus({ preventScroll: true });
    this.toggleAttribute("data-more", more);
    this.toggleAttribute("data-failed", false);
  }

  /** What is read: {message, path, top, share}; null where the end is in sight, which is where one comes back to. */
  get place() {
    const place = this.#follower.pinned ? null : this.#follower.place;
    return place && { message: place.element.dataset.id, ...place.record };
  }

  /** Nobody has scrolled since the end was shown. */
  get atEnd() {
    return this.#follower.pinned;
  }

  /** Whether a place is further up than what is here. */
  lacks({ message }) {
    return !this.message(message) && this.hasAttribute("data-more");
  }

  /** Go to where `place` was; where its message is gone, stay. */
  goTo(place) {
    const element = this.message(place.message);
    if (element) this.#follower.goTo(element, place);
  }

  /** Whether an answer is followed while it grows. */
  follow(follows) {
    this.toggleAttribute("data-still", !follows);
  }

  /** What is shown belongs to a conversation that is left: nothing of it goes on here. */
  leave() {
    this.toggleAttribute("data-cut", false);
    CSS.highlights?.delete("found");
    this.#setRunning(null);
    this.toggleAttribute("data-loading", false);
  }

  /** Show a snapshot. Messages that are here already stay the elements they are; `fresh`: another conversation. */
  show({ conversation, messages, more, running }, fresh) {
    this.#frame.now();
    this.toggleAttribute("data-cut", false);
    const change = () => this.#showAll(messages, more, fresh);
    if (fresh) this.#shelve();
    if (fresh) change();
    else this.#follower.hold(change);
    this.adopt(conversation);
    this.#setRunning(running);
    this.expect(running);
    if (fresh) this.#follower.snap();
    if (fresh) this.#turned = null;
  }

  #showAll(messages, more, fresh) {
    this.#bringBack();
    const unsent = fresh ? [] : this.#in(...PENDING);
    const elements = messages.map((message, index) => this.#shown(message, messages[index + 1]));
    const older = fresh ? [] : this.#olderThan(messages[0]);
    this.#arrange([...older, ...elements, ...unsent], fresh || this.#turned);
    if (older.length === 0) this.#setMore(more);
  }

  // What was loaded before the messages of a snapshot stays, where it leads to them.
  #olderThan(first) {
    const here = this.#messages;
    const index = here.findIndex(({ dataset }) => dataset.id === first?.id);
    return here[index - 1]?.dataset.id === first?.parent ? here.slice(0, index) : [];
  }

  #sees(element) {
    const { top, bottom } = this.#log.getBoundingClientRect();
    const box = element.getBoundingClientRect();
    return box.bottom > top && box.top < bottom;
  }

  #remember(element, id) {
    const names = document.activeElement.matches(".next") ? [".next", ".previous"] : [".previous", ".next"];
    this.#turned = { id, top: element.getBoundingClientRect().top, names, pinned: this.#follower.pinned };
  }

  /** The version turned to that is not here yet: its messages may be older than those of the snapshot. */
  get missing() {
    return this.#turned && !this.message(this.#turned.id) && this.hasAttribute("data-more");
  }

  /** The version turned to does not come. */
  forgetTurn() {
    this.#turned = null;
  }

  /** Show the version turned to where the other one was, with its button in hand. Says which it is. */
  turn() {
    const turned = this.#turned;
    const shown = turned && this.message(turned.id);
    this.#turned = null;
    if (!shown) return "";
    if (!turned.pinned || !this.#sees(shown)) this.#follower.showAt(shown, turned.top);
    const buttons = turned.names.map((name) => shown.querySelector(`${name}:enabled`));
    if (document.activeElement === document.body) buttons.find(Boolean)?.focus({ preventScroll: true });
    return `Version ${shown.siblings.indexOf(turned.id) + 1} of ${shown.siblings.length}`;
  }

  get oldest() {
    return this.#column.firstElementChild?.dataset.id;
  }

  /** Show that an answer is to come, if the branch shown is the one that it goes to. */
  expect(running) {
    if (!running || this.message(running)) return;
    const prompt = this.#messages.findLast((element) => !WAITING.includes(element.dataset.state));
    if (prompt?.dataset.role === "user") this.#wait(running, prompt);
  }

  // An editor is not lost with a branch or chat that the person left: it is there again with its message.
  #arrange(elements, left) {
    for (const element of this.#messages.filter((element) => !elements.includes(element))) {
      if (left) element.remove();
      else this.#remove(element);
    }
    elements.forEach((element, index) => {
      const here = this.#column.children[index];
      if (here !== element) this.#column.insertBefore(element, here ?? null);
    });
    this.#putAside();
  }

  #remove(element) {
    const held = element.contains(document.activeElement);
    const words = element.yieldEdit();
    element.remove();
    if (words) this.dispatchEvent(new CustomEvent("displaced", { detail: words }));
    else if (held) this.dispatchEvent(new CustomEvent("unfocused"));
  }

  #shown(message, next) {
    const element = this.message(message.id) ?? messageElement(message);
    if (element.isConnected) element.update(message);
    if (message.role === "user" && next && next.parent !== message.id) element.dataset.answer = next.parent; // to come
    return element;
  }

  /** Put older messages before what is here, unless they are. False where they do not lead to it: another branch is shown by now. */
  prepend({ messages, more }) {
    const here = new Set(this.#messages.map(({ dataset }) => dataset.id));
    const older = messages.filter(({ id }) => !here.has(id));
    const placed = messages.length > 0 && older.length === 0; // somebody else asked for the same ones
    const leads = messages.length === 0 || placed || this.#follows(older.at(-1));
    this.#follower.hold(() => {
      this.toggleAttribute("data-loading", false);
      if (!leads || placed) return;
      this.#column.prepend(...older.map(messageElement));
      this.#setMore(more);
    });
    return leads;
  }

  // What is oldest here has that message for its parent, or waits behind the answer to it.
  #follows(message) {
    const { parent, state } = this.#column.firstElementChild?.dataset ?? {};
    return message?.id === parent || (state === "queued" && message?.role === "user");
  }

  /** They are asked for again when the person wants them, or the connection is back. */
  olderFailed() {
    this.toggleAttribute("data-loading", false);
    this.toggleAttribute("data-failed", true);
  }

  /** Show a prompt that nobody accepted yet, and where its answer is the next one the dots of it. An edit has a `parent`.
   *  `later`: behind the next frame, for the task that it is sent in has enough to do. */
  send(prompt, connected, later) {
    const { id, text, parent, attachments } = prompt;
    if (parent !== undefined) this.#putBehindAside(parent, { text, attachments });
    const last = this.last;
    const due = last?.dataset.role !== "user" && !this.dataset.running;
    const element = messageElement({ id, role: "user", parent: last?.dataset.id ?? null, text, attachments, state: connected ? "sending" : "unsent" });
    this.#column.append(element);
    if (parent !== undefined) element.dataset.edits = parent ?? "";
    if (due && connected) this.#wait(`answer-${id}`, element);
    this.delay(prompt);
    this.lineUp();
    if (element.hasAttribute("data-waits")) return;
    if (later) {
      this.#frame.now();
      this.#coming = element;
      element.toggleAttribute("data-coming", true);
      this.#frame.ask();
    } else if (parent === undefined || connected) this.#beginTurn(true);
    else this.#edited(element);
  }

  /** Press the button that copies the last answer, or the last of its parts that has one. False where there is none. */
  copyLast(part = ".actions") {
    const parts = this.#messages.filter((element) => element.dataset.role === "assistant" && element.text);
    const button = parts.flatMap((element) => [...element.querySelectorAll(`${part} .copy`)]).at(-1);
    button?.click();
    return Boolean(button);
  }

  /** Move the focus to the message before (-1) or after (1) the one that has it, or to the last. False behind that. */
  walk(by) {
    const here = this.#messages.filter((element) => element.checkVisibility());
    const at = here.findIndex((element) => element.contains(document.activeElement));
    const next = at < 0 && by < 0 ? here.at(-1) : here[at < 0 ? here.length : at + by];
    if (next) this.#takeTo(next);
    return Boolean(next) || by < 0;
  }

  #takeTo(message) {
    message.tabIndex = -1;
    message.focus({ preventScroll: true });
    const { top, bottom } = this.#log.getBoundingClientRect();
    const box = message.getBoundingClientRect();
    if (box.top < top || box.bottom > bottom) this.#follower.showAt(message, top + ABOVE_TURN);
  }

  /** Go to a message that was looked for, and mark it for a moment; `find` gives the range in it. False if it is not here. */
  point(id, find) {
    const element = this.message(id);
    if (!element) return false;
    this.#takeTo(element);
    const range = find?.(element);
    if (range) this.#showRange(element, range.getBoundingClientRect());
    element.toggleAttribute("data-found", true);
    setTimeout(() => element.toggleAttribute("data-found", false), FOUND_MILLISECONDS);
    return true;
  }

  #showRange(element, { top, bottom }) {
    const log = this.#log.getBoundingClientRect();
    if (top < log.top || bottom > log.bottom - CLEAR) this.#follower.showAt(element, log.top + log.height / 3 - top + element.getBoundingClientRect().top);
  }

  get editing() {
    return this.#column.querySelector(".editor") !== null;
  }

  /** Give up the words in all editors: their messages are gone. */
  yieldEdits() {
    return yielded([...this.#messages, ...this.#aside.children]);
  }

  /** The same of a conversation that is not shown any more. */
  yieldKept(conversation) {
    return yielded(this.#kept.get(conversation)?.elements ?? []);
  }

  #putAside() {
    for (const element of this.#in(...PENDING)) if (element.dataset.edits !== undefined) this.#putBehindAside(element.dataset.edits, element);
  }

  // What is like the edit may be the edit itself, stored already.
  #putBehindAside(parent, edit) {
    const tail = this.#behind(parent) ?? [];
    if (!tail.some((element) => element.dataset.role === "user" && isOf(element, edit))) this.#aside.prepend(...tail);
  }

  #bringBack() {
    const back = [...this.#aside.children];
    const anchor = back.length > 0 && this.#anchor(back[0].dataset.parent);
    if (anchor) anchor.after(...back);
    else this.#column.prepend(...back);
  }

  /** Open the editor of the message that an edit was to take the place of, with its words. False if it is not here. */
  reopen({ parent, text }) {
    const message = this.#messages.find(({ dataset }) => dataset.role === "user" && dataset.parent === (parent ?? ""));
    message?.edit(text);
    return Boolean(message);
  }

  /** Open the editor of the last own message that is shown and stored. False if there is none. */
  editLast() {
    const last = this.#messages.findLast(({ dataset }) => dataset.role === "user" && !WAITING.includes(dataset.state));
    last?.edit(last.querySelector(".editor textarea")?.value ?? last.text);
    return Boolean(last);
  }

  /** A prompt is not taken yet: nobody is at work on it before a time. Tells whether it is shown from now on. */
  delay({ id, notBefore = 0, why = "" }) {
    const element = this.message(id);
    if (!element || element.notBefore === notBefore) return false;
    Object.assign(element, { notBefore, why });
    if (element.dataset.state !== "sending" || !element.early) return false;
    this.#drop(`answer-${id}`);
    element.setState("delayed");
    return true;
  }

  /** Call the models by their names of now. */
  label() {
    for (const element of this.#messages) element.setModel(element.dataset.model);
  }

  setConnected(connected) {
    this.toggleAttribute("data-lost", !connected);
    if (connected) this.toggleAttribute("data-failed", false);
    if (this.#aside.hasChildNodes()) this.#follower.stay();
    for (const element of this.#in(...PENDING)) {
      element.setState(!connected ? "unsent" : element.early ? "delayed" : "sending");
      if (!connected) this.#drop(`answer-${element.dataset.id}`); // nobody is at work on it
    }
  }

  #drop(answer) {
    this.message(answer)?.remove();
    if (this.dataset.running === answer) this.#setRunning(null);
  }

  /** Take back what `send` showed. */
  unsend(id) {
    this.#drop(`answer-${id}`);
    this.message(id)?.remove();
    this.#bringBack();
    this.#putAside();
    this.#makeRoom();
  }

  /** The prompt shown as `id` is stored as `message`, and `answer` is to come, where others wait after theirs. */
  accept(id, message, answer) {
    const element = this.message(id);
    if (!element) return;
    if (this.message(message)) return this.#acceptShown(id, message, this.message(answer));
    if (element.dataset.edits !== undefined) this.#replace(element);
    const due = this.message(`answer-${id}`) || !(this.dataset.running || this.waits);
    element.rename(message);
    element.setSiblings([message]);
    element.dataset.answer = answer;
    element.setState(due ? "done" : "queued");
    this.#settle(element);
    if (!due) return;
    if (this.message(`answer-${id}`)) this.message(`answer-${id}`).rename(answer);
    else this.#waitLater(answer, element);
    this.message(answer).dataset.parent = message;
    this.#setRunning(answer);
    this.#layOutSoon();
  }

  // An edit is stored: what it takes the place of goes.
  #replace(edit) {
    const { edits } = edit.dataset;
    delete edit.dataset.edits;
    for (const element of [...(this.#behind(edits) ?? []), ...this.#aside.children]) this.#remove(element);
  }

  // What is stored stands before what is not.
  #settle(element) {
    const pending = this.#in(...PENDING)[0];
    if (pending && pending.compareDocumentPosition(element) & Node.DOCUMENT_POSITION_FOLLOWING) pending.before(element);
  }

  // A snapshot brought the prompt, and perhaps its answer, before its sender was told.
  #acceptShown(id, message, answer) {
    this.unsend(id);
    if (!answer) return;
    answer.dataset.parent = message;
    if (["waiting", "running"].includes(answer.dataset.state)) this.#setRunning(answer.dataset.id);
  }

  /** A prompt of any tab is part of the conversation. False if its parent is not known here. */
  add(message, answer) {
    const here = this.message(message.id) ?? this.#sent(message);
    if (here) {
      if (here.dataset.id !== message.id) this.accept(here.dataset.id, message.id, answer);
      here.update(message);
    } else if (!this.#cutAfter(message.parent)) return false;
    const element = here ?? messageElement(message);
    if (!here) this.#place(element);
    element.dataset.answer = answer;
    if (message.state === "queued") {
      this.#drop(answer);
      return true;
    }
    if (!this.message(answer)) this.#waitLater(answer, element);
    return true;
  }

  // At the end, but before what is not stored yet.
  #place(element) {
    this.#column.insertBefore(element, this.#in(...PENDING)[0] ?? null);
  }

  #wait(answer, prompt) {
    prompt.after(messageElement({ id: answer, role: "assistant", parent: prompt.dataset.id, text: "", state: "waiting" }));
    this.#setRunning(answer);
  }

  #waitLater(answer, prompt) {
    this.#wait(answer, prompt);
    this.lineUp();
    this.#beginLater();
  }

  /** The answer before this prompt is being stopped: it goes near the top then, as one that is sent. */
  hurry(id) {
    this.#hurried = this.message(id);
  }

  /** A prompt that waited is taken back. */
  withdraw(message) {
    const gone = this.message(message);
    if (!gone) return;
    for (const element of this.#messages) if (element.dataset.parent === gone.dataset.answer) element.dataset.parent = gone.dataset.parent;
    this.#remove(gone);
    this.#makeRoom();
  }

  /** An answer begins, or goes on. False if its parent is not known here. */
  start({ message, parent, model, text, created }) {
    this.#frame.now();
    const prompt = this.message(parent);
    if (prompt?.dataset.state === "queued") prompt.setState("done");
    this.lineUp();
    if (!this.message(message)) {
      if (!prompt) return false;
      this.#begin(message, prompt);
    }
    this.message(message).start({ text, model, created });
    this.#setRunning(message);
    return true;
  }

  // Another version takes the place of what follows its prompt; one whose turn has come goes before those that wait.
  #begin(message, prompt) {
    const parent = prompt.dataset.id;
    const versions = this.#versions(parent);
    if (versions.length > 0) this.#cutAfter(parent);
    prompt.after(messageElement({ id: message, role: "assistant", parent, text: "", state: "waiting", siblings: [...versions, message] }));
    if (versions.length > 0 || prompt === this.#hurried) this.#beginTurn(prompt === this.#hurried);
    else this.#beginLater();
  }

  /** False where the answer is not known here; one that grows on another branch is. */
  grow(delta) {
    const element = this.#answer(delta.message);
    if (!element) return this.dataset.running === delta.message;
    this.#grown.set(element, joined(this.#grown.get(element) ?? [], delta));
    this.#frame.ask();
    return true;
  }

  #paint() {
    if (this.hasAttribute("data-still") && this.#follower.pinned) this.#follower.stay();
    this.#follower.resume();
    for (const [element, deltas] of this.#grown) for (const delta of deltas) element.grow(delta);
    this.#grown.clear();
    this.#jump.toggleAttribute("data-new", !this.#jump.hidden);
    this.#turnUp();
    void this.#log.scrollHeight; // lays out now: the frame has enough to do
  }

  // In a task of its own, most likely before the next frame, which does it else.
  #layOutSoon() {
    globalThis.scheduler?.postTask(() => this.#log.scrollHeight, { priority: "user-blocking" });
  }

  finish(event) {
    this.#frame.now();
    this.#answer(event.message)?.finish(event);
    if (this.dataset.running === event.message) this.#setRunning(null);
    this.#layOutSoon();
  }

  fail(event) {
    this.#frame.now();
    this.#answer(event.message)?.fail(event);
    if (this.dataset.running === event.message) this.#setRunning(null);
  }

  // One that an edit on its way takes the place of goes on: it may be back.
  #answer(id) {
    return this.message(id) ?? [...this.#aside.children].find(({ dataset }) => dataset.id === id);
  }

  #sent(message) {
    return this.#in(...PENDING).find((element) => isOf(element, message));
  }

  #versions(parent) {
    const answers = this.#messages.filter((element) => element.dataset.role === "assistant" && element.dataset.parent === parent);
    return answers.flatMap((element) => element.siblings);
  }

  #cutAfter(parent) {
    const tail = this.#behind(parent);
    for (const element of tail ?? []) this.#remove(element);
    return Boolean(tail);
  }

  // All that is stored and follows a message; null if that is not here.
  #behind(parent) {
    const anchor = parent ? this.#anchor(parent) : null;
    if (parent && !anchor) return null;
    const here = this.#messages;
    const kept = anchor ? here.indexOf(anchor) + 1 : 0;
    return here.slice(kept).filter((element) => !PENDING.includes(element.dataset.state));
  }

  #setRunning(answer) {
    if (answer) this.dataset.running = answer;
    else delete this.dataset.running;
    this.#follower.gliding = Boolean(answer);
    if (!answer) this.#follower.resume();
  }

  // A new prompt goes near the top: the room below it belongs to the answer, so that nothing moves while it fills.
  #beginTurn(own) {
    this.#makeRoom(true);
    if (own || this.#follower.pinned) this.#follower.snap(true);
  }

  #turnUp() {
    const prompt = this.#coming;
    this.#coming = null;
    prompt?.toggleAttribute("data-coming", false);
    if (prompt?.isConnected) this.#beginTurn(true); // else it was taken back
  }

  // Nobody pressed Enter here just now: what is read stays where it is until the answer has words to follow.
  #beginLater() {
    this.#follower.rest();
    this.#follower.hold(() => this.#makeRoom(true));
  }

  #makeRoom(begin = false) {
    if (this.#coming?.isConnected) return; // the room that there is stays until they are shown
    const answer = this.#messages.findLast((element) => !WAITING.includes(element.dataset.state));
    if (begin || !this.#space.isBelow(answer)) this.#space.clear();
    if (!answer || answer !== this.#messages.findLast((element) => !element.hasAttribute("data-waits")) || answer.dataset.role !== "assistant") return;
    if (begin || this.#space.isBelow(answer)) this.#space.make(answer);
  }

  #scrolled({ pinned, distance }) {
    this.toggleAttribute("data-pinned", pinned);
    if (!pinned && distance > FAR) this.#jump.hidden = false;
    else if (pinned || distance < NEAR) this.#hideJump();
    const near = this.#log.scrollTop < EARLY * this.#log.clientHeight;
    if (near && !pinned && !this.hasAttribute("data-failed")) this.#askOlder();
  }

  #jumped() {
    this.#space.clear();
    this.#follower.snap();
    this.#log.focus({ preventScroll: true });
  }

  #hideJump() {
    if (this.#jump.hidden) return; // to set an attribute once more counts as a change of it
    if (document.activeElement === this.#jump) this.#log.focus({ preventScroll: true });
    this.#jump.hidden = true;
    this.#jump.toggleAttribute("data-new", false);
  }

  #askOlder() {
    if (!this.hasAttribute("data-more") || this.hasAttribute("data-loading") || !this.oldest) return;
    this.toggleAttribute("data-failed", false);
    this.toggleAttribute("data-loading", true);
    this.dispatchEvent(new CustomEvent("older", { bubbles: true, detail: this.oldest }));
  }
}

// Deltas of one frame are placed as one, each block as it was rendered last; but text that came behind blocks goes behind them.
function joined(deltas, delta) {
  const last = deltas.at(-1);
  if (!last || (last.blocks.length > 0 && delta.blocks.length === 0)) return [...deltas, delta];
  const blocks = [...new Map([...last.blocks, ...delta.blocks])];
  const text = last.text + delta.text;
  const reasoning = (last.reasoning ?? "") + (delta.reasoning ?? "");
  return [...deltas.slice(0, -1), { ...last, ...delta, text, blocks, reasoning }];
}

customElements.define("chat-transcript", ChatTranscript);
