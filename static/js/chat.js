// The story of the page: what the person does becomes a command, what the wire tells is shown.
// The elements do not know the wire, nor the wire the elements: here they meet.

import { joined, opening, progress } from "./announcer.js";
import { before, readChatKey, readDraft, readFiles, readInstructions, writeChatKey, writeDraft, writeFiles, writeInstructions } from "./drafts.js";
import { setLabels, until } from "./labels.js";
import { notePath, readPlace, writePlace } from "./places.js";
import { isMessage } from "./removals.js";
import { newId } from "./wire.js";

const TURNING_MILLISECONDS = 300;
const SETTLED = 200; // prompts that are remembered as settled: a list is read in a moment
const PAGES_BACK = 40; // of older messages, at most, to a version that was turned to
const PAGES_SOUGHT = 200; // likewise, to a message that was found
const AWAY = "This chat will be shown when the connection is back";
const LATER = "Your message will be sent when the connection is back";
const GONE = "That chat was deleted. Your message for it is here.";
const CORRECTIONS = {
  conflict: "More of the chat was summarised meanwhile. Copy your words, close this and open it again.",
  too_long: "This is too long to be kept. Make it shorter.",
};
const ENDINGS = {
  stop: "Answer complete",
  stopped: "Answer stopped",
  interrupted: "The answer broke off before its end",
  length: "The answer was cut off at the length limit",
  content_filter: "The answer was cut off by the model’s content filter",
};

export class Chat {
  #wire;
  #parts;
  #id; // the conversation that is shown; null is a new chat
  #remembering = null; // the chat whose memory is shown
  #view = {}; // another one each time that another chat is shown: two new chats have no ids to tell them apart
  #pending = new Map(); // id -> {prompt, view, stop, stored, resumed, discard}: prompts on their way that are of here, in order
  #settled = new Set(); // ids of prompts that wait no more, whatever a list read a moment ago says
  #told = new Set(); // ids of those of which is told that they were refused
  #choice = null; // {id}: the chat whose model was chosen, until the server has answered
  #instructions = {}; // {system?, parameters?}: what the new chat's prompts take with them until it has an id
  #fresh = true; // the next snapshot is of another conversation than what is shown
  #storeAway = false;
  #returning = null; // where the person was in this chat, until they are there again
  #sought = null; // {message, other, match}: what a search found and is to be shown in this chat, until it is; in another version
  #searching = null; // the search that is under way, another one each time
  #withdrawn = new Map(); // message id -> {conversation, text, attachments, discard}: what is being taken back from here
  #removing = new Set(); // ids of chats that are being deleted from here
  #ended = ""; // what was said of the last answer's end
  #asked = null; // the view in which an answer is asked for anew, or for more of it, until it begins
  #leaving = null; // {parent, tip, view}: the prompt that is answered anew, and the end of what then is in the other version

  constructor(wire, parts, { conversation, at, running, sought }) {
    this.#sought = sought && { message: sought };
    this.#wire = wire;
    this.#parts = parts;
    this.#id = conversation;
    this.#listenToPerson();
    this.#listenToWire();
    parts.composer.attach(conversation);
    this.#view = { key: (!conversation && readChatKey()) || newId() };
    if (!conversation) writeChatKey(this.#view.key);
    this.#instruct(conversation ? {} : readInstructions());
    if (conversation) this.#hydrate(at, running);
    this.#sync();
    parts.removals.recall();
    if (!document.querySelector("main[data-missing]")) parts.composer.focus();
  }

  /** Show another conversation, or with null a new chat. */
  show(id, { push = true, sought = null } = {}) {
    this.#parts.sidebar.closeDrawer();
    const path = id ? `/c/${id}` : "/";
    if (push && location.pathname !== path) history.pushState({}, "", path);
    if (id === this.#id && !this.#missing) return this.#stay(sought);
    if (this.#id) this.#wire.close(this.#id);
    this.#notePlace();
    this.#enter(id);
    this.#sought = sought;
    if (id) this.#turnTo(id);
    else this.#clear();
    this.#sync();
    this.#parts.composer.attach(id);
    this.#parts.composer.focus();
  }

  #stay(sought) {
    this.#parts.composer.focus();
    this.#sought = sought;
    this.#goBack();
  }

  // The outbox is one for all tabs, and older than this page: what lies there for this chat is shown, what the server
  // refused is given back, and what another tab has sent waits here no more.
  async #sync() {
    const prompts = (await this.#parts.outbox.all()).filter(({ id }) => !this.#settled.has(id));
    for (const prompt of prompts) this.#takeUp(prompt);
    const kept = new Set(prompts.map(({ id }) => id));
    for (const [id, { stored }] of this.#pending) {
      if (stored && !kept.has(id) && (this.#wire.cancelMessage(id) || !this.#wire.isUnderWay(id))) this.#forget(id);
    }
    this.#showAnswering();
    const refused = prompts.filter((prompt) => prompt.refused);
    for (const prompt of refused.reverse()) await this.#giveBack(prompt); // each goes before what is in the box
  }

  #takeUp(prompt) {
    const known = this.#pending.get(prompt.id);
    if (known && !known.prompt.conversation) known.prompt.conversation = prompt.conversation;
    if (!prompt.refused && !known && this.#isHere(this.#found(prompt))) this.#resume(prompt);
    if (known && prompt.notBefore) this.#delay(known.prompt, prompt);
  }

  #delay(prompt, { notBefore, why = "" }) {
    Object.assign(prompt, { notBefore, why });
    if (!this.#parts.transcript.delay(prompt)) return;
    this.#say(`${why} Your message will be sent in ${until(notBefore)}.`);
  }

  #found(prompt) {
    return this.#pending.get(prompt.id) ?? { prompt, view: prompt.chat === this.#view.key ? this.#view : null };
  }

  #resume(prompt) {
    this.#pending.set(prompt.id, { prompt, view: this.#view, stop: false, stored: true, resumed: true });
    if (!this.#parts.transcript.says(prompt)) this.#showPending(prompt); // else it may be in the conversation already
  }

  #settle(id) {
    this.#settled.add(id);
    this.#pending.delete(id);
    this.#told.delete(id);
    if (this.#settled.size > SETTLED) this.#settled.delete(this.#settled.values().next().value);
  }

  #forget(id) {
    this.#settle(id);
    this.#unshow(id);
  }

  #unshow(id) {
    this.#pending.delete(id);
    this.#parts.transcript.unsend(id);
    if (!this.#id && !this.#parts.transcript.last) this.#setPlace("empty");
  }

  async #giveBack(prompt) {
    const { outbox, tab } = this.#parts;
    if (await tab.isAnother(prompt.tab)) return this.#leaveTo(prompt);
    const here = this.#isHere(this.#found(prompt));
    const gone = prompt.refused === "gone" || (here && this.#missing);
    const nowhere = !here && !prompt.conversation && !this.#pending.has(prompt.id); // in a new chat that nobody has open
    if (!here && !gone && !nowhere) return this.#tellOf(prompt);
    const removed = await outbox.remove(prompt.id);
    if (removed && here && !gone) return this.#notSent(prompt, prompt.detail);
    this.#forget(prompt.id);
    if (removed) this.#moveToNew(prompt, gone);
  }

  // The words are given back where they were typed; where that tab goes before, here.
  #leaveTo(prompt) {
    this.#unshow(prompt.id);
    this.#parts.tab.whenGone(prompt.tab, () => this.#sync());
  }

  // What was refused in a chat that is not shown is given back when it is.
  #tellOf({ id, conversation = null }) {
    if (this.#told.has(id)) return;
    this.#told.add(id);
    this.#tell("A message in another chat was not sent", () => this.show(conversation), "Show");
  }

  // The chat of these words is not there, or no more: they are in the box of a new one.
  #moveToNew(prompt, gone) {
    const { text, conversation, detail, attachments = [] } = prompt;
    if (this.#id === conversation) this.#abandon();
    if (prompt.system || prompt.parameters) this.#instruct(prompt);
    if (!this.#id) return this.#putBack(text, gone ? GONE : detail, attachments);
    writeDraft("", before(readDraft(""), text));
    writeFiles("", [...attachments, ...readFiles("")]);
    const words = gone ? "A chat was deleted. Your message for it is" : "A message was not sent. It is";
    this.#tell(`${words} in the box of a new chat.`, () => this.show(null), "Show");
  }

  // The chat that is shown is gone; what was being written in it comes along.
  #abandon() {
    const { composer, transcript } = this.#parts;
    const typed = composer.text.trim();
    const words = [typed, ...transcript.yieldEdits()].filter(Boolean).join("\n\n");
    composer.lift(typed);
    composer.taken(typed, this.#id);
    const files = this.#parts.tray.take();
    this.#parts.tray.taken(this.#id);
    history.replaceState({}, "", "/");
    this.show(null, { push: false });
    if (words || files.length > 0) this.#putBack(words, GONE, files);
  }

  #putBack(text, reason, files) {
    this.#parts.tray.put(files);
    this.#parts.composer.rejected(text, reason);
    if (reason) this.#alarm(reason);
    this.#parts.composer.focus();
  }

  #showPending(prompt, later) {
    const { transcript, socket } = this.#parts;
    this.#setPlace("");
    transcript.send(prompt, socket.state === "connected", later);
    this.#showAnswering();
  }

  // A chat that was here a moment ago is shown as it was left. Else what was shown stays, faded, for the moment that a
  // snapshot takes; without one it would be a foreign chat.
  #turnTo(id) {
    const { transcript, socket } = this.#parts;
    const view = this.#view;
    this.#wire.open(id);
    if (transcript.recall(id)) {
      this.#fresh = false;
      this.#showAllPending();
      return this.#goBack();
    }
    transcript.toggleAttribute("data-turning", true);
    if (socket.state !== "connected") return this.#blank();
    setTimeout(() => view === this.#view && this.#fresh && this.#blank(), TURNING_MILLISECONDS);
  }

  #blank() {
    const { transcript } = this.#parts;
    if (!transcript.hasAttribute("data-turning")) return;
    transcript.toggleAttribute("data-turning", false);
    this.#clear();
    this.#showAway();
  }

  // In place of a chat that cannot be read now.
  #showAway() {
    const { transcript, socket } = this.#parts;
    const away = Boolean(this.#id) && this.#fresh && (socket.state !== "connected" || this.#storeAway);
    if (away && !transcript.hasAttribute("data-away")) this.#say(AWAY);
    transcript.toggleAttribute("data-away", away);
  }

  #notePlace() {
    const { transcript } = this.#parts;
    if (this.#id && !this.#fresh) writePlace(this.#id, this.#returning ?? transcript.place);
  }

  // To where the person was when they left this chat, if they have not gone elsewhere in it meanwhile.
  async #goBack() {
    const { transcript } = this.#parts;
    const place = this.#returning;
    const view = this.#view;
    if (this.#sought) return void (this.#fresh || this.#seek(this.#sought));
    if (!place) return;
    await this.#readBack(() => transcript.lacks(place));
    if (view !== this.#view || this.#returning !== place || transcript.lacks(place)) return;
    this.#returning = null;
    if (transcript.atEnd) transcript.goTo(place);
  }

  // To a message that was found, perhaps far above, or in another version of what is shown.
  async #seek(sought) {
    const { socket, transcript } = this.#parts;
    const { message, other, match } = sought;
    const finder = match && import("./found.js").catch(() => null); // seldom wanted
    if (!other && transcript.lacks(sought)) this.#say("Going to the message…");
    if (!other) await this.#readBack(() => this.#sought === sought && transcript.lacks(sought), PAGES_SOUGHT);
    const { markFound } = (await finder) ?? {};
    if (this.#sought !== sought || (!transcript.message(message) && socket.state !== "connected")) return;
    this.#sought = this.#returning = null;
    if (transcript.point(message, markFound && ((element) => markFound(element, match)))) return;
    if (!other && transcript.lacks(sought)) return this.#tell("The message is too far above to go to it");
    const turn = () => this.#wire.select(this.#id, message) && (this.#sought = { message, match });
    this.#tell("This is in another version of the chat", turn, "Show it");
  }

  async #readBack(lacks, pages = PAGES_BACK) {
    const view = this.#view;
    const { transcript } = this.#parts;
    for (let page = 0; page < pages && view === this.#view && lacks(); page++) {
      if (!(await this.#older(transcript.oldest))) return;
    }
  }

  #clear() {
    this.#parts.transcript.clear();
    this.#showAllPending();
  }

  // What is in front of a person counts as read, in all tabs.
  #see() {
    if (!document.hidden && this.#parts.list.isUnread(this.#id)) this.#wire.read(this.#id);
  }

  #enter(id) {
    const pending = id ? null : [...this.#pending.values()].find(({ prompt }) => !prompt.conversation); // a new chat
    document.querySelector("dialog[open]")?.close(); // it tells of the chat that is left
    this.#id = id;
    this.#view = pending?.view ?? { key: newId() };
    this.#fresh = true;
    if (!id) writeChatKey(this.#view.key);
    this.#setPlace(id || pending ? "" : "empty");
    this.#setKind(pending?.prompt);
    if (id || pending) this.#instruct(pending?.prompt); // else what was given back is here
    this.#setTitle(id ? (this.#parts.list.title(id) ?? "Chat") : "New chat");
    this.#parts.list.setCurrent(id);
    this.#returning = id && readPlace(id);
    for (const state of ["data-turning", "data-away"]) this.#parts.transcript.toggleAttribute(state, false);
    this.#parts.transcript.leave();
    this.#parts.chips.show([]);
    this.#showAnswering();
  }

  #hydrate(at, running) {
    const { transcript } = this.#parts;
    if (!this.#missing) transcript.adopt(this.#id);
    transcript.expect(running);
    if (running) {
      transcript.dataset.running = running;
      if (transcript.message(running)) this.#wire.hydrate(this.#id, running, transcript.message(running).text);
      this.#showAnswering();
    }
    this.#fresh = Boolean(this.#sought) && !at; // what came with it is not the end of the chat, and goes
    if (this.#missing) return;
    this.#parts.list.setCurrent(this.#id); // it may have no row yet
    this.#returning = readPlace(this.#id);
    this.#goBack();
    this.#wire.open(this.#id, at);
  }

  get #missing() {
    return document.querySelector("main").hasAttribute("data-missing");
  }

  #setPlace(place) {
    const main = document.querySelector("main");
    main.toggleAttribute("data-empty", place === "empty");
    main.toggleAttribute("data-missing", place === "missing");
    const { settings } = this.#parts;
    settings.hidden = !this.#id || this.#missing;
    settings.href = `/c/${this.#id}/options`;
  }

  #setKind({ temporary = false, archived = false } = {}) {
    const main = document.querySelector("main");
    main.toggleAttribute("data-temporary", temporary);
    main.toggleAttribute("data-archived", archived);
    this.#parts.temporary.checked = temporary;
  }

  #instruct({ system, parameters } = {}) {
    const { instructions } = this.#parts;
    const some = Boolean(system || parameters);
    this.#instructions = some ? { system, parameters } : {};
    writeInstructions(this.#instructions);
    instructions.toggleAttribute("data-set", some);
    instructions.title = some ? "They go with your first message" : "";
  }

  #setTitle(title) {
    document.title = title;
    document.querySelector("h1").textContent = title;
  }

  // An answer is under way from the moment of sending until its last event.
  #showAnswering() {
    const { chips, composer, transcript } = this.#parts;
    composer.setAnswering(this.#pendingHere.length > 0 || Boolean(transcript.running), this.#stopping, transcript.waits);
    this.#followAnswer();
    chips.toggleAttribute("data-stopping", this.#stopping);
  }

  get #stopping() {
    const named = this.#wire.isStopping(this.#id, this.#parts.transcript.running);
    return named || this.#pendingHere.some(({ stop }) => stop);
  }

  get #pendingHere() {
    return [...this.#pending.values()].filter((pending) => this.#isHere(pending));
  }

  #isHere({ prompt, view }) {
    return prompt.conversation ? prompt.conversation === this.#id : view === this.#view;
  }

  #showAllPending() {
    const { transcript, socket } = this.#parts;
    for (const { prompt } of this.#pendingHere) {
      if (!transcript.message(prompt.id)) transcript.send(prompt, socket.state === "connected");
    }
  }

  // The person

  #listenToPerson() {
    const { composer, chips, transcript, list, menu, memory, removals, pill, search, shortcuts, sheet, help, model, messageMenu } = this.#parts;
    composer.addEventListener("send", ({ detail }) => this.#send(detail));
    composer.addEventListener("stop", () => this.#stop());
    composer.addEventListener("problem", ({ detail }) => this.#say(detail));
    composer.addEventListener("aloud", ({ detail }) => this.#say(detail));
    chips.addEventListener("send-now", ({ detail }) => this.#sendNow(detail));
    chips.addEventListener("withdraw", ({ detail }) => this.#withdraw(detail));
    chips.addEventListener("discard", ({ detail }) => this.#withdraw(detail, true));
    transcript.addEventListener("line", ({ detail }) => chips.show(detail));
    transcript.lineUp();
    transcript.addEventListener("regenerate", ({ detail }) => this.#regenerate(detail));
    transcript.addEventListener("retry", ({ detail }) => this.#regenerate(detail));
    transcript.addEventListener("continue", ({ detail }) => this.#goOn(detail));
    transcript.addEventListener("withdraw", ({ detail }) => this.#withdraw(detail));
    transcript.addEventListener("edit", ({ detail }) => this.#send(detail.text, detail.parent, detail.attachments));
    transcript.addEventListener("forgone", ({ detail }) => this.#forgone(detail));
    transcript.addEventListener("displaced", ({ detail }) => this.#displaced(detail));
    transcript.addEventListener("version", ({ detail }) => this.#wire.select(this.#id, detail));
    transcript.addEventListener("older", ({ detail }) => this.#older(detail));
    transcript.addEventListener("menu", ({ detail }) => messageMenu.open(detail.id, detail.button, this.#otherModels(detail)));
    messageMenu.addEventListener("action", ({ detail }) => this.#actOnMessage(detail));
    list.addEventListener("choose", ({ detail }) => this.show(detail));
    list.addEventListener("more", ({ detail }) => this.#moreChats(detail));
    list.addEventListener("rename", async ({ detail }) => (await this.#change(detail.id, { title: detail.title })) && list.renamed(detail.id));
    list.addEventListener("nameless", () => this.#tell("A chat needs a name: it keeps the one it has."));
    list.addEventListener("unread", () => this.#see());
    list.addEventListener("emptied", () => composer.focus());
    list.addEventListener("options", ({ detail }) => menu.open(detail.id, detail.button, this.#pinned(detail.id)));
    menu.addEventListener("action", ({ detail }) => this.#act(detail));
    search.addEventListener("search", ({ detail }) => this.#search(detail));
    search.addEventListener("aloud", ({ detail }) => this.#say(detail));
    search.addEventListener("choose", ({ detail }) => this.show(detail.id, { sought: detail.sought }));
    search.addEventListener("left", () => composer.focus());
    memory.addEventListener("save", ({ detail }) => this.#correct(detail));
    removals.addEventListener("undo", ({ detail }) => this.#undo(detail));
    removals.addEventListener("offered", ({ detail }) => this.#say(detail));
    for (const part of [chips, transcript, menu, messageMenu]) part.addEventListener("unfocused", () => composer.focus());
    pill.addEventListener("retry-now", () => this.#parts.socket.retryNow());
    pill.addEventListener("pill", ({ detail }) => this.#sayOfConnection(detail));
    model.addEventListener("change", () => this.#id && this.#chooseModel(model.value));
    document.addEventListener("copied", ({ detail }) => this.#say(detail));
    document.addEventListener("view", ({ detail }) => this.#parts.viewer.open(detail));
    shortcuts.addEventListener("shortcut", ({ detail }) => this.#byKey(detail));
    help.addEventListener("click", () => this.#help());
    sheet.addEventListener("switch", ({ detail }) => (shortcuts.on = detail));
    addEventListener("pagehide", () => (this.#notePlace(), notePath(this.#id ? `/c/${this.#id}` : "/")));
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#notePlace() : this.#see()));
    addEventListener("popstate", () => this.show(location.pathname.match(/^\/c\/([\w-]+)$/)?.[1] ?? null, { push: false }));
    for (const button of document.querySelectorAll(".new-chat, .start-over")) button.addEventListener("click", (event) => this.#startOver(event));
    for (const button of document.querySelectorAll("[data-suggested]")) button.addEventListener("click", () => this.#suggested(button.value));
    this.#parts.instructions.addEventListener("click", () => this.#openInstructions());
    document.querySelector(".archived").addEventListener("submit", (event) => this.#bringBack(event));
    for (const link of document.querySelectorAll("[data-fills]")) link.addEventListener("click", (event) => this.#fill(event, link.dataset.fills));
  }

  #startOver(event) {
    event.preventDefault(); // where no script runs, the button is a form's
    this.show(null);
  }

  #suggested(prompt) {
    this.#parts.composer.write(prompt);
    this.#parts.composer.focus(); // the suggestions go
    this.#send(prompt);
  }

  // A person's own starting prompt may have blanks: it is written on, not sent.
  async #fill(event, id) {
    event.preventDefault(); // where no script runs, the link brings a page that has it in its box
    try {
      const response = await fetch(`/prompts/${id}`);
      if (!response.ok) throw response;
      this.#parts.composer.write(await response.text());
      this.#parts.composer.focus();
    } catch (error) {
      this.#tell(error.status === 404 ? "This starting prompt is not here any more" : "The prompt cannot be read now. Try again.");
    }
  }

  async #openInstructions() {
    const view = this.#view;
    try {
      const { openInstructions } = await import("./elements/chat-instructions.js"); // seldom wanted
      if (view === this.#view) await openInstructions(this.#instructions, this.#parts.composer.limit, (chosen) => this.#instruct(chosen));
    } catch {
      this.#tell("Instructions can be written when the connection is back.");
    }
  }

  async #bringBack(event) {
    event.preventDefault();
    this.#parts.composer.focus(); // the button goes
    if (await this.#change(this.#id, { archived: false })) this.#say("The chat is back in the list");
  }

  // What the table of shortcuts names.
  #byKey(act) {
    const { chips, sidebar, transcript } = this.#parts;
    const acts = {
      new: () => this.show(null),
      write: () => this.#write(),
      search: () => this.#startSearch(),
      chats: () => sidebar.toggle(),
      previous: () => transcript.walk(-1),
      next: () => transcript.walk(1) || this.#write(),
      answer: () => transcript.copyLast() || this.#say("There is no answer here"),
      code: () => transcript.copyLast(".code code-header") || this.#say("There is no code here"),
      delete: () => this.#id && !this.#missing && this.#delete(this.#id),
      help: () => this.#help(),
      edit: () => (chips.last ? this.#withdraw(chips.last) : transcript.editLast()),
    };
    acts[act]();
  }

  async #help() {
    const { sheet, shortcuts } = this.#parts;
    try {
      await import("./elements/shortcut-sheet.js"); // comes once the page works
      sheet.toggle(shortcuts.on);
    } catch {
      this.#tell("The list of shortcuts can be shown when the connection is back.");
    }
  }

  // Whoever presses a key has one: the box takes the focus also where another touch would call up a keyboard.
  #write() {
    this.#parts.sidebar.closeDrawer();
    document.getElementById("message").focus({ preventScroll: true });
  }

  /** `parent` is named by an edit alone: the message, or null, that the other version has for its parent. */
  async #send(text, parent, kept) {
    const { composer, model, outbox, socket, tab, temporary, tray } = this.#parts;
    this.#sought = null;
    this.#blank();
    this.#say("");
    composer.focus(); // the button or the editor may go
    const conversation = this.#id ?? undefined;
    const attachments = parent === undefined ? tray.take() : kept;
    const prompt = { id: newId(), tab: tab.id, chat: this.#view.key, conversation, text, parent, model: model.value || undefined, attachments, temporary: (!conversation && temporary.checked) || undefined, ...(!conversation && this.#instructions) };
    if (prompt.temporary) this.#setKind(prompt);
    const pending = { prompt, view: this.#view, stop: false, stored: false };
    this.#pending.set(prompt.id, pending);
    this.#showPending(prompt, parent === undefined);
    if (parent === undefined) composer.lift(text);
    if (socket.state !== "connected") this.#say(LATER);
    await outbox.add({ ...prompt });
    pending.stored = true;
    if (parent !== undefined) return;
    composer.taken(text, conversation);
    tray.taken(conversation);
  }

  /** A prompt of the chat that is shown did not go: its words are in the box again. Without a reason it was taken back. */
  #notSent(prompt, reason) {
    const { transcript } = this.#parts;
    const discard = !reason && this.#pending.get(prompt.id)?.discard;
    this.#forget(prompt.id);
    if (prompt.parent !== undefined) this.#wire.open(this.#id); // what the edit had taken the place of
    this.#showAnswering();
    if (prompt.parent !== undefined && transcript.reopen(prompt)) return void (reason && this.#tell(reason));
    const { text, attachments } = prompt;
    if (discard) this.#parts.removals.offer({ conversation: this.#id, text, attachments });
    else this.#putBack(text, reason, attachments);
  }

  #forgone({ id, words }) {
    const { transcript } = this.#parts;
    const undo = () => (transcript.message(id) ? transcript.message(id).edit(words) : this.#putBack(words, ""));
    this.#tell("Edit discarded", undo, "Undo");
  }

  #displaced(words) {
    this.#putBack(words, "The message that you were editing has another version now. Your words are here.");
  }

  #accepted({ id, conversation, message, answer, at }) {
    const { transcript } = this.#parts;
    const pending = this.#pending.get(id);
    const here = pending && this.#isHere(pending);
    this.#settle(id);
    const begins = here && !pending.prompt.conversation;
    if (begins) this.#begun(conversation, pending);
    // It was stored long ago, and lies further up, on another branch, or was taken back since.
    const past = here && this.#wire.isPast(conversation, at) && !transcript.message(message);
    if (past) transcript.unsend(id);
    else if (here) transcript.accept(id, message, answer);
    if (begins && pending.resumed) this.#wire.open(conversation); // it may have gone on since
    if (here && transcript.message(message)?.dataset.state === "queued") this.#say("Your message waits for the answer that is being written");
    if (!here && this.#id !== conversation) this.#wire.close(conversation); // a chat that is not shown, or not any more
    if (pending?.stop) this.#undoSent(pending, { conversation, message, answer });
    this.#showAnswering();
  }

  // It was on its way when it was taken back: it goes where it waits, else its answer is stopped.
  #undoSent({ discard }, { conversation, message, answer }) {
    const waits = conversation === this.#id && this.#parts.transcript.message(message)?.dataset.state === "queued";
    if (waits) this.#withdraw(message, discard);
    else this.#wire.stop(conversation, answer);
  }

  // Another tab has sent it, while this one perhaps has no connection. It may begin the new chat that is shown here, and
  // have left the outbox before that was read.
  #acceptedElsewhere({ accepted, prompt }) {
    const known = this.#id;
    this.#wire.cancelMessage(accepted.id);
    if (prompt && !prompt.conversation && !this.#settled.has(prompt.id)) this.#takeUp(prompt); // a page of an earlier version tells of none
    this.#accepted(accepted);
    if (this.#id !== known) this.#wire.open(this.#id);
  }

  #begun(conversation, { prompt: { text, attachments }, view }) {
    for (const pending of this.#pending.values()) if (pending.view === view) pending.prompt.conversation = conversation;
    this.#id = conversation;
    this.#fresh = false;
    this.#parts.transcript.adopt(conversation);
    history.replaceState({}, "", `/c/${conversation}`);
    this.#setPlace("");
    this.#instruct();
    this.#parts.composer.adopt(conversation);
    this.#parts.list.setCurrent(conversation);
    this.#setTitle(this.#parts.list.title(conversation) ?? (text || attachments?.[0]?.name || "").slice(0, 60));
  }

  // What was not on the wire yet is taken back; else the answer that is made, or will be, is stopped.
  #stop() {
    const { transcript, composer } = this.#parts;
    const last = this.#pendingHere.at(-1);
    if (transcript.running && !transcript.awaitsAccept) this.#stopAnswer(transcript.running);
    else if (last) this.#takeBack(last);
    this.#showAnswering();
    composer.focus(); // the button that was pressed may go
  }

  // The answer before it is stopped: the first that waits is the next.
  #sendNow(message) {
    const { composer, transcript } = this.#parts;
    transcript.hurry(message);
    composer.focus(); // the button goes
    if (transcript.awaitsAccept) this.#stopWhenSent(this.#pendingHere[0]);
    else if (transcript.dataset.running) this.#stopAnswer(transcript.dataset.running);
    this.#showAnswering();
  }

  #stopAnswer(answer) {
    this.#wire.stop(this.#id, answer);
    if (this.#parts.socket.state === "connected") this.#say("Stopping…");
    else this.#tell("The answer will be stopped when the connection is back");
  }

  async #takeBack(pending) {
    const { prompt } = pending;
    if (this.#wire.cancelMessage(prompt.id)) return;
    if (this.#wire.isUnderWay(prompt.id) || this.#mayFlyElsewhere(pending)) return this.#stopWhenSent(pending);
    if (await this.#parts.outbox.remove(prompt.id)) this.#notSent(prompt, "");
    else if (this.#wire.isUnderWay(prompt.id)) this.#stopWhenSent(pending);
    else this.#tell("This message was sent already.");
  }

  // The tab that it was typed in may have it on the wire; from here it is sent soon, too.
  #mayFlyElsewhere(pending) {
    const { prompt, resumed } = pending;
    const first = this.#pendingHere[0] === pending;
    return resumed && first && !(prompt.notBefore > Date.now()) && this.#parts.socket.state === "connected";
  }

  #stopWhenSent(pending) {
    pending.stop = true;
    this.#showAnswering();
    if (this.#parts.socket.state !== "connected") this.#tell("This message may have been sent already. Its answer will be stopped.");
  }

  #regenerate(message, model = this.#parts.model.value) {
    const { transcript } = this.#parts;
    if (!this.#mayAsk()) return;
    this.#wire.regenerate(this.#id, message, model || undefined);
    const answer = transcript.message(message);
    const later = answer !== transcript.last;
    this.#leaving = later ? { parent: answer?.dataset.parent, tip: transcript.last.dataset.id, view: this.#view } : null;
  }

  // One answer at a time, and each once.
  #mayAsk() {
    const { composer, transcript } = this.#parts;
    composer.focus(); // the button goes
    if (transcript.running) this.#tell("An answer is still being written here. Wait for it or stop it.");
    if (transcript.running || this.#asked === this.#view) return false;
    this.#asked = this.#view;
    return true;
  }

  // With another version of an answer what came after it is out of sight: there is a way back to it.
  #tellOfVersion({ parent }) {
    const left = this.#leaving;
    if (left?.parent !== parent || left.view !== this.#view) return;
    this.#leaving = null;
    this.#tell("The later messages are in the other version", () => this.#wire.select(this.#id, left.tip), "Show them");
  }

  #otherModels({ id, models }) {
    const { transcript, model } = this.#parts;
    return models ? model.models.filter((each) => each.id !== transcript.message(id).dataset.model) : [];
  }

  #actOnMessage({ id, action, model }) {
    const { transcript, details } = this.#parts;
    const message = transcript.message(id);
    if (action === "regenerate") this.#regenerate(id, model);
    else if (action === "raw" && message) details.showRaw(message);
    else if (message) details.showAbout(message.dataset);
  }

  #goOn(message) {
    if (this.#mayAsk()) this.#wire.goOn(this.#id, message);
  }

  /** `discard`: its words are not wanted, unless that is undone. */
  #withdraw(message, discard = false) {
    const { composer, removals, transcript } = this.#parts;
    const pending = this.#pending.get(message);
    if (!discard) composer.focus();
    if (pending) {
      pending.discard = discard;
      return this.#takeBack(pending);
    }
    const waiting = transcript.message(message); // in a moment, where the page came without it
    if (!waiting || removals.has(message)) return;
    const { text, attachments } = waiting;
    const words = { message, conversation: this.#id, text, attachments, discard };
    if (!this.#wire.withdraw(this.#id, message)) return;
    this.#withdrawn.set(message, words);
    if (discard) removals.offer(words);
    else this.#putBack(text, "", attachments);
  }

  // Its words were given back when it was asked for: whoever leaves or closes the page meanwhile has them, too.
  #takenBack({ message }) {
    const words = this.#withdrawn.get(message);
    this.#withdrawn.delete(message);
    this.#parts.transcript.withdraw(message);
    this.#showAnswering();
    if (!words?.discard) this.#say("Message taken back");
  }

  // Its turn came first: its words are in the conversation, and are not to be sent once more.
  #notTakenBack(message) {
    const words = this.#withdrawn.get(message);
    if (!this.#withdrawn.delete(message)) return;
    if (!words.discard) {
      this.#parts.composer.taken(words.text, words.conversation);
      this.#parts.tray.drop(words.attachments);
    } else this.#parts.removals.drop(message);
  }

  // Where the event was missed, the snapshot in its place tells what became of it.
  #takenBackMeanwhile({ conversation, messages }) {
    for (const [message, words] of this.#withdrawn) {
      if (words.conversation !== conversation) continue;
      const found = messages.find(({ id }) => id === message);
      if (!found) this.#takenBack({ message });
      else if (found.state !== "queued") this.#notTakenBack(message);
    }
  }

  async #older(before) {
    const view = this.#view;
    try {
      const older = await this.#wire.older(this.#id, before);
      return view === this.#view && this.#parts.transcript.prepend(older);
    } catch {
      if (view === this.#view) this.#parts.transcript.olderFailed();
      return false;
    }
  }

  async #moreChats(before) {
    const none = { conversations: [], more: true };
    await this.#parts.list.extend(this.#wire.list({ before }).catch(() => none));
  }

  #pinned(id) {
    return this.#parts.list.row(id)?.hasAttribute("data-pinned");
  }

  #startSearch() {
    this.#parts.sidebar.reveal();
    const box = this.#parts.search.querySelector("input");
    box.focus();
    box.select();
  }

  async #search(query) {
    const { search } = this.#parts;
    const turn = (this.#searching = {});
    const outcome = await this.#wire.search(query).catch((error) => ({ error }));
    if (turn !== this.#searching) return; // overtaken
    if (outcome.error) search.fail(outcome.error.message);
    else search.show(outcome);
  }

  #act({ id, action }) {
    if (action === "rename") this.#parts.list.startRename(id);
    else if (action === "pin") this.#change(id, { pinned: !this.#pinned(id) });
    else if (action === "archive") this.#archive(id);
    else if (action === "options") location.assign(`/c/${id}/options`);
    else if (action === "memory") this.#remember(id);
    else if (action === "share") this.#share(id);
    else if (action === "delete") this.#delete(id);
  }

  async #chooseModel(model) {
    const choice = (this.#choice = { id: this.#id });
    await this.#change(this.#id, { model });
    if (this.#choice === choice) this.#choice = null;
  }

  async #archive(id) {
    if (await this.#change(id, { archived: true })) this.#tell("Archived: it is under Settings", () => this.#change(id, { archived: false }));
  }

  async #remember(id) {
    const view = this.#view;
    try {
      const { summary } = await this.#wire.summary(id);
      if (view !== this.#view) return; // the person is elsewhere by now
      this.#remembering = id;
      this.#parts.memory.open(summary);
    } catch (error) {
      this.#tell(error.message);
    }
  }

  async #share(id) {
    const view = this.#view;
    try {
      const { openShare } = await import("./sharing.js"); // seldom wanted
      if (view === this.#view) await openShare(this.#wire, id, this.#parts.list.title(id) ?? "");
    } catch (error) {
      this.#tell(error.code === "lost" || !error.code ? "A chat can be shared when the connection is back." : error.message);
    }
  }

  async #correct({ message, text }) {
    const { memory } = this.#parts;
    try {
      await this.#wire.correct(this.#remembering, message, text.toWellFormed?.() ?? text);
      memory.kept(message, text);
      this.#say("Memory saved");
    } catch (error) {
      memory.refuse(CORRECTIONS[error.code] ?? error.message);
    }
  }

  #change(id, changes) {
    return this.#wire.update(id, changes).catch((error) => this.#tell(error.message));
  }

  async #delete(id) {
    const shown = id === this.#id;
    this.#removing.add(id);
    try {
      await this.#wire.remove(id);
      this.#parts.removals.offer({ id, shown, at: Date.now() });
    } catch (error) {
      this.#tell(error.message);
    } finally {
      this.#removing.delete(id);
    }
  }

  // All that went while it was offered comes back together.
  async #undo(removed) {
    this.#parts.composer.focus(); // the button goes
    const chats = removed.filter((each) => !isMessage(each));
    if (chats.length > 0) await this.#restore(chats);
    for (const words of removed.filter(isMessage).reverse()) {
      if (words.conversation !== this.#id) this.show(words.conversation);
      this.#putBack(words.text, "", words.attachments); // before what is in the box
    }
  }

  async #restore(chats) {
    const outcomes = await Promise.allSettled(chats.map(({ id }) => this.#wire.restore(id)));
    const back = chats.filter((_, index) => outcomes[index].status === "fulfilled");
    const again = chats.filter((_, index) => outcomes[index].reason && outcomes[index].reason.code !== "not_found");
    const shown = back.findLast((chat) => chat.shown);
    if (shown) this.show(shown.id);
    if (again.length > 0) this.#parts.removals.offer(...again);
    if (back.length < chats.length) this.#tell("Not every chat could be brought back");
    else this.#say(back.length === 1 ? "The chat is back" : "The chats are back");
  }

  // The wire

  #listenToWire() {
    const here = (type, act) =>
      this.#wire.addEventListener(type, ({ detail }) => detail.conversation === this.#id && this.#id && act(detail));
    const anywhere = (type, act) => this.#wire.addEventListener(type, ({ detail }) => act(detail));
    const { transcript } = this.#parts;
    here("conversation.snapshot", (event) => this.#snapshot(event));
    here("message.added", (event) => this.#follow(transcript.add(event.message, event.answer)));
    here("message.withdrawn", (event) => this.#takenBack(event));
    here("completion.started", (event) => this.#started(event));
    here("completion.delta", (event) => transcript.grow(event) || this.#follow(false));
    here("completion.finished", (event) => this.#finished(event));
    here("completion.failed", (event) => this.#failed(event));
    here("unopened", (error) => this.#unopened(error));
    anywhere("message.accepted", (event) => this.#accepted(event));
    anywhere("conversation.updated", (event) => this.#updated(event.conversation));
    anywhere("conversation.deleted", (event) => this.#deleted(event.conversation));
    anywhere("session.ready", (event) => this.#greeted(event));
    anywhere("session.store", (event) => this.#showStore(event));
    anywhere("ready", () => this.#ready());
    this.#parts.outbox.addEventListener("changed", () => this.#sync());
    this.#parts.outbox.addEventListener("accepted", ({ detail }) => this.#acceptedElsewhere(detail));
    this.#parts.outbox.addEventListener("cancelled", ({ detail }) => this.#pending.has(detail.id) && this.#notSent(detail, ""));
    anywhere("refused", (error) => this.#refused(error));
    this.#parts.socket.addEventListener("state", ({ detail }) => this.#connected(detail.state === "connected"));
  }

  #refused(error) {
    this.#sought = null;
    this.#asked = null;
    this.#parts.transcript.forgetTurn();
    this.#showAnswering();
    this.#tell(error.detail ?? error.message);
  }

  #connected(connected) {
    this.#parts.transcript.setConnected(connected);
    this.#followAnswer();
    this.#showAway();
  }

  #snapshot(event) {
    const { transcript } = this.#parts;
    const fresh = this.#fresh;
    this.#asked = null;
    this.#fresh = false;
    for (const state of ["data-turning", "data-away"]) transcript.toggleAttribute(state, false);
    transcript.show(event, fresh);
    this.#showAllPending();
    this.#takenBackMeanwhile(event);
    this.#turn();
    this.#goBack();
    this.#setTitle(event.title);
    this.#setKind(event);
    this.#showModel(event.model);
    this.#showAnswering();
  }

  async #turn() {
    const { transcript } = this.#parts;
    const view = this.#view;
    await this.#readBack(() => transcript.missing);
    const words = view === this.#view && transcript.turn();
    if (words) this.#say(words);
  }

  // What cannot be placed here belongs to a branch that is not shown: a snapshot shows it.
  #follow(placed) {
    if (!placed) this.#wire.open(this.#id);
    this.#showAnswering();
  }

  #started(event) {
    const { announcer, transcript } = this.#parts;
    const waited = transcript.message(event.parent)?.dataset.state === "queued";
    this.#asked = null;
    this.#notTakenBack(event.parent);
    this.#follow(transcript.start(event));
    const words = event.attempt > 1 && !event.text ? "The answer begins again" : "Answer started";
    this.#say(waited && announcer.said === this.#ended ? joined(this.#ended, words) : words); // else nobody hears of the end
    this.#tellOfVersion(event);
  }

  #finished(event) {
    const { transcript } = this.#parts;
    transcript.finish(event);
    this.#showAnswering();
    const first = event.finish_reason === "stop" ? opening(transcript.message(event.message)?.firstWords ?? "") : "";
    this.#ended = [ENDINGS[event.finish_reason] ?? ENDINGS.stop, first].filter(Boolean).join(". ");
    this.#say(this.#ended);
  }

  #failed(event) {
    this.#asked = null;
    this.#parts.transcript.fail(event);
    this.#showAnswering();
    this.#say("");
    this.#alarm(event.detail);
  }

  #unopened(error) {
    this.#blank();
    if (error.code === "not_found") this.#lose();
    else if (!this.#storeAway) this.#tell(error.detail);
  }

  #lose() {
    if (this.#parts.composer.text.trim() || this.#parts.tray.filled || this.#parts.transcript.editing) return this.#abandon();
    this.#setPlace("missing");
    this.#setTitle("Chat not found");
    this.#parts.transcript.clear();
    this.#parts.transcript.forget(this.#id);
    this.#sync();
  }

  // A new connection is told right after this where the store is away.
  #greeted({ models, limits }) {
    const { model, outbox, pill, transcript } = this.#parts;
    outbox.takesFiles = limits.attachment > 0;
    this.#storeAway = false;
    pill.showStore({ available: true });
    setLabels(models);
    model.offer(models);
    transcript.toggleAttribute("data-several", models.length > 1);
    transcript.label();
  }

  #showStore(event) {
    this.#storeAway = !event.available;
    this.#parts.pill.showStore(event);
    if (event.available) this.#ready();
  }

  #updated(conversation) {
    this.#parts.list.update(conversation);
    if (conversation.id !== this.#id) return;
    this.#setTitle(conversation.title);
    document.querySelector("main").toggleAttribute("data-archived", Boolean(conversation.archived));
    this.#showModel(conversation.model);
  }

  // What was told before a choice came to the server does not undo it.
  #showModel(model) {
    if (this.#choice?.id !== this.#id) this.#parts.model.choose(model);
  }

  #deleted(conversation) {
    const own = this.#removing.has(conversation);
    this.#parts.list.remove(conversation);
    this.#parts.search.drop?.(conversation);
    if (!own && conversation !== this.#id) this.#rescue(conversation);
    this.#parts.transcript.forget(conversation);
    if (conversation !== this.#id) return;
    if (!own) {
      this.#tell("This chat was deleted");
      return this.#abandon();
    }
    history.replaceState({}, "", "/");
    this.show(null, { push: false });
  }

  // What was being written in a chat that is not shown.
  #rescue(conversation) {
    const text = [readDraft(conversation), ...this.#parts.transcript.yieldKept(conversation)].filter(Boolean).join("\n\n");
    const attachments = readFiles(conversation);
    writeDraft(conversation, "");
    writeFiles(conversation, []);
    if (text || attachments.length > 0) this.#moveToNew({ text, conversation, attachments }, true);
  }

  async #ready() {
    this.#parts.uploads.pump();
    this.#parts.outbox.pump();
    this.#goBack();
    this.#parts.search.again?.();
    try {
      await this.#parts.list.refresh(Promise.all([this.#wire.list(), this.#wire.list({ pinned: true }, 50)]));
    } catch {
      // asked again with the next connection, and when the store is back
    }
  }

  // Words for the eye and for screen readers

  #say(words) {
    this.#parts.announcer.say(words);
  }

  // How far the answer is, while there is one and a connection over which it grows.
  #followAnswer() {
    const { announcer, socket, transcript } = this.#parts;
    const grows = transcript.running && socket.state === "connected";
    announcer.follow(grows ? () => progress(transcript.message(transcript.running)?.text ?? "") : null);
  }

  // All is well again: only what was said of the connection goes. What was promised for then is said with its words, for
  // whoever writes in the second before a loss is shown would not hear it.
  #sayOfConnection({ words, before }) {
    const { said } = this.#parts.announcer;
    const promised = said.endsWith(LATER);
    if (words && promised && this.#pending.size > 0) this.#say(joined(words, LATER));
    else if (words || promised || said === before) this.#say(words);
  }

  #alarm(words) {
    this.#parts.announcer.alarm(words);
  }

  #tell(words, act, name) {
    this.#parts.toast.show(words, act, name);
    this.#say(words);
  }
}
