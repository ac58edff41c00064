/** Options of generation: the user's own, then generation_config.json's, then transformers' defaults. */

import { z } from "zod";
import { invariant, UserError } from "../errors.js";
import type { CausalLM } from "../models/causal-lm.js";
import { checkForbidden, type Forbidden } from "./forbidden.js";
import { checkSampling, type SamplingSettings } from "./sampling.js";

export interface GenerateOptions {
  /** At most this many new tokens a row. Default: max_new_tokens of generation_config.json, else 256. */
  readonly maxNewTokens?: number;
  /** No end token before this many new tokens. */
  readonly minNewTokens?: number;
  /** Draw from the distribution. Default: do_sample of generation_config.json, or true where one of the next five is given. */
  readonly doSample?: boolean;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly typicalP?: number;
  readonly repetitionPenalty?: number;
  /** No run of this many tokens occurs twice in prompt and answer. Default 0: off. */
  readonly noRepeatNgramSize?: number;
  /** Runs of token ids that the answer does not hold; an end token by itself is left alone. */
  readonly badWordsIds?: readonly (readonly number[])[];
  /** Token ids that the answer does not hold, end tokens too. */
  readonly suppressTokens?: readonly number[];
  /** Ids that end a row. Default: those of generation_config.json, else of config.json. An empty list: none. */
  readonly eosTokenIds?: readonly number[];
  /** Of the random draws; each row draws from a stream of its own. Default 0. */
  readonly seed?: number;
  /** Stops between two tokens. */
  readonly signal?: AbortSignal;
}

/** How beams are searched; the names and meanings are transformers'. */
export interface BeamOptions {
  /** Texts that grow side by side for each prompt, of which the likeliest stays. Default: that of generation_config.json, or 1. */
  readonly numBeams?: number;
  /** A finished text's score is its log-probability / length^lengthPenalty: above 0 favours long ones. Default 1. */
  readonly lengthPenalty?: number;
  /**
   * true: done with as many finished texts as beams. false: done when the best growing text, at its present length, scores below
   * them all. "never": when it could not do better at any length. Default false.
   */
  readonly earlyStopping?: boolean | "never";
  /** How many texts are given: the best of those that beams found, at most `numBeams`; or of one beam, so many draws. Default 1. */
  readonly numReturnSequences?: number;
}

/** Options with every default filled in. */
export interface Settings extends Forbidden {
  readonly sampling: SamplingSettings;
  readonly maxNewTokens: number;
  readonly seed: number;
}

/** Where neither the user nor the checkpoint names a length. transformers' 20 cuts most answers short. */
const NEW_TOKENS = 256;
/** What transformers keeps when it draws and nobody said otherwise. */
const TOP_K = 50;

const count = z.number().int();
const ids = z.union([count, z.array(count)]).nullish();
const configSchema = z.object({
  do_sample: z.boolean().nullish(),
  temperature: z.number().nullish(),
  top_k: count.nullish(),
  top_p: z.number().nullish(),
  min_p: z.number().nullish(),
  typical_p: z.number().nullish(),
  no_repeat_ngram_size: count.nullish(),
  bad_words_ids: z.array(z.array(count)).nullish(),
  suppress_tokens: z.array(count).nullish(),
  repetition_penalty: z.number().nullish(),
  max_new_tokens: count.nullish(),
  min_new_tokens: count.nullish(),
  eos_token_id: ids,
  num_beams: count.nullish(),
  length_penalty: z.number().nullish(),
  early_stopping: z.union([z.boolean(), z.literal("never")]).nullish(),
  num_return_sequences: count.nullish(),
});

function readConfig({ checkpoint, id }: CausalLM): z.infer<typeof configSchema> {
  const parsed = configSchema.safeParse(checkpoint.generationConfig);
  if (parsed.success) return parsed.data;
  throw new UserError(
    `generation_config.json of ${id} is not understood: ${z.prettifyError(parsed.error)}.`,
    "Correct the file, or remove it.",
  );
}

/** The ids that end generation when none are given. */
function endTokens(model: CausalLM, named: number | number[] | null | undefined): number[] {
  const own = ids.safeParse(model.checkpoint.config.eos_token_id);
  return [named ?? (own.success ? own.data : undefined) ?? []].flat();
}

/**
 * Fills in and checks options.
 *
 * @param longest tokens of the longest prompt
 * @throws UserError for values out of range, and where learned positions cannot hold prompt and answer
 */
export function settingsFor(model: CausalLM, options: GenerateOptions, longest: number): Settings {
  const config = readConfig(model);
  const { temperature, topK, topP, minP, typicalP } = options;
  const doSample = asksToDraw(options) ?? config.do_sample ?? false;
  const sampling: SamplingSettings = {
    doSample,
    temperature: temperature ?? config.temperature ?? 1,
    topK: topK ?? config.top_k ?? TOP_K,
    topP: topP ?? config.top_p ?? 1,
    minP: minP ?? config.min_p ?? 0,
    typicalP: typicalP ?? config.typical_p ?? 1,
    repetitionPenalty: options.repetitionPenalty ?? config.repetition_penalty ?? 1,
  };
  checkSampling(sampling);
  const minNewTokens = options.minNewTokens ?? config.min_new_tokens ?? 0;
  checkCount("minNewTokens", minNewTokens, 0);
  const forbidden: Forbidden = {
    noRepeatNgramSize: options.noRepeatNgramSize ?? config.no_repeat_ngram_size ?? 0,
    badWordsIds: options.badWordsIds ?? config.bad_words_ids ?? [],
    suppressTokens: options.suppressTokens ?? config.suppress_tokens ?? [],
    minNewTokens,
    eosTokenIds: new Set(options.eosTokenIds ?? endTokens(model, config.eos_token_id)),
  };
  checkForbidden(forbidden, model.config.vocabSize);
  return {
    ...forbidden,
    sampling,
    maxNewTokens: newTokens(model, options.maxNewTokens, config.max_new_tokens ?? NEW_TOKENS, longest),
    seed: options.seed ?? 0,
  };
}

/** Whether the user wants draws; undefined where nothing is said. */
export function asksToDraw({
  doSample,
  temperature,
  topK,
  topP,
  minP,
  typicalP,
}: GenerateOptions): boolean | undefined {
  const asked = temperature ?? topK ?? topP ?? minP ?? typicalP;
  return doSample ?? (asked === undefined ? undefined : temperature === undefined || temperature > 0);
}

/**
 * Fills in and checks how beams are searched. A checkpoint's own beams give way to draws that are asked for, and its draws to
 * beams; where both are asked for, beams are drawn.
 *
 * @throws UserError for values out of range
 */
export function beamsFor(model: CausalLM, options: GenerateOptions & BeamOptions): Required<BeamOptions> {
  const config = readConfig(model);
  const draws = asksToDraw(options) === true;
  const numBeams = options.numBeams ?? (draws ? 1 : (config.num_beams ?? 1));
  checkCount("numBeams", numBeams, 1, "texts");
  const numReturnSequences = options.numReturnSequences ?? (numBeams > 1 ? config.num_return_sequences : 1) ?? 1;
  checkCount("numReturnSequences", numReturnSequences, 1, "texts");
  const drawn = numBeams === 1 && (asksToDraw(options) ?? config.do_sample ?? false);
  if (numReturnSequences > numBeams && !drawn)
    throw new UserError(
      `${numReturnSequences} texts cannot come of ${numBeams} beam${numBeams === 1 ? "" : "s"}.`,
      `Set numBeams to at least ${numReturnSequences}, or draw them: doSample.`,
    );
  const lengthPenalty = options.lengthPenalty ?? config.length_penalty ?? 1;
  if (!Number.isFinite(lengthPenalty))
    throw new UserError(`lengthPenalty is ${lengthPenalty}.`, "Pass a number; 1 divides scores by the length.");
  const earlyStopping = options.earlyStopping ?? config.early_stopping ?? false;
  return { numBeams, lengthPenalty, earlyStopping, numReturnSequences };
}

function checkCount(name: string, value: number, least: number, what = "tokens"): void {
  if (Number.isSafeInteger(value) && value >= least) return;
  throw new UserError(`${name} is ${value}.`, `Pass a whole number of ${what}, at least ${least}.`);
}

/** Rotary positions go on past the trained length, as in transformers; learned ones end. */
function newTokens(model: CausalLM, asked: number | undefined, byDefault: number, longest: number): number {
  checkCount("maxNewTokens", asked ?? byDefault, 1);
  if (model.config.rope !== undefined) return asked ?? byDefault;
  // The last new token is never fed back, so it needs no position.
  const room = model.config.maxPositionEmbeddings - longest + 1;
  if (room < 1 || (asked !== undefined && asked > room))
    throw new UserError(
      `${model.id} has ${model.config.maxPositionEmbeddings} positions, the prompt has ${longest} tokens${
        asked === undefined || room < 1 ? "" : ` and maxNewTokens is ${asked}`
      }.`,
      room < 1 ? "Shorten the prompt." : `Shorten the prompt, or ask for at most ${room} new tokens.`,
    );
  return Math.min(asked ?? byDefault, room);
}

/** Refuses prompts the model cannot be fed. */
export function checkPrompts(model: CausalLM, prompts: readonly (readonly number[])[]): void {
  invariant(prompts.length > 0, "generation without a prompt");
  const size = model.config.vocabSize;
  prompts.forEach((prompt, row) => {
    if (prompt.length === 0)
      throw new UserError(`prompt ${row} has no tokens.`, "Give each prompt at least one token.");
    const bad = prompt.find((id) => !Number.isInteger(id) || id < 0 || id >= size);
    if (bad !== undefined)
      throw new UserError(
        `prompt ${row} holds the token ${bad}: ${model.id} has tokens 0–${size - 1}.`,
        "Use the tokenizer that belongs to the model.",
      );
  });
}
