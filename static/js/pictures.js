// What a person gives, made fit to be sent: photos of a size that models use, everything else as it is or not at all.

import { sizeOf } from "./labels.js";

const SIDE = 2048; // px: no model looks closer
const THUMB = 112; // px
const SENT_AS_THEY_ARE = ["image/png", "image/jpeg", "image/gif", "image/webp"];
const QUALITY = 0.88;

class Unfit extends Error {}

function drawn(bitmap, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [wide, high] = [bitmap.width * scale, bitmap.height * scale];
  context.drawImage(bitmap, (width - wide) / 2, (height - high) / 2, wide, high);
  return canvas;
}

function scaled(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const size = [bitmap.width, bitmap.height].map((pixels) => Math.max(1, Math.round(pixels * scale)));
  return new Promise((resolve) => drawn(bitmap, ...size).toBlob(resolve, "image/jpeg", QUALITY));
}

async function fitPicture(file, limit) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) throw new Unfit(`${file.name} cannot be read as a picture. PNG, JPEG, GIF and WebP can be attached.`);
  const thumb = drawn(bitmap, THUMB, THUMB).toDataURL("image/jpeg", 0.7);
  let blob = file;
  const large = Math.max(bitmap.width, bitmap.height) > SIDE || file.size > limit;
  if (!SENT_AS_THEY_ARE.includes(file.type) || (large && file.type !== "image/gif")) {
    for (let side = SIDE; (blob = await scaled(bitmap, side)) && blob.size > limit && side > THUMB; side *= 0.7);
  }
  bitmap.close();
  return { blob, thumb };
}

async function checkText(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return;
  } catch {
    // no text
  }
  throw new Unfit(`${file.name} cannot be attached. Pictures (PNG, JPEG, GIF, WebP) and plain text can.`);
}

/** Resolves with {blob, type, thumb?}; rejects with words for the person. */
export async function fit(file, limit) {
  const picture = file.type.startsWith("image/") && file.type !== "image/svg+xml";
  const tooLarge = new Unfit(`${file.name} is too large. At most ${sizeOf(limit)} can be attached.`);
  if (file.size === 0) throw new Unfit(`${file.name} is empty.`);
  if (!picture && file.size > limit) throw tooLarge;
  if (!picture) await checkText(file);
  const { blob, thumb } = picture ? await fitPicture(file, limit) : { blob: file };
  if (blob.size > limit) throw tooLarge;
  return { blob, thumb, type: picture ? blob.type : "text/plain" };
}
