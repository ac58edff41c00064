/** Activation functions under the names that checkpoints' configs use (transformers' ACT2FN). */

import { type Op, type OpSpec, op } from "../graph/op.js";
import { scalar, type Tensor, type TensorType } from "../graph/tensor.js";
import { add, exp, mul, neg, sub } from "./elementwise.js";
import { cast, lessOrEqual } from "./logic.js";

function activation(
  name: string,
  slope: (x: Tensor, y: Tensor) => Tensor,
  lower?: NonNullable<OpSpec<undefined>["lower"]>,
): Op<[x: Tensor]> {
  return op<[Tensor]>(name, {
    type: ([x]) => x as TensorType,
    rowwise: () => "aligned",
    vjp: ({ inputs: [x], output: y, g }) => [() => mul(g, slope(x as Tensor, y))],
    ...(lower === undefined ? {} : { lower }),
  });
}

/** y = tanh x,  dy/dx = 1 − y² */
export const tanh: Op<[x: Tensor]> = activation("Tanh", (_x, y) => sub(scalar(1), mul(y, y)));

/** y = 1/(1 + e⁻ˣ),  dy/dx = y(1 − y) */
export const sigmoid: Op<[x: Tensor]> = activation("Sigmoid", (_x, y) => mul(y, sub(scalar(1), y)));

/** y = 2/√π ∫₀ˣ e^(−t²) dt,  dy/dx = 2/√π e^(−x²) */
export const erf: Op<[x: Tensor]> = activation("Erf", (x) => mul(scalar(2 / Math.sqrt(Math.PI)), exp(neg(mul(x, x)))));

/** y = max(x, 0),  dy/dx = 1 where x > 0 */
export const relu: Op<[x: Tensor]> = activation("Relu", (x) =>
  sub(scalar(1), cast(lessOrEqual(x, scalar(0)), { to: "float32" })),
);

/** y = x·σ(x),  dy/dx = σ + xσ(1 − σ) = y + σ(1 − y). σ is recomputed in the derivative rather than kept. */
export const silu: Op<[x: Tensor]> = activation(
  "Silu",
  (x, y) => add(y, mul(sigmoid(x), sub(scalar(1), y))),
  // x·σ(αx) in one pass.
  (e, [x]) => e.node("QuickGelu", [x as string], { alpha: { float: 1 } }, "com.microsoft"),
);

const gaussian = 1 / Math.sqrt(2 * Math.PI);

/** y = x·Φ(x), Φ = (1 + erf(x/√2))/2,  dy/dx = Φ + x·e^(−x²/2)/√(2π) */
export const gelu: Op<[x: Tensor]> = activation(
  "Gelu",
  (x) => {
    const phi = mul(scalar(0.5), add(scalar(1), erf(mul(x, scalar(Math.SQRT1_2)))));
    return add(phi, mul(x, mul(scalar(gaussian), exp(mul(scalar(-0.5), mul(x, x))))));
  },
  (e, [x]) => {
    const cdf = e.node("Add", [e.node("Erf", [e.node("Mul", [x as string, e.float(Math.SQRT1_2)])]), e.float(1)]);
    return e.node("Mul", [e.node("Mul", [x as string, e.float(0.5)]), cdf]);
  },
);

const slopeOfTanh = Math.sqrt(2 / Math.PI);
const cubic = 0.044715;

/** y = x(1 + t)/2, t = tanh(√(2/π)(x + 0.044715x³)),  dy/dx = (1 + t)/2 + x(1 − t²)/2·√(2/π)(1 + 3·0.044715x²) */
export const geluTanh: Op<[x: Tensor]> = activation(
  "GeluTanh",
  (x) => {
    const square = mul(x, x);
    const t = tanh(mul(mul(x, scalar(slopeOfTanh)), add(scalar(1), mul(scalar(cubic), square))));
    const inner = mul(scalar(slopeOfTanh), add(scalar(1), mul(scalar(3 * cubic), square)));
    const outer = mul(mul(x, sub(scalar(1), mul(t, t))), inner);
    return mul(scalar(0.5), add(add(scalar(1), t), outer));
  },
  (e, [x]) => {
    const square = e.node("Mul", [x as string, x as string]);
    const bracket = e.node("Add", [e.node("Mul", [square, e.float(cubic)]), e.float(1)]);
    const t = e.node("Tanh", [e.node("Mul", [e.node("Mul", [x as string, e.float(slopeOfTanh)]), bracket])]);
    return e.node("Mul", [e.node("Mul", [x as string, e.float(0.5)]), e.node("Add", [t, e.float(1)])]);
  },
);

export type ActivationName =
  | "linear"
  | "relu"
  | "silu"
  | "swish"
  | "gelu"
  | "gelu_new"
  | "gelu_pytorch_tanh"
  | "tanh"
  | "sigmoid";

/** Activations by the names of configs. `linear` is the absence of one. */
export const activations: Readonly<Record<ActivationName, (x: Tensor) => Tensor>> = {
  linear: (x) => x,
  relu,
  silu,
  swish: silu,
  gelu,
  gelu_new: geluTanh,
  gelu_pytorch_tanh: geluTanh,
  tanh,
  sigmoid,
};
