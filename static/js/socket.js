// The one place that knows WebSocket: connects, keeps alive, notices death and sleep, comes back.
// It does not know what frames mean, apart from the ping of its own.

const SUBPROTOCOL = "llmchat.v1";
const CONNECT_SECONDS = 10;
const ASK_SECONDS = 5;
const SILENCE_SECONDS = 10;
const WAKE_SECONDS = 3;
const STABLE_SECONDS = 10;
const TICK_SECONDS = 5;
const SLEPT_SECONDS = 15; // between two ticks; those of a hidden tab may be a minute apart, which costs it a ping
const HIDDEN_SECONDS = 2;
const OFFLINE_SECONDS = 30; // it may be wrong that we are offline: it is said also beside a server on the same device
const RETRY_AFTER_SECONDS = 3600;
const RESTARTING = 1012;
const RESTARTS = 4; // failures in a row; more is no restart
const FLOODED = 1008;
const SIGNED_OUT = 4401;

/** Full jitter: anything from nothing to 0.25 s doubled per failure, at most 10 s. */
export function backoffSeconds(failures, random = Math.random) {
  return random() * Math.min(10, 0.25 * 2 ** Math.max(0, failures - 1));
}

// A refused handshake does not tell a page why: the same question over HTTP does.
async function askSession() {
  try {
    const response = await fetch("/session", { cache: "no-store", signal: AbortSignal.timeout(ASK_SECONDS * 1000) });
    if (response.ok) return { status: response.status, cause: "", retryAfter: 0 };
    const { detail = "" } = await response.json().catch(() => ({}));
    return { status: response.status, cause: detail, retryAfter: Number(response.headers.get("Retry-After")) };
  } catch {
    return { status: 0, cause: "The server cannot be reached.", retryAfter: 0 };
  }
}

/**
 * Events: `frame` (detail: the object received), and `state` (detail: {state, failures, retryAt, cause}).
 * States: connecting, connected, lost, restarting, refused, signed-out.
 */
export class Socket extends EventTarget {
  #address;
  #websocket = null;
  #state = "connecting";
  #failures = 0;
  #cause = "";
  #retryAt = 0;
  #notBefore = 0; // the server's Retry-After
  #begun = 0;
  #pings = 0;
  #patience = 0; // seconds, of the ping that is waited for
  #ticked = Date.now();
  #timers = {};

  constructor(address) {
    super();
    this.#address = address;
    addEventListener("online", () => this.#wake());
    addEventListener("offline", () => this.#probe(WAKE_SECONDS));
    addEventListener("pageshow", (event) => event.persisted && this.#wake());
    document.addEventListener("resume", () => this.#wake());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#wake());
    setInterval(() => this.#tick(), TICK_SECONDS * 1000);
  }

  get state() {
    return this.#state;
  }

  connect() {
    this.#stop("retry");
    this.#drop();
    const websocket = new WebSocket(this.#address, SUBPROTOCOL);
    this.#websocket = websocket;
    this.#begun = Date.now();
    if (this.#state === "connecting") this.#become("connecting");
    websocket.onopen = () => this.#opened();
    websocket.onmessage = ({ data }) => this.#received(JSON.parse(data));
    websocket.onclose = ({ code }) => this.#closed(code);
    this.#after("connect", CONNECT_SECONDS, () => this.#closed(0));
  }

  /** Send an object; false where there is no connection to send it on. */
  send(frame) {
    if (this.#websocket?.readyState !== WebSocket.OPEN) return false;
    this.#websocket.send(JSON.stringify(frame));
    return true;
  }

  /** Connect at once. What began a moment ago may go on; what is older may have begun without a network. */
  retryNow() {
    if (this.#state === "connected" || this.#state === "signed-out") return;
    if (this.#timers.connect && Date.now() - this.#begun < WAKE_SECONDS * 1000) return;
    this.connect();
  }

  #opened() {
    this.#stop("connect");
    this.#stop("retry");
    this.#notBefore = 0;
    this.#after("stable", STABLE_SECONDS, () => (this.#failures = 0));
    this.#probe(SILENCE_SECONDS); // something on the way may have opened it, and nobody is behind
    this.#keepAlive();
    this.#become("connected");
  }

  // Only the answer to the last ping ends the wait, any other frame prolongs it: it may have waited here through a sleep.
  #received(frame) {
    if (frame.type === "pong" && frame.id === this.#pingId) this.#stop("silence");
    else if (this.#timers.silence) this.#listen(this.#patience);
    this.dispatchEvent(new CustomEvent("frame", { detail: frame }));
  }

  #closed(code) {
    const connected = this.#state === "connected";
    this.#drop();
    if (code === SIGNED_OUT) return this.#become("signed-out");
    if (code === FLOODED) return this.#become("refused");
    if (!navigator.onLine) return this.#retryIn(OFFLINE_SECONDS, "lost");
    this.#failures += 1;
    const restarting = this.#failures <= RESTARTS && (code === RESTARTING || this.#state === "restarting");
    const state = restarting ? "restarting" : "lost";
    if (!connected) return this.#ask(state);
    this.#retryIn(restarting ? Math.random() : backoffSeconds(this.#failures), state);
  }

  async #ask(state) {
    this.#become(state);
    const { status, cause, retryAfter } = await askSession();
    if (this.#state !== state || this.#timers.connect) return;
    this.#cause = cause;
    if (status === 401) return this.#settle("signed-out");
    if (!(retryAfter > 0)) return this.#retryIn(backoffSeconds(this.#failures), state);
    const seconds = Math.min(retryAfter, RETRY_AFTER_SECONDS);
    this.#notBefore = Date.now() + seconds * 1000;
    this.#retryIn(seconds * (1 + Math.random() / 4), state); // others were told the same
  }

  #retryIn(seconds, state) {
    this.#retryAt = Date.now() + seconds * 1000;
    this.#after("retry", seconds, () => this.connect());
    this.#become(state);
  }

  #settle(state) {
    this.#drop();
    this.#stop("retry");
    this.#become(state);
  }

  #keepAlive() {
    this.#after("ping", 20 + Math.random() * 5, () => {
      this.#probe(SILENCE_SECONDS);
      this.#keepAlive();
    });
  }

  get #pingId() {
    return `ping-${this.#pings}`;
  }

  /** Ask for a sign of life. A deadline that runs already is not put off. */
  #probe(seconds) {
    this.#pings += 1;
    if (!this.send({ type: "ping", id: this.#pingId })) return;
    if (!this.#timers.silence || seconds < this.#patience) this.#listen(seconds);
  }

  /** Without any frame in time the connection is dead. */
  #listen(seconds) {
    this.#patience = seconds;
    this.#after("silence", seconds, () => this.#closed(0));
  }

  // Timers stand still while a device sleeps, and afterwards nothing tells but the clock.
  #tick() {
    const slept = Date.now() - this.#ticked > SLEPT_SECONDS * 1000;
    this.#ticked = Date.now();
    if (slept) this.#wake();
  }

  // Of hidden tabs there may be many: they do not come in one moment.
  #wake() {
    if (this.#state === "connected") return this.#probe(WAKE_SECONDS);
    if (Date.now() < this.#notBefore) return;
    if (document.visibilityState === "visible") this.retryNow();
    else if (this.#timers.retry) this.#retryIn(Math.random() * HIDDEN_SECONDS, this.#state);
  }

  #drop() {
    for (const name of ["connect", "stable", "ping", "silence"]) this.#stop(name);
    const websocket = this.#websocket;
    if (!websocket) return;
    this.#websocket = null;
    websocket.onopen = websocket.onmessage = websocket.onclose = null;
    websocket.close();
  }

  #become(state) {
    this.#state = state;
    if (state === "connected") this.#cause = "";
    const detail = { state, failures: this.#failures, retryAt: this.#retryAt, cause: this.#cause };
    this.dispatchEvent(new CustomEvent("state", { detail }));
  }

  #after(name, seconds, act) {
    this.#stop(name);
    this.#timers[name] = setTimeout(() => {
      delete this.#timers[name];
      act();
    }, seconds * 1000);
  }

  #stop(name) {
    clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }
}
