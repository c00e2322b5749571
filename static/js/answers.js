// The text of every answer that is being made, and whether it came through whole.
// It does not know where texts are shown, nor how they travel.

async function sha256(text) {
  const bytes = new TextEncoder().encode(text);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export class Answers {
  #texts = new Map(); // message id -> {conversation, text}: so far

  start(conversation, message, text) {
    this.#texts.set(message, { conversation, text });
  }

  /** What follows of a conversation does not go on from what was told of it. */
  forget(conversation) {
    for (const [message, told] of this.#texts) if (told.conversation === conversation) this.#texts.delete(message);
  }

  append(message, text) {
    const told = this.#texts.get(message);
    if (told) told.text += text;
  }

  /** Forget the answer; false if its text is not what the server's digest says. */
  async finish(message, digest) {
    const text = this.#texts.get(message)?.text;
    this.#texts.delete(message);
    if (text === undefined || !digest || !crypto.subtle) return true; // no SubtleCrypto over plain http
    return (await sha256(text)) === digest;
  }
}
