// What must be known before the first paint: that scripts run, the theme, and whether the chats are shown.
// A classic script on purpose: modules run too late. It knows nothing else of the page.
document.documentElement.dataset.js = "";
try {
  const { dataset } = document.documentElement;
  dataset.theme = localStorage.getItem("llmchat.theme") ?? "system";
  dataset.chats = localStorage.getItem("llmchat.chats") ?? "open";
} catch {
  document.documentElement.dataset.chats = "open"; // storage may be forbidden
}

// Where the scripts come at once, nothing is painted before they have put the reader where the reader was; it is not
// waited longer for them.
setTimeout(() => document.querySelector("[blocking]")?.removeAttribute("blocking"), 300);

// The modules run before the page is loaded. Where they have not taken it over by then, they did not come, or they broke:
// the page is as without scripts, and looks for more of a running answer by itself, unless one is writing.
addEventListener("load", () => {
  const { dataset } = document.documentElement;
  if ("live" in dataset) return;
  delete dataset.js;
  dataset.chats = "open";
  const seconds = Number(document.body.dataset.renews);
  if (seconds) setTimeout(() => document.querySelector("#message").value || location.replace(location.pathname), seconds * 1000);
});
