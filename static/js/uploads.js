// Files on their way: kept in this browser until a message that has them was accepted, sent to the server as soon as it
// can be reached, over reloads and restarts; it knows a repeat by the key. It does not know messages, nor what is shown.

import { Database, requested } from "./database.js";

const DATABASE = "llmchat.files";
const STORE = "files";
const KEPT_MILLISECONDS = 30 * 86_400_000; // of what nobody sent
const AGAIN_MILLISECONDS = 1000;
const DOUBLINGS = 4; // of the time until it is sent again
const LATER = [0, 401, 404, 405, 408, 429, 502, 503, 504]; // statuses that pass: no connection, a restart, an instance of an earlier version, too many at once
const GONE = "This file is not in this browser any more. Attach it again.";
const WORDS = { 413: "This file is too large for this server.", 415: "This kind of file cannot be attached." };

// In IndexedDB, and where that fails for as long as the page lives.
class Blobs {
  #unkept = new Map();
  #database = new Database(DATABASE, STORE, { keyPath: "key" });

  get fleeting() {
    return this.#unkept.size > 0;
  }

  async put(key, blob) {
    try {
      await this.#database.write((store) => requested(store.put({ key, blob, at: Date.now() })));
    } catch {
      this.#unkept.set(key, blob);
    }
  }

  async get(key) {
    const found = await this.#database.read((store) => requested(store.get(key))).catch(() => null);
    return found?.blob ?? this.#unkept.get(key) ?? null;
  }

  async delete(key) {
    this.#unkept.delete(key);
    await this.#database.write((store) => requested(store.delete(key))).catch(() => {}); // it goes by its age
  }

  async forgetOld() {
    const all = await this.#database.read((store) => requested(store.getAll())).catch(() => []);
    for (const { key, at } of all) if (Date.now() - at > KEPT_MILLISECONDS) await this.delete(key);
  }
}

function detailOf(request) {
  try {
    return JSON.parse(request.responseText).detail;
  } catch {
    return WORDS[request.status] ?? "The server did not take this file.";
  }
}

export class NotTaken extends Error {
  code = "not_taken";
}

/** Event: `progress` (detail: {key, sent}, of 1). */
export class Uploads extends EventTarget {
  #blobs = new Blobs();
  #running = new Map(); // key -> {promise, request, again, cancel}

  constructor() {
    super();
    addEventListener("online", () => this.pump());
    addEventListener("beforeunload", (event) => this.#blobs.fleeting && event.preventDefault());
    this.#blobs.forgetOld();
  }

  /** Resolves once a file is kept. */
  keep({ key }, blob) {
    return this.#blobs.put(key, blob);
  }

  /** What is in a file, from here or from the server; null where neither tells. */
  async blob({ key, id }) {
    const kept = await this.#blobs.get(key);
    if (kept || !id) return kept;
    const response = await fetch(`/attachments/${id}`).catch(() => null);
    return response?.ok ? response.blob() : null;
  }

  /** Resolves with the server's id for a file that is kept here; rejects with words for the person, or none. */
  send({ key, name }) {
    if (!this.#running.has(key)) this.#running.set(key, this.#begin(key, name));
    return this.#running.get(key).promise;
  }

  /** Resolves with the ids of all, when the server has them. */
  ids(files) {
    return Promise.all(files.map((file) => file.id ?? this.send(file)));
  }

  /** What waits to be sent again does not wait longer. */
  pump() {
    for (const { again } of this.#running.values()) again?.();
  }

  /** The server has it no more. */
  renew(key) {
    this.#running.delete(key);
  }

  /** Nobody needs this file here any more, nor at the server, where its `id` is named and no message has it. */
  forget(key, id) {
    if (id) fetch(`/attachments/${id}`, { method: "DELETE" }).catch(() => {}); // else it goes in a day
    this.#running.get(key)?.cancel();
    this.#running.delete(key);
    this.#blobs.delete(key);
  }

  #begin(key, name) {
    const running = { again: null, request: null };
    running.cancelled = new Promise((_, reject) => (running.cancel = () => (running.request?.abort(), reject(new NotTaken("")))));
    running.cancelled.catch(() => {});
    running.promise = Promise.race([this.#sendUntilTaken(running, key, name), running.cancelled]);
    running.promise.catch(() => this.#running.get(key) === running && this.#running.delete(key));
    return running;
  }

  async #sendUntilTaken(running, key, name) {
    const blob = await this.#blobs.get(key);
    if (!blob) throw new NotTaken(GONE);
    for (let tries = 0; ; tries++) {
      const request = await this.#post(running, key, name, blob);
      if (request.status === 201) return JSON.parse(request.responseText).id;
      if (!LATER.includes(request.status)) throw new NotTaken(detailOf(request));
      this.#tell({ key, sent: 0 });
      const asked = Number(request.getResponseHeader("Retry-After")) * 1000;
      const pause = asked || AGAIN_MILLISECONDS * 2 ** Math.min(tries, DOUBLINGS) * (0.75 + Math.random() / 2);
      await Promise.race([
        running.cancelled,
        new Promise((resolve) => {
          running.again = resolve;
          setTimeout(resolve, pause);
        }),
      ]);
      running.again = null;
    }
  }

  #post(running, key, name, blob) {
    const request = (running.request = new XMLHttpRequest());
    return new Promise((resolve) => {
      request.open("POST", "/attachments");
      request.setRequestHeader("Idempotency-Key", key);
      const told = encodeURIComponent(name).replace(/['()*]/g, (each) => `%${each.charCodeAt(0).toString(16)}`); // RFC 8187
      request.setRequestHeader("Content-Disposition", `attachment; filename*=UTF-8''${told}`);
      request.upload.onprogress = ({ loaded, total }) => this.#tell({ key, sent: loaded / (total || 1) });
      request.onloadend = () => resolve(request);
      request.send(blob);
    });
  }

  #tell(detail) {
    this.dispatchEvent(new CustomEvent("progress", { detail }));
  }
}
