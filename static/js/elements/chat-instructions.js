// What a new chat's first message takes with it: a system prompt, and how the model is asked. Event: `chosen` (detail:
// {system?, parameters?}), with each change. It does not know what becomes of them. It is loaded when it is asked for, and
// draws itself.

import { dressed, made } from "./made.js";

const WHAT = "For this new chat, from your first message on. Later you find them in the settings of the chat.";
const SHEET = new URL("../../css/elements/chat-instructions.css", import.meta.url).href;
const NUMBER = /^\d*[.,]?\d+$/;
// The words and the bounds of the page of a chat's settings.
const NUMBERS = [
  { name: "temperature", label: "Temperature", words: "0 to 2: low is steady, high is free", fits: (number) => number <= 2, problem: "Temperature is a number from 0 to 2, or empty." },
  { name: "top_p", label: "Top p", words: "above 0, up to 1", fits: (number) => number > 0 && number <= 1, problem: "Top p is a number above 0, up to 1, or empty." },
  { name: "max_tokens", label: "Longest answer", words: "in tokens", fits: (number) => Number.isInteger(number) && number >= 1 && number <= 1_000_000, problem: "Longest answer is a whole number from 1 to 1,000,000, or empty." },
];

/** Let instructions be written: `chosen` is what there is, `limit` the most characters, `choose` is told of each change. */
export async function openInstructions(chosen, limit, choose) {
  await dressed(SHEET);
  const element = document.createElement("chat-instructions");
  element.addEventListener("chosen", ({ detail }) => choose(detail));
  document.body.append(element);
  element.open(chosen, limit);
}

class ChatInstructions extends HTMLElement {
  #limit = Infinity;
  #dialog = made("dialog", { "aria-labelledby": "instructions" });
  #system = made("textarea", { id: "instructions-system", rows: "5", dir: "auto", placeholder: "Empty: the default system prompt", "aria-describedby": "instructions-problem" });
  #numbers = new Map(NUMBERS.map(({ name }) => [name, made("input", { type: "text", inputmode: "decimal", id: `instructions-${name}`, autocomplete: "off", "aria-describedby": `instructions-${name}-words instructions-problem` })]));
  #problem = made("p", { role: "alert", id: "instructions-problem" });

  connectedCallback() {
    const heading = made("h2", { id: "instructions", tabindex: "-1", autofocus: "" }, "Instructions");
    const label = made("label", { for: this.#system.id }, "System prompt: what the model is told before the chat");
    const left = made("p", { class: "what" }, "A number that is left empty is the model’s server’s own.");
    const clear = made("button", { type: "button", class: "text-button" }, "Clear");
    const choices = made("p", { class: "choices" }, clear, made("button", { class: "text-button strong" }, "Done"));
    const form = made("form", { novalidate: "" });
    form.append(heading, made("p", { class: "what" }, WHAT), label, this.#system, this.#fields(), left, this.#problem, choices);
    this.#dialog.append(form);
    this.append(this.#dialog);
    clear.addEventListener("click", () => this.#clear());
    form.addEventListener("input", () => this.#tell());
    form.addEventListener("submit", (event) => this.#done(event));
    this.#dialog.addEventListener("keydown", (event) => this.#pressed(event));
    this.#dialog.addEventListener("close", () => this.remove());
  }

  /** Show what there is, to be changed. */
  open({ system = "", parameters = {} }, limit) {
    this.#limit = limit;
    this.#system.value = system;
    for (const [name, field] of this.#numbers) field.value = parameters[name] ?? "";
    this.#dialog.showModal();
  }

  #fields() {
    const field = ({ name, label, words }) => {
      const input = this.#numbers.get(name);
      return made("div", {}, made("label", { for: input.id }, label), input, made("small", { id: `${input.id}-words` }, words));
    };
    return made("div", { class: "numbers" }, ...NUMBERS.map(field));
  }

  // The numbers that are written, by name; null where one is not what it has to be.
  #read({ name, fits }) {
    const words = this.#numbers.get(name).value.trim();
    const number = NUMBER.test(words) ? Number(words.replace(",", ".")) : NaN;
    return words ? (fits(number) ? number : null) : undefined;
  }

  // What counts is told at once: it is not lost, however the dialog is closed.
  #tell() {
    this.#complain("");
    const read = NUMBERS.map((each) => [each.name, this.#read(each)]).filter(([, number]) => Number.isFinite(number));
    const system = this.#system.value.trim().toWellFormed?.() ?? this.#system.value.trim();
    const detail = { system: system || undefined, parameters: read.length > 0 ? Object.fromEntries(read) : undefined };
    this.dispatchEvent(new CustomEvent("chosen", { detail }));
  }

  #clear() {
    for (const field of [this.#system, ...this.#numbers.values()]) field.value = "";
    this.#tell();
    this.#system.focus();
  }

  #done(event) {
    event.preventDefault();
    const over = [...this.#system.value.trim()].length - this.#limit;
    if (over > 0) return this.#complain(`The system prompt is ${over.toLocaleString("en")} characters too long. Shorten it.`, this.#system);
    const wrong = NUMBERS.find((each) => this.#read(each) === null);
    if (wrong) return this.#complain(wrong.problem, this.#numbers.get(wrong.name));
    this.#dialog.close();
  }

  #complain(words, field) {
    this.#problem.textContent = words;
    for (const each of [this.#system, ...this.#numbers.values()]) {
      if (each === field) each.setAttribute("aria-invalid", "true");
      else each.removeAttribute("aria-invalid");
    }
    field?.focus();
  }

  // Escape is for the dialog alone, not for an answer behind it.
  #pressed(event) {
    if (event.key === "Escape") event.stopPropagation();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.querySelector("form").requestSubmit();
  }
}

customElements.define("chat-instructions", ChatInstructions);
