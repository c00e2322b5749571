// A sentence that stays for some seconds, with a way back where there is one.

const SHOWN_MILLISECONDS = 8000;

class UndoToast extends HTMLElement {
  #timer = 0;
  #undo = null;

  connectedCallback() {
    this.querySelector("button").addEventListener("click", () => {
      this.hide();
      this.#undo?.();
    });
  }

  show(words, undo = null) {
    this.#undo = undo;
    this.querySelector(".words").textContent = words;
    this.querySelector("button").hidden = !undo;
    this.hidden = false;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.hide(), SHOWN_MILLISECONDS);
  }

  hide() {
    this.hidden = true;
  }
}

customElements.define("undo-toast", UndoToast);
