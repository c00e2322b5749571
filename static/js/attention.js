// What is told to a person who looks elsewhere: how many chats have a new answer, in the tab's title and on the app's
// icon, and where it is wanted a notification for each. It knows no wire.

import { opening } from "./announcer.js";

const SEEN = "llmchat.seen"; // held by every tab that is looked at

export class Attention {
  #parts;
  #answered = new Set(); // ids of chats, since the tab was seen last
  #title = document.title;
  #shown = document.title;
  #unsee = () => {};

  constructor(parts) {
    this.#parts = parts;
    parts.list.addEventListener("answered", ({ detail }) => document.hidden && this.#note(detail));
    parts.notify.addEventListener("refused", ({ detail }) => parts.announcer.say(detail));
    document.addEventListener("visibilitychange", () => this.#looked());
    new MutationObserver(() => this.#titled()).observe(document.querySelector("title"), { childList: true });
    this.#looked();
  }

  #note({ id, title }) {
    this.#answered.add(id);
    this.#show();
    if (this.#parts.notify.on) this.#notify(id, title);
  }

  #looked() {
    this.#unsee();
    if (document.hidden) return;
    this.#answered.clear();
    this.#show();
    const held = new Promise((resolve) => (this.#unsee = resolve));
    navigator.locks?.request(SEEN, { mode: "shared" }, () => held).catch(() => {});
  }

  // The page gave it another title.
  #titled() {
    if (document.title === this.#shown) return;
    this.#title = document.title;
    this.#show();
  }

  #show() {
    const count = this.#answered.size;
    this.#shown = count ? `(${count}) ${this.#title}` : this.#title;
    if (document.title !== this.#shown) document.title = this.#shown;
    (count ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.())?.catch(() => {});
  }

  // Tabs that nobody looks at all tell, under one tag: the person sees one. Not where another tab is in sight.
  async #notify(id, title) {
    const { held = [] } = (await navigator.locks?.query().catch(() => null)) ?? {};
    if (held.some(({ name }) => name === SEEN)) return;
    const { transcript } = this.#parts;
    const words = document.querySelector(`chat-list [data-id="${id}"] [aria-current]`) && opening(transcript.last?.firstWords ?? "");
    try {
      const notification = new Notification(title, { body: words || "The answer is there", tag: id, icon: document.querySelector("[rel=apple-touch-icon]").href });
      notification.onclick = () => this.#open(id, notification);
    } catch {
      // Chrome on Android shows none without a service worker
    }
  }

  #open(id, notification) {
    focus();
    notification.close();
    this.#parts.list.row(id)?.querySelector("a")?.click();
  }
}
