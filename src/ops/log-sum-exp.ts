/** ln Σ eˣ over the last axis: of values, and of the products of rows with a large matrix, part by part. */

import { type Op, op } from "../graph/op.js";
import { type Tensor, type TensorType, weightRows } from "../graph/tensor.js";
import { add, exp, mul, sub } from "./elementwise.js";
import { gemm } from "./linear.js";
import { softmax } from "./normalization.js";
import { concat } from "./shape.js";

const logSumExpBy: Op<[x: Tensor, p: Tensor]> = op<[Tensor, Tensor]>("LogSumExp", {
  type: ([x]) => ({ dtype: (x as TensorType).dtype, shape: [...(x as TensorType).shape.slice(0, -1), 1] }),
  // p is x in other words: what it takes part in is all in dx.
  vjp: ({ inputs: [, p], g }) => [() => mul(g, p as Tensor), null],
  lower: (e, [x, p], { inputs: [input] }) => {
    const axis = e.int64s([(input as Tensor).shape.length - 1]);
    const largest = (values: string): string => e.node("ReduceMax", [values, axis], { keepdims: 1 });
    return e.node("Sub", [largest(x as string), e.node("Log", [largest(p as string)])]);
  },
});

/**
 * y = ln Σ eˣ over the last axis,  dx = g·p with p = softmax(x). The largest of p is e^(max x − y), so y = max x − ln max p, which
 * overflows nowhere. p is one pass over x, and serves the derivative.
 */
export const logSumExp: Op<[x: Tensor]> = Object.assign((x: Tensor) => logSumExpBy(x, softmax(x)), {
  spec: logSumExpBy.spec,
});

/**
 * Rows of a matrix that are multiplied at a time. In float32 as many products are an odd number of cache lines: rows of 4,096 bytes
 * and their multiples, as many a vocabulary makes, fall on one another in a processor's caches, and a product that reads
 * them takes an eighth longer.
 */
const PART = 8192 + 16;

/** Some rows E [V, D] of the matrix. */
interface Part {
  readonly e: Tensor;
  /** softmax(h·Eᵀ) [N, V] */
  readonly p: Tensor;
  /** ln Σ e^(h·Eᵀ) [N, 1] over these rows. */
  readonly y: Tensor;
  /** The same over these and all rows before them. */
  readonly upTo: Tensor;
}

/** Inputs: h, then e, p, y and upTo of each part. */
const ofProduct: Op<Tensor[]> = op<Tensor[]>("LogSumExpOfProduct", {
  type: (inputs) => inputs.at(-1) as TensorType,
  vjp: ({ inputs: [h, ...rest], output, g }) => {
    const parts = partsOf(rest);
    const byRows = ({ p, y }: Part): Tensor => gemm(p, mul(h as Tensor, mul(g, exp(sub(y, output)))), { transA: true });
    return [() => mul(expectation(parts), g), ...parts.flatMap((part) => [() => byRows(part), null, null, null])];
  },
  view: true,
  lower: (_e, inputs) => inputs.at(-1) as string,
});

function partsOf(inputs: readonly Tensor[]): Part[] {
  return Array.from({ length: inputs.length / 4 }, (_, i) => {
    const [e, p, y, upTo] = inputs.slice(4 * i) as [Tensor, Tensor, Tensor, Tensor];
    return { e, p, y, upTo };
  });
}

/**
 * Σ p·E [N, D] over the rows of all parts, those of one part weighted by e^(its y − y of all). Joined part by part, so that a walk
 * from the end has done with one part's logits before it comes to the next part's.
 */
function expectation(parts: readonly Part[]): Tensor {
  const [first, ...others] = parts as [Part, ...Part[]];
  const weighted = (x: Tensor, y: Tensor, upTo: Tensor): Tensor => mul(x, exp(sub(y, upTo)));
  let [sum, before] = [gemm(first.p, first.e, {}), first.upTo];
  for (const { e, p, y, upTo } of others) {
    sum = add(weighted(sum, before, upTo), weighted(gemm(p, e, {}), y, upTo));
    before = upTo;
  }
  return sum;
}

/** A weight's rows in parts, as they lie in its file; what is computed stays whole. */
function rowParts(matrix: Tensor): Tensor[] {
  const rows = Number(matrix.dim(0));
  if (matrix.source.kind !== "weight" || rows <= PART) return [matrix];
  const starts = Array.from({ length: Math.ceil(rows / PART) }, (_, i) => i * PART);
  return starts.map((start) => weightRows(matrix, start, Math.min(start + PART, rows)));
}

/**
 * y [N, 1] = ln Σⱼ e^(hᵢ·Eⱼ) for rows h [N, D] and E [V, D],  dh = g·Σⱼ pⱼEⱼ with p = softmax(h·Eᵀ). A large weight goes part by part,
 * and the parts' sums are joined as in arXiv 1805.02867: no [N, V] is kept, and g scales [N, D] rather than [N, V].
 */
export const logSumExpOfProduct: Op<[h: Tensor, e: Tensor]> = Object.assign(
  (h: Tensor, matrix: Tensor) => {
    const inputs: Tensor[] = [h];
    let upTo: Tensor | undefined;
    for (const e of rowParts(matrix)) {
      const x = gemm(h, e, { transB: true });
      const p = softmax(x);
      const y = logSumExpBy(x, p);
      upTo = upTo === undefined ? y : logSumExp(concat(upTo, y, { axis: 1 }));
      inputs.push(e, p, y, upTo);
    }
    return ofProduct(...inputs);
  },
  { spec: ofProduct.spec },
);
