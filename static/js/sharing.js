// How a chat is shared: what the dialog asks for, by the wire. Loaded when it is wanted, and not before.

import "./elements/chat-share.js";
import { newId } from "./wire.js";

const LOST = "There is no connection now. Try again when it is back: a link is made and revoked on the server.";

function words({ code, message }) {
  return code === "lost" ? LOST : message;
}

/** Open the dialog for a chat. Throws where its links cannot be read. */
export async function openShare(wire, conversation, title) {
  const { shares } = await wire.share("list", { conversation });
  let links = shares;
  let command = newId(); // a try whose answer got lost is repeated with the same one: it makes one link
  const dialog = document.createElement("chat-share");
  document.body.append(dialog);
  dialog.addEventListener("closed", () => dialog.remove());
  dialog.addEventListener("create", async () => {
    try {
      const { share } = await wire.share("create", { conversation, id: command });
      command = newId();
      links = [share, ...links.filter(({ id }) => id !== share.id)];
      dialog.show(links, "The link is made");
      dialog.select();
    } catch (error) {
      if (error.code === "bad_field") command = newId(); // its link was made, and taken back elsewhere
      dialog.refuse(words(error));
    }
  });
  dialog.addEventListener("revoke", async ({ detail }) => {
    try {
      await wire.share("revoke", { share: detail });
      links = links.filter(({ id }) => id !== detail);
      dialog.show(links, "The link is revoked: it shows nothing any more");
    } catch (error) {
      dialog.refuse(words(error));
    }
  });
  await dialog.open(title, links);
}
