// Prompts on their way: kept in this browser, in the order typed, until the server has accepted them.
// Over reloads, and by whichever of the browser's tabs is there; the server knows a repeat by its id. It does not know
// how they are sent, nor what is shown.

import { Database, requested } from "./database.js";

const DATABASE = "llmchat";
const STORE = "outbox";
const CHANNEL = "llmchat.outbox";
const SPARE = "llmchat.outbox.";
const OTHERS_MILLISECONDS = 3000; // a prompt of another tab that is still here then is sent from here
const ASK_AGAIN_MILLISECONDS = { rate_limited: 5000, busy: 10_000, quota: 60_000 }; // what will be taken later, as it is

// In IndexedDB.
class Kept {
  #database;
  #last = []; // what there was: it stays true when there is no reading any more

  constructor(late) {
    this.#database = new Database(DATABASE, STORE, { keyPath: "order", autoIncrement: true }, late);
  }

  async add(prompt) {
    const order = await this.#database.write((store) => requested(store.add(prompt)));
    this.#last = [...this.#last, { ...prompt, order }];
  }

  async all() {
    try {
      this.#last = await this.#database.read((store) => requested(store.getAll()));
    } catch {
      // what cannot be read is not gone
    }
    return this.#last;
  }

  async change(change) {
    await this.#database.write(async (store) => {
      for (const prompt of await requested(store.getAll())) {
        const changed = change(prompt);
        if (!changed) store.delete(prompt.order);
        else if (changed !== prompt) store.put(changed);
      }
    });
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function isSound(prompt) {
  const files = prompt?.attachments ?? [];
  return typeof prompt?.id === "string" && typeof prompt.text === "string" && Array.isArray(files) && files.every((file) => file?.name);
}

// What IndexedDB does not take is kept in localStorage, under a key for each, and where that takes nothing either, as
// long as the page lives.
class Spare {
  #unkept = new Map();

  #read() {
    const found = new Map(this.#unkept);
    try {
      for (const key of Object.keys(localStorage)) if (key.startsWith(SPARE)) found.set(key, parsed(localStorage[key]));
    } catch {
      // forbidden
    }
    for (const [key, prompt] of found) if (!isSound(prompt)) found.delete(key); // another version's, or nobody's
    return [...found].sort(([one], [other]) => (one < other ? -1 : 1));
  }

  #write(key, prompt) {
    try {
      localStorage.setItem(key, JSON.stringify(prompt));
      this.#unkept.delete(key);
    } catch {
      this.#unkept.set(key, prompt);
    }
  }

  #delete(key) {
    this.#unkept.delete(key);
    try {
      localStorage.removeItem(key);
    } catch {
      // forbidden
    }
  }

  /** Something lives only as long as the page. */
  get fleeting() {
    return this.#unkept.size > 0;
  }

  get empty() {
    return this.#read().length === 0;
  }

  all() {
    return this.#read().map(([, prompt]) => prompt);
  }

  add(prompt) {
    this.#write(`${SPARE}${Date.now()}.${prompt.id}`, prompt);
  }

  change(change) {
    for (const [key, prompt] of this.#read()) {
      const changed = change(prompt);
      if (!changed) this.#delete(key);
      else if (changed !== prompt) this.#write(key, changed);
    }
  }
}

/**
 * A prompt: {id, tab, chat, conversation?, text, parent?, model?, attachments?, temporary?, system?, parameters?}. `tab` is where it was typed. Files without
 * an `id` have to be taken by the server first; while they are not, it waits. `chat` is what a new chat is known by in this browser
 * until the server has named its conversation. One that came too fast has `notBefore`, a time. One that the server
 * refused stays here until a tab takes it out and gives the person its words back, with `detail` and with `refused`: the
 * code, or "gone" where the conversation is.
 * Events: `changed` (from any tab), `accepted` (from another tab; detail: {accepted, prompt}: what the server answered to
 * which), `cancelled` (detail: the prompt).
 */
export class Outbox extends EventTarget {
  takesFiles = true; // an instance of an earlier version does not: it would answer the words alone
  #post; // sends one; resolves with what the server answers
  #uploads; // knows of files whether the server has them
  #preparing = new Set(); // ids of prompts whose files are on their way from this tab
  #kept = new Kept(() => this.#comeLate());
  #spare = new Spare();
  #assumed = new Map(); // id -> the prompt, or null: changes that could not be written
  #channel = null;
  #flying = new Map(); // chat -> id of the prompt that is on its way to it, from this tab
  #pumping = false;
  #again = false;
  #later = 0; // the timer for those that came too fast

  constructor(post, uploads) {
    super();
    this.#post = post;
    this.#uploads = uploads;
    addEventListener("beforeunload", (event) => this.#spare.fleeting && event.preventDefault());
    if (!globalThis.BroadcastChannel) return;
    this.#channel = new BroadcastChannel(CHANNEL);
    this.#channel.onmessage = ({ data }) => {
      if (data?.accepted) this.#tell("accepted", data);
      this.#tell("changed");
      setTimeout(() => this.pump(), OTHERS_MILLISECONDS);
    };
  }

  // What was kept before this page was opened is known now.
  #comeLate() {
    this.#tell("changed");
    this.pump();
  }

  #announce() {
    this.#channel?.postMessage("changed");
    this.#tell("changed");
  }

  /** Resolves once the prompt is kept. */
  async add(prompt) {
    try {
      if (!this.#spare.empty) throw new Error("The ones before it are there");
      await this.#kept.add(prompt);
    } catch {
      this.#spare.add(prompt);
    }
    this.#channel?.postMessage("changed");
    this.pump();
  }

  async all() {
    const prompts = [...(await this.#kept.all()), ...this.#spare.all()];
    return prompts.map((prompt) => this.#asAssumed(prompt)).filter(Boolean);
  }

  #asAssumed(prompt) {
    return this.#assumed.has(prompt.id) ? this.#assumed.get(prompt.id) : prompt;
  }

  /** Send what is here: of each chat the prompt typed first. For when there is a connection. */
  async pump() {
    if (this.#pumping) return void (this.#again = true);
    this.#pumping = true;
    const seen = new Set();
    let soonest = Infinity;
    for (const prompt of await this.all()) {
      const chat = prompt.conversation ?? prompt.chat;
      if (prompt.refused) continue;
      if (!seen.has(chat) && prompt.notBefore > Date.now()) soonest = Math.min(soonest, prompt.notBefore);
      else if (!seen.has(chat) && !this.#flying.has(chat)) {
        if (prompt.attachments?.some((file) => !file.id)) this.#prepare(prompt);
        else if (this.takesFiles || !prompt.attachments?.length) this.#fly(prompt, chat);
      }
      seen.add(chat);
    }
    this.#pumping = false;
    clearTimeout(this.#later);
    if (soonest < Infinity) this.#later = setTimeout(() => this.pump(), soonest - Date.now());
    if (!this.#again) return;
    this.#again = false;
    this.pump();
  }

  async #prepare({ id, attachments }) {
    if (this.#preparing.has(id)) return this.#uploads.pump();
    this.#preparing.add(id);
    try {
      const ids = await this.#uploads.ids(attachments);
      const taken = attachments.map((file, at) => ({ ...file, id: ids[at] }));
      await this.#change((each) => (each.id === id ? { ...each, attachments: taken } : each));
    } catch (error) {
      if (error.message) await this.#refuse({ id }, error); // else the person took them back
    }
    this.#preparing.delete(id);
    this.pump();
  }

  async #fly(prompt, chat) {
    this.#flying.set(chat, prompt.id);
    try {
      const accepted = await this.#post(prompt);
      this.#channel?.postMessage({ accepted, prompt });
      await this.#change((each) => this.#after(each, prompt, accepted.conversation));
      for (const { key } of prompt.attachments ?? []) if (key) this.#uploads.forget(key);
      this.#announce();
    } catch (error) {
      if (error.code === "cancelled") await this.#cancel(prompt);
      else await this.#refuse(prompt, error);
    }
    this.#flying.delete(chat);
    this.pump();
  }

  async #cancel(prompt) {
    if (await this.#take(({ id }) => id === prompt.id)) this.#tell("cancelled", prompt);
  }

  async #refuse(prompt, { code, message, retryAfter }) {
    if (code === "no_attachment" && !prompt.again && prompt.attachments.some(({ key }) => key)) return this.#sendFilesAgain(prompt);
    const notBefore = Date.now() + (retryAfter * 1000 || ASK_AGAIN_MILLISECONDS[code]);
    const gone = code === "not_found" && prompt.conversation && prompt.parent === undefined; // then also for those behind it
    const news = code in ASK_AGAIN_MILLISECONDS ? { notBefore, why: message.split(/(?<=[.]) /)[0] } : { refused: gone ? "gone" : code, detail: message };
    const meant = ({ id, conversation }) => id === prompt.id || (gone && conversation === prompt.conversation);
    await this.#change((each) => (meant(each) ? { ...each, ...news } : each));
    this.#announce();
  }

  // The server has lost what is here yet: once more.
  async #sendFilesAgain({ id, attachments }) {
    for (const file of attachments) if (file.key) this.#uploads.renew(file.key);
    const anew = attachments.map((file) => (file.key ? { ...file, id: undefined } : file));
    await this.#change((each) => (each.id === id ? { ...each, attachments: anew, again: true } : each));
  }

  #after(each, prompt, conversation) {
    if (each.id === prompt.id) return null;
    const same = !prompt.conversation && !each.conversation && each.chat === prompt.chat;
    return same ? { ...each, conversation } : each;
  }

  // What cannot be written is so for this page; another one sends a prompt once more, which changes nothing.
  async #change(change) {
    this.#spare.change(change);
    try {
      await this.#kept.change((each) => this.#asAssumed(each) && change(this.#asAssumed(each)));
      this.#assumed.clear();
    } catch {
      for (const prompt of await this.all()) {
        const changed = change(prompt);
        if (changed !== prompt) this.#assumed.set(prompt.id, changed);
      }
    }
  }

  /** Take a prompt out. Tells whether that succeeded: another tab may be quicker, or it is on its way from here by now. */
  remove(id) {
    return this.#take((each) => each.id === id && (each.refused || ![...this.#flying.values()].includes(id)));
  }

  async #take(meant) {
    let found = false;
    const without = (each) => {
      if (!meant(each)) return each;
      found = true;
      return null;
    };
    await this.#kept.change(without).catch(() => (found = this.#forgo(meant)));
    this.#spare.change(without);
    if (found) this.#channel?.postMessage("changed");
    return found;
  }

  // What was refused is not sent from here any more, though its record stays.
  #forgo(meant) {
    const refused = [...this.#assumed.values()].filter((each) => each?.refused && meant(each));
    for (const { id } of refused) this.#assumed.set(id, null);
    return refused.length > 0;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
