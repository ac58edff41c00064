/** Frozen work by tokens: asked for once, shared where texts begin alike, found by what kept it. */

import { afterEach, expect, test } from "vitest";
import type { Span } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import { FrozenCache } from "./frozen-cache.js";
import { chunkTokens } from "./frozen-keys.js";
import type { FrozenShape } from "./frozen-pieces.js";
import { FrozenStore, type FrozenStoreOptions } from "./frozen-store.js";

const stores: FrozenStore[] = [];
afterEach(async () => {
  for (const store of stores.splice(0)) await store.dispose();
});

const sequence = (...inputIds: number[]): Sequence => ({ inputIds, locations: [[0]] });
const shape: FrozenShape = { widths: [1], pastLayers: [0], kvHeads: 1, headDim: 1, shares: true };

/** A cache over a frozen graph whose rows and keys are the tokens, its values their negatives; and what it was asked. */
async function counting(options: Partial<FrozenStoreOptions> = {}) {
  const store = new FrozenStore({ memory: 1e6, ...options });
  stores.push(store);
  const asked: (readonly Sequence[])[] = [];
  const shelf = await store.shelf({ graph: Uint8Array.of(1), files: [], device: "cpu" });
  const cache = new FrozenCache(shape, shelf, (sequences) => {
    asked.push(sequences);
    const length = Math.max(...sequences.map((s) => s.inputIds.length));
    const all = sequences.flatMap(({ inputIds }) => [
      ...inputIds,
      ...new Array<number>(length - inputIds.length).fill(-1),
    ]);
    const tensor = (data: Float32Array) => ({ shape: [], data });
    const tokens = Float32Array.from(all);
    return Promise.resolve({
      outputs: {
        "frozen.0": tensor(tokens),
        "past.keys.0": tensor(tokens),
        "past.values.0": tensor(tokens.map((x) => -x)),
      },
      length,
    });
  });
  /** The last `live` tokens of each are live. */
  const feeds = async (live: number, ...sequences: Sequence[]) => {
    const spans = sequences.map(({ inputIds }): Span => ({ start: inputIds.length - live, end: inputIds.length }));
    return cache.feeds(sequences, spans, live);
  };
  return { feeds, asked, cache };
}

test("asks for each missing example once, and keeps a batch that comes again", async () => {
  const { feeds, asked } = await counting();
  const [a, b] = [sequence(1), sequence(2)];
  expect((await feeds(1, a, b, a))["frozen.0"]?.data).toEqual(Float32Array.of(1, 2, 1));
  expect(asked).toEqual([[a, b]]);
  const again = await feeds(1, b, a);
  expect(again["frozen.0"]?.data).toEqual(Float32Array.of(2, 1));
  expect(await feeds(1, b, a)).toBe(again);
  // Another object with the same tokens is the same work.
  expect((await feeds(1, sequence(2)))["frozen.0"]?.data).toEqual(Float32Array.of(2));
  expect(asked).toHaveLength(1);
});

test("a beginning that texts share is kept once, and each text's own is its own", async () => {
  // Room for the beginning once and a little: twice would not fit, and be asked for again.
  const beginning = Array.from({ length: 2 * chunkTokens }, (_, i) => i + 1);
  const { feeds, asked } = await counting({ memory: 4 * 2 * beginning.length + 200, disk: 0 });
  const texts = [[90, 91, 92], [80, 81], [70]].map((rest) => sequence(...beginning, ...rest));
  for (let round = 0; round < 2; round++)
    for (const text of texts) {
      const fed = await feeds(1, text);
      const past = text.inputIds.slice(0, -1);
      expect(Array.from(fed["past.keys.0"]?.data ?? [], Number)).toEqual(past);
      expect(Array.from(fed["past.values.0"]?.data ?? [], Number)).toEqual(past.map((x) => -x));
      expect(Array.from(fed["frozen.0"]?.data ?? [], Number)).toEqual(text.inputIds.slice(-1));
    }
  expect(asked.flat()).toEqual(texts);
});

test("keeps nothing where there is no room, and asks again", async () => {
  const { feeds, asked } = await counting({ memory: 0, disk: 0 });
  const [a, b] = [sequence(1, 2), sequence(2, 3)];
  for (let i = 0; i < 2; i++)
    for (const text of [a, b]) expect((await feeds(1, text))["frozen.0"]?.data[0]).toBe(text.inputIds[1]);
  expect(asked).toEqual([[a], [b], [a], [b]]);
});

test("an error of the frozen graph is the batch's, and the next try may succeed", async () => {
  const store = new FrozenStore({ memory: 1000 });
  stores.push(store);
  const shelf = await store.shelf({ graph: Uint8Array.of(1), files: [], device: "cpu" });
  let broken = true;
  const cache = new FrozenCache({ ...shape, pastLayers: [] }, shelf, () => {
    if (broken) return Promise.reject(new Error("broke"));
    return Promise.resolve({ outputs: { "frozen.0": { shape: [1, 1], data: Float32Array.of(5) } }, length: 1 });
  });
  const one = [[sequence(5)], [{ start: 0, end: 1 }], 1] as const;
  await expect(cache.feeds(...one)).rejects.toThrow("broke");
  broken = false;
  expect((await cache.feeds(...one))["frozen.0"]?.data).toEqual(Float32Array.of(5));
});
