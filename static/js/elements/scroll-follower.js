// Decides whether a scrolling box follows the end of its growing words, and does so; else it keeps what is read where it
// is, as it does while there is free room below the words. It knows no messages. Every position it writes is remembered:
// a scroll event at another position is the reader's own.

import { placeIn, recordedPlace } from "./reading-place.js";

const NEAR = 60;
const FAR = 200;
const UPWARD = 3;
const DRAG = 10;
const SHOWN = 80; // px of what is shown that are below the upper edge: what is at its end can be pressed
const still = matchMedia("(prefers-reduced-motion: reduce)");
const KEYS_UP = ["PageUp", "Home", "ArrowUp"];

export class ScrollFollower {
  gliding = false; // the content grows by what is written, rather than because it is drawn otherwise
  #box;
  #content;
  #free;
  #changed;
  #pinned = true;
  #resting = false; // the end is followed again once what begins there has words
  #returning = false; // it was left for what is edited, and nobody has gone elsewhere since
  #place = null; // what is read, unless the end of the words is at the lower edge and followed
  #written = 0;
  #last = 0;
  #touch = 0;
  #frame = 0;

  /** `free` tells the px kept free below the words; `changed` is called with {pinned, distance} whenever either may have changed. */
  constructor(box, content, free, changed) {
    this.#box = box;
    this.#content = content;
    this.#free = free;
    this.#changed = changed;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    box.addEventListener("wheel", (event) => this.#wheeled(event), { passive: true });
    box.addEventListener("touchstart", ({ touches }) => (this.#touch = touches[0].clientY), { passive: true });
    box.addEventListener("touchmove", ({ touches, target }) => touches[0].clientY - this.#touch >= DRAG && this.#left(target), { passive: true });
    box.addEventListener("keydown", (event) => event.target.matches("textarea, input, select") || this.#pressed(event));
    document.addEventListener("selectionchange", () => this.#selected());
    const observer = new ResizeObserver((entries) => this.#resized(entries));
    observer.observe(content);
    observer.observe(box);
  }

  get pinned() {
    return this.#pinned;
  }

  /** How far below the lower edge the words end; negative where free room is in sight. */
  get distance() {
    return this.#end - this.#free() - this.#box.scrollTop;
  }

  get #end() {
    return this.#box.scrollHeight - this.#box.clientHeight;
  }

  /** What is at the upper edge: {element, record}, the element a child of the content. Null where there is nothing. */
  get place() {
    const place = this.#pinned ? placeIn(this.#box, this.#content) : this.#place;
    return place && { element: place.outermost, record: place.record };
  }

  /** Go to the end of the words at once and follow it; `room`: to that of the free room. */
  snap(room = false) {
    this.#pin();
    this.#write(room ? this.#end : this.#box.scrollTop + this.distance);
    this.#look();
    this.#tell();
  }

  /** Stay here, whatever grows below. */
  stay() {
    this.#pinned = this.#returning = false;
    this.rest();
    this.#tell();
  }

  /** Stay here until `resume`, from when on the end is followed by whoever followed it. */
  rest() {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    this.#resting = true;
    this.#look();
  }

  resume() {
    this.#resting = false;
  }

  #pin() {
    this.#pinned = true;
    this.#resting = this.#returning = false;
  }

  /** Keep what is being read where it is, or the end in sight, while `change` alters what stands around it. */
  hold(change) {
    if (this.#place && this.#scrolling) this.#look();
    if (!this.#pinned) this.#last = this.#box.scrollTop; // that is where what is read is now
    change();
    this.#settle();
  }

  /** Leave the end, and show an element at a height. `returns`: until `back`, if nobody goes elsewhere meanwhile. */
  showAt(element, top, returns = false) {
    returns &&= this.#pinned || this.#returning;
    this.#unpin();
    this.#returning = returns;
    const edge = this.#box.getBoundingClientRect().top;
    this.#draw(element, top - edge);
    const { top: now, height } = element.getBoundingClientRect();
    this.#write(this.#box.scrollTop + now - Math.max(top, edge + Math.min(height, SHOWN) - height)); // not wholly above the edge
    this.#look();
  }

  // What was never drawn has a height that is guessed: what is to stand above an element gets its own before that counts.
  #draw(element, above) {
    const drawn = [];
    let child = element;
    while (child.parentElement !== this.#content) child = child.parentElement;
    for (; child; child = child.previousElementSibling) {
      child.style.contentVisibility = "visible";
      drawn.push(child);
      if (!child.contains(element)) above -= child.getBoundingClientRect().height;
      if (above <= 0) break;
    }
    const ready = () => drawn.forEach(({ style }) => (style.contentVisibility = ""));
    requestAnimationFrame(() => requestAnimationFrame(ready));
  }

  back() {
    if (this.#returning) this.#pin();
    this.#settle();
  }

  /** Leave the end, and go to where `place` was, in this element. */
  goTo(element, record) {
    this.stay();
    this.#place = recordedPlace(this.#box, element, record);
    this.#settle();
  }

  #look() {
    const follows = this.#pinned && !this.#resting && this.distance > -1;
    this.#place = follows ? null : placeIn(this.#box, this.#content);
  }

  // Before the frame is painted: what was read has not moved for the eye.
  #resized(entries) {
    const grown = entries.every(({ target }) => target === this.#content);
    if (this.#pinned && !this.#resting && (this.gliding || this.#frame) && grown && this.distance > 0) this.#glide();
    else this.#settle();
  }

  #settle() {
    const drift = this.#drift;
    if (Math.abs(drift) < 1) this.#write(this.#box.scrollTop); // the browser itself may have kept it in place
    else if (this.#pinned || !this.#scrolling) this.#write(this.#box.scrollTop + drift);
    if (this.#pinned) this.#look();
    else if (!this.#scrolling && Math.abs(this.#drift) < 1) this.#place?.kept();
    this.#tell();
  }

  get #drift() {
    const drift = this.#place ? this.#place.drift : this.#pinned ? this.distance : 0;
    return this.#pinned && !this.#resting ? Math.max(drift, this.distance) : drift;
  }

  // It stands elsewhere than it was left, and the event that tells so is still to come.
  get #scrolling() {
    return this.#box.scrollTop !== this.#last;
  }

  #glide() {
    cancelAnimationFrame(this.#frame);
    this.#place = null;
    if (still.matches) return this.#write(this.#box.scrollTop + this.distance);
    this.#frame = requestAnimationFrame(() => {
      this.#frame = 0;
      if (!this.#pinned) return;
      const { distance } = this;
      this.#write(this.#box.scrollTop + (distance < 2 || distance > FAR ? distance : Math.max(1, distance * 0.28)));
      if (distance >= 2) this.#glide();
    });
  }

  #write(position) {
    if (position !== this.#box.scrollTop) this.#box.scrollTop = position;
    this.#written = this.#last = this.#box.scrollTop;
  }

  #scrolled() {
    const position = this.#box.scrollTop;
    if (this.#pinned && position === this.#written && position === this.#last) return;
    if (Math.abs(position - this.#written) >= 2) this.#moved(position - this.#last);
    if (position !== this.#last) this.#look();
    this.#last = position;
    this.#tell();
  }

  #moved(by) {
    if (by <= -UPWARD && this.#end - this.#box.scrollTop > 1) this.#unpin();
    else if (by > 0) this.#pinNear();
  }

  // The wheel also makes text larger, and goes sideways.
  #wheeled({ deltaY, ctrlKey, shiftKey, target }) {
    if (ctrlKey || shiftKey) return;
    if (deltaY < 0) this.#left(target);
    else if (deltaY > 0) this.#pinNear();
  }

  // A box inside takes it for as long as there is something above in it.
  #left(target) {
    for (let inner = target; inner !== this.#box; inner = inner.parentElement) if (inner.scrollTop > 0) return;
    this.#unpin();
  }

  // Chromium, left to itself, now and then does nothing on End in a box that was just scrolled a long way.
  #pressed(event) {
    const { key, target, shiftKey, altKey, metaKey, defaultPrevented } = event;
    if (KEYS_UP.includes(key)) this.#left(target);
    if (key !== "End" || shiftKey || altKey || metaKey || defaultPrevented) return;
    for (let inner = target; inner !== this.#box; inner = inner.parentElement) if (goesDown(inner)) return;
    event.preventDefault();
    this.snap();
  }

  #pinNear() {
    if (this.distance >= NEAR) return;
    this.#pin();
    this.#tell();
  }

  #selected() {
    const selection = document.getSelection();
    if (this.#pinned && !selection.isCollapsed && this.#box.contains(selection.anchorNode)) this.#unpin();
  }

  #unpin() {
    if (this.#end >= 1) this.stay();
  }

  #tell() {
    this.#changed({ pinned: this.#pinned, distance: this.distance });
  }
}

function goesDown(element) {
  const { scrollTop, scrollHeight, clientHeight } = element;
  return scrollHeight - clientHeight - scrollTop > 1 && ["auto", "scroll"].includes(getComputedStyle(element).overflowY);
}

export { FAR, NEAR };
