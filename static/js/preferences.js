// What a person chose in this browser: kept over reloads, and the same in all its tabs. `first-paint.js` reads it, too.

const nameOf = (name) => `llmchat.${name}`;

/** What was chosen; null where nothing was. */
export function read(name) {
  try {
    return localStorage.getItem(nameOf(name));
  } catch {
    return null;
  }
}

export function write(name, value) {
  try {
    localStorage.setItem(nameOf(name), value);
  } catch {
    // remembered for this page only
  }
}

/** Take over what is chosen in another tab. */
export function follow(name, take) {
  addEventListener("storage", ({ key, newValue }) => key === nameOf(name) && newValue && take(newValue));
}
