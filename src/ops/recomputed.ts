/** Values computed again for the derivative rather than kept: less memory for a little more work. */

import { reverse } from "../graph/gradient.js";
import { isOf, type Op, op } from "../graph/op.js";
import { dependents, type Tensor, type TensorType, topological } from "../graph/tensor.js";
import { gradientRules } from "./gradient-rules.js";
import { concat, slice } from "./shape.js";

/**
 * y = x, but not before `event` has been computed: a runtime that orders nodes as it likes must not do again early what was
 * to be done again late. Written as a Reshape whose sizes wait for the event's.
 */
export const after: Op<[x: Tensor, event: Tensor]> = op<[Tensor, Tensor]>("After", {
  type: ([x]) => x as TensorType,
  vjp: ({ g }) => [() => g, null],
  view: true,
  lower: (e, [x, event], { inputs: [input] }) => {
    const zero = e.node("Mul", [e.node("Shape", [event as string], { start: 0, end: 1 }), e.int64s([0])]);
    return e.node("Reshape", [x as string, e.node("Add", [e.sizes((input as Tensor).shape), zero])]);
  },
});

type Function = (...inputs: readonly Tensor[]) => Tensor;

interface Recomputation {
  readonly f: Function;
  /** How many of the node's inputs are f's own; then come the trainable tensors that f uses, then f's value. */
  readonly count: number;
  /** Which of the node's inputs depend on a trainable tensor. */
  readonly trained: readonly boolean[];
  /** f is applied to each part of its inputs along axis 1, one after another; absent: to the whole. */
  readonly parts?: number;
  /** Row i of f's value depends on row i of its inputs alone. */
  readonly byRows?: boolean;
}

const recomputation: Op<Tensor[], Recomputation> = op<Tensor[], Recomputation>("Recomputed", {
  type: (inputs) => inputs.at(-1) as TensorType,
  vjp: ({ inputs, g, attributes }) => {
    const own = inputs.slice(0, attributes.count);
    const inside = inputs.slice(attributes.count, -1);
    const slopes =
      attributes.parts === undefined ? slopesOf(own, inside, g, attributes) : partSlopes(own, inside, g, attributes);
    return [...slopes.map((slope) => () => slope), null];
  },
  rowwise: ({ byRows = false }) => (byRows ? "aligned" : undefined),
  view: true,
  lower: (_e, inputs) => inputs.at(-1) as string,
});

/** The gradients by f's inputs, and by the trainable tensors inside it. */
function slopesOf(own: readonly Tensor[], inside: readonly Tensor[], g: Tensor, { f }: Recomputation): Tensor[] {
  const again = own.map((x) => after(x, g));
  return reverse(f(...again), [...again, ...inside], { seed: g, ...gradientRules }, new Set(again));
}

/** The same part by part: a part is computed again when the gradients of the part before it are done. */
function partSlopes(
  own: readonly Tensor[],
  inside: readonly Tensor[],
  g: Tensor,
  { f, trained, parts = 1 }: Recomputation,
): Tensor[] {
  const sums: (Tensor | undefined)[][] = own.map((x) => Array.from({ length: Math.min(slicesOf(x), parts) }));
  const shared: (Tensor | undefined)[] = inside.map(() => undefined);
  let events = [g];
  for (let part = 0; part < parts; part++) {
    const again = own.map((x) => events.reduce((y, event) => after(y, event), partOf(x, part, parts)));
    const seed = partOf(g, part, parts);
    const slopes = reverse(f(...again), [...again, ...inside], { seed, ...gradientRules }, new Set(again));
    slopes.forEach((slope, i) => {
      const list = i < own.length ? (sums[i] as (Tensor | undefined)[]) : shared;
      const at = i < own.length ? Math.floor((part * list.length) / parts) : i - own.length;
      const before = list[at];
      list[at] = before === undefined ? slope : gradientRules.add(before, slope);
    });
    events = slopes.filter((_, i) => trained[i] === true);
  }
  return [...sums.map((list) => concat(...(list as Tensor[]), { axis: 1 })), ...(shared as Tensor[])];
}

function slicesOf(x: Tensor): number {
  return Number(x.dim(1));
}

/** A part's share of axis 1, which keeps the axis: some slices, or one that neighbouring parts share where there are fewer. */
function partOf(x: Tensor, part: number, parts: number): Tensor {
  const slices = slicesOf(x);
  if (slices % parts !== 0 && parts % slices !== 0)
    throw new Error(`internal: ${slices} slices do not go into ${parts} parts`);
  const size = Math.max(slices / parts, 1);
  const start = Math.floor((part * slices) / parts);
  return size === slices ? x : slice(x, { axis: 1, start, end: start + size });
}

/** For each value below that is computed again for the derivative, the value itself: graphs that have no derivative need no more. */
export function plainValues(outputs: readonly Tensor[]): Map<Tensor, Tensor> {
  const again = topological(outputs).filter((t) => isOf(t, recomputation));
  return new Map(again.map((t) => [t, t.inputs.at(-1) as Tensor]));
}

const trainable = (t: Tensor): boolean => t.source.kind === "input" && t.source.trainable;

type How = Pick<Recomputation, "parts" | "byRows">;

function wrapped(f: Function, y: Tensor, inputs: readonly Tensor[], how: How = {}): Tensor {
  const trained = dependents(topological(inputs), trainable);
  if (!inputs.some((x) => trained.has(x))) return y;
  const own = new Set(inputs);
  const inside = topological([y], own).filter((t) => trainable(t) && !own.has(t));
  const which = [...inputs.map((x) => trained.has(x)), ...inside.map(() => true)];
  return recomputation(...inputs, ...inside, y, { f, count: inputs.length, trained: which, ...how });
}

/**
 * f(inputs), of which only the inputs are kept for the derivative: there f is computed again (gradient checkpointing,
 * arXiv 1604.06174). Gradients reach `inputs` and the trainable tensors inside f; whatever else f uses must be frozen.
 * Where no input depends on a trainable tensor, no derivative goes through f as a whole, and it is computed plainly.
 */
export function recomputed(f: Function, ...inputs: readonly Tensor[]): Tensor {
  return wrapped(f, f(...inputs), inputs);
}

/** The same for an f of rows, each by itself: where some rows are taken, it is applied to those alone. */
export function recomputedByRows(f: Function, ...inputs: readonly Tensor[]): Tensor {
  return wrapped(f, f(...inputs), inputs, { byRows: true });
}

/**
 * The same for an f that works on each slice of axis 1 by itself, such as attention on its heads: part by part, in the
 * derivative too, so that what f makes on the way exists for one part at a time. Inputs [B, n, …] with n a multiple of `parts`
 * or a divisor (key heads serve several query heads); f maps parts [B, m, …] of them to [B, m, …].
 */
export function recomputedInParts(f: Function, parts: number, ...inputs: readonly Tensor[]): Tensor {
  const values = Array.from({ length: parts }, (_, part) => f(...inputs.map((x) => partOf(x, part, parts))));
  return wrapped(f, concat(...values, { axis: 1 }), inputs, { parts });
}
