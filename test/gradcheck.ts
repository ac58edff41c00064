/** Gradient checks: an op's derivative along random directions against finite differences of its own value. */

import { expect } from "vitest";
import type { Op } from "../src/graph/op.js";
import { constant, input, Tensor } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import { gradients, mul, reduceSum } from "../src/ops/index.js";
import type { HostTensor, Runtime } from "../src/runtime/runtime.js";
import type { GradientCase } from "./gradient-cases.js";
import { tolerance } from "./support.js";

export type AnyOp = Op<Tensor[], unknown>;
export type Feeds = Record<string, HostTensor>;

/** Σ y⊙w, the scalar whose gradients stand for the whole Jacobian. */
export function projected(y: Tensor, w: Tensor): Tensor {
  return reduceSum(mul(y, w), { axes: y.shape.map((_, i) => i) });
}

/** The outputs for each of the feeds, in a session of their own. */
export async function evaluate(
  runtime: Runtime,
  outputs: Readonly<Record<string, Tensor>>,
  feeds: readonly Feeds[],
): Promise<Feeds[]> {
  const session = await runtime.open(toOnnx(outputs, runtime.device));
  try {
    const results: Feeds[] = [];
    for (const f of feeds) results.push(await session.run(f));
    return results;
  } finally {
    await session.dispose();
  }
}

/** A multiplicative generator (Park and Miller's), so that every run draws the same numbers. */
export function uniform(seed: number): (low: number, high: number) => number {
  let state = seed * 7919 + 17;
  const next = (): number => {
    state = (state * 48271) % 2147483647;
    return state / 2147483647;
  };
  for (let i = 0; i < 8; i++) next();
  return (low, high) => low + (high - low) * next();
}

/**
 * ε of the central difference, a power of two: large enough that float32 values (relative error 6e-8) leave a difference
 * of five digits, small enough that the ε² term stays below them for the slopes drawn here.
 */
const step = 1 / 128;

/** The direction `v` in which input `i` of case `c` is moved. */
interface Move {
  readonly c: number;
  readonly i: number;
  readonly v: Float32Array;
}

/** All cases in one graph. Case c has the inputs `${c}x${i}`, the value `${c}y` and the gradients `${c}g${i}` of Σ w⊙y. */
interface Check {
  readonly outputs: Record<string, Tensor>;
  readonly feeds: Feeds;
  readonly moves: Move[];
  readonly weights: Float32Array[];
}

function build(op: AnyOp, cases: readonly GradientCase[]): Check {
  const random = uniform(cases.length + op.spec.name.length);
  const check: Check = { outputs: {}, feeds: {}, moves: [], weights: [] };
  for (const [c, { inputs, attributes }] of cases.entries()) {
    const own: Move[] = [];
    const leaves = inputs.map((x, i) => {
      if (x instanceof Tensor) return x;
      const data = Float32Array.from({ length: size(x.shape) }, (_, n) => x.draw(random, n));
      check.feeds[`${c}x${i}`] = { shape: x.shape, data };
      if (x.frozen !== true) own.push({ c, i, v: data.map(() => random(-1, 1)) });
      return input(`${c}x${i}`, "float32", x.shape);
    });
    const y = op(...leaves, attributes ?? {});
    const w = Float32Array.from({ length: size(y.shape as number[]) }, () => random(-1, 1));
    const wanted = own.map(({ i }) => leaves[i] as Tensor);
    const found = gradients(projected(y, constant(w, y.shape as number[])), wanted);
    check.outputs[`${c}y`] = y;
    for (const [n, { i }] of own.entries()) check.outputs[`${c}g${i}`] = found[n] as Tensor;
    check.moves.push(...own);
    check.weights.push(w);
  }
  return check;
}

/** The feeds with input `i` of every case at x + sign·ε·v. */
function moved({ feeds, moves }: Check, i: number, sign: number): Feeds {
  const result = { ...feeds };
  for (const { c, v } of moves.filter((m) => m.i === i)) {
    const { shape, data } = feeds[`${c}x${i}`] as HostTensor;
    result[`${c}x${i}`] = {
      shape,
      data: Float32Array.from(data as Float32Array, (x, n) => x + sign * step * at(v, n)),
    };
  }
  return result;
}

/** Fails where ⟨∇, v⟩ is not (f(x + εv) − f(x − εv))/2ε, with f = Σ w⊙y summed here in float64: float32 would drown it. */
export async function checkDirections(runtime: Runtime, op: AnyOp, cases: readonly GradientCase[]): Promise<void> {
  const check = build(op, cases);
  const inputs = [...new Set(check.moves.map((m) => m.i))];
  const feeds = inputs.flatMap((i) => [moved(check, i, 1), moved(check, i, -1)]);
  const [centre = {}, ...around] = await evaluate(runtime, check.outputs, [check.feeds, ...feeds]);
  for (const { c, i, v } of check.moves) {
    const f = (run: number): number => dot(around[run]?.[`${c}y`], check.weights[c]);
    const [above, below] = [f(2 * inputs.indexOf(i)), f(2 * inputs.indexOf(i) + 1)];
    const expected = (above - below) / (2 * step);
    const g = centre[`${c}g${i}`];
    expect(g?.data.length, `case ${c}: elements of gradient ${i}`).toBe(v.length);
    const actual = dot(g, v);
    // What a sum of these terms is when their signs are random: cancellation must not make the check stricter.
    const scale = Math.hypot(...v.map((x, n) => x * at(g?.data as Float32Array, n)));
    if (!(Math.abs(actual - expected) <= tolerance.gradient * scale + rounding))
      expect.fail(`case ${c}, input ${i}: slope ${actual}, finite difference ${expected}, terms near ${scale}`);
  }
}

/** What rounding alone gives where the slope is zero: values near 3, error 2e-7, over 2ε. */
const rounding = 5e-5;

function dot(a: HostTensor | undefined, b: Float32Array | undefined): number {
  return Array.from((a?.data ?? []) as Float32Array).reduce((sum, x, n) => sum + x * at(b ?? [], n), 0);
}

function at(values: ArrayLike<number>, n: number): number {
  return values[n] ?? Number.NaN;
}

function size(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
