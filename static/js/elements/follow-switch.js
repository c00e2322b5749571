// Whether an answer is followed while it grows: remembered in this browser. Event: `follow` (detail: whether it is).

const KEY = "llmchat.follow";

class FollowSwitch extends HTMLElement {
  connectedCallback() {
    this.#show(this.#stored !== "off");
    this.#button.addEventListener("click", () => this.#choose(!this.on));
  }

  get on() {
    return this.#button.ariaChecked === "true";
  }

  get #button() {
    return this.querySelector("button");
  }

  get #stored() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  #show(on) {
    this.#button.ariaChecked = String(on);
  }

  #choose(on) {
    this.#show(on);
    this.dispatchEvent(new CustomEvent("follow", { detail: on }));
    try {
      localStorage.setItem(KEY, on ? "on" : "off");
    } catch {
      // remembered for this page only
    }
  }
}

customElements.define("follow-switch", FollowSwitch);
