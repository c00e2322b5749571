// The settings, of a chat and of all, where scripts run: the way back, the theme, what is copied, days as the reader tells
// them. All else is forms.

import "./elements/theme-switch.js";
import { copyFrom } from "./clipboard.js";
import { lastPath, notePath } from "./places.js";

const DAY = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

if (document.querySelector("[data-forgotten]")) notePath("/");
for (const link of document.querySelectorAll("[data-back]")) link.setAttribute("href", lastPath());
for (const time of document.querySelectorAll("time")) time.textContent = DAY.format(new Date(time.dateTime));
for (const field of document.querySelectorAll("[readonly]")) field.addEventListener("focus", () => field.select());
for (const button of document.querySelectorAll("[data-copy]")) {
  button.addEventListener("click", () => copyFrom(button, button.dataset.copy, "Copied"));
}
document.addEventListener("copied", ({ detail }) => (document.querySelector("#said").textContent = detail));
document.documentElement.dataset.live = ""; // see first-paint.js
