// What is spoken: one region that waits its turn, one that does not. It tells of a long answer now and then, and never
// more than its length; a tab that nobody looks at is silent until somebody does. It does not know what an answer is.

const AGAIN_MILLISECONDS = 80; // between taking words away and saying the same ones: what does not change is not spoken
const PROGRESS_MILLISECONDS = 7000; // of silence, before it is said that an answer goes on: twice as long each time …
const SLOWEST_MILLISECONDS = 28_000; // … up to this
const OPENING_LENGTH = 140;

/** The first sentence of a text, or as many of its words as can be listened to. */
export function opening(text) {
  const [sentence = ""] = text.trim().replace(/\s+/g, " ").match(/^.+?(?:[.!?…](?=\s)|[。！？]|$)/) ?? [];
  return sentence.length > OPENING_LENGTH ? `${sentence.slice(0, OPENING_LENGTH).replace(/\s\S*$/, "")}…` : sentence;
}

/** How far an answer is, in words for the ear. */
export function progress(text) {
  const { length } = text.split(/\s+/).filter(Boolean);
  if (length === 0) return "Still waiting for the answer";
  return length < 10 ? "Still writing" : `Still writing, ${length} words so far`; // not every language has spaces
}

/** Two things to be said in one breath: else the second takes the place of the first. */
export function joined(first, second) {
  return /[.!?…。！？]$/.test(first) ? `${first} ${second}` : `${first}. ${second}`;
}

export class Announcer {
  #polite = new Region("[role=status]");
  #assertive = new Region("[role=alert]");
  #describe = null; // tells how far the answer is that is being written
  #pause = PROGRESS_MILLISECONDS;
  #timer = 0;

  /** What was said last. */
  get said() {
    return this.#polite.words;
  }

  say(words) {
    this.#polite.say(words);
    this.#tellLater();
  }

  alarm(words) {
    this.#assertive.say(words);
  }

  /** Tell from time to time what `describe` says, until this is called with null. */
  follow(describe) {
    const begins = describe && !this.#describe;
    this.#describe = describe;
    if (begins) this.#pause = PROGRESS_MILLISECONDS;
    if (begins || !describe) this.#tellLater();
  }

  #tellLater() {
    clearTimeout(this.#timer);
    if (this.#describe) this.#timer = setTimeout(() => this.#tell(), this.#pause);
  }

  #tell() {
    this.#pause = Math.min(2 * this.#pause, SLOWEST_MILLISECONDS);
    this.say(this.#describe());
  }
}

class Region {
  words = "";
  #element;
  #timer = 0;

  constructor(selector) {
    this.#element = document.querySelector(selector);
    document.addEventListener("visibilitychange", () => this.#show());
  }

  say(words) {
    this.words = words;
    clearTimeout(this.#timer);
    if (words && this.#element.textContent === words && !document.hidden) {
      this.#element.textContent = "";
      this.#timer = setTimeout(() => this.#show(), AGAIN_MILLISECONDS);
    } else this.#show();
  }

  #show() {
    if (!document.hidden && this.#element.textContent !== this.words) this.#element.textContent = this.words;
  }
}
