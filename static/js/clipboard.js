// Puts text on the clipboard, also where the page came over plain http and the modern way is missing.

function copySelected(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "unseen";
  document.body.append(area);
  area.select();
  try {
    return document.execCommand("copy");
  } finally {
    area.remove();
  }
}

/** True if the text is on the clipboard now. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelected(text);
  }
}

const SHOWN_MILLISECONDS = 2000;

function mark(button, copied) {
  button.toggleAttribute("data-copied", copied);
  if (!button.firstElementChild) button.textContent = copied ? "Copied" : "Copy"; // it has no icon to tell by
}

/** Copy for a button: it carries `data-copied` for a while, and `copied` bubbles from it for who announces things. */
export async function copyFrom(button, text, said) {
  if (!(await copyText(text))) return;
  mark(button, true);
  setTimeout(() => mark(button, false), SHOWN_MILLISECONDS);
  button.dispatchEvent(new CustomEvent("copied", { bubbles: true, detail: said }));
}
