// The files that go with the next message: picked, pasted, dropped; each with how far it is. They are part of the draft.
// Events: `attached` when there are others, `unfit` (detail: why one is not taken; "": that is over), `aloud` (detail: words for the status),
// `astext` (detail: a pasted text that is wanted in the box). It does not know what becomes of them.

import { readFiles, writeFiles } from "../drafts.js";
import { sizeOf } from "../labels.js";
import { newId } from "../wire.js";

const MOST = 6; // of one message
const LONG_PASTE = 8000; // characters
const DRAG_MILLISECONDS = 600; // while files are dragged over the page, it is told so more often
const UNREADY = "This file could not be attached. Reload the page, then attach it again.";
const PASTED = "Pasted text.txt";

class AttachmentTray extends HTMLElement {
  limit = 0; // bytes; 0: none are taken
  textLimit = Infinity; // characters of a message
  uploads = null;
  sees = () => true; // whether the model that is to answer sees pictures
  several = () => false; // whether there are other models
  #list;
  #conversation = null; // until it belongs to one
  #draft = { coming: 0 }; // another one with each conversation that is turned to; the files that are being read for it
  #files = []; // {key, id?, name, type, size, thumb?, pasted?}; also `failed`, words, while it could not be sent
  #dragged = 0; // the timer that ends what is shown meanwhile

  connectedCallback() {
    this.#list = this.querySelector("ul");
    const input = this.querySelector("input");
    this.querySelector(".attach").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    this.#list.addEventListener("click", ({ target }) => this.#pressed(target.closest("button")));
    this.closest("form").addEventListener("paste", (event) => this.#pasted(event));
    for (const type of ["dragenter", "dragover", "drop"]) addEventListener(type, (event) => this.#drag(event));
  }

  /** Take over who sends them, and what is taken. */
  furnish({ uploads, limits, sees, several }) {
    Object.assign(this, { uploads, sees, several, limit: limits.attachment, textLimit: limits.text });
    uploads.addEventListener("progress", ({ detail }) => this.#progress(detail));
  }

  /** Belong to another conversation: its draft's files are here. */
  attach(conversation) {
    this.#conversation = conversation ?? "";
    this.#draft = { coming: 0 };
    this.#files = readFiles(this.#conversation);
    this.#show();
    this.#send();
  }

  adopt(conversation) {
    writeFiles(this.#conversation, []);
    this.#conversation = conversation;
    this.#keep();
  }

  get filled() {
    return this.#files.length > 0;
  }

  /** Why they cannot go with a message now; "" if they can. */
  get problem() {
    if (this.#draft.coming > 0) return "A file is still being read. Wait a moment.";
    const failed = this.#files.find((file) => file.failed);
    if (failed) return `${failed.name} could not be attached. Try it again, or remove it.`;
    const picture = this.#files.some(({ type }) => type.startsWith("image/"));
    return picture && !this.sees() ? this.#blind : "";
  }

  get #blind() {
    return `This model cannot see pictures. ${this.several() ? "Choose another model, or remove" : "Remove"} the picture.`;
  }

  /** They are on their way with a message: out of the tray, and in the draft until `taken`. */
  take() {
    const files = this.#files.map(({ pasted, ...file }) => file);
    this.#files = [];
    this.#show();
    return files;
  }

  taken(conversation) {
    if ((conversation ?? "") === this.#conversation) this.#keep();
    else writeFiles(conversation, []);
  }

  /** They were not sent, and are here again, before what is here. */
  put(files = []) {
    const back = files.filter(({ key, id }) => !this.#files.some((file) => (key && file.key === key) || (id && file.id === id)));
    this.#files = [...back, ...this.#files];
    this.#keep();
    this.#show();
    this.#send();
  }

  /** What `put` brought goes with another message after all. */
  drop(files) {
    this.#files = this.#files.filter(({ id }) => !files.some((file) => file.id === id));
    this.#keep();
    this.#show();
  }

  #send() {
    for (const file of this.#files) if (!file.id && !file.failed) this.uploads.send(file).then((id) => this.#taken(file.key, id), ({ message }) => this.#refused(file.key, message));
  }

  /** Take files of a person. */
  async add(given) {
    const [draft, conversation] = [this.#draft, this.#conversation];
    if (!this.limit) return this.#say("unfit", "This chat takes no files.");
    const problems = new Set();
    for (const file of given) {
      if (this.#files.length + this.#draft.coming >= MOST) {
        problems.add(`At most ${MOST} files go with one message.`);
        break;
      }
      draft.coming += 1;
      try {
        const added = await this.#read(file);
        if (draft === this.#draft) this.#take(added);
        else writeFiles(conversation, [...readFiles(conversation), added]); // the person is elsewhere by now
        if (added.type.startsWith("image/") && !this.sees()) problems.add(this.#blind);
      } catch ({ message }) {
        problems.add(message);
      } finally {
        draft.coming -= 1;
      }
    }
    if (problems.size > 0) this.#say("unfit", [...problems].join(" "));
  }

  async #read(file) {
    const { fit } = await import("../pictures.js").catch(() => {
      throw new Error(UNREADY);
    });
    const { blob, type, thumb } = await fit(file, this.limit);
    const added = { key: newId(), name: file.name || "Picture", type, size: blob.size, thumb, pasted: file.pasted };
    await this.uploads.keep(added, blob);
    return added;
  }

  #take(added) {
    this.#files.push(added);
    this.#keep();
    this.#show();
    this.#send();
  }

  // Copied cells and paragraphs come as a picture, too: their words are meant.
  #pasted(event) {
    const { files } = event.clipboardData;
    const text = event.clipboardData.getData("text/plain");
    const long = this.limit && [...text].length > Math.min(LONG_PASTE, this.textLimit);
    if (!long && (files.length === 0 || text)) return;
    event.preventDefault();
    if (!long) return this.add([...files]);
    const file = new File([text], PASTED, { type: "text/plain" });
    file.pasted = true;
    this.add([file]);
  }

  #drag(event) {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault(); // the browser would leave the page for the file
    const free = !document.querySelector("dialog[open]") && this.closest("form").checkVisibility();
    const over = event.type !== "drop";
    const main = document.querySelector("main");
    clearTimeout(this.#dragged);
    if (over) this.#dragged = setTimeout(() => main.toggleAttribute("data-drop", false), DRAG_MILLISECONDS);
    main.toggleAttribute("data-drop", free && over);
    if (event.type === "drop" && free) this.add([...event.dataTransfer.files]);
  }

  // One chip

  #show() {
    const chips = new Map([...this.#list.children].map((chip) => [chip.dataset.key, chip]));
    this.#list.replaceChildren(...this.#files.map((file) => this.#chip(file, chips.get(file.key ?? file.id))));
    this.#say("attached");
  }

  #chip(file, shown) {
    const chip = shown ?? document.importNode(document.getElementById("attachment-chip").content, true).firstElementChild;
    const { name, type, size, thumb } = file;
    chip.dataset.key = file.key ?? file.id;
    chip.dataset.state = file.failed ? "failed" : file.id ? "taken" : "coming";
    chip.toggleAttribute("data-pasted", Boolean(file.pasted));
    chip.querySelector(".name").textContent = name;
    chip.querySelector(".size").textContent = file.failed ?? (file.id || !shown ? sizeOf(size) : chip.querySelector(".size").textContent);
    const picture = chip.querySelector("img");
    const source = thumb ?? (type.startsWith("image/") ? `/attachments/${file.id}` : "");
    picture.hidden = !source;
    if (source && picture.getAttribute("src") !== source) picture.src = source;
    for (const [selector, words] of [[".remove", "Remove"], [".retry", "Try again:"]]) chip.querySelector(selector).ariaLabel = `${words} ${name}`;
    chip.querySelector("progress").ariaLabel = `Sending ${name}`;
    return chip;
  }

  #file(key) {
    return this.#files.find((file) => (file.key ?? file.id) === key);
  }

  #progress({ key, sent }) {
    const chip = this.#file(key) && this.#list.querySelector(`[data-key="${key}"]`);
    if (chip) chip.querySelector("progress").value = sent;
  }

  #taken(key, id) {
    const file = this.#file(key);
    if (!file || file.id) return;
    file.id = id;
    delete file.failed;
    this.#keep();
    this.#show();
    this.#say("aloud", `${file.name} attached`);
  }

  #refused(key, words) {
    const file = this.#file(key);
    if (!file || file.failed || !words) return;
    file.failed = words;
    this.#show();
    this.#say("aloud", `${file.name} could not be attached. ${words}`);
  }

  #pressed(button) {
    const file = button && this.#file(button.closest("li").dataset.key);
    if (!file) return;
    this.#say("unfit", ""); // what was said of it before is over
    if (button.matches(".retry")) {
      delete file.failed;
      this.#show();
      return this.#send();
    }
    if (button.matches(".as-text")) return this.#putAsText(file, button);
    this.#remove(file);
    this.#say("aloud", `${file.name} removed`);
  }

  async #putAsText(file, button) {
    button.disabled = true;
    const blob = await this.uploads.blob(file);
    const text = await blob?.text();
    button.disabled = false;
    if (!this.#files.includes(file)) return; // it was sent meanwhile, or the person is elsewhere
    if (!blob) return this.#say("unfit", `${file.name} cannot be read now. Try it again.`);
    this.#remove(file);
    this.#say("astext", text);
  }

  #remove(file) {
    this.#files = this.#files.filter((each) => each !== file);
    if (file.key) this.uploads.forget(file.key, file.id);
    this.#keep();
    this.#show();
    this.#list.querySelector(".remove")?.focus();
    if (!this.filled) this.querySelector(".attach").focus();
  }

  #keep() {
    if (this.#conversation !== null) writeFiles(this.#conversation, this.#files.map(({ failed, ...file }) => file));
  }

  #say(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { bubbles: true, detail }));
  }
}

customElements.define("attachment-tray", AttachmentTray);
