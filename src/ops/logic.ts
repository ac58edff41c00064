/** Comparison, choice and change of element type. */

import { type Op, op, typeError } from "../graph/op.js";
import type { DType, Tensor, TensorType } from "../graph/tensor.js";
import { broadcast, unbroadcast } from "./broadcast.js";
import { zeros } from "./shape.js";

/** ONNX's numbers for element types (TensorProto.DataType). */
const onnxType: Record<DType, number> = { float32: 1, int32: 6, int64: 7, bool: 9, uint8: 2, uint4: 21 };

/** y = a ≤ b, as bool */
export const lessOrEqual: Op<[a: Tensor, b: Tensor]> = op<[Tensor, Tensor]>("LessOrEqual", {
  type: (inputs) => {
    const [a, b] = inputs as [TensorType, TensorType];
    if (a.dtype !== b.dtype) typeError("LessOrEqual", inputs, "element types differ");
    return { dtype: "bool", shape: broadcast("LessOrEqual", a, b) };
  },
});

/** y = a and b */
export const and: Op<[a: Tensor, b: Tensor]> = op<[Tensor, Tensor]>("And", {
  type: (inputs) => {
    const [a, b] = inputs as [TensorType, TensorType];
    if (a.dtype !== "bool" || b.dtype !== "bool") typeError("And", inputs, "both must be bool");
    return { dtype: "bool", shape: broadcast("And", a, b) };
  },
});

/** y = a where condition, else b */
export const where: Op<[condition: Tensor, a: Tensor, b: Tensor]> = op<[Tensor, Tensor, Tensor]>("Where", {
  type: (inputs) => {
    const [c, a, b] = inputs as [TensorType, TensorType, TensorType];
    if (c.dtype !== "bool" || a.dtype !== b.dtype) typeError("Where", inputs, "wants (bool, x, x)");
    const values = { dtype: a.dtype, shape: broadcast("Where", a, b, inputs) };
    return { dtype: a.dtype, shape: broadcast("Where", c, values, inputs) };
  },
  vjp: ({ inputs, g }) => {
    const [c, a, b] = inputs as [Tensor, Tensor, Tensor];
    const zero = zeros(g.shape);
    return [null, () => unbroadcast(where(c, g, zero), a), () => unbroadcast(where(c, zero, g), b)];
  },
});

/** The same values in another element type; no gradient through integers. */
export const cast: Op<[x: Tensor], { readonly to: DType }> = op<[Tensor], { readonly to: DType }>("Cast", {
  type: ([x], { to }) => ({ dtype: to, shape: (x as TensorType).shape }),
  vjp: ({ inputs: [x], g }) => [(x as Tensor).type.dtype === "float32" ? () => g : null],
  lower: (e, [x], { attributes }) => e.node("Cast", [x as string], { to: onnxType[attributes.to] }),
});

/** The floats an edit's linear parts are computed in: numbers in a graph stay float32, rounded to these. */
export type RoundedDType = "float32" | "bfloat16" | "float16";

/** ONNX's numbers for them. */
const roundedType: Record<RoundedDType, number> = { float32: 1, float16: 10, bfloat16: 16 };

/**
 * y = x rounded to the nearest number of `to`, ties to even, and float32 again. The gradient passes as it is, as through
 * torch.s `x.to(dtype).float()`, which would round it to `to` on the way.
 */
export const roundTo: Op<[x: Tensor], { readonly to: RoundedDType }> = op<[Tensor], { readonly to: RoundedDType }>(
  "RoundTo",
  {
    type: (inputs) => {
      const [x] = inputs as [TensorType];
      if (x.dtype !== "float32") typeError("RoundTo", inputs, "wants floats");
      return x;
    },
    vjp: ({ g }) => [() => g],
    lower: (e, [x], { attributes: { to } }) =>
      to === "float32"
        ? (x as string)
        : e.node("Cast", [e.node("Cast", [x as string], { to: roundedType[to] })], { to: 1 }),
  },
);
