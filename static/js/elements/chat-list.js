// The chats of the session, under headings by time. Events: `choose` (detail: id), `options` (detail: {id, button}),
// `rename` (detail: {id, title}), `nameless` (it was to have no title), `more` (detail: the oldest row's time), `emptied` (the row that had the focus was the last),
// `answered` (detail: {id, title}: no answer is being made there any more), `unread` (the current one has an answer that
// nobody has seen). It does not know the wire.

import { millisecondsToMidnight, periodOf } from "../periods.js";

const SEEN = /[^\p{C}\p{M}\p{Z}\u115f\u1160\u2800\u3164\uffa0\ufffc]/u; // has_word of the server's title.py

class ChatList extends HTMLElement {
  #list;
  #current = "";
  #typed = new Map(); // id -> the title that was typed for it, until it has it
  #reached = ""; // the time of the oldest row that a list brought: further ones are asked for before it
  #awaited = new Set(); // for each list that was asked for: the ids of chats of which was told since

  connectedCallback() {
    this.#list = this.querySelector("ul");
    this.#current = this.querySelector("[aria-current]")?.closest("li").dataset.id ?? "";
    this.#reached = this.#rows.filter((row) => !isPinned(row)).map((row) => row.dataset.updated).sort()[0]; // pinned ones are all here
    this.addEventListener("click", (event) => this.#clicked(event));
    this.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    this.#group();
    this.#regroupAtMidnight();
  }

  get #rows() {
    return [...this.#list.querySelectorAll(":scope > li[data-id]")];
  }

  row(id) {
    return this.#rows.find((element) => element.dataset.id === id);
  }

  /** It has the title that was typed. */
  renamed(id) {
    this.#typed.delete(id);
  }

  isUnread(id) {
    return Boolean(this.row(id)?.hasAttribute("data-unread"));
  }

  title(id) {
    const row = this.row(id);
    return row?.querySelector(".title")?.textContent ?? row?.querySelector("input").defaultValue; // while it is renamed
  }

  setCurrent(id) {
    this.#current = id ?? "";
    for (const row of this.#rows) this.#markCurrent(row);
    if (this.isUnread(id)) this.#say("unread");
  }

  /** Put a conversation of the list shape where it belongs. */
  update(conversation) {
    for (const told of this.#awaited) told.add(conversation.id);
    this.#put(conversation);
  }

  remove(id) {
    for (const told of this.#awaited) told.add(id);
    this.#take(id);
  }

  #put(conversation) {
    if (conversation.archived || conversation.temporary) return this.#take(conversation.id);
    const row = this.row(conversation.id) ?? this.#newRow();
    this.#fill(row, conversation);
    if (!row.isConnected) this.#list.append(row);
    this.#group();
  }

  /** Older rows, once they have come. */
  async extend(asked) {
    const reached = this.#reached;
    const [{ conversations, more }, told] = await this.#come(asked);
    this.toggleAttribute("data-loading", false);
    if (reached !== this.#reached) return; // rows between were let go: these are asked for once more, behind those
    for (const conversation of conversations) if (!told.has(conversation.id)) this.#put(conversation);
    this.#reached = conversations.at(-1)?.updated ?? reached;
    this.toggleAttribute("data-more", more);
  }

  /** The newest rows and the pinned ones, asked for after a time without connection: what happened meanwhile is in them. */
  async refresh(asked) {
    const [[newest, pinned], told] = await this.#come(asked);
    const all = [...newest.conversations, ...pinned.conversations].filter(({ id }) => !told.has(id));
    const ids = new Set([...told, ...all.map(({ id }) => id)]);
    const older = (row, { conversations, more }) => more && row.dataset.updated < conversations.at(-1).updated;
    const gone = this.#rows.filter((row) => !ids.has(row.dataset.id) && !older(row, isPinned(row) ? pinned : newest));
    const unpinned = gone.some(isPinned); // or deleted: its place may be among the older ones, which are asked for anew
    for (const row of gone) row.remove();
    for (const conversation of all) this.#put(conversation);
    const further = this.#rows.filter((row) => !isPinned(row) && older(row, newest));
    if (unpinned) for (const row of further) row.remove();
    if (unpinned || further.length === 0) {
      this.#reached = newest.conversations.at(-1)?.updated;
      this.toggleAttribute("data-more", newest.more);
    }
    this.#group();
  }

  // What was asked for, and of which chats was told on its way: that is newer.
  async #come(asked) {
    const told = new Set();
    this.#awaited.add(told);
    try {
      return [await asked, told];
    } finally {
      this.#awaited.delete(told);
    }
  }

  #take(id) {
    const rows = this.#rows;
    const index = rows.findIndex((row) => row.dataset.id === id);
    if (index < 0) return;
    const focused = rows[index].contains(document.activeElement);
    rows[index].remove();
    this.#group();
    const next = rows[index + 1] ?? rows[index - 1];
    if (focused && next) next.querySelector("a")?.focus();
    else if (focused) this.#say("emptied");
  }

  /** Let the title be typed over in place, from what was typed before where that was never taken. */
  startRename(id) {
    const row = this.row(id);
    if (!row) return; // deleted in another tab
    const link = row.querySelector("a");
    const input = document.createElement("input");
    input.defaultValue = this.title(id);
    input.maxLength = 200;
    input.setAttribute("aria-label", "Title");
    let ended = false; // taking the box away blurs it, which would end the renaming a second time
    const end = (save) => {
      if (ended) return;
      ended = true;
      this.#typed.delete(id);
      const title = input.value.trim();
      link.querySelector(".title").textContent = input.defaultValue; // it may have got another one meanwhile
      input.replaceWith(link);
      this.#markCurrent(row);
      this.#group();
      if (save && !SEEN.test(title)) this.#say("nameless");
      else if (save && title !== this.title(id)) {
        this.#typed.set(id, title);
        this.#say("rename", { id, title });
      }
    };
    input.addEventListener("blur", () => end(true));
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.stopPropagation();
      end(event.key === "Enter");
      link.focus();
    });
    link.replaceWith(input);
    input.value = this.#typed.get(id) ?? input.defaultValue;
    input.select();
  }

  #newRow() {
    return document.importNode(document.getElementById("conversation-row").content, true).firstElementChild;
  }

  #fill(row, { id, title, updated, pinned, running, unread }) {
    const answered = row.hasAttribute("data-running") && !running;
    row.dataset.id = id;
    row.dataset.updated = updated;
    row.toggleAttribute("data-pinned", pinned);
    row.toggleAttribute("data-running", running);
    row.toggleAttribute("data-unread", Boolean(unread)); // an older server has none
    const link = row.querySelector("a");
    if (link) {
      link.href = `/c/${id}`;
      link.querySelector(".title").textContent = title;
    } else {
      row.querySelector("input").defaultValue = title;
    }
    row.querySelector(".options").setAttribute("aria-label", `Options for ${title}`);
    this.#markCurrent(row);
    if (answered) this.#say("answered", { id, title });
    if (unread && id === this.#current) this.#say("unread");
  }

  // What the sign beside the title shows.
  #describe(row) {
    const current = row.dataset.id === this.#current;
    const marks = ["running", "unread"].filter((mark) => row.hasAttribute(`data-${mark}`) && !(current && mark === "unread"));
    const link = row.querySelector("a");
    if (marks.length > 0) link?.setAttribute("aria-describedby", marks.map((mark) => `mark-${mark}`).join(" "));
    else link?.removeAttribute("aria-describedby");
  }

  #markCurrent(row) {
    const link = row.querySelector("a");
    if (row.dataset.id === this.#current) link?.setAttribute("aria-current", "page");
    else link?.removeAttribute("aria-current");
    this.#describe(row);
  }

  // Newest first, pinned ones before all, a heading before the first row of each period.
  #group() {
    if (this.#list.querySelector("input")) return; // moving a title that is being typed would end the typing
    const focused = document.activeElement;
    const now = new Date();
    const rank = (row) => (isPinned(row) ? "1" : "0") + row.dataset.updated;
    const rows = this.#rows.sort((one, other) => (rank(one) < rank(other) ? 1 : -1));
    const items = [];
    let period = "";
    for (const row of rows) {
      const its = isPinned(row) ? "Pinned" : periodOf(row.dataset.updated, now);
      if (its !== period) items.push(heading(its));
      period = its;
      items.push(row);
    }
    if (!this.#inOrder(items)) this.#list.replaceChildren(...items);
    if (this.contains(focused) && focused !== document.activeElement) focused.focus({ preventScroll: true });
  }

  #inOrder(items) {
    const here = this.#list.children;
    return here.length === items.length && items.every((item, index) => here[index].isEqualNode(item));
  }

  #regroupAtMidnight() {
    setTimeout(() => {
      this.#group();
      this.#regroupAtMidnight();
    }, millisecondsToMidnight() + 1000);
  }

  #clicked(event) {
    const row = event.target.closest("li[data-id]");
    const button = event.target.closest(".options");
    if (!row) return;
    if (button) return this.#say("options", { id: row.dataset.id, button });
    if (!event.target.closest("a") || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    this.#say("choose", row.dataset.id);
  }

  #scrolled() {
    const left = this.scrollHeight - this.clientHeight - this.scrollTop;
    if (left > 200 || !this.hasAttribute("data-more") || this.hasAttribute("data-loading")) return;
    this.toggleAttribute("data-loading", true);
    this.#say("more", this.#reached);
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}

function isPinned(row) {
  return row.hasAttribute("data-pinned");
}

function heading(period) {
  const item = document.createElement("li");
  item.className = "period";
  item.textContent = period;
  return item;
}

customElements.define("chat-list", ChatList);
