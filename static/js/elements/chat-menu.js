// The menu of one chat, floating beside its button. Event: `action` (detail: {id, action}). It does nothing itself.

class ChatMenu extends HTMLElement {
  #id = "";
  #button = null;

  connectedCallback() {
    this.addEventListener("click", ({ target }) => this.#chosen(target.closest("[data-action]")));
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("toggle", ({ newState }) => this.#toggled(newState));
  }

  open(id, button, pinned) {
    this.#id = id;
    this.#button = button;
    this.querySelector("[data-action=pin] span").textContent = pinned ? "Unpin" : "Pin";
    this.showPopover();
    this.#place(button.getBoundingClientRect());
    this.querySelector("button").focus();
  }

  #place(beside) {
    const { width, height } = this.getBoundingClientRect();
    const below = beside.bottom + 4;
    this.style.left = `${Math.max(8, Math.min(beside.right - width, innerWidth - width - 8))}px`;
    this.style.top = `${below + height > innerHeight - 8 ? Math.max(8, beside.top - height - 4) : below}px`;
  }

  #toggled(state) {
    this.#button?.setAttribute("aria-expanded", String(state === "open"));
  }

  #pressed(event) {
    if (event.key === "Tab") return this.hidePopover();
    const items = [...this.querySelectorAll("button")];
    const here = items.indexOf(document.activeElement);
    const there = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: -1 }[event.key];
    if (there === undefined) return;
    event.preventDefault();
    items.at(there % items.length).focus();
  }

  #chosen(button) {
    if (!button) return;
    this.hidePopover();
    const detail = { id: this.#id, action: button.dataset.action };
    this.dispatchEvent(new CustomEvent("action", { bubbles: true, detail }));
  }
}

customElements.define("chat-menu", ChatMenu);
