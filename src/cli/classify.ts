/** `reft classify`: texts in, classes, numbers or scores out, by an adapter that was trained to tell them. */

import { z } from "zod";
import { readLessons } from "../data/schema.js";
import { labelledTexts, type TextFields, textFieldsOf } from "../data/texts.js";
import { UserError } from "../errors.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { classesOf, logitsOf } from "../train/classification-predict.js";
import type { CliCommand } from "./command.js";
import { dataDescription, readSource } from "./data-source.js";
import { examplesOf, maxLengthField, type RowFile, reportOverlong } from "./examples.js";
import { flagsOf, given, parseOptions } from "./flags.js";
import { textFieldsFor, textOptions } from "./head-objectives.js";
import { listenForInterrupt, unlessAborted } from "./interrupt.js";
import { objectiveOfHead, rowFields } from "./objective.js";
import { adapterField, findAdapter, modelFields, withClassifier } from "./open-model.js";
import { showCount } from "./progress.js";
import { questionText, stdinLines } from "./questions.js";
import { number } from "./render.js";
import type { Terminal } from "./terminal.js";

const modelSchema = z.strictObject({ adapter: adapterField, ...modelFields });
const textSchema = z.strictObject({
  text: z.array(z.string()).optional().describe("a text; with a reward model, an answer to --prompt"),
  prompt: z.string().optional().describe("reward model: what the texts answer"),
  data: z
    .string()
    .optional()
    .meta({ description: `texts; of a reward model, prompts with answers: ${dataDescription}`, placeholder: "file" }),
  split: z.string().optional().describe("split of a hub data set, or a part of one; test, else train, if not given"),
  dataRevision: z.string().optional().describe("branch, tag or commit of a hub data set"),
  limit: z.number().int().min(1).optional().describe("only the first so many rows"),
  textField: rowFields.textField,
  textPairField: rowFields.textPairField,
  maxLength: maxLengthField,
});
const outputSchema = z.strictObject({
  batchSize: z.number().int().min(1).default(8).describe("texts at once"),
  json: z.boolean().default(false).describe("print one JSON object with every class's share"),
});
const schema = z.strictObject({ ...modelSchema.shape, ...textSchema.shape, ...outputSchema.shape });
type Options = z.infer<typeof schema>;

export const classifyCommand: CliCommand = {
  name: "classify",
  summary: "tell the classes of texts, or score answers, with a trained adapter",
  description: `Says of every text which class it is and how surely (or which classes, or a number: as the adapter was trained to), or, with a reward model, how good an answer is; only scores of answers to one prompt can be compared.

Texts come from --text (as often as you like), from a file or a data set, or from stdin, one a line.`,
  flags: [...flagsOf(modelSchema, "Model:"), ...flagsOf(textSchema, "Texts:"), ...flagsOf(outputSchema, "Output:")],
  examples: [
    ['reft classify --adapter my-classifier --text "What a film!"', "the base model is found by itself"],
    ["reft classify --adapter my-classifier --data new.csv --json > told.json", "a whole file"],
    [
      'reft classify --adapter my-judge --prompt "What does a sheep say?" --text baa --text "A sheep says baa."',
      "answers, scored by a reward model",
    ],
  ],
  run: async (raw, { terminal }) => {
    const options = parseOptions(schema, raw);
    const { adapter } = options;
    if (adapter === undefined)
      throw new UserError("there is no adapter to tell classes with.", "Pass --adapter, as reft train wrote it.");
    const interrupt = listenForInterrupt(() => terminal.note("\nStopping. Press Ctrl-C again to quit at once."));
    const { signal } = interrupt;
    try {
      const told = await unlessAborted(() => tell(adapter, options, terminal, signal), signal);
      if (told === undefined) {
        terminal.note("Stopped: there is no result.");
        return interrupt.exitCode;
      }
      show(told, options.json, terminal);
      return 0;
    } finally {
      interrupt.release();
    }
  },
};

/** What is said of a text. */
interface Prediction {
  readonly line: number;
  readonly text: string;
  readonly textPair?: string;
  readonly prompt?: string;
  readonly label?: string;
  /** A class's share, the number told, or the reward. */
  readonly score: number;
  readonly scores?: Readonly<Record<string, number>>;
}

async function tell(
  adapter: string,
  options: Options,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<readonly Prediction[]> {
  const { classifier } = (await findAdapter(adapter, terminal, signal)).config;
  const rewards = classifier !== undefined && objectiveOfHead(classifier) === "reward";
  if (classifier !== undefined && !rewards && options.prompt !== undefined)
    throw new UserError(`${adapter} tells classes of texts, which answer no prompt.`, "Leave out --prompt.");
  const { split, dataRevision: revision, limit } = options;
  const source = { split, revision, usualSplits: ["test", "train"], signal };
  const whole =
    options.data === undefined ? await typed(options, rewards) : await readSource(options.data, source, terminal);
  const file = { ...whole, rows: whole.rows.slice(0, limit) };
  return withClassifier(
    options,
    terminal,
    {},
    ({ tokenizer, edited }) => {
      if (edited === undefined) throw new Error("internal: an adapter without edits");
      const work = { file, reft: edited, tokenizer, options, terminal, signal };
      return rewards ? scored(work) : classified(work);
    },
    signal,
  );
}

/** Texts of flags, or of stdin, as rows. */
async function typed({ text, prompt }: Options, rewards: boolean): Promise<RowFile> {
  if (rewards && prompt === undefined)
    throw new UserError("a reward model scores answers, and there is no prompt.", "Pass --prompt, or --data FILE.");
  const texts = text ?? (process.stdin.isTTY === true ? [] : await stdinLines());
  if (texts.length === 0)
    throw new UserError("there is no text.", 'Pass --text "…", --data FILE, or texts on stdin, one a line.');
  const rows = texts.map((one, i) => ({ line: i + 1, value: rewards ? { prompt, completion: one } : { text: one } }));
  return { path: "texts", rows };
}

interface Work {
  readonly file: RowFile;
  readonly reft: ReftModel;
  readonly tokenizer: Tokenizer;
  readonly options: Options;
  readonly terminal: Terminal;
  readonly signal: AbortSignal;
}

async function classified(work: Work): Promise<Prediction[]> {
  const { file, reft, tokenizer, options, terminal } = work;
  const { rows, path } = file;
  const textFields: TextFields = textFieldsFor(rows, options) ?? (rows[0] && textFieldsOf(rows[0])) ?? ["text"];
  const hint = `Rows are {${textFields.map((name) => `"${name}": text`).join(", ")}}; --text-field names another column.`;
  const place = textOptions(reft, options.maxLength);
  const dataset = labelledTexts(rows, path, tokenizer, { ...place, textFields, hint });
  reportOverlong(file, dataset, terminal);
  const found = await watched(work, dataset.examples.length, (watch) => classesOf(reft, dataset.examples, watch));
  const byLine = new Map(rows.map(({ line, value }) => [line, value]));
  const labels = reft.model.classifier?.labels ?? [];
  const number = reft.model.classifier?.problemType === "regression";
  return found.map(({ label, score, scores }, i) => {
    const line = dataset.lines[i] as number;
    const [text, textPair] = textFields.map((name) => byLine.get(line)?.[name]) as [string, string?];
    const shares = Object.fromEntries(labels.map((name, k) => [name, scores[k] as number]));
    return { line, text, ...given({ textPair }), score, ...(number ? {} : { label, scores: shares }) };
  });
}

async function scored(work: Work): Promise<Prediction[]> {
  const { file, reft, tokenizer, options, terminal } = work;
  const dataset = examplesOf(file, reft, tokenizer, options, terminal);
  const logits = await watched(work, dataset.examples.length, (watch) => logitsOf(reft, dataset.examples, watch));
  const byLine = new Map(readLessons(file.rows, file.path).map((lesson) => [lesson.line, lesson]));
  return logits.flatMap(([score = Number.NaN], i) => {
    const line = dataset.lines[i] as number;
    const lesson = byLine.get(line);
    return lesson === undefined
      ? []
      : [{ line, prompt: questionText(lesson.question), text: lesson.answer.content, score }];
  });
}

type Watch = NonNullable<Parameters<typeof logitsOf>[2]>;

/** With a bar, and an ear for Ctrl-C. */
async function watched<T>(
  { tokenizer, options, terminal, signal }: Work,
  total: number,
  run: (watch: Watch) => Promise<T>,
): Promise<T> {
  const display = showCount(terminal, "texts", total);
  const onProgress = (done: number): void => display.show(done);
  const { batchSize } = options;
  return run({ batchSize, padTokenId: tokenizer.padTokenId, onProgress, signal }).finally(display.stop);
}

function show(predictions: readonly Prediction[], json: boolean, terminal: Terminal): void {
  if (json) {
    terminal.result(JSON.stringify({ predictions }));
    return;
  }
  const widest = (words: readonly string[]): number => words.reduce((most, { length }) => Math.max(most, length), 0);
  const width = widest(predictions.map(({ label = "" }) => label));
  const figures = predictions.map(({ score }) => number(score));
  const figureWidth = widest(figures);
  predictions.forEach(({ label, text, textPair }, i) => {
    const first = label === undefined ? "" : `${(label || "–").padEnd(width)}  `;
    const texts = [text, textPair].filter((one) => one !== undefined).join(" | ");
    terminal.result(`${first}${(figures[i] as string).padStart(figureWidth)}  ${texts.replaceAll(/\s+/g, " ")}`);
  });
}
