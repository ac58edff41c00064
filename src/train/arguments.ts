/** Training arguments: one strict schema for the API, the command line and the run file. Names are Hugging Face's in camelCase. */

import { z } from "zod";
import { UserError } from "../errors.js";
import { SCHEDULE_NAMES, type ScheduleName } from "./schedule.js";

const count = z.number().int().min(1);
const rate = z.number().min(0);

const trainingSchema = z.strictObject({
  outputDir: z.string().optional().describe("folder for checkpoints and logs; none are written without it"),
  numTrainEpochs: z
    .number()
    .positive()
    .optional()
    .describe("passes over the data; default 3, or as many as make 100 optimiser steps"),
  maxSteps: z.number().int().min(-1).default(-1).describe("optimiser steps; overrides epochs when above 0"),
  perDeviceTrainBatchSize: count.default(8).describe("examples per step"),
  perDeviceEvalBatchSize: count.default(8).describe("examples per evaluation step"),
  gradientAccumulationSteps: count.default(1).describe("batches whose gradients are added before one optimiser step"),
  learningRate: rate.default(4e-3).describe("highest learning rate; 4e-3 suits ten examples, 9e-4 a real data set"),
  weightDecay: rate.default(0).describe("AdamW's decoupled decay; never applied to orthonormal R"),
  adamBeta1: rate.lt(1).default(0.9).describe("AdamW's β₁"),
  adamBeta2: rate.lt(1).default(0.999).describe("AdamW's β₂"),
  adamEpsilon: z.number().positive().default(1e-8).describe("AdamW's ε"),
  maxGradNorm: rate.default(1).describe("gradients are scaled down to this norm; 0: never"),
  lrSchedulerType: z
    .enum(SCHEDULE_NAMES as [ScheduleName, ...ScheduleName[]])
    .default("linear")
    .describe("how the learning rate falls"),
  warmupSteps: rate.default(0).describe("steps of warm-up, or a share of all steps when below 1"),
  warmupRatio: z.number().min(0).max(1).default(0).describe("share of all steps spent warming up"),
  loggingSteps: count.default(10).describe("steps between log lines"),
  evalStrategy: z.enum(["no", "steps", "epoch"]).default("no").describe("when to evaluate"),
  evalSteps: count.default(50).describe("steps between evaluations with evalStrategy steps"),
  saveStrategy: z.enum(["no", "steps", "epoch"]).default("no").describe("when to write a checkpoint"),
  saveSteps: count.default(50).describe("steps between checkpoints with saveStrategy steps"),
  saveTotalLimit: count.optional().describe("how many checkpoints to keep; the best weights are in each of them"),
  loadBestModelAtEnd: z.boolean().default(false).describe("end with the weights of the best evaluation"),
  metricForBestModel: z.string().default("loss").describe("what the best evaluation is best in: loss, accuracy, f1 …"),
  earlyStoppingPatience: count.optional().describe("stop after this many evaluations without improvement"),
  earlyStoppingThreshold: rate.default(0).describe("how much lower a loss must be to count as improvement"),
  groupByLength: z.boolean().default(false).describe("put examples of like length into one batch: less padding"),
  dataloaderDropLast: z.boolean().default(false).describe("leave out an epoch's last batch when it is not full"),
  gradientCheckpointing: z
    .boolean()
    .default(false)
    .describe("keep only each block's input for the derivative: far less memory on long texts, a third more work"),
  frozenCache: z
    .boolean()
    .default(true)
    .describe("compute what lies under the edits and before them once an example, instead of in every step"),
  frozenCacheMemory: rate.default(512).describe("megabytes of it kept in memory; the rest goes to a temporary file"),
  frozenCacheDir: z
    .string()
    .min(1)
    .optional()
    .describe("folder to keep it in for later runs on the same model, layers and data; it can be deleted at any time"),
  frozenCacheDisk: rate.default(20_000).describe("megabytes of it kept on disk; what is beyond is computed again"),
  frozenCacheDtype: z
    .enum(["float32", "bfloat16"])
    .default("float32")
    .describe("how it is kept: bfloat16 takes half the room and rounds to three digits"),
  seed: z.number().int().min(0).default(42).describe("seeds shuffling and dropout"),
  reportTo: z
    .array(z.enum(["jsonl", "tensorboard"]))
    .default(["jsonl"])
    .describe("logs written to outputDir"),
});

/** Every argument, defaults filled in. */
export interface TrainingArguments {
  readonly outputDir?: string | undefined;
  readonly numTrainEpochs?: number | undefined;
  readonly maxSteps: number;
  readonly perDeviceTrainBatchSize: number;
  readonly perDeviceEvalBatchSize: number;
  readonly gradientAccumulationSteps: number;
  readonly learningRate: number;
  readonly weightDecay: number;
  readonly adamBeta1: number;
  readonly adamBeta2: number;
  readonly adamEpsilon: number;
  readonly maxGradNorm: number;
  readonly lrSchedulerType: ScheduleName;
  readonly warmupSteps: number;
  readonly warmupRatio: number;
  readonly loggingSteps: number;
  readonly evalStrategy: "no" | "steps" | "epoch";
  readonly evalSteps: number;
  readonly saveStrategy: "no" | "steps" | "epoch";
  readonly saveSteps: number;
  readonly saveTotalLimit?: number | undefined;
  readonly loadBestModelAtEnd: boolean;
  readonly metricForBestModel: string;
  readonly earlyStoppingPatience?: number | undefined;
  readonly earlyStoppingThreshold: number;
  readonly groupByLength: boolean;
  readonly dataloaderDropLast: boolean;
  readonly gradientCheckpointing: boolean;
  readonly frozenCache: boolean;
  readonly frozenCacheMemory: number;
  readonly frozenCacheDir?: string | undefined;
  readonly frozenCacheDisk: number;
  readonly frozenCacheDtype: "float32" | "bfloat16";
  readonly seed: number;
  readonly reportTo: readonly ("jsonl" | "tensorboard")[];
}

/** What a user writes: everything optional. */
export type TrainingOptions = { readonly [K in keyof TrainingArguments]?: TrainingArguments[K] | undefined };

/** One argument, as a command line or a form needs to know it. */
export interface ArgumentDescription {
  readonly name: keyof TrainingArguments;
  readonly type: "string" | "number" | "boolean" | "list";
  readonly description: string;
  readonly default: unknown;
  readonly choices: readonly string[] | undefined;
}

/** Every argument's type, meaning, default and choices, read off the schema. */
export function trainingArgumentDescriptions(): ArgumentDescription[] {
  const { properties } = z.toJSONSchema(trainingSchema, { io: "input" });
  return Object.entries(properties ?? {}).map(([name, property]) => {
    const p = property as {
      type?: string;
      default?: unknown;
      description?: string;
      enum?: string[];
      items?: { enum?: string[] };
    };
    const type = p.type === "integer" || p.type === "number" ? "number" : p.type === "array" ? "list" : p.type;
    return {
      name: name as keyof TrainingArguments,
      type: (type ?? "string") as ArgumentDescription["type"],
      description: p.description ?? "",
      default: p.default,
      choices: p.enum ?? p.items?.enum,
    };
  });
}

/** Checks arguments; a UserError names the first wrong one and, for an unknown name, the nearest known. */
export function parseTrainingArguments(options: TrainingOptions): TrainingArguments {
  const parsed = trainingSchema.safeParse(options);
  if (!parsed.success) throw badArgument(parsed.error, options);
  const args = parsed.data;
  const needsEvaluation = args.loadBestModelAtEnd || args.earlyStoppingPatience !== undefined;
  if (needsEvaluation && args.evalStrategy === "no")
    throw new UserError(
      `${args.loadBestModelAtEnd ? "loadBestModelAtEnd" : "earlyStoppingPatience"} needs evaluations, but evalStrategy is "no".`,
      'Pass evalStrategy "epoch" or "steps".',
    );
  if (args.saveStrategy !== "no" && args.outputDir === undefined)
    throw new UserError(`saveStrategy is "${args.saveStrategy}", but there is no outputDir.`, "Pass an outputDir.");
  return args;
}

function badArgument(error: z.ZodError, options: object): UserError {
  const issue = error.issues[0];
  if (issue?.code === "unrecognized_keys")
    return new UserError(
      `there is no training argument "${issue.keys[0]}".`,
      `Known are ${Object.keys(trainingSchema.shape).join(", ")}.`,
    );
  const name = String(issue?.path[0]);
  const value = JSON.stringify((options as Record<string, unknown>)[name]);
  const meaning = trainingSchema.shape[name as keyof typeof trainingSchema.shape]?.description ?? "";
  return new UserError(`${name} is ${value}: ${issue?.message}.`, `${name}: ${meaning}.`);
}
