/** How gradients of one tensor are summed, and what the gradient is where there is none. */

import { isOf } from "../graph/op.js";
import type { Tensor } from "../graph/tensor.js";
import { add } from "./elementwise.js";
import { type ScatterAddAttributes, scatterAdd, scatterRows } from "./rows.js";
import { expand, zeros } from "./shape.js";

/**
 * a + b, in one op where one is 0 in the very rows that the other is made of: the gradient by hidden states some rows of which are
 * edited, as it comes round the edit and through it.
 */
function sum(a: Tensor, b: Tensor): Tensor {
  return filled(a, b) ?? filled(b, a) ?? add(a, b);
}

/** `rest` with rows of zeros, and `rows` with nothing but those rows. */
function filled(rest: Tensor, rows: Tensor): Tensor | undefined {
  if (!isOf(rest, scatterRows) || !isOf(rows, scatterAdd)) return;
  const [x, indices, updates] = rest.inputs as [Tensor, Tensor, Tensor];
  const [same, filling] = rows.inputs as [Tensor, Tensor];
  const { unique } = rows.source.attributes as ScatterAddAttributes;
  return same === indices && unique && isZero(updates) ? scatterRows(x, indices, filling) : undefined;
}

function isZero(t: Tensor): boolean {
  if (t.source.kind === "constant") return t.source.data.every((v) => Number(v) === 0);
  return isOf(t, expand) && t.inputs.every(isZero);
}

export const gradientRules: { add: (a: Tensor, b: Tensor) => Tensor; zero: (like: Tensor) => Tensor } = {
  add: sum,
  zero: (like) => zeros(like.shape),
};
