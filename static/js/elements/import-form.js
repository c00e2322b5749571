// A file of chats on its way: how far it is, and what came of it. Without a script the form sends it, and a page tells.

import { made } from "./made.js";

const BROKEN = "The connection broke off. Import the same file again, and it goes on.";
const REFUSED = "The server did not take the file. Try again in a moment, or tell whoever runs this chat."; // something before it did
const COUNTS = new Intl.NumberFormat();

class ImportForm extends HTMLElement {
  connectedCallback() {
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      const [file] = this.querySelector("input").files;
      if (file) this.#send(file);
    });
  }

  get #form() {
    return this.querySelector("form");
  }

  get #bar() {
    return this.querySelector("progress");
  }

  get #report() {
    return this.querySelector(".report");
  }

  #send(file) {
    if (file.size > Number(this.dataset.most)) {
      this.#tell(`This file is too large: at most ${Math.floor(this.dataset.most / 1e6)} MB are imported.`);
      return;
    }
    const request = new XMLHttpRequest();
    request.open("POST", this.#form.action);
    request.setRequestHeader("Accept", "application/x-ndjson");
    request.upload.addEventListener("progress", ({ loaded, total }) => this.#show(loaded / total / 2, "Sending …"));
    request.addEventListener("progress", () => this.#hear(request));
    request.addEventListener("loadend", () => this.#end(request));
    this.#busy(true);
    this.#show(0, "Sending …");
    request.send(file);
  }

  // Lines come in pieces: the last may be a part of one.
  #lines(request) {
    return request.responseText.split("\n").slice(0, -1);
  }

  #hear(request) {
    const line = request.status === 200 && this.#lines(request).at(-1);
    if (!line) return;
    const { read, of, imported } = JSON.parse(line);
    this.#show(0.5 + read / (of || 1) / 2, `Imported so far: ${COUNTS.format(imported)}`);
  }

  #end(request) {
    this.#busy(false);
    if (request.status === 0) return this.#tell(BROKEN);
    if (request.status === 200) {
      const told = JSON.parse(this.#lines(request).at(-1) ?? "{}");
      if (told.done) this.#tellAll(told);
      else this.#tell(BROKEN);
      return;
    }
    try {
      this.#tell(JSON.parse(request.responseText).detail);
    } catch {
      this.#tell(REFUSED);
    }
  }

  #busy(busy) {
    this.querySelector("button").disabled = busy;
    this.#bar.hidden = this.querySelector(".far").hidden = !busy;
    if (busy) this.#report.replaceChildren();
  }

  #show(share, words) {
    this.#bar.value = share;
    this.querySelector(".far").textContent = words;
  }

  #tell(words) {
    this.#report.replaceChildren(made("p", {}, words));
  }

  #tellAll({ imported, already_here: here, left_out: out, lost, reasons, parts = [] }) {
    const [many, before, not] = [imported, here, out].map((count) => COUNTS.format(count));
    this.#tell(`Imported: ${many}. Here already: ${before}. Left out: ${not}.`);
    if (!lost.length) return;
    const chats = Object.entries(reasons).map(([why, count]) => `${COUNTS.format(count)} × ${why}`);
    this.#list("Chats that were left out", chats);
    this.#list("Missing in other chats", parts);
    const byChat = lost.map(({ title, why }) => made("li", { dir: "auto" }, ...(title ? [made("b", {}, title), `: ${why}`] : [why])));
    this.#report.append(made("details", {}, made("summary", {}, "By chat"), made("ul", {}, ...byChat)));
  }

  #list(heading, lines) {
    const items = lines.map((line) => made("li", {}, line));
    if (items.length) this.#report.append(made("h3", {}, heading), made("ul", {}, ...items));
  }
}

customElements.define("import-form", ImportForm);
