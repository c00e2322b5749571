// The story of the page: what the person does becomes a command, what the wire tells is shown.
// The elements do not know the wire, nor the wire the elements: here they meet.

import { newId } from "./wire.js";

const TURNING_MILLISECONDS = 300;
const RESTORABLE_MILLISECONDS = 28_000; // the server keeps a deleted chat for 30 s
const PAGES_BACK = 40; // of older messages, at most, to a version that was turned to
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
  #view = {}; // another one each time that another chat is shown: two new chats have no ids to tell them apart
  #sending = null; // {id, text, conversation, view, stop}: the prompt that is on its way
  #fresh = true; // the next snapshot is of another conversation than what is shown
  #storeAway = false;
  #removed = []; // {id, shown, at}: the chats that Undo would bring back
  #removing = new Set(); // ids of chats that are being deleted from here

  constructor(wire, parts, { conversation, at, running }) {
    this.#wire = wire;
    this.#parts = parts;
    this.#id = conversation;
    this.#listenToPerson();
    this.#listenToWire();
    parts.composer.attach(conversation);
    if (conversation) this.#hydrate(at, running);
    if (!document.querySelector("main[data-missing]")) parts.composer.focus();
  }

  /** Show another conversation, or with null a new chat. */
  show(id, { push = true } = {}) {
    this.#parts.sidebar.closeDrawer();
    const path = id ? `/c/${id}` : "/";
    if (push && location.pathname !== path) history.pushState({}, "", path);
    if (id === this.#id && !this.#missing) return this.#parts.composer.focus();
    if (this.#id) this.#wire.close(this.#id);
    this.#enter(id);
    if (id) this.#turnTo(id);
    else this.#clear();
    this.#parts.composer.attach(id);
    this.#parts.composer.focus();
  }

  // What was shown stays, faded, for the moment that a snapshot takes; without one it would be a foreign chat.
  #turnTo(id) {
    const view = this.#view;
    this.#parts.transcript.toggleAttribute("data-turning", true);
    setTimeout(() => view === this.#view && this.#fresh && this.#blank(), TURNING_MILLISECONDS);
    this.#wire.open(id);
  }

  #blank() {
    const { transcript } = this.#parts;
    if (!transcript.hasAttribute("data-turning")) return;
    transcript.toggleAttribute("data-turning", false);
    this.#clear();
  }

  #clear() {
    this.#parts.transcript.clear();
    this.#showSending();
  }

  #enter(id) {
    const pending = !id && this.#sending && !this.#sending.conversation; // a new chat whose first prompt is on its way
    this.#id = id;
    this.#view = pending ? this.#sending.view : {};
    this.#fresh = true;
    this.#setPlace(id || pending ? "" : "empty");
    this.#setTitle(id ? (this.#parts.list.title(id) ?? "Chat") : "New chat");
    this.#parts.list.setCurrent(id);
    this.#parts.transcript.toggleAttribute("data-turning", false);
    this.#parts.transcript.leave();
    this.#parts.composer.setSending(this.#sendsHere);
    this.#showAnswering();
  }

  #hydrate(at, running) {
    const { transcript } = this.#parts;
    transcript.expect(running);
    if (running) {
      transcript.dataset.running = running;
      if (transcript.message(running)) this.#wire.hydrate(running, transcript.message(running).text);
      this.#showAnswering();
    }
    this.#fresh = false;
    if (!this.#missing) this.#wire.open(this.#id, at);
  }

  get #missing() {
    return document.querySelector("main").hasAttribute("data-missing");
  }

  #setPlace(place) {
    const main = document.querySelector("main");
    main.toggleAttribute("data-empty", place === "empty");
    main.toggleAttribute("data-missing", place === "missing");
  }

  #setTitle(title) {
    document.title = title;
    document.querySelector("h1").textContent = title;
  }

  // An answer is under way from the moment of sending until its last event.
  #showAnswering() {
    this.#parts.composer.setAnswering(this.#sendsHere || Boolean(this.#parts.transcript.dataset.running));
  }

  get #sendsHere() {
    if (!this.#sending) return false;
    return this.#sending.conversation ? this.#sending.conversation === this.#id : this.#sending.view === this.#view;
  }

  #showSending() {
    const { transcript, socket } = this.#parts;
    if (this.#sendsHere) transcript.send(this.#sending.id, this.#sending.text, socket.state === "connected");
  }

  // The person

  #listenToPerson() {
    const { composer, transcript, list, menu, pill, sidebar, model } = this.#parts;
    composer.addEventListener("send", ({ detail }) => this.#send(detail));
    composer.addEventListener("stop", () => this.#stop());
    composer.addEventListener("problem", ({ detail }) => this.#say(detail));
    transcript.addEventListener("regenerate", ({ detail }) => this.#regenerate(detail));
    transcript.addEventListener("retry", ({ detail }) => this.#regenerate(detail));
    transcript.addEventListener("version", ({ detail }) => this.#wire.select(this.#id, detail));
    list.addEventListener("emptied", () => composer.focus());
    transcript.addEventListener("older", ({ detail }) => this.#older(detail));
    list.addEventListener("choose", ({ detail }) => this.show(detail));
    list.addEventListener("more", ({ detail }) => this.#moreChats(detail));
    list.addEventListener("rename", ({ detail }) => this.#change(detail.id, { title: detail.title }));
    list.addEventListener("options", ({ detail }) => menu.open(detail.id, detail.button, this.#pinned(detail.id)));
    menu.addEventListener("action", ({ detail }) => this.#act(detail));
    pill.addEventListener("retry-now", () => this.#parts.socket.retryNow());
    pill.addEventListener("pill", ({ detail }) => this.#sayOfConnection(detail));
    model?.addEventListener("change", () => this.#id && this.#change(this.#id, { model: model.value }));
    document.addEventListener("copied", ({ detail }) => this.#say(detail));
    document.addEventListener("keydown", (event) => this.#shortcut(event, sidebar));
    addEventListener("popstate", () => this.show(location.pathname.match(/^\/c\/([\w-]+)$/)?.[1] ?? null, { push: false }));
    for (const button of document.querySelectorAll(".new-chat, .start-over")) button.addEventListener("click", () => this.show(null));
    for (const button of document.querySelectorAll("[data-prompt]")) button.addEventListener("click", () => this.#suggested(button.dataset.prompt));
  }

  #suggested(prompt) {
    this.#parts.composer.write(prompt);
    this.#parts.composer.focus(); // the suggestions go
    this.#send(prompt);
  }

  #shortcut(event, sidebar) {
    const key = event.key.toLowerCase();
    if (event.shiftKey && key === "escape") this.#parts.composer.focus();
    if (!event.shiftKey || !(event.ctrlKey || event.metaKey) || !["o", "s"].includes(key)) return;
    event.preventDefault();
    if (key === "o") this.show(null);
    else sidebar.toggle();
  }

  #send(text) {
    const { composer, model } = this.#parts;
    if (this.#sending) return composer.rejected(text, "The message before this one is still on its way.");
    this.#blank();
    this.#sending = { id: newId(), text, conversation: this.#id, view: this.#view, stop: false };
    this.#setPlace("");
    this.#showSending();
    composer.setSending(true);
    this.#showAnswering();
    this.#wire
      .sendMessage({ id: this.#sending.id, text, conversation: this.#id ?? undefined, model: model?.value || undefined })
      .catch((error) => this.#notSent(error));
  }

  #notSent(error) {
    const { composer, transcript } = this.#parts;
    const { id, text } = this.#sending;
    const here = this.#sendsHere;
    this.#sending = null;
    if (!here) return this.#tell(`Not sent: ${error.message}`);
    transcript.unsend(id);
    if (!this.#id && !transcript.last) this.#setPlace("empty");
    this.#showAnswering();
    composer.rejected(text, error.code === "cancelled" ? "" : error.message);
    if (error.code !== "cancelled") this.#alarm(error.message);
    composer.focus();
  }

  #accepted({ id, conversation, message, answer }) {
    const { composer, transcript } = this.#parts;
    if (this.#sending?.id !== id) return;
    const { text, conversation: from, stop } = this.#sending;
    const here = this.#sendsHere;
    this.#sending = null;
    if (here && !from) this.#begun(conversation, text);
    if (here) transcript.accept(id, message, answer);
    else if (this.#id !== conversation) this.#wire.close(conversation); // a new chat that was left meanwhile
    composer.accepted(text, here ? conversation : from);
    this.#showAnswering();
    if (stop) this.#wire.stop(conversation);
  }

  #begun(conversation, text) {
    this.#id = conversation;
    this.#fresh = false;
    history.replaceState({}, "", `/c/${conversation}`);
    this.#parts.composer.adopt(conversation);
    this.#parts.list.setCurrent(conversation);
    this.#setTitle(this.#parts.list.title(conversation) ?? text.slice(0, 60));
  }

  #stop() {
    if (this.#sendsHere) {
      if (this.#wire.cancelMessage(this.#sending.id)) return;
      this.#sending.stop = true;
    } else if (this.#id) this.#wire.stop(this.#id);
    this.#parts.composer.focus(); // the button that was pressed may go
  }

  #regenerate(message) {
    if (this.#parts.transcript.dataset.running) return;
    this.#wire.regenerate(this.#id, message, this.#parts.model?.value || undefined);
    this.#parts.composer.focus();
  }

  async #older(before) {
    const conversation = this.#id;
    try {
      const older = await this.#wire.older(conversation, before);
      if (conversation === this.#id) this.#parts.transcript.prepend(older);
    } catch {
      this.#parts.transcript.olderFailed();
    }
  }

  async #moreChats(before) {
    const none = { conversations: [], more: true };
    this.#parts.list.extend(await this.#wire.list(before).catch(() => none));
  }

  #pinned(id) {
    return this.#parts.list.row(id)?.hasAttribute("data-pinned");
  }

  #act({ id, action }) {
    if (action === "rename") this.#parts.list.startRename(id);
    else if (action === "pin") this.#change(id, { pinned: !this.#pinned(id) });
    else if (action === "delete") this.#delete(id);
  }

  #change(id, changes) {
    return this.#wire.update(id, changes).catch((error) => this.#tell(error.message));
  }

  async #delete(id) {
    const shown = id === this.#id;
    this.#removing.add(id);
    try {
      await this.#wire.remove(id);
      this.#offerUndo({ id, shown, at: Date.now() });
    } catch (error) {
      this.#tell(error.message);
    } finally {
      this.#removing.delete(id);
    }
  }

  #offerUndo(...removed) {
    const { offer } = this.#parts;
    const before = offer.offersUndo ? this.#removed : [];
    this.#removed = [...before, ...removed].filter(({ at }) => Date.now() - at < RESTORABLE_MILLISECONDS);
    const { length } = this.#removed;
    if (length === 0) return;
    const words = length === 1 ? "Chat deleted" : `${length} chats deleted`;
    offer.show(words, () => this.#undo(this.#removed));
    this.#say(words);
  }

  async #undo(removed) {
    this.#parts.composer.focus(); // the button goes
    const outcomes = await Promise.allSettled(removed.map(({ id }) => this.#wire.restore(id)));
    const back = removed.filter((_, index) => outcomes[index].status === "fulfilled");
    const again = removed.filter((_, index) => outcomes[index].reason && outcomes[index].reason.code !== "not_found");
    const shown = back.findLast((chat) => chat.shown);
    if (shown) this.show(shown.id);
    if (again.length > 0) this.#offerUndo(...again);
    if (back.length < removed.length) this.#tell("Not every chat could be brought back");
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
    here("completion.started", (event) => this.#started(event));
    here("completion.delta", (event) => transcript.grow(event) || this.#follow(false));
    here("completion.finished", (event) => this.#finished(event));
    here("completion.failed", (event) => this.#failed(event));
    here("unopened", (error) => this.#unopened(error));
    anywhere("message.accepted", (event) => this.#accepted(event));
    anywhere("conversation.updated", (event) => this.#updated(event.conversation));
    anywhere("conversation.deleted", (event) => this.#deleted(event.conversation));
    anywhere("session.ready", () => this.#greeted());
    anywhere("session.store", (event) => this.#showStore(event));
    anywhere("ready", () => this.#ready());
    anywhere("refused", (error) => this.#refused(error));
    this.#parts.socket.addEventListener("state", ({ detail }) => this.#connected(detail.state === "connected"));
  }

  #refused(error) {
    this.#parts.transcript.forgetTurn();
    this.#tell(error.detail ?? error.message);
  }

  #connected(connected) {
    this.#parts.transcript.setConnected(connected);
    this.#parts.composer.setConnected(connected);
  }

  #snapshot(event) {
    const { transcript } = this.#parts;
    const fresh = this.#fresh;
    this.#fresh = false;
    transcript.toggleAttribute("data-turning", false);
    transcript.show(event, fresh);
    if (fresh) this.#showSending();
    this.#turn();
    this.#setTitle(event.title);
    this.#showModel(event.model);
    this.#showAnswering();
  }

  async #turn() {
    const { transcript } = this.#parts;
    const view = this.#view;
    for (let page = 0; page < PAGES_BACK && view === this.#view && transcript.missing; page++) await this.#older(transcript.oldest);
    const words = view === this.#view && transcript.turn();
    if (words) this.#say(words);
  }

  #showModel(id) {
    const { model } = this.#parts;
    if (model && [...model.options].some(({ value }) => value === id)) model.value = id;
  }

  // What cannot be placed here belongs to a branch that is not shown: a snapshot shows it.
  #follow(placed) {
    if (!placed) this.#wire.open(this.#id);
    this.#showAnswering();
  }

  #started(event) {
    this.#follow(this.#parts.transcript.start(event));
    this.#say("Answer started");
  }

  #finished(event) {
    this.#parts.transcript.finish(event);
    this.#showAnswering();
    this.#say(ENDINGS[event.finish_reason] ?? ENDINGS.stop);
  }

  #failed(event) {
    this.#parts.transcript.fail(event);
    this.#showAnswering();
    this.#alarm(event.detail);
  }

  #unopened(error) {
    this.#blank();
    if (error.code === "not_found") {
      this.#setPlace("missing");
      this.#setTitle("Chat not found");
      this.#parts.transcript.clear();
    } else if (!this.#storeAway) this.#tell(error.detail);
  }

  // A new connection is told right after this where the store is away.
  #greeted() {
    this.#storeAway = false;
    this.#parts.pill.showStore({ available: true });
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
    this.#showModel(conversation.model);
  }

  #deleted(conversation) {
    this.#parts.list.remove(conversation);
    if (conversation !== this.#id) return;
    history.replaceState({}, "", "/");
    this.show(null, { push: false });
    if (!this.#removing.has(conversation)) this.#tell("This chat was deleted");
  }

  async #ready() {
    try {
      this.#parts.list.refresh(await this.#wire.list());
    } catch {
      // asked again with the next connection, and when the store is back
    }
  }

  // Words for the eye and for screen readers

  #say(words) {
    document.querySelector("[role=status]").textContent = words;
  }

  // All is well again: only what was said of the connection goes.
  #sayOfConnection({ words, before }) {
    if (words || document.querySelector("[role=status]").textContent === before) this.#say(words);
  }

  #alarm(words) {
    document.querySelector("[role=alert]").textContent = words;
  }

  #tell(words) {
    this.#parts.toast.show(words);
    this.#say(words);
  }
}
