// A store of this browser that the browser may close at any time, open late or never. It does not know what is kept in it.

const OPEN_MILLISECONDS = 2000; // some browsers answer late, or never

/** Resolves with what a request brings. */
export function requested(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

function completed(transaction) {
  const done = new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
  done.catch(() => {}); // a request of it may have told already
  return done;
}

function inTime(opening) {
  const late = new Promise((_, reject) => setTimeout(() => reject(new Error("The database does not open")), OPEN_MILLISECONDS));
  return Promise.race([opening, late]);
}

/** `new Database(name, store, options, late)`; `options` are the store's, `late` is called when it opens after all. */
export class Database {
  #name;
  #store;
  #options;
  #late;
  #opening;

  constructor(name, store, options, late = () => {}) {
    [this.#name, this.#store, this.#options, this.#late] = [name, store, options, late];
    this.#open(this.#opened());
  }

  /** Resolves with what `act` makes of the store, once that can be read. */
  read(act) {
    return this.#use((database) => act(database.transaction(this.#store).objectStore(this.#store)));
  }

  /** Resolves with what `act` makes of the store, once that is kept. */
  write(act) {
    return this.#use(async (database) => {
      const transaction = database.transaction(this.#store, "readwrite", { durability: "strict" });
      const done = completed(transaction);
      const result = await act(transaction.objectStore(this.#store));
      await done;
      return result;
    });
  }

  // With another connection where the browser has ended it, once.
  async #use(act) {
    const opening = this.#opening;
    try {
      return await act(await opening);
    } catch {
      if (opening === this.#opening) this.#open(opening.then((dead) => (dead.close(), this.#opened())));
      return act(await this.#opening);
    }
  }

  #opened() {
    return new Promise((resolve, reject) => {
      const request = indexedDB.open(this.#name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(this.#store, this.#options);
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        request.result.onversionchange = () => request.result.close();
        resolve(request.result);
      };
    });
  }

  // Whoever uses it is told where it fails.
  #open(opening) {
    const database = (this.#opening = inTime(opening));
    database.catch(() => opening.then(() => this.#comeLate(opening))).catch(() => {});
  }

  #comeLate(opening) {
    this.#opening = opening;
    this.#late();
  }
}
