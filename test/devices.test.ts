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

test("batched products, either way round", async () => {
  const value = (shape: number[], phase: number) => ({
    shape,
    data: Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(3 * i + phase)),
  });
  const [a, b] = [input("a", "float32", ["B", 2, 4, 4]), input("b", "float32", ["B", 2, 4, 4])];
  const feeds = { a: value([3, 2, 4, 4], 1), b: value([3, 2, 4, 4], 2) };
  const ways = [false, true].flatMap((transA) => [false, true].map((transB) => ({ transA, transB })));
  const outputs = Object.fromEntries(ways.map((way, i) => [`y${i}`, matMul(a, b, way)]));
  const run = async (device: string) => (await here.open(toOnnx(outputs, device))).run(feeds);
  const [expected, found] = await Promise.all(["cpu", "webgpu"].map(run));
  for (const [name, { data }] of Object.entries(expected ?? {}))
    expectClose((found?.[name]?.data ?? []) as Float32Array, data as Float32Array, 1e-6, name);
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
