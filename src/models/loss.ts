/** Next-token loss at the labelled rows only, without a one-hot matrix. */

import type { Tensor } from "../graph/tensor.js";
import { gather, logSumExpOfProduct, mul, reduceSum, reshape, sub, takeRows } from "../ops/index.js";

export interface Labels {
  /** Flat rows that predict a label, each once, int64 [M]. */
  readonly rows: Tensor;
  /** The labels, int64 [M]. */
  readonly labels: Tensor;
  /** 1 to M, int64 [M]: by it, edits after the last attention are made in these rows alone. Absent: in all of theirs. */
  readonly order?: Tensor;
}

export interface LabelledRows extends Labels {
  /** The weight of each label in the loss (1/M for a mean), float32 [M]. */
  readonly weights: Tensor;
}

/** Σᵢ wᵢ · cross entropyᵢ, a scalar. */
export function nextTokenLoss(hidden: Tensor, head: Tensor, { weights, ...labels }: LabelledRows): Tensor {
  return reduceSum(mul(weights, crossEntropies(hidden, head, labels)), { axes: [0] });
}

/**
 * −ln p(yᵢ) = ln Σⱼ e^(hᵢ·Eⱼ) − hᵢ·E_yᵢ [M] for the rows hᵢ of hidden [N, D] and the head E [V, D]: cross entropy as the
 * field computes it. Logits exist only for labelled rows.
 */
export function crossEntropies(hidden: Tensor, head: Tensor, { rows, labels, order }: Labels): Tensor {
  const h = takeRows(hidden, rows, order);
  const normaliser = reshape(logSumExpOfProduct(h, head), { shape: [rows.dim(0)] });
  const labelLogit = reduceSum(mul(h, gather(head, labels, {})), { axes: [1] });
  return sub(normaliser, labelLogit);
}
