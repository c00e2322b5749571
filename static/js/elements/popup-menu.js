// A menu that floats beside the button that opened it: its place, its keys, where the focus goes. What is in it, and what
// becomes of a choice, is its heirs' business. Event: `unfocused` where it closed because its button is gone.

const APART = 4; // px between the menu and its button
const EDGE = 8; // px that stay free at the window's edges

export class PopupMenu extends HTMLElement {
  #button = null;
  #follow = () => this.#place();
  #goneWith = new MutationObserver(() => this.#button.isConnected || this.#close());

  connectedCallback() {
    this.addEventListener("click", ({ target }) => this.#choose(target.closest("[role=menuitem]")));
    this.addEventListener("keydown", (event) => this.#pressed(event));
    this.addEventListener("toggle", ({ newState }) => newState === "open" && this.#toggled(true));
    this.addEventListener("beforetoggle", ({ newState }) => newState === "closed" && this.#toggled(false)); // at once: the button may be pressed again
  }

  get #items() {
    return [...this.querySelectorAll("[role=menuitem]")].filter((item) => item.checkVisibility());
  }

  /** Open the menu at a button; the button of a menu that is open closes it, as the browser has it. */
  openAt(button) {
    if (this.matches(":popover-open")) return;
    this.#button = button;
    this.showPopover();
    this.#goneWith.observe(document.body, { childList: true, subtree: true });
    this.#place();
    this.#items[0].focus({ preventScroll: true });
  }

  #place() {
    const beside = this.#button.getBoundingClientRect();
    const { width, height } = this.getBoundingClientRect();
    const below = beside.bottom + APART;
    const above = Math.max(EDGE, beside.top - height - APART);
    const left = this.dataset.align === "start" ? beside.left : beside.right - width;
    this.style.left = `${Math.max(EDGE, Math.min(left, innerWidth - width - EDGE))}px`;
    this.style.top = `${below + height > innerHeight - EDGE ? above : below}px`;
  }

  // The button owns the menu only while it is open: else its first click would open it and close it again.
  #toggled(open) {
    this.#button.popoverTargetElement = open ? this : null;
    this.#button.setAttribute("aria-expanded", String(open));
    document[open ? "addEventListener" : "removeEventListener"]("scroll", this.#follow, { capture: true, passive: true });
    if (!open) this.#goneWith.disconnect();
  }

  #close() {
    this.hidePopover();
    this.dispatchEvent(new CustomEvent("unfocused"));
  }

  #pressed(event) {
    if (event.key === "Tab") return this.hidePopover();
    const items = this.#items;
    const here = items.indexOf(document.activeElement);
    const there = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: -1 }[event.key];
    if (there === undefined) return;
    event.preventDefault();
    items.at(there % items.length).focus();
  }

  #choose(item) {
    if (!item) return;
    this.hidePopover();
    this.chosen(item);
  }
}
