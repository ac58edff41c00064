/** An adapter as files: reft_config.json with everything needed to run again, and reft.safetensors with the weights. Pure: no disk. */

import { z } from "zod";
import { UserError } from "../errors.js";
import { parseJsonObject } from "../files/checkpoint.js";
import { decodeSafetensors, encodeSafetensors } from "../files/safetensors.js";
import { type ProblemType, problemTypes } from "../models/classifier.js";
import type { FrozenModel } from "../models/frozen-model.js";
import { type ActivationName, activations } from "../ops/index.js";
import { editsOf, type ReftConfig, type Representation } from "./config.js";
import { type EditDType, editDTypes, type Named } from "./intervention.js";
import { type InterventionClass, interventionClass } from "./interventions.js";
import { formatPositions, type Positions, parsePositions } from "./positions.js";
import type { ReftModel } from "./reft-model.js";

export const configFile = "reft_config.json";
export const weightsFile = "reft.safetensors";
/** Before the names of a classifier's head. */
export const headPrefix = "classifier.";
/** Adapters have kilobytes; 1 GB is beyond every rank and layer count in use, and bounds what a stranger's file can ask for. */
export const maxAdapterBytes: number = 1e9;
/** The longest list of edits takes some 3 MB; parsed JSON takes many times its size in memory. */
export const maxConfigBytes: number = 1e7;

const activation = z.enum(Object.keys(activations) as [ActivationName, ...ActivationName[]]);
/** What reft_config.json says. */
export interface AdapterConfig {
  readonly format: "reft";
  readonly version: 1;
  readonly base: {
    readonly id: string;
    readonly revision: string | null;
    readonly modelType: string;
    readonly hiddenSize: number;
    readonly layers: number;
    readonly vocabSize: number;
  };
  /** How prompts are formed: "chat", "none", "alpaca", or text with {prompt}. */
  readonly template: string | null;
  readonly positions: string | null;
  readonly shareWeights: boolean;
  /** What the weights are kept in, whatever they are computed in: see `representations`. */
  readonly dtype: "float32";
  /** The head that was trained with the edits; only for a model that classifies. */
  readonly classifier?: {
    readonly labels: readonly string[];
    readonly problemType: ProblemType | null;
  };
  readonly representations: readonly {
    readonly layer: number;
    readonly component: string;
    /** Single heads of a component that is made of them; absent: whole rows. */
    readonly heads?: readonly number[] | undefined;
    readonly intervention: string;
    readonly embedDim: number;
    readonly lowRankDimension: number;
    readonly dropout: number;
    readonly actFn: ActivationName;
    /** What the linear parts are computed in; absent in files from before there was a choice: float32. */
    readonly dtype: EditDType;
    readonly addBias: boolean | null;
    readonly linkKey: string | number | null;
  }[];
}

const size = z.number().int().positive();
/** Names go into messages and onto a terminal: short, and without control characters. */
const word = z
  .string()
  .max(500)
  .regex(/^\P{Cc}*$/u, "has control characters");
const schema: z.ZodType<AdapterConfig> = z.object({
  format: z.literal("reft"),
  version: z.literal(1),
  base: z.object({
    id: word,
    revision: word.nullable(),
    modelType: word,
    hiddenSize: size,
    layers: size,
    vocabSize: size,
  }),
  template: z.string().nullable(),
  positions: z.string().nullable(),
  shareWeights: z.boolean(),
  dtype: z.literal("float32"),
  classifier: z
    .object({
      labels: z.array(word).min(1).max(1_000_000),
      problemType: z.enum(problemTypes as [ProblemType, ...ProblemType[]]).nullable(),
    })
    .exactOptional(),
  representations: z
    .array(
      z.object({
        layer: z.number().int().min(0),
        component: word,
        heads: z.array(z.number().int().min(0)).max(10_000).optional(),
        intervention: word,
        embedDim: size,
        lowRankDimension: size,
        dropout: z.number().min(0).max(1),
        actFn: activation,
        dtype: z.enum(editDTypes as [EditDType, ...EditDType[]]).default("float32"),
        addBias: z.boolean().nullable(),
        linkKey: z.union([word, z.number()]).nullable(),
      }),
    )
    .min(1)
    // An edit at every component of the deepest models is some thousands.
    .max(10_000),
});

/** What reft_config.json is to say of a model's edits. */
export function adapterConfig(reft: ReftModel): AdapterConfig {
  const { model, positions } = reft;
  const { classifier } = model;
  return {
    format: "reft",
    version: 1,
    base: {
      id: model.id,
      revision: model.revision ?? null,
      modelType: model.config.modelType,
      hiddenSize: model.config.hiddenSize,
      layers: model.config.layers,
      vocabSize: model.config.vocabSize,
    },
    template: reft.template ?? null,
    positions: positions === undefined ? null : formatPositions(positions),
    shareWeights: positions?.kind === "edges" && positions.tied,
    dtype: "float32",
    ...(classifier === undefined
      ? {}
      : { classifier: { labels: classifier.labels, problemType: classifier.problemType ?? null } }),
    representations: reft.edits.map(({ site, intervention, link }) => ({
      ...site,
      intervention: intervention.name,
      embedDim: intervention.embedDim,
      lowRankDimension: intervention.lowRankDimension,
      dropout: intervention.dropout,
      actFn: intervention.actFn,
      dtype: intervention.dtype,
      addBias: intervention.addBias ?? null,
      linkKey: link ?? null,
    })),
  };
}

/** The two files of an adapter. */
export function adapterFiles(reft: ReftModel): Record<string, Uint8Array | string> {
  const config = adapterConfig(reft);
  const tensors = [...reft.parameters].map(([name, p]) => [name, { shape: p.shape, data: p.value() }]);
  return {
    [configFile]: `${JSON.stringify(config, null, 2)}\n`,
    [weightsFile]: encodeSafetensors(Object.fromEntries(tensors), { format: "reft" }),
  };
}

/** Parses reft_config.json. */
export function parseAdapterConfig(text: string, name: string): AdapterConfig {
  const parsed = schema.safeParse(parseJsonObject(text, name));
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new UserError(
    `${name}: ${issue?.path.join(".")}: ${issue?.message}.`,
    "Is this an adapter's folder? An adapter has reft_config.json and reft.safetensors.",
  );
}

/** A saved adapter, checked against the model it is to be put on. */
export interface SavedAdapter {
  readonly config: ReftConfig;
  readonly values: Named<Float32Array>;
  readonly template: string | undefined;
}

/**
 * Reads an adapter's two files for a model.
 *
 * @param own the user's own edits by the name they were saved under
 * @throws UserError where it was made for another base, or its tensors are missing or misshapen
 */
export function readAdapter(
  model: FrozenModel,
  files: { readonly config: string; readonly weights: Uint8Array },
  name: string,
  own: Readonly<Record<string, InterventionClass>> = {},
): SavedAdapter {
  const config = parseAdapterConfig(files.config, `${name}/${configFile}`);
  checkBase(model, config, name);
  checkTask(model, config, name);
  const representations = config.representations.map(
    ({ intervention, linkKey, addBias, heads, ...r }): Representation => {
      const Class = interventionClass(intervention, own);
      const made = new Class({ ...r, ...(addBias === null ? {} : { addBias }) });
      const optional = {
        ...(heads === undefined ? {} : { heads }),
        ...(linkKey === null ? {} : { interventionLinkKey: linkKey }),
      };
      return { ...r, ...optional, intervention: made };
    },
  );
  const { tensors } = decodeSafetensors(files.weights, `${name}/${weightsFile}`);
  const weights = `${name}/${weightsFile}`;
  for (const { weightsKey, intervention } of editsOf(representations, model.config))
    checkTensors(`${weightsKey}.`, intervention.parameters, tensors, weights);
  checkTensors(headPrefix, model.classifier?.weights ?? {}, tensors, weights);
  if (model.classifier !== undefined && config.classifier !== undefined) {
    model.classifier.labels = config.classifier.labels;
    model.classifier.problemType = config.classifier.problemType ?? undefined;
  }
  return {
    config: { representations, ...(config.positions === null ? {} : { positions: positionsOf(config) }) },
    values: Object.fromEntries([...tensors].map(([key, t]) => [key, t.data])),
    template: config.template ?? undefined,
  };
}

function checkTensors(
  prefix: string,
  expected: Readonly<Record<string, { readonly shape: readonly number[] }>>,
  found: ReadonlyMap<string, { shape: number[]; data: Float32Array }>,
  name: string,
): void {
  for (const [parameter, { shape }] of Object.entries(expected)) {
    const key = `${prefix}${parameter}`;
    const saved = found.get(key);
    if (saved === undefined)
      throw new UserError(`${name} has no tensor "${key}".`, "The adapter is incomplete; save it again.");
    if (saved.shape.join() !== shape.join())
      throw new UserError(
        `${name}: "${key}" is [${saved.shape.join(", ")}], its config asks for [${shape.join(", ")}].`,
        "The adapter's two files do not belong together.",
      );
    if (!saved.data.every(Number.isFinite))
      throw new UserError(`${name}: "${key}" holds a NaN or an infinity.`, "The file is damaged; save it again.");
  }
}

function positionsOf(config: AdapterConfig): Positions {
  return parsePositions(config.positions ?? "l1", { shareWeights: config.shareWeights });
}

function checkTask({ classifier: is }: FrozenModel, { classifier: was }: AdapterConfig, name: string): void {
  if (is === undefined && was === undefined) return;
  const say = (c: { labels: readonly string[] } | undefined): string =>
    c === undefined ? "to continue texts" : `to classify texts by ${c.labels.length} labels`;
  if (is?.labels.length === was?.labels.length) return;
  throw new UserError(
    `${name} was trained ${say(was)}; the model was loaded ${say(is)}.`,
    was === undefined
      ? "Load the model with AutoModelForCausalLM."
      : `Load it with AutoModelForSequenceClassification and numLabels: ${was.labels.length}, ignoreMismatchedSizes: true.`,
  );
}

function checkBase(model: FrozenModel, { base }: AdapterConfig, name: string): void {
  const is = model.config;
  const same =
    base.modelType === is.modelType &&
    base.hiddenSize === is.hiddenSize &&
    base.layers === is.layers &&
    base.vocabSize === is.vocabSize;
  if (same) return;
  const say = (type: string, b: { hiddenSize: number; layers: number; vocabSize: number }): string =>
    `${type}, hidden size ${b.hiddenSize}, ${b.layers} layers, vocabulary ${b.vocabSize}`;
  throw new UserError(
    `${name} was made for ${base.id} (${say(base.modelType, base)}); ${model.id} is ${say(is.modelType, is)}.`,
    `Load it on ${base.id}${base.revision === null ? "" : ` at revision ${base.revision}`}.`,
  );
}
