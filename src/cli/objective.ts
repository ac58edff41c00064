/** What a run may learn, and what every way of learning offers the commands: a model of its kind, its examples, its trainer. */

import { z } from "zod";
import type { Dataset } from "../data/dataset.js";
import { PROMPT_FIELDS } from "../data/schema.js";
import { textFieldsOf } from "../data/texts.js";
import { UserError } from "../errors.js";
import { type ProblemType, problemTypes } from "../models/classifier.js";
import type { FrozenModel } from "../models/frozen-model.js";
import type { AdapterConfig } from "../reft/adapter.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type DPOLossType, dpoLossTypes } from "../train/dpo.js";
import type { Figures, Measured } from "../train/objective.js";
import type { ReftTrainer, TrainerOptions } from "../train/trainer.js";
import type { RowFile } from "./examples.js";
import { kebab } from "./flags.js";
import type { ModelChoice } from "./open-model.js";
import type { Terminal } from "./terminal.js";

/** TRL's names of its trainers, and transformers' word for the last. */
export const objectiveNames = ["sft", "dpo", "reward", "classification"] as const;
export type ObjectiveName = (typeof objectiveNames)[number];

export interface ObjectiveOptions {
  readonly beta?: number | undefined;
  readonly lossType?: DPOLossType | undefined;
  readonly labelSmoothing?: number | undefined;
  readonly textField?: string | undefined;
  readonly textPairField?: string | undefined;
  readonly labelField?: string | undefined;
  readonly labels?: readonly string[] | undefined;
  readonly numLabels?: number | undefined;
  readonly problemType?: ProblemType | undefined;
  readonly ignoreMismatchedSizes?: boolean | undefined;
}

/** Options that tell how rows are to be read: of training and of measuring. */
export const rowFields: {
  readonly beta: z.ZodOptional<z.ZodNumber>;
  readonly lossType: z.ZodOptional<z.ZodType<DPOLossType>>;
  readonly labelSmoothing: z.ZodOptional<z.ZodNumber>;
  readonly textField: z.ZodOptional<z.ZodString>;
  readonly textPairField: z.ZodOptional<z.ZodString>;
  readonly labelField: z.ZodOptional<z.ZodString>;
} = {
  beta: z
    .number()
    .gt(0)
    .optional()
    .describe("dpo: how dearly edits pay for leaving the model as it was; 0.1 if not given"),
  lossType: z.enum(dpoLossTypes).optional().describe("dpo: the loss of a pair; sigmoid if not given"),
  labelSmoothing: z
    .number()
    .min(0)
    .lt(0.5)
    .optional()
    .describe("dpo: share of pairs taken to be labelled the wrong way round"),
  textField: z.string().optional().meta({
    description: "classification: the column of the text; text, sentence … if not given",
    placeholder: "column",
  }),
  textPairField: z
    .string()
    .optional()
    .meta({ description: "classification: the column of a second text, read as a pair", placeholder: "column" }),
  labelField: z
    .string()
    .optional()
    .meta({ description: "classification: the column of the label; label if not given", placeholder: "column" }),
};

/** Options of a head that is yet to be trained. */
export const headFields: {
  readonly labels: z.ZodOptional<z.ZodArray<z.ZodString>>;
  readonly numLabels: z.ZodOptional<z.ZodNumber>;
  readonly problemType: z.ZodOptional<z.ZodType<ProblemType>>;
  readonly ignoreMismatchedSizes: z.ZodDefault<z.ZodBoolean>;
} = {
  labels: z.array(z.string()).optional().meta({
    description: "classification: names of the classes 0, 1, …; read off the rows if not given",
    placeholder: "name",
  }),
  numLabels: z.number().int().min(1).optional().describe("classification: how many classes, where they have no names"),
  problemType: z
    .enum(problemTypes)
    .optional()
    .describe("classification: what a label is; read off the rows if not given"),
  ignoreMismatchedSizes: z
    .boolean()
    .default(false)
    .describe("reward, classification: draw a new head where the model has one of another number of labels"),
};

/** Options that some objectives alone know: given for another they would do nothing, unseen. */
const owners: Readonly<Record<string, readonly ObjectiveName[]>> = {
  beta: ["dpo"],
  lossType: ["dpo"],
  labelSmoothing: ["dpo"],
  textField: ["classification"],
  textPairField: ["classification"],
  labelField: ["classification"],
  labels: ["classification"],
  numLabels: ["classification"],
  problemType: ["classification"],
  ignoreMismatchedSizes: ["reward", "classification"],
  allTurns: ["sft"],
  nonstop: ["sft", "dpo", "reward"],
  template: ["sft", "dpo", "reward"],
  generate: ["sft"],
};

/** @throws UserError for an option that the objective does not know */
export function checkMeant(name: ObjectiveName, options: object): void {
  const said = new Map(Object.entries(options));
  for (const [option, own] of Object.entries(owners)) {
    const value: unknown = said.get(option);
    if (value === undefined || value === false || own.includes(name)) continue;
    throw new UserError(
      `--${kebab(option)} is for ${own.join(", ")}; the objective here is ${name}.`,
      "Leave it out, or give other rows (or --objective, in training).",
    );
  }
}

/** A model with edits, and all that is to be done with it. */
export interface Ready<Item, E extends Measured> {
  readonly reft: ReftModel;
  readonly tokenizer: Tokenizer;
  /** What is learned, in a line of the heading; undefined where nothing needs saying. */
  readonly about: string | undefined;
  /** What an item is called. */
  readonly noun: string;
  /** The items of a file; says on stderr which were too long. */
  dataset(file: RowFile): Dataset<Item>;
  trainer(options: Omit<TrainerOptions<Item>, "model" | "tokenizer">): ReftTrainer<Item, E>;
  /** What an evaluation tells a person, by name, and over how many of what. */
  told(evaluation: E): { readonly figures: Figures; readonly over: number; readonly of: string };
}

export interface Opening {
  readonly choice: ModelChoice;
  readonly terminal: Terminal;
  readonly signal?: AbortSignal | undefined;
  /** Puts new edits on the opened model, where the choice names no adapter. */
  edit<M extends FrozenModel>(model: M): ReftModel<M>;
}

export type Use<T> = <Item, E extends Measured>(ready: Ready<Item, E>) => Promise<T>;

/** A way of learning, settled in all that does not need a model. */
export interface CliObjective {
  readonly name: ObjectiveName;
  /** Opens a model, hands it over and closes it again. */
  open<T>(opening: Opening, use: Use<T>): Promise<T>;
}

/** What tells a classifier's rows: whoever gives one of these means classification. */
export const labelOptions = ["textField", "textPairField", "labelField", "labels", "numLabels", "problemType"] as const;

/**
 * What rows are made for: pairs of answers for DPO, texts with a label for a classifier, all else to be answered.
 *
 * @returns with a reason where the rows say it by columns that not everybody would think of
 */
export function detectObjective(
  { rows }: RowFile,
  options: ObjectiveOptions = {},
): { readonly name: ObjectiveName; readonly why?: string } {
  if (labelOptions.some((name) => options[name] !== undefined)) return { name: "classification" };
  const [first] = rows;
  if (first === undefined) return { name: "sft" };
  const has = (...names: readonly string[]): boolean => names.every((name) => first.value[name] !== undefined);
  if (has("chosen", "rejected"))
    return {
      name: "dpo",
      why: 'Rows have "chosen" and "rejected", so preferences are learned (dpo); --objective reward makes a reward model of them.',
    };
  if (has("messages") || has("instruction") || PROMPT_FIELDS.some((fields) => has(...fields))) return { name: "sft" };
  const fields = textFieldsOf(first);
  if (!has("label") || fields === undefined) return { name: "sft" };
  const names = [...fields, "label"].map((name) => JSON.stringify(name)).join(", ");
  return { name: "classification", why: `Rows have ${names}, so a classifier is trained (classification).` };
}

/** What a trained head is for: a score is of no problem type. */
export function objectiveOfHead({
  labels,
  problemType,
}: NonNullable<AdapterConfig["classifier"]>): "reward" | "classification" {
  return labels.length === 1 && problemType !== "regression" ? "reward" : "classification";
}
