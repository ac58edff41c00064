/** Sine and cosine, to float32's precision on every device: rotary angles reach the length of a text. */

import type { Emitter, Op } from "../graph/op.js";
import type { Tensor } from "../graph/tensor.js";
import { mul, neg, unary } from "./elementwise.js";

/** y = sin x,  dy/dx = cos x */
export const sin: Op<[x: Tensor]> = unary("Sin", (x, _y, g) => mul(g, cos(x)), {
  lower: (e, [x = ""]) => (e.kernels.trigonometry ? e.node("Sin", [x]) : turned(e, x, 0)),
});

/** y = cos x,  dy/dx = −sin x */
export const cos: Op<[x: Tensor]> = unary("Cos", (x, _y, g) => neg(mul(g, sin(x))), {
  lower: (e, [x = ""]) => (e.kernels.trigonometry ? e.node("Cos", [x]) : turned(e, x, 1)),
});

/**
 * sin(x + q·π/2) in arithmetic alone: x = n·π/2 + r with |r| ≤ π/4, then Cephes' polynomials of r (sinf.c, within 2⁻²³), and the
 * quadrant n + q says which of them and its sign. π/2 is taken in parts of few bits, so that their products with n are exact
 * up to n = 2¹⁶.
 */
function turned(e: Emitter, x: string, q: number): string {
  const op = (type: string, ...inputs: (string | number)[]): string =>
    e.node(
      type,
      inputs.map((i) => (typeof i === "number" ? e.float(i) : i)),
    );
  const polynomial = (at: string, first: number, ...rest: number[]): string | number =>
    rest.reduce<string | number>((sum, c) => op("Add", op("Mul", sum, at), c), first);
  const floorOf = (a: string, by: number): string => op("Floor", op("Mul", a, by));

  const n = op("Floor", op("Add", op("Mul", x, 2 / Math.PI), 0.5));
  const r = halfPi.reduce((rest, part) => op("Sub", rest, op("Mul", n, part)), x);
  const square = op("Mul", r, r);
  const sine = op("Mul", r, polynomial(square, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1, 1));
  const cosine = polynomial(square, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2, -0.5, 1);
  const quadrant = op("Add", n, q);
  const half = floorOf(quadrant, 1 / 2);
  // Of n + q mod 4: whether it is odd, and whether it is 2 or 3.
  const odd = op("Sub", quadrant, op("Mul", half, 2));
  const negative = op("Sub", half, op("Mul", floorOf(half, 1 / 2), 2));
  const value = op("Add", sine, op("Mul", odd, op("Sub", cosine, sine)));
  return op("Mul", value, op("Sub", 1, op("Mul", negative, 2)));
}

/** Three times eight bits, then the rest. */
const halfPi = [1.5703125, 0.0004825592041015625, 1.2665987014770508e-6, 9.920935796805404e-10];
