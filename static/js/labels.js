// What people read where a model answers.

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

export function labelOf(model) {
  return labels.get(model) ?? model ?? "";
}
