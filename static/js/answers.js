// The text of every answer that is being made, and whether it came through whole.
// It does not know where texts are shown, nor how they travel.

async function sha256(text) {
  const bytes = new TextEncoder().encode(text);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Answers {
  #texts = new Map(); // message id -> text so far

  start(message, text) {
    this.#texts.set(message, text);
  }

  append(message, text) {
    if (this.#texts.has(message)) this.#texts.set(message, this.#texts.get(message) + text);
  }

  /** Forget the answer; false if its text is not what the server's digest says. */
  async finish(message, digest) {
    const text = this.#texts.get(message);
    this.#texts.delete(message);
    if (text === undefined || !digest || !crypto.subtle) return true; // no SubtleCrypto over plain http
    return (await sha256(text)) === digest;
  }
}
