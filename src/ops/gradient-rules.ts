/** How gradients of one tensor are summed, and what the gradient is where there is none. */

import { scalar, type Tensor } from "../graph/tensor.js";
import { add } from "./elementwise.js";
import { type ScatterAddAttributes, scatterAdd, scatterRows } from "./rows.js";
import { expand } from "./shape.js";

/**
 * a + b, in one op where one is 0 in the very rows that the other is made of: the gradient by hidden states some rows of which are
 * edited, as it comes round the edit and through it.
 */
function sum(a: Tensor, b: Tensor): Tensor {
  return filled(a, b) ?? filled(b, a) ?? add(a, b);
}

/** `rest` with rows of zeros, and `rows` with nothing but those rows. */
function filled({ source: rest }: Tensor, { source: rows }: Tensor): Tensor | undefined {
  if (rest.kind !== "op" || rest.op !== scatterRows.spec || rows.kind !== "op" || rows.op !== scatterAdd.spec) return;
  const [x, indices, updates] = rest.inputs as [Tensor, Tensor, Tensor];
  const [same, filling] = rows.inputs as [Tensor, Tensor];
  const { unique } = rows.attributes as ScatterAddAttributes;
  return same === indices && unique && isZero(updates) ? scatterRows(x, indices, filling) : undefined;
}

function isZero({ source }: Tensor): boolean {
  if (source.kind === "constant") return source.data.every((v) => Number(v) === 0);
  return source.kind === "op" && source.op === expand.spec && source.inputs.every(isZero);
}

export const gradientRules: { add: (a: Tensor, b: Tensor) => Tensor; zero: (like: Tensor) => Tensor } = {
  add: sum,
  zero: (like) => expand(scalar(0), { shape: like.shape }),
};
