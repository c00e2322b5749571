// What a chat remembers of its oldest messages, to be read and put right. Event: `save` (detail: {message, text}).
// It does not know where the summary comes from, nor what becomes of the words.

const LIMIT = 8000; // characters; the server takes no longer ones (CORRECTED_CHARACTERS)
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function covers({ messages, created, corrected }) {
  const count = messages === 1 ? "The first message is" : `The first ${messages} messages are`;
  return `${count} sent to the model in these words, since ${DATE.format(new Date(created))}${corrected ? ", corrected by you" : ""}.`;
}

function problem(text) {
  const over = [...text].length - LIMIT;
  return over > 0 ? `A summary has at most ${LIMIT} characters: this is ${over} too many.` : "";
}

class ChatMemory extends HTMLElement {
  #message = null; // the last one that the summary covers: its name
  #text = ""; // of the summary, as it was read
  #changed = new Map(); // name -> words that are not saved yet

  connectedCallback() {
    this.querySelector(".cancel").addEventListener("click", () => this.#leave());
    this.querySelector(".discard").addEventListener("click", () => this.#discard());
    this.querySelector("textarea").addEventListener("input", () => this.#typed());
    this.querySelector("form").addEventListener("submit", (event) => this.#save(event));
    this.querySelector("dialog").addEventListener("keydown", (event) => this.#pressed(event));
  }

  /** Show a summary as it was read; null where there is none. */
  open(summary) {
    this.#message = summary?.message ?? null;
    this.toggleAttribute("data-none", !summary);
    this.querySelector(".covers").textContent = summary
      ? covers(summary)
      : "Nothing is summarised yet: all that was said in this chat is still sent to the model whole.";
    this.#text = summary?.text ?? "";
    this.querySelector("textarea").value = this.#changed.get(this.#message) ?? this.#text;
    this.#typed();
    this.refuse("");
    this.querySelector("dialog").showModal();
    this.querySelector("textarea").setSelectionRange(0, 0);
    this.querySelector("textarea").scrollTop = 0; // it is read from its beginning
  }

  /** These words are kept: the dialog is done, unless it has other ones by now. */
  kept(message, text) {
    if (this.#changed.get(message) === text) this.#changed.delete(message);
    if (message !== this.#message) return;
    this.#text = text;
    this.refuse("");
    this.#typed();
    if (!this.hasAttribute("data-changed")) this.#leave();
  }

  #leave() {
    this.querySelector("dialog").close();
  }

  // What is written stays until it is saved or discarded, however the dialog is closed.
  #typed() {
    const text = this.querySelector("textarea").value;
    if (text === this.#text) this.#changed.delete(this.#message);
    else this.#changed.set(this.#message, text);
    this.toggleAttribute("data-changed", text !== this.#text);
    this.#complain("");
  }

  #discard() {
    this.querySelector("textarea").value = this.#text;
    this.#typed();
    this.querySelector("textarea").focus();
  }

  /** Say why the words were not kept; they stay where they are. */
  refuse(words) {
    this.#complain(words);
    this.querySelector("[type=submit]").disabled = false;
  }

  #complain(words) {
    this.querySelector("[role=alert]").textContent = words;
  }

  // Escape is for the dialog alone, not for the answer that runs behind it.
  #pressed(event) {
    if (event.key === "Escape") event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.querySelector("form").requestSubmit();
  }

  #save(event) {
    event.preventDefault();
    const text = this.querySelector("textarea").value;
    if (!this.#message || this.querySelector("[type=submit]").disabled) return;
    if (problem(text)) return this.#complain(problem(text));
    this.querySelector("[type=submit]").disabled = true;
    const detail = { message: this.#message, text };
    this.dispatchEvent(new CustomEvent("save", { bubbles: true, detail }));
  }
}

customElements.define("chat-memory", ChatMemory);
