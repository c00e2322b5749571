// Prompts on their way: kept in this browser, in the order typed, until the server has accepted them.
// Over reloads, and by whichever of the browser's tabs is there; the server knows a repeat by its id. It does not know
// how they are sent, nor what is shown.

const DATABASE = "llmchat";
const STORE = "outbox";
const CHANNEL = "llmchat.outbox";
const OTHERS_MILLISECONDS = 3000; // a prompt of another tab that is still here then is sent from here
const ASK_AGAIN_MILLISECONDS = 5000;

function requested(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

async function opened() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE, { keyPath: "order", autoIncrement: true });
  const database = await requested(request);
  database.onversionchange = () => database.close();
  return database;
}

// Where the browser keeps nothing for us, prompts live as long as the page.
class Memory {
  #prompts = [];
  #order = 0;

  async add(prompt) {
    this.#prompts.push({ ...prompt, order: ++this.#order });
  }

  async all() {
    return this.#prompts.map((prompt) => ({ ...prompt }));
  }

  async change(change) {
    this.#prompts = this.#prompts.map(change).filter(Boolean);
  }
}

class Kept {
  #database;

  constructor(database) {
    this.#database = database;
  }

  async add(prompt) {
    const transaction = this.#database.transaction(STORE, "readwrite", { durability: "strict" });
    const done = new Promise((resolve, reject) => {
      transaction.oncomplete = resolve;
      transaction.onabort = () => reject(transaction.error);
    });
    transaction.objectStore(STORE).add(prompt);
    await done;
  }

  all() {
    return requested(this.#database.transaction(STORE).objectStore(STORE).getAll());
  }

  /** `change` gives each prompt as it is to be, or null where it is to go. */
  async change(change) {
    const store = this.#database.transaction(STORE, "readwrite").objectStore(STORE);
    for (const prompt of await requested(store.getAll())) {
      const changed = change(prompt);
      if (!changed) store.delete(prompt.order);
      else if (changed !== prompt) store.put(changed);
    }
  }
}

/**
 * A prompt: {id, chat, conversation?, text, parent?, model?}. `chat` is what a new chat is known by in this browser
 * until the server has named its conversation. One that the server refused stays here, with `refused` saying why, until
 * a tab takes it out and gives the person its words back.
 * Events: `changed` (from any tab), `cancelled` (detail: the prompt), `delayed` (detail: {prompt, seconds}).
 */
export class Outbox extends EventTarget {
  #post; // sends one; resolves with what the server answers
  #kept;
  #channel = null;
  #flying = new Set(); // chats that a prompt is on its way to, from this tab
  #pumping = false;
  #again = false;

  constructor(post) {
    super();
    this.#post = post;
    this.#kept = opened().then(
      (database) => new Kept(database),
      () => new Memory(),
    );
    if (!globalThis.BroadcastChannel) return;
    this.#channel = new BroadcastChannel(CHANNEL);
    this.#channel.onmessage = () => {
      this.#tell("changed");
      setTimeout(() => this.pump(), OTHERS_MILLISECONDS);
    };
  }

  #announce() {
    this.#channel?.postMessage("changed");
    this.#tell("changed");
  }

  /** Resolves once the prompt is kept. */
  async add(prompt) {
    try {
      await (await this.#kept).add(prompt);
    } catch {
      await this.#forgo(prompt); // no space left, or the storage is gone
    }
    this.#channel?.postMessage("changed");
    this.pump();
  }

  async #forgo(prompt) {
    const memory = new Memory();
    const before = await (await this.#kept).all().catch(() => []);
    for (const { order, ...each } of before) await memory.add(each);
    await memory.add(prompt);
    this.#kept = Promise.resolve(memory);
  }

  async all() {
    try {
      return await (await this.#kept).all();
    } catch {
      return [];
    }
  }

  /** Send what is here: of each chat the prompt typed first. For when there is a connection. */
  async pump() {
    if (this.#pumping) return void (this.#again = true);
    this.#pumping = true;
    const seen = new Set();
    for (const prompt of await this.all()) {
      const chat = prompt.conversation ?? prompt.chat;
      if (prompt.refused) continue;
      if (!seen.has(chat) && !this.#flying.has(chat)) this.#fly(prompt, chat);
      seen.add(chat);
    }
    this.#pumping = false;
    if (!this.#again) return;
    this.#again = false;
    this.pump();
  }

  async #fly(prompt, chat) {
    this.#flying.add(chat);
    let pause = 0;
    try {
      const { conversation } = await this.#post(prompt);
      await this.#change((each) => this.#after(each, prompt, conversation));
      this.#announce();
    } catch (error) {
      if (error.code === "rate_limited") {
        pause = error.retryAfter * 1000 || ASK_AGAIN_MILLISECONDS;
        this.#tell("delayed", { prompt, seconds: Math.ceil(pause / 1000) });
      } else if (error.code === "cancelled") {
        await this.remove(prompt.id);
        this.#tell("cancelled", prompt);
      } else {
        await this.#change((each) => (each.id === prompt.id ? { ...each, refused: error.message } : each));
        this.#announce();
      }
    }
    if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
    this.#flying.delete(chat);
    this.pump();
  }

  #after(each, prompt, conversation) {
    if (each.id === prompt.id) return null;
    const same = !prompt.conversation && !each.conversation && each.chat === prompt.chat;
    return same ? { ...each, conversation } : each;
  }

  async #change(change) {
    await (await this.#kept).change(change).catch(() => {}); // then it is sent once more, which changes nothing
  }

  /** Take a prompt out; it may be on its way from another tab. Tells whether it was here: another tab may be quicker. */
  async remove(id) {
    let found = false;
    await this.#change((each) => {
      if (each.id !== id) return each;
      found = true;
      return null;
    });
    return found;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
