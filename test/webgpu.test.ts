/** On a graphics card, or a program that stands in for one: the numbers of the processor. Without one nothing can be compared. */

import { afterAll, describe, expect, test } from "vitest";
import { input } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import { mul } from "../src/ops/index.js";
import { availableDevices, openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import type { StepResult } from "../src/train/step.js";
import { expectClose, tolerance } from "./support.js";
import { openTiny, tinyStep, tinyTokens } from "./tiny.js";

/** A runtime there, or undefined where none can be used. */
async function openThere(): Promise<Runtime | undefined> {
  if (!availableDevices().includes("webgpu")) return undefined;
  const runtime = openNodeRuntime({ device: "webgpu" });
  const x = input("x", "float32", [1]);
  try {
    const session = await runtime.open(toOnnx({ y: mul(x, x) }, "webgpu"));
    await session.dispose();
    return runtime;
  } catch (error) {
    await runtime.dispose();
    if (error instanceof Error && error.message.includes("cannot be used on this machine")) return undefined;
    throw error;
  }
}

const there = await openThere();
const here = openNodeRuntime({ threads: 1 });
afterAll(async () => {
  await here.dispose();
  await there?.dispose();
});

describe.skipIf(there === undefined)("on webgpu", () => {
  test.each(["llama", "llama-bf16", "gpt2", "qwen3", "mistral"])("%s trains and writes as here", async (family) => {
    const models = await Promise.all([here, there as Runtime].map((runtime) => openTiny(runtime, family)));
    for (const frozenCache of [false, true]) {
      const [expected, found] = (await Promise.all(models.map((m) => tinyStep(m, frozenCache)))) as [
        StepResult,
        StepResult,
      ];
      expect(Math.abs(found.loss / expected.loss - 1)).toBeLessThan(tolerance.model);
      for (const [name, gradient] of expected.gradients)
        expectClose(found.gradients.get(name) ?? [], gradient, tolerance.model, `gradient of ${name}`);
    }
    const [expected, found] = await Promise.all(models.map(tinyTokens));
    expect(found).toEqual(expected);
  });

  test("two threads use it by turns", async () => {
    const others = [openNodeRuntime({ device: "webgpu" }), openNodeRuntime({ device: "webgpu" })];
    const models = await Promise.all([here, ...others].map((runtime) => openTiny(runtime)));
    const [expected, ...found] = await Promise.all(models.map(tinyTokens));
    for (const tokens of found) expect(tokens).toEqual(expected);
    await Promise.all(others.map((runtime) => runtime.dispose()));
  });
});
