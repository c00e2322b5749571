// What Undo would bring back: chats {id, shown, at} that were deleted, messages {message?, conversation, text, attachments}
// that were taken back. Kept in this tab, over reloads. Events: `offered` (detail: the words for it), `undo` (detail: all
// of it together). It does not know how anything comes back.

const KEY = "llmchat.removed";
const RESTORABLE_MILLISECONDS = 28_000; // the server keeps a deleted chat for 30 s

export class Removals extends EventTarget {
  #toast;
  #removed = [];

  constructor(toast) {
    super();
    this.#toast = toast;
    toast.addEventListener("hidden", () => this.#keep([]));
  }

  /** Whether a message is offered, by its id. */
  has(message) {
    return this.#removed.some((each) => each.message === message);
  }

  /** Offer these, with what is offered already. */
  offer(...more) {
    const removed = [...this.#removed, ...more].filter((each) => isMessage(each) || Date.now() - each.at < RESTORABLE_MILLISECONDS);
    this.#keep(removed);
    if (removed.length === 0) return this.#toast.hide();
    const words = deleted(removed);
    this.#toast.show(words, () => this.dispatchEvent(new CustomEvent("undo", { detail: removed })));
    this.dispatchEvent(new CustomEvent("offered", { detail: words }));
  }

  /** Offer what was offered before the page was loaded. */
  recall() {
    this.offer(...read());
  }

  /** Offer a message no longer: it is in its chat after all. */
  drop(message) {
    if (!this.has(message)) return;
    this.#removed = this.#removed.filter((each) => each.message !== message);
    this.offer();
  }

  #keep(removed) {
    this.#removed = removed;
    try {
      sessionStorage.setItem(KEY, JSON.stringify(removed));
    } catch {
      // then there is no way back after a reload
    }
  }
}

function read() {
  try {
    const removed = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
    return removed.filter(({ id, text }) => typeof (id ?? text) === "string");
  } catch {
    return [];
  }
}

export function isMessage(each) {
  return each.text !== undefined;
}

function deleted(removed) {
  const messages = removed.filter(isMessage).length;
  const chats = removed.length - messages;
  if (removed.length === 1) return chats ? "Chat deleted" : "Message deleted";
  const counts = [counted(chats, "chat"), counted(messages, "message")];
  return `${counts.filter(Boolean).join(" and ")} deleted`;
}

function counted(count, noun) {
  return count > 1 ? `${count} ${noun}s` : count && `1 ${noun}`;
}
