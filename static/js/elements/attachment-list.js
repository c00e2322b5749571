// The files of a message. A picture opens larger in the page, a text in a tab of its own.
// Event: `view` (detail: {src, name}). It does not know the message.

import { sizeOf } from "../labels.js";

class AttachmentList extends HTMLElement {
  #files = null;
  #left = new Set(); // of those that an edit leaves out

  connectedCallback() {
    this.addEventListener("click", (event) => this.#clicked(event));
    this.addEventListener("error", ({ target }) => target.closest("li")?.toggleAttribute("data-gone", true), true);
  }

  /** As the protocol shapes them; those on their way have no `id` yet, and perhaps a `thumb`. */
  get files() {
    return (this.#files ??= [...this.children].map(({ dataset: { id, name, type, size } }) => ({ id, name, type, size: Number(size) })));
  }

  /** Those that an edit keeps. */
  get kept() {
    return this.files.filter(({ id }) => !this.#left.has(id));
  }

  show(files = []) {
    const same = files.length === this.files.length && files.every(({ id }, at) => id === this.files[at].id);
    if (same) return;
    const thumbs = this.files.map(({ name, thumb }) => ({ name, thumb })); // what is seen already does not come twice
    this.#files = files.map((file, at) => ({ ...file, thumb: file.thumb ?? (thumbs[at]?.name === file.name ? thumbs[at].thumb : undefined) }));
    this.replaceChildren(...this.#files.map((file) => this.#item(file)));
  }

  #item({ id, name, type, size, thumb }) {
    const picture = type.startsWith("image/");
    const template = document.getElementById(picture ? "attachment-picture" : "attachment-text");
    const item = document.importNode(template.content, true).firstElementChild;
    Object.assign(item.dataset, { name, type, size, id: id ?? "" });
    const link = item.querySelector("a");
    if (id) link.href = `/attachments/${id}`;
    else link.removeAttribute("href");
    item.querySelector("button").ariaLabel = `Leave out ${name}`;
    if (picture) Object.assign(item.querySelector("img"), { alt: name, src: thumb ?? `/attachments/${id}` });
    else item.querySelector(".name").textContent = name;
    if (!picture) item.querySelector(".size").textContent = sizeOf(size);
    return item;
  }

  get left() {
    return [...this.#left];
  }

  /** While its message is edited, files can be left out, and some are already; after it all are here again. */
  edit(editing, left = []) {
    this.#left = new Set(left);
    this.toggleAttribute("data-editing", editing);
    for (const item of this.children) item.hidden = this.#left.has(item.dataset.id);
  }

  #clicked(event) {
    const item = event.target.closest("li");
    if (event.target.closest("button")) {
      this.#left.add(item.dataset.id);
      item.hidden = true;
      this.querySelector("li:not([hidden]) button")?.focus();
    } else if (item?.querySelector("img") && !(event.ctrlKey || event.metaKey || event.shiftKey)) {
      event.preventDefault();
      const src = item.querySelector("a").getAttribute("href");
      if (src) this.dispatchEvent(new CustomEvent("view", { bubbles: true, detail: { src, name: item.dataset.name } }));
    }
  }
}

customElements.define("attachment-list", AttachmentList);
