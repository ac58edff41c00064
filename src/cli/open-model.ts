/** Opening what a command names: a model, or an adapter together with the model that it was trained on. */

import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.js";
import { readFileCapped } from "../files/read-node.js";
import { resolveFiles } from "../hub/adapter.js";
import {
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  AutoTokenizer,
  codingOf,
  type ModelOptions,
} from "../load.js";
import type { CausalLM } from "../models/causal-lm.js";
import type { ClassifierOptions, SequenceClassifier } from "../models/classifier.js";
import type { FrozenModel } from "../models/frozen-model.js";
import { type AdapterConfig, configFile, maxAdapterBytes, parseAdapterConfig } from "../reft/adapter.js";
import { ReftModel } from "../reft/reft-model.js";
import { sharedFiles } from "../reft/shared.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { whatHappened } from "./failure.js";
import { given } from "./flags.js";
import { showDownloads } from "./progress.js";
import type { Terminal } from "./terminal.js";

/** Options of every command that runs a model. */
export const modelFields: {
  readonly model: z.ZodOptional<z.ZodString>;
  readonly revision: z.ZodOptional<z.ZodString>;
  readonly device: z.ZodOptional<z.ZodString>;
  readonly threads: z.ZodOptional<z.ZodNumber>;
  readonly loadIn4bit: z.ZodOptional<z.ZodBoolean>;
  readonly loadIn8bit: z.ZodOptional<z.ZodBoolean>;
  readonly quantBlockSize: z.ZodOptional<z.ZodNumber>;
  readonly int8Activations: z.ZodOptional<z.ZodEnum<{ generation: "generation"; always: "always" }>>;
} = {
  model: z.string().optional().describe('a Hugging Face id, a folder, or "builtin"'),
  revision: z.string().optional().describe("branch, tag or commit of the model on the hub"),
  device: z.string().optional().describe("cpu, webgpu, cuda, coreml or dml; cpu if not given"),
  threads: z.number().int().min(1).optional().describe("CPU threads; one per physical core if not given"),
  loadIn4bit: z.boolean().optional().describe("read the model's matrices in 4 bits; a copy is made once and kept"),
  loadIn8bit: z.boolean().optional().describe("the same in 8 bits"),
  quantBlockSize: z
    .number()
    .int()
    .optional()
    .describe("in 4 or 8 bits: numbers that share a scale, 16 to 256; 32 or 128 if not given"),
  int8Activations: z
    .enum(["generation", "always"])
    .optional()
    .describe("in 4 or 8 bits: round activations to 8 bits too, faster and less exact; always is for VNNI processors"),
};

export const adapterField: z.ZodOptional<z.ZodString> = z.string().optional().meta({
  description: "folder of a trained adapter, or its Hugging Face id; its base model is found by itself",
  placeholder: "adapter",
});

export interface ModelChoice {
  readonly model?: string | undefined;
  readonly revision?: string | undefined;
  readonly device?: string | undefined;
  readonly threads?: number | undefined;
  readonly loadIn4bit?: boolean | undefined;
  readonly loadIn8bit?: boolean | undefined;
  readonly quantBlockSize?: number | undefined;
  readonly int8Activations?: "generation" | "always" | undefined;
  readonly adapter?: string | undefined;
}

export interface OpenedAs<M extends FrozenModel> {
  readonly model: M;
  readonly tokenizer: Tokenizer;
  /** The model with its edits, where an adapter was named. */
  readonly edited: ReftModel<M> | undefined;
}

/** A model that answers. */
export type Opened = OpenedAs<CausalLM>;

/** Opens a model that answers, hands it over and closes it again. */
export function withModel<T>(
  choice: ModelChoice,
  terminal: Terminal,
  use: (opened: Opened) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const kind: Kind<CausalLM> = {
    check: ({ classifier }, name) => {
      if (classifier === undefined) return;
      throw new UserError(
        `${name} was trained to ${classifier.labels.length === 1 ? "score texts" : `tell ${classifier.labels.length} classes of texts apart`}, not to answer.`,
        "Ask it with reft classify, or measure it with reft eval --data.",
      );
    },
    load: (id, options) => AutoModelForCausalLM.fromPretrained(id, options),
  };
  return withBase(choice, terminal, kind, use, signal);
}

/** The same for a model with a head: the adapter's where one is named, else the one described. */
export function withClassifier<T>(
  choice: ModelChoice,
  terminal: Terminal,
  head: ClassifierOptions,
  use: (opened: OpenedAs<SequenceClassifier>) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const kind: Kind<SequenceClassifier> = {
    check: ({ classifier }, name) => {
      if (classifier !== undefined) return;
      throw new UserError(
        `${name} was trained to answer, not to classify or score texts.`,
        "Train one that does: reft train --objective classification, or reward.",
      );
    },
    load: (id, options, config) => {
      // An adapter brings a head of its own, whatever the checkpoint has.
      const own = config?.classifier && { numLabels: config.classifier.labels.length, ignoreMismatchedSizes: true };
      return AutoModelForSequenceClassification.fromPretrained(id, { ...options, ...(own ?? head) });
    },
  };
  return withBase(choice, terminal, kind, use, signal);
}

interface Kind<M> {
  /** Throws UserError where an adapter is for another kind of model. */
  check(config: AdapterConfig, name: string): void;
  load(id: string, options: ModelOptions, config: AdapterConfig | undefined): Promise<M>;
}

async function withBase<M extends FrozenModel, T>(
  choice: ModelChoice,
  terminal: Terminal,
  kind: Kind<M>,
  use: (opened: OpenedAs<M>) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const found = choice.adapter === undefined ? undefined : await findAdapter(choice.adapter, terminal, signal);
  if (found !== undefined) kind.check(found.config, choice.adapter as string);
  const base = found?.config.base;
  const { id, revision } = chooseModel(choice, base);
  if (base !== undefined && base.id !== id)
    terminal.note(`${choice.adapter} was trained on ${base.id}; it is put on ${id}, as asked.`);
  const { device, threads, loadIn4bit, loadIn8bit, quantBlockSize, int8Activations } = choice;
  const display = showDownloads(terminal, id);
  const { onProgress, onQuantise } = display;
  const quantised = given({ loadIn4bit, loadIn8bit, quantBlockSize, int8Activations });
  // What contradicts itself is said as such, not as a model that cannot be opened.
  codingOf(quantised);
  const options = { onProgress, onQuantise, ...quantised, ...given({ revision, device, threads, signal }) };
  let model: M | undefined;
  try {
    model = await kind
      .load(id, options, found?.config)
      .catch((error: unknown) => {
        throw choice.model === undefined && base !== undefined
          ? baseMissing(error, choice.adapter as string, id)
          : error;
      })
      .finally(display.stop);
    const edited =
      choice.adapter === undefined ? undefined : await ReftModel.load(choice.adapter, model, given({ signal }));
    const tokenizer = await AutoTokenizer.fromPretrained(id, options);
    return await use({ model, tokenizer, edited });
  } finally {
    await model?.dispose();
  }
}

function chooseModel(
  choice: ModelChoice,
  base: AdapterConfig["base"] | undefined,
): { id: string; revision: string | undefined } {
  if (choice.model !== undefined) return { id: choice.model, revision: choice.revision };
  if (base === undefined) return { id: "builtin", revision: choice.revision };
  return { id: base.id, revision: choice.revision ?? base.revision ?? undefined };
}

/** An adapter remembers its base as it was named in training, which another folder or machine may not know. */
function baseMissing(error: unknown, adapter: string, id: string): unknown {
  if (!(error instanceof UserError)) return error;
  return new UserError(
    `The base model of ${adapter}, ${id}, cannot be opened: ${whatHappened(error)}`,
    `${error.hint} Or say where it is with --model.`,
    { cause: error },
  );
}

export interface FoundAdapter {
  readonly folder: string;
  readonly config: AdapterConfig;
}

/** An adapter's folder, from the hub where it is none on this machine, and what it says. Throws UserError where it is no adapter. */
export async function findAdapter(idOrFolder: string, terminal: Terminal, signal?: AbortSignal): Promise<FoundAdapter> {
  const display = showDownloads(terminal, idOrFolder);
  const options = { onProgress: display.onProgress, ...given({ signal }) };
  const { folder } = await resolveFiles(idOrFolder, sharedFiles, options).finally(display.stop);
  return { folder, config: await readAdapterConfig(folder, idOrFolder) };
}

async function readAdapterConfig(folder: string, name: string): Promise<AdapterConfig> {
  const path = join(folder, configFile);
  try {
    return parseAdapterConfig(new TextDecoder().decode(await readFileCapped(path, maxAdapterBytes)), path);
  } catch (error) {
    if (!(error instanceof UserError)) throw error;
    throw new UserError(
      `${name} is no adapter: ${whatHappened(error)}`,
      "An adapter is a folder that reft train wrote, with reft_config.json and reft.safetensors in it; reft convert makes one of pyreft's, EasySteer's and AdapterHub's.",
      { cause: error },
    );
  }
}
