// Whether an answer is followed while it grows: remembered in this browser. Event: `follow` (detail: whether it is).

import { follow, read, write } from "../preferences.js";

class FollowSwitch extends HTMLElement {
  connectedCallback() {
    this.#show(read("follow"));
    this.#button.addEventListener("click", () => {
      const chosen = this.on ? "off" : "on";
      write("follow", chosen);
      this.#choose(chosen);
    });
    follow("follow", (chosen) => this.#choose(chosen));
  }

  get on() {
    return this.#button.ariaChecked === "true";
  }

  get #button() {
    return this.querySelector("button");
  }

  #show(chosen) {
    this.#button.ariaChecked = String(chosen !== "off");
  }

  #choose(chosen) {
    this.#show(chosen);
    this.dispatchEvent(new CustomEvent("follow", { detail: this.on }));
  }
}

customElements.define("follow-switch", FollowSwitch);
