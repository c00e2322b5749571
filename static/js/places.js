// Where the person was, for this tab: at which address of the chats, and where in each chat, in ids and shares, no pixels. Storage may be full or forbidden.

const KEY = "llmchat.places";
const PATH = "llmchat.path";
const MOST = 50; // chats; the ones left longest ago go first

function read() {
  try {
    const places = JSON.parse(sessionStorage.getItem(KEY));
    return places.filter(([id, place]) => typeof id === "string" && Array.isArray(place?.path));
  } catch {
    return [];
  }
}

/** `place` of a chat that was left; null where its end was in sight. */
export function readPlace(conversation) {
  return read().find(([id]) => id === conversation)?.[1] ?? null;
}

export function writePlace(conversation, place) {
  const others = read().filter(([id]) => id !== conversation);
  try {
    sessionStorage.setItem(KEY, JSON.stringify(place ? [...others, [conversation, place]].slice(-MOST) : others));
  } catch {
    // then the chat opens at its end
  }
}

/** The address of the chat that was left last; a new one where none was, or it is forgotten. */
export function lastPath() {
  try {
    return sessionStorage.getItem(PATH) ?? "/";
  } catch {
    return "/";
  }
}

export function notePath(path) {
  try {
    sessionStorage.setItem(PATH, path);
  } catch {
    // then it is led to a new chat
  }
}
