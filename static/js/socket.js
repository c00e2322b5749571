// The one place that knows WebSocket: connects, keeps alive, notices death, comes back.
// It does not know what frames mean, apart from the ping of its own.

const SUBPROTOCOL = "llmchat.v1";
const CONNECT_SECONDS = 10;
const SILENCE_SECONDS = 10;
const WAKE_SECONDS = 3;
const STABLE_SECONDS = 10;
const RESTARTING = 1012;
const RESTARTS = 2; // in a row; more is no restart
const FLOODED = 1008;
const SIGNED_OUT = 4401;

/** Full jitter: anything from nothing to 0.25 s doubled per failure, at most 10 s. */
export function backoffSeconds(failures, random = Math.random) {
  return random() * Math.min(10, 0.25 * 2 ** Math.max(0, failures - 1));
}

/**
 * Events: `open`, `frame` (detail: the object received), and `state` (detail: {state, failures, retryAt, cause}).
 * States: connecting, connected, lost, restarting, refused, signed-out.
 */
export class Socket extends EventTarget {
  #address;
  #websocket = null;
  #state = "connecting";
  #failures = 0;
  #cause = "";
  #retryAt = 0;
  #timers = {};

  constructor(address) {
    super();
    this.#address = address;
    addEventListener("online", () => this.retryNow());
    addEventListener("offline", () => this.#probe(WAKE_SECONDS));
    addEventListener("pageshow", (event) => event.persisted && this.#wake());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.#wake());
  }

  get state() {
    return this.#state;
  }

  connect() {
    this.#stop("retry");
    this.#drop();
    const websocket = new WebSocket(this.#address, SUBPROTOCOL);
    this.#websocket = websocket;
    if (this.#state === "connecting") this.#become("connecting");
    websocket.onopen = () => this.#opened();
    websocket.onmessage = ({ data }) => this.#received(data);
    websocket.onclose = ({ code }) => this.#closed(code);
    this.#after("connect", CONNECT_SECONDS, () => this.#closed(0));
  }

  /** Send an object; false where there is no connection to send it on. */
  send(frame) {
    if (this.#websocket?.readyState !== WebSocket.OPEN) return false;
    this.#websocket.send(JSON.stringify(frame));
    return true;
  }

  retryNow() {
    if (this.#state === "connected" || this.#state === "signed-out" || this.#timers.connect) return;
    this.connect();
  }

  #opened() {
    this.#stop("connect");
    this.#stop("retry");
    this.#after("stable", STABLE_SECONDS, () => (this.#failures = 0));
    this.#keepAlive();
    this.#become("connected");
    this.dispatchEvent(new Event("open"));
  }

  #received(text) {
    this.#stop("silence");
    this.dispatchEvent(new CustomEvent("frame", { detail: JSON.parse(text) }));
  }

  #closed(code) {
    const connected = this.#state === "connected";
    this.#drop();
    if (code === SIGNED_OUT) return this.#become("signed-out");
    if (code === FLOODED) return this.#become("refused");
    this.#failures += 1;
    const restarting = code === RESTARTING && this.#failures <= RESTARTS;
    this.#retryIn(restarting ? Math.random() : backoffSeconds(this.#failures), restarting ? "restarting" : "lost");
    if (!connected) this.#askSession();
  }

  #retryIn(seconds, state) {
    this.#retryAt = Date.now() + seconds * 1000;
    this.#after("retry", seconds, () => this.connect());
    this.#become(state);
  }

  // A refused handshake does not tell a page why: the same question over HTTP does.
  async #askSession() {
    try {
      const response = await fetch("/session", { cache: "no-store" });
      if (this.#state === "connected") return;
      this.#cause = response.ok ? "" : ((await response.json().catch(() => ({}))).detail ?? "");
      if (response.status === 401) return this.#settle("signed-out");
      const seconds = Number(response.headers.get("Retry-After"));
      if (!response.ok && seconds > 0 && !this.#timers.connect) return this.#retryIn(seconds, this.#state);
    } catch {
      this.#cause = navigator.onLine ? "The server cannot be reached." : "This device is offline.";
    }
    if (this.#state !== "connected") this.#become(this.#state);
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

  /** Ask for a sign of life; without any frame in time the connection is dead. */
  #probe(seconds) {
    if (this.send({ type: "ping" })) this.#after("silence", seconds, () => this.#closed(0));
  }

  #wake() {
    if (this.#state === "connected") this.#probe(WAKE_SECONDS);
    else this.retryNow();
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
