/** Rows of a text (or a pair of texts) and a label: what classifiers learn from, the label's kind read off the rows where it is not said. */
import { UserError } from "../errors.js";
import type { Row } from "../files/rows.js";
import { locate, type Positions, spreadUnits } from "../reft/positions.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import {
  type ClassificationExample,
  columnsOf,
  type LabelOptions,
  type ProblemType,
  readLabel,
} from "./classification.js";
import { type Dataset, gatherExamples } from "./dataset.js";
import { textField } from "./field.js";

export interface TextOptions {
  readonly positions: Positions;
  /** How many edits the locations are for. Default: one a unit. */
  readonly numInterventions?: number;
  /** The most tokens of an example; longer ones are left out. */
  readonly maxLength?: number | undefined;
  /** Whether the model tells the texts of a pair apart: BERT does, RoBERTa does not. Default false. */
  readonly tokenTypes?: boolean;
}

/** The names of one text's column, or of two that are read as a pair. */
export type TextFields = readonly [string] | readonly [string, string];

export interface ClassificationDatasetOptions extends TextOptions, LabelOptions {
  /** Default: the first of `TEXT_FIELDS` that the first row has. */
  readonly textFields?: TextFields | undefined;
  /** Default "label". */
  readonly labelField?: string | undefined;
}

/** Columns that are taken for the texts where none are named, in the order they are looked for. */
export const TEXT_FIELDS: readonly TextFields[] = [
  ["text"],
  ["premise", "hypothesis"],
  ["sentence1", "sentence2"],
  ["question1", "question2"],
  ["question", "sentence"],
  ["sentence"],
  ["content"],
];

/** The columns of a row that look like texts to classify. */
export function textFieldsOf({ value }: Pick<Row, "value">): TextFields | undefined {
  return TEXT_FIELDS.find((fields) => fields.every((name) => typeof value[name] === "string"));
}

/**
 * The examples of rows {text, label}.
 *
 * @throws UserError with file, line and field where a row lacks what is needed
 */
export function makeClassificationDataset(
  rows: readonly Row[],
  fileName: string,
  tokenizer: Tokenizer,
  options: ClassificationDatasetOptions,
): Dataset<ClassificationExample> {
  const { textFields = (rows[0] && textFieldsOf(rows[0])) ?? ["text"], labelField = "label" } = options;
  const [first] = rows;
  const here = first === undefined ? "" : ` Columns here are ${columnsOf(first)}; textField names the text's.`;
  const hint = `Rows are {${textFields.map((name) => `"${name}": text`).join(", ")}, "${labelField}": …}.${here}`;
  const labelOf = (row: Row): ReturnType<typeof readLabel> => readLabel(row, labelField, fileName, options);
  return labelledTexts(rows, fileName, tokenizer, { ...options, textFields, hint, labelOf });
}

/** What `labelledTexts` needs to know of its rows. */
export interface LabelledTextOptions extends TextOptions {
  readonly textFields: TextFields;
  /** What rows ought to be, for messages. */
  readonly hint: string;
  /** Missing where texts are only to be told. */
  labelOf?(row: Row): number | readonly number[];
}

/** Texts as the model reads them, pairs joined as its tokenizer joins them, each with its label. */
export function labelledTexts(
  rows: readonly Row[],
  fileName: string,
  tokenizer: Tokenizer,
  { textFields, hint, labelOf, ...options }: LabelledTextOptions,
): Dataset<ClassificationExample> {
  const encode = (row: Row): ClassificationExample => {
    const [first, second] = textFields.map((name) => textField(row, name, fileName, hint)) as [string, string?];
    const pair = second === undefined ? undefined : tokenizer.encodePair(first, second);
    const inputIds = pair?.ids ?? tokenizer.encode(first);
    if (inputIds.length === 0)
      throw new UserError("The text has no tokens, so there is nothing to edit.", "Fill it in, or take the row out.");
    const units = locate(options.positions, inputIds.length);
    return {
      inputIds,
      locations: spreadUnits(units, options.numInterventions ?? units.length),
      ...(labelOf === undefined ? {} : { label: labelOf(row) }),
      ...(pair !== undefined && options.tokenTypes === true ? { tokenTypeIds: pair.tokenTypeIds } : {}),
    };
  };
  return gatherExamples(rows, encode, {
    fileName,
    maxLength: options.maxLength,
    tokensOf: (example) => example.inputIds.length,
  });
}

/** A classifier's task as its rows show it. */
export interface LabelTask {
  readonly problemType: ProblemType;
  readonly numLabels: number;
  /** Where rows have names, or names are given. */
  readonly labels?: readonly string[];
}

/** More classes than any data set in use; beyond it a column is no label but a text. */
const maxClasses = 10_000;

/**
 * What rows are to be classified by: lists make several labels, texts names of classes (in alphabetical order), whole numbers
 * classes from 0, other numbers a regression.
 *
 * @param said what the user has said of it, which is not asked again
 * @throws UserError where what is said contradicts itself, or the labels are too many to be classes
 */
export function labelTask(rows: readonly Row[], field: string, fileName: string, said: LabelOptions = {}): LabelTask {
  const found = rows.flatMap(({ value }) => value[field] ?? []).map((value) => numberIn(value));
  const lists = rows.some(({ value }) => Array.isArray(value[field]));
  const broken = found.some((value) => typeof value === "number" && !Number.isInteger(value));
  const bySight = lists ? "multi_label_classification" : broken ? "regression" : "single_label_classification";
  const { problemType = bySight, labels, numLabels = labels?.length } = said;
  if (problemType === "regression") {
    if (numLabels !== undefined && numLabels !== 1)
      throw new UserError(`regression tells one number, not ${numLabels}.`, "Leave out labels and numLabels.");
    return { problemType, numLabels: 1, ...(labels === undefined ? {} : { labels }) };
  }
  if (labels !== undefined || numLabels !== undefined)
    return { problemType, numLabels: numLabels ?? 2, ...(labels === undefined ? {} : { labels }) };
  const names = [...new Set(found.filter((value) => typeof value === "string"))].sort();
  const most = found.reduce<number>((top, value) => (typeof value === "number" ? Math.max(top, value) : top), 1);
  const count = names.length > 0 ? names.length : most + 1;
  if (count > maxClasses)
    throw new UserError(
      `${fileName}: the field "${field}" has ${count} classes; up to ${maxClasses} are taken for classes.`,
      "Name another field, or say numLabels (or the problem type regression).",
    );
  return { problemType, numLabels: count, ...(names.length > 0 ? { labels: names } : {}) };
}

/** A number, or a number's digits as CSV files have them; any other text is a name. */
function numberIn(value: unknown): unknown {
  return typeof value === "string" && /^\s*-?\d+(\.\d+)?\s*$/.test(value) ? Number(value) : value;
}
