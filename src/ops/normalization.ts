/** Layer norms and softmax. Inverse deviations are recomputed in the derivative: the runtime's own second outputs differ by device. */

import { type Op, op, typeError } from "../graph/op.js";
import { scalar, type Tensor, type TensorType } from "../graph/tensor.js";
import { add, div, mul, sqrt, sub } from "./elementwise.js";
import { reduceMean, reduceSum } from "./reduce.js";

export interface NormAttributes {
  readonly epsilon: number;
}

const last = { axes: [-1], keepDims: true } as const;

function inverseDeviation(variance: Tensor, epsilon: number): Tensor {
  return div(scalar(1), sqrt(add(variance, scalar(epsilon))));
}

function sumRows(g: Tensor): Tensor {
  return reduceSum(g, { axes: g.shape.slice(1).map((_, i) => i) });
}

function normType(name: string): (inputs: readonly TensorType[]) => TensorType {
  return (inputs) => {
    const [x, ...scales] = inputs as [TensorType, ...TensorType[]];
    for (const s of scales)
      if (s.shape.length !== 1 || s.shape[0] !== x.shape.at(-1))
        typeError(name, inputs, "scale and bias must fit the last axis");
    return x;
  };
}

/** y = w·x/√(mean x² + ε) over the last axis.  With u = g·w, s = 1/√(mean x² + ε):  dx = s(u − x·s²·mean(u·x)) */
export const rmsNormalization: Op<[x: Tensor, w: Tensor], NormAttributes> = op<[Tensor, Tensor], NormAttributes>(
  "RMSNormalization",
  {
    type: normType("RMSNormalization"),
    rowwise: () => "first",
    vjp: ({ inputs, g, attributes: { epsilon } }) => {
      const [x, w] = inputs as [Tensor, Tensor];
      const s = inverseDeviation(reduceMean(mul(x, x), last), epsilon);
      const u = mul(g, w);
      return [
        () => mul(s, sub(u, mul(x, mul(mul(s, s), reduceMean(mul(u, x), last))))),
        () => sumRows(mul(g, mul(x, s))),
      ];
    },
    lower: (e, inputs, { attributes }) =>
      e.node("SimplifiedLayerNormalization", inputs, { axis: -1, epsilon: { float: attributes.epsilon } }),
  },
);

/** y = w·x̂ + b, x̂ = (x − mean x)/√(var x + ε).  With u = g·w:  dx = s(u − mean u − x̂·mean(u·x̂)) */
export const layerNormalization: Op<[x: Tensor, w: Tensor, b: Tensor], NormAttributes> = op<
  [Tensor, Tensor, Tensor],
  NormAttributes
>("LayerNormalization", {
  type: normType("LayerNormalization"),
  rowwise: () => "first",
  vjp: ({ inputs, g, attributes: { epsilon } }) => {
    const [x, w] = inputs as [Tensor, Tensor, Tensor];
    const centred = sub(x, reduceMean(x, last));
    const s = inverseDeviation(reduceMean(mul(centred, centred), last), epsilon);
    const unit = mul(centred, s);
    const u = mul(g, w);
    return [
      () => mul(s, sub(sub(u, reduceMean(u, last)), mul(unit, reduceMean(mul(u, unit), last)))),
      () => sumRows(mul(g, unit)),
      () => sumRows(g),
    ];
  },
  lower: (e, inputs, { attributes }) =>
    e.node("LayerNormalization", inputs, { axis: -1, epsilon: { float: attributes.epsilon } }),
});

/** y = eˣ/Σeˣ over the last axis,  dx = y(g − Σ g·y) */
export const softmax: Op<[x: Tensor]> = op<[Tensor]>("Softmax", {
  type: ([x]) => x as TensorType,
  vjp: ({ output: y, g }) => [() => mul(y, sub(g, reduceSum(mul(g, y), last)))],
  lower: (e, [x]) => e.node("Softmax", [x as string], { axis: -1 }),
});
