/** What an op is: its type rule, its derivative and its ONNX form, declared in one place. */

import type { Dim } from "./dim.js";
import { describe, type Source, Tensor, type TensorType } from "./tensor.js";

/** Kernels that only some devices have. */
export interface Kernels {
  /** Batched products that read a matrix transposed; without, it is transposed first. */
  readonly transposedMatMul: boolean;
  /** Products of one row and a matrix that read the matrix as it lies, faster than those of a few rows. */
  readonly rowByMatrix: boolean;
  /** Weights as they are stored in 16 bits, widened at each use; without, they are widened once, as the graph is opened. */
  readonly halves: boolean;
  /** Sine and cosine to float32's precision at every angle. */
  readonly trigonometry: boolean;
  /** Weights stay in their files: some rows of one are a weight like any other. Without, they are cut from the whole where it is there. */
  readonly mapped: boolean;
}

/** What an op's lowering may say: ONNX nodes and small integer tensors. Given by onnx/, so that ops/ does not import it. */
export interface Emitter {
  readonly kernels: Kernels;
  /** Adds a node with one output and returns the output's name. */
  node(type: string, inputs: readonly string[], attributes?: OnnxAttributes, domain?: string): string;
  /** A constant int64 vector. */
  int64s(values: readonly number[]): string;
  /** An int64 vector of sizes, read at run time from the graph's inputs where symbolic. */
  sizes(shape: readonly Dim[]): string;
  /** x [from] as [to]: no node where they are alike, one for a chain of them, and one for all who ask for the same. */
  reshape(x: string, from: readonly Dim[], to: readonly Dim[]): string;
  /** The element type a weight is stored in; undefined when `tensor` is no weight. */
  stored(tensor: Tensor): string | undefined;
  /** A float32 scalar constant. */
  float(value: number): string;
  /** A single code: the zero point of a quantised weight. */
  code(dtype: "uint8" | "uint4", value: number): string;
  /**
   * A weight in full, made by `make` where it is not the one that was made last: a head serves loss and derivative one after
   * the other, and no more than one lives at a time.
   */
  latest(weight: string, make: () => string): string;
}

export type OnnxAttributes = Readonly<Record<string, number | readonly number[] | string | { readonly float: number }>>;

/** What a derivative rule sees. */
export interface Vjp<A> {
  readonly inputs: readonly Tensor[];
  readonly output: Tensor;
  /** The gradient of the loss by `output`. */
  readonly g: Tensor;
  readonly attributes: A;
}

export interface OpSpec<A> {
  readonly name: string;
  /** The output's type; throws on inputs that do not fit. */
  readonly type: (inputs: readonly TensorType[], attributes: A) => TensorType;
  /** One thunk per input, null where there is no gradient. Absent: the op is not differentiable (integers, booleans). */
  readonly vjp?: (context: Vjp<A>) => readonly ((() => Tensor) | null)[];
  /** How it is written in ONNX; absent: one node called `name` with no attributes. */
  readonly lower?: (
    emitter: Emitter,
    inputs: readonly string[],
    context: { readonly attributes: A; readonly inputs: readonly Tensor[]; readonly output: Tensor },
  ) => string;
  /** True when `lower` takes 16-bit weights as they are stored, rather than widened to float32. */
  readonly readsStored?: boolean;
  /**
   * Where row i of the output depends on row i of some inputs alone, and on the others as a whole: which are read by rows, all
   * that have the output's axes or only the first. Absent: none.
   */
  readonly rowwise?: (attributes: A) => "aligned" | "first" | undefined;
  /** True when it picks rows of its first input by its second: rather done again than kept. */
  readonly selects?: boolean;
  /** True when it writes nothing: the same bytes in another shape. */
  readonly view?: boolean;
  /** Multiply-adds ×2, for op counts; absent: elementwise, not counted. */
  readonly flops?: (inputs: readonly TensorType[], output: TensorType, attributes: A) => readonly Dim[];
}

type Call<I extends readonly Tensor[], A> = (...args: [A] extends [undefined] ? I : [...I, A]) => Tensor;

/** A function that applies the op; attributes, where it has any, come last. */
export type Op<I extends readonly Tensor[], A = undefined> = Call<I, A> & { readonly spec: OpSpec<A> };

/** Declares an op: `op("Tanh", { type, vjp })`. */
export function op<I extends readonly Tensor[], A = undefined>(name: string, rules: Omit<OpSpec<A>, "name">): Op<I, A> {
  const spec: OpSpec<A> = { name, ...rules };
  const apply = (...args: readonly unknown[]): Tensor => {
    const inputs = args.filter((a): a is Tensor => a instanceof Tensor);
    const attributes = (inputs.length < args.length ? args[args.length - 1] : undefined) as A;
    const type = spec.type(
      inputs.map((i) => i.type),
      attributes,
    );
    // The one place where attribute types are erased: a tensor holds ops of every kind, and hands each its own attributes back.
    return new Tensor(type, { kind: "op", op: spec as OpSpec<unknown>, inputs, attributes });
  };
  return Object.assign(apply as Call<I, A>, { spec });
}

/** A tensor that an op made. */
export type Made = Tensor & { readonly source: Extract<Source, { readonly kind: "op" }> };

/** Whether this op made it. */
export function isOf(t: Tensor, { spec }: { readonly spec: { readonly name: string } }): t is Made {
  return t.source.kind === "op" && t.source.op === spec;
}

/** Fails where an op is written, with the shapes. */
export function typeError(name: string, inputs: readonly TensorType[], why: string): never {
  throw new Error(`internal: ${name}(${inputs.map(describe).join(", ")}): ${why}`);
}
