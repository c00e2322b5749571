// What people read where a model answers, and of files.

/** How an answer ended that is not complete, by its `finish_reason`; as in _message.html. */
export const ENDINGS = {
  stopped: "Stopped",
  interrupted: "Broken off before the end",
  length: "Cut off at the length limit",
  content_filter: "Cut off by the model’s content filter",
};

const labels = new Map();
let seeing = null; // ids of those that see pictures; null until it is known
let first = "";

export function setLabels(models) {
  for (const { id, label } of models) labels.set(id, label);
  seeing = new Set(models.filter(({ images }) => images).map(({ id }) => id));
  first = models[0]?.id;
}

/** Whether a model ("": the one there is) sees pictures. */
export function seesPictures(model) {
  return seeing?.has(model || first) ?? true;
}

/** A size as people read it. */
export function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  return bytes < 1e6 ? `${Math.round(bytes / 1000)} KB` : `${(bytes / 1e6).toFixed(1).replace(".0", "")} MB`;
}

export function labelOf(model) {
  return labels.get(model) ?? model ?? "";
}
