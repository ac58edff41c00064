// Generation without and with prompt edits by turns in one process, where a difference of 1 % can be seen.

import { generateTokens } from "../../dist/generate/generate.js";
import { releaseSessions } from "../../dist/generate/sessions.js";
import { AutoModelForCausalLM, getReftModel, LoreftIntervention } from "../../dist/index.js";
import { readJob, report, watchMemory } from "./child.mjs";

const { folder, device, prompt, newTokens, rounds, edits } = readJob();
const memory = watchMemory();
const model = await AutoModelForCausalLM.fromPretrained(folder, { device });

function edited({ layers, rank, positions }) {
  const size = { embedDim: model.config.hiddenSize, lowRankDimension: rank };
  const representations = layers.map((layer) => ({ layer, intervention: new LoreftIntervention(size) }));
  return getReftModel(model, { representations, positions, shareWeights: true });
}

async function seconds(target) {
  const began = performance.now();
  let tokens = 0;
  const options = { maxNewTokens: newTokens, eosTokenIds: [], doSample: false };
  for await (const step of generateTokens(target, [prompt], options)) tokens += step.length;
  if (tokens !== newTokens) throw new Error(`internal: ${tokens} tokens instead of ${newTokens}`);
  return (performance.now() - began) / 1000;
}

/** Two times and their ratio, a round; which comes first changes, so that a machine growing slower favours neither. */
async function compare(target) {
  const pairs = [];
  await seconds(target);
  for (let round = 0; round < rounds; round++) {
    const order = round % 2 === 0 ? [model, target] : [target, model];
    const first = await seconds(order[0]);
    const second = await seconds(order[1]);
    pairs.push(round % 2 === 0 ? { base: first, edited: second } : { base: second, edited: first });
  }
  return pairs;
}

await seconds(model);
const results = [await compare(model)];
for (const edit of edits) {
  const target = edited(edit);
  results.push(await compare(target));
  await releaseSessions(target);
}
const peakBytes = memory.peak();
await model.dispose();
report({ results, peakBytes });
