// What was typed and not sent, per conversation, kept in this browser. Storage may be full or forbidden: then it is not kept.

const keyOf = (conversation) => `llmchat.draft.${conversation || "new"}`;

export function readDraft(conversation) {
  try {
    return localStorage.getItem(keyOf(conversation)) ?? "";
  } catch {
    return "";
  }
}

export function writeDraft(conversation, text) {
  try {
    if (text) localStorage.setItem(keyOf(conversation), text);
    else localStorage.removeItem(keyOf(conversation));
  } catch {
    // a draft is a courtesy
  }
}
