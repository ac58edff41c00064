// Greedy generation of a fixed number of tokens, in a process of its own.

import { generateTokens } from "../../dist/generate/generate.js";
import { AutoModelForCausalLM } from "../../dist/index.js";
import { readJob, report, watchMemory } from "./child.mjs";

const { folder, device, prompts, newTokens, repeats, load } = readJob();
const memory = watchMemory();
const began = performance.now();
const model = await AutoModelForCausalLM.fromPretrained(folder, { device, ...load });
const openSeconds = (performance.now() - began) / 1000;

async function generateOnce() {
  const start = performance.now();
  const times = [];
  const ids = [];
  for await (const step of generateTokens(model, prompts, {
    maxNewTokens: newTokens,
    eosTokenIds: [],
    doSample: false,
  })) {
    times.push(performance.now());
    ids.push(step.find(({ row }) => row === 0).id);
  }
  return { firstToken: (times[0] - start) / 1000, rest: (times.at(-1) - times[0]) / 1000, ids };
}

// The first run opens the graphs; it is reported apart.
const runs = [];
for (let i = 0; i <= repeats; i++) runs.push(await generateOnce());
const peakBytes = memory.peak();
await model.dispose();
report({ openSeconds, runs, peakBytes });
