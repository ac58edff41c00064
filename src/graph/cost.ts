/** What a graph costs, counted instead of timed: operations of its matrix products, bytes of weights read and of values written. */

import { type Dim, isSum, splitProduct, splitSum } from "./dim.js";
import { type DType, type Tensor, type TensorType, topological } from "./tensor.js";

/** Sizes by symbol: { B: 8, T: 128, M0: 8 }. */
export type Sizes = Readonly<Record<string, number>>;

export interface Cost {
  /** Ops in the graph. */
  readonly ops: number;
  /** Floating point operations of matrix products, two a multiply-add; elementwise work is not counted. */
  readonly flops: number;
  /** Bytes of weights as they are stored, once for each op that reads them; of a table only the rows taken. */
  readonly weightBytes: number;
  /** Bytes of all values that ops compute; the same bytes seen in another shape are not written again. */
  readonly writtenBytes: number;
}

const elementBytes: Readonly<Record<DType, number>> = {
  float32: 4,
  int32: 4,
  int64: 8,
  bool: 1,
  uint8: 1,
  uint4: 0.5,
};

/** What a dim is at these sizes. */
export function sizeAt(dim: Dim, sizes: Sizes): number {
  if (typeof dim === "number") return dim;
  const sum = isSum(dim);
  const parts = sum ? splitSum(dim) : splitProduct(dim);
  if (parts.length > 1) return parts.map((p) => sizeAt(p, sizes)).reduce((a, b) => (sum ? a + b : a * b));
  const size = sizes[dim];
  if (size === undefined) throw new Error(`internal: the size ${dim} is not given`);
  return size;
}

/** Bytes of a value at these sizes. */
export function bytesAt(type: TensorType, sizes: Sizes): number {
  return type.shape.reduce<number>((n, d) => n * sizeAt(d, sizes), elementBytes[type.dtype]);
}

/** The cost of computing `outputs` once. */
export function costOf(outputs: readonly Tensor[], sizes: Sizes): Cost {
  const cost = { ops: 0, flops: 0, weightBytes: 0, writtenBytes: 0 };
  for (const t of topological(outputs)) {
    if (t.source.kind !== "op") continue;
    const { op, inputs, attributes } = t.source;
    const types = inputs.map((x) => x.type);
    const product = op.flops?.(types, t.type, attributes);
    const written = bytesAt(t.type, sizes);
    cost.ops++;
    if (product !== undefined) cost.flops += product.reduce<number>((n, d) => n * sizeAt(d, sizes), 1);
    if (op.view === true) continue;
    cost.writtenBytes += written;
    for (const x of inputs) cost.weightBytes += weightBytes(x, product === undefined ? written : Infinity);
  }
  return cost;
}

/** A matrix product reads a weight whole; any other op reads no more elements than it writes (a gather, the scale of a norm). */
function weightBytes({ source, type }: Tensor, written: number): number {
  if (source.kind !== "weight") return 0;
  const elements = type.shape.reduce<number>((n, d) => n * Number(d), 1);
  return Math.min(source.bytes.length, (written / elementBytes.float32) * (source.bytes.length / elements));
}

/** Bytes of the weights that matrix products read, once for each product. */
export function productWeightBytes(outputs: readonly Tensor[]): number {
  const products = topological(outputs).filter(({ source }) => source.kind === "op" && source.op.flops !== undefined);
  return products.flatMap(({ inputs }) => inputs).reduce((sum, x) => sum + weightBytes(x, Infinity), 0);
}
