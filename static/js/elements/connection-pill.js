// Says in few words that the connection is gone and what happens about it; shows nothing while all is well.
// Event: `retry-now`. It does not know the socket.

const PATIENCE_MILLISECONDS = 1000;
const MANY_FAILURES = 5;
const SECONDS = / \(\d+ s\)$/;

class ConnectionPill extends HTMLElement {
  #words;
  #button;
  #state = { state: "connected" };
  #store = ""; // words while the server has lost its store
  #since = 0;
  #ticking = 0;
  #told = ""; // the last words, without the seconds that count down

  connectedCallback() {
    this.#words = this.querySelector(".words");
    this.#button = this.querySelector("button");
    this.#button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("retry-now", { bubbles: true })));
  }

  /** Take the socket's state: {state, failures, retryAt, cause}. */
  show(state) {
    if (state.state === "connected") this.#since = 0;
    else {
      this.#since ||= Date.now();
      this.#store = "";
    }
    this.#state = state;
    clearInterval(this.#ticking);
    if (this.#since) this.#ticking = setInterval(() => this.#update(), 250);
    this.#update();
  }

  /** Take the server's word on its store: {available, detail}. */
  showStore({ available, detail }) {
    this.#store = available ? "" : detail;
    this.#update();
  }

  #update() {
    const { state, failures, cause } = this.#state;
    const patient = ["lost", "restarting", "connecting"].includes(state) && Date.now() - this.#since < PATIENCE_MILLISECONDS;
    const connected = patient || state === "connected";
    const shown = connected && this.#store ? "away" : patient ? "connected" : state;
    const stuck = (failures >= MANY_FAILURES && !["connected", "signed-out"].includes(state)) || state === "refused";
    this.#button.hidden = !stuck || !navigator.onLine;
    const words = connected ? this.#store : this.#say(state, stuck && cause);
    if (this.#words.textContent !== words) this.#words.textContent = words;
    this.dataset.state = shown;
    this.#tell(words.replace(SECONDS, ""));
  }

  #tell(words) {
    if (this.#told === words) return;
    this.#told = words;
    this.dispatchEvent(new CustomEvent("pill", { bubbles: true, detail: words }));
  }

  #say(state, cause) {
    if (state === "signed-out") return "You are signed out. Reload the page to go on.";
    if (state === "refused") return "The server closed the connection.";
    if (!navigator.onLine) return "Offline: messages will be sent later";
    if (state === "restarting") return "The server is restarting…";
    if (cause) return cause;
    if (state === "connecting") return "Connecting…";
    const seconds = Math.ceil((this.#state.retryAt - Date.now()) / 1000);
    return seconds > 0 ? `Reconnecting… (${seconds} s)` : "Reconnecting…";
  }
}

customElements.define("connection-pill", ConnectionPill);
