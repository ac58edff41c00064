/** What objectives over pairs share: a better and a worse sequence each, side by side in a batch. */

import type { Example, Sequence } from "../data/example.js";
import { UserError } from "../errors.js";
import { input, scalar, type Tensor } from "../graph/tensor.js";
import { concat, gather, logSumExp, reshape, sub, zeros } from "../ops/index.js";
import type { ReftModel } from "../reft/reft-model.js";
import { checkExamples } from "./examples.js";
import { int64s } from "./next-token.js";
import type { Feeds, Figures, Measured } from "./objective.js";

/** A better and a worse sequence. */
export interface Pair<S extends Sequence = Sequence> {
  readonly chosen: S;
  readonly rejected: S;
}

/** What an evaluation of pairs tells: means over the pairs. */
export interface PairEvaluation extends Measured {
  readonly loss: number;
  /** The share of pairs whose chosen sequence has the higher reward. */
  readonly accuracy: number;
  /** reward(chosen) − reward(rejected) */
  readonly margin: number;
  readonly rewardChosen: number;
  readonly rewardRejected: number;
  readonly pairs: number;
}

/** In a batch the sequences of pair k stand at 2k (chosen) and 2k + 1 (rejected). */
export function sequencesOf<S extends Sequence>({ chosen, rejected }: Pair<S>): readonly [S, S] {
  return [chosen, rejected];
}

/** x(chosen) − x(rejected) [K] of a value a sequence, x [B]. */
export function differences(x: Tensor): Tensor {
  const at = (name: string): Tensor => gather(x, input(name, "int64", ["K"]), { unique: true });
  return sub(at("chosen"), at("rejected"));
}

/** Feeds of `differences`, and the pairs' weights. */
export function pairFeeds(pairs: number, weight: number): Feeds {
  const every = Array.from({ length: pairs }, (_, k) => 2 * k);
  return {
    chosen: int64s(every),
    rejected: int64s(every.map((k) => k + 1)),
    pairWeights: { shape: [pairs], data: new Float32Array(pairs).fill(weight) },
  };
}

/** −ln σ(x) = ln(e⁰ + e⁻ˣ) [K], without overflow. By relu and abs its derivative would be lost at 0, where DPO starts. */
export function negLogSigmoid(x: Tensor): Tensor {
  const column = [x.dim(0), 1];
  const zero = zeros(column);
  const both = concat(zero, reshape(sub(scalar(0), x), { shape: column }), { axis: 1 });
  return reshape(logSumExp(both), { shape: [x.dim(0)] });
}

/** Accuracy, margin and rewards, summed over the pairs of a batch, from the rewards of its sequences [2K]. */
export function pairFigures(rewards: ArrayLike<number>): Figures {
  const sums = { accuracy: 0, margin: 0, rewardChosen: 0, rewardRejected: 0 };
  for (let i = 0; i + 1 < rewards.length; i += 2) {
    const [chosen, rejected] = [rewards[i] as number, rewards[i + 1] as number];
    sums.accuracy += chosen > rejected ? 1 : 0;
    sums.margin += chosen - rejected;
    sums.rewardChosen += chosen;
    sums.rewardRejected += rejected;
  }
  return sums;
}

export function pairEvaluation(loss: number, pairs: number, figures: Figures): PairEvaluation {
  const { accuracy = 0, margin = 0, rewardChosen = 0, rewardRejected = 0 } = figures;
  return { loss, accuracy, margin, rewardChosen, rewardRejected, pairs };
}

/**
 * Checks pairs against the model they are for.
 *
 * @throws UserError where a sequence does not fit the model, or a pair has nothing to prefer
 */
export function checkPairs(
  pairs: readonly Pair<Sequence & Partial<Pick<Example, "labels">>>[],
  reft: ReftModel,
  name: string,
): void {
  for (const side of ["chosen", "rejected"] as const) {
    pairs.forEach((pair, i) => {
      if (pair[side]?.inputIds === undefined)
        throw new UserError(`${name}[${i}] has no ${side} sequence.`, "Give pairs: { chosen, rejected }.");
    });
    checkExamples(
      pairs.map((p) => p[side]),
      reft,
      `${name}'s ${side}`,
    );
  }
  const same = pairs.findIndex(({ chosen, rejected }) => chosen.inputIds.join() === rejected.inputIds.join());
  if (same >= 0)
    throw new UserError(
      `${name}[${same}]: the chosen and the rejected sequence are the same, so there is nothing to prefer.`,
      "Take the pair out, or correct one of the two.",
    );
}
