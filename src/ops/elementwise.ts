/** Elementwise arithmetic: formula and derivative, side by side. */

import { type Op, type OpSpec, op, typeError } from "../graph/op.js";
import { scalar, type Tensor, type TensorType } from "../graph/tensor.js";
import { broadcast, unbroadcast } from "./broadcast.js";

function binaryType(name: string): (inputs: readonly TensorType[]) => TensorType {
  return (inputs) => {
    const [a, b] = inputs as [TensorType, TensorType];
    if (a.dtype !== b.dtype) typeError(name, inputs, "element types differ");
    return { dtype: a.dtype, shape: broadcast(name, a, b) };
  };
}

export function unary(
  name: string,
  slope: (x: Tensor, y: Tensor, g: Tensor) => Tensor,
  lower: Pick<OpSpec<unknown>, "lower"> = {},
): Op<[x: Tensor]> {
  return op<[Tensor]>(name, {
    ...lower,
    type: ([x]) => x as TensorType,
    rowwise: () => "aligned",
    vjp: ({ inputs: [x], output: y, g }) => [() => slope(x as Tensor, y, g)],
  });
}

function binary(
  name: string,
  da: (a: Tensor, b: Tensor, g: Tensor) => Tensor,
  db: (a: Tensor, b: Tensor, g: Tensor) => Tensor,
): Op<[a: Tensor, b: Tensor]> {
  return op<[Tensor, Tensor]>(name, {
    type: binaryType(name),
    rowwise: () => "aligned",
    vjp: ({ inputs, g }) => {
      const [a, b] = inputs as [Tensor, Tensor];
      return [() => unbroadcast(da(a, b, g), a), () => unbroadcast(db(a, b, g), b)];
    },
  });
}

/** y = a + b */
export const add: Op<[a: Tensor, b: Tensor]> = binary(
  "Add",
  (_a, _b, g) => g,
  (_a, _b, g) => g,
);

/** y = a − b */
export const sub: Op<[a: Tensor, b: Tensor]> = binary(
  "Sub",
  (_a, _b, g) => g,
  (_a, _b, g) => neg(g),
);

/** y = a·b */
export const mul: Op<[a: Tensor, b: Tensor]> = binary(
  "Mul",
  (_a, b, g) => mul(g, b),
  (a, _b, g) => mul(g, a),
);

/** y = a/b,  dy/da = 1/b,  dy/db = −a/b² */
export const div: Op<[a: Tensor, b: Tensor]> = binary(
  "Div",
  (_a, b, g) => div(g, b),
  (a, b, g) => neg(div(mul(g, a), mul(b, b))),
);

/** y = aᵇ for a > 0,  dy/da = b·aᵇ⁻¹,  dy/db = aᵇ·ln a */
export const pow: Op<[a: Tensor, b: Tensor]> = binary(
  "Pow",
  (a, b, g) => mul(g, mul(b, pow(a, sub(b, scalar(1))))),
  (a, b, g) => mul(g, mul(pow(a, b), log(a))),
);

/** y = −x */
export const neg: Op<[x: Tensor]> = unary("Neg", (_x, _y, g) => neg(g));

/** y = eˣ,  dy/dx = y */
export const exp: Op<[x: Tensor]> = unary("Exp", (_x, y, g) => mul(g, y));

/** y = ln x,  dy/dx = 1/x */
export const log: Op<[x: Tensor]> = unary("Log", (x, _y, g) => div(g, x));

/** y = √x,  dy/dx = 1/(2y) */
export const sqrt: Op<[x: Tensor]> = unary("Sqrt", (_x, y, g) => div(g, add(y, y)));

/** y = |x|,  dy/dx = sign x */
export const abs: Op<[x: Tensor]> = unary("Abs", (x, _y, g) => mul(g, sign(x)));

/** y = sign x, flat almost everywhere */
export const sign: Op<[x: Tensor]> = unary("Sign", (_x, _y, g) => mul(g, scalar(0)));
