/** Matrix products: Gemm on flat rows for weights, batched MatMul for attention. */

import type { Dim } from "../graph/dim.js";
import { type Op, op, typeError } from "../graph/op.js";
import type { Tensor, TensorType } from "../graph/tensor.js";
import { broadcast, unbroadcast } from "./broadcast.js";
import { reduceSum } from "./reduce.js";
import { transpose } from "./shape.js";

export interface GemmAttributes {
  readonly transA?: boolean;
  readonly transB?: boolean;
}

/** Y [M, N] = A·B + c: A [M, K] ([K, M] with transA), B [K, N] ([N, K] with transB), c [N] optional */
export const gemm: Op<[a: Tensor, b: Tensor, ...c: Tensor[]], GemmAttributes> = op<
  [Tensor, Tensor, ...Tensor[]],
  GemmAttributes
>("Gemm", {
  type: (inputs, { transA = false, transB = false }) => {
    const [a, b, c] = inputs as [TensorType, TensorType, TensorType?];
    if (a.shape.length !== 2 || b.shape.length !== 2) typeError("Gemm", inputs, "wants matrices");
    const [m, k] = (transA ? [a.shape[1], a.shape[0]] : a.shape) as [Dim, Dim];
    const [n, kb] = (transB ? b.shape : [b.shape[1], b.shape[0]]) as [Dim, Dim];
    if (k !== kb) typeError("Gemm", inputs, `inner sizes are ${k} and ${kb}`);
    if (c !== undefined && (c.shape.length !== 1 || c.shape[0] !== n)) typeError("Gemm", inputs, `bias must be [${n}]`);
    return { dtype: a.dtype, shape: [m, n] };
  },
  rowwise: ({ transA = false }) => (transA ? undefined : "first"),
  vjp: ({ inputs, g, attributes: { transA = false, transB = false } }) => {
    const [a, b] = inputs as [Tensor, Tensor];
    return [
      () => (transA ? gemm(b, g, { transA: transB, transB: true }) : gemm(g, b, { transB: !transB })),
      () => (transB ? gemm(g, a, { transA: true, transB: transA }) : gemm(a, g, { transA: !transA })),
      () => reduceSum(g, { axes: [0] }),
    ];
  },
  lower: (e, inputs, { attributes: { transA = false, transB = false } }) =>
    e.node("Gemm", inputs, { transA: transA ? 1 : 0, transB: transB ? 1 : 0 }),
  flops: ([a], y, { transA = false }) => [2, ...y.shape, (a as TensorType).shape[transA ? 0 : 1] as Dim],
});

/** Y […, M, N] = A […, M, K]·B […, K, N], leading axes broadcast */
export const matMul: Op<[a: Tensor, b: Tensor]> = op<[Tensor, Tensor]>("MatMul", {
  type: (inputs) => {
    const [a, b] = inputs as [TensorType, TensorType];
    const [m, k] = a.shape.slice(-2) as [Dim, Dim];
    const [kb, n] = b.shape.slice(-2) as [Dim, Dim];
    if (a.shape.length < 2 || b.shape.length < 2 || k !== kb)
      typeError("MatMul", inputs, `inner sizes are ${k}, ${kb}`);
    const leading = (t: TensorType): TensorType => ({ dtype: t.dtype, shape: t.shape.slice(0, -2) });
    const lead = broadcast("MatMul", leading(a), leading(b), inputs);
    return { dtype: a.dtype, shape: [...lead, m, n] };
  },
  vjp: ({ inputs, g }) => {
    const [a, b] = inputs as [Tensor, Tensor];
    return [() => unbroadcast(matMul(g, swapLast(b)), a), () => unbroadcast(matMul(swapLast(a), g), b)];
  },
  flops: ([a], y) => [2, ...y.shape, (a as TensorType).shape.at(-1) as Dim],
});

/** The last two axes exchanged: xᵀ for every matrix of a batch. */
export function swapLast(x: Tensor): Tensor {
  const axes = x.shape.map((_, i) => i);
  const n = axes.length;
  [axes[n - 2], axes[n - 1]] = [n - 1, n - 2];
  return transpose(x, { axes });
}
