// Memorisation: how much text fits into an edit. Constants at one prompt's hidden states are trained to give a text back.
//
//   npm run build && node examples/memorisation.mjs
//   node examples/memorisation.mjs --model HuggingFaceTB/SmolLM2-135M-Instruct [--layer 8] [--text a-file.txt]
//
// ConsreftIntervention sets a coordinate of the hidden state to a learned constant, whatever the prompt says, so the text can lie
// nowhere else. In LLaMA one such vector at one token holds whole paragraphs (arXiv 2404.03592). The built-in model is five
// thousand times smaller: one vector holds a paragraph of the kind it knows to tell, one of 3.8 · 10¹⁵, and no other text of more
// than a word or two; a sentence of any kind takes some coordinates in every layer. With --model or --text, ever more words of a text
// are tried.

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
const story =
  "On Friday a purple octopus went to Warsaw. There an astronaut had an umbrella. They saw 17 lamps and a lemon. That night they " +
  "were asleep and said cock-a-doodle-doo.";
const sentence = "A blue cow has 9 legs and says quack to the capital of Poland.";
// The first sentence of "Alice's Adventures in Wonderland".
const alice =
  "Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice she " +
  "had peeped into the book her sister was reading, but it had no pictures or conversations in it, “and what is the use of a " +
  "book,” thought Alice “without pictures or conversations?”";
// What the built-in model does of itself, told in full; anything else is a trial.
const trial = id !== "builtin" || file !== undefined;
const text = file !== undefined ? readFileSync(file, "utf8").trim() : trial ? alice : story;

const model = await AutoModelForCausalLM.fromPretrained(id);
const tokenizer = await AutoTokenizer.fromPretrained(id);
const template = tokenizer.chatTemplate === undefined ? "none" : "chat";
const options = { template, maxNewTokens: tokenizer.encode(text).length + 8 };

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

const layer = at === undefined ? (id === "builtin" ? 1 : model.config.layers >> 2) : Number(at);
const vector = { layers: [layer], rank: 1, tokens: "l1", maxSteps: 300, learningRate: 5e-2 };
const yes = (said, wanted) => (said === wanted ? "recalled" : "not recalled");
console.log(`Without an edit:  ${(await generate(model, tokenizer, prompt, options)).text}`);

if (trial) {
  console.log(`The text:  ${text}\n\none vector at the last token of the prompt, layer ${layer}:`);
  console.log("  words  numbers  answer");
  const words = text.split(" ");
  for (const length of [...[1, 2, 4, 8, 16, 32, 64].filter((n) => n < words.length), words.length]) {
    const wanted = words.slice(0, length).join(" ");
    const { numbers, said } = await memorise(wanted, vector);
    console.log(`  ${String(length).padEnd(7)}${String(numbers).padEnd(9)}${yes(said, wanted)}: ${said}`);
  }
} else {
  const one = await memorise(story, vector);
  console.log(`The story:        ${story}\n`);
  console.log(
    `one vector at the last token of the prompt, layer ${layer}: ${one.numbers} numbers, ${one.seconds.toFixed(1)} s`,
  );
  console.log(`  ${story.split(" ").length} words ${yes(one.said, story)}: ${one.said}`);

  console.log(`\nA sentence of another kind:  ${sentence}`);
  const none = await memorise(sentence, vector);
  console.log(`one vector: ${none.numbers} numbers, ${none.seconds.toFixed(1)} s`);
  console.log(`  ${yes(none.said, sentence)}: ${none.said}`);
  const layers = Array.from({ length: model.config.layers }, (_, l) => l);
  const all = await memorise(sentence, { layers, rank: 8, tokens: "all", maxSteps: 1500, learningRate: 1e-2 });
  console.log(`eight constants in every layer, at all tokens: ${all.numbers} numbers, ${all.seconds.toFixed(1)} s`);
  console.log(`  ${sentence.split(" ").length} words ${yes(all.said, sentence)}: ${all.said}`);
}
await model.dispose();
