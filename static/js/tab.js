// Which tab of this browser this is, over reloads, and whether another one lives: each holds a lock of its own.
// Where there are no locks, as over plain http, no other tab is known to live.

import { newId } from "./wire.js";

const KEY = "llmchat.tab";

function nameOf(tab) {
  return `${KEY}.${tab}`;
}

function stored() {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function store(tab) {
  try {
    sessionStorage.setItem(KEY, tab);
  } catch {
    // then it is another one after a reload
  }
}

export class Tab {
  #id;
  #awaited = new Set(); // of tabs whose end is awaited

  constructor() {
    this.#hold(stored() ?? newId());
  }

  get id() {
    return this.#id;
  }

  // One that was copied finds its name taken, and takes another.
  #hold(id) {
    this.#id = id;
    store(id);
    const held = (lock) => (lock ? new Promise(() => {}) : this.#hold(newId()));
    navigator.locks?.request(nameOf(id), { ifAvailable: true }, held).catch(() => {});
  }

  /** Whether a tab is another one, and lives. */
  async isAnother(id) {
    if (!id || id === this.#id || !navigator.locks) return false;
    const { held } = await navigator.locks.query().catch(() => ({ held: [] }));
    return held.some(({ name }) => name === nameOf(id));
  }

  /** Act when another tab lives no more. */
  whenGone(id, act) {
    if (this.#awaited.has(id)) return;
    this.#awaited.add(id);
    const gone = () => {
      this.#awaited.delete(id);
      act();
    };
    navigator.locks.request(nameOf(id), { mode: "shared" }, () => {}).then(gone, () => {});
  }
}
