/** Tokens that may not come next: what would repeat itself, words that are not wanted, an end that comes too early. */
import { UserError } from "../errors.js";

/** What is forbidden; transformers' processors of the same names. */
export interface Forbidden {
  /** No run of this many tokens occurs twice in prompt and answer; 0 is off. */
  readonly noRepeatNgramSize: number;
  /** Runs of tokens that do not occur in the answer. An end token by itself is not one. */
  readonly badWordsIds: readonly (readonly number[])[];
  /** Tokens that do not occur in the answer, end tokens too. */
  readonly suppressTokens: readonly number[];
  /** No end token before this many new tokens. */
  readonly minNewTokens: number;
  readonly eosTokenIds: ReadonlySet<number>;
}

/**
 * Sets what is forbidden after `ids` to −∞ in logits, or log-probabilities, [vocabulary].
 *
 * @param ids prompt and new tokens
 * @param made how many of them are new
 * @throws UserError where nothing would be left
 */
export function forbid(logits: Float32Array, ids: readonly number[], made: number, settings: Forbidden): void {
  const banned = forbiddenTokens(ids, made, settings);
  for (const id of banned) if (id < logits.length) logits[id] = -Infinity;
  if (banned.size >= logits.length && logits.every((logit) => logit === -Infinity))
    throw new UserError(
      `after ${ids.length} tokens all ${logits.length} of the vocabulary are forbidden.`,
      "Raise noRepeatNgramSize, or forbid fewer tokens.",
    );
}

function forbiddenTokens(ids: readonly number[], made: number, settings: Forbidden): Set<number> {
  const { noRepeatNgramSize: n, badWordsIds, suppressTokens, minNewTokens, eosTokenIds } = settings;
  const banned = new Set(suppressTokens);
  if (made < minNewTokens) for (const id of eosTokenIds) banned.add(id);
  for (const word of badWordsIds) {
    const last = word.at(-1) as number;
    if (word.length === 1 && eosTokenIds.has(last)) continue;
    if (endsIn(ids, ids.length, word, word.length - 1)) banned.add(last);
  }
  if (n > 0)
    for (let end = n - 1; end < ids.length; end++)
      if (sameBefore(ids, end, ids.length, n - 1)) banned.add(ids[end] as number);
  return banned;
}

/** Whether the `count` tokens before `end` are the first ones of `word`. */
function endsIn(ids: readonly number[], end: number, word: readonly number[], count: number): boolean {
  if (count > end) return false;
  for (let i = 0; i < count; i++) if (ids[end - count + i] !== word[i]) return false;
  return true;
}

/** Whether the same `count` tokens stand before the places a and b. */
function sameBefore(ids: readonly number[], a: number, b: number, count: number): boolean {
  for (let i = 1; i <= count; i++) if (ids[a - i] !== ids[b - i]) return false;
  return true;
}

/** @throws UserError for a size that is no whole number, an empty word, and tokens that the model does not have */
export function checkForbidden({ noRepeatNgramSize: n, badWordsIds, suppressTokens }: Forbidden, size: number): void {
  if (!Number.isSafeInteger(n) || n < 0)
    throw new UserError(`noRepeatNgramSize is ${n}.`, "Pass a whole number of tokens; 0 switches it off.");
  if (badWordsIds.some((word) => word.length === 0))
    throw new UserError("badWordsIds has a word of no tokens.", "Give each word at least one token.");
  const named = Object.entries({ badWordsIds: badWordsIds.flat(), suppressTokens });
  for (const [name, ids] of named) {
    const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= size);
    if (bad !== undefined)
      throw new UserError(
        `${name} names the token ${bad}: the model has tokens 0–${size - 1}.`,
        "Use the tokenizer that belongs to the model.",
      );
  }
}
