// The composition of the page: makes the parts, gives them to each other, starts. It holds no rule of its own.

import "./elements/code-header.js";
import "./elements/chat-message.js";
import "./elements/chat-transcript.js";
import "./elements/attachment-tray.js";
import "./elements/chat-composer.js";
import "./elements/queue-chips.js";
import "./elements/picture-viewer.js";
import "./elements/chat-list.js";
import "./elements/chat-menu.js";
import "./elements/chat-memory.js";
import "./elements/message-menu.js";
import "./elements/message-details.js";
import "./elements/model-picker.js";
import "./elements/side-bar.js";
import "./elements/connection-pill.js";
import "./elements/undo-toast.js";
import "./elements/theme-switch.js";
import "./elements/follow-switch.js";
import { Announcer } from "./announcer.js";
import { Chat } from "./chat.js";
import { seesPictures } from "./labels.js";
import { Outbox } from "./outbox.js";
import { Removals } from "./removals.js";
import { Shortcuts } from "./shortcuts.js";
import { Socket } from "./socket.js";
import { Tab } from "./tab.js";
import { Uploads } from "./uploads.js";
import { Wire } from "./wire.js";

const { dataset } = document.body;
const part = (selector) => document.querySelector(selector);

const socket = new Socket(dataset.socket);
const wire = new Wire(socket);
const uploads = new Uploads();
const parts = {
  socket,
  tab: new Tab(),
  uploads,
  outbox: new Outbox((prompt) => wire.sendMessage(prompt), uploads),
  composer: part("chat-composer"),
  temporary: part("[name=temporary]"),
  instructions: part(".instructions"),
  settings: part(".chat-settings"),
  chips: part("queue-chips"),
  tray: part("attachment-tray"),
  viewer: part("picture-viewer"),
  transcript: part("chat-transcript"),
  list: part("chat-list"),
  search: part("chat-search"),
  menu: part("chat-menu"),
  memory: part("chat-memory"),
  messageMenu: part("message-menu"),
  details: part("message-details"),
  sidebar: part("side-bar"),
  pill: part("connection-pill"),
  toast: part("undo-toast.told"),
  removals: new Removals(part("undo-toast.offer")),
  model: part("model-picker"),
  announcer: new Announcer(),
  shortcuts: new Shortcuts(),
  sheet: part("shortcut-sheet"),
  help: part("button.help"),
  follow: part("follow-switch"),
  notify: part("notify-switch"),
};
const limits = JSON.parse(dataset.limits);
parts.composer.limit = limits.text;
parts.tray.furnish({ uploads, limits, sees: () => seesPictures(parts.model.value), several: () => parts.model.models.length > 1 });
parts.transcript.follow(parts.follow.on);
parts.follow.addEventListener("follow", ({ detail }) => parts.transcript.follow(detail));
socket.addEventListener("state", ({ detail }) => parts.pill.show(detail));
new Chat(wire, parts, {
  conversation: dataset.conversation || null,
  at: JSON.parse(dataset.at),
  running: dataset.running || null,
  sought: new URLSearchParams(location.search).get("at"),
});
socket.connect();
history.replaceState(history.state, "", location.pathname); // nothing of a form is sent again, or shown
document.documentElement.dataset.live = ""; // from here on the forms are ours
import("./attention.js").then(({ Attention }) => new Attention(parts));
import("./elements/notify-switch.js");
import("./elements/shortcut-sheet.js");
import("./pictures.js");
import("./warm-up.js").then(({ warmUp }) => warmUp());
import("./elements/chat-search.js"); // nobody searches before: until it is there, the box is a form's
