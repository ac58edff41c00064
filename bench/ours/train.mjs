// One training run through the public trainer, in a process of its own.

import { AutoModelForCausalLM, getReftModel, LoreftIntervention, ReftTrainerForCausalLM } from "../../dist/index.js";
import { readJob, report, watchMemory } from "./child.mjs";

const job = readJob();
const memory = watchMemory();
// The clock starts with the process.
const imported = performance.now() / 1000;

const model = await AutoModelForCausalLM.fromPretrained(job.folder, { device: job.device, ...job.load });
const size = { embedDim: model.config.hiddenSize, lowRankDimension: job.rank };
const reft = getReftModel(model, {
  representations: job.layers.map((layer) => ({ layer, intervention: new LoreftIntervention(size) })),
  positions: job.positions,
  shareWeights: true,
});
if (job.initial !== undefined) await reft.save(job.initial, { overwrite: true });

const trainer = new ReftTrainerForCausalLM({
  model: reft,
  tokenizer: { padTokenId: 0 },
  args: {
    maxSteps: job.steps,
    perDeviceTrainBatchSize: job.batch,
    learningRate: job.learningRate,
    ...(job.cache ? {} : { frozenCache: false }),
  },
  trainDataset: job.examples,
});

const steps = [];
let opened = { seconds: 0, peakBytes: 0 };
let last = performance.now();
for await (const event of trainer.run()) {
  const now = performance.now();
  if (event.type === "start") {
    opened = { seconds: now / 1000 - imported, peakBytes: memory.peak() };
    last = performance.now();
  }
  if (event.type !== "step") continue;
  // By this process's own clock, so that work which an event does not count is counted here.
  steps.push({ seconds: (now - last) / 1000, loss: event.loss });
  last = now;
}
const peakBytes = memory.peak();
if (job.save !== undefined) await reft.save(job.save, { overwrite: true });
await model.dispose();

report({
  importSeconds: imported,
  openSeconds: opened.seconds,
  openPeakBytes: opened.peakBytes,
  steps,
  peakBytes,
  codesBytes: codesBytes(model.checkpoint.quantised),
});

/** Bytes of a quantised model's codes and scales. */
function codesBytes(quantised) {
  const matrices = [...(quantised?.matrices.values() ?? [])];
  return matrices.reduce((n, { codes, scales }) => n + codes.length + scales.length, 0);
}
