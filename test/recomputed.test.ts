/** Recomputation changes what is kept, never what is computed. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { input, type Tensor, topological } from "../src/graph/tensor.js";
import { toOnnx } from "../src/onnx/emit.js";
import {
  add,
  concat,
  gradients,
  matMul,
  mul,
  recomputed,
  recomputedByRows,
  recomputedInParts,
  reduceSum,
  slice,
  softmax,
  tanh,
} from "../src/ops/index.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { HostTensor, Runtime } from "../src/runtime/runtime.js";
import { expectClose, float32 } from "./support.js";

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime({ threads: 1 });
});
afterAll(() => runtime.dispose());

async function run(outputs: Record<string, Tensor>, feeds: Record<string, HostTensor>) {
  const session = await runtime.open(toOnnx(outputs));
  const result = await session.run(feeds);
  await session.dispose();
  return result;
}

const x = input("x", "float32", ["N", 3], { trainable: true });
const w = input("w", "float32", [3], { trainable: true });
const c = input("c", "float32", ["N", 3]);

/** Two layers that share the parameter w and a frozen c, x entering below both. */
function loss(wrap: (f: (...h: readonly Tensor[]) => Tensor, h: Tensor) => Tensor): Tensor {
  const layer = (h?: Tensor): Tensor => tanh(add(mul(h as Tensor, w), c));
  const top = wrap(layer, wrap(layer, mul(x, x)));
  return reduceSum(mul(top, c), { axes: [0, 1] });
}

const ways = [
  ["as a whole", recomputed],
  ["by rows", recomputedByRows],
] as const;

test.each(ways)("loss and gradients are the same %s, also by parameters inside and shared", async (_, way) => {
  const plain = loss((f, h) => f(h));
  const again = loss((f, h) => way(f, h));
  const outputs = (l: Tensor): Record<string, Tensor> => {
    const [dx, dw] = gradients(l, [x, w]) as [Tensor, Tensor];
    return { l, dx, dw };
  };
  const feeds = {
    x: float32([2, 3], [0.3, -0.7, 1.1, 0.2, 0.5, -1.3]),
    w: float32([3], [0.9, -0.4, 1.7]),
    c: float32([2, 3], [1, 0.5, -0.25, 2, -1, 0.75]),
  };
  const [a, b] = [await run(outputs(plain), feeds), await run(outputs(again), feeds)];
  for (const name of ["l", "dx", "dw"])
    expectClose(b[name]?.data as Float32Array, a[name]?.data as Float32Array, 1e-6, name);
});

test.each(ways)("the derivative %s uses nothing of the first computation but its inputs", (_, way) => {
  const count = (l: Tensor): number =>
    topological(gradients(l, [x, w])).filter((t) => t.source.kind === "op" && t.source.op.name === "Tanh").length;
  // Two for the values (the second layer's input is the first layer's output) and two again for the derivative.
  expect(count(loss((f, h) => f(h)))).toBe(2);
  expect(count(loss((f, h) => way(f, h)))).toBe(3);
});

/** Four query heads, two key heads: each of a head's parts, an input of as many slices, of fewer, of one; a parameter inside. */
describe.each([1, 2, 4])("in %i parts", (parts) => {
  const q = input("q", "float32", ["B", 4, "T", 2], { trainable: true });
  const k = input("k", "float32", ["B", 2, 2, "T"], { trainable: true });
  const frozen = input("v", "float32", ["B", 1, "T", 2]);
  const inner = input("w", "float32", [2], { trainable: true });
  const attention = (a?: Tensor, b?: Tensor, c?: Tensor): Tensor =>
    matMul(softmax(matMul(mul(a as Tensor, inner), b as Tensor)), c as Tensor);
  /** The same with key heads repeated by hand. */
  const outputs = (y: Tensor): Record<string, Tensor> => {
    const loss = reduceSum(mul(y, tanh(y)), { axes: [0, 1, 2, 3] });
    const [dq, dk, dw] = gradients(loss, [q, k, inner]) as [Tensor, Tensor, Tensor];
    return { y, loss, dq, dk, dw };
  };
  const key = (at: number): Tensor => slice(k, { axis: 1, start: at, end: at + 1 });
  const repeated = concat(key(0), key(0), key(1), key(1), { axis: 1 });
  const plain = outputs(attention(q, repeated, frozen));
  // In two parts, a part's queries are those of one key head; otherwise f sees as many key heads as query heads, or one.
  const inParts = outputs(
    parts === 1
      ? recomputedInParts(attention, 1, q, repeated, frozen)
      : recomputedInParts(attention, parts, q, k, frozen),
  );

  test("value and gradients are those of the whole", async () => {
    const draw = (n: number, seed: number): number[] =>
      Array.from({ length: n }, (_, i) => Math.sin(seed + 1.7 * i * i));
    const feeds = {
      q: float32([2, 4, 3, 2], draw(48, 1)),
      k: float32([2, 2, 2, 3], draw(24, 2)),
      v: float32([2, 1, 3, 2], draw(12, 3)),
      w: float32([2], [0.7, -1.2]),
    };
    const [a, b] = [await run(plain, feeds), await run(inParts, feeds)];
    for (const name of Object.keys(plain)) {
      expect(b[name]?.shape).toEqual(a[name]?.shape);
      expectClose(b[name]?.data as Float32Array, a[name]?.data as Float32Array, 1e-6, name);
    }
  });

  test("for the derivative every part is computed again, after the part before it", () => {
    const count = (name: string, of: Tensor[]): number =>
      topological(of).filter((t) => t.source.kind === "op" && t.source.op.name === name).length;
    const { y, ...rest } = inParts as { y: Tensor };
    expect(count("Softmax", [y])).toBe(parts);
    expect(count("Softmax", [y, ...(Object.values(rest) as Tensor[])])).toBe(2 * parts);
    // Each of a part's three inputs waits for the gradient from above; from the second part on also for the part before it.
    expect(count("After", Object.values(rest) as Tensor[])).toBe(3 + (parts - 1) * 3 * 3);
  });
});

test("in parts that its slices do not go into, or of something frozen", () => {
  const h = input("h", "float32", ["B", 4, 2], { trainable: true });
  const tanhOf = (a?: Tensor): Tensor => tanh(a as Tensor);
  expect(() => recomputedInParts(tanhOf, 3, h)).toThrow("internal: 4 slices do not go into 3 parts");
  const still = recomputedInParts(tanhOf, 2, input("f", "float32", ["B", 4, 2]));
  expect(topological([still]).some((t) => t.source.kind === "op" && t.source.op.name === "Recomputed")).toBe(false);
});
