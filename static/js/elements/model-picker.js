// Which model answers: a choice where several are on offer, else its name.
// Event: `change`, of the select, when a person chose another. It does not know who is told of the choice.

class ModelPicker extends HTMLElement {
  #select;
  #name;

  connectedCallback() {
    this.#select = this.querySelector("select");
    this.#name = this.querySelector("span");
  }

  /** The id of the chosen model; "" where there is no choice. */
  get value() {
    return this.#select.hidden ? "" : this.#select.value;
  }

  /** What is on offer, in the protocol's shape. */
  get models() {
    return [...this.#select.options].map(({ value, text }) => ({ id: value, label: text }));
  }

  /** Choose a model. One that is not on offer changes nothing. */
  choose(id) {
    if ([...this.#select.options].some(({ value }) => value === id)) this.#select.value = id;
  }

  /** Take over what is on offer, the default first. What is chosen stays chosen, where it can. */
  offer(models) {
    const shown = [...this.#select.options];
    const same = shown.length === models.length && models.every(({ id, label }, at) => shown[at].value === id && shown[at].text === label);
    if (same) return; // a list that is open under a person's hand stays so
    const { value } = this.#select;
    this.#select.replaceChildren(...models.map(({ id, label }) => new Option(label, id)));
    this.choose(value);
    this.#select.hidden = models.length < 2;
    this.#name.hidden = models.length > 1;
    this.#name.textContent = models[0].label;
  }
}

customElements.define("model-picker", ModelPicker);
