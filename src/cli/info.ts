/** `reft info`: what a model is, what an adapter holds, and what this machine offers. */

import { stat } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { z } from "zod";
import { UserError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { encoders, families } from "../models/families.js";
import { components } from "../models/site.js";
import { type AdapterConfig, configFile, weightsFile } from "../reft/adapter.js";
import { interventions } from "../reft/interventions.js";
import { availableDevices } from "../runtime/node.js";
import { middleLayer } from "./build-edit.js";
import type { CliCommand } from "./command.js";
import { flagsOf, parseOptions } from "./flags.js";
import { objectiveOfHead } from "./objective.js";
import { adapterField, findAdapter, modelFields, type Opened, withModel } from "./open-model.js";
import { fileSize, grouped } from "./render.js";
import type { Terminal } from "./terminal.js";

const schema = z.strictObject({
  model: modelFields.model,
  revision: modelFields.revision,
  adapter: adapterField,
  json: z.boolean().default(false).describe("print one JSON object"),
});

/** What is known, in the order it is shown in. */
type Facts = Readonly<Record<string, string | number | boolean | readonly string[] | null>>;

export const infoCommand: CliCommand = {
  name: "info",
  summary: "what a model, an adapter or this installation is",
  description: `Says what a model is (family, sizes, where it can be edited), what an adapter holds (sites, ranks, base model), or, with neither, which versions and devices this installation has.`,
  flags: flagsOf(schema, "Options:"),
  examples: [
    ["reft info", "versions and devices"],
    ["reft info --model HuggingFaceTB/SmolLM2-135M-Instruct", "a model; it is downloaded if need be"],
    ["reft info --adapter my-reft", "an adapter; its base model is not opened"],
  ],
  run: async (given, { terminal }) => {
    const options = parseOptions(schema, given);
    if (options.model !== undefined && options.adapter !== undefined)
      throw new UserError("model and adapter are both given.", "Ask for one at a time.");
    const facts =
      options.adapter !== undefined
        ? await adapterFacts(options.adapter, terminal)
        : options.model !== undefined
          ? await withModel(options, terminal, modelFacts)
          : installationFacts();
    show(facts, options.json, terminal);
    return 0;
  },
};

function show(facts: Facts, json: boolean, terminal: Terminal): void {
  if (json) {
    terminal.result(JSON.stringify(facts));
    return;
  }
  const labels = Object.keys(facts).map((name) => name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`));
  const width = Math.max(...labels.map((label) => label.length));
  Object.entries(facts).forEach(([name, value], i) => {
    terminal.result(`${terminal.dim((labels[i] as string).padEnd(width))}  ${readable(name, value)}`);
  });
}

function readable(name: string, value: Facts[string]): string {
  if (value === null) return "none";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "number") return /bytes/i.test(name) ? fileSize(value) : grouped(value);
  return typeof value === "string" ? value : value.join(", ");
}

async function modelFacts({ model, tokenizer }: Opened): Promise<Facts> {
  const { config, checkpoint } = model;
  return {
    model: model.id,
    revision: model.revision ?? null,
    folder: checkpoint.folder,
    family: config.modelType,
    parameters: model.parameterCount,
    storedAs: [...new Set([...checkpoint.weights.values()].map(({ dtype }) => dtype))],
    weightBytes: weightBytes(model),
    layers: config.layers,
    middleLayer: middleLayer(model),
    hiddenSize: config.hiddenSize,
    heads: config.heads,
    keyValueHeads: config.kvHeads,
    vocabulary: config.vocabSize,
    contextTokens: config.maxPositionEmbeddings,
    tiedHead: config.tiedHead,
    chatTemplate: tokenizer.chatTemplate !== undefined,
    components,
  };
}

function weightBytes({ checkpoint }: CausalLM): number {
  return [...checkpoint.weights.values()].reduce((sum, { length }) => sum + length, 0);
}

async function adapterFacts(adapter: string, terminal: Terminal): Promise<Facts> {
  const { folder, config } = await findAdapter(adapter, terminal);
  const { base, representations, positions, shareWeights, template, classifier } = config;
  const sizes = await Promise.all([configFile, weightsFile].map((name) => fileBytes(join(folder, name))));
  return {
    adapter,
    base: base.id,
    baseRevision: base.revision,
    baseShape: `${base.modelType}, hidden size ${base.hiddenSize}, ${base.layers} layers, vocabulary ${base.vocabSize}`,
    edits: representations.map(
      (r) =>
        `${r.intervention.replace(/Intervention$/, "")} of rank ${r.lowRankDimension} at ${r.component} of layer ${r.layer}${r.linkKey === null ? "" : ` (shared: ${r.linkKey})`}`,
    ),
    positions,
    shareWeights,
    template,
    ...(classifier === undefined ? {} : headFacts(classifier)),
    bytes: sizes.reduce((a, b) => a + b, 0),
  };
}

function headFacts(head: NonNullable<AdapterConfig["classifier"]>): Facts {
  if (objectiveOfHead(head) === "reward") return { tells: "a score of an answer (reward)" };
  if (head.problemType === "regression") return { tells: "a number (regression)" };
  return { tells: (head.problemType ?? "classes").replaceAll("_", " "), classes: head.labels };
}

async function fileBytes(path: string): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined) return found.size;
  throw new UserError(`${path} is missing.`, "The adapter is incomplete; save it again.");
}

function installationFacts(): Facts {
  const require = createRequire(import.meta.url);
  const version = (path: string): string => (require(path) as { version: string }).version;
  return {
    reft: version("../../package.json"),
    node: process.versions.node,
    onnxruntime: version("onnxruntime-node/package.json"),
    platform: `${process.platform} ${process.arch}`,
    devices: availableDevices(),
    families: Object.keys({ ...families, ...encoders }),
    interventions: Object.keys(interventions).map((name) => name.replace(/Intervention$/, "")),
    components,
  };
}
