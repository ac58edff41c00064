/** Rows of a matrix by index: read (gather), write (scatter), and accumulate. The host gives flat, real row numbers. */

import { type Dim, plus } from "../graph/dim.js";
import { substitute } from "../graph/frontier.js";
import { type Emitter, isOf, type Op, op, typeError } from "../graph/op.js";
import { constant, dependents, Tensor, type TensorType, topological } from "../graph/tensor.js";
import { concat, expand, slice, zeros } from "./shape.js";

export interface GatherAttributes {
  /** True when no index occurs twice: then the derivative needs no atomic addition. */
  readonly unique?: boolean;
}

/** y[i, …] = x[indices[i], …]: x [N, …], indices int [any shape] */
export const gather: Op<[x: Tensor, indices: Tensor], GatherAttributes> = op<[Tensor, Tensor], GatherAttributes>(
  "Gather",
  {
    type: (inputs) => {
      const [x, indices] = inputs as [TensorType, TensorType];
      if (indices.dtype !== "int64" && indices.dtype !== "int32")
        typeError("Gather", inputs, "indices must be integers");
      return { dtype: x.dtype, shape: [...indices.shape, ...x.shape.slice(1)] };
    },
    vjp: ({ inputs, g, attributes }) => {
      const [x, indices] = inputs as [Tensor, Tensor];
      return [() => scatterAdd(indices, g, { rows: x.dim(0), unique: attributes.unique ?? false }), null];
    },
    readsStored: true,
    selects: true,
    lower: (e, [x, indices], { inputs: [input] }) => {
      // A table stored in 16 bits is read in 16 bits; only the rows taken are widened.
      const rows = e.node("Gather", [x as string, indices as string]);
      const stored = e.stored(input as Tensor) ?? "float32";
      return stored === "float32" ? rows : e.node("Cast", [rows], { to: 1 });
    },
  },
);

/**
 * y[rows], y [N, …] and rows int64 [M] all different. What y alone is made of row by row is computed at these rows only: at the
 * end of a decoder the last MLP, the norms about it and the projection before it, but not attention, which mixes rows, nor
 * what attention needs in full. What no trainable tensor reaches stays in full where something else is reached: it can be kept,
 * and serve other rows.
 *
 * @param order int64 [M], 1 to M: given that, rows that are replaced on the way are replaced among those taken
 */
export function takeRows(y: Tensor, rows: Tensor, order?: Tensor): Tensor {
  const trained = dependents(topological([y]), ({ source }) => source.kind === "input" && source.trainable);
  // Rows replaced in what is frozen stay where they are, since it can be kept.
  const replaced = (t: Tensor): boolean => order !== undefined && replaces(t) && trained.has(t.inputs[0] as Tensor);
  const goesOn = (t: Tensor): boolean => trained.size === 0 || trained.has(t);
  const read = (t: Tensor): readonly Tensor[] => (!goesOn(t) ? [] : replaced(t) ? t.inputs.slice(0, 1) : rowsRead(t));
  const whole = neededWhole(y, read);
  const taken = new Map<Tensor, Tensor>();
  const make = (t: Tensor): Tensor => {
    if (whole.has(t)) return gather(t, rows, { unique: true });
    const byRows = read(t);
    if (replaced(t)) return replacedAmong(t, take(byRows[0] as Tensor), { rows, order: order as Tensor });
    return rebuilt(t, (x) => (byRows.includes(x) ? take(x) : x));
  };
  const take = (t: Tensor): Tensor => {
    const made = taken.get(t) ?? make(t);
    taken.set(t, made);
    return made;
  };
  return take(y);
}

/** What is needed at all rows by something that y is made of; of leaves and ops that mix rows, themselves. */
function neededWhole(y: Tensor, read: (t: Tensor) => readonly Tensor[]): Set<Tensor> {
  const reached = new Set<Tensor>([y]);
  // A set may grow while it is walked.
  for (const t of reached) for (const x of read(t)) reached.add(x);
  return new Set(topological([...reached].filter((t) => read(t).length === 0)));
}

const replaces = (t: Tensor): boolean => isOf(t, scatterRows);

/**
 * y[rows] of y = x with the rows `indices` replaced, from `taken` = x[rows]. Rows go by their place among those taken, from 1; what is
 * not taken has the place 0, a row that is put before them and cut off again, whatever is made of it.
 */
function replacedAmong(
  { inputs }: Tensor,
  taken: Tensor,
  { rows, order }: { readonly rows: Tensor; readonly order: Tensor },
): Tensor {
  const [x, indices, updates] = inputs as [Tensor, Tensor, Tensor];
  const nowhere = expand(constant(new BigInt64Array(1), [1]), { shape: [x.dim(0)] });
  const places = gather(scatterRows(nowhere, rows, order), indices, { unique: true });
  const among = concat(zeros([1, ...taken.shape.slice(1)]), taken, { axis: 0 });
  const before = topological([updates]).filter((t) => isOf(t, gather) && t.inputs[0] === x && t.inputs[1] === indices);
  const [own] = substitute([updates], new Map(before.map((t) => [t, gather(among, places, {})])));
  return slice(scatterRows(among, places, own as Tensor), { axis: 0, start: 1, end: plus(1, taken.dim(0)) });
}

/** The inputs of which row i makes row i of `t`; none where it takes more than that. */
function rowsRead(t: Tensor): readonly Tensor[] {
  if (t.source.kind !== "op") return [];
  const { op, inputs, attributes } = t.source;
  const read = op.rowwise?.(attributes);
  if (read === undefined) return [];
  if (read === "first") return inputs.slice(0, 1);
  return inputs.filter((x) => x.shape.length === t.shape.length && x.shape[0] === t.shape[0]);
}

/** The same op on other inputs. */
function rebuilt({ source }: Tensor, change: (x: Tensor) => Tensor): Tensor {
  if (source.kind !== "op") throw new Error("internal: a leaf is made of nothing");
  const inputs = source.inputs.map(change);
  const type = source.op.type(
    inputs.map((x) => x.type),
    source.attributes,
  );
  return new Tensor(type, { ...source, inputs });
}

/** y = x with the rows `indices` replaced: x [N, D], indices int64 [M] all different, updates [M, D] */
export const scatterRows: Op<[x: Tensor, indices: Tensor, updates: Tensor]> = op<[Tensor, Tensor, Tensor]>(
  "ScatterRows",
  {
    type: (inputs) => {
      const [x, indices, updates] = inputs as [TensorType, TensorType, TensorType];
      if (indices.dtype !== "int64" || indices.shape.length !== 1)
        typeError("ScatterRows", inputs, "indices must be int64 [M]");
      if (updates.shape[0] !== indices.shape[0] || updates.shape.slice(1).some((d, i) => d !== x.shape[i + 1]))
        typeError("ScatterRows", inputs, "updates must be [M, …] like x's rows");
      return x;
    },
    vjp: ({ inputs, g }) => {
      const [, indices, updates] = inputs as [Tensor, Tensor, Tensor];
      return [() => scatterRows(g, indices, zeros(updates.shape)), null, () => gather(g, indices, { unique: true })];
    },
    lower: (e, [x, indices, updates]) => e.node("ScatterND", [x, column(e, indices), updates] as string[]),
  },
);

export interface ScatterAddAttributes {
  readonly rows: Dim;
  readonly unique: boolean;
}

/** y [rows, …] = 0, then y[indices[i]] += updates[i] */
export const scatterAdd: Op<[indices: Tensor, updates: Tensor], ScatterAddAttributes> = op<
  [Tensor, Tensor],
  ScatterAddAttributes
>("ScatterAdd", {
  type: (inputs, { rows }) => {
    const [indices, updates] = inputs as [TensorType, TensorType];
    if (indices.dtype !== "int64") typeError("ScatterAdd", inputs, "indices must be int64");
    if (indices.shape.some((d, i) => d !== updates.shape[i]))
      typeError("ScatterAdd", inputs, "updates must be one row for each index");
    return { dtype: updates.dtype, shape: [rows, ...updates.shape.slice(indices.shape.length)] };
  },
  vjp: ({ inputs, g, attributes }) => [null, () => gather(g, inputs[0] as Tensor, { unique: attributes.unique })],
  lower: (e, [indices, updates], { attributes, inputs: [index], output }) => {
    const zero = e.node("Expand", [e.float(0), e.sizes(output.shape)]);
    const rank = (index as Tensor).shape.length;
    const flat = rank === 1 ? (updates as string) : flattenUpdates(e, updates as string, output.shape);
    const reduction = attributes.unique ? "none" : "add";
    return e.node("ScatterND", [zero, column(e, indices as string), flat], { reduction });
  },
});

function column(e: Emitter, indices: string | undefined): string {
  return e.node("Reshape", [indices as string, e.int64s([-1, 1])]);
}

function flattenUpdates(e: Emitter, updates: string, output: readonly Dim[]): string {
  const width = output.slice(1).map((d) => {
    if (typeof d === "string") throw new Error(`internal: ScatterAdd wants rows of known size, not ${d}`);
    return d;
  });
  return e.node("Reshape", [updates, e.int64s([-1, ...width])]);
}
