/** Rows taken early: the values and gradients of rows taken late, computed at those rows only where nothing else needs the rest. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { costOf } from "../src/graph/cost.js";
import { constant, input, type Tensor, topological } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import {
  add,
  gather,
  gemm,
  gradients,
  mul,
  recomputedByRows,
  reduceSum,
  reshape,
  rmsNormalization,
  scatterRows,
  silu,
  softmax,
  takeRows,
} from "../src/ops/index.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { expectClose } from "./support.js";

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

const [n, d] = [6, 4];
const wave = (count: number, phase: number): Float32Array =>
  Float32Array.from({ length: count }, (_, i) => Math.sin(3 * i + phase));
const matrix = (phase: number): Tensor => constant(wave(d * d, phase), [d, d]);

/** A block in little: something that mixes rows, a residual, a norm and an MLP. */
function block(x: Tensor, phase: number): Tensor {
  const scores = softmax(gemm(x, x, { transB: true }));
  const h = add(x, gemm(gemm(scores, x, {}), matrix(phase), {}));
  const normed = rmsNormalization(h, constant(wave(d, phase + 1), [d]), { epsilon: 1e-5 });
  const gated = (...[g, u]: readonly Tensor[]): Tensor => mul(silu(g as Tensor), u as Tensor);
  const inner = recomputedByRows(gated, gemm(normed, matrix(phase + 2), {}), gemm(normed, matrix(phase + 4), {}));
  return add(h, gemm(inner, matrix(phase + 3), { transB: true }));
}

const rows = input("rows", "int64", ["M"]);
const feeds = {
  x: { shape: [n, d], data: wave(n * d, 0.5) },
  w: { shape: [d], data: wave(d, 2) },
  rows: { shape: [2], data: BigInt64Array.of(4n, 1n) },
};

function graph(take: (y: Tensor) => Tensor): { outputs: Record<string, Tensor>; taken: Tensor } {
  const w = input("w", "float32", [d], { trainable: true });
  const x = mul(input("x", "float32", ["N", d]), w);
  const taken = take(block(block(x, 1), 2));
  const [slope] = gradients(reduceSum(mul(taken, taken), { axes: [0, 1] }), [w]);
  return { outputs: { taken, slope: slope as Tensor }, taken };
}

test("values and gradients are those of rows taken at the end", async () => {
  const found = await Promise.all(
    [(y: Tensor) => takeRows(y, rows), (y: Tensor) => gather(y, rows, { unique: true })].map(async (take) => {
      const session = await runtime.open(toOnnx(graph(take).outputs));
      return session.run(feeds);
    }),
  );
  for (const name of ["taken", "slope"]) {
    const [early, late] = found.map((f) => Array.from(f[name]?.data as Float32Array)) as [number[], number[]];
    expect(early).toHaveLength(late.length);
    early.forEach((v, i) => {
      expect(v).toBeCloseTo(late[i] as number, 4);
    });
  }
});

test("the last MLP works at the rows that are taken, attention and what it needs at all", () => {
  const sizes = { N: n, M: 2 };
  const cost = (take: (y: Tensor) => Tensor): number => costOf([graph(take).taken], sizes).flops;
  // Behind the last scores are their product with x [n, d], and four with [d, d].
  const spared = 2 * (n - 2) * d * (n + 4 * d);
  expect(cost((y) => gather(y, rows, { unique: true })) - cost((y) => takeRows(y, rows))).toBe(spared);
});

const order = input("order", "int64", ["M"]);

/** Blocks whose values are edited at some rows, the last one in two places: within its MLP and at its end. */
function edited(take: (y: Tensor) => Tensor): Record<string, Tensor> {
  const w = input("w", "float32", [d], { trainable: true });
  const edit = (h: Tensor, i: number): Tensor => {
    const at = input(`at${i}`, "int64", [`E${i}`]);
    const before = gather(h, at, { unique: true });
    return scatterRows(h, at, add(mul(silu(before), w), mul(before, before)));
  };
  const x = edit(mul(input("x", "float32", ["N", d]), w), 0);
  const h = block(x, 1);
  const inner = edit(gemm(rmsNormalization(h, constant(wave(d, 3), [d]), { epsilon: 1e-5 }), matrix(4), {}), 1);
  const taken = take(edit(add(h, gemm(inner, matrix(5), {})), 2));
  const [slope] = gradients(reduceSum(mul(taken, taken), { axes: [0, 1] }), [w]);
  return { taken, slope: slope as Tensor };
}

// Some edited rows are taken, some not, all, or none; and none is edited.
test.each([
  [
    [4, 1],
    [0, 4],
    [1, 2, 4],
  ],
  [[0, 2, 3, 5], [3], [5, 0]],
  [[2], [0, 1], [3, 4, 5]],
  [
    [5, 1],
    [1, 5],
    [0, 1, 2, 3, 4, 5],
  ],
  [[0, 1, 2, 3, 4, 5], [2, 4], [0]],
  [[3, 0], [], []],
])("rows %j of which %j and %j are edited after the last mixing are edited among them", async (read, ...at) => {
  const places = (numbers: readonly number[]) => ({
    shape: [numbers.length],
    data: BigInt64Array.from(numbers, BigInt),
  });
  const found = await Promise.all(
    [(y: Tensor) => takeRows(y, rows, order), (y: Tensor) => gather(y, rows, { unique: true })].map(async (take) => {
      const model = toOnnx(edited(take));
      const session = await runtime.open(model);
      const all = {
        ...feeds,
        rows: places(read),
        order: places(read.map((_, i) => i + 1)),
        at0: places([1, 3]),
        at1: places(at[0] as number[]),
        at2: places(at[1] as number[]),
      };
      return session.run(Object.fromEntries(model.inputs.map(({ name }) => [name, all[name as keyof typeof all]])));
    }),
  );
  for (const name of ["taken", "slope"]) {
    const [early, late] = found.map((f) => f[name]?.data as Float32Array) as [Float32Array, Float32Array];
    expectClose(early, late, 1e-5, name);
  }
});

test("what is edited after the last mixing is made at the rows that are taken", () => {
  const sizes = { N: n, M: 2, E0: 2, E1: 1, E2: 3 };
  const cost = (take: (y: Tensor) => Tensor): number => costOf([edited(take).taken as Tensor], sizes).flops;
  // Behind the last scores are their product with x [n, d], and six with [d, d].
  const spared = 2 * (n - 2) * d * (n + 6 * d);
  expect(cost((y) => gather(y, rows, { unique: true })) - cost((y) => takeRows(y, rows, order))).toBe(spared);
});

test("what no trainable tensor reaches is made in full", () => {
  const w = input("w", "float32", [d], { trainable: true });
  const frozen = silu(gemm(input("x", "float32", ["N", d]), matrix(1), {}));
  const taken = takeRows(add(frozen, mul(input("y", "float32", ["N", d]), w)), rows);
  expect(topological([taken]).some((t) => t === frozen)).toBe(true);
});

test("a product by columns is no product by rows, even of square matrices", async () => {
  const x = input("x", "float32", ["N", "N"]);
  const taken = takeRows(gemm(x, x, { transA: true }), rows);
  const session = await runtime.open(toOnnx({ taken }));
  const square = wave(9, 0);
  const run = await session.run({
    x: { shape: [3, 3], data: square },
    rows: { shape: [1], data: BigInt64Array.of(1n) },
  });
  const at = (i: number, j: number): number => square[3 * i + j] as number;
  const found = run.taken?.data ?? [];
  [0, 1, 2].forEach((j) => {
    const expected = [0, 1, 2].reduce((sum, k) => sum + at(k, 1) * at(k, j), 0);
    expect(Number(found[j])).toBeCloseTo(expected, 5);
  });
});

test("of what mixes rows, or is given, the rows are taken as they are", () => {
  const given = input("x", "float32", ["N", d]);
  const flat = reshape(input("z", "float32", ["N", 2, 2]), { shape: ["N", d] });
  for (const y of [given, flat]) {
    const { source } = takeRows(y, rows);
    expect(source.kind === "op" && source.op === gather.spec && source.inputs[0] === y).toBe(true);
  }
});
