// The space that is kept free below the words of the newest answer, so that its prompt stands near the top and nothing
// moves while it fills. It does not scroll, and knows no message but by its element.

export const ABOVE_TURN = 16; // px left free above a new turn, which has room of its own above its words

export class AnswerSpace {
  #box;
  #answer = null;

  constructor(box) {
    this.#box = box;
  }

  /** Whether the space is below this answer. */
  isBelow(answer) {
    return this.#answer === answer;
  }

  /** Keep so much space below an answer, where there is none below another one, that the prompt before it stands near the top. */
  make(answer) {
    const prompt = answer.previousElementSibling;
    const used = prompt ? answer.getBoundingClientRect().top - prompt.getBoundingClientRect().top : 0;
    const padding = parseFloat(getComputedStyle(this.#box).paddingBlockEnd);
    const space = this.#box.clientHeight - used - padding - ABOVE_TURN;
    this.#answer = answer;
    answer.style.minHeight = `${Math.max(0, space)}px`;
  }

  clear() {
    if (this.#answer) this.#answer.style.minHeight = "";
    this.#answer = null;
  }

  /** The px that are free below the answer's words. */
  get free() {
    if (!this.#answer) return 0;
    return Math.floor(this.#answer.getBoundingClientRect().bottom - this.#answer.lastElementChild.getBoundingClientRect().bottom);
  }
}
