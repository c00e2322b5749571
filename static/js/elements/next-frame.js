// Puts work off until the next frame is drawn, so that what comes meanwhile is done together, and neither the work nor a
// frame has to wait for the other for long. A hidden tab has no frames: there a timer takes their place, and whatever waits
// is done at once when the tab is hidden or shown.

const HIDDEN_MILLISECONDS = 250;

export class NextFrame {
  #act;
  #frame = 0;
  #timer = 0;

  constructor(act) {
    this.#act = act;
    document.addEventListener("visibilitychange", () => this.now());
  }

  ask() {
    if (this.#frame || this.#timer) return;
    if (document.hidden) this.#timer = setTimeout(() => this.now(), HIDDEN_MILLISECONDS);
    else this.#frame = requestAnimationFrame(() => this.#drawn());
  }

  #drawn() {
    this.#frame = 0;
    this.#timer = setTimeout(() => this.now());
  }

  /** Do now what was put off, if anything was. */
  now() {
    if (!this.#frame && !this.#timer) return;
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = this.#timer = 0;
    this.#act();
  }
}
