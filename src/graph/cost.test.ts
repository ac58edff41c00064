/** Counting a graph, with made-up ops: sizes, operations, bytes. */

import { expect, test } from "vitest";
import { bytesAt, costOf, productWeightBytes, sizeAt } from "./cost.js";
import { plus, times } from "./dim.js";
import { op } from "./op.js";
import { input, type Tensor, type TensorType, weight } from "./tensor.js";

/** Y [M, N] = A [M, K]·B [K, N] */
const product = op<[Tensor, Tensor]>("Product", {
  type: ([a, b]) => ({ dtype: "float32", shape: [(a as TensorType).shape[0] ?? 1, (b as TensorType).shape[1] ?? 1] }),
  flops: ([a], y) => [2, ...y.shape, (a as TensorType).shape[1] ?? 1],
});
const sum = op<[Tensor, Tensor]>("Sum", { type: ([a]) => a as TensorType });
const turned = op<[Tensor]>("Turned", {
  type: ([a]) => ({ dtype: "float32", shape: [...(a as TensorType).shape].reverse() }),
  view: true,
});

const bytes = (length: number, stored: "float32" | "bfloat16" = "float32") => ({
  path: "/w",
  offset: 0,
  length,
  stored,
});

test("a dim is worth what its symbols are, products and sums within each other", () => {
  const sizes = { B: 2, T: 3, P: 5, M0: 0 };
  for (const [dim, worth] of [
    [7, 7],
    ["B", 2],
    [times("B", "T", 4), 24],
    [plus("P", "T", 1), 9],
    [times("B", plus("P", "T")), 16],
    [plus(times(2, "P"), times("B", "T")), 16],
    [times("M0", 64), 0],
  ] as const)
    expect(sizeAt(dim, sizes), String(dim)).toBe(worth);
  expect(() => sizeAt("M1", sizes)).toThrow("internal: the size M1 is not given");
});

test("values have their type's bytes", () => {
  expect(bytesAt({ dtype: "float32", shape: ["B", 3] }, { B: 2 })).toBe(24);
  expect(bytesAt({ dtype: "int64", shape: ["B"] }, { B: 2 })).toBe(16);
  expect(bytesAt({ dtype: "bool", shape: ["B", "B"] }, { B: 2 })).toBe(4);
  expect(bytesAt({ dtype: "float32", shape: [] }, {})).toBe(4);
});

test("a product reads its weight whole each time, another op what it writes; each value is counted once", () => {
  const x = input("x", "float32", ["N", 8]);
  const w = weight("w", [8, 8], bytes(8 * 8 * 4));
  const y = product(x, w);
  const z = product(sum(y, y), w);
  const table = weight("table", [100, 8], bytes(100 * 8 * 2, "bfloat16"));
  const scale = weight("scale", [8], bytes(8 * 4));
  const taken = sum(input("rows", "float32", ["N", 8]), table);
  const outputs = [z, turned(sum(z, scale)), taken];
  const cost = costOf(outputs, { N: 3 });
  expect(productWeightBytes(outputs)).toBe(2 * 256);
  expect(cost.ops).toBe(6);
  expect(cost.flops).toBe(2 * (2 * 3 * 8 * 8));
  // Both products the weight, the scale all of its 8 numbers, and of the table 3 rows of 16-bit numbers.
  expect(cost.weightBytes).toBe(2 * 256 + 32 + 3 * 8 * 2);
  // Five values [3, 8]: the one turned round is the same bytes.
  expect(cost.writtenBytes).toBe(5 * 3 * 8 * 4);
});

test("nothing costs nothing", () => {
  expect(costOf([input("x", "float32", ["N"])], {})).toEqual({ ops: 0, flops: 0, weightBytes: 0, writtenBytes: 0 });
});
