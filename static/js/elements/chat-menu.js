// The menu of one chat. Event: `action` (detail: {id, action}). It does nothing itself.

import { PopupMenu } from "./popup-menu.js";

class ChatMenu extends PopupMenu {
  #id = "";

  open(id, button, pinned) {
    this.#id = id;
    this.querySelector("[data-action=pin] span").textContent = pinned ? "Unpin" : "Pin";
    this.openAt(button);
  }

  chosen({ dataset }) {
    this.dispatchEvent(new CustomEvent("action", { bubbles: true, detail: { id: this.#id, action: dataset.action } }));
  }
}

customElements.define("chat-menu", ChatMenu);
