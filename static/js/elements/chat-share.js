// The links under which copies of a chat can be read: made, copied, revoked. Events: `create`, `revoke` (detail: its
// token), `closed`. It does not know where the links come from. It is loaded when it is asked for, and draws itself.

import { copyFrom } from "../clipboard.js";
import { dressed, made } from "./made.js";

const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const WHAT = "A link shows a copy of this chat as it is now to whoever has it, also without signing in. What is said later is not in it, and of files only the names. You can revoke a link at any time.";
const SHEET = new URL("../../css/elements/chat-share.css", import.meta.url).href;

function button(words, strong = "") {
  return made("button", { type: "button", class: `text-button ${strong}` }, words);
}

class ChatShare extends HTMLElement {
  #dialog = made("dialog", { "aria-labelledby": "share" });
  #title = made("p", { class: "of", dir: "auto" });
  #links = made("ul", { role: "list", "aria-label": "Links of this chat" });
  #alert = made("p", { role: "alert" });
  #status = made("p", { class: "unseen", role: "status" });
  #pressed = null; // whose wish is not answered yet
  #create = button("Create link", "strong");

  connectedCallback() {
    const heading = made("h2", { id: "share", tabindex: "-1", autofocus: "" }, "Share");
    const close = button("Close");
    const choices = made("p", { class: "choices" }, close, this.#create);
    this.#dialog.append(heading, this.#title, made("p", { class: "what" }, WHAT), this.#links, this.#alert, this.#status, choices);
    this.append(this.#dialog);
    close.addEventListener("click", () => this.#dialog.close());
    this.#create.addEventListener("click", () => this.#ask("create"));
    this.#dialog.addEventListener("close", () => this.dispatchEvent(new CustomEvent("closed")));
    this.#dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation()); // not for the answer behind it
    this.addEventListener("copied", ({ detail }) => (this.#status.textContent = detail));
  }

  /** Show the dialog for a chat, with the links that there are. */
  async open(title, shares) {
    await dressed(SHEET);
    this.#title.textContent = title;
    this.show(shares);
    this.#dialog.showModal();
  }

  /** Show these links, the newest first; `words` tell what was done. */
  show(shares, words = "") {
    this.#links.replaceChildren(...shares.map((share) => this.#row(share)));
    this.#links.hidden = shares.length === 0;
    this.#create.textContent = shares.length > 0 ? "Create another link" : "Create link";
    this.#create.disabled = false;
    this.#alert.textContent = "";
    this.#status.textContent = words;
    if (!this.#dialog.querySelector(":focus")) this.#create.focus(); // the button that was pressed went
  }

  /** Put the focus on the newest link. */
  select() {
    this.#links.querySelector("input")?.focus();
  }

  /** Say why it was not done. */
  refuse(words) {
    this.#alert.textContent = words;
    this.#pressed.disabled = false;
    this.#pressed.focus();
  }

  #row({ id, path, created, messages }) {
    const link = new URL(path, location.href).href;
    const date = DATE.format(new Date(created));
    const field = made("input", { type: "text", readonly: "", dir: "ltr", "aria-label": `Link of ${date}` });
    field.value = link;
    field.addEventListener("focus", () => field.select());
    const copy = button("Copy");
    copy.setAttribute("aria-label", `Copy the link of ${date}`);
    copy.addEventListener("click", () => copyFrom(copy, link, "Link copied"));
    const revoke = button("Revoke");
    revoke.setAttribute("aria-label", `Revoke the link of ${date}`);
    revoke.addEventListener("click", () => this.#ask("revoke", id, revoke));
    const count = messages === 1 ? "1 message" : `${messages} messages`;
    return made("li", {}, field, made("small", {}, `${date} · ${count}`), made("span", { class: "choices" }, copy, revoke));
  }

  #ask(name, detail, pressed = this.#create) {
    this.#pressed = pressed;
    pressed.disabled = true;
    this.#alert.textContent = "";
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

customElements.define("chat-share", ChatShare);
