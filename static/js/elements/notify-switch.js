// Whether this browser tells of answers that are done while nobody looks: remembered in it, asked for on a press alone.
// Event: `refused`, where the browser does not let us.

import { follow, read, write } from "../preferences.js";

class NotifySwitch extends HTMLElement {
  connectedCallback() {
    if (!("Notification" in window)) return; // an iPhone has none but for an app on its home screen
    this.hidden = false;
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
    if (on && !may) this.dispatchEvent(new CustomEvent("refused"));
  }
}

customElements.define("notify-switch", NotifySwitch);
