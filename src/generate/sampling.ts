/** From logits to the next token: transformers' processors, in its order and with its meaning, then one draw. */
import { UserError } from "../errors.js";
import type { Random } from "../reft/random.js";

/** How the next token is chosen; the neutral value of each setting switches it off. */
export interface SamplingSettings {
  /** false: always the most likely token, after the repetition penalty */
  readonly doSample: boolean;
  /** logits are divided by it; 1 is neutral */
  readonly temperature: number;
  /** keep the k most likely tokens; 0 is off */
  readonly topK: number;
  /** keep the fewest most likely tokens whose probabilities reach p; 1 is off */
  readonly topP: number;
  /** keep tokens at least this share as likely as the likeliest one; 0 is off */
  readonly minP: number;
  /** keep the fewest tokens of usual surprise whose probabilities reach p; 1 is off */
  readonly typicalP: number;
  /** tokens already there: positive logits are divided by it, negative ones multiplied; 1 is neutral */
  readonly repetitionPenalty: number;
}

/** Greedy choice with every setting neutral. */
export const GREEDY: SamplingSettings = {
  doSample: false,
  temperature: 1,
  topK: 0,
  topP: 1,
  minP: 0,
  typicalP: 1,
  repetitionPenalty: 1,
};

/** Tokens that may come next, and their probabilities (sum 1). */
export interface Candidates {
  readonly ids: Int32Array;
  readonly probabilities: Float64Array;
}

/**
 * Checks the range of every setting; temperature 0 is fine where nothing is drawn.
 *
 * @throws UserError that names the setting and its range
 */
export function checkSampling(settings: SamplingSettings): void {
  const { doSample, temperature, topK, topP, minP, typicalP, repetitionPenalty } = settings;
  const rules: readonly (readonly [name: string, value: number, ok: boolean, hint: string])[] = [
    [
      "temperature",
      temperature,
      (temperature > 0 && temperature < Infinity) || (temperature === 0 && !doSample),
      "It must be above 0; for the most likely token at every step set doSample to false.",
    ],
    ["topK", topK, Number.isInteger(topK) && topK >= 0, "It must be a whole number of tokens; 0 switches it off."],
    ["topP", topP, topP > 0 && topP <= 1, "It must be above 0 and at most 1; 1 switches it off."],
    ["typicalP", typicalP, typicalP > 0 && typicalP <= 1, "It must be above 0 and at most 1; 1 switches it off."],
    ["minP", minP, minP >= 0 && minP <= 1, "It must be from 0 to 1; 0 switches it off."],
    [
      "repetitionPenalty",
      repetitionPenalty,
      repetitionPenalty > 0 && repetitionPenalty < Infinity,
      "It must be above 0; 1 switches it off.",
    ],
  ];
  for (const [name, value, ok, hint] of rules) {
    if (!ok) throw new UserError(`${name} ${value} is out of range.`, hint);
  }
}

/**
 * A copy of the logits [vocabulary] with every token of `ids` made less likely, once however often it occurs (Keskar and
 * others, arXiv 1909.05858).
 *
 * @param ids prompt and generated tokens, as in transformers; a pad token counts like any other
 */
export function penaliseRepetition(logits: Float32Array, ids: Iterable<number>, penalty: number): Float32Array {
  const penalised = logits.slice();
  // Rounded first, as in fp32 arithmetic, so that ties and sums fall as they do in torch.
  const factor = Math.fround(penalty);
  for (const id of ids) {
    const logit = logits[id];
    if (logit !== undefined) penalised[id] = logit < 0 ? logit * factor : logit / factor;
  }
  return penalised;
}

function brokenLogits(what: string): UserError {
  return new UserError(
    `the model's logits hold ${what}, so there is no next token.`,
    "The weights or the edit are broken, or overflow in 16 bits: try float32, or an earlier checkpoint.",
  );
}

/**
 * The index of the largest logit [vocabulary], the first of equal ones.
 *
 * @throws UserError when a logit is NaN, or none is above −∞
 */
export function argmax(logits: Float32Array): number {
  let best = -1;
  let highest = -Infinity;
  for (let id = 0; id < logits.length; id++) {
    // Hardly any of a vocabulary is above what came before: four at a time is three times as fast.
    while (id + 4 <= logits.length && fourBelow(logits, id, highest)) id += 4;
    if (id === logits.length) break;
    const logit = logits[id]!;
    if (logit <= highest) continue;
    if (Number.isNaN(logit)) throw brokenLogits("NaN");
    highest = logit;
    best = id;
  }
  if (best < 0) throw brokenLogits("nothing above −∞");
  return best;
}

/** Whether four numbers from `at` on are at most `highest`, which NaN is not. */
function fourBelow(logits: Float32Array, at: number, highest: number): boolean {
  return (
    logits[at]! <= highest && logits[at + 1]! <= highest && logits[at + 2]! <= highest && logits[at + 3]! <= highest
  );
}

/**
 * log softmax of logits [vocabulary], each rounded to float32 as torch rounds it.
 *
 * @throws UserError when the logits hold NaN or +∞
 */
export function logProbabilities(logits: Float32Array): Float32Array {
  const highest = logits[argmax(logits)]!;
  if (highest === Infinity) throw brokenLogits("an infinity");
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - highest);
  const shift = highest + Math.log(sum);
  return logits.map((logit) => logit - shift);
}

/** 0 to n − 1. A loop, like those below: `Int32Array.from` with a function takes ten times as long over a vocabulary. */
function allIds(n: number): Int32Array {
  const ids = new Int32Array(n);
  for (let id = 0; id < n; id++) ids[id] = id;
  return ids;
}

/**
 * Token ids from the likeliest down, equal ones from the last up (as a stable ascending sort read backwards). A heap: the
 * first k of n cost O(n + k log n), and a vocabulary of 150,000 is never sorted whole.
 */
function* ranked(logits: Float32Array): Generator<number> {
  let size = logits.length;
  const heap = allIds(size);
  const before = (a: number, b: number): boolean => logits[a]! > logits[b]! || (logits[a] === logits[b] && a > b);
  const sink = (start: number): void => {
    const id = heap[start]!;
    let at = start;
    for (let child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && before(heap[child + 1]!, heap[child]!)) child++;
      if (!before(heap[child]!, id)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = id;
  };
  for (let at = (size >> 1) - 1; at >= 0; at--) sink(at);
  while (size > 0) {
    yield heap[0]!;
    heap[0] = heap[--size]!;
    sink(0);
  }
}

/** The k likeliest tokens, and all that are as likely as the kth. */
function takeTopK(logits: Float32Array, k: number): Int32Array {
  const kept: number[] = [];
  for (const id of ranked(logits)) {
    if (kept.length >= k && logits[id] !== logits[kept[k - 1]!]) break;
    kept.push(id);
  }
  return Int32Array.from(kept);
}

/** Of tokens from the likeliest down, those that come before the probabilities of the ones before them reach p; `least` at least. */
function takeTopP(
  ids: Iterable<number>,
  weight: (id: number) => number,
  total: number,
  p: number,
  least: number,
): Int32Array {
  const kept: number[] = [];
  let mass = 0;
  for (const id of ids) {
    if (kept.length >= least && mass >= p * total) break;
    kept.push(id);
    mass += weight(id);
  }
  return Int32Array.from(kept);
}

/**
 * The tokens whose surprise −ln p is nearest to the mean surprise H, as many as reach the probability `mass`, and all that are as near
 * (Meister and others, arXiv 2202.00666).
 */
function takeTypical(ids: Int32Array, probabilities: Float64Array, mass: number, least: number): Int32Array {
  let entropy = 0;
  for (const p of probabilities) if (p > 0) entropy -= p * Math.log(p);
  const distance = Float64Array.from(probabilities, (p) => Math.abs(-Math.log(p) - entropy));
  const order = allIds(ids.length).sort((a, b) => distance[a]! - distance[b]!);
  let sum = 0;
  let last = 0;
  for (; last < order.length - 1; last++) {
    sum += probabilities[order[last]!]!;
    if (sum >= mass) break;
  }
  const farthest = distance[order[Math.max(last, Math.min(least, order.length) - 1)]!]!;
  return ids.filter((_, i) => distance[i]! <= farthest);
}

/**
 * The tokens that temperature, top-k, top-p, min-p and typical-p, in this order, leave of logits [vocabulary].
 *
 * @param least each filter leaves at least so many
 * @throws UserError when the logits hold NaN or +∞
 */
export function candidates(logits: Float32Array, settings: SamplingSettings, least = 1): Candidates {
  const { temperature, topK, topP, minP, typicalP } = settings;
  const highest = logits[argmax(logits)]!;
  if (highest === Infinity) throw brokenLogits("an infinity");
  const weight = (id: number): number => Math.exp((logits[id]! - highest) / temperature);

  const limited = topK > 0 && topK < logits.length;
  let ids = limited ? takeTopK(logits, Math.max(topK, least)) : allIds(logits.length);
  if (topP < 1) {
    let total = 0;
    for (const id of ids) total += weight(id);
    ids = takeTopP(limited ? ids : ranked(logits), weight, total, topP, least);
  }
  // The likeliest token weighs 1, so its share is the weight itself.
  if (minP > 0) {
    const enough = ids.filter((id) => weight(id) >= minP);
    ids = enough.length >= least ? enough : ids.sort((a, b) => logits[b]! - logits[a]!).slice(0, least);
  }
  if (typicalP < 1) ids = takeTypical(ids, normalised(ids, weight), typicalP, least);
  return { ids, probabilities: normalised(ids, weight) };
}

function normalised(ids: Int32Array, weight: (id: number) => number): Float64Array {
  const weights = new Float64Array(ids.length);
  let total = 0;
  for (let i = 0; i < ids.length; i++) {
    weights[i] = weight(ids[i]!);
    total += weights[i]!;
  }
  for (let i = 0; i < ids.length; i++) weights[i] = weights[i]! / total;
  return weights;
}

/** Draws one token from softmax(logits) [vocabulary] after temperature and the filters. */
export function sample(logits: Float32Array, settings: SamplingSettings, random: Random): number {
  const { ids, probabilities } = candidates(logits, settings);
  let left = random.uniform();
  let last = 0;
  for (let i = 0; i < ids.length; i++) {
    if (probabilities[i]! === 0) continue;
    left -= probabilities[i]!;
    if (left < 0) return ids[i]!;
    last = i;
  }
  // The probabilities sum to 1 only up to rounding.
  return ids[last]!;
}

/**
 * The next token of one row: repetition penalty, then the most likely token or a draw.
 *
 * @param logits [vocabulary], left as they are
 * @param ids prompt and generated tokens so far
 */
export function chooseToken(
  logits: Float32Array,
  ids: Iterable<number>,
  settings: SamplingSettings,
  random: Random,
): number {
  const penalty = settings.repetitionPenalty;
  const penalised = penalty === 1 ? logits : penaliseRepetition(logits, ids, penalty);
  return settings.doSample ? sample(penalised, settings, random) : argmax(penalised);
}
