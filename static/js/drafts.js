// What was typed and not sent, per conversation, kept in this browser. Storage may be full or forbidden: then it is not kept.
// And what the new chat of this tab is known by, over reloads, until it has an id.

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

/** A draft with a text put before it, unless it stands there already. */
export function before(draft, text) {
  if (!text) return draft;
  if (`${draft.trim()}\n`.startsWith(`${text}\n`)) return draft;
  return draft ? `${text}\n\n${draft}` : text;
}

export function writeDraft(conversation, text) {
  try {
    if (text) localStorage.setItem(keyOf(conversation), text);
    else localStorage.removeItem(keyOf(conversation));
  } catch {
    // a draft is a courtesy
  }
}

const filesKeyOf = (conversation) => `llmchat.draft-files.${conversation || "new"}`;

/** The files that go with a draft. */
export function readFiles(conversation) {
  try {
    const files = JSON.parse(localStorage.getItem(filesKeyOf(conversation)) ?? "[]");
    return files.filter(({ key, id, name, type }) => [key ?? id, name, type].every((each) => typeof each === "string"));
  } catch {
    return [];
  }
}

export function writeFiles(conversation, files) {
  try {
    if (files.length > 0) localStorage.setItem(filesKeyOf(conversation), JSON.stringify(files));
    else localStorage.removeItem(filesKeyOf(conversation));
  } catch {
    // a draft is a courtesy
  }
}

const editKeyOf = (message) => `llmchat.edit.${message}`;

/** What a message is being changed to in this tab; null where it is not. */
export function readEdit(message) {
  try {
    return sessionStorage.getItem(editKeyOf(message));
  } catch {
    return null;
  }
}

export function writeEdit(message, text) {
  try {
    if (text === null) for (const keyOf of [editKeyOf, leftOutKeyOf]) sessionStorage.removeItem(keyOf(message));
    else sessionStorage.setItem(editKeyOf(message), text);
  } catch {
    // a draft is a courtesy
  }
}

const leftOutKeyOf = (message) => `llmchat.left-out.${message}`;

/** The ids of the files that an edit leaves out. */
export function readLeftOut(message) {
  try {
    return sessionStorage.getItem(leftOutKeyOf(message))?.split(" ") ?? [];
  } catch {
    return [];
  }
}

export function writeLeftOut(message, ids) {
  try {
    sessionStorage.setItem(leftOutKeyOf(message), ids.join(" "));
  } catch {
    // a draft is a courtesy
  }
}

const INSTRUCTIONS_KEY = "llmchat.instructions";

/** What the first prompt of this tab's new chat takes with it: {system?, parameters?}. */
export function readInstructions() {
  try {
    return JSON.parse(sessionStorage.getItem(INSTRUCTIONS_KEY)) ?? {};
  } catch {
    return {};
  }
}

export function writeInstructions(chosen) {
  try {
    sessionStorage.setItem(INSTRUCTIONS_KEY, JSON.stringify(chosen));
  } catch {
    // a draft is a courtesy
  }
}

const CHAT_KEY = "llmchat.chat";

export function readChatKey() {
  try {
    return sessionStorage.getItem(CHAT_KEY);
  } catch {
    return null;
  }
}

export function writeChatKey(key) {
  try {
    sessionStorage.setItem(CHAT_KEY, key);
  } catch {
    // then a prompt that could not be sent is sent from another page
  }
}
