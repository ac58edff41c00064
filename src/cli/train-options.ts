/** The options of `reft train`: model, data and edit in one schema, the trainer's own arguments beside it. */

import { z } from "zod";
import { UserError } from "../errors.js";
import { type ActivationName, activations } from "../ops/index.js";
import { type EditDType, editDTypes } from "../reft/intervention.js";
import {
  type ArgumentDescription,
  parseTrainingArguments,
  type TrainingArguments,
  trainingArgumentDescriptions,
} from "../train/arguments.js";
import { dataDescription } from "./data-source.js";
import { maxLengthField } from "./examples.js";
import { type Flag, flagsOf, parseOptions, type RawOptions } from "./flags.js";
import { headFields, type ObjectiveName, type ObjectiveOptions, objectiveNames, rowFields } from "./objective.js";
import { type ModelChoice, modelFields } from "./open-model.js";
import { withRecipe } from "./recipes.js";
import { readRunFile } from "./run-file.js";

const modelSchema = z.strictObject({
  ...modelFields,
  model: z.string().default("builtin").describe('the frozen model: a Hugging Face id, a folder, or "builtin"'),
});

const dataSchema = z.strictObject({
  data: z.string().meta({ description: `examples to learn: ${dataDescription}`, placeholder: "file" }),
  split: z.string().optional().describe("split of a hub data set, or a part of one: train[:500]; train if not given"),
  dataRevision: z.string().optional().describe("branch, tag or commit of a hub data set"),
  recipe: z.string().optional().meta({
    description:
      "a paper's settings, and rows in its data set's own format: commonsense, math, gsm8k, instruct …; list shows all",
    placeholder: "name",
  }),
  evalData: z.string().optional().meta({
    description: "examples to measure on, never learned: a file, or owner/name:config#split",
    placeholder: "file",
  }),
  evalSplit: z.number().gt(0).lt(1).optional().describe("share of the data kept for measuring instead: 0.1"),
  template: z
    .string()
    .optional()
    .describe('chat, none, alpaca, or a text with {prompt}; "chat" where the model has a chat template'),
  allTurns: z.boolean().default(false).describe("learn every assistant turn of a conversation, not just the last"),
  nonstop: z.boolean().default(false).describe("do not teach the model to stop after the answer"),
  maxLength: maxLengthField,
});

const editSchema = z.strictObject({
  layers: z
    .union([z.string(), z.number(), z.array(z.number())])
    .optional()
    .describe('layers to edit: 15, "3;9;18", 0-5 or all; the middle one if not given'),
  component: z
    .string()
    .default("block_output")
    .describe("where in each layer: block_output, mlp_output, value_output … (reft info lists them)"),
  intervention: z.string().default("loreft").describe("loreft, noreft, consreft, lobireft, direft or nodireft"),
  rank: z.number().default(4).describe("rank of each edit: a size of its subspace"),
  positions: z
    .string()
    .default("l1")
    .describe("prompt tokens to edit: l1 (the last), f3 (the first three), f7+l7, all, or indices"),
  shareWeights: z.boolean().default(false).describe("one edit for both ends of f7+l7"),
  actFn: z
    .enum(Object.keys(activations) as [ActivationName, ...ActivationName[]])
    .default("linear")
    .describe("activation inside the edit"),
  addBias: z.boolean().optional().describe("bias in the projection of noreft and nodireft"),
  dtype: z
    .enum(editDTypes as [EditDType, ...EditDType[]])
    .default("float32")
    .describe("what the edit's linear parts are computed in: float32, bfloat16 or float16"),
  dropout: z.number().default(0).describe("share of the edited state set to 0 in training"),
  init: z
    .enum(["pyreft", "identity"])
    .default("pyreft")
    .describe("first values: pyreft's random ones, or those that change nothing"),
});

const objectiveSchema = z.strictObject({
  objective: z
    .enum(objectiveNames as unknown as [ObjectiveName, ...ObjectiveName[]])
    .optional()
    .describe(
      "sft (answers), dpo (preferences), reward (a model that scores) or classification; as the rows' columns say",
    ),
  ...rowFields,
  ...headFields,
});

const outputSchema = z.strictObject({
  outputDir: z
    .string()
    .default("my-reft")
    .meta({ description: "new folder for the adapter, checkpoints and logs", placeholder: "folder" }),
  overwrite: z.boolean().default(false).describe("write into a folder that is not empty"),
  resume: z.union([z.boolean(), z.string()]).default(false).meta({
    description: "go on from a checkpoint: the folder named, or the newest in the output folder",
    placeholder: "folder",
  }),
});

const optionsSchema = z.strictObject({
  ...modelSchema.shape,
  ...dataSchema.shape,
  ...objectiveSchema.shape,
  ...editSchema.shape,
  ...outputSchema.shape,
});

/** What the edit is to be. */
export interface EditOptions {
  readonly layers?: string | number | readonly number[] | undefined;
  readonly component: string;
  readonly intervention: string;
  readonly rank: number;
  readonly positions: string;
  readonly shareWeights: boolean;
  readonly actFn: ActivationName;
  readonly addBias?: boolean | undefined;
  readonly dtype: EditDType;
  readonly dropout: number;
  readonly init: "pyreft" | "identity";
}

export const defaultEdit: EditOptions = parseOptions(editSchema, {});

/** Everything `reft train` needs beside the trainer's arguments, defaults filled in. */
export interface TrainOptions extends EditOptions, ObjectiveOptions, ModelChoice {
  readonly model: string;
  readonly data: string;
  readonly split?: string | undefined;
  readonly dataRevision?: string | undefined;
  readonly objective?: ObjectiveName | undefined;
  readonly recipe?: string | undefined;
  readonly evalData?: string | undefined;
  readonly evalSplit?: number | undefined;
  readonly template?: string | undefined;
  readonly allTurns: boolean;
  readonly nonstop: boolean;
  readonly maxLength?: number | undefined;
  readonly outputDir: string;
  readonly overwrite: boolean;
  readonly resume: boolean | string;
}

const commandSchema = z.strictObject({
  config: z
    .string()
    .optional()
    .meta({ description: "a YAML run file with any of these options; flags win over it", placeholder: "file" }),
  json: z.boolean().default(false).describe("print one JSON object a line: the run's events, then the result"),
});

const trainerFlags: readonly Flag[] = trainingArgumentDescriptions()
  .filter(({ name }) => name !== "outputDir")
  .map((argument) => trainerFlag(argument));

function trainerFlag({ name, type, ...rest }: ArgumentDescription): Flag {
  const aliases: Partial<Record<typeof name, string>> = {
    numTrainEpochs: "epochs",
    perDeviceTrainBatchSize: "batchSize",
    learningRate: "lr",
  };
  const alias = aliases[name];
  return {
    name,
    type: type === "string" ? "text" : type,
    ...rest,
    group: "Training:",
    ...(alias === undefined ? {} : { alias }),
  };
}

/** What a run file may hold. */
const runFlags: readonly Flag[] = [
  ...flagsOf(modelSchema, "Model:"),
  ...flagsOf(dataSchema, "Data:"),
  ...flagsOf(objectiveSchema, "Objective:"),
  ...flagsOf(editSchema, "Edit:"),
  ...flagsOf(outputSchema, "Output:", { outputDir: "output" }),
  ...trainerFlags,
];

export const trainFlags: readonly Flag[] = [...runFlags, ...flagsOf(commandSchema, "Command:")];

export interface TrainRun {
  readonly options: TrainOptions;
  /** Every option that was given, by a recipe, a run file or a flag, before defaults are filled in. */
  readonly said: RawOptions;
  readonly args: TrainingArguments;
  readonly json: boolean;
}

/** Flags over run file over recipe over defaults, all of it checked before anything is opened. */
export async function readTrainRun(given: RawOptions): Promise<TrainRun> {
  const { config, json, ...flags } = given;
  const command = parseOptions(commandSchema, {
    ...(config === undefined ? {} : { config }),
    ...(json === undefined ? {} : { json }),
  });
  const filed = command.config === undefined ? {} : await readRunFile(command.config, runFlags);
  const all = withRecipe({ ...filed, ...flags });
  const trainerNames = new Set<string>(trainerFlags.map((flag) => flag.name));
  const split = (trainers: boolean): RawOptions =>
    Object.fromEntries(Object.entries(all).filter(([name]) => trainerNames.has(name) === trainers));
  const options: TrainOptions = parseOptions(optionsSchema, split(false));
  if (options.evalData !== undefined && options.evalSplit !== undefined)
    throw new UserError("evalData and evalSplit are both given.", "Give the one or the other.");
  const args = parseTrainingArguments({ ...split(true), outputDir: options.outputDir });
  if (args.evalStrategy !== "no" && options.evalData === undefined && options.evalSplit === undefined)
    throw new UserError(
      `evalStrategy is "${args.evalStrategy}", but there is nothing to evaluate on.`,
      "Pass --eval-data FILE or --eval-split 0.1.",
    );
  return { options, args, said: all, json: command.json };
}
