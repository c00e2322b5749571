// Where the eye is in a scrolling box: what stands at its upper edge, and how far from it. Found again when all around
// has changed its height, also where that was the text itself. It does not scroll.

const MANY = 24; // children from which on halving is quicker than looking at each

/** The place at the upper edge of a box; null where there is nothing. */
export function placeIn(box, content) {
  const edge = box.getBoundingClientRect().top;
  const spots = [];
  for (let element = childAt(content, edge); element; element = childAt(element, edge)) {
    spots.push(spotOf(element, edge));
    if (spots.at(-1).top >= 0) break;
  }
  return spots.length > 0 ? new ReadingPlace(box, spots) : null;
}

/** The place in an element that `record` told of it earlier, perhaps on another page. */
export function recordedPlace(box, element, { path, top, share }) {
  let inner = element;
  for (const index of path) inner = inner.children[index] ?? inner;
  const around = spotOf(element, box.getBoundingClientRect().top);
  return new ReadingPlace(box, [around, { element: inner, top: share ? -share * inner.getBoundingClientRect().height : top, share }]);
}

class ReadingPlace {
  #box;
  #width;
  #spots; // {element, top, share}, from the outermost inwards: an inner one may be drawn anew

  constructor(box, spots) {
    this.#box = box;
    this.#width = box.clientWidth;
    this.#spots = spots;
  }

  /** The child of the content that it is in. */
  get outermost() {
    return this.#spots[0].element;
  }

  /** How far what stood at the edge has moved since: positive where it is further down. */
  get drift() {
    const spot = this.#inner;
    if (!spot) return 0;
    const { top, height } = spot.element.getBoundingClientRect();
    // Of text that is broken into other lines, the same share stands above the edge.
    if (this.#width !== this.#box.clientWidth && spot.share) spot.top = -spot.share * height;
    this.#width = this.#box.clientWidth;
    return top - this.#box.getBoundingClientRect().top - spot.top;
  }

  /** It stands where it was: what it is in may reach further up or less far by now. */
  kept() {
    const { top } = this.#box.getBoundingClientRect();
    for (const spot of this.#spots) if (spot !== this.#inner && spot.element.offsetHeight) Object.assign(spot, spotOf(spot.element, top));
  }

  get #inner() {
    return this.#spots.findLast(({ element }) => element.isConnected);
  }

  /** Itself without elements or pixels of text, to be kept: indices from the outermost inwards, and a share or a distance. */
  get record() {
    const path = [];
    const { element, top, share } = this.#spots.findLast(({ element }) => this.outermost.contains(element));
    for (let inner = element; inner !== this.outermost; inner = inner.parentElement) path.unshift([...inner.parentElement.children].indexOf(inner));
    return { path, top, share };
  }
}

function spotOf(element, edge) {
  const box = element.getBoundingClientRect();
  const top = box.top - edge;
  return { element, top, share: top < 0 ? -top / box.height : 0 };
}

// Children stand below each other: the first one that reaches over the edge.
function childAt({ children }, edge) {
  let low = 0;
  let high = children.length;
  while (high - low > MANY) {
    const middle = (low + high) >> 1;
    if (children[middle].getBoundingClientRect().bottom > edge) high = middle + 1;
    else low = middle + 1;
  }
  for (let index = low; index < children.length; index++) if (reaches(children[index], edge)) return children[index];
  return null;
}

function reaches(element, edge) {
  const { bottom, height } = element.getBoundingClientRect();
  return height > 1 && bottom > edge && !["sticky", "absolute"].includes(getComputedStyle(element).position);
}
