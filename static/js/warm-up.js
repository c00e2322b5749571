// Draws once, unseen and while nothing else is to be done, what answers are made of. Else the first heading, line of code
// or formula would have the browser look for its font in the middle of an answer. Loaded once the page works.

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

function draw(html) {
  const answer = messageElement({ id: "", role: "assistant", text: "a", html, state: "done" });
  answer.className = "unseen";
  answer.inert = true;
  document.querySelector("chat-transcript").append(answer);
  void answer.offsetHeight;
  answer.remove();
}

function drawFrom(index) {
  draw(KINDS[index]);
  if (index + 1 < KINDS.length) requestIdleCallback(() => drawFrom(index + 1));
}

globalThis.requestIdleCallback?.(() => drawFrom(0));
