// Says in few words that the connection is gone and what happens about it; shows nothing while all is well.
// Events: `retry-now`, `pill` (detail: {words, before}, without the seconds that count down). It does not know the socket.

const PATIENCE_MILLISECONDS = 1000;
const MANY_FAILURES = 5;
const SECONDS = / \(\d+ s\)$/;

class ConnectionPill extends HTMLElement {
  #words;
  #button;
  #state = { state: "connected" };
  #store = ""; // words while the server has lost its store
  #shown = "well"; // the kind that is shown
  #since = 0; // when it ceased to be true
  #ticking = 0;
  #told = "";

  connectedCallback() {
    this.#words = this.querySelector(".words");
    this.#button = this.querySelector("button");
    this.#button.addEventListener("click", () => this.dispatchEvent(new CustomEvent("retry-now", { bubbles: true })));
  }

  /** Take the socket's state: {state, failures, retryAt, cause}. */
  show(state) {
    this.#state = state;
    this.#update();
  }

  /** Take the server's word on its store: {available, detail}. */
  showStore({ available, detail }) {
    this.#store = available ? "" : detail;
    this.#update();
  }

  // Without a connection nothing is known of the store.
  get #kind() {
    const { state } = this.#state;
    if (["signed-out", "refused"].includes(state)) return "over";
    if (state !== "connected") return "lost";
    return this.#store ? "away" : "well";
  }

  // What lasts less than a second is not shown: no short drop, and no connection that is closed at once.
  #update() {
    const kind = this.#kind;
    this.#since = kind === this.#shown ? 0 : this.#since || Date.now();
    const settled = !this.#since || kind === "over" || Date.now() - this.#since >= PATIENCE_MILLISECONDS;
    clearTimeout(this.#ticking);
    if (!settled || kind === "lost") this.#ticking = setTimeout(() => this.#update(), 250);
    if (settled) this.#render(kind);
  }

  #render(kind) {
    const { state, failures, cause } = this.#state;
    const stuck = (kind === "lost" && failures >= MANY_FAILURES) || state === "refused";
    const words = { well: "", away: this.#store }[kind] ?? this.#say(state, stuck && cause);
    this.#shown = kind;
    this.#since = 0;
    this.#button.hidden = !stuck || !navigator.onLine;
    if (this.#words.textContent !== words) this.#words.textContent = words;
    this.dataset.state = kind === "away" ? kind : state;
    this.#tell(words.replace(SECONDS, ""));
  }

  #tell(words) {
    const before = this.#told;
    if (words === before) return;
    this.#told = words;
    this.dispatchEvent(new CustomEvent("pill", { bubbles: true, detail: { words, before } }));
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
