// Reading a prompt without and with edits by turns in one process, and a whole generation to compare the difference with.

import { editsOfPrompts } from "../../dist/generate/edits.js";
import { generateTokens } from "../../dist/generate/generate.js";
import { readPrompts } from "../../dist/generate/prefill.js";
import { releaseSessions } from "../../dist/generate/sessions.js";
import { AutoModelForCausalLM, getReftModel, LoreftIntervention } from "../../dist/index.js";
import { readJob, report, watchMemory } from "./child.mjs";

const { folder, device, prompt, newTokens, generations, rounds, edits } = readJob();
const memory = watchMemory();
const model = await AutoModelForCausalLM.fromPretrained(folder, { device });

/** Graphs opened so far. */
let opened = 0;
const open = model.runtime.open.bind(model.runtime);
model.runtime.open = (...args) => {
  opened++;
  return open(...args);
};

function edited({ layers, rank, positions }) {
  const size = { embedDim: model.config.hiddenSize, lowRankDimension: rank };
  const representations = layers.map((layer) => ({ layer, intervention: new LoreftIntervention(size) }));
  return getReftModel(model, { representations, positions, shareWeights: true });
}

async function timed(act) {
  const began = performance.now();
  await act();
  return (performance.now() - began) / 1000;
}

async function generation(target, maxNewTokens) {
  let tokens = 0;
  const options = { maxNewTokens, eosTokenIds: [], doSample: false };
  for await (const step of generateTokens(target, [prompt], options)) tokens += step.length;
  if (tokens !== maxNewTokens) throw new Error(`internal: ${tokens} tokens instead of ${maxNewTokens}`);
}

async function reading(target) {
  const [own] = editsOfPrompts(target, [prompt], {});
  const { cache } = await readPrompts(target, [{ ids: prompt, edits: own }], newTokens);
  cache.dispose();
}

/** What reading takes without and with edits, a pair a round; which comes first changes, so that a machine growing slower favours neither. */
async function compare(target) {
  const pairs = [];
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? [model, target] : [target, model];
    const first = await timed(() => reading(order[0]));
    const second = await timed(() => reading(order[1]));
    pairs.push(round % 2 === 0 ? { base: first, edited: second } : { base: second, edited: first });
  }
  return pairs;
}

const whole = [];
for (let i = 0; i <= generations; i++) {
  const seconds = await timed(() => generation(model, newTokens));
  // The first opens the graphs.
  if (i > 0) whole.push(seconds);
}
const results = [await compare(model)];
for (const edit of edits) {
  const target = edited(edit);
  const before = opened;
  await generation(target, 2);
  // What the comparison rests on: of an edited model's own graphs a generation wants the one that reads its prompt.
  if (opened !== before + 1) throw new Error(`internal: an edited generation opened ${opened - before} graphs, not 1`);
  results.push(await compare(target));
  await releaseSessions(target);
}
const peakBytes = memory.peak();
await model.dispose();
report({ whole, results, peakBytes });
