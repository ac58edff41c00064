/** `reft train`: a model and a file of examples in, an adapter out. */

import { stat } from "node:fs/promises";
import { basename, join } from "node:path";
import { findRecipe } from "../data/recipes/table.js";
import { UserError } from "../errors.js";
import { configFile, weightsFile } from "../reft/adapter.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Measured } from "../train/objective.js";
import type { TrainEnd } from "../train/trainer.js";
import { buildEdit } from "./build-edit.js";
import type { CliCommand, CliContext } from "./command.js";
import { readSource } from "./data-source.js";
import { type Files, type RowFile, splitExamples } from "./examples.js";
import { kebab } from "./flags.js";
import { glueObjective, labelsObjective, rewardObjective } from "./head-objectives.js";
import { type Interrupt, listenForInterrupt, unlessAborted } from "./interrupt.js";
import { answersObjective, preferencesObjective } from "./language-objectives.js";
import {
  type CliObjective,
  checkMeant,
  detectObjective,
  labelOptions,
  type ObjectiveName,
  type Ready,
} from "./objective.js";
import { checkOutputFolder, checkResume } from "./output-folder.js";
import { recipeFile, recipeLine, recipeLines } from "./recipes.js";
import { count, figureText, fileSize, grouped, number, shellLine } from "./render.js";
import type { Terminal } from "./terminal.js";
import { readTrainRun, type TrainOptions, type TrainRun, trainFlags } from "./train-options.js";
import { runTraining } from "./train-run.js";

export const trainCommand: CliCommand = {
  name: "train",
  summary: "train an edit on a file of examples",
  description: `Trains an edit of a frozen model's hidden states on examples, and writes it to a folder of a few kilobytes.

Examples are rows of {"prompt", "completion"}, {"messages"} or {"instruction", "input", "output"}; with --recipe, what the recipe's data set has. Rows of {"prompt", "chosen", "rejected"} teach preferences (DPO, or --objective reward for a model that scores answers), rows of {"text", "label"} classes. Ten of them and the defaults are enough to change a style; for a real data set try --layers all --positions f7+l7 --lr 9e-4 --epochs 3.

Ctrl-C writes a checkpoint and says how to go on from it.`,
  flags: trainFlags,
  examples: [
    ["reft train --data examples.jsonl", "the built-in model, one rank-4 edit at the middle layer"],
    [
      "reft train --model HuggingFaceTB/SmolLM2-135M-Instruct --data examples.jsonl --layers 15 --output my-reft",
      "a model from Hugging Face, downloaded at the first use",
    ],
    ["reft train --config run.yaml --lr 2e-3", "a run file, with one option changed"],
    ["reft train --recipe commonsense --data commonsense_170k.json", "the paper's settings; --recipe list shows all"],
    ["reft train --data openai/gsm8k:main --split 'train[:500]'", "a data set of the hub"],
    ["reft train --data pairs.jsonl --objective dpo --beta 0.2 --init identity", "preferences between answers"],
    ["reft train --data reviews.csv --positions f1+l1 --output my-classifier", "classes of texts"],
    [
      "reft train --data all.csv --eval-split 0.1 --eval-strategy epoch --load-best-model-at-end",
      "keep the best epoch",
    ],
  ],
  run: async (given, context) => {
    if (given.recipe === "list") {
      for (const line of recipeLines()) context.terminal.result(line);
      return 0;
    }
    const run = await readTrainRun(given);
    const recipe = run.options.recipe === undefined ? undefined : findRecipe(run.options.recipe);
    await checkOutputFolder(run.options.outputDir, {
      mayHoldFiles: run.options.overwrite || run.options.resume !== false,
    });
    await checkResume(run.options.resume, run.options.outputDir);
    const { terminal } = context;
    if (recipe !== undefined) terminal.note(recipeLine(recipe, run.said));
    const interrupt = listenForInterrupt(() =>
      terminal.note("\nStopping after this step. Press Ctrl-C again to quit at once."),
    );
    try {
      const files = await readFiles(run.options, interrupt.signal, terminal);
      return await train(settleObjective(files, run.options, terminal), files, run, interrupt, context);
    } catch (error) {
      if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
      terminal.note("Stopped before the first step: nothing was written.");
      return interrupt.exitCode;
    } finally {
      interrupt.release();
    }
  },
};

/** What is learned and what is measured, from files or the hub, in the recipe's words where there is one. */
async function readFiles(options: TrainOptions, signal: AbortSignal, terminal: Terminal): Promise<Files> {
  const { data, evalData, split, dataRevision: revision } = options;
  const recipe = options.recipe === undefined ? undefined : findRecipe(options.recipe);
  const words = (file: RowFile): RowFile => (recipe?.glue === undefined ? recipeFile(recipe, file) : file);
  const learned = await readSource(data, { split, revision, usualSplits: ["train"], signal }, terminal);
  if (evalData === undefined) return { data: words(learned), evalData: undefined };
  const measured = await readSource(evalData, { usualSplits: ["validation", "test"], signal }, terminal);
  return { data: words(learned), evalData: words(measured) };
}

/** What is to be learned: as the recipe or the user says, else as the rows show, which is said where it may surprise. */
function settleObjective({ data, evalData }: Files, options: TrainOptions, terminal: Terminal): CliObjective {
  const glue = options.recipe === undefined ? undefined : findRecipe(options.recipe).glue;
  const seen: ReturnType<typeof detectObjective> =
    options.recipe === undefined
      ? detectObjective(data, options)
      : { name: glue === undefined ? "sft" : "classification" };
  const name = options.objective ?? seen.name;
  if (options.recipe !== undefined && name !== seen.name)
    throw new UserError(
      `the recipe ${options.recipe} is for ${seen.name}, not ${name}.`,
      "Leave out --objective or --recipe.",
    );
  if (options.objective === undefined && seen.why !== undefined) terminal.note(seen.why);
  checkMeant(name, options);
  if (glue !== undefined) checkColumns(options);
  switch (name) {
    case "sft":
      return answersObjective(data, options);
    case "dpo":
      return preferencesObjective(data, options);
    case "reward":
      return rewardObjective(data, options);
    case "classification": {
      const files = evalData === undefined ? [data] : [data, evalData];
      return glue === undefined ? labelsObjective(files, options) : glueObjective(glue, options);
    }
  }
}

/** GLUE's columns and classes are known; what says otherwise would do nothing, unseen. */
function checkColumns(options: TrainOptions): void {
  const said = labelOptions.find((name) => options[name] !== undefined);
  if (said === undefined) return;
  throw new UserError(
    `--${kebab(said)} and the recipe ${options.recipe}, which has columns and classes of its own, are both given.`,
    "Leave one of them out.",
  );
}

interface Parts<Item> {
  readonly train: readonly Item[];
  readonly evaluation: readonly Item[] | undefined;
}

function train(
  objective: CliObjective,
  files: Files,
  run: TrainRun,
  interrupt: Interrupt,
  context: CliContext,
): Promise<number> {
  const { options, args, json } = run;
  const { terminal } = context;
  const work = async <Item, E extends Measured>(ready: Ready<Item, E>): Promise<number> => {
    const { reft } = ready;
    const parts = partsOf(ready, files, run);
    if (!json) for (const line of heading(ready, parts, files, options)) terminal.result(line);
    const trainer = ready.trainer({
      args,
      trainDataset: parts.train,
      ...(parts.evaluation === undefined ? {} : { evalDataset: parts.evaluation }),
    });
    const end = await runTraining(trainer, { terminal, json, signal: interrupt.signal, resume: options.resume });
    if (end.reason === "aborted") return stopped(end, context, interrupt);
    // Logs and checkpoints of this run lie there already.
    await reft.save(options.outputDir, { overwrite: true });
    const measure = (): Promise<E> => trainer.evaluate(undefined, { signal: interrupt.signal });
    const evaluation = parts.evaluation && (await unlessAborted(measure, interrupt.signal));
    const told = evaluation && { evaluation, ...ready.told(evaluation) };
    await showResult(reft, objective.name, run, end, told, terminal);
    if (!interrupt.signal.aborted) return 0;
    terminal.note("Stopped: the adapter is written, but not measured.");
    return interrupt.exitCode;
  };
  const { signal } = interrupt;
  return objective.open({ choice: options, terminal, signal, edit: (m) => buildEdit(m, options, args.seed) }, work);
}

function partsOf<Item, E extends Measured>(
  ready: Ready<Item, E>,
  files: Files,
  { options, args }: TrainRun,
): Parts<Item> {
  const { examples } = ready.dataset(files.data);
  if (files.evalData !== undefined) return { train: examples, evaluation: ready.dataset(files.evalData).examples };
  return options.evalSplit === undefined
    ? { train: examples, evaluation: undefined }
    : splitExamples(examples, options.evalSplit, args.seed);
}

function heading<Item, E extends Measured>(
  { reft, about, noun }: Ready<Item, E>,
  { train, evaluation }: Parts<Item>,
  { data }: Files,
  options: TrainOptions,
): string[] {
  const { model, edits } = reft;
  const { modelType, layers, hiddenSize } = model.config;
  const at = [...new Set(edits.map(({ site }) => site.layer))];
  const where = at.length === layers ? "all layers" : `layer${at.length === 1 ? "" : "s"} ${at.join(", ")}`;
  const measured = evaluation === undefined ? "" : `, ${grouped(evaluation.length)} kept for measuring`;
  const named = data.path === options.data ? basename(data.path) : data.path;
  return [
    `Model ${model.id}: ${modelType}, ${layers} layers, hidden size ${hiddenSize}, on ${options.device ?? "cpu"}`,
    `Data ${named}: ${count(train.length, noun)}${measured}`,
    ...(about === undefined ? [] : [about]),
    `Edit ${edits[0]?.intervention.name.replace(/Intervention$/, "")} of rank ${options.rank} at ${options.component} of ${where}, positions ${options.positions}`,
    reft.trainableParameters(),
  ];
}

/** The run was interrupted: how to go on from where it is. */
function stopped(end: TrainEnd, { terminal, argv }: CliContext, interrupt: Interrupt): number {
  terminal.note(`Stopped at step ${end.step} of ${end.totalSteps}. Go on with:`);
  terminal.note(`  npx ${shellLine(["reft", ...withoutResume(argv), "--resume", end.folder ?? ""])}`);
  return interrupt.exitCode;
}

function withoutResume(argv: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i] as string;
    if (word === "--resume") i += argv[i + 1]?.startsWith("-") === false ? 1 : 0;
    else if (!word.startsWith("--resume=")) kept.push(word);
  }
  return kept;
}

type Told = { readonly evaluation: Measured } & ReturnType<Ready<unknown, Measured>["told"]>;

async function showResult(
  reft: ReftModel,
  objective: ObjectiveName,
  { options, json }: TrainRun,
  end: TrainEnd,
  told: Told | undefined,
  terminal: Terminal,
): Promise<void> {
  const folder = options.outputDir;
  const sizes = await Promise.all([configFile, weightsFile].map(async (name) => (await stat(join(folder, name))).size));
  const bytes = sizes.reduce((a, b) => a + b, 0);
  if (json) {
    const { reason } = end;
    const result = {
      type: "result",
      adapter: folder,
      bytes,
      trainableParameters: reft.trainableCount,
      reason,
      objective,
    };
    const measured = told && { evaluation: told.evaluation, figures: told.figures };
    terminal.result(JSON.stringify({ ...result, ...measured }));
    return;
  }
  const why = end.reason === "early-stopping" ? " (stopped early: the evaluation loss no longer fell)" : "";
  terminal.result(
    `Trained ${count(end.step, "step")} in ${end.seconds.toFixed(1)} s, ${grouped(Math.round(end.tokensPerSecond))} tokens/s, mean loss ${number(end.loss)}${why}`,
  );
  if (told !== undefined) terminal.result(`Evaluation: ${figureText(told.figures)} over ${count(told.over, told.of)}`);
  terminal.result(`Adapter ${folder} (${fileSize(bytes)})`);
  const [verb, line] =
    objective === "sft" || objective === "dpo"
      ? ["Talk to it", ["reft", "chat", "--adapter", folder]]
      : ["Measure it", ["reft", "eval", "--adapter", folder, "--data", options.evalData ?? options.data]];
  terminal.result(`\n${verb}:\n  ${terminal.bold(`npx ${shellLine(line)}`)}`);
}
