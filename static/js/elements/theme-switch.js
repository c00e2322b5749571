// System, light or dark: sets the theme of the page and remembers it. `first-paint.js` reads it back.

class ThemeSwitch extends HTMLElement {
  connectedCallback() {
    const chosen = document.documentElement.dataset.theme;
    [...this.querySelectorAll("input")].find(({ value }) => value === chosen)?.click();
    this.addEventListener("change", ({ target }) => this.#choose(target.value));
  }

  #choose(theme) {
    document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem("llmchat.theme", theme);
    } catch {
      // remembered for this page only
    }
  }
}

customElements.define("theme-switch", ThemeSwitch);
