/** Graphs as they are written for other devices, run here: the numbers of the processor's, without what those devices lack. */

import { afterAll, beforeAll, expect, test } from "vitest";
import { input } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import { cos, matMul, sin } from "../src/ops/index.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import type { StepResult } from "../src/train/step.js";
import { expectClose } from "./support.js";
import { openTiny, tinyStep, tinyTokens } from "./tiny.js";

let here: Runtime;
beforeAll(() => {
  here = openNodeRuntime({ threads: 1 });
});
afterAll(() => here.dispose());

/** Graphs are written for `device`, whose kernels every processor has too. */
function posingAs(device: string, opened: Buffer[]): Runtime {
  return {
    device,
    open: (model, options) => {
      opened.push(Buffer.from(model.bytes));
      return here.open(model, options);
    },
    allocate: (...values) => here.allocate(...values),
    dispose: () => here.dispose(),
  };
}

const families = ["llama", "llama-bf16", "llama-fp16", "gpt2", "qwen3", "mistral", "llama-rope-yarn"];
test.each(families)("%s written for webgpu trains and writes the same", async (family) => {
  const opened: Buffer[] = [];
  const models = await Promise.all([openTiny(here, family), openTiny(posingAs("webgpu", opened), family)]);
  for (const frozenCache of [false, true]) {
    const [expected, found] = (await Promise.all(models.map((m) => tinyStep(m, frozenCache)))) as [
      StepResult,
      StepResult,
    ];
    expect(Math.abs(found.loss / expected.loss - 1)).toBeLessThan(1e-6);
    for (const [name, gradient] of expected.gradients)
      expectClose(found.gradients.get(name) ?? [], gradient, 1e-5, `gradient of ${name}`);
  }
  const [expected, found] = await Promise.all(models.map(tinyTokens));
  expect(found).toEqual(expected);
  expect(opened.length).toBeGreaterThan(2);
  for (const bytes of opened) expect(bytes.includes("FusedMatMul")).toBe(false);
});

const value = (shape: number[], phase: number) => ({
  shape,
  data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(3 * i + phase)),
});

test("batched products, either way round", async () => {
  const [a, b] = [input("a", "float32", ["B", 2, 4, 4]), input("b", "float32", ["B", 2, 4, 4])];
  const feeds = { a: value([3, 2, 4, 4], 1), b: value([3, 2, 4, 4], 2) };
  const ways = [false, true].flatMap((transA) => [false, true].map((transB) => ({ transA, transB })));
  const outputs = Object.fromEntries(ways.map((way, i) => [`y${i}`, matMul(a, b, way)]));
  const run = async (device: string) => (await here.open(toOnnx(outputs, device))).run(feeds);
  const [expected, found] = await Promise.all(["cpu", "webgpu"].map(run));
  for (const [name, { data }] of Object.entries(expected ?? {}))
    expectClose((found?.[name]?.data ?? []) as Float32Array, data as Float32Array, 1e-6, name);
});

test.each([
  ["a few rows that share a matrix", 3, 5, 4],
  ["a column for each row", 3, 5, 1],
  ["rows of one number", 2, 1, 6],
  ["many rows", 9, 5, 4],
])("batched products of %s", async (_, m, k, n) => {
  const rows = value([2, 3, m, k], 1);
  const [a, b] = [input("a", "float32", ["B", 3, m, k]), input("b", "float32", ["B", 3, k, "N"])];
  const feeds = { a: rows, b: value([2, 3, k, n], 2) };
  const shared = { a: rows, b: value([1, 3, k, n], 3) };
  for (const [right, given] of [
    [b, feeds],
    [input("b", "float32", [1, 3, k, n]), shared],
  ] as const) {
    const expected = Array.from({ length: 2 * 3 * m * n }, (_v, i) => {
      const [head, row, column] = [Math.floor(i / (m * n)), Math.floor(i / n) % m, i % n];
      const of = given.b.data.length === 3 * k * n ? head % 3 : head;
      let sum = 0;
      for (let j = 0; j < k; j++)
        sum += (rows.data[(head * m + row) * k + j] ?? 0) * (given.b.data[(of * k + j) * n + column] ?? 0);
      return sum;
    });
    for (const device of ["cpu", "webgpu"]) {
      const { y } = await (await here.open(toOnnx({ y: matMul(a, right) }, device))).run(given);
      expect(y?.shape).toEqual([2, 3, m, n]);
      expectClose((y?.data ?? []) as Float32Array, expected, 1e-6, device);
    }
  }
});

test("sines and cosines by arithmetic, as far as texts are long", async () => {
  const x = Float32Array.from({ length: 4001 }, (_, i) => (i - 500) * (i % 3 === 0 ? 0.0137 : 16.77));
  const angle = input("angle", "float32", ["N"]);
  const model = toOnnx({ sin: sin(angle), cos: cos(angle) }, "webgpu");
  expect(Buffer.from(model.bytes).includes("Sin")).toBe(false);
  const found = await (await here.open(model)).run({ angle: { shape: [x.length], data: x } });
  // Computed in float64 from the same float32 angles.
  for (const [name, f] of Object.entries({ sin: Math.sin, cos: Math.cos }))
    expectClose((found[name]?.data ?? []) as Float32Array, Array.from(x, f), 3e-7, name);
});
