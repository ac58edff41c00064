/** Rotary position embedding as one op, whose derivative is the rotation back. */

import { type Dim, times } from "../graph/dim.js";
import { type Op, op, typeError } from "../graph/op.js";
import type { Tensor, TensorType } from "../graph/tensor.js";
import { neg } from "./elementwise.js";

/**
 * y = [x₁·cos − x₂·sin, x₂·cos + x₁·sin] for the halves x₁, x₂ of the last axis (RoFormer, arXiv 2104.09864, in the
 * "rotate half" order of checkpoints).  dx = the same rotation of g by −θ.  x […, 2n], cos and sin […, n]; or x […, H, 2n],
 * cos and sin […, 1, n] for H heads that turn alike.
 */
export const rotary: Op<[x: Tensor, cos: Tensor, sin: Tensor]> = op<[Tensor, Tensor, Tensor]>("Rotary", {
  type: (inputs) => {
    const [x, cos, sin] = inputs as [TensorType, TensorType, TensorType];
    const width = x.shape.at(-1);
    if (typeof width !== "number" || cos.shape.at(-1) !== width / 2 || sin.shape.at(-1) !== width / 2)
      typeError("Rotary", inputs, "cos and sin must have half of x's last axis");
    const heads = headsOf(x, cos);
    for (const angles of [cos, sin])
      if (heads === undefined || angles.shape.length !== x.shape.length || headsOf(x, angles) !== heads)
        typeError("Rotary", inputs, "cos and sin must have x's axes, and one head or x's");
    return x;
  },
  vjp: ({ inputs, g }) => {
    const [, cos, sin] = inputs as [Tensor, Tensor, Tensor];
    return [() => rotary(g, cos, neg(sin)), null, null];
  },
  // The runtime's own op turns rows by a table of angles, from a place in it on: here the table's rows are x's rows.
  lower: (e, names, { inputs }) => {
    const [x, cos, sin] = names as [string, string, string];
    const [input, angles] = inputs as [Tensor, Tensor, Tensor];
    const [width, half] = [input.dim(-1), angles.dim(-1)] as [number, number];
    const heads = headsOf(input.type, angles.type) as number;
    const rows = [1, times(...angles.shape.slice(0, -1)), heads * width];
    const table = (name: string): string => e.reshape(name, angles.shape, [rows[1] as Dim, half]);
    const turned = e.node(
      "RotaryEmbedding",
      [e.reshape(x, input.shape, rows), e.int64s([0]), table(cos), table(sin)],
      {},
      "com.microsoft",
    );
    return e.reshape(turned, rows, input.shape);
  },
});

/** How many heads turn by one angle; undefined where the axes do not fit. */
function headsOf(x: TensorType, angles: TensorType): number | undefined {
  const [own, others] = [x.shape.slice(0, -1), angles.shape.slice(0, -1)];
  const differ = own.flatMap((d, i) => (d === others[i] ? [] : [i]));
  if (differ.length === 0) return 1;
  const last = own.length - 1;
  const heads = own[last];
  return differ.length === 1 && differ[0] === last && others[last] === 1 && typeof heads === "number"
    ? heads
    : undefined;
}
