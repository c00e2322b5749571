// One message in full, in a dialog: its source as it was written, or what is known of it beside its words.
// It does not know where messages are shown.

import { copyFrom } from "../clipboard.js";
import { ENDINGS, labelOf } from "../labels.js";

const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });
const NUMBER = new Intl.NumberFormat();

class MessageDetails extends HTMLElement {
  #text = "";

  connectedCallback() {
    this.querySelector(".copy").addEventListener("click", ({ currentTarget }) => copyFrom(currentTarget, this.#text, "Message copied"));
    this.querySelector(".close").addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("click", ({ target }) => target === this.#dialog && this.#dialog.close()); // beside it
    this.#dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation());
  }

  get #dialog() {
    return this.querySelector("dialog");
  }

  /** Show the source of a message. */
  showRaw({ text }) {
    this.#text = text;
    this.querySelector(".raw").textContent = text;
    this.#open("raw", "Raw text");
  }

  /** Show what is known of a message beside its words. */
  showAbout(facts) {
    const rows = rowsOf(facts).filter(([, value]) => value);
    this.querySelector(".about").replaceChildren(...rows.flatMap(([name, value]) => [cell("dt", name), cell("dd", value)]));
    this.#open("about", "Information");
  }

  #open(kind, title) {
    this.dataset.kind = kind;
    this.querySelector("h2").textContent = title;
    this.#dialog.showModal();
    this.querySelector(kind === "raw" ? ".raw" : ".close").focus();
    this.querySelector(".raw").scrollTop = 0;
  }
}

function rowsOf({ id, model, created, seconds, usage, finish, error }) {
  const [sent, received] = usage?.split(" ").map(Number) ?? [];
  return [
    ["Model", labelOf(model)],
    ["Time", created && timeOf(created)],
    ["Took", seconds && `${NUMBER.format(seconds)} s`],
    ["Tokens sent", sent && NUMBER.format(sent)],
    ["Tokens received", received && NUMBER.format(received)],
    ["Ended", error ? `Failed: ${error}` : finish && (ENDINGS[finish] ?? "Complete")],
    ["Message id", quotable(id)],
  ];
}

function timeOf(created) {
  const time = document.createElement("time");
  time.dateTime = created;
  time.textContent = TIME.format(new Date(created));
  return time;
}

function quotable(id) {
  const code = document.createElement("code");
  code.textContent = id;
  return code;
}

function cell(name, content) {
  const element = document.createElement(name);
  element.append(content);
  return element;
}

customElements.define("message-details", MessageDetails);
