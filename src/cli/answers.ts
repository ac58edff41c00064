/** Questions in, answers out: what generate, eval and demo ask of a model, and the flags that say how it answers. */

import { z } from "zod";
import { encodePromptText } from "../data/encode.js";
import { chooseTemplate, formatPrompt } from "../data/format.js";
import type { Question } from "../data/schema.js";
import type { Generative } from "../generate/sessions.js";
import { answerTokens, type Generated, type TextOptions } from "../generate/text.js";
import { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { type Flag, flagsOf, given, parseOptions, type RawOptions } from "./flags.js";

const schema = z.strictObject({
  maxNewTokens: z.number().optional().describe("most tokens of an answer; the model's own setting, or 256"),
  minNewTokens: z.number().optional().describe("tokens before an answer may end"),
  temperature: z
    .number()
    .optional()
    .describe("draw from the distribution, flatter above 1, sharper below; 0: always the likeliest"),
  topK: z.number().optional().describe("draw from the k likeliest tokens"),
  topP: z.number().optional().describe("draw from the likeliest tokens that together reach this probability"),
  minP: z.number().optional().describe("draw from tokens at least this share as likely as the likeliest"),
  repetitionPenalty: z.number().optional().describe("makes tokens that are there already less likely; 1: off"),
  noRepeatNgramSize: z.number().optional().describe("no run of this many tokens comes twice; 0: off"),
  typicalP: z
    .number()
    .optional()
    .describe("draw from the tokens of usual surprise that together reach this probability"),
  seed: z.number().int().min(0).optional().describe("seeds the draws; 0 if not given"),
  stop: z.array(z.string()).optional().describe("end an answer before this text"),
  template: z
    .string()
    .optional()
    .describe("chat, none, alpaca, or a text with {prompt}; the adapter's own, or the model's"),
});

export const answerFlags: readonly Flag[] = flagsOf(schema, "Answer:");

const beamSchema = z.strictObject({
  numBeams: z
    .number()
    .optional()
    .describe("texts that grow side by side, of which the likeliest stays; 1 if not given"),
  lengthPenalty: z
    .number()
    .optional()
    .describe("above 0 favours long texts among beams, below short ones; 1 if not given"),
  earlyStopping: z
    .enum(["true", "false", "never"])
    .optional()
    .describe("whether beams end when as many texts have ended; never: when none could get better; false if not given"),
});

/** For commands that do not answer piece by piece. */
export const beamFlags: readonly Flag[] = flagsOf(beamSchema, "Beams:");

export interface AnswerOptions {
  readonly maxNewTokens?: number | undefined;
  readonly minNewTokens?: number | undefined;
  readonly temperature?: number | undefined;
  readonly topK?: number | undefined;
  readonly topP?: number | undefined;
  readonly minP?: number | undefined;
  readonly repetitionPenalty?: number | undefined;
  readonly noRepeatNgramSize?: number | undefined;
  readonly typicalP?: number | undefined;
  readonly stop?: readonly string[] | undefined;
  readonly template?: string | undefined;
  readonly seed?: number | undefined;
  readonly numBeams?: number | undefined;
  readonly lengthPenalty?: number | undefined;
  readonly earlyStopping?: "true" | "false" | "never" | undefined;
  /** Answers to each prompt, by beams. Default 1. */
  readonly numReturnSequences?: number | undefined;
  /** How many prompts are answered at once. Default 16. */
  readonly batchSize?: number | undefined;
}

/** Reads a command's answer flags; what is left is the command's own. */
export function takeAnswerOptions(raw: RawOptions): { readonly answer: AnswerOptions; readonly rest: RawOptions } {
  const all = z.strictObject({ ...schema.shape, ...beamSchema.shape });
  const own = (name: string): boolean => Object.hasOwn(all.shape, name);
  const part = (mine: boolean): RawOptions =>
    Object.fromEntries(Object.entries(raw).filter(([name]) => own(name) === mine));
  return { answer: parseOptions(all, part(true)), rest: part(false) };
}

/** As many answers at once as two cores handle better than one by one; more only costs memory. */
const defaultBatch = 16;

/** The template for a question: the one asked for, the adapter's, or what suits the model. */
function templateFor(target: Generative, tokenizer: Tokenizer, question: Question, asked: string | undefined): string {
  return chooseTemplate(asked ?? (target instanceof ReftModel ? target.template : undefined), tokenizer, question.kind);
}

function promptIds(target: Generative, tokenizer: Tokenizer, question: Question, options: AnswerOptions): number[] {
  const template = templateFor(target, tokenizer, question, options.template);
  return encodePromptText(formatPrompt(question, template, tokenizer), tokenizer);
}

/** As the text generator takes them, for a conversation too. */
export function textOptions({
  stop,
  template: _,
  batchSize: __,
  earlyStopping,
  ...rest
}: AnswerOptions): Omit<TextOptions, "template" | "memory" | "locations"> {
  const early = earlyStopping === "true" || (earlyStopping === "false" ? false : earlyStopping);
  return given({ ...rest, stopStrings: stop, earlyStopping: early });
}

/** One question's answer in pieces, as it is written. */
export async function* answerPieces(
  target: Generative,
  tokenizer: Tokenizer,
  question: Question,
  options: AnswerOptions,
  signal?: AbortSignal,
): AsyncGenerator<string, Generated> {
  const prompt = promptIds(target, tokenizer, question, options);
  const steps = answerTokens(target, tokenizer, [prompt], { ...textOptions(options), ...given({ signal }) });
  let step = await steps.next();
  for (; step.done !== true; step = await steps.next()) if (step.value[0]) yield step.value[0];
  return step.value[0] as Generated;
}

/** All questions' answers, in order. An aborted signal ends them with what is there. */
export async function answerAll(
  target: Generative,
  tokenizer: Tokenizer,
  questions: readonly Question[],
  options: AnswerOptions = {},
  signal?: AbortSignal,
): Promise<Generated[]> {
  const prompts = questions.map((question) => promptIds(target, tokenizer, question, options));
  const { batchSize = defaultBatch } = options;
  const answers: Generated[] = [];
  for (let from = 0; from < prompts.length; from += batchSize) {
    const settings = { ...textOptions(options), ...given({ signal }) };
    const steps = answerTokens(target, tokenizer, prompts.slice(from, from + batchSize), settings);
    let step = await steps.next();
    while (step.done !== true) step = await steps.next();
    answers.push(...step.value);
  }
  return answers;
}
