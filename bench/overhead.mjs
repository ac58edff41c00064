// `overhead`: what prompt edits cost a generation.

import { Command, Option } from "commander";
import { randomCheckpoint, shapeOf } from "./checkpoint.mjs";
import { machineFacts } from "./machine.mjs";
import { deviceOption, dtypeOption, jsonOption, names, shapeOption, whole, wholes } from "./options.mjs";
import { measureOurs } from "./process.mjs";
import { format, median, printReport, progress } from "./table.mjs";
import { layersOf, spread, storedType, tokenIds } from "./work.mjs";

const columns = [
  { key: "layers", label: "layers" },
  { key: "rank", label: "rank", as: "count" },
  { key: "positions", label: "positions" },
  { key: "readingSeconds", label: "reading, no edit", as: "seconds" },
  { key: "addedSeconds", label: "edits add", as: "seconds" },
  { key: "overhead", label: "overhead", as: "percent" },
  { key: "uncertainty", label: "±", as: "percent" },
];

const more = `
Edits of the prompt are at work while the prompt is read. Tokens after it go through the same graphs as without edits (checked:
the edited model opens one graph of its own, which reads prompts). So reading is measured in --rounds pairs, with and without
edits by turns, and the overhead is the median difference over the time of a whole generation. ± is the 95 % interval of that
median (1.57 interquartile ranges over the root of the rounds); an overhead within it is not told from none. The first row
compares the model without an edit with itself.

--layers takes sets separated by commas; within a set write semicolons or a range: mid,3;9;18;24,0-9,all. "four" is four
layers spread over the model.

Examples:
  $ npm run bench -- overhead
  $ npm run bench -- overhead --ranks 4 --layers "mid,0-9,all" --rounds 99`;

export function overheadCommand() {
  return new Command("overhead")
    .summary("what prompt edits cost a generation")
    .description("Measures what prompt edits of several ranks, layers and positions add to a whole generation.")
    .addOption(shapeOption())
    .addOption(dtypeOption())
    .option("--prompt <n>", "prompt tokens", whole(), 96)
    .option("--new <n>", "generated tokens", whole(2), 256)
    .addOption(new Option("--ranks <list>", "ranks").argParser(wholes).default([4, 32]))
    .addOption(new Option("--layers <list>", "sets of layers").argParser(names).default(["mid", "four", "all"]))
    .addOption(new Option("--positions <list>", "position rules").argParser(names).default(["l1", "f7+l7"]))
    .option("--rounds <n>", "pairs of readings for each kind of edit", whole(2), 41)
    .option("--generations <n>", "whole generations without an edit; their median counts", whole(), 3)
    .addOption(deviceOption())
    .addOption(jsonOption())
    .addHelpText("after", more)
    .action(run);
}

async function run(options) {
  const facts = machineFacts();
  const config = shapeOf(options.shape);
  const sets = options.layers.map((set) => (set === "four" ? spread(4, config.num_hidden_layers) : set));
  const kinds = sets.flatMap((layers) =>
    options.ranks.flatMap((rank) => options.positions.map((positions) => ({ layers, rank, positions }))),
  );
  progress(`${kinds.length + 1} comparisons of ${options.rounds} pairs of readings`);
  const {
    whole: generations,
    results,
    peakBytes,
  } = await measureOurs("overhead", {
    folder: randomCheckpoint(options.shape, storedType(options.dtype)),
    device: options.device,
    prompt: tokenIds(options.prompt, 0, config.vocab_size),
    newTokens: options.new,
    generations: options.generations,
    rounds: options.rounds,
    edits: kinds.map((kind) => ({ ...kind, layers: layersOf(kind.layers, config) })),
  });
  const generation = median(generations);
  const rows = [{ layers: "none (noise)" }, ...kinds].map((kind, i) => ({
    ...kind,
    ...figures(results[i], generation),
  }));
  const title = `Overhead of prompt edits; generation of ${options.new} tokens after ${options.prompt}, batch 1, ${options.shape} shape, ${options.dtype} checkpoint of random weights`;
  const notes = [
    `A whole generation without an edit takes ${format.seconds(generation)} (${generations.map(format.seconds).join(", ")}).`,
  ];
  printReport({ command: "overhead", title, facts, columns, rows, notes, generations, peakBytes }, options);
}

function figures(pairs, generation) {
  const added = pairs.map((p) => p.edited - p.base);
  return {
    readingSeconds: median(pairs.map((p) => p.base)),
    addedSeconds: median(added),
    overhead: median(added) / generation,
    uncertainty: medianError(added) / generation,
    pairs,
  };
}

/** Half the 95 % interval of a median (McGill, Tukey & Larsen 1978). */
function medianError(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.round(share * (sorted.length - 1))];
  return (1.57 * (at(0.75) - at(0.25))) / Math.sqrt(sorted.length);
}
