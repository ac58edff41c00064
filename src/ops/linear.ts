/** Matrix products: Gemm on flat rows for weights, batched MatMul for attention. */

import type { Dim } from "../graph/dim.js";
import { type Emitter, type Op, op, typeError } from "../graph/op.js";
import type { Tensor, TensorType } from "../graph/tensor.js";
import { broadcast, unbroadcast } from "./broadcast.js";
import { reduceSum } from "./reduce.js";

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

/** Whether A, B are stored with their last two axes exchanged. */
export interface MatMulAttributes {
  readonly transA?: boolean;
  readonly transB?: boolean;
}

const batched: Op<[a: Tensor, b: Tensor], MatMulAttributes> = op<[Tensor, Tensor], MatMulAttributes>("MatMul", {
  type: (inputs, { transA = false, transB = false }) => {
    const [a, b] = inputs as [TensorType, TensorType];
    if (a.shape.length < 2 || b.shape.length < 2) typeError("MatMul", inputs, "wants matrices");
    const [m, k] = lastTwo(a, transA);
    const [kb, n] = lastTwo(b, transB);
    if (k !== kb) typeError("MatMul", inputs, `inner sizes are ${k}, ${kb}`);
    const leading = (t: TensorType): TensorType => ({ dtype: t.dtype, shape: t.shape.slice(0, -2) });
    const lead = broadcast("MatMul", leading(a), leading(b), inputs);
    return { dtype: a.dtype, shape: [...lead, m, n] };
  },
  vjp: ({ inputs, g, attributes: { transA = false, transB = false } }) => {
    const [a, b] = inputs as [Tensor, Tensor];
    const byA = (): Tensor =>
      transA ? batched(b, g, { transA: transB, transB: true }) : batched(g, b, { transB: !transB });
    const byB = (): Tensor =>
      transB ? batched(g, a, { transA: true, transB: transA }) : batched(a, g, { transA: !transA });
    return [() => unbroadcast(byA(), a), () => unbroadcast(byB(), b)];
  },
  lower: (e, names, { attributes, inputs, output }) =>
    (attributes.transA === true ? undefined : rowByRow(e, names, inputs, output, attributes.transB)) ??
    product(e, names, [inputs[0]?.shape.length as number, inputs[1]?.shape.length as number], attributes),
  flops: ([a], y, { transA = false }) => [2, ...y.shape, lastTwo(a as TensorType, transA)[1]],
});

function product(
  e: Emitter,
  names: readonly string[],
  [axesA, axesB]: readonly [number, number],
  { transA = false, transB = false }: MatMulAttributes,
): string {
  if (!transA && !transB) return e.node("MatMul", names);
  // The runtime's own op reads matrices either way round: no transposed copy of a batch's attention weights.
  if (e.kernels.transposedMatMul)
    return e.node("FusedMatMul", names, { transA: transA ? 1 : 0, transB: transB ? 1 : 0 }, "com.microsoft");
  const [a, b] = names as [string, string];
  return e.node("MatMul", [transA ? turned(e, a, axesA) : a, transB ? turned(e, b, axesB) : b]);
}

/** Below so many rows a product is faster row by row: measured with 2 to 4 (1.2–1.8 times); at 7 and 8 either way takes as long. */
const MANY_ROWS = 7;

/**
 * A few rows, each by itself: the runtime multiplies one row by a matrix where the matrix lies, and for several it copies the
 * matrix into another order first. So go the few query heads that share a cached key head, one token at a time.
 */
function rowByRow(
  e: Emitter,
  [nameA, nameB]: readonly string[],
  [a, b]: readonly Tensor[],
  output: Tensor,
  transB = false,
): string | undefined {
  const [left, right] = [(a as Tensor).shape, (b as Tensor).shape];
  const [m, k] = left.slice(-2) as [Dim, Dim];
  const n = output.shape.at(-1) as Dim;
  // A product of columns and rows has nothing to add up.
  if (k === 1 && !transB) return e.node("Mul", [nameA as string, nameB as string]);
  const few = typeof m === "number" && m > 1 && m < MANY_ROWS;
  // A single column is no matrix, and one matrix for all rows is copied once for all.
  if (!e.kernels.rowByMatrix || !few || n === 1 || right.length === 2) return undefined;
  const rows = e.reshape(nameA as string, left, [...left.slice(0, -2), m, 1, k]);
  const matrices = e.reshape(nameB as string, right, [...right.slice(0, -2), 1, ...right.slice(-2)]);
  const apart = [...output.shape.slice(0, -2), m, 1, n];
  return e.reshape(product(e, [rows, matrices], [left.length + 1, right.length + 1], { transB }), apart, output.shape);
}

/** The last two axes exchanged. */
function turned(e: Emitter, name: string, length: number): string {
  const axes = Array.from({ length }, (_, i) => i);
  return e.node("Transpose", [name], { perm: [...axes.slice(0, -2), length - 1, length - 2] });
}

/** Rows and columns of a matrix as it is used. */
function lastTwo({ shape }: TensorType, transposed: boolean): [rows: Dim, columns: Dim] {
  const [rows, columns] = shape.slice(-2) as [Dim, Dim];
  return transposed ? [columns, rows] : [rows, columns];
}

/** Y […, M, N] = A·B, leading axes broadcast: A […, M, K] ([…, K, M] with transA), B […, K, N] ([…, N, K] with transB) */
export const matMul: ((a: Tensor, b: Tensor, attributes?: MatMulAttributes) => Tensor) & Pick<typeof batched, "spec"> =
  Object.assign((a: Tensor, b: Tensor, attributes: MatMulAttributes = {}) => batched(a, b, attributes), {
    spec: batched.spec,
  });
