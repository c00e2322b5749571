// What must be known before the first paint: the theme and whether the chats are shown.
// A classic script on purpose: modules run too late. It knows nothing else of the page.
try {
  const { dataset } = document.documentElement;
  dataset.theme = localStorage.getItem("llmchat.theme") ?? "system";
  dataset.chats = localStorage.getItem("llmchat.chats") ?? "open";
} catch {
  document.documentElement.dataset.chats = "open"; // storage may be forbidden
}
