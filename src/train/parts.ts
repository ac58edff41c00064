/** In how many parts a step computes what would be large as a whole: attention scores of heads. */

import { type HeadShape, headPartsOf } from "../models/attention.js";

/** Sizes of a run's attention: examples, live tokens, and tokens of the past that they look back at. */
export interface AttentionSizes {
  readonly batch: number;
  readonly live: number;
  readonly past: number;
}

/**
 * Scores of one part's heads take no more than this where they can be parted so far; in the derivative three or four such
 * tensors exist. 135M shape, 4 × 2,048 tokens, an edit in the middle and no cache: 4.9 GB resident in 3 parts, 6.8 GB in one.
 * Parts cost no time: a step of two such layers took 9.6 s of processor time in one part, 9.2 in 3, 8.1 in 9 (±1).
 */
const mostScoreBytes = 256e6;

/**
 * The same where no derivative is taken: what a processor's caches hold. Frozen work of 488 tokens is 10 % faster in 3 parts
 * than in one, of 1,024 tokens 20 % in 9.
 */
export const frozenScoreBytes = 8e6;

/**
 * In how many parts heads attend: the fewest that keep a part's scores small. Lengths are few to a graph, so graphs stay few.
 *
 * @param most bytes of a part's scores
 */
export function headPartsFor(
  config: Omit<HeadShape, "headDim">,
  { batch, live, past }: AttentionSizes,
  most: number = mostScoreBytes,
): number {
  const bytes = 4 * batch * config.heads * live * (past + live);
  const all = headPartsOf(config);
  return all.find((parts) => bytes / parts <= most) ?? config.heads;
}
