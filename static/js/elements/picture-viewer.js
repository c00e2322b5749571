// A picture, as large as the window lets it be, until it is pressed or left.

class PictureViewer extends HTMLElement {
  connectedCallback() {
    const dialog = this.querySelector("dialog");
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => this.querySelector("img").removeAttribute("src"));
    dialog.addEventListener("keydown", (event) => event.key === "Escape" && event.stopPropagation()); // not for the answer
  }

  open({ src, name }) {
    Object.assign(this.querySelector("img"), { src, alt: name });
    this.querySelector("dialog").ariaLabel = name;
    this.querySelector("dialog").showModal();
  }
}

customElements.define("picture-viewer", PictureViewer);
