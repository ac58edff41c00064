/** Pieces in memory up to the budget, on disk beyond it; in a folder for later runs, by the weights they come from. */

import { mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { CutOrigin } from "./frozen-keys.js";
import { FrozenStore, type FrozenStoreOptions, toBFloat16 } from "./frozen-store.js";

let folder: string;
let weights: string;
const stores: FrozenStore[] = [];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reft-store-"));
  weights = join(folder, "weights");
  writeFileSync(weights, "the weights");
});
afterEach(async () => {
  vi.unstubAllEnvs();
  for (const store of stores.splice(0)) await store.dispose();
  rmSync(folder, { recursive: true, force: true });
});

const key = (n: number): string => n.toString(16).padStart(32, "0");
const values = (n: number, first: number): Float32Array => Float32Array.from({ length: n }, (_, i) => first + i);
const origin = (over: Partial<CutOrigin> = {}): CutOrigin => {
  return { graph: Uint8Array.of(1, 2), files: [weights], device: "cpu", ...over };
};

function open(options: Partial<FrozenStoreOptions> = {}): FrozenStore {
  const store = new FrozenStore({ memory: 100, ...options });
  stores.push(store);
  return store;
}

test("what does not fit the budget goes to a file, what is smaller may still fit", async () => {
  const shelf = await open().shelf(origin());
  const kept = [values(20, 1), values(20, 2), values(5, 3), values(1, 4)];
  for (const [n, v] of kept.entries()) expect(await shelf.put(key(n), v)).toBe(v);
  for (const [n, v] of [...kept.entries()].reverse()) expect(await shelf.get(key(n), v.length)).toEqual(v);
  const [a, b, c, d] = await Promise.all(kept.map((v, n) => shelf.get(key(n), v.length)));
  // In memory it is the array itself, from the file another one.
  expect([a, c]).toEqual([kept[0], kept[2]]);
  expect(a).toBe(kept[0]);
  expect(c).toBe(kept[2]);
  expect(b).not.toBe(kept[1]);
  expect(d).not.toBe(kept[3]);
});

test("a piece of another size, or that was not put, is not there", async () => {
  const shelf = await open({ memory: 40 }).shelf(origin());
  await shelf.put(key(1), values(10, 0));
  await shelf.put(key(2), values(10, 5));
  expect(await shelf.get(key(1), 9)).toBeUndefined();
  expect(await shelf.get(key(2), 9)).toBeUndefined();
  expect(await shelf.get(key(3), 10)).toBeUndefined();
});

test("one budget for all cuts; equal cuts share, in memory and on disk, others do not meet", async () => {
  const store = open({ memory: 40 });
  const [a, b] = [await store.shelf(origin()), await store.shelf(origin())];
  const others = [origin({ graph: Uint8Array.of(1) }), origin({ device: "webgpu" }), origin({ files: [] })];
  for (const n of [1, 2]) await a.put(key(n), values(10, n));
  for (const n of [1, 2]) expect(await b.get(key(n), 10)).toEqual(values(10, n));
  for (const other of others) {
    const shelf = await store.shelf(other);
    for (const n of [1, 2]) expect(await shelf.get(key(n), 10)).toBeUndefined();
  }
});

test("bfloat16: the nearest, ties to even, infinities and NaN stay; half the room", async () => {
  const widened = (half: Uint16Array): number[] =>
    Array.from(new Float32Array(Uint32Array.from(half, (b) => b << 16).buffer));
  const given = [1, -2.5, 1 + 2 ** -8, 1 + 3 * 2 ** -8, 1 + 2 ** -8 + 2 ** -20, 0, -0, Infinity, -Infinity, 3.4e38];
  const expected = [1, -2.5, 1, 1 + 2 ** -6, 1 + 2 ** -7, 0, -0, Infinity, -Infinity, Infinity];
  expect(widened(toBFloat16(Float32Array.from(given)))).toEqual(expected);
  // Also a NaN whose digits are all in the lower half.
  for (const bits of [0x7fc00000, 0x7f800001, 0xffffffff])
    expect(widened(toBFloat16(new Float32Array(Uint32Array.of(bits).buffer)))[0]).toBeNaN();
  const shelf = await open({ memory: 40, disk: 0, dtype: "bfloat16" }).shelf(origin());
  const put = await shelf.put(key(1), values(20, 0.3));
  expect(put).toEqual(toBFloat16(values(20, 0.3)));
  expect(await shelf.get(key(1), 20)).toBe(put);
});

test("without a place for a file it keeps what memory holds, and goes on", async () => {
  for (const name of ["TMPDIR", "TEMP", "TMP"]) vi.stubEnv(name, "/nowhere/at/all");
  const shelf = await open({ memory: 40 }).shelf(origin());
  for (const n of [1, 2, 3]) await shelf.put(key(n), values(10, n));
  expect(await shelf.get(key(1), 10)).toEqual(values(10, 1));
  expect(await shelf.get(key(2), 10)).toBeUndefined();
});

test("disposed, it has nothing", async () => {
  const store = open({ memory: 40 });
  const shelf = await store.shelf(origin());
  for (const n of [1, 2]) await shelf.put(key(n), values(10, n));
  await store.dispose();
  for (const n of [1, 2]) expect(await shelf.get(key(n), 10)).toBeUndefined();
  await open().dispose();
});

describe("in a folder", () => {
  const place = (): string => join(folder, "kept");
  const later = (over: Partial<CutOrigin> = {}, options: Partial<FrozenStoreOptions> = {}) =>
    open({ folder: place(), ...options }).shelf(origin(over));
  beforeEach(async () => {
    const shelf = await later();
    // What memory holds is written too.
    for (const n of [1, 2]) await shelf.put(key(n), values(20, n));
  });

  test("a later run finds all, and then has it in memory up to its budget", async () => {
    const shelf = await later();
    for (const n of [1, 2]) expect(await shelf.get(key(n), 20)).toEqual(values(20, n));
    rmSync(place(), { recursive: true });
    expect(await shelf.get(key(1), 20)).toBe(await shelf.get(key(1), 20));
    expect(await shelf.get(key(2), 20)).not.toBe(await shelf.get(key(2), 20));
  });

  test("nothing is found by another graph, device, type or file", async () => {
    const copy = join(folder, "copy");
    writeFileSync(copy, "the weights");
    const others = [{ graph: Uint8Array.of(1, 2, 3) }, { device: "webgpu" }, { files: [] }, { files: [copy] }];
    for (const over of others) expect(await (await later(over)).get(key(1), 20)).toBeUndefined();
    expect(await (await later({}, { dtype: "bfloat16" })).get(key(1), 20)).toBeUndefined();
    expect(await (await later({}, { dtype: "bfloat16" })).get(key(1), 40)).toBeUndefined();
  });

  test("nor after the weights were replaced, or written again", async () => {
    utimesSync(weights, 5, 5);
    expect(await (await later()).get(key(1), 20)).toBeUndefined();
    writeFileSync(weights, "new weights");
    const shelf = await later();
    expect(await shelf.get(key(1), 20)).toBeUndefined();
    await shelf.put(key(1), values(20, 9));
    expect(await (await later()).get(key(1), 20)).toEqual(values(20, 9));
  });

  test("weights that cannot be read leave nothing behind, and stop nothing", async () => {
    const files = readdirSync(place());
    rmSync(weights);
    const shelf = await later();
    await shelf.put(key(1), values(20, 3));
    expect(await shelf.get(key(1), 20)).toEqual(values(20, 3));
    expect(await (await later()).get(key(1), 20)).toBeUndefined();
    expect(readdirSync(place())).toEqual(files);
  });
});
