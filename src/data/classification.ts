/** Texts with a class, several classes or a number to be told from them (pyreft's ReftClassificationDataset). */
import { UserError } from "../errors.js";
import type { Row } from "../files/rows.js";
import type { ProblemType } from "../models/classifier.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type CollateOptions, collateTokens, type TokenBatch } from "./collate.js";
import type { Sequence } from "./example.js";
import { numberField, textField } from "./field.js";
import { truncatedIds } from "./pyreft.js";
import { placeIn, ReftDataset, type ReftDatasetOptions, subspacesIn, tokensOf } from "./reft-dataset.js";

export type { ProblemType } from "../models/classifier.js";

export interface ClassificationExample extends Sequence {
  /** A class's number, a list of them, or the number to be told; missing where there is only a text. */
  readonly label?: number | readonly number[];
}

export interface ReftClassificationOptions extends ReftDatasetOptions {
  /** Default "text". */
  readonly inputField?: string;
  /** Default "label"; null where there is none. */
  readonly labelField?: string | null;
  /** Default "single_label_classification". */
  readonly problemType?: ProblemType;
  /** How many classes there are, where they have no names. */
  readonly numLabels?: number;
  /** The classes' names, for rows that have names instead of numbers. */
  readonly labels?: readonly string[];
}

/** Rows {text, label}; edits at both ends of the text. With `compat: "pyreft"` a label is the tokens of the field's text. */
export class ReftClassificationDataset extends ReftDataset<ClassificationExample> {
  constructor(rows: readonly Row[], fileName: string, tokenizer: Tokenizer, options: ReftClassificationOptions) {
    const { inputField = "text", labelField = "label", compat, maxLength } = options;
    const hint = `Rows are {"${inputField}": text${labelField === null ? "" : `, "${labelField}": …`}}.`;
    const ids = (row: Row, field: string): number[] => {
      const text = textField(row, field, fileName, hint);
      return compat === "pyreft" ? truncatedIds(text, tokenizer, maxLength) : tokenizer.encode(text);
    };
    const encode = (row: Row): ClassificationExample => {
      const inputIds = ids(row, inputField);
      const n = inputIds.length;
      if (n === 0)
        throw new UserError("The text has no tokens, so there is nothing to edit.", "Fill it in, or take the row out.");
      const locations = placeIn(n, n, options, { lastTokenCounts: false });
      const example = { inputIds, locations, ...subspacesIn(row, fileName, options) };
      if (labelField === null) return example;
      const label = compat === "pyreft" ? ids(row, labelField) : readLabel(row, labelField, fileName, options);
      return { ...example, label };
    };
    super(rows, fileName, options, encode, tokensOf);
  }
}

/** What a problem's labels may be. */
export type LabelOptions = Pick<ReftClassificationOptions, "problemType" | "numLabels" | "labels">;

/**
 * A row's class, classes or number.
 *
 * @throws UserError with file, line and field where it is none of the problem's
 */
export function readLabel(
  row: Row,
  field: string,
  fileName: string,
  { problemType, numLabels, labels }: LabelOptions,
): number | readonly number[] {
  if (problemType === "regression") return numberField(row, field, fileName);
  const count = labels?.length ?? numLabels ?? Number.POSITIVE_INFINITY;
  const found = Object.hasOwn(row.value, field) ? row.value[field] : undefined;
  const classOf = (value: unknown): number => {
    const named = typeof value === "string" ? labels?.indexOf(value) : undefined;
    if (named !== undefined && named >= 0) return named;
    const isNumber = typeof value === "boolean" || (typeof value === "string" && /^\d+$/.test(value));
    const number = isNumber ? Number(value) : value;
    if (typeof number === "number" && Number.isInteger(number) && number >= 0 && number < count) return number;
    if (value === undefined || value === null)
      throw new UserError(
        `${fileName}:${row.line}: the field "${field}" is missing.`,
        `Give every text a label, or name the column of labels (labelField); columns here are ${columnsOf(row)}.`,
      );
    throw new UserError(
      `${fileName}:${row.line}: the field "${field}" holds ${JSON.stringify(value)}, no class.`,
      labels !== undefined
        ? `Classes are ${labels.map((name) => JSON.stringify(name)).join(", ")}, or their numbers from 0.`
        : `Classes are whole numbers${Number.isFinite(count) ? `, 0–${count - 1}` : " from 0"}; for names give labels.`,
    );
  };
  if (problemType !== "multi_label_classification") return classOf(found);
  if (Array.isArray(found)) return [...new Set(found.map(classOf))].sort((a, b) => a - b);
  throw new UserError(
    `${fileName}:${row.line}: the field "${field}" is no list of classes.`,
    "Give a list, such as [0, 3]; a row of no class has [].",
  );
}

/** The names of a row's columns, for messages. */
export function columnsOf({ value }: Row): string {
  return Object.keys(value)
    .map((name) => JSON.stringify(name))
    .join(", ");
}

export interface ClassificationBatch extends TokenBatch {
  /** [B] of a single class each, [B·C] of 0 and 1 for several, [B] of numbers to be told. */
  readonly targets: Float32Array;
}

/**
 * Joins labelled texts into a batch.
 *
 * @param options.numLabels C
 * @throws UserError where an example has no label, or one that does not go with the problem
 */
export function collateClassification(
  examples: readonly ClassificationExample[],
  options: CollateOptions & { readonly problemType: ProblemType; readonly numLabels: number },
): ClassificationBatch {
  const { problemType, numLabels } = options;
  const several = problemType === "multi_label_classification";
  const fits = (id: number): boolean =>
    problemType === "regression" ? Number.isFinite(id) : Number.isInteger(id) && id >= 0 && id < numLabels;
  const targets = examples.flatMap(({ label }, b) => {
    const ids = label === undefined ? [Number.NaN] : typeof label === "number" ? [label] : label;
    if (!ids.every(fits) || (!several && ids.length !== 1) || (several && typeof label === "number")) {
      throw new UserError(
        `Example ${b} has the label ${JSON.stringify(label)}, which does not fit ${problemType} with ${numLabels} labels.`,
        "Give a class's number, a list of them for several, or a number for regression.",
      );
    }
    return several ? Array.from({ length: numLabels }, (_, id) => (ids.includes(id) ? 1 : 0)) : ids;
  });
  return { ...collateTokens(examples, options), targets: Float32Array.from(targets) };
}
