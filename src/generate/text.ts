/** Prompts as text in, answers as text out, whole or while they are written. */

import { encodePromptText } from "../data/encode.js";
import { formatPrompt, type PromptTemplate } from "../data/format.js";
import { ReftModel } from "../reft/reft-model.js";
import { TextStream } from "../tokens/stream.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { searchBeams } from "./beams.js";
import type { EditOptions } from "./edits.js";
import { generateTokens, type TokenFinish, type TokenOptions } from "./generate.js";
import { type BeamOptions, beamsFor } from "./options.js";
import { baseOf, type Generative } from "./sessions.js";
import { StopScanner } from "./stop.js";

export interface TextOptions extends Omit<TokenOptions, "stopWhen">, BeamOptions {
  /** An answer ends before the first of these; they are not part of its text. */
  readonly stopStrings?: string | readonly string[];
  /** How a prompt is worded: "chat", "none", "alpaca" or a text with {prompt}. Default: the edited model's own, else "none". */
  readonly template?: PromptTemplate;
}

export interface BatchOptions extends TextOptions {
  /** How many prompts are answered at once. Default 16. */
  readonly batchSize?: number;
}

/** Why an answer ended. */
export type FinishReason = TokenFinish | "abort";

/** An answer. */
export interface Generated {
  readonly text: string;
  /** All new tokens, with the end token and those of a stop string. */
  readonly ids: readonly number[];
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly finishReason: FinishReason;
  /** Of an answer found by beams: its log-probability / length^lengthPenalty. */
  readonly score?: number;
  /** The next best answers, or the other draws, where `numReturnSequences` asks for any. */
  readonly alternatives?: readonly Generated[];
}

/** One row's answer while it grows. */
class Answer {
  readonly ids: number[] = [];
  readonly #stream: TextStream;
  readonly #scanner: StopScanner;
  #text = "";
  /** Text not yet taken. */
  #fresh = "";

  constructor(tokenizer: Tokenizer, stops: readonly string[]) {
    this.#stream = new TextStream(tokenizer);
    this.#scanner = new StopScanner(stops);
  }

  /** Takes a token that is text; true when a stop string is complete. */
  read(id: number): boolean {
    this.#fresh += this.#scanner.push(this.#stream.push(id));
    return this.#scanner.stopped;
  }

  /** What is certain and has not been taken. */
  take(): string {
    const piece = this.#fresh;
    this.#text += piece;
    this.#fresh = "";
    return piece;
  }

  /** Nothing more comes: what was held back is certain. */
  end(): void {
    this.#fresh += this.#scanner.push(this.#stream.finish());
    this.#fresh += this.#scanner.finish();
  }

  result(promptTokens: number, finishReason: FinishReason): Generated {
    this.take();
    return { text: this.#text, ids: this.ids, promptTokens, newTokens: this.ids.length, finishReason };
  }
}

function endsOf({ eosTokenIds }: Tokenizer, options: TextOptions): { eosTokenIds?: readonly number[] } {
  const ends = options.eosTokenIds ?? (eosTokenIds.length > 0 ? eosTokenIds : undefined);
  return ends === undefined ? {} : { eosTokenIds: ends };
}

/** Each prompt's best answers by beams, the best with the others as its alternatives. */
async function beamAnswers(
  target: Generative,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: TextOptions,
  stops: readonly string[],
): Promise<Generated[]> {
  const stopWhen = (_row: number, ids: readonly number[]): boolean => {
    const answer = new Answer(tokenizer, stops);
    return ids.some((id) => answer.read(id));
  };
  const found = await searchBeams(target, prompts, { ...options, ...(stops.length > 0 ? { stopWhen } : {}) });
  return found.map((texts, row) => {
    const answers = texts.map(({ ids, score, finish }): Generated => {
      const answer = new Answer(tokenizer, stops);
      answer.ids.push(...ids);
      for (const id of finish === "eos" ? ids.slice(0, -1) : ids) answer.read(id);
      answer.end();
      return { ...answer.result(prompts[row]?.length ?? 0, finish ?? "abort"), score };
    });
    return withOthers(answers);
  });
}

/** The best, with the others as its alternatives. */
function withOthers([best, ...others]: readonly Generated[]): Generated {
  return { ...(best as Generated), ...(others.length > 0 ? { alternatives: others } : {}) };
}

/** Several draws for each prompt; what is yielded is of the first ones. */
async function* severalDraws(
  target: Generative,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: TextOptions,
  count: number,
): AsyncGenerator<readonly string[], Generated[]> {
  const repeated = <T>(rows: readonly T[]): T[] => rows.flatMap((row) => Array<T>(count).fill(row));
  const lists = Object.entries(rowsOf(options, 0, prompts.length)).map(([name, rows]) => [name, repeated(rows)]);
  const single = { ...options, ...Object.fromEntries(lists), numReturnSequences: 1 };
  const steps = answerTokens(target, tokenizer, repeated(prompts), single);
  try {
    for (;;) {
      const { done, value } = await steps.next();
      if (done === true) return prompts.map((_, i) => withOthers(value.slice(i * count, (i + 1) * count)));
      yield value.filter((_, row) => row % count === 0);
    }
  } finally {
    await steps.return([]);
  }
}

/** Answers prompts (token ids) together; yields each row's new text a step, and returns the answers. */
export async function* answerTokens(
  target: Generative,
  tokenizer: Tokenizer,
  prompts: readonly (readonly number[])[],
  options: TextOptions,
): AsyncGenerator<readonly string[], Generated[]> {
  const stops = [options.stopStrings ?? []].flat();
  const ended = { ...options, ...endsOf(tokenizer, options) };
  // What a conversation keeps is one text.
  if (options.memory === undefined) {
    const { numBeams, numReturnSequences } = beamsFor(baseOf(target), options);
    if (numBeams > 1) {
      const found = await beamAnswers(target, tokenizer, prompts, ended, stops);
      yield found.map(({ text }) => text);
      return found;
    }
    if (numReturnSequences > 1) return yield* severalDraws(target, tokenizer, prompts, options, numReturnSequences);
  }
  const answers = prompts.map(() => new Answer(tokenizer, stops));
  const finished = prompts.map((): FinishReason => "abort");
  const steps = generateTokens(target, prompts, {
    ...ended,
    stopWhen: (row, id) => answers[row]?.read(id) === true,
  });
  for await (const step of steps) {
    for (const { row, id, finish } of step) {
      answers[row]?.ids.push(id);
      if (finish === undefined) continue;
      finished[row] = finish;
      answers[row]?.end();
    }
    yield answers.map((a) => a.take());
  }
  answers.forEach((a, row) => {
    if (finished[row] === "abort") a.end();
  });
  yield answers.map((a) => a.take());
  return answers.map((a, row) => a.result(prompts[row]?.length ?? 0, finished[row] as FinishReason));
}

function encode(target: Generative, tokenizer: Tokenizer, prompt: string, options: TextOptions): number[] {
  const template = options.template ?? (target instanceof ReftModel ? target.template : undefined) ?? "none";
  return encodePromptText(formatPrompt({ kind: "prompt", prompt }, template, tokenizer), tokenizer);
}

/** What options say prompt by prompt, for those from `from` up to `until`. */
function rowsOf({ locations, subspaces, coefficients }: EditOptions, from: number, until: number): EditOptions {
  return {
    ...(locations === undefined ? {} : { locations: locations.slice(from, until) }),
    ...(subspaces === undefined ? {} : { subspaces: subspaces.slice(from, until) }),
    ...(coefficients === undefined ? {} : { coefficients: coefficients.slice(from, until) }),
  };
}

/**
 * The pieces of one row's text, and its answer.
 *
 * @param listen is told each piece before it is handed out
 */
export async function* piecesOf(
  steps: AsyncGenerator<readonly string[], Generated[]>,
  listen?: (piece: string) => void,
): AsyncGenerator<string, Generated> {
  try {
    for (;;) {
      const { done, value } = await steps.next();
      if (done === true) return value[0] as Generated;
      const [piece = ""] = value;
      if (piece === "") continue;
      listen?.(piece);
      yield piece;
    }
  } finally {
    await steps.return([]);
  }
}

/**
 * Answers a prompt piece by piece: what is yielded is final, never a part of a stop string or of a character. Returns the
 * whole answer; an aborted signal ends it with what is there.
 */
export function stream(
  target: Generative,
  tokenizer: Tokenizer,
  prompt: string,
  options: TextOptions = {},
): AsyncGenerator<string, Generated> {
  return piecesOf(answerTokens(target, tokenizer, [encode(target, tokenizer, prompt, options)], options));
}

/** Answers one prompt. An aborted signal ends it with what is there (`finishReason: "abort"`). */
export function generate(
  target: Generative,
  tokenizer: Tokenizer,
  prompt: string,
  options?: TextOptions,
): Promise<Generated>;
/** Answers many prompts, `batchSize` at a time, in their order. */
export function generate(
  target: Generative,
  tokenizer: Tokenizer,
  prompts: readonly string[],
  options?: BatchOptions,
): Promise<Generated[]>;
export async function generate(
  target: Generative,
  tokenizer: Tokenizer,
  prompts: string | readonly string[],
  options: BatchOptions = {},
): Promise<Generated | Generated[]> {
  const ids = [prompts].flat().map((prompt) => encode(target, tokenizer, prompt, options));
  const { batchSize = 16 } = options;
  const answers: Generated[] = [];
  for (let from = 0; from < ids.length; from += batchSize) {
    const until = from + batchSize;
    const own = rowsOf(options, from, until);
    const steps = answerTokens(target, tokenizer, ids.slice(from, until), { ...options, ...own });
    let step = await steps.next();
    while (step.done !== true) step = await steps.next();
    answers.push(...step.value);
  }
  return typeof prompts === "string" ? (answers[0] as Generated) : answers;
}
