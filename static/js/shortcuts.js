// The keys of the page, in one table: the handler below, the sheet and docs/keyboard.md all read it.
// Event: `shortcut` (detail: the name of what is asked for). It does not know what becomes of that.

import { follow, read, write } from "./preferences.js";

export const MAC = /mac|iphone|ipad/i.test(navigator.userAgentData?.platform || navigator.platform);
const NAMES = {
  Mod: MAC ? ["⌘", "Command"] : ["Ctrl"],
  Shift: MAC ? ["⇧", "Shift"] : ["Shift"],
  Alt: MAC ? ["⌥", "Option"] : ["Alt"],
  Backspace: MAC ? ["⌫", "Delete"] : ["Backspace"],
  Escape: ["Esc"],
  ArrowUp: ["↑", "Arrow up"],
  ArrowDown: ["↓", "Arrow down"],
};
const CODES = { ";": "Semicolon" }; // Shift makes another character of it

// `in`: where alone it counts. What has no `act` is done by the element that has the focus, whatever the switch says.
export const SHORTCUTS = [
  { act: "new", keys: "Mod+Shift+O", words: "Start a new chat" },
  { act: "write", keys: "Shift+Escape", words: "Go to the message box" },
  { act: "search", keys: "Mod+K", words: "Search your chats" },
  { act: "search", keys: "/", words: "Search your chats, outside of boxes" },
  { act: "chats", keys: "Mod+Shift+S", words: "Show or hide the chats" },
  { act: "previous", keys: "Alt+ArrowUp", words: "Go to the message before" },
  { act: "next", keys: "Alt+ArrowDown", words: "Go to the message after" },
  { act: "answer", keys: "Mod+Shift+C", words: "Copy the last answer" },
  { act: "code", keys: "Mod+Shift+;", words: "Copy the last code" },
  { act: "delete", keys: "Mod+Shift+Backspace", words: "Delete this chat" },
  { act: "help", keys: "Mod+/", words: "Show or hide this list" },
  { act: "edit", keys: "ArrowUp", words: "Edit your last message", in: "the empty message box" },
  { keys: "Enter", words: "Send", in: "the message box" },
  { keys: "Shift+Enter", words: "Begin a new line", in: "the message box" },
  { keys: "Escape", words: "Stop the answer", in: "the message box" },
  { keys: "Mod+Enter", words: "Send or save what you edit", in: "its box" },
];

/** The keys of a shortcut as this device's keyboard has them: [what is seen, what is spoken where that differs]. */
export function keyNames(keys) {
  return keys.split("+").map((key) => NAMES[key] ?? [key]);
}

function isPressed({ keys }, event) {
  const parts = keys.split("+");
  const key = parts.at(-1);
  const has = (modifier) => parts.includes(modifier);
  if (has("Alt") !== event.altKey || has("Mod") !== (MAC ? event.metaKey : event.ctrlKey)) return false;
  if (MAC ? event.ctrlKey : event.metaKey) return false;
  if (has("Shift") !== event.shiftKey && key !== "/") return false; // which some keyboards have behind Shift
  if (event.key.toLowerCase() === key.toLowerCase() || (CODES[key] && event.code === CODES[key])) return true;
  return /^[A-Z]$/.test(key) && event.code === `Key${key}` && event.key > "~"; // a keyboard of another script
}

// A plain key belongs to what has the focus, but in the empty message box; one with Alt to a select, and on a Mac to words.
function isFree({ keys, in: where }, { target }) {
  if (keys === "/") return !target.matches("input, textarea, select");
  if (where) return target.id === "message" && target.value === "";
  if (!keys.startsWith("Alt")) return true;
  return !target.matches("select") && !(MAC && target.value);
}

export class Shortcuts extends EventTarget {
  #on = read("shortcuts") !== "off";

  constructor() {
    super();
    follow("shortcuts", (chosen) => (this.#on = chosen !== "off"));
    document.addEventListener("keydown", (event) => this.#pressed(event));
  }

  get on() {
    return this.#on;
  }

  set on(on) {
    this.#on = on;
    write("shortcuts", on ? "on" : "off");
  }

  #pressed(event) {
    if (!this.#on || event.defaultPrevented || event.isComposing || event.keyCode === 229) return;
    const found = SHORTCUTS.find((shortcut) => shortcut.act && isPressed(shortcut, event) && isFree(shortcut, event));
    if (!found) return;
    const dialog = document.querySelector("dialog[open]");
    if (dialog && !(found.act === "help" && dialog.matches("shortcut-sheet *"))) return;
    event.preventDefault();
    if (event.repeat && !found.keys.startsWith("Alt")) return;
    this.dispatchEvent(new CustomEvent("shortcut", { detail: found.act }));
  }
}
