// What people read where a model answers, of files and of times.

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

const counted = (number, unit) => (number ? `${number} ${unit}${number > 1 ? "s" : ""}` : "");

/** How long it is until a time, as people read it. */
export function until(time) {
  const seconds = Math.max(0, Math.ceil((time - Date.now()) / 1000));
  const minutes = Math.ceil(seconds / 60);
  return minutes > 2 ? `${counted(Math.floor(minutes / 60), "hour")} ${counted(minutes % 60, "minute")}`.trim() : `${seconds} s`;
}

export function labelOf(model) {
  return labels.get(model) ?? model ?? "";
}
