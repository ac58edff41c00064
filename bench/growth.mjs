// `growth`: how step time grows with everything it can grow with; writes docs/performance.md and its plots.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command, Option } from "commander";
import { UserError } from "../dist/errors.js";
import { checkpointBytes, checkpointExists, freeBytes, removeCheckpoint, shapeOf } from "./checkpoint.mjs";
import { countingRule } from "./count.mjs";
import { busyNote, machineFacts, machineLines } from "./machine.mjs";
import { deviceOption, dtypeOption, jsonOption, names, shapeOption, whole } from "./options.mjs";
import { linePlot } from "./plot.mjs";
import { measureOurs } from "./process.mjs";
import { format, markdownTable, median, printReport, progress } from "./table.mjs";
import { describeWork, spread, storedType, trainingJob } from "./work.mjs";

const base = { batch: 8, prompt: 96, answer: 32, layers: "mid", positions: "l1", rank: 4 };

/** What is varied, over which values, and the work that a value stands for. */
const sweeps = {
  prompt: { axis: "prompt tokens", values: () => [32, 96, 256, 512, 1024], work: (prompt) => ({ prompt }) },
  depth: {
    axis: "layers of the model",
    values: (c) => [0.2, 0.4, 0.6, 0.8, 1].map((share) => Math.max(2, Math.round(share * c.num_hidden_layers))),
    work: (layers) => ({ overrides: { num_hidden_layers: layers } }),
  },
  edits: {
    axis: "edited layers",
    values: (c) => [1, 2, 5, 10, c.num_hidden_layers].filter((n) => n <= c.num_hidden_layers),
    work: (edits, c) => ({ layers: spread(edits, c.num_hidden_layers) }),
  },
  rank: { axis: "rank", values: () => [1, 4, 8, 16, 32], work: (rank) => ({ rank }) },
  vocabulary: {
    axis: "vocabulary",
    values: () => [8192, 32_000, 49_152, 100_352, 151_936],
    work: (vocab_size) => ({ overrides: { vocab_size } }),
  },
  batch: { axis: "batch", values: () => [1, 2, 4, 8, 16], work: (batch) => ({ batch }) },
};

const sweepColumns = (axis) => [
  { key: "value", label: axis, as: "text" },
  { key: "firstSeconds", label: "epoch 1", as: "seconds" },
  { key: "laterSeconds", label: "later epochs", as: "seconds" },
  { key: "uncachedSeconds", label: "no cache", as: "seconds" },
  { key: "gflop", label: "GFLOP, no cache", as: "number" },
  { key: "gflops", label: "GFLOP/s, no cache", as: "number" },
  { key: "peakBytes", label: "peak memory", as: "bytes" },
  { key: "uncachedPeakBytes", label: "peak memory, no cache", as: "bytes" },
];

const sizeColumns = [
  { key: "size", label: "model" },
  { key: "reading", label: "read as" },
  { key: "parameters", label: "parameters", as: "count" },
  { key: "fileBytes", label: "weights", as: "bytes" },
  { key: "madeSeconds", label: "made once", as: "seconds" },
  { key: "openSeconds", label: "open", as: "seconds" },
  { key: "openPeakBytes", label: "memory when open", as: "bytes" },
  { key: "firstSeconds", label: "epoch 1", as: "seconds" },
  { key: "laterSeconds", label: "later epochs", as: "seconds" },
  { key: "peakBytes", label: "peak memory", as: "bytes" },
  { key: "note", label: "" },
];
const sizeWork = { ...base, batch: 1, prompt: 96, answer: 32 };

const more = `
Sweeps: ${Object.keys(sweeps).join(", ")}, and sizes (opening and a batch of one on whole models). Epoch 1 is the first step,
which does all frozen work; later epochs is the median of the steps after it on the same batch; no cache is a process that
caches nothing. Checkpoints of varied shapes are written for their measurement and removed after it. All of it takes a quarter
of an hour or more on two cores, and 14 GB of disk for the 7B shape in bf16 (left out where there is less). A size in 8 or 4
bits is coded from bf16 ("made once"); "weights" are then the codes, beside which embeddings, head and norms are read from the
checkpoint.

Examples:
  $ npm run bench -- growth
  $ npm run bench -- growth --sweeps rank,batch --output growth-results
  $ npm run bench -- growth --sweeps sizes --sizes 135m:f32,7b:bf16`;

export function growthCommand() {
  return new Command("growth")
    .summary("how step time grows; writes docs/performance.md")
    .description("Measures a training step while one thing at a time is varied; writes tables and plots.")
    .addOption(shapeOption())
    .addOption(dtypeOption())
    .addOption(
      new Option("--sweeps <list>", "what to vary").argParser(names).default([...Object.keys(sweeps), "sizes"]),
    )
    .addOption(
      new Option("--sizes <list>", "models, as shape:f32, :bf16, :8bit or :4bit")
        .argParser(names)
        .default([
          "135m:f32",
          "135m:bf16",
          "494m:f32",
          "494m:bf16",
          "1.1b:f32",
          "1.1b:bf16",
          "1.1b:4bit",
          "7b:bf16",
          "7b:4bit",
        ]),
    )
    .option("--steps <n>", "measured steps of a process, after the first", whole(), 4)
    .option(
      "--output <dir>",
      "where performance.md and performance/*.svg go",
      fileURLToPath(new URL("../docs", import.meta.url)),
    )
    .addOption(deviceOption())
    .addOption(jsonOption())
    .addHelpText("after", more)
    .action(run);
}

async function run(options) {
  const odd = options.sizes.find((size) => !Object.hasOwn(readings, size.split(":")[1] ?? "f32"));
  if (odd !== undefined)
    throw new UserError(
      `there is no size "${odd}".`,
      `Write a shape and how it is read: 7b:${Object.keys(readings).join(", 7b:")}.`,
    );
  const unknown = options.sweeps.find((name) => name !== "sizes" && !Object.hasOwn(sweeps, name));
  if (unknown !== undefined)
    throw new UserError(`there is no sweep "${unknown}".`, `Sweeps: ${Object.keys(sweeps).join(", ")}, sizes.`);
  const facts = machineFacts();
  const done = new Map();
  const results = {};
  for (const name of options.sweeps)
    results[name] = name === "sizes" ? await measureSizes(options) : await measureSweep(name, options, done);
  writeDocument(options, facts, results);
  if (options.json) {
    console.log(JSON.stringify({ command: "growth", facts, results }, null, 2));
    return;
  }
  for (const [name, rows] of Object.entries(results)) {
    const [title, columns] = headOf(name);
    printReport({ title, facts, columns, rows }, options);
  }
  console.log(`written: ${join(options.output, "performance.md")}`);
}

async function measureSweep(name, options, done) {
  const config = shapeOf(options.shape);
  const { values, work } = sweeps[name];
  const rows = [];
  for (const value of [...new Set(values(config))]) {
    const asked = {
      ...base,
      shape: options.shape,
      dtype: options.dtype,
      device: options.device,
      ...work(value, config),
    };
    // The point that all sweeps share is measured once.
    const key = JSON.stringify({
      ...asked,
      layers: trainedLayers(asked),
      overrides: shapeOf(asked.shape, asked.overrides),
    });
    progress(`${name} ${value}${done.has(key) ? " (measured before)" : ""}`);
    if (!done.has(key)) done.set(key, await withCheckpoint(asked, () => measurePoint(asked, options.steps)));
    rows.push({ value, ...done.get(key) });
  }
  return rows;
}

function trainedLayers({ layers, shape, overrides }) {
  return layers === "mid" ? String(shapeOf(shape, overrides).num_hidden_layers >> 1) : layers;
}

/** Runs with the checkpoint in place, and leaves none behind that was not there. */
async function withCheckpoint({ shape, dtype, overrides }, work) {
  const type = storedType(dtype);
  const existed = checkpointExists(shape, type, overrides);
  const own = overrides !== undefined || checkpointBytes(shape, type) > 4e9;
  try {
    return await work();
  } finally {
    if (own && !existed) removeCheckpoint(shape, type, overrides);
  }
}

async function measurePoint(asked, steps) {
  const job = trainingJob({ ...asked, cache: true, steps: steps + 1 });
  const cached = await measureOurs("train", job);
  const uncached = await measureOurs("train", { ...job, cache: false });
  const uncachedSeconds = laterOf(uncached);
  return {
    firstSeconds: cached.steps[0].seconds,
    laterSeconds: laterOf(cached),
    uncachedSeconds,
    gflop: job.operations / 1e9,
    gflops: job.operations / uncachedSeconds / 1e9,
    peakBytes: cached.peakBytes,
    uncachedPeakBytes: uncached.peakBytes,
  };
}

function laterOf({ steps }) {
  return median(steps.slice(1).map((s) => s.seconds));
}

/** How a size is read: as its checkpoint is stored, or in codes made from it in bf16. */
const readings = {
  f32: { dtype: "f32", load: {} },
  bf16: { dtype: "bf16", load: {} },
  "8bit": { dtype: "bf16", load: { loadIn8bit: true } },
  "4bit": { dtype: "bf16", load: { loadIn4bit: true } },
};

async function measureSizes({ sizes, device, steps }) {
  const rows = [];
  for (const size of sizes) {
    const [shape, reading = "f32"] = size.split(":");
    const { dtype, load } = readings[reading];
    const type = storedType(dtype);
    const stored = checkpointBytes(shape, type);
    const row = { size: shape, reading, parameters: stored / (type === "F32" ? 4 : 2) };
    progress(`size ${size}`);
    const needed = (checkpointExists(shape, type) ? 0 : stored) + (reading === dtype ? 0 : stored / 2);
    if (needed > freeBytes()) {
      rows.push({ ...row, note: `not measured: the disk has ${format.bytes(freeBytes())} free` });
      continue;
    }
    const asked = { ...sizeWork, shape, dtype, device };
    const quantCacheDir = mkdtempSync(join(tmpdir(), "reft-codes-"));
    try {
      const measured = await withCheckpoint(asked, async () => {
        const job = trainingJob({ ...asked, cache: true, steps: steps + 1 });
        if (reading === dtype) return { fileBytes: stored, r: await measureOurs("train", job) };
        const coded = { ...job, load: { ...load, quantCacheDir } };
        const made = await measureOurs("train", { ...coded, steps: 1 });
        const r = await measureOurs("train", coded);
        return { madeSeconds: made.openSeconds, fileBytes: r.codesBytes, r };
      });
      const { r, ...rest } = measured;
      const { openSeconds, openPeakBytes, peakBytes } = r;
      const times = { openSeconds, firstSeconds: r.steps[0].seconds, laterSeconds: laterOf(r) };
      rows.push({ ...row, ...rest, ...times, openPeakBytes, peakBytes });
    } finally {
      rmSync(quantCacheDir, { recursive: true, force: true });
    }
  }
  return rows;
}

function headOf(name) {
  if (name === "sizes") return ["Opening, memory and a step of one example, by model size", sizeColumns];
  return [`Step time by ${sweeps[name].axis}`, sweepColumns(sweeps[name].axis)];
}

function plotOf(name, rows) {
  const [title] = headOf(name);
  if (name === "sizes") {
    const measured = rows.filter((r) => r.peakBytes !== undefined).sort((r, s) => r.parameters - s.parameters);
    const series = [...new Set(measured.map((r) => r.reading))].flatMap((reading) => {
      const own = measured.filter((r) => r.reading === reading);
      const line = (label, key) => ({
        name: `${label}, ${reading}`,
        points: own.map((r) => [r.parameters / 1e9, r[key] / 1e9]),
      });
      return [line("training", "peakBytes"), line("when open", "openPeakBytes")];
    });
    return linePlot({ title: "Resident memory by model size", x: "parameters, billions", y: "memory, GB", series });
  }
  const series = [
    ["no cache", "uncachedSeconds"],
    ["epoch 1", "firstSeconds"],
    ["later epochs", "laterSeconds"],
  ].map(([label, key]) => ({ name: label, points: rows.map((r) => [r.value, r[key]]) }));
  return linePlot({ title, x: sweeps[name].axis, y: "seconds a step", series });
}

function writeDocument(options, facts, results) {
  const folder = join(options.output, "performance");
  mkdirSync(folder, { recursive: true });
  const sections = Object.entries(results).map(([name, rows]) => {
    const [title, columns] = headOf(name);
    const parts = [`## ${title}`];
    if (rows.some((r) => r.peakBytes !== undefined)) {
      writeFileSync(join(folder, `${name}.svg`), plotOf(name, rows));
      parts.push(`![${title}](performance/${name}.svg)`);
    }
    return [...parts, markdownTable(columns, rows)].join("\n\n");
  });
  const standard = describeWork({ ...base, shape: options.shape, dtype: options.dtype, device: options.device });
  const text = [
    "# Performance: how a training step grows",
    "Written by `npm run bench -- growth`; do not edit. Other measurements: `npm run bench -- --help`.",
    machineLines(facts).join("  \n"),
    ...busyNote(facts).map((note) => `**${note}**`),
    `Unless varied: ${standard}. Epoch 1 does all frozen work and keeps it; later epochs do what depends on the edits; "no cache" does everything in every step. Each cell is a process of its own, steps after the first a median of ${options.steps}. Memory is resident memory, mapped weight files included (each once).`,
    ["```", ...countingRule, "```"].join("\n"),
    ...sections,
  ];
  writeFileSync(join(options.output, "performance.md"), `${text.join("\n\n")}\n`);
}
