// Elements for those that draw themselves.

export function made(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Resolves once a sheet is there, or will not come: what is undressed can be used, too. */
export function dressed(href) {
  if (document.querySelector(`link[href="${href}"]`)) return null;
  const sheet = made("link", { rel: "stylesheet", href });
  const come = new Promise((resolve) => (sheet.onload = sheet.onerror = resolve));
  document.head.append(sheet);
  return come;
}
