/** The losses of classifiers over a batch's logits, as torch computes them. */

import { times } from "../graph/dim.js";
import { input, scalar, type Tensor } from "../graph/tensor.js";
import { concat, gather, logSumExp, mul, reduceSum, reshape, sub, zeros } from "../ops/index.js";
import type { ProblemType } from "./classifier.js";

const flat = (z: Tensor): Tensor => reshape(z, { shape: [times(...z.shape)] });
const sum = (x: Tensor): Tensor => reduceSum(flat(x), { axes: [0] });

/** The loss of logits z [N, C], summed over texts. */
const losses: Readonly<Record<ProblemType, (z: Tensor) => Tensor>> = {
  /** Cross entropy Σᵢ (ln Σⱼ e^zᵢⱼ − zᵢyᵢ); input `classes` int64 [N]: i·C + yᵢ */
  single_label_classification: (z) => {
    const chosen = gather(flat(z), input("classes", "int64", [z.dim(0)]), { unique: true });
    return sub(sum(logSumExp(z)), sum(chosen));
  },
  /** Binary cross entropy Σᵢⱼ (ln(1 + e^zᵢⱼ) − yᵢⱼzᵢⱼ)/C; input `targets` [N, C] of 0 and 1 */
  multi_label_classification: (z) => {
    const y = input("targets", "float32", z.shape);
    const column = reshape(z, { shape: [times(...z.shape), 1] });
    const softplus = logSumExp(concat(column, zeros(column.shape), { axis: 1 }));
    return mul(sub(sum(softplus), sum(mul(y, z))), scalar(1 / Number(z.dim(1))));
  },
  /** Squared error Σᵢⱼ (zᵢⱼ − yᵢⱼ)²/C; input `targets` [N, C] */
  regression: (z) => {
    const difference = sub(z, input("targets", "float32", z.shape));
    return mul(sum(mul(difference, difference)), scalar(1 / Number(z.dim(1))));
  },
};

/** The loss of logits z [N, C]: the sum over texts times the input `weight` [] (1/N for a mean). */
export function classificationLoss(problem: ProblemType, z: Tensor): Tensor {
  return mul(losses[problem](z), input("weight", "float32", []));
}
