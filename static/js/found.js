// Where in a message the words stand that a search has found, and a mark on them. It knows neither the search nor the
// conversation. Loaded when something was found, and not before.

const UNSHOWN = /[\s*_\u0060~#>|\\\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]/u; // blanks, what Markdown is written with, what nobody sees
const APART = "code-header, annotation"; // of a message's words, what is not
const FADE = 120; // px at the end of a folded message in which nothing is read
const ASIDE = 40; // px between a hit and the edge of a box that is scrolled sideways to it
const NAME = "found";

function bare(text) {
  return [...text].filter((character) => !UNSHOWN.test(character)).join("");
}

// The text of an element as it is compared, and of each of its units the place it has there.
function lettersOf(element) {
  const nodes = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  const places = [];
  let text = "";
  while (nodes.nextNode()) {
    const node = nodes.currentNode;
    if (node.parentElement.closest(APART)) continue;
    for (let at = 0; at < node.data.length; at++) {
      if (UNSHOWN.test(node.data[at])) continue;
      text += node.data[at];
      places.push({ node, at });
    }
  }
  return { text, places };
}

// How many units two texts have in common, from the first on.
function common(one, other) {
  let count = 0;
  while (count < one.length && one[count] === other[count]) count++;
  return count;
}

function reversed(text) {
  return text.split("").reverse().join("");
}

// Of all places where the words stand, the one whose surroundings are most like those that were told.
function placeOf(text, hit, before, after) {
  const back = reversed(before);
  let best = -1;
  let most = -1;
  for (let at = text.indexOf(hit); at >= 0; at = text.indexOf(hit, at + 1)) {
    const ahead = reversed(text.slice(Math.max(0, at - before.length), at));
    const alike = common(back, ahead) + common(after, text.slice(at + hit.length, at + hit.length + after.length));
    if (alike > most) [best, most] = [at, alike];
  }
  return best;
}

function rangeOf(element, { before, hit, after }) {
  const { text, places } = lettersOf(element);
  const letters = bare(hit);
  const at = letters ? placeOf(text, letters, bare(before), bare(after)) : -1;
  if (at < 0) return null;
  const range = document.createRange();
  const last = places[at + letters.length - 1];
  range.setStart(places[at].node, places[at].at);
  range.setEnd(last.node, last.at + 1);
  return range;
}

// A long message shows its beginning alone.
function unfold(message, words, range) {
  if (!message.matches("[data-long]:not([data-unfolded])")) return;
  if (range.getBoundingClientRect().bottom > words.getBoundingClientRect().bottom - FADE) message.querySelector(".unfold").click();
}

function scrollAside(message, range) {
  for (let box = range.startContainer.parentElement; box !== message; box = box.parentElement) {
    const hit = range.getBoundingClientRect();
    const { left, right } = box.getBoundingClientRect();
    if (box.scrollWidth > box.clientWidth && (hit.left < left || hit.right > right)) box.scrollLeft += hit.left - left - ASIDE;
  }
}

function highlight(message, range) {
  if (!globalThis.Highlight) return;
  CSS.highlights.set(NAME, new Highlight(range));
  message.toggleAttribute("data-marked", true);
  const clear = () => {
    CSS.highlights.delete(NAME);
    message.toggleAttribute("data-marked", false);
  };
  addEventListener("click", clear, { once: true, capture: true });
}

/** Mark what was found, {before, hit, after}, in a message. Tells where it stands; null where it is not to be found. */
export function markFound(message, match) {
  const words = message.querySelector(".words, .blocks");
  const range = words?.checkVisibility() ? rangeOf(words, match) : null;
  if (!range) return null;
  unfold(message, words, range);
  scrollAside(message, range);
  highlight(message, range);
  return range;
}
