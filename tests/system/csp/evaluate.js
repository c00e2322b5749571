// Reads policies, one a line, and writes what csp_evaluator finds in each as JSON, one a line.

import { readFileSync } from "node:fs";
import { CspEvaluator } from "csp_evaluator/dist/evaluator.js";
import { CspParser } from "csp_evaluator/dist/parser.js";

for (const policy of readFileSync(0, "utf8").trimEnd().split("\n")) {
  console.log(JSON.stringify(new CspEvaluator(new CspParser(policy).csp).evaluate()));
}
