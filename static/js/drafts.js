// What was typed and not sent, per conversation, kept in this browser. Storage may be full or forbidden: then it is not kept.

const keyOf = (conversation) => `llmchat.draft.${conversation || "new"}`;

export function readDraft(conversation) {
  try {
    return localStorage.getItem(keyOf(conversation)) ?? "";
  } catch {
    return "";
  }
}

/** What is left of a draft when a text that it began with was taken. */
export function behind(draft, text) {
  const typed = draft.trimStart();
  return typed.startsWith(text) ? typed.slice(text.length).trimStart() : draft;
}

export function writeDraft(conversation, text) {
  try {
    if (text) localStorage.setItem(keyOf(conversation), text);
    else localStorage.removeItem(keyOf(conversation));
  } catch {
    // a draft is a courtesy
  }
}
