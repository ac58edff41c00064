// `quantised`: what 8 and 4 bits cost and save: size, opening, steps, memory, loss, decoding.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Command, Option } from "commander";
import { UserError } from "../dist/errors.js";
import { checkpointBytes, randomCheckpoint, shapeOf, shapes } from "./checkpoint.mjs";
import { machineFacts } from "./machine.mjs";
import { deviceOption, jsonOption, names, whole } from "./options.mjs";
import { measureOurs } from "./process.mjs";
import { median, printReport, progress } from "./table.mjs";
import { storedType, tokenIds, trainingJob } from "./work.mjs";

/** Ways of reading a model's weights. */
const ways = {
  fp32: { dtype: "f32", load: {} },
  bf16: { dtype: "bf16", load: {} },
  "8-bit": { dtype: "f32", load: { loadIn8bit: true } },
  "8-bit/int8": { dtype: "f32", load: { loadIn8bit: true, int8Activations: "generation" } },
  "4-bit": { dtype: "f32", load: { loadIn4bit: true } },
  "4-bit/int8": { dtype: "f32", load: { loadIn4bit: true, int8Activations: "generation" } },
};

const columns = [
  { key: "shape", label: "shape" },
  { key: "way", label: "weights" },
  { key: "fileBytes", label: "file", as: "bytes" },
  { key: "madeSeconds", label: "made once", as: "seconds" },
  { key: "openSeconds", label: "open", as: "seconds" },
  { key: "stepSeconds", label: "step, no cache", as: "seconds" },
  { key: "ofFp32", label: "fp32's speed", as: "percent" },
  { key: "cachedSeconds", label: "step", as: "seconds" },
  { key: "peakBytes", label: "peak memory", as: "bytes" },
  { key: "apart", label: "loss apart", as: "percent" },
  { key: "decode", label: "tokens/s", as: "number" },
  { key: "decodeBytes", label: "generating", as: "bytes" },
];

const more = `
"/int8" rounds activations to 8 bits in generation. "file" is what is read beside the checkpoint's embeddings, head and norms (the checkpoint itself where nothing is quantised); "made once"
is the first opening, which quantises. A step is one of a mid-layer edit at the last prompt token; "fp32's speed" compares steps
without the cache of frozen work, --rounds processes of each way by turns. "loss apart" is the largest relative difference from fp32's loss
in --loss-steps steps from the same start. tokens/s is greedy decoding of one row.

Example:
  $ npm run bench -- quantised --shapes 135m,494m`;

export function quantisedCommand() {
  return new Command("quantised")
    .summary("8- and 4-bit models: size, speed, memory, loss")
    .description("Compares ways of reading a model's weights: fp32, bf16, 8 bits, 4 bits.")
    .addOption(new Option("--shapes <list>", "models' shapes").argParser(names).default(["135m"]))
    .addOption(new Option("--ways <list>", "of reading weights").argParser(names).default(Object.keys(ways)))
    .option("--batch <n>", "examples per step", whole(), 4)
    .option("--prompt <n>", "prompt tokens of an example", whole(), 96)
    .option("--answer <n>", "answer tokens of an example", whole(), 32)
    .option("--steps <n>", "measured steps of a process, after the first", whole(), 3)
    .option("--loss-steps <n>", "steps over which losses are compared", whole(), 50)
    .option("--context <n>", "prompt tokens in generation", whole(), 256)
    .option("--new <n>", "generated tokens", whole(2), 64)
    .option("--rounds <n>", "fresh processes for each figure", whole(), 2)
    .addOption(deviceOption())
    .addOption(jsonOption())
    .addHelpText("after", more)
    .action(run);
}

async function run(options) {
  const strange =
    options.shapes.find((s) => !Object.hasOwn(shapes, s)) ?? options.ways.find((w) => !Object.hasOwn(ways, w));
  if (strange !== undefined)
    throw new UserError(
      `there is no "${strange}".`,
      `Shapes: ${Object.keys(shapes).join(", ")}; ways: ${Object.keys(ways).join(", ")}.`,
    );
  const facts = machineFacts();
  const rows = [];
  for (const shape of options.shapes) {
    const quantCacheDir = mkdtempSync(join(tmpdir(), "reft-codes-"));
    try {
      rows.push(...(await measureShape(shape, quantCacheDir, options)));
    } finally {
      rmSync(quantCacheDir, { recursive: true, force: true });
    }
  }
  const title = `Ways of reading weights; batch ${options.batch} of ${options.prompt}+${options.answer} tokens; generation of ${options.new} tokens after ${options.context}`;
  printReport({ command: "quantised", title, facts, columns, rows }, options);
}

async function measureShape(shape, quantCacheDir, options) {
  const initial = join(quantCacheDir, "initial");
  const work = { ...options, shape, layers: "mid", positions: "l1", rank: 4 };
  const jobs = options.ways.map((way) => {
    const { dtype, load } = ways[way];
    const own = Object.keys(load).length === 0 ? load : { ...load, quantCacheDir };
    return { way, dtype, load: own, folder: randomCheckpoint(shape, storedType(dtype)), found: [] };
  });
  const training = (job, steps, cache) => ({
    ...trainingJob({ ...work, dtype: job.dtype, steps, cache }),
    initial,
    load: job.load,
  });
  for (const job of jobs) {
    progress(`${shape}, ${job.way}: losses`);
    job.first = await measureOurs("train", training(job, options.lossSteps, true));
  }
  for (let round = 0; round < options.rounds; round++)
    for (const job of jobs) {
      progress(`${shape}, ${job.way}, round ${round + 1} of ${options.rounds}`);
      const uncached = await measureOurs("train", training(job, options.steps + 1, false));
      const prompts = [tokenIds(options.context, 0, shapeOf(shape).vocab_size)];
      const { device } = options;
      const text = { folder: job.folder, device, prompts, newTokens: options.new, repeats: 1, load: job.load };
      job.found.push({ uncached, generated: await measureOurs("generate", text) });
    }
  const later = ({ steps }) => median(steps.slice(1).map((s) => s.seconds));
  const stepOf = ({ found }) => median(found.map((f) => later(f.uncached)));
  const [base] = jobs;
  return jobs.map((job) => ({
    shape,
    way: job.way,
    fileBytes: fileOf(shape, job),
    madeSeconds: job.load.quantCacheDir === undefined ? undefined : job.first.openSeconds,
    openSeconds: median(job.found.map((f) => f.uncached.openSeconds)),
    stepSeconds: stepOf(job),
    ofFp32: stepOf(base) / stepOf(job),
    cachedSeconds: later(job.first),
    peakBytes: Math.max(...job.found.map((f) => f.uncached.peakBytes)),
    apart: Math.max(...job.first.steps.map(({ loss }, i) => Math.abs(loss / base.first.steps[i].loss - 1))),
    decode: (options.new - 1) / median(job.found.flatMap((f) => f.generated.runs.slice(1).map((r) => r.rest))),
    decodeBytes: Math.max(...job.found.map((f) => f.generated.peakBytes)),
  }));
}

/** Bytes of codes and scales, by the sizes that the way's defaults give; of the checkpoint where there are none. */
function fileOf(shape, { first, load, dtype }) {
  return Object.keys(load).length === 0 ? checkpointBytes(shape, storedType(dtype)) : first.codesBytes;
}
