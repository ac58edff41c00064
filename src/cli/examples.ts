/** Files of examples for training and measuring, and what to say about the rows that were left out. */

import { basename } from "node:path";
import { z } from "zod";
import { type Dataset, makeDataset } from "../data/encode.js";
import { chooseTemplate } from "../data/format.js";
import { readLessons } from "../data/schema.js";
import { UserError } from "../errors.js";
import type { Row } from "../files/rows.js";
import { readRows } from "../files/rows-node.js";
import { Random } from "../reft/random.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { given } from "./flags.js";
import { count } from "./render.js";
import type { Terminal } from "./terminal.js";

/** The option of every command that turns files into examples. */
export const maxLengthField: z.ZodOptional<z.ZodNumber> = z
  .number()
  .int()
  .min(2)
  .optional()
  .describe("most tokens an example may have; the model's limit if not given");

/** A file that has been read, but not yet turned into tokens. */
export interface RowFile {
  readonly path: string;
  readonly rows: readonly Row[];
}

/** What is learned, and what is measured. */
export interface Files {
  readonly data: RowFile;
  readonly evalData: RowFile | undefined;
}

export interface ExampleOptions {
  readonly maxLength?: number | undefined;
  readonly allTurns?: boolean;
  readonly nonstop?: boolean;
}

export async function readRowFile(path: string): Promise<RowFile> {
  return { path, rows: await readRows(path) };
}

/** Settles how prompts are formed, once and for good: by the options, else by what the rows are. */
export function settleTemplate(reft: ReftModel, asked: string | undefined, file: RowFile, tokenizer: Tokenizer): void {
  const [first] = readLessons(file.rows.slice(0, 1), file.path);
  reft.template = chooseTemplate(asked, tokenizer, first?.question.kind);
}

/** The examples of a file for this model; says on stderr which were too long. */
export function examplesOf(
  file: RowFile,
  reft: ReftModel,
  tokenizer: Tokenizer,
  options: ExampleOptions,
  terminal: Terminal,
): Dataset {
  if (reft.positions === undefined) throw new Error("internal: a model with edits, but without positions");
  const dataset = makeDataset(file.rows, file.path, tokenizer, {
    positions: reft.positions,
    numInterventions: reft.edits.length,
    maxLength: options.maxLength ?? reft.model.config.maxPositionEmbeddings,
    allTurns: options.allTurns ?? false,
    nonstop: options.nonstop ?? false,
    ...given({ template: reft.template }),
  });
  reportOverlong(file, dataset, terminal);
  return dataset;
}

/** More lines would push the rest off the screen. */
const shown = 5;

/** Says on stderr which rows were too long. */
export function reportOverlong({ path }: RowFile, { overlong }: Dataset<unknown>, terminal: Terminal): void {
  const [first] = overlong;
  if (first === undefined) return;
  const lines = overlong.slice(0, shown).map(({ line, tokens }) => `line ${line} (${tokens} tokens)`);
  const more = overlong.length > shown ? ` and ${overlong.length - shown} more` : "";
  terminal.note(
    `${basename(path)}: ${count(overlong.length, "example")} left out, longer than ${first.maxLength} tokens: ${lines.join(", ")}${more}. --max-length sets the limit.`,
  );
}

/** Keeps a share of the examples for measuring: drawn by seed, at least one on either side. */
export function splitExamples<E>(
  examples: readonly E[],
  share: number,
  seed: number,
): { readonly train: readonly E[]; readonly evaluation: readonly E[] } {
  if (examples.length < 2)
    throw new UserError("a single example cannot be split.", "Give more examples, or leave out evalSplit.");
  const kept = Math.min(examples.length - 1, Math.max(1, Math.round(share * examples.length)));
  const order = new Random(seed).fork("eval split").shuffle(examples.map((_, i) => i));
  const evaluated = new Set(order.slice(0, kept));
  return {
    train: examples.filter((_, i) => !evaluated.has(i)),
    evaluation: examples.filter((_, i) => evaluated.has(i)),
  };
}
