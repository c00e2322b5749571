// Lays out once, unseen and while nothing else is to be done, what answers are made of. Else the first heading, line of
// code or formula would have the browser look for its font in the middle of an answer. Loaded once the page works.

import { messageElement } from "./elements/chat-message.js";

const KINDS = [
  "<h3>a</h3>",
  "<h4>a</h4>",
  "<p><strong>a</strong> <em>a</em></p>",
  "<p><code>a</code></p>",
  "<ul><li>a</li></ul><ol><li>a</li></ol>",
  '<figure class="code"><pre><code><span class="k">a</span> <span class="c"># a</span></code></pre></figure>',
  '<div class="table"><table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table></div>',
  "<p><math><msup><mi>a</mi><mn>1</mn></msup></math></p>",
  '<div class="math"><math display="block"><mo>∫</mo><mfrac><mi>a</mi><mn>1</mn></mfrac></math></div>',
];

function layOut(html) {
  const place = document.createElement("div");
  place.className = "unseen";
  place.inert = true;
  place.append(messageElement({ id: "", role: "assistant", text: "a", html, state: "done" }));
  document.body.append(place);
  void place.offsetHeight;
  place.remove();
}

/** Begin with it, in browsers that tell when nothing else is to be done. */
export function warmUp(kinds = KINDS) {
  if (kinds.length === 0) return;
  globalThis.requestIdleCallback?.(() => {
    layOut(kinds[0]);
    warmUp(kinds.slice(1));
  });
}
