/** Keys of frozen work: the same for what is the same, different for all that makes a difference. */

import { expect, test } from "vitest";
import type { Span } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import { constant, input, type Tensor, weight } from "../graph/tensor.js";
import { add, mul } from "../ops/index.js";
import { chunkTokens, cutOrigin, pieceKeys } from "./frozen-keys.js";

const ids = (n: number, first = 0): number[] => Array.from({ length: n }, (_, i) => first + i);
const sequence = (inputIds: readonly number[], more: Partial<Sequence> = {}): Sequence => {
  return { inputIds, locations: [[0]], ...more };
};
const keysOf = (s: Sequence, span: Span, shared = span.start - (span.start % chunkTokens)) =>
  pieceKeys(s, span, shared);

test("examples that begin alike share the keys of their beginning, and no more", async () => {
  const [start, end] = [70, 80];
  const a = await keysOf(sequence(ids(80)), { start, end });
  const b = await keysOf(sequence([...ids(64), ...ids(30, 500)]), { start: 72, end: 90 });
  const c = await keysOf(sequence([...ids(40), 9, ...ids(60)]), { start, end });
  expect(a.chunks).toHaveLength(2);
  expect(b.chunks).toEqual(a.chunks);
  expect(b.own).not.toBe(a.own);
  // A chunk says all before it: equal tokens after another beginning are others.
  expect(c.chunks[0]).toBe(a.chunks[0]);
  expect(c.chunks[1]).not.toBe(a.chunks[1]);
  const shifted = await keysOf(sequence([...ids(32, 7), ...ids(48, 32)]), { start, end });
  expect(shifted.chunks[1]).not.toBe(a.chunks[1]);
  for (const key of [...a.chunks, a.own]) expect(key).toMatch(/^[0-9a-f]{32}$/);
});

test("an example's own piece is known by tokens, positions and segments; not by labels, edits and what comes after", async () => {
  const span = { start: 4, end: 9 };
  const own = async (s: Sequence, where: Span = span, shared = 0) => (await keysOf(s, where, shared)).own;
  const a = await own(sequence(ids(9)));
  expect(await own(sequence(ids(12), { locations: [[3], [4]], subspaces: [[0]] }))).toBe(a);
  const others = [
    await own(sequence(ids(9, 1))),
    await own(sequence(ids(9)), { start: 5, end: 9 }),
    await own(sequence(ids(9)), { start: 4, end: 8 }),
    await own(sequence(ids(9), { tokenTypeIds: ids(9).map(() => 0) })),
    await own(sequence(ids(9), { tokenTypeIds: ids(9).map((i) => (i < 3 ? 0 : 1)) })),
    // A chunk's key is never an own one's, though the same numbers are hashed.
    await own(sequence([4, 9, 0, ...ids(29)]), span),
  ];
  expect(new Set([a, ...others]).size).toBe(1 + others.length);
  // Long texts too: numbers are not handed over as arguments.
  expect(await own(sequence(ids(300_000)), { start: 0, end: 300_000 })).toMatch(/^[0-9a-f]{32}$/);
});

test("the origin of a cut says its graph, its weights' places and types, and their files", () => {
  const origin = (path: string, offset: number, change: (x: Tensor) => Tensor = (x) => x) => {
    const w = weight("w", [2], { path, offset, length: 8, stored: "float32" });
    return cutOrigin({ "frozen.0": change(mul(input("h", "float32", ["N", 2]), w)) }, "cpu");
  };
  const a = origin("/one/file", 8);
  expect(a.files).toEqual(["/one/file"]);
  expect(origin("/one/file", 8)).toEqual(a);
  const half = (x: Tensor): Tensor => add(x, constant(Float32Array.of(0.5), []));
  for (const other of [origin("/one/file", 16), origin("/other", 8), origin("/one/file", 8, half)])
    expect(other.graph).not.toEqual(a.graph);
});
