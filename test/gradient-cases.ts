/** What each op's derivative is tried on: shapes, the range its values are drawn from, attributes. */

import { constant, type Tensor } from "../src/graph/tensor.js";
import { lessOrEqual } from "../src/ops/index.js";

/** An input to differentiate by: element n is drawn by a seeded generator, away from kinks and poles of the op. */
export interface Drawn {
  readonly shape: readonly number[];
  readonly draw: (random: (low: number, high: number) => number, n: number) => number;
  /** True where the op promises no gradient for this input. */
  readonly frozen?: boolean;
}

export interface GradientCase {
  /** A tensor is an integer or boolean input. */
  readonly inputs: readonly (Drawn | Tensor)[];
  readonly attributes?: Readonly<Record<string, unknown>>;
}

type Draw = Drawn["draw"];
const wide: Draw = (random) => random(-2, 2);
const positive: Draw = (random) => random(0.5, 2.5);
/** At least 0.2 from zero, where |x|, sign and relu bend. */
const offZero: Draw = (random) => (random(-1, 1) < 0 ? -1 : 1) * random(0.2, 2);
/** Steps of 0.3 in a scrambled order: the maximum is never in doubt. */
const spaced: Draw = (_random, n) => 0.3 * ((n * 7) % 23) - 2;

const from = (draw: Draw, ...shape: number[]): Drawn => ({ shape, draw });
const x = (...shape: number[]): Drawn => from(wide, ...shape);
const indices = (shape: number[], ...values: number[]): Tensor =>
  constant(
    BigInt64Array.from(values, (v) => BigInt(v)),
    shape,
  );

const broadcasts: readonly [number[], number[]][] = [
  [
    [2, 3],
    [2, 3],
  ],
  [[4, 3], [3]],
  [[], [2, 3]],
  [
    [2, 1, 3],
    [4, 1],
  ],
  [
    [3, 1, 1, 2],
    [2, 4, 1],
  ],
  [[1], [1, 1, 3]],
  [
    [1, 1],
    [3, 1],
  ],
];

const unary = (draw: Draw = wide): GradientCase[] =>
  [[7], [3, 4], [2, 1, 3], []].map((s) => ({ inputs: [from(draw, ...s)] }));
const binary = (a: Draw = wide, b: Draw = wide): GradientCase[] =>
  broadcasts.flatMap(([s, t]) => [
    { inputs: [from(a, ...s), from(b, ...t)] },
    { inputs: [from(a, ...t), from(b, ...s)] },
  ]);
const reductions = (draw: Draw = wide): GradientCase[] =>
  [[-1], [0], [1], [0, 2], [-3, -1], [0, 1, 2]].flatMap((axes) =>
    [true, false].map((keepDims) => ({ inputs: [from(draw, 2, 3, 4)], attributes: { axes, keepDims } })),
  );
const norm = (inputs: number): GradientCase[] =>
  [[3, 5], [2, 2, 4], [6]].flatMap((s) =>
    [1e-6, 0.1].map((epsilon) => {
      const width = s.at(-1) as number;
      return { inputs: [x(...s), ...[x(width), x(width)].slice(0, inputs - 1)], attributes: { epsilon } };
    }),
  );

export const gradientCases: Readonly<Record<string, readonly GradientCase[]>> = {
  neg: unary(),
  exp: unary(),
  log: unary(positive),
  sqrt: unary(positive),
  abs: unary(offZero),
  sign: unary(offZero),
  sin: unary(),
  cos: unary(),
  tanh: unary(),
  sigmoid: unary(),
  erf: unary(),
  relu: unary(offZero),
  silu: unary(),
  gelu: unary(),
  geluTanh: unary(),
  add: binary(),
  sub: binary(),
  mul: binary(),
  div: binary(wide, positive),
  pow: binary(positive),
  reduceSum: reductions(),
  reduceMean: reductions(),
  reduceMax: reductions(spaced),
  matMul: [
    { inputs: [x(3, 4), x(4, 2)] },
    { inputs: [x(2, 3, 4), x(2, 4, 2)] },
    { inputs: [x(2, 3, 4), x(4, 2)] },
    { inputs: [x(3, 4), x(2, 4, 2)] },
    { inputs: [x(2, 1, 3, 4), x(3, 4, 2)] },
    { inputs: [x(1, 1), x(1, 1)] },
    { inputs: [x(2, 4, 3), x(2, 4, 2)], attributes: { transA: true } },
    { inputs: [x(2, 3, 4), x(2, 2, 4)], attributes: { transB: true } },
    { inputs: [x(4, 3), x(2, 2, 4)], attributes: { transA: true, transB: true } },
    { inputs: [x(2, 1, 4, 3), x(3, 2, 4)], attributes: { transA: true, transB: true } },
  ],
  gemm: [false, true].flatMap((transA) =>
    [false, true].flatMap((transB) =>
      [0, 1].map((biases) => ({
        inputs: [x(...(transA ? [4, 3] : [3, 4])), x(...(transB ? [2, 4] : [4, 2])), ...[x(2)].slice(0, biases)],
        attributes: { transA, transB },
      })),
    ),
  ),
  where: broadcasts.map(([a, b]) => ({ inputs: [condition(a), x(...a), x(...b)] })),
  cast: [{ inputs: [x(3, 2)], attributes: { to: "float32" } }],
  // A staircase, whose steps are small beside the difference where x is near 0.
  roundTo: [
    { inputs: [x(3, 2)], attributes: { to: "float32" } },
    { inputs: [from(() => 0, 3, 2)], attributes: { to: "float16" } },
    { inputs: [from(() => 0, 200)], attributes: { to: "bfloat16" } },
  ],
  softmax: [{ inputs: [x(5)] }, { inputs: [x(3, 4)] }, { inputs: [x(2, 2, 3)] }, { inputs: [x(2, 1)] }],
  logSumExp: [{ inputs: [x(5)] }, { inputs: [x(3, 4)] }, { inputs: [x(2, 2, 3)] }],
  logSumExpOfProduct: [{ inputs: [x(3, 4), x(5, 4)] }, { inputs: [x(1, 2), x(1, 2)] }],
  rmsNormalization: norm(2),
  layerNormalization: norm(3),
  rotary: [
    { inputs: [x(2, 3, 8), frozen(2, 3, 4), frozen(2, 3, 4)] },
    { inputs: [x(2, 3, 2, 4), frozen(2, 3, 1, 2), frozen(2, 3, 1, 2)] },
    { inputs: [x(5, 2), frozen(5, 1), frozen(5, 1)] },
  ],
  gather: [
    { inputs: [x(5, 3), indices([4], 4, 0, 4, 2)] },
    { inputs: [x(5, 3), indices([3], 4, 0, 2)], attributes: { unique: true } },
    { inputs: [x(4), indices([3], 3, 3, 1)] },
    { inputs: [x(4, 2, 3), indices([2, 2], 3, 3, 0, 1)] },
    { inputs: [x(4, 2), indices([], 2)] },
  ],
  scatterRows: [
    { inputs: [x(5, 3), indices([2], 4, 1), x(2, 3)] },
    { inputs: [x(4), indices([3], 2, 0, 3), x(3)] },
    { inputs: [x(4, 2, 3), indices([4], 2, 0, 3, 1), x(4, 2, 3)] },
  ],
  scatterAdd: [
    { inputs: [indices([3], 4, 1, 4), x(3, 2)], attributes: { rows: 5, unique: false } },
    { inputs: [indices([3], 4, 1, 0), x(3, 2)], attributes: { rows: 5, unique: true } },
    { inputs: [indices([2, 2], 0, 0, 3, 0), x(2, 2, 3)], attributes: { rows: 4, unique: false } },
    { inputs: [indices([3], 0, 2, 2), x(3)], attributes: { rows: 3, unique: false } },
  ],
  reshape: [
    { inputs: [x(2, 3, 4)], attributes: { shape: [6, 4] } },
    { inputs: [x(2, 3)], attributes: { shape: [1, 3, 2, 1] } },
    { inputs: [x(1, 1)], attributes: { shape: [] } },
  ],
  expand: [
    { inputs: [x(3)], attributes: { shape: [2, 3] } },
    { inputs: [x(2, 1, 3)], attributes: { shape: [2, 4, 3] } },
    { inputs: [x()], attributes: { shape: [2, 2] } },
    { inputs: [x(1, 3, 1)], attributes: { shape: [2, 1, 3, 4] } },
  ],
  transpose: [
    { inputs: [x(3, 2)], attributes: { axes: [1, 0] } },
    { inputs: [x(2, 3, 4)], attributes: { axes: [2, 0, 1] } },
    { inputs: [x(2, 3, 2, 2)], attributes: { axes: [0, 2, 1, 3] } },
  ],
  concat: [
    { inputs: [x(2, 1, 3), x(2, 2, 3), x(2, 3, 3)], attributes: { axis: 1 } },
    { inputs: [x(2), x(1)], attributes: { axis: 0 } },
    { inputs: [x(2, 2)], attributes: { axis: 1 } },
  ],
  slice: [
    { inputs: [x(2, 4, 5)], attributes: { axis: 1, start: 1, end: 3 } },
    { inputs: [x(2, 4, 5)], attributes: { axis: 2, start: 0, end: 2 } },
    { inputs: [x(2, 4, 5)], attributes: { axis: 0, start: 1, end: 2 } },
    { inputs: [x(3)], attributes: { axis: 0, start: 0, end: 3 } },
  ],
};

/** A boolean of the given shape, true at every other element; a comparison, since constants are numbers. */
function condition(shape: number[]): Tensor {
  const size = shape.reduce((a, b) => a * b, 1);
  const alternating = constant(
    Int32Array.from({ length: size }, (_, n) => n % 2),
    shape,
  );
  return lessOrEqual(alternating, constant(Int32Array.of(0), []));
}

function frozen(...shape: number[]): Drawn {
  return { shape, draw: wide, frozen: true };
}
