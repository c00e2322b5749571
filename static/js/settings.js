// The settings and the options of a chat, where scripts run: the theme, what is copied, days as the reader tells them.
// All else is forms.

import "./elements/theme-switch.js";
import { copyFrom } from "./clipboard.js";

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

for (const time of document.querySelectorAll("time")) time.textContent = DAY.format(new Date(time.dateTime));
for (const field of document.querySelectorAll("[readonly]")) field.addEventListener("focus", () => field.select());
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copyFrom(button, button.dataset.copy, "Copied"));
}
document.addEventListener("copied", ({ detail }) => (document.querySelector("#said").textContent = detail));
document.documentElement.dataset.live = ""; // see first-paint.js
