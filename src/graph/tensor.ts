/** The language: immutable tensors, each a leaf or one op applied to others. A graph is found by walking back. */

import type { Dim } from "./dim.js";
import type { OpSpec } from "./op.js";

/**
 * Element types of values in a graph. Weights may be *stored* otherwise; in the graph they are float32, but for the codes of
 * block-wise quantised ones (uint8, and uint4 for two of them in a byte).
 */
export type DType = "float32" | "int64" | "int32" | "bool" | "uint8" | "uint4";

export interface TensorType {
  readonly dtype: DType;
  readonly shape: readonly Dim[];
}

/** Bytes of a weight inside a file that the runtime maps; nothing is copied into the graph. */
export interface WeightBytes {
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  /** How the file stores it; the graph sees float32, or codes as they are. */
  readonly stored: "float32" | "float16" | "bfloat16" | "uint8" | "uint4";
}

/** Where a tensor comes from. */
export type Source =
  | { readonly kind: "input"; readonly name: string; readonly trainable: boolean }
  | { readonly kind: "constant"; readonly data: Float32Array | BigInt64Array | Int32Array }
  | { readonly kind: "weight"; readonly name: string; readonly bytes: WeightBytes }
  | {
      readonly kind: "op";
      readonly op: OpSpec<unknown>;
      readonly inputs: readonly Tensor[];
      readonly attributes: unknown;
    };

export class Tensor {
  readonly type: TensorType;
  readonly source: Source;

  constructor(type: TensorType, source: Source) {
    this.type = type;
    this.source = source;
  }

  get shape(): readonly Dim[] {
    return this.type.shape;
  }

  /** The size of axis `axis` (negative counts from the end). */
  dim(axis: number): Dim {
    const d = this.type.shape.at(axis);
    if (d === undefined) throw new Error(`internal: ${describe(this.type)} has no axis ${axis}`);
    return d;
  }

  get inputs(): readonly Tensor[] {
    return this.source.kind === "op" ? this.source.inputs : [];
  }
}

/** A value fed at run time; `trainable` marks the tensors that gradients are wanted for. */
export function input(name: string, dtype: DType, shape: readonly Dim[], options?: { trainable?: boolean }): Tensor {
  return new Tensor({ dtype, shape }, { kind: "input", name, trainable: options?.trainable ?? false });
}

/** A small value stored in the graph itself. */
export function constant(data: Float32Array | BigInt64Array | Int32Array, shape: readonly number[]): Tensor {
  const dtype = data instanceof Float32Array ? "float32" : data instanceof BigInt64Array ? "int64" : "int32";
  const size = shape.reduce((a, b) => a * b, 1);
  if (size !== data.length) throw new Error(`internal: constant of ${data.length} values given the shape [${shape}]`);
  return new Tensor({ dtype, shape }, { kind: "constant", data });
}

/** A float32 scalar. */
export function scalar(value: number): Tensor {
  return constant(Float32Array.of(value), []);
}

/** A frozen weight, float32 [shape] in the graph whatever the file stores; codes stay codes. */
export function weight(name: string, shape: readonly number[], bytes: WeightBytes): Tensor {
  const { stored } = bytes;
  const dtype = stored === "uint8" || stored === "uint4" ? stored : "float32";
  return new Tensor({ dtype, shape }, { kind: "weight", name, bytes });
}

/** Rows start … end − 1 of a weight: a weight in the same file. */
export function weightRows({ shape, source }: Tensor, start: number, end: number): Tensor {
  if (source.kind !== "weight") throw new Error("internal: rows of what is no weight");
  const { name, bytes } = source;
  const [rows, ...width] = shape as number[] as [number, ...number[]];
  const row = bytes.length / rows;
  const part = { ...bytes, offset: bytes.offset + start * row, length: (end - start) * row };
  return weight(`${name}[${start}:${end}]`, [end - start, ...width], part);
}

/** "float32[B, T, 64]", for messages. */
export function describe(type: TensorType): string {
  return `${type.dtype}[${type.shape.join(", ")}]`;
}

/**
 * Every tensor that `outputs` need, each once, inputs before users; what lies behind a tensor of `leaves` is left out.
 * Iterative: graphs are thousands of nodes deep.
 */
export function topological(outputs: readonly Tensor[], leaves: ReadonlySet<Tensor> = new Set()): Tensor[] {
  const order: Tensor[] = [];
  const seen = new Set<Tensor>();
  const stack: { tensor: Tensor; next: number }[] = [];
  for (const output of outputs) {
    if (seen.has(output)) continue;
    seen.add(output);
    stack.push({ tensor: output, next: 0 });
    while (stack.length > 0) {
      const top = stack[stack.length - 1] as { tensor: Tensor; next: number };
      const child = leaves.has(top.tensor) ? undefined : top.tensor.inputs[top.next++];
      if (child === undefined) {
        order.push(top.tensor);
        stack.pop();
      } else if (!seen.has(child)) {
        seen.add(child);
        stack.push({ tensor: child, next: 0 });
      }
    }
  }
  return order;
}

/** The tensors among `order` (inputs before users) whose value depends on one for which `isRoot` holds. */
export function dependents(order: readonly Tensor[], isRoot: (t: Tensor) => boolean): Set<Tensor> {
  const found = new Set<Tensor>();
  for (const t of order) if (isRoot(t) || t.inputs.some((i) => found.has(i))) found.add(t);
  return found;
}
