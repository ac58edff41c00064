/** The normaliser over a large matrix goes in parts of its rows: the same as at once, with one part's products at a time. */

import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { input, type Tensor, topological, weight } from "../src/graph/tensor.js";
import { gemm, gradients, logSumExp, logSumExpOfProduct, mul, reduceSum } from "../src/ops/index.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { evaluate } from "./gradcheck.js";
import { expectClose, float32 } from "./support.js";

const [rows, width] = [5, 3];
let runtime: Runtime;
let folder: string;
beforeAll(async () => {
  runtime = openNodeRuntime({ threads: 1 });
  folder = await mkdtemp(join(tmpdir(), "reft-log-sum-exp-"));
});
afterAll(async () => {
  await runtime.dispose();
  await rm(folder, { recursive: true });
});

const wave = (n: number, size: number, phase: number): Float32Array =>
  Float32Array.from({ length: n }, (_, i) => size * Math.sin(i * 1.7 + phase));

/** [vocabulary, width] in a file, after some bytes of something else. */
async function matrixOf(vocabulary: number): Promise<Tensor> {
  const path = join(folder, `${vocabulary}.bin`);
  const numbers = wave(vocabulary * width, 1, 0.3);
  await writeFile(path, new Uint8Array([...new Uint8Array(16), ...new Uint8Array(numbers.buffer)]));
  return weight("matrix", [vocabulary, width], { path, offset: 16, length: numbers.byteLength, stored: "float32" });
}

const h = input("h", "float32", ["N", width], { trainable: true });
const g = input("g", "float32", ["N", 1]);

function slope(y: Tensor): Tensor {
  return gradients(reduceSum(mul(y, g), { axes: [0, 1] }), [h])[0] as Tensor;
}

// Below a part, a part and a little, and more than two parts; values that overflow where a maximum is forgotten.
test.each([
  [8_000, 1],
  [8_209, 1],
  [20_001, 1],
  [20_001, 300],
])("%d rows, values up to %d", async (vocabulary, size) => {
  const matrix = await matrixOf(vocabulary);
  const whole = logSumExp(gemm(h, matrix, { transB: true }));
  const inParts = logSumExpOfProduct(h, matrix);
  const outputs = { slope: slope(inParts), y: inParts, wholeSlope: slope(whole), whole };
  const feeds = { h: float32([rows, width], wave(rows * width, size, 1)), g: float32([rows, 1], wave(rows, 1, 2)) };
  const [actual = {}] = await evaluate(runtime, outputs, [feeds]);
  const numbers = (name: string): Float32Array => actual[name]?.data as Float32Array;
  expectClose(numbers("y"), numbers("whole"), 1e-6, "values");
  // A part's weight is e to a difference of normalisers, which are rounded to 6·10⁻⁵ where they are hundreds.
  expectClose(numbers("slope"), numbers("wholeSlope"), size > 1 ? 1e-4 : 1e-6, "gradients");
});

test("no tensor has all rows of a large matrix", async () => {
  const matrix = await matrixOf(20_001);
  const y = logSumExpOfProduct(h, matrix);
  const widest = topological([slope(y), y]).reduce(
    (most, t) => (t.source.kind === "op" ? Math.max(most, Number(t.shape.at(-1))) : most),
    0,
  );
  expect(widest).toBeGreaterThan(1_000);
  expect(widest).toBeLessThan(10_000);
});

test("a part's logits are done with before the next part's are made", async () => {
  const matrix = await matrixOf(40_000);
  const y = logSumExpOfProduct(h, matrix);
  const order = topological([slope(y), y]);
  const products = order.flatMap((t, i) =>
    t.source.kind === "op" && t.source.op.name === "Gemm" ? [{ i, out: t.shape[1] === width }] : [],
  );
  expect(products.map((p) => p.out)).toEqual(products.map((_, i) => i % 2 === 1));
});
