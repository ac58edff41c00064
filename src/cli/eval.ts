/** `reft eval`: how well a model does on examples, before and after an edit. */

import { z } from "zod";
import type { Example } from "../data/example.js";
import { textTask } from "../data/recipes/tasks.js";
import { type Lesson, readLessons } from "../data/schema.js";
import { UserError } from "../errors.js";
import type { Generative } from "../generate/sessions.js";
import { LoreftIntervention } from "../reft/loreft.js";
import { getReftModel, type ReftModel } from "../reft/reft-model.js";
import { type Evaluation, ReftTrainerForCausalLM } from "../train/trainer.js";
import { type AnswerOptions, answerAll, answerFlags, beamFlags, takeAnswerOptions } from "./answers.js";
import type { CliCommand } from "./command.js";
import { dataDescription, readSource } from "./data-source.js";
import { evaluateGlue, evaluateHead, objectiveOf } from "./eval-head.js";
import { evaluateTask } from "./eval-task.js";
import { examplesOf, maxLengthField, type RowFile, settleTemplate } from "./examples.js";
import { flagsOf, kebab, parseOptions } from "./flags.js";
import { listenForInterrupt, unlessAborted } from "./interrupt.js";
import { checkMeant, rowFields } from "./objective.js";
import { adapterField, findAdapter, modelFields, type Opened, withModel } from "./open-model.js";
import { showCount } from "./progress.js";
import { count, number } from "./render.js";
import type { Terminal } from "./terminal.js";

const modelSchema = z.strictObject({ adapter: adapterField, ...modelFields });
const dataSchema = z.strictObject({
  data: z.string().meta({
    description: `examples with their answers, pairs of answers, or texts with labels: ${dataDescription}`,
    placeholder: "file",
  }),
  split: z
    .string()
    .optional()
    .describe(
      "split of a hub data set, or a part of one: test[:500]; validation, else test, if not given. With --task, in a folder of data sets, SET/SPLIT.json of each is read; test if not given",
    ),
  dataRevision: z.string().optional().describe("branch, tag or commit of a hub data set"),
  limit: z.number().int().min(1).optional().describe("only the first so many rows of each data set"),
  maxLength: maxLengthField,
  batchSize: z.number().int().min(1).default(8).describe("examples at once"),
  generate: z
    .boolean()
    .default(false)
    .describe("also answer every prompt, and count the answers that are exactly right"),
  json: z.boolean().default(false).describe("print one JSON object"),
});
const objectiveSchema = z.strictObject(rowFields);
const taskSchema = z.strictObject({
  task: z
    .enum(["commonsense", "math", "gsm8k", "instruct", "glue"])
    .optional()
    .describe("answer and mark a paper's task, its rows in their own format; --data may be a folder of its data sets"),
  decoding: z
    .enum(["greedy", "task"])
    .optional()
    .describe("the likeliest token each time, or pyreft's other settings of the task; what was published if not given"),
  answers: z.string().optional().meta({
    description: "keep the marked answers, one JSON object a line; a stopped run goes on from this file",
    placeholder: "file",
  }),
});
const schema = z.strictObject({
  ...modelSchema.shape,
  ...dataSchema.shape,
  ...objectiveSchema.shape,
  ...taskSchema.shape,
});

export const evalCommand: CliCommand = {
  name: "eval",
  summary: "measure a model on examples, before and after an edit",
  description: `Measures loss and perplexity of the answers in a file: of the base model, and with an adapter of the edited one too. Of an adapter that classifies or scores, and for rows of pairs, it measures what was learned: accuracy, f1 …, or how often the chosen answer is preferred, and by what margin.

With --generate it also lets the model answer (the likeliest token at each step, unless you say otherwise) and counts the answers that equal the file's, spaces at the ends aside.

With --task it answers the rows of a paper's data sets in the paper's words, and marks them by the paper's rules: with an adapter the edited model, else the base.`,
  flags: [
    ...flagsOf(modelSchema, "Model:"),
    ...flagsOf(dataSchema, "Data:"),
    ...flagsOf(objectiveSchema, "Pairs and labels:"),
    ...flagsOf(taskSchema, "Task:"),
    ...answerFlags,
    ...beamFlags,
  ],
  examples: [
    ["reft eval --adapter my-reft --data held-out.jsonl", "base against edited"],
    ["reft eval --adapter my-reft --data held-out.jsonl --generate --json", "with exact matches, for a script"],
    ["reft eval --model builtin --data held-out.jsonl", "a model as it is"],
    ["reft eval --adapter my-classifier --data held-out.csv", "a classifier: accuracy, f1 …"],
    ["reft eval --adapter my-reft --data openai/gsm8k:main --split 'test[:100]'", "a data set of the hub"],
    [
      "reft eval --adapter my-reft --task commonsense --data dataset --answers answers.jsonl",
      "the eight commonsense sets of dataset/boolq/test.json …, marked as in the paper",
    ],
  ],
  run: async (given, context) => {
    const { terminal } = context;
    const { answer, rest } = takeAnswerOptions(given);
    const options = parseOptions(schema, rest);
    checkTask(options);
    if (options.task !== undefined && options.task !== "glue")
      return evaluateTask(textTask(options.task), options, answer, context);
    const interrupt = listenForInterrupt(() =>
      terminal.note("\nStopping after this batch. Press Ctrl-C again to quit at once."),
    );
    const { signal } = interrupt;
    try {
      const evaluate = async (): Promise<true> => {
        if (options.task === "glue") await evaluateGlue(options, terminal, signal);
        else await evaluateRows({ ...options, answer }, terminal, signal);
        return true;
      };
      if ((await unlessAborted(evaluate, signal)) === true) return 0;
      terminal.note("Stopped: there is no result.");
      return interrupt.exitCode;
    } finally {
      interrupt.release();
    }
  },
};

/** What would do nothing is refused: a task knows its rows, and only its answers are marked and kept. */
function checkTask(options: z.infer<typeof schema>): void {
  const own = options.task === undefined ? (["decoding", "answers"] as const) : objectiveSchema.keyof().options;
  const stray = own.find((name) => options[name] !== undefined);
  if (stray === undefined) return;
  throw options.task === undefined
    ? new UserError(`--${stray} is for a task that is answered and marked.`, "Pass --task, or leave it out.")
    : new UserError(`--${kebab(stray)} does nothing with --task, which knows its rows.`, "Leave one of them out.");
}

type EvalOptions = z.infer<typeof schema> & { readonly answer: AnswerOptions };

async function evaluateRows(options: EvalOptions, terminal: Terminal, signal: AbortSignal): Promise<void> {
  const { data, split, dataRevision: revision, adapter, limit, answer, json } = options;
  const usualSplits = ["validation", "test"];
  const whole = await readSource(data, { split, revision, usualSplits, signal }, terminal);
  const file = { ...whole, rows: whole.rows.slice(0, limit) };
  const config = adapter === undefined ? undefined : (await findAdapter(adapter, terminal, signal)).config;
  const name = objectiveOf(config, file);
  const { template } = answer;
  checkMeant(name, { ...options, template });
  if (name !== "sft") return evaluateHead(name, config, file, { ...options, template }, terminal, signal);
  const results = await withModel(
    options,
    terminal,
    (opened) => measure(opened, file, options, terminal, signal),
    signal,
  );
  if (json) terminal.result(JSON.stringify(results));
  else for (const line of lines(results)) terminal.result(line);
}

interface Settings {
  readonly maxLength?: number | undefined;
  readonly batchSize: number;
  readonly generate: boolean;
  readonly answer: AnswerOptions;
}

interface Score extends Evaluation {
  /** Answers that are exactly right, of `examples`. */
  readonly exact?: number;
}

interface Results {
  readonly data: string;
  readonly objective: "sft";
  readonly examples: number;
  readonly base: Score;
  readonly edited?: Score;
}

async function measure(
  opened: Opened,
  file: RowFile,
  settings: Settings,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<Results> {
  const { model, tokenizer, edited } = opened;
  const reft = edited ?? bare(opened);
  if (edited?.template === undefined || settings.answer.template !== undefined)
    settleTemplate(reft, settings.answer.template, file, tokenizer);
  const { examples, lines: kept } = examplesOf(file, reft, tokenizer, settings, terminal);
  const trainer = new ReftTrainerForCausalLM({
    model: reft,
    tokenizer,
    trainDataset: examples,
    args: { perDeviceEvalBatchSize: settings.batchSize },
  });
  const display = showCount(terminal, "measures", examples.length * (edited === undefined ? 1 : 2));
  const losses = (items: readonly Example[], before: number): Promise<Evaluation> =>
    trainer.evaluate(items, { signal, onProgress: (done) => display.show(before + done) });
  const scores = async (): Promise<[Evaluation, Evaluation | undefined]> => [
    // An edit at no token is the base model.
    await losses(
      examples.map((example) => ({ ...example, locations: [[]] })),
      0,
    ),
    edited && (await losses(examples, examples.length)),
  ];
  const [base, after] = await scores().finally(display.stop);
  const short = new Set(kept);
  const lessons = readLessons(file.rows, file.path).filter(({ line }) => short.has(line));
  const exact = async (target: Generative): Promise<Pick<Score, "exact">> =>
    settings.generate ? { exact: await exactMatches(target, opened, lessons, reft, settings, terminal, signal) } : {};
  return {
    data: file.path,
    objective: "sft",
    examples: examples.length,
    base: { ...base, ...(await exact(model)) },
    ...(after === undefined || edited === undefined ? {} : { edited: { ...after, ...(await exact(edited)) } }),
  };
}

/** A model without an adapter, as the measuring wants it: with an edit that is never applied. */
function bare({ model }: Opened): ReftModel {
  const intervention = new LoreftIntervention({ embedDim: model.config.hiddenSize, lowRankDimension: 1 });
  return getReftModel(model, { representations: { layer: 0, intervention }, positions: "l1" });
}

async function exactMatches(
  target: Generative,
  { tokenizer }: Opened,
  lessons: readonly Lesson[],
  reft: ReftModel,
  { answer, batchSize }: Settings,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const likeliest = { temperature: 0, template: reft.template, batchSize };
  const display = showCount(terminal, "answers", lessons.length);
  let right = 0;
  try {
    for (let from = 0; from < lessons.length; from += batchSize) {
      const batch = lessons.slice(from, from + batchSize);
      const questions = batch.map((lesson) => lesson.question);
      const answers = await answerAll(target, tokenizer, questions, { ...likeliest, ...answer }, signal);
      signal.throwIfAborted();
      right += batch.filter((lesson, i) => answers[i]?.text.trim() === lesson.answer.content.trim()).length;
      display.show(from + batch.length);
    }
  } finally {
    display.stop();
  }
  return right;
}

function lines({ data, examples, base, edited }: Results): string[] {
  const line = (name: string, { loss, perplexity, exact }: Score): string => {
    const share = exact === undefined ? "" : `  exactly right ${exact} of ${examples}`;
    return `${name.padEnd(7)} loss ${number(loss)}  perplexity ${number(perplexity)}${share}`;
  };
  const scores = [line("base", base), ...(edited === undefined ? [] : [line("edited", edited)])];
  return [`${data}: ${count(examples, "example")}, ${count(base.tokens, "answer token")}`, ...scores];
}
