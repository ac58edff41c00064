/** The words of the language, and `gradients`: reverse mode with this vocabulary. */

import { reverse } from "../graph/gradient.js";
import { scalar, type Tensor } from "../graph/tensor.js";
import { gradientRules } from "./gradient-rules.js";

export { type ActivationName, activations, erf, gelu, geluTanh, relu, sigmoid, silu, tanh } from "./activation.js";
export { abs, add, div, exp, log, mul, neg, pow, sign, sqrt, sub } from "./elementwise.js";
export { gemm, matMul } from "./linear.js";
export { logSumExp, logSumExpOfProduct } from "./log-sum-exp.js";
export { and, cast, lessOrEqual, type RoundedDType, roundTo, where } from "./logic.js";
export { layerNormalization, rmsNormalization, softmax } from "./normalization.js";
export { type BlockWeight, blockLinear } from "./quantised.js";
export { plainValues, recomputed, recomputedByRows, recomputedInParts } from "./recomputed.js";
export { reduceMax, reduceMean, reduceSum } from "./reduce.js";
export { rotary } from "./rotary.js";
export { gather, scatterAdd, scatterRows, takeRows } from "./rows.js";
export { concat, expand, reshape, slice, transpose, zeros } from "./shape.js";

/** The gradients of the scalar `of` by each tensor of `wrt`, in that order. */
export function gradients(of: Tensor, wrt: readonly Tensor[]): Tensor[] {
  if (of.shape.length !== 0) throw new Error(`internal: gradients want a scalar, not [${of.shape.join(", ")}]`);
  return reverse(of, wrt, { seed: scalar(1), ...gradientRules });
}
export { cos, sin } from "./trigonometry.js";
