// Whether this browser tells of answers that are done while nobody looks: remembered in it, asked for on a press alone.
// Event: `refused`, where the browser does not let us (detail: a sentence to be spoken; it stands below the switch).

import { follow, read, write } from "../preferences.js";

const REFUSED = "Your browser does not let this page notify you. Allow it in the browser’s settings for this site.";

class NotifySwitch extends HTMLElement {
  #told = document.createElement("p");

  connectedCallback() {
    if (!("Notification" in window)) return; // an iPhone has none but for an app on its home screen
    this.hidden = false;
    this.#told.hidden = true;
    this.append(this.#told);
    this.#show(read("notify"));
    this.#button.addEventListener("click", () => this.#choose(!this.on));
    follow("notify", (chosen) => this.#show(chosen));
  }

  get on() {
    return this.#button.ariaChecked === "true";
  }

  get #button() {
    return this.querySelector("button");
  }

  #show(chosen) {
    this.#button.ariaChecked = String(chosen === "on" && Notification.permission === "granted");
  }

  async #choose(on) {
    const may = on && (await Notification.requestPermission()) === "granted";
    write("notify", may ? "on" : "off");
    this.#show(may ? "on" : "off");
    this.#told.hidden = !on || may;
    this.#told.textContent = this.#told.hidden ? "" : REFUSED;
    if (!this.#told.hidden) this.dispatchEvent(new CustomEvent("refused", { detail: REFUSED }));
  }
}

customElements.define("notify-switch", NotifySwitch);
