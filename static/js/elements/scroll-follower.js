// Decides whether a scrolling box follows its growing content, and does so. It knows no messages.
// Every position it writes is remembered: a scroll event at another position is the reader's own.

const NEAR = 60;
const FAR = 200;
const UPWARD = 3;
const DRAG = 10;

export class ScrollFollower {
  #box;
  #changed;
  #pinned = true;
  #written = 0;
  #last = 0;
  #touch = 0;
  #frame = 0;

  /** `changed` is called with {pinned, distance} whenever either may have changed. */
  constructor(box, content, changed) {
    this.#box = box;
    this.#changed = changed;
    box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    box.addEventListener("wheel", ({ deltaY }) => deltaY < 0 && this.#unpin(), { passive: true });
    box.addEventListener("touchstart", ({ touches }) => (this.#touch = touches[0].clientY), { passive: true });
    box.addEventListener("touchmove", ({ touches }) => touches[0].clientY - this.#touch >= DRAG && this.#unpin(), { passive: true });
    box.addEventListener("keydown", ({ key }) => ["PageUp", "Home", "ArrowUp"].includes(key) && this.#unpin());
    document.addEventListener("selectionchange", () => this.#selected());
    const observer = new ResizeObserver(() => this.#grown());
    observer.observe(content);
    observer.observe(box);
  }

  get pinned() {
    return this.#pinned;
  }

  get distance() {
    return this.#end - this.#box.scrollTop;
  }

  get #end() {
    return this.#box.scrollHeight - this.#box.clientHeight;
  }

  /** Go to the end at once and stay there. */
  snap() {
    this.#pinned = true;
    this.#write(this.#end);
    this.#tell();
  }

  /** Stay here, whatever grows below. */
  stay() {
    this.#pinned = false;
    cancelAnimationFrame(this.#frame);
    this.#tell();
  }

  /** Keep what is being read where it is, while `change` alters what stands above it. */
  hold(change) {
    const before = this.#box.scrollHeight - this.#box.scrollTop;
    change();
    this.#write(this.#box.scrollHeight - before);
  }

  /** Keep an element where it is seen, while `change` alters what stands around it. */
  keep(element, change) {
    const before = element.getBoundingClientRect().top;
    change();
    if (element.isConnected) this.#write(this.#box.scrollTop + element.getBoundingClientRect().top - before);
  }

  /** Leave the end, and show an element at a height. */
  showAt(element, top) {
    this.#unpin();
    this.#write(this.#box.scrollTop + element.getBoundingClientRect().top - top);
  }

  #grown() {
    if (this.#pinned) this.#glide();
    else this.#tell();
  }

  #glide() {
    cancelAnimationFrame(this.#frame);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return this.#write(this.#end);
    this.#frame = requestAnimationFrame(() => {
      if (!this.#pinned) return;
      const distance = this.distance;
      this.#write(distance < 2 || distance > FAR ? this.#end : this.#box.scrollTop + Math.max(1, distance * 0.28));
      if (distance >= 2) this.#glide();
    });
  }

  #write(position) {
    this.#box.scrollTop = position;
    this.#written = this.#last = this.#box.scrollTop;
  }

  #scrolled() {
    const position = this.#box.scrollTop;
    if (Math.abs(position - this.#written) >= 2) this.#moved(position - this.#last);
    this.#last = position;
    this.#tell();
  }

  #moved(by) {
    if (by <= -UPWARD && this.distance > 1) this.#unpin();
    else if (by > 0 && this.distance < NEAR) this.#pinned = true;
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

export { FAR, NEAR };
