// The blocks of one answer, by their number. The first ones are children of its element; later ones stand in sections, so
// that the browser has little to look at in each frame, however long an answer is.

const LOOSE = 32; // blocks that stand in no section: most answers have fewer
const SIZE = 16; // blocks in a section

export class BlockList {
  #element;

  constructor(element) {
    this.#element = element;
    this.#group(element);
  }

  get size() {
    const { length } = this.parts;
    return length <= LOOSE ? length : LOOSE + (length - LOOSE - 1) * SIZE + this.parts[length - 1].children.length;
  }

  get last() {
    return this.at(this.size - 1);
  }

  /** What stands one below the other: single blocks, then sections. */
  get parts() {
    return this.#element.children;
  }

  at(index) {
    const part = this.parts[this.partOf(index)];
    return index < LOOSE ? part : part?.children[(index - LOOSE) % SIZE];
  }

  /** The number of the part that a block is in, or will be. */
  partOf(index) {
    return index < LOOSE ? index : LOOSE + Math.floor((index - LOOSE) / SIZE);
  }

  /** Put what a fragment has in place of everything. */
  fill(blocks) {
    this.#group(blocks);
    this.#element.replaceChildren(blocks);
  }

  /** Put a block in place of another, or at the end. */
  put(index, block) {
    const old = this.at(index);
    if (!old) return this.append(block);
    old.replaceWith(block);
    const { parentElement: part, nextElementSibling: after } = block;
    const next = after ?? part.nextElementSibling;
    if (next?.matches("[data-section]")) next.dataset.section = block.localName;
  }

  append(block) {
    place(block, this.#element);
  }

  remove(block) {
    const part = block.parentElement;
    block.remove();
    if (part?.matches("[data-section]:empty")) part.remove();
  }

  #group(parent) {
    const later = [...parent.children].slice(LOOSE);
    for (const block of later) block.remove();
    for (const block of later) place(block, parent);
  }
}

function place(block, parent) {
  const { length } = parent.children;
  if (length < LOOSE) return parent.append(block);
  const last = parent.lastElementChild;
  if (length > LOOSE && last.children.length < SIZE) return last.append(block);
  const section = document.createElement("div");
  section.dataset.section = (length > LOOSE ? last.lastElementChild : last).localName; // of the block before it
  section.append(block);
  parent.append(section);
}
