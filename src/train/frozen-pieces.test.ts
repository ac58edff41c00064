/** The layout of frozen work: pieces taken out of a whole run, and put together as other batches need them. */

import { expect, test } from "vitest";
import type { Span } from "../data/collate.js";
import type { HostTensor } from "../runtime/runtime.js";
import { chunkTokens } from "./frozen-keys.js";
import {
  assemble,
  type Entry,
  type FrozenRun,
  type FrozenShape,
  ownPiece,
  ownSize,
  pastPiece,
  pastSize,
  sharedTokens,
} from "./frozen-pieces.js";
import { type Piece, toBFloat16 } from "./frozen-store.js";

const shape: FrozenShape = { widths: [3, 1], pastLayers: [1, 4], kvHeads: 2, headDim: 2, shares: true };
const T = 75;

/** Every number says where it comes from: tensor, example, head, part of the head, token. */
const code = (tensor: number, b: number, head: number, part: number, t: number): number =>
  tensor * 10_000 + b * 2000 + head * 1000 + part * 100 + t;

/** A run of the frozen graph over `size` examples of T tokens. */
function ran(size: number): FrozenRun {
  const fill = (dims: readonly number[], value: (at: number[]) => number): HostTensor => {
    const data = new Float32Array(dims.reduce((a, b) => a * b, 1));
    for (let i = 0; i < data.length; i++) {
      let rest = i;
      const at = dims.map(() => 0);
      for (let d = dims.length - 1; d >= 0; d--) {
        at[d] = rest % (dims[d] as number);
        rest = Math.floor(rest / (dims[d] as number));
      }
      data[i] = value(at);
    }
    return { shape: dims, data };
  };
  const [kv, hd] = [shape.kvHeads, shape.headDim];
  const rows = (tensor: number, width: number): HostTensor =>
    fill([size * T, width], ([row = 0, column = 0]) => code(tensor, Math.floor(row / T), 0, column, row % T));
  const heads = (tensor: number): HostTensor =>
    fill([size, kv, T, hd], ([b = 0, n = 0, t = 0, i = 0]) => code(tensor, b, n, i, t));
  const outputs = {
    "frozen.0": rows(1, 3),
    "frozen.1": rows(2, 1),
    ...Object.fromEntries(
      shape.pastLayers.flatMap((layer) => [
        [`past.keys.${layer}`, heads(layer + 3)],
        [`past.values.${layer}`, heads(layer + 8)],
      ]),
    ),
  };
  return { outputs, length: T };
}

/** A past of one chunk and 3 more, none, two whole chunks, a short one. */
const spans: Span[] = [
  { start: 35, end: 39 },
  { start: 0, end: 3 },
  { start: 64, end: 65 },
  { start: 2, end: 6 },
];
const most = Math.max(...spans.map((s) => s.end - s.start));

function entryOf(run: FrozenRun, b: number, kept: (values: Float32Array) => Piece = (x) => x, of = shape): Entry {
  const span = spans[b] as Span;
  const chunks = Array.from({ length: sharedTokens(span, of) / chunkTokens }, (_, c) =>
    kept(pastPiece(run, b, c * chunkTokens, (c + 1) * chunkTokens, of)),
  );
  return { past: span.start, live: span.end - span.start, chunks, own: kept(ownPiece(run, b, span, of)) };
}

test("pieces have the sizes that are asked for; the past is in chunks where it may be shared", () => {
  const entries = spans.map((_, b) => entryOf(ran(4), b));
  expect(entries.map((e) => e.chunks.map((c) => c.length))).toEqual([[512], [], [512, 512], []]);
  expect(pastSize(chunkTokens, shape)).toBe(512);
  expect(entries.map((e) => e.own.length)).toEqual(spans.map((s) => ownSize(s, shape)));
  expect(ownSize({ start: 35, end: 39 }, shape)).toBe(4 * (3 + 1) + 3 * 2 * (2 * 2 * 2));
  expect(ownSize({ start: 0, end: 3 }, shape)).toBe(3 * 4);
  const alone = { ...shape, shares: false };
  expect(entryOf(ran(1), 0, undefined, alone).chunks).toEqual([]);
  expect(ownSize({ start: 35, end: 39 }, alone)).toBe(4 * (3 + 1) + 35 * 2 * (2 * 2 * 2));
  // Where the step looks back at no layer, there is no past to keep.
  expect(sharedTokens({ start: 64, end: 65 }, { ...shape, pastLayers: [] })).toBe(0);
});

/** Looks at every number of a batch of the examples `order`. */
function expectBatch(feeds: ReturnType<typeof assemble>, order: readonly number[], round = (x: number) => x): void {
  const past = Math.max(...order.map((b) => (spans[b] as Span).start));
  expect(feeds["frozen.0"]?.shape).toEqual([order.length * most, 3]);
  expect(feeds["past.keys.4"]?.shape).toEqual([order.length, 2, past, 2]);
  expect(feeds["past.values.4"]?.shape).toEqual([order.length, 2, past, 2]);
  const expected: Record<string, number[]> = {};
  const put = (name: string, at: number, value: number): void => {
    const list = expected[name] ?? [];
    expected[name] = list;
    list[at] = round(value);
  };
  order.forEach((b, n) => {
    const { start, end } = spans[b] as Span;
    for (const [i, width] of shape.widths.entries())
      for (let t = 0; t < most; t++)
        for (let column = 0; column < width; column++)
          put(
            `frozen.${i}`,
            (n * most + t) * width + column,
            t < end - start ? code(i + 1, b, 0, column, start + t) : 0,
          );
    for (const layer of shape.pastLayers)
      for (let head = 0; head < 2; head++)
        for (let part = 0; part < 2; part++)
          for (let t = 0; t < past; t++) {
            const at = ((n * 2 + head) * past + t) * 2 + part;
            const [key, value] = [layer + 3, layer + 8].map((i) => (t < start ? code(i, b, head, part, t) : 0));
            put(`past.keys.${layer}`, at, key as number);
            put(`past.values.${layer}`, at, value as number);
          }
  });
  expect(Object.keys(feeds).sort()).toEqual(Object.keys(expected).sort());
  for (const [name, values] of Object.entries(expected))
    expect(Array.from(feeds[name]?.data ?? [], Number)).toEqual(values);
}

test.each([
  ["shared", shape],
  ["of its own", { ...shape, shares: false }],
])("a batch is what the examples' tokens were, in any order, zeros where there is none; a past %s", (_, of) => {
  const entries = spans.map((_, b) => entryOf(ran(4), b, undefined, of));
  const pick = (order: readonly number[]): Entry[] => order.map((b) => entries[b] as Entry);
  const order = [2, 0, 1, 3];
  const feeds = assemble(pick(order), of);
  expectBatch(feeds, order);
  // In the memory of a larger batch nothing of it is left.
  const memory = feeds["past.keys.4"]?.data.buffer;
  for (const next of [
    [3, 1, 0],
    [1, 0, 3, 2],
    [0, 3],
  ]) {
    const again = assemble(pick(next), of, feeds);
    expectBatch(again, next);
    expect(again["past.keys.4"]?.data.buffer).toBe(memory);
  }
});

test("memory that did not come back from its run is not used again", () => {
  const entries = [entryOf(ran(4), 0), entryOf(ran(4), 3)];
  const feeds = assemble(entries, shape);
  for (const { data } of Object.values(feeds)) structuredClone(data, { transfer: [data.buffer as ArrayBuffer] });
  expectBatch(assemble(entries, shape, feeds), [0, 3]);
});

test("rows may be longer than the longest needs, and are padded then", () => {
  const entries = [entryOf(ran(4), 0), entryOf(ran(4), 3)];
  const [plain, long] = [assemble(entries, shape), assemble(entries, shape, {}, 9)];
  for (const [name, feed] of Object.entries(long)) {
    const before = plain[name] as (typeof long)[string];
    if (name.startsWith("past")) expect(feed).toEqual(before);
    else {
      const [rows, width] = before.shape as [number, number];
      expect(feed.shape).toEqual([18, width]);
      for (const n of [0, 1])
        expect(feed.data.subarray(n * 9 * width, (n * 9 + rows / 2) * width)).toEqual(
          before.data.subarray((n * rows * width) / 2, ((n + 1) * rows * width) / 2),
        );
    }
  }
});

test("what is kept as bfloat16 comes back as that", () => {
  const entries = spans.map((_, b) => entryOf(ran(4), b, toBFloat16));
  const kept = (x: number): number => {
    const bits = Uint32Array.of((toBFloat16(Float32Array.of(x))[0] as number) << 16);
    return new Float32Array(bits.buffer)[0] as number;
  };
  const order = [2, 0, 1, 3];
  expectBatch(
    assemble(
      order.map((b) => entries[b] as Entry),
      shape,
    ),
    order,
    kept,
  );
});

test("a batch in which none has a past is fed none", () => {
  const entry = entryOf(ran(2), 1);
  expect(Object.keys(assemble([entry, entry], shape))).toEqual(["frozen.0", "frozen.1"]);
});
