// The box to search the chats with, and what is found, which stands in place of the list. Events: `search` (detail: the
// words), `choose` (detail: {id, sought}: the message, whether it is in another version, and the words found), `aloud` (detail: a sentence to be spoken), `left`. It does not know the wire.

import { made } from "./made.js";

const PAUSE_MILLISECONDS = 200; // of typing, before it is searched
const MOST = 50; // chats that are found at once

class ChatSearch extends HTMLElement {
  #box;
  #told = made("p");
  #list = made("ul");
  #timer = 0;
  #failed = false;

  connectedCallback() {
    this.#box = this.querySelector("input");
    Object.assign(this.#box, { maxLength: 200, autocomplete: "off", dir: "auto" });
    this.append(this.#told, this.#list);
    this.addEventListener("submit", (event) => this.#sent(event));
    this.addEventListener("input", () => this.#typed());
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("click", (event) => this.#clicked(event));
    this.#typed();
  }

  /** What was found. */
  show({ results, searched: { conversations, of, complete } }) {
    this.#failed = false;
    this.#list.replaceChildren(...results.map(item));
    const [some, all] = [conversations, of].map((count) => count.toLocaleString());
    const further = results.length < MOST ? "" : ". Add a word to find fewer, and to search further back.";
    this.#count(complete ? "" : `. Searched the newest ${some} of ${all} chats${further}`);
  }

  fail(words) {
    this.#failed = true;
    this.#tell(words);
  }

  /** Search once more for what is in the box, where it failed. */
  again(anyway = false) {
    if (!this.#words || !(anyway || this.#failed)) return; // what is being typed is searched in a moment
    clearTimeout(this.#timer);
    this.#say("search", this.#words);
  }

  drop(id) {
    const row = [...this.#list.children].find(({ dataset }) => dataset.id === id);
    if (row?.contains(document.activeElement)) this.#box.focus();
    row?.remove();
    if (row) this.#count("");
  }

  get #words() {
    return this.#box.value.trim();
  }

  #count(limits) {
    const { length } = this.#list.children;
    const found = length ? `${length} ${length > 1 ? "chats" : "chat"} found` : "Nothing found";
    const several = !length && /\s/.test(this.#words);
    this.#tell(found + limits + (several ? ". All words have to be in one title or one message." : ""));
  }

  #sent(event) {
    event.preventDefault();
    this.again(true);
  }

  #typed() {
    clearTimeout(this.#timer);
    this.toggleAttribute("data-words", Boolean(this.#words));
    for (const part of [this.#told, this.#list]) this.#keep(part);
    if (!this.#words) return;
    this.#told.textContent ||= "Searching…";
    this.#timer = setTimeout(() => this.again(true), PAUSE_MILLISECONDS);
  }

  // What is told and found stays until something else is, or nothing is looked for.
  #keep(part) {
    part.hidden = !this.#words;
    if (part.hidden) part.replaceChildren();
  }

  #pressed(event) {
    const { key, target } = event;
    const stops = [this.#box, ...this.#list.querySelectorAll("a")];
    const next = stops[stops.indexOf(target) + { ArrowDown: 1, ArrowUp: -1 }[key]];
    if (event.isComposing || event.altKey || !(next || key === "Escape")) return;
    event.preventDefault();
    if (next) next.focus();
    else this.#leave(event);
  }

  // First what is in the box goes, then the focus from it.
  #leave(event) {
    if (!this.#box.value) return this.#say("left");
    event.stopPropagation(); // the drawer stays
    this.#box.value = "";
    this.#box.focus();
    this.#typed();
  }

  #clicked(event) {
    const link = event.target.closest("a");
    if (!link || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    const { message, other } = link.dataset;
    this.#say("choose", { id: link.closest("li").dataset.id, sought: message ? { message, other: other === "", match: matchOf(link) } : null });
  }

  #tell(words) {
    this.#told.textContent = words;
    this.#say("aloud", words);
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function item({ conversation: { id, title, updated }, title: marked, matches, more }) {
  const row = made("li", { "data-id": id });
  const time = made("time", { datetime: updated }, new Date(updated).toLocaleDateString(undefined, { dateStyle: "medium" }));
  row.append(link(`/c/${id}`, marked ?? { before: title, hit: "", after: "" }, time));
  for (const match of matches) row.append(matchLink(id, match));
  if (more) row.append(made("small", {}, `${more} more in this chat`));
  return row;
}

function matchLink(id, match) {
  const { message, role } = match;
  const found = link(`/c/${id}?at=${message}#by-${message}`, match);
  if (role === "user") found.prepend(made("b", {}, "You "));
  found.dataset.message = message;
  if (match.current === false) found.dataset.other = "";
  return found;
}

// The words that a link shows: those that were found, and what stands around them; null where only that is shown.
function matchOf(link) {
  const hit = link.querySelector("mark");
  return hit && { before: hit.previousSibling?.textContent ?? "", hit: hit.textContent, after: hit.nextSibling?.textContent ?? "" };
}

function link(href, { before, hit, after }, ...more) {
  const words = made("span", { dir: "auto" }, before, ...(hit ? [made("mark", {}, hit)] : []), after);
  return made("a", { href }, words, ...more);
}

customElements.define("chat-search", ChatSearch);
