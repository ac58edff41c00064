/** `reft eval --task`: a paper's task, answered and marked by its rules, one line of the table a data set. */

import { createHash } from "node:crypto";
import { join } from "node:path";
import { formatPrompt } from "../data/format.js";
import { mark } from "../data/recipes/marking.js";
import type { Decoding, TextTask } from "../data/recipes/recipe.js";
import { type TaskItem, taskItems } from "../data/recipes/rows.js";
import { UserError } from "../errors.js";
import { readFileCapped } from "../files/read-node.js";
import { maxAdapterBytes, weightsFile } from "../reft/adapter.js";
import { type AnswerLine, AnswerLog, answerKey } from "./answer-log.js";
import { type AnswerOptions, answerAll } from "./answers.js";
import type { CliContext } from "./command.js";
import { type Interrupt, listenForInterrupt } from "./interrupt.js";
import { findAdapter, type ModelChoice, type Opened, withModel } from "./open-model.js";
import { showCount } from "./progress.js";
import { questionText } from "./questions.js";
import { count, shellLine } from "./render.js";
import { type DataSetFile, readDataSets } from "./task-data.js";
import type { Terminal } from "./terminal.js";

export interface TaskOptions extends ModelChoice {
  readonly data: string;
  readonly split?: string | undefined;
  readonly dataRevision?: string | undefined;
  readonly limit?: number | undefined;
  readonly decoding?: "greedy" | "task" | undefined;
  readonly answers?: string | undefined;
  readonly batchSize: number;
  readonly json: boolean;
}

/** One data set's figures. Shares are of the examples. */
export interface SetScore {
  readonly dataset: string;
  readonly examples: number;
  readonly right?: number;
  readonly accuracy?: number;
  /** LLM-Adapters' marking of commonsense: the first option named counts. */
  readonly optionAccuracy?: number;
}

interface Work {
  readonly set: string;
  readonly item: TaskItem;
}

/** Answers and marks; returns the exit code. */
export async function evaluateTask(
  task: TextTask,
  options: TaskOptions,
  asked: AnswerOptions,
  context: CliContext,
): Promise<number> {
  const { terminal } = context;
  if (task.name === "instruct" && options.answers === undefined)
    throw new UserError(
      "instructions have no right answers that could be counted, so the answers must go somewhere.",
      "Pass --answers FILE, and have them judged: docs/recipes.md says how.",
    );
  const files = await readDataSets(
    options.data,
    task.sets,
    { ...options, usualSplits: ["test", "validation"] },
    terminal,
  );
  const works = files.flatMap(({ set, file }) =>
    taskItems(task, file.rows, file.path)
      .slice(0, options.limit)
      .map((item) => ({ set, item })),
  );
  const answer = answerOptions(task, options, asked);
  const run = await digestOf(task, options, answer, terminal);
  const log = await AnswerLog.open(options.answers, run);
  const interrupt = listenForInterrupt(() => terminal.note("\nStopping. Press Ctrl-C again to quit at once."));
  try {
    const done = await withModel(
      options,
      terminal,
      (opened) => answerRows({ task, works, answer, run, log }, opened, generatorOf(options), interrupt, terminal),
      interrupt.signal,
    );
    if (interrupt.signal.aborted) return stopped(done.length, works.length, options, interrupt, context);
    show(task, files, done, options, terminal);
    return 0;
  } catch (error) {
    if (!interrupt.signal.aborted || error !== interrupt.signal.reason) throw error;
    return stopped(0, works.length, options, interrupt, context);
  } finally {
    interrupt.release();
  }
}

/** The task's decoding, with what the user says over it; beams end early, as pyreft sets it. */
function answerOptions(task: TextTask, { decoding, batchSize }: TaskOptions, asked: AnswerOptions): AnswerOptions {
  const published: Decoding = task.decoding[decoding ?? task.published];
  const beams = published.numBeams === undefined ? {} : ({ earlyStopping: "true" } as const);
  return { template: task.template, ...published, ...beams, ...asked, batchSize };
}

const generatorOf = ({ adapter, model }: ModelChoice): string => adapter ?? model ?? "builtin";

/** What answers depend on, data aside: a log of another digest is not gone on with. */
async function digestOf(
  task: TextTask,
  options: TaskOptions,
  answer: AnswerOptions,
  terminal: Terminal,
): Promise<string> {
  const hash = createHash("sha256").update(
    JSON.stringify([task.name, options.model, options.revision, options.adapter, Object.entries(answer).sort()]),
  );
  if (options.adapter !== undefined) {
    const { folder } = await findAdapter(options.adapter, terminal);
    hash.update(await readFileCapped(join(folder, weightsFile), maxAdapterBytes));
  }
  return hash.digest("hex").slice(0, 16);
}

interface Job {
  readonly task: TextTask;
  readonly works: readonly Work[];
  readonly answer: AnswerOptions;
  readonly run: string;
  readonly log: AnswerLog;
}

/** Batches lie where they lay before a stop, so that draws by seed come out the same. A batch cut short is not kept. */
async function answerRows(
  job: Job,
  opened: Opened,
  generator: string,
  { signal }: Interrupt,
  terminal: Terminal,
): Promise<AnswerLine[]> {
  const { works, log, answer } = job;
  const size = answer.batchSize ?? 1;
  const known = works.map((work) => log.get(answerKey(keyOf(work))));
  const display = showCount(terminal, "answers", works.length, known.filter((line) => line !== undefined).length);
  const done: AnswerLine[] = [];
  try {
    for (let from = 0; from < works.length && !signal.aborted; from += size) {
      const batch = works.slice(from, from + size);
      const before = known.slice(from, from + size);
      if (before.every((line) => line !== undefined)) {
        done.push(...before);
        continue;
      }
      const lines = await answerBatch(job, batch, opened, generator, signal);
      if (lines === undefined) break;
      await log.add(lines);
      done.push(...lines);
      display.show(done.length, rightSoFar(done));
    }
  } finally {
    display.stop();
  }
  return done;
}

function keyOf({ set, item }: Work): Pick<AnswerLine, "dataset" | "line" | "instruction"> {
  return { dataset: set, line: item.line, instruction: questionText(item.question) };
}

async function answerBatch(
  { task, answer, run }: Job,
  batch: readonly Work[],
  { model, tokenizer, edited }: Opened,
  generator: string,
  signal: AbortSignal,
): Promise<AnswerLine[] | undefined> {
  const questions = batch.map(({ item }) => item.question);
  const answers = await answerAll(edited ?? model, tokenizer, questions, answer, signal);
  if (answers.some(({ finishReason }) => finishReason === "abort")) return undefined;
  return batch.map((work, i) => {
    const generated = answers[i]?.text ?? "";
    const prompt = formatPrompt(work.item.question, answer.template ?? task.template, tokenizer).text;
    const { reference } = work.item;
    const marked = mark(task, { set: work.set, prompt, generated, reference });
    return { run, ...keyOf(work), generated, answer: reference, generator, ...marked };
  });
}

function rightSoFar(done: readonly AnswerLine[]): string {
  const marked = done.filter(({ right }) => right !== undefined);
  const right = marked.filter((line) => line.right === true).length;
  return marked.length === 0 ? "" : ` | right ${percent(right / marked.length)}`;
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}

function stopped(
  done: number,
  total: number,
  { answers }: TaskOptions,
  interrupt: Interrupt,
  { terminal, argv }: CliContext,
): number {
  terminal.note(`Stopped after ${done} of ${count(total, "answer")}.`);
  if (answers === undefined) terminal.note("Nothing was kept; with --answers FILE the next run goes on from there.");
  else terminal.note(`Go on with:\n  npx ${shellLine(["reft", ...argv])}`);
  return interrupt.exitCode;
}

function scoreOf(dataset: string, lines: readonly AnswerLine[]): SetScore {
  const examples = lines.length;
  if (lines.some(({ right }) => right === undefined)) return { dataset, examples };
  const right = lines.filter((line) => line.right === true).length;
  const named = lines.filter(({ rightOption }) => rightOption !== undefined);
  const options = named.filter(({ rightOption }) => rightOption === true).length / examples;
  const byOption = named.length === examples ? { optionAccuracy: options } : {};
  return { dataset, examples, right, accuracy: right / examples, ...byOption };
}

function show(
  task: TextTask,
  files: readonly DataSetFile[],
  done: readonly AnswerLine[],
  options: TaskOptions,
  terminal: Terminal,
): void {
  const scores = files.map(({ set }) =>
    scoreOf(
      set,
      done.filter(({ dataset }) => dataset === set),
    ),
  );
  const shares = scores.flatMap(({ accuracy }) => accuracy ?? []);
  const mean = shares.length === 0 ? undefined : shares.reduce((a, b) => a + b, 0) / shares.length;
  if (options.json) {
    const result = { task: task.name, generator: generatorOf(options), datasets: scores };
    terminal.result(JSON.stringify(mean === undefined ? result : { ...result, average: mean }));
    return;
  }
  const width = Math.max(...scores.map(({ dataset }) => dataset.length), "Data set".length);
  const byOption = scores.some(({ optionAccuracy }) => optionAccuracy !== undefined);
  terminal.result(
    terminal.dim(`${"Data set".padEnd(width)}  Examples  Accuracy${byOption ? "  First option named" : ""}`),
  );
  for (const { dataset, examples, accuracy, optionAccuracy } of scores) {
    const share = accuracy === undefined ? "–" : percent(accuracy);
    const second = optionAccuracy === undefined ? "" : percent(optionAccuracy).padStart(20);
    terminal.result(`${dataset.padEnd(width)}  ${String(examples).padStart(8)}  ${share.padStart(8)}${second}`);
  }
  if (mean !== undefined && scores.length > 1)
    terminal.result(`${"Average".padEnd(width)}  ${"".padStart(8)}  ${percent(mean).padStart(8)}`);
}
