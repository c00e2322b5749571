// System, light or dark: sets the theme of the page and remembers it. `first-paint.js` reads it back.

import { follow, write } from "../preferences.js";

class ThemeSwitch extends HTMLElement {
  connectedCallback() {
    this.#show(document.documentElement.dataset.theme);
    this.addEventListener("change", ({ target }) => {
      this.#show(target.value);
      write("theme", target.value);
    });
    follow("theme", (theme) => this.#show(theme));
  }

  #show(theme) {
    const input = [...this.querySelectorAll("input")].find(({ value }) => value === theme);
    if (!input) return;
    input.checked = true;
    document.documentElement.dataset.theme = theme;
    for (const meta of document.querySelectorAll("[name=theme-color]")) {
      const own = meta.dataset.for;
      meta.media = theme === "system" ? `(prefers-color-scheme: ${own})` : theme === own ? "all" : "not all";
    }
  }
}

customElements.define("theme-switch", ThemeSwitch);
