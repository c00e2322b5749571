// Shows and hides the chats: beside the conversation on a wide screen, as a drawer over it on a narrow one.

import { follow, write } from "../preferences.js";

const narrow = matchMedia("(width < 768px)");

class SideBar extends HTMLElement {
  #from = null; // what had the focus when the chats were shown

  connectedCallback() {
    document.querySelector(".open-chats").addEventListener("click", () => this.open());
    this.querySelector(".close-chats").addEventListener("click", () => this.close());
    this.querySelector(".scrim").addEventListener("click", () => this.close());
    document.addEventListener("keydown", ({ key }) => key === "Escape" && this.#escaped());
    narrow.addEventListener("change", ({ matches }) => this.#setDrawer(matches && this.hasAttribute("data-drawer"))); // it may be told of late
    follow("chats", (state) => this.#show(state));
    this.#label();
  }

  toggle() {
    if (this.#open) this.close();
    else this.open();
  }

  /** Have them shown. */
  reveal() {
    if (!this.#open) this.open();
  }

  // The focus moves only where it would be hidden.
  open() {
    this.#from = document.activeElement;
    if (narrow.matches) this.#setDrawer(true);
    else this.#remember("open");
    if (narrow.matches || !this.#from.checkVisibility()) this.querySelector(".close-chats").focus();
  }

  close() {
    const held = narrow.matches || this.contains(document.activeElement);
    if (narrow.matches) this.#setDrawer(false);
    else this.#remember("closed");
    const back = narrow.matches && this.#from.matches("main *") ? this.#from : document.querySelector(".open-chats");
    if (held) back.focus();
  }

  /** On a narrow screen, get out of the way of what was chosen. */
  closeDrawer() {
    if (this.hasAttribute("data-drawer")) this.close();
  }

  // Escape closes what lies on top first.
  #escaped() {
    if (!document.querySelector(":popover-open")) this.closeDrawer();
  }

  get #open() {
    return narrow.matches ? this.hasAttribute("data-drawer") : document.documentElement.dataset.chats === "open";
  }

  #setDrawer(open) {
    this.toggleAttribute("data-drawer", open);
    for (const behind of document.querySelectorAll("main > :not(.toasts), .skip")) behind.inert = open;
    this.#label();
  }

  #remember(state) {
    this.#show(state);
    write("chats", state);
  }

  #show(state) {
    document.documentElement.dataset.chats = state;
    this.#label();
  }

  #label() {
    for (const button of document.querySelectorAll("[aria-controls=chats]")) button.setAttribute("aria-expanded", String(this.#open));
  }
}

customElements.define("side-bar", SideBar);
