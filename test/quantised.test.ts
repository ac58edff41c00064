/** Quantised models: exactly the model whose weights are the rounded ones, in logits, losses, gradients and written tokens. */

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Checkpoint, QuantisedMatrix, WeightLocation } from "../src/files/checkpoint.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { encodeSafetensors, type FloatTensor } from "../src/files/safetensors.js";
import { readWeight } from "../src/files/weight-node.js";
import { generateTokens } from "../src/generate/generate.js";
import {
  AutoModelForCausalLM,
  AutoModelForSequenceClassification,
  getReftModel,
  LoreftIntervention,
} from "../src/index.js";
import type { QuantisationOptions } from "../src/load.js";
import type { CausalLM } from "../src/models/causal-lm.js";
import type { FrozenModel } from "../src/models/frozen-model.js";
import type { ReftModel } from "../src/reft/reft-model.js";
import { openStep } from "../src/train/step.js";
import { expectClose, golden } from "./support.js";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "reft-quantised-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function bytesAt({ path, offset, length }: WeightLocation): Promise<Uint8Array> {
  return (await readFile(path)).subarray(offset, offset + length);
}

/** The matrix [outputs, inputs] that codes stand for, by the definition in docs/quantisation.md. */
async function decoded({ bits, blockSize, codes, scales }: QuantisedMatrix): Promise<Float32Array> {
  const bytes = await bytesAt(codes);
  const steps = new Float32Array(new Uint8Array(await bytesAt(scales)).buffer);
  return Float32Array.from({ length: (bytes.length * 8) / bits }, (_, i) => {
    const byte = bytes[(i * bits) >> 3] as number;
    const code = bits === 8 ? byte : (byte >> (4 * (i % 2))) & 15;
    return (code - 2 ** (bits - 1)) * (steps[Math.floor(i / blockSize)] as number);
  });
}

/** A checkpoint in float32 whose matrices are the rounded ones. */
async function roundedCopy(model: FrozenModel, source: string, name: string): Promise<string> {
  const { weights, quantised } = model.checkpoint as Checkpoint;
  const tensors: Record<string, FloatTensor> = {};
  for (const [key, place] of weights) {
    const codes = quantised?.matrices.get(key);
    const { transposed = false, outputs = 0, inputs = 0 } = model.matrices().get(key) ?? {};
    const rows = codes === undefined ? await readWeight(place, key) : await decoded(codes);
    const data =
      codes !== undefined && transposed
        ? Float32Array.from(
            { length: rows.length },
            (_, i) => rows[(i % outputs) * inputs + Math.floor(i / outputs)] as number,
          )
        : rows;
    tensors[key] = { shape: [...place.shape], data };
  }
  const copy = join(folder, name);
  await cp(source, copy, { recursive: true });
  for (const file of [
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
  ])
    await rm(join(copy, file), { force: true });
  await writeFile(join(copy, "model.safetensors"), encodeSafetensors(tensors));
  return copy;
}

const examples = [11, 7].map((length, n) => ({
  inputIds: Array.from({ length }, (_, i) => (i * 13 + n * 29 + 5) % 64),
  labels: Array.from({ length }, (_, i) => (i < 4 ? -100 : (i * 13 + n * 29 + 5) % 64)),
  promptLength: 4,
  locations: [[3]],
}));

function edited<M extends FrozenModel>(model: M): ReftModel<M> {
  const { hiddenSize: embedDim } = model.config;
  const intervention = new LoreftIntervention({ embedDim, lowRankDimension: 2 });
  return getReftModel(model, { representations: { layer: 0, intervention }, positions: "l1" }, { seed: 3 });
}

async function stepOf(model: CausalLM, gradientCheckpointing = false) {
  const step = await openStep(edited(model), {
    training: true,
    padTokenId: 0,
    frozenCache: false,
    gradientCheckpointing,
  });
  const result = await step.run(examples, 0.1);
  await step.dispose();
  return result;
}

async function greedy(model: CausalLM): Promise<number[]> {
  const ids: number[] = [];
  const prompts = examples.map(({ inputIds }) => inputIds);
  for await (const step of generateTokens(model, prompts, { maxNewTokens: 12, eosTokenIds: [], doSample: false }))
    ids.push(...step.map(({ id }) => id));
  return ids;
}

const ways: [string, QuantisationOptions][] = [
  ["8 bits", { loadIn8bit: true, quantBlockSize: 16 }],
  ["4 bits", { loadIn4bit: true, quantBlockSize: 16 }],
  ["4 bits in blocks of 32", { loadIn4bit: true }],
];

describe.each(["llama", "llama-bias", "llama-bf16", "llama-sharded", "qwen3", "gpt2"])("%s", (name) => {
  const source = golden(`families/${name}`);

  test.each(ways)("in %s it is the model of the rounded weights", async (way, options) => {
    const model = await AutoModelForCausalLM.fromPretrained(source, { ...options, quantCacheDir: folder });
    const quantised = model.checkpoint.quantised?.matrices ?? new Map();
    // All of a Llama block's seven, four of GPT-2's; where head_dim is 12, some have rows that 16 does not divide.
    expect(quantised.size).toBeGreaterThan(model.config.layers * 2);
    const rounded = await AutoModelForCausalLM.fromPretrained(await roundedCopy(model, source, `${name}-${way}`));
    const [a, b] = [await stepOf(model), await stepOf(rounded)];
    expectClose([a.loss], [b.loss], 2e-6, "loss");
    for (const [key, gradient] of b.gradients) expectClose(a.gradients.get(key) ?? [], gradient, 1e-5, key);
    const again = await stepOf(model, true);
    for (const [key, gradient] of b.gradients) expectClose(again.gradients.get(key) ?? [], gradient, 1e-5, key);
    expect(await greedy(model)).toEqual(await greedy(rounded));
    // The weights did change.
    const plain = await AutoModelForCausalLM.fromPretrained(source);
    expect(Math.abs((await stepOf(plain)).loss - a.loss)).toBeGreaterThan(1e-6);
    await Promise.all([model, rounded, plain].map((m) => m.dispose()));
  });
});

test("rounded activations err by some thousandths, and leave derivatives those of the exact product", async () => {
  const source = golden("families/llama");
  const load = { loadIn8bit: true, quantBlockSize: 16, quantCacheDir: folder } as const;
  const exact = await AutoModelForCausalLM.fromPretrained(source, load);
  const model = await AutoModelForCausalLM.fromPretrained(source, { ...load, int8Activations: "always" });
  const [a, b] = [await stepOf(model), await stepOf(exact)];
  expect(a.loss).not.toBe(b.loss);
  expectClose([a.loss], [b.loss], 2e-2, "loss");
  for (const [key, gradient] of b.gradients) expectClose(a.gradients.get(key) ?? [], gradient, 5e-2, key);
  const inGeneration = await AutoModelForCausalLM.fromPretrained(source, { ...load, int8Activations: "generation" });
  expect((await stepOf(inGeneration)).loss).toBe(b.loss);
  expect((await greedy(inGeneration)).length).toBe(24);
  await Promise.all([exact, model, inGeneration].map((m) => m.dispose()));
});

test("an encoder's matrices are quantised, its head is not", async () => {
  const source = golden("encoders/bert");
  const options = { loadIn8bit: true, quantBlockSize: 16, quantCacheDir: folder } as const;
  const model = await AutoModelForSequenceClassification.fromPretrained(source, options);
  const names = [...(model.checkpoint.quantised?.matrices.keys() ?? [])];
  expect(names.length).toBeGreaterThanOrEqual(6 * model.config.layers);
  expect(names.every((name) => name.includes("encoder.layer"))).toBe(true);
  await model.dispose();
});

test.each<[QuantisationOptions, RegExp]>([
  [{ loadIn4bit: true, loadIn8bit: true }, /both set/],
  [{ int8Activations: "always" }, /int8Activations is for quantised models/],
  [{ quantBlockSize: 64 }, /quantBlockSize is for quantised models/],
  [{ loadIn4bit: true, quantBlockSize: 48 }, /quantBlockSize is 48/],
])("%j is refused", async (options, message) => {
  await expect(AutoModelForCausalLM.fromPretrained(golden("families/llama"), options)).rejects.toThrow(message);
});

test("the checkpoint that was opened is untouched", async () => {
  expect((await openCheckpoint(golden("families/llama"))).quantised).toBeUndefined();
});
