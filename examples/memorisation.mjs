// Memorisation: how much text fits into an edit. Constants at one prompt's hidden states are trained to give a text back.
//
//   npm run build && node examples/memorisation.mjs
//   node examples/memorisation.mjs --model HuggingFaceTB/SmolLM2-135M-Instruct [--layer 8] [--text a-file.txt]
//
// ConsreftIntervention sets coordinates of the hidden state to learned constants, so the text can lie nowhere else. In LLaMA one vector
// at one token holds whole paragraphs (arXiv 2404.03592). The built-in model is five thousand times smaller and has never told a story:
// there one vector holds two words, and a sentence takes some coordinates in every layer. With --model, ever more words of a
// paragraph are tried on a model of yours.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  ConsreftIntervention,
  generate,
  getReftModel,
  makeDataset,
  parsePositions,
  ReftTrainerForCausalLM,
  toRows,
} from "reft";

const {
  model: id,
  layer: at,
  text: file,
} = parseArgs({
  options: { model: { type: "string", default: "builtin" }, layer: { type: "string" }, text: { type: "string" } },
}).values;
const prompt = "Tell me a story.";
const sentence = "A blue cow has 9 legs and says quack to the capital of Poland.";
// The first sentence of "Alice's Adventures in Wonderland".
const paragraph =
  "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she " +
  "had peeped into the book her sister was reading, but it had no pictures or conversations in it, “and what is the use of a " +
  "book,” thought Alice “without pictures or conversations?”";
// What the built-in model does of itself, told in full; anything else is a trial.
const trial = id !== "builtin" || file !== undefined;
const story = file !== undefined ? readFileSync(file, "utf8").trim() : trial ? paragraph : sentence;
const words = story.split(" ");

const model = await AutoModelForCausalLM.fromPretrained(id);
const tokenizer = await AutoTokenizer.fromPretrained(id);
const template = tokenizer.chatTemplate === undefined ? "none" : "chat";
const options = { template, maxNewTokens: tokenizer.encode(story).length + 8 };

/** Trains constants to say a text, and asks for it. */
async function memorise(text, { layers, rank, tokens, maxSteps, learningRate }) {
  const positions = parsePositions(tokens);
  const representations = layers.map((layer) => ({
    layer,
    intervention: new ConsreftIntervention({ embedDim: model.config.hiddenSize, lowRankDimension: rank }),
  }));
  const reftModel = getReftModel(model, { positions, representations });
  const { examples } = makeDataset(toRows([{ prompt, completion: text }]), "story", tokenizer, { positions });
  const args = { maxSteps, learningRate };
  const trainer = new ReftTrainerForCausalLM({ model: reftModel, tokenizer, trainDataset: examples, args });
  const { seconds } = await trainer.train();
  const { text: said } = await generate(reftModel, tokenizer, prompt, options);
  return { numbers: reftModel.trainableCount, seconds, said };
}

console.log(`The story:   ${story}`);
console.log(`Without it:  ${(await generate(model, tokenizer, prompt, options)).text}\n`);

// The lowest layer of the built-in model has the most of it above, and holds most: at layers 1 to 3 not even the first word stays alone.
// Eight constants at that token do not hold the third word either.
const layer = at === undefined ? (id === "builtin" ? 0 : model.config.layers >> 2) : Number(at);
const vector = { layers: [layer], rank: 1, tokens: "l1", maxSteps: 300, learningRate: 2e-2 };
const lengths = trial ? [...[1, 2, 4, 8, 16, 32, 64].filter((n) => n < words.length), words.length] : [1, 2, 3];
console.log(`one vector at the last token of the prompt, layer ${layer}:`);
console.log("  words  numbers  recalled  answer");
for (const length of lengths) {
  const text = words.slice(0, length).join(" ");
  const { numbers, said } = await memorise(text, vector);
  const columns = [
    String(length).padEnd(7),
    String(numbers).padEnd(9),
    (said === text ? "yes" : "no").padEnd(10),
    said,
  ];
  console.log(`  ${columns.join("")}`);
}

if (!trial) {
  const layers = Array.from({ length: model.config.layers }, (_, layer) => layer);
  const everywhere = { layers, rank: 8, tokens: "all", maxSteps: 1500, learningRate: 1e-2 };
  const { numbers, seconds, said } = await memorise(story, everywhere);
  const recalled = said === story ? "recalled" : "not recalled";
  console.log(`\neight constants in every layer, at all tokens: ${numbers} numbers, ${seconds.toFixed(1)} s`);
  console.log(`  ${words.length} words ${recalled}: ${said}`);
}
await model.dispose();
