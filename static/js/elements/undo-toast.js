// A sentence that stays for some seconds, and for as long as one points at it, with a way back where there is one.
// Event: `hidden`.

const SHOWN_MILLISECONDS = 8000;

class UndoToast extends HTMLElement {
  #timer = 0;
  #undo = null;

  connectedCallback() {
    this.querySelector("button").addEventListener("click", () => {
      const undo = this.#undo;
      this.hide();
      undo?.();
    });
    for (const type of ["pointerenter", "focusin"]) this.addEventListener(type, () => clearTimeout(this.#timer));
    for (const type of ["pointerleave", "focusout"]) this.addEventListener(type, () => this.#hideLater());
  }

  show(words, undo = null, name = "Undo") {
    this.#undo = undo;
    this.querySelector(".words").textContent = words;
    this.querySelector("button").textContent = name;
    this.querySelector("button").hidden = !undo;
    this.hidden = false;
    this.#hideLater();
  }

  hide() {
    this.#undo = null;
    this.hidden = true;
    this.dispatchEvent(new CustomEvent("hidden"));
  }

  #hideLater() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.hide(), SHOWN_MILLISECONDS);
  }
}

customElements.define("undo-toast", UndoToast);
