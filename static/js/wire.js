// The protocol: commands out, facts in, and the place of every open conversation.
// It drops what it has seen, asks again where something is missing, and repeats a prompt that nobody accepted.
// It does not know WebSocket (`socket.js`) nor anything that is drawn.

import { Answers } from "./answers.js";

/** An id for a command: 32 hex digits. `crypto.randomUUID` is missing over plain http. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The id of the command that opens a conversation, so that its error is known again. */
function openId(conversation) {
  return `open-${conversation}`.slice(0, 64);
}

function byteLength(command) {
  return new TextEncoder().encode(JSON.stringify(command)).length;
}

/** Others ask the same server again: not all in one moment. */
function againMilliseconds(tries) {
  return ASK_AGAIN_MILLISECONDS * 2 ** Math.min(tries, DOUBLINGS) * (0.75 + Math.random() / 2);
}

// What tells that a wish has come true.
const FULFILMENTS = {
  "message.select": (_, { type }) => type === "conversation.selected",
  "message.withdraw": ({ message }, event) => event.type === "message.withdrawn" && event.message === message,
  "completion.stop": ({ message }, event) =>
    ["completion.finished", "completion.failed"].includes(event.type) && event.message === message,
  "completion.regenerate": (_, { type }) => type === "completion.started",
  "completion.continue": ({ message }, event) => event.type === "completion.started" && event.message === message,
};

export class Refused extends Error {
  constructor({ code, detail, retry_after = 0 }) {
    super(detail);
    this.code = code;
    this.retryAfter = retry_after;
  }
}

const ASK_AGAIN_MILLISECONDS = 1500;
const DOUBLINGS = 3; // of the time until it is asked again
const ASK_MILLISECONDS = 15_000; // so long an answer to a question is waited for
const WISH_MILLISECONDS = 60_000; // so long a wish that nobody answered is repeated over reconnects
const FRAME_BYTES = 64 * 1024;
const TOO_LONG = { code: "too_long", detail: "This is too long to be sent. Make it shorter." };
const KEPT = { code: "unavailable", detail: "The store is away. Your message is kept here and sent when it is back." };
const LATE = { code: "lost", detail: "There was no connection for too long: what you asked for was not done." };
const LOST = { code: "lost", detail: "There is no connection right now." };
const UNANSWERED = { code: "unanswered", detail: "The server did not answer in time. Try again." };

/** Events are named like the facts of the protocol; their detail is the frame. Also `ready`, when connected anew. */
export class Wire extends EventTarget {
  #socket;
  #offered = null; // ids of the models on offer, by the greeting of each connection; until it comes nothing is repeated
  #answers = new Answers();
  #places = new Map(); // conversation id -> {at, asked, again, tries}: what is open here, whether and when a new start is asked for
  #asked = new Map(); // command id -> {resolve, reject}: waits for its direct answer
  #unsent = new Map(); // command id -> {command, attempts, again}: a prompt that nobody accepted yet, and when it is repeated
  #wishes = new Map(); // command id -> {command, until, repeated}: what nobody answered yet, by an event or an error
  #early = new Map(); // conversation id -> events that came before we knew that the conversation is ours

  constructor(socket) {
    super();
    this.#socket = socket;
    socket.addEventListener("frame", ({ detail }) => this.#receive(detail));
    socket.addEventListener("state", ({ detail }) => detail.state !== "connected" && this.#lost());
  }

  /** Follow a conversation: from the place `at` that is already shown, or from a snapshot. */
  open(conversation, at = null) {
    clearTimeout(this.#places.get(conversation)?.again);
    this.#places.set(conversation, { at, asked: true, tries: 0 });
    this.#askPlace(conversation);
  }

  close(conversation) {
    clearTimeout(this.#places.get(conversation)?.again);
    this.#answers.forget(conversation);
    if (this.#places.delete(conversation)) this.#socket.send({ type: "conversation.close", conversation });
  }

  /** Say that an answer is under way whose text so far came with the page. */
  hydrate(conversation, message, text) {
    this.#answers.start(conversation, message, text);
  }

  older(conversation, before, limit = 30) {
    return this.#ask({ type: "conversation.older", conversation, before, limit });
  }

  list(wanted, limit = 40) {
    return this.#ask({ type: "conversation.list", archived: false, limit, ...wanted });
  }

  /** One that is overtaken by the next is not answered. */
  search(query) {
    return this.#ask({ type: "conversation.search", query: query.toWellFormed?.() ?? query, limit: 50 });
  }

  /** Resolves with `message.accepted`, over as many reconnects as it takes. Leave out what does not apply. */
  sendMessage({ id, text, conversation, parent, model, attachments, temporary, system, parameters }) {
    const files = attachments?.length ? attachments.map((file) => file.id) : undefined;
    const command = { type: "message.send", id, text: text.toWellFormed?.() ?? text, conversation, parent, model, attachments: files, temporary, ...(!conversation && { system, parameters }) };
    if (byteLength(command) > FRAME_BYTES) return Promise.reject(new Refused(TOO_LONG));
    this.#unsent.set(id, { command, attempts: 0 });
    const accepted = this.#answerTo(id);
    this.#sendUnsent(id);
    return accepted;
  }

  /** Whether all of a conversation up to a place was told, or is in the snapshot that comes. */
  isPast(conversation, at) {
    const place = this.#places.get(conversation)?.at;
    return Boolean(place) && (place.epoch !== at.epoch || place.offset >= at.offset);
  }

  /** Whether a prompt may be on its way to the server from here. */
  isUnderWay(id) {
    return this.#unsent.has(id);
  }

  /** Take a prompt back that was never on the wire; false if it was, or is not here. */
  cancelMessage(id) {
    if (this.#unsent.get(id)?.attempts !== 0) return false;
    this.#unsent.delete(id);
    this.#settle({ type: "error", id, code: "cancelled", detail: "" });
    return true;
  }

  select(conversation, message) {
    return this.#wish({ type: "message.select", conversation, message });
  }

  /** Tells whether it could be asked for. */
  withdraw(conversation, message) {
    return this.#wish({ type: "message.withdraw", conversation, message });
  }

  /** Stop an answer. Also while there is no connection: as soon as there is one, however late that is. */
  stop(conversation, message) {
    return this.#wish({ type: "completion.stop", conversation, message }, { patient: true });
  }

  /** Whether an answer is to be stopped from here, and nothing tells yet that it has ended. */
  isStopping(conversation, message) {
    const commands = [...this.#wishes.values()].map(({ command }) => command);
    return commands.some((command) => command.type === "completion.stop" && command.conversation === conversation && command.message === message);
  }

  regenerate(conversation, message, model) {
    return this.#wish({ type: "completion.regenerate", conversation, message, model });
  }

  goOn(conversation, message) {
    return this.#wish({ type: "completion.continue", conversation, message });
  }

  update(conversation, changes) {
    return this.#ask({ type: "conversation.update", conversation, ...changes });
  }

  summary(conversation) {
    return this.#ask({ type: "conversation.summary", conversation });
  }

  /** `message` names the summary that was read: a newer one is not written over. */
  correct(conversation, message, text) {
    return this.#ask({ type: "summary.correct", conversation, message, text });
  }

  /** `act` is create, list or revoke. */
  share(act, fields) {
    return this.#ask({ type: `share.${act}`, ...fields });
  }

  remove(conversation) {
    return this.#ask({ type: "conversation.delete", conversation });
  }

  restore(conversation) {
    return this.#ask({ type: "conversation.restore", conversation });
  }

  /** Nobody waits for it, and where it is not done it is asked for with the next list. */
  read(conversation) {
    this.#ask({ type: "conversation.read", conversation }).catch(() => {});
  }

  // Commands

  #ask(command) {
    const id = command.id ?? newId();
    if (byteLength({ ...command, id }) > FRAME_BYTES) return Promise.reject(new Refused(TOO_LONG));
    if (!this.#socket.send({ ...command, id })) return Promise.reject(new Refused(LOST));
    const late = setTimeout(() => this.#settle({ type: "error", id, ...UNANSWERED }), ASK_MILLISECONDS);
    return this.#answerTo(id).finally(() => clearTimeout(late));
  }

  /**
   * For commands whose only direct answer may be an error: what they bring about comes as an event for all. Until then
   * they are repeated with each new connection, for the one before may have been dead; a repeat changes nothing.
   * A patient one waits as long as it takes.
   */
  #wish(command, { patient = false } = {}) {
    const wish = { ...command, id: newId() };
    const sent = this.#send(wish);
    const until = patient ? Infinity : Date.now() + WISH_MILLISECONDS;
    if (sent || patient) this.#wishes.set(wish.id, { command: wish, until, repeated: false });
    else this.#emit("refused", new Refused(LOST));
    return sent || patient;
  }

  #repeatWishes() {
    for (const [id, wish] of this.#wishes) {
      if (Date.now() > wish.until) this.#giveUp(id);
      else this.#send(wish.command);
      wish.repeated = true;
    }
  }

  #giveUp(id) {
    this.#wishes.delete(id);
    this.#emit("refused", new Refused(LATE));
  }

  #fulfil(event) {
    for (const [id, { command }] of this.#wishes) {
      if (command.conversation === event.conversation && FULFILMENTS[command.type](command, event)) this.#wishes.delete(id);
    }
  }

  // An answer may have ended while its conversation was not followed.
  #fulfilEnded({ conversation, messages }) {
    const ended = messages.filter(({ state }) => ["done", "failed"].includes(state));
    for (const { id } of ended) this.#fulfil({ type: "completion.finished", conversation, message: id });
  }

  #answerTo(id) {
    return new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
  }

  #settle(frame) {
    const asked = this.#asked.get(frame.id);
    if (!asked) return false;
    this.#asked.delete(frame.id);
    this.#unsent.delete(frame.id);
    if (frame.type === "error") asked.reject(new Refused({ ...frame, detail: frame.detail || frame.code }));
    else asked.resolve(frame);
    return true;
  }

  #sendUnsent(id) {
    const unsent = this.#unsent.get(id);
    clearTimeout(unsent.again);
    if (this.#offered && this.#send(unsent.command)) unsent.attempts += 1;
  }

  // A model that is not on offer any more is not asked for: the server takes the chat's.
  #send({ model, ...command }) {
    return this.#socket.send(this.#offered?.includes(model) ? { ...command, model } : command);
  }

  #askPlace(conversation) {
    const place = this.#places.get(conversation);
    place.asked = true;
    clearTimeout(place.again);
    this.#socket.send({ type: "conversation.open", id: openId(conversation), conversation, after: place.at ?? undefined });
  }

  #askPlaceLater(conversation) {
    const place = this.#places.get(conversation);
    clearTimeout(place.again);
    const ask = () => this.#places.get(conversation) === place && this.#askPlace(conversation);
    place.again = setTimeout(ask, againMilliseconds(place.tries++));
  }

  #resume({ models }) {
    this.#offered = models.map(({ id }) => id);
    for (const conversation of this.#places.keys()) this.#askPlace(conversation);
    for (const id of this.#unsent.keys()) this.#sendUnsent(id);
    this.#repeatWishes();
    this.#emit("ready", {});
  }

  // The store is back: what waits to be asked again does not wait longer.
  #askWaiting() {
    for (const [conversation, { tries }] of this.#places) if (tries > 0) this.#askPlace(conversation);
    for (const id of this.#unsent.keys()) this.#sendUnsent(id);
    this.#repeatWishes();
  }

  #lost() {
    this.#offered = null;
    this.#early.clear();
    for (const [id, { reject }] of this.#asked) {
      if (this.#unsent.has(id)) continue;
      this.#asked.delete(id);
      reject(new Refused(LOST));
    }
  }

  // Facts

  #receive(frame) {
    if (frame.type === "conversation.snapshot") this.#snapshot(frame);
    else if (frame.type === "conversation.current") this.#current(frame);
    else if (frame.type === "message.accepted") this.#accepted(frame);
    else if (frame.type === "error") this.#error(frame);
    else if (frame.at) this.#placed(frame);
    else this.#unplaced(frame);
  }

  #unplaced(frame) {
    if (frame.type === "conversation.deleted") this.#places.delete(frame.conversation);
    if (frame.type === "session.store" && frame.available) this.#askWaiting();
    this.#settle(frame);
    this.#emit(frame.type, frame);
    if (frame.type === "session.ready") this.#resume(frame);
  }

  #snapshot(frame) {
    this.#settle(frame);
    if (!this.#places.has(frame.conversation)) return;
    this.#places.set(frame.conversation, { at: frame.at, asked: false, tries: 0 });
    const running = frame.messages.find((message) => message.id === frame.running);
    this.#answers.forget(frame.conversation); // also one on another branch, of which the snapshot passed over some
    if (running) this.#answers.start(frame.conversation, running.id, running.text);
    this.#fulfilEnded(frame);
    this.#emit(frame.type, frame);
  }

  #current(frame) {
    this.#settle(frame);
    this.#wishes.delete(frame.id);
    const place = this.#places.get(frame.conversation);
    if (!place) return;
    place.asked = false;
    place.tries = 0;
    const caughtUp = place.at?.epoch === frame.at.epoch && place.at.offset >= frame.at.offset;
    if (!caughtUp) this.open(frame.conversation);
  }

  #accepted(frame) {
    if (!this.#asked.has(frame.id)) return; // the answer to a repeat
    const again = this.#unsent.get(frame.id)?.attempts > 1;
    const early = this.#early.get(frame.conversation) ?? [];
    this.#early.delete(frame.conversation);
    const known = this.#places.has(frame.conversation);
    if (!known) this.#places.set(frame.conversation, { at: { ...frame.at, offset: frame.at.offset - 1 }, asked: false, tries: 0 });
    this.#emit(frame.type, frame);
    this.#settle(frame);
    if (!known && again && this.#places.has(frame.conversation)) this.#askPlace(frame.conversation);
    for (const event of early) this.#placed(event);
  }

  #error(frame) {
    if (frame.code === "unavailable" && this.#unsent.has(frame.id)) return this.#sendAgain(frame);
    const wish = this.#wishes.get(frame.id);
    if (frame.code !== "unavailable" || wish?.until !== Infinity) this.#wishes.delete(frame.id);
    if (wish?.repeated && frame.code !== "unavailable") return; // carried out the first time
    const conversation = [...this.#places.keys()].find((id) => frame.id === openId(id));
    if (conversation) {
      if (frame.code === "not_found") this.#places.delete(conversation);
      else this.#askPlaceLater(conversation);
      this.#emit("unopened", { ...frame, conversation });
    } else if (!this.#settle(frame)) {
      this.#emit("refused", new Refused({ ...frame, detail: frame.detail || frame.code }));
    }
  }

  // What the store did with a prompt is not known: the same id again stores it once.
  #sendAgain({ id }) {
    const unsent = this.#unsent.get(id);
    if (unsent.attempts === 1) this.#emit("refused", new Refused(KEPT));
    clearTimeout(unsent.again);
    unsent.again = setTimeout(() => this.#unsent.has(id) && this.#sendUnsent(id), againMilliseconds(unsent.attempts - 1));
  }

  #placed(event) {
    const place = this.#places.get(event.conversation);
    if (!place) return this.#keepEarly(event);
    if (!place.at || place.at.epoch !== event.at.epoch) {
      if (!place.asked) this.open(event.conversation);
    } else if (event.at.offset > place.at.offset + 1) {
      if (!place.asked) this.#askPlace(event.conversation);
    } else if (event.at.offset === place.at.offset + 1) {
      place.at = event.at;
      this.#follow(event);
      this.#emit(event.type, event);
    }
  }

  // A new conversation's first events may overtake the `message.accepted` that names it.
  #keepEarly(event) {
    const starting = [...this.#unsent.values()].some(({ command }) => !command.conversation);
    if (!starting) return;
    this.#early.set(event.conversation, [...(this.#early.get(event.conversation) ?? []), event]);
  }

  #follow(event) {
    this.#fulfil(event);
    if (event.type === "completion.started") this.#answers.start(event.conversation, event.message, event.text);
    else if (event.type === "completion.delta") this.#answers.append(event.message, event.text);
    else if (event.type === "completion.finished") this.#verify(event);
    else if (event.type === "conversation.selected") this.open(event.conversation);
  }

  async #verify({ conversation, message, digest }) {
    const whole = await this.#answers.finish(message, digest);
    if (!whole && this.#places.has(conversation)) this.open(conversation);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
