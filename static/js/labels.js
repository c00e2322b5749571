// What people read where a model answers.

const labels = new Map();

export function setLabels(models) {
  for (const { id, label } of models) labels.set(id, label);
}

export function labelOf(model) {
  return labels.get(model) ?? model ?? "";
}
