/** Ops that move values without changing them: reshape, transpose, expand, concat, slice. */

import { type Dim, minus, plus, times } from "../graph/dim.js";
import { type Op, op, typeError } from "../graph/op.js";
import { scalar, type Tensor, type TensorType } from "../graph/tensor.js";
import { unbroadcast } from "./broadcast.js";

export interface ShapeAttribute {
  readonly shape: readonly Dim[];
}

/** The same elements in another shape of equal size. */
export const reshape: Op<[x: Tensor], ShapeAttribute> = op<[Tensor], ShapeAttribute>("Reshape", {
  type: (inputs, { shape }) => {
    const x = inputs[0] as TensorType;
    if (times(...x.shape) !== times(...shape)) typeError("Reshape", inputs, `cannot become [${shape.join(", ")}]`);
    return { dtype: x.dtype, shape };
  },
  vjp: ({ inputs: [x], g }) => [() => reshape(g, { shape: (x as Tensor).shape })],
  view: true,
  lower: (e, [x], { inputs: [input], output }) => e.reshape(x as string, (input as Tensor).shape, output.shape),
});

/** y = x repeated along axes of size 1 (and new leading axes) up to `shape` */
export const expand: Op<[x: Tensor], ShapeAttribute> = op<[Tensor], ShapeAttribute>("Expand", {
  type: (inputs, { shape }) => {
    const x = inputs[0] as TensorType;
    const lead = shape.length - x.shape.length;
    if (lead < 0 || x.shape.some((d, i) => d !== 1 && d !== shape[lead + i]))
      typeError("Expand", inputs, `cannot become [${shape.join(", ")}]`);
    return { dtype: x.dtype, shape };
  },
  vjp: ({ inputs: [x], g }) => [() => unbroadcast(g, x as Tensor)],
  lower: (e, [x], { output }) => e.node("Expand", [x as string, e.sizes(output.shape)]),
});

/** Zeros, float32 [shape]. */
export function zeros(shape: readonly Dim[]): Tensor {
  return expand(scalar(0), { shape });
}

/** y[i₀, i₁, …] with axes in the order `axes`: the new axis n is the old axis axes[n] */
export const transpose: Op<[x: Tensor], { readonly axes: readonly number[] }> = op<
  [Tensor],
  { readonly axes: readonly number[] }
>("Transpose", {
  type: (inputs, { axes }) => {
    const x = inputs[0] as TensorType;
    if (axes.length !== x.shape.length || axes.some((_, i) => !axes.includes(i)))
      typeError("Transpose", inputs, `the axes ${axes} are no permutation`);
    return { dtype: x.dtype, shape: axes.map((a) => x.shape[a] as Dim) };
  },
  vjp: ({ g, attributes: { axes } }) => [() => transpose(g, { axes: axes.map((_, i) => axes.indexOf(i)) })],
  lower: (e, [x], { inputs: [input], output, attributes: { axes } }) => {
    const { shape } = input as Tensor;
    // Where only axes of size 1 change places, no number does.
    const long = axes.filter((a) => shape[a] !== 1);
    if (long.every((a, i) => i === 0 || a > (long[i - 1] as number)))
      return e.reshape(x as string, shape, output.shape);
    return e.node("Transpose", [x as string], { perm: axes });
  },
});

/** The inputs one after another along `axis` */
export const concat: Op<Tensor[], { readonly axis: number }> = op<Tensor[], { readonly axis: number }>("Concat", {
  type: (inputs, { axis }) => {
    const first = inputs[0] as TensorType;
    const rank = first.shape.length;
    if (axis < 0 || axis >= rank) typeError("Concat", inputs, `there is no axis ${axis}`);
    for (const t of inputs)
      if (
        t.dtype !== first.dtype ||
        t.shape.length !== rank ||
        t.shape.some((d, i) => i !== axis && d !== first.shape[i])
      )
        typeError("Concat", inputs, `element types or shapes off axis ${axis} differ`);
    const size = plus(...inputs.map((t) => t.shape[axis] as Dim));
    return { dtype: first.dtype, shape: first.shape.map((d, i) => (i === axis ? size : d)) };
  },
  vjp: ({ inputs, g, attributes: { axis } }) => {
    let end: Dim = 0;
    return inputs.map((x) => {
      const start = end;
      end = plus(start, x.dim(axis));
      const range = { axis, start, end };
      return () => slice(g, range);
    });
  },
  lower: (e, inputs, { attributes }) => e.node("Concat", inputs, { axis: attributes.axis }),
});

export interface SliceAttributes {
  readonly axis: number;
  readonly start: Dim;
  readonly end: Dim;
}

/** The part [start, end) of `axis`; `end − start` must be a dim. */
export const slice: Op<[x: Tensor], SliceAttributes> = op<[Tensor], SliceAttributes>("Slice", {
  type: (inputs, { axis, start, end }) => {
    const x = inputs[0] as TensorType;
    const whole = x.shape[axis];
    const size = minus(end, start);
    if (whole === undefined) typeError("Slice", inputs, `there is no axis ${axis}`);
    if (size === undefined) typeError("Slice", inputs, `the size of [${start}, ${end}) is not known`);
    if (Number(size) < 0 || Number(start) < 0 || Number(end) > Number(whole))
      typeError("Slice", inputs, `[${start}, ${end}) is no part of axis ${axis}`);
    return { dtype: x.dtype, shape: x.shape.map((d, i) => (i === axis ? size : d)) };
  },
  vjp: ({ inputs: [input], g, attributes: { axis, start, end } }) => [
    () => {
      const x = input as Tensor;
      const parts = [g];
      const padding = (size: Dim): Tensor => zeros(x.shape.map((d, i) => (i === axis ? size : d)));
      if (start !== 0) parts.unshift(padding(start));
      const rest = minus(x.dim(axis), end);
      if (rest === undefined)
        typeError("Slice", [x.type], `the derivative needs the size after ${end} of axis ${axis}`);
      if (rest !== 0) parts.push(padding(rest));
      return parts.length === 1 ? g : concat(...parts, { axis });
    },
  ],
  lower: (e, [x], { attributes: { axis, start, end } }) =>
    e.node("Slice", [x as string, e.sizes([start]), e.sizes([end]), e.int64s([axis])]),
});
