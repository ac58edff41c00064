/** Next-token loss at the labelled rows only, without a one-hot matrix. */

import type { Tensor } from "../graph/tensor.js";
import { gather, logSumExpOfProduct, mul, reduceSum, reshape, sub, takeRows } from "../ops/index.js";

export interface Labels {
  /** Flat rows that predict a label, each once, int64 [M]. */
  readonly rows: Tensor;
  /** The labels, int64 [M]. */
  readonly labels: Tensor;
}

export interface LabelledRows extends Labels {
  /** The weight of each label in the loss (1/M for a mean), float32 [M]. */
  readonly weights: Tensor;
}

/** Σᵢ wᵢ · cross entropyᵢ, a scalar. */
export function nextTokenLoss(hidden: Tensor, head: Tensor, { rows, labels, weights }: LabelledRows): Tensor {
  return reduceSum(mul(weights, crossEntropies(hidden, head, { rows, labels })), { axes: [0] });
}

/**
 * −ln p(yᵢ) = ln Σⱼ e^(hᵢ·Eⱼ) − hᵢ·E_yᵢ [M] for the rows hᵢ of hidden [N, D] and the head E [V, D]: cross entropy as the
 * field computes it. Logits exist only for labelled rows.
 */
export function crossEntropies(hidden: Tensor, head: Tensor, { rows, labels }: Labels): Tensor {
  const h = takeRows(hidden, rows);
  const normaliser = reshape(logSumExpOfProduct(h, head), { shape: [rows.dim(0)] });
  const labelLogit = reduceSum(mul(h, gather(head, labels, {})), { axes: [1] });
  return sub(normaliser, labelLogit);
}
