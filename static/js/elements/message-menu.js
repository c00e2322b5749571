// The menu of one message, the same for all: what else can be done with it, or which other models may answer.
// Event: `action` (detail: {id, action, model}). It does nothing itself.

import { PopupMenu } from "./popup-menu.js";

class MessageMenu extends PopupMenu {
  #id = "";

  /** With `models`, of the protocol's shape, it offers these; else what can be done with every message. */
  open(id, button, models = []) {
    this.#id = id;
    this.toggleAttribute("data-models", models.length > 0);
    this.ariaLabel = models.length > 0 ? "Regenerate with another model" : "Message options";
    for (const item of this.querySelectorAll("[data-model]")) item.remove();
    this.querySelector(".models").append(...models.map(modelItem));
    this.openAt(button);
  }

  chosen({ dataset: { action, model } }) {
    this.dispatchEvent(new CustomEvent("action", { bubbles: true, detail: { id: this.#id, action, model } }));
  }
}

function modelItem({ id, label }) {
  const item = document.createElement("button");
  item.type = "button";
  item.role = "menuitem";
  item.dataset.action = "regenerate";
  item.dataset.model = id;
  item.textContent = label;
  return item;
}

customElements.define("message-menu", MessageMenu);
