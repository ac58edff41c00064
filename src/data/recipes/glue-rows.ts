/** Rows of GLUE's data sets, in their own columns, as texts and pairs to classify (pyreft's LoReftGLUEDataset). */
import { UserError } from "../../errors.js";
import type { Row } from "../../files/rows.js";
import type { Tokenizer } from "../../tokens/tokenizer.js";
import type { ClassificationExample } from "../classification.js";
import type { Dataset } from "../dataset.js";
import { numberField } from "../field.js";
import { labelledTexts, type TextOptions } from "../texts.js";
import { type GlueSet, glueColumns } from "./glue.js";

/**
 * The examples of a data set's rows.
 *
 * @throws UserError with file, line and field where a row lacks what the set needs
 */
export function glueExamples(
  set: GlueSet,
  rows: readonly Row[],
  fileName: string,
  tokenizer: Tokenizer,
  options: TextOptions,
): Dataset<ClassificationExample> {
  const { texts, labels } = glueColumns[set];
  const columns = texts.map((name) => `"${name}": text`).join(", ");
  const hint = `Rows of ${set} are {${columns}, "label": ${labels.length === 0 ? "number" : "class"}}.`;
  const labelOf = (row: Row): number =>
    labels.length === 0 ? numberField(row, "label", fileName) : classOf(row, labels, fileName);
  return labelledTexts(rows, fileName, tokenizer, { ...options, textFields: texts, hint, labelOf });
}

/** A class by its number or its name. The hub's test splits have −1 everywhere: their labels are not public. */
function classOf(row: Row, labels: readonly string[], fileName: string): number {
  const { label } = row.value;
  const named = typeof label === "string" ? labels.indexOf(label) : -1;
  const number = named >= 0 ? named : numberField(row, "label", fileName);
  if (Number.isInteger(number) && number >= 0 && number < labels.length) return number;
  throw new UserError(
    `${fileName}:${row.line}: the field "label" holds ${number}, no class.`,
    number === -1
      ? "GLUE keeps the labels of its test split to itself; measure on the validation split."
      : `Classes are ${labels.map((name, i) => `${i} (${name})`).join(", ")}.`,
  );
}
