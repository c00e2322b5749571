// The composition of the page: makes the parts, gives them to each other, starts. It holds no rule of its own.

import "./elements/code-header.js";
import "./elements/chat-message.js";
import "./elements/chat-transcript.js";
import "./elements/chat-composer.js";
import "./elements/chat-list.js";
import "./elements/chat-menu.js";
import "./elements/chat-memory.js";
import "./elements/model-picker.js";
import "./elements/side-bar.js";
import "./elements/connection-pill.js";
import "./elements/undo-toast.js";
import "./elements/theme-switch.js";
import { Chat } from "./chat.js";
import { Outbox } from "./outbox.js";
import { Socket } from "./socket.js";
import { Wire } from "./wire.js";

const { dataset } = document.body;
const part = (selector) => document.querySelector(selector);

const socket = new Socket(dataset.socket);
const wire = new Wire(socket);
const parts = {
  socket,
  outbox: new Outbox((prompt) => wire.sendMessage(prompt)),
  composer: part("chat-composer"),
  transcript: part("chat-transcript"),
  list: part("chat-list"),
  menu: part("chat-menu"),
  memory: part("chat-memory"),
  sidebar: part("side-bar"),
  pill: part("connection-pill"),
  toast: part("undo-toast.told"),
  offer: part("undo-toast.offer"),
  model: part("model-picker"),
};

parts.composer.limit = JSON.parse(dataset.limits).text;
socket.addEventListener("state", ({ detail }) => parts.pill.show(detail));
new Chat(wire, parts, {
  conversation: dataset.conversation || null,
  at: JSON.parse(dataset.at),
  running: dataset.running || null,
});
socket.connect();
history.replaceState(history.state, "", location.pathname); // nothing of a form is sent again, or shown
document.documentElement.dataset.live = ""; // from here on the forms are ours
