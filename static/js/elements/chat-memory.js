// What a chat remembers of its oldest messages, to be read and put right. Event: `save` (detail: {message, text}).
// It does not know where the summary comes from, nor what becomes of the words.

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function covers({ messages, created, corrected }) {
  const count = messages === 1 ? "The first message is" : `The first ${messages} messages are`;
  return `${count} sent to the model in these words, since ${DATE.format(new Date(created))}${corrected ? ", corrected by you" : ""}.`;
}

class ChatMemory extends HTMLElement {
  #message = null; // the last one that the summary covers: its name

  connectedCallback() {
    this.querySelector(".cancel").addEventListener("click", () => this.close());
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
    this.querySelector("textarea").value = summary?.text ?? "";
    this.refuse("");
    this.querySelector("dialog").showModal();
    this.querySelector("textarea").setSelectionRange(0, 0);
    this.querySelector("textarea").scrollTop = 0; // it is read from its beginning
  }

  close() {
    this.querySelector("dialog").close();
  }

  /** Say why the words were not kept; they stay where they are. */
  refuse(words) {
    this.querySelector("[role=alert]").textContent = words;
    this.querySelector("[type=submit]").disabled = false;
  }

  // Escape is for the dialog alone, not for the answer that runs behind it.
  #pressed(event) {
    if (event.key === "Escape") event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.querySelector("form").requestSubmit();
  }

  #save(event) {
    event.preventDefault();
    if (!this.#message) return;
    this.querySelector("[type=submit]").disabled = true;
    const detail = { message: this.#message, text: this.querySelector("textarea").value };
    this.dispatchEvent(new CustomEvent("save", { bubbles: true, detail }));
  }
}

customElements.define("chat-memory", ChatMemory);
