/** Quantised copies in their cache: made once, known again, and made anew whenever they cannot be trusted. */

import { mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { openShard } from "./checkpoint-node.js";
import { quantise } from "./quantise.js";
import { type CodeOptions, type MatrixToCode, openCodes } from "./quantised-node.js";
import { encodeSafetensors } from "./safetensors.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "reft-codes-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const values = Float32Array.from({ length: 6 * 64 }, (_, i) => Math.sin(i));

async function matrices(seed = 0): Promise<MatrixToCode[]> {
  const path = join(folder, "model.safetensors");
  const data = values.map((v) => v + seed);
  await writeFile(path, encodeSafetensors({ a: { shape: [6, 64], data }, b: { shape: [64, 6], data } }));
  const found = await openShard(path);
  return ["a", "b"].map((name) => {
    const place = found.get(name);
    if (place === undefined) throw new Error("the file was not written");
    return { name, place, outputs: 6, inputs: 64, transposed: name === "b" };
  });
}

const options = (over: Partial<CodeOptions> = {}): CodeOptions => ({
  bits: 4,
  blockSize: 32,
  cacheDir: join(folder, "cache"),
  ...over,
});

/** How often a copy is made. */
async function opened(list: readonly MatrixToCode[], over: Partial<CodeOptions> = {}) {
  let made = false;
  const onProgress = (): void => {
    made = true;
  };
  return { codes: await openCodes(list, options({ onProgress, ...over })), made };
}

async function bytesAt({ path, offset, length }: { path: string; offset: number; length: number }): Promise<Buffer> {
  return (await readFile(path)).subarray(offset, offset + length);
}

test("codes and scales are in the file as they are computed, of a turned matrix those of its rows", async () => {
  const { codes } = await opened(await matrices());
  const expected = quantise(values, { bits: 4, blockSize: 32 });
  const a = codes.get("a");
  if (a === undefined) throw new Error("a is missing");
  expect(a.codes.shape).toEqual([6, 2, 16]);
  expect(await bytesAt(a.codes)).toEqual(Buffer.from(expected.codes));
  expect(await bytesAt(a.scales)).toEqual(Buffer.from(expected.scales.buffer));
  const turned = Float32Array.from({ length: 6 * 64 }, (_, i) => values[(i % 64) * 6 + Math.floor(i / 64)] as number);
  const b = codes.get("b");
  if (b === undefined) throw new Error("b is missing");
  expect(await bytesAt(b.codes)).toEqual(Buffer.from(quantise(turned, { bits: 4, blockSize: 32 }).codes));
});

test("a copy is made once for a model, and again for other bits, blocks and weights", async () => {
  const list = await matrices();
  expect((await opened(list)).made).toBe(true);
  expect((await opened(list)).made).toBe(false);
  expect((await opened(list, { bits: 8 })).made).toBe(true);
  expect((await opened(list, { blockSize: 64 })).made).toBe(true);
  expect((await opened(await matrices(0.25))).made).toBe(true);
});

test("weights with the same size and time, but other content, are others", async () => {
  const list = await matrices();
  const path = (list[0] as MatrixToCode).place.path;
  const when = new Date(1_700_000_000_000);
  await utimes(path, when, when);
  await opened(list);
  const others = await matrices(0.5);
  await utimes(path, when, when);
  expect((await opened(others)).made).toBe(true);
});

test("a copy that is cut off, or is something else, is made anew", async () => {
  const list = await matrices();
  const { codes } = await opened(list);
  const path = codes.get("a")?.codes.path ?? "";
  const good = await readFile(path);
  for (const damage of [
    () => truncate(path, good.length - 1),
    () => truncate(path, 20),
    () => writeFile(path, "not a file of codes"),
    () => writeFile(path, encodeSafetensors({ a: { shape: [1], data: Float32Array.of(1) } })),
  ]) {
    await damage();
    expect((await opened(list)).made).toBe(true);
    expect(await readFile(path)).toEqual(good);
  }
});

test("stopped half-way it leaves nothing behind", async () => {
  const list = await matrices();
  const controller = new AbortController();
  const onProgress = (): void => controller.abort(new Error("enough"));
  const asked = openCodes(list, options({ onProgress, signal: controller.signal }));
  await expect(asked).rejects.toThrow("enough");
  expect(await readdir(join(folder, "cache"))).toEqual([]);
  expect((await opened(list)).made).toBe(true);
});

test("weights that are no floats, and a place that cannot be written, are said so", async () => {
  const list = await matrices();
  const whole = list.map((m) => ({ ...m, place: { ...m.place, dtype: "I64" as const } }));
  await expect(openCodes(whole, options())).rejects.toThrow(/the weight "a" of .* is stored as I64/);
  await writeFile(join(folder, "file"), "");
  await expect(openCodes(list, options({ cacheDir: join(folder, "file") }))).rejects.toThrow(/Cannot write .*file/);
});

test("a matrix whose rows no block divides stays as it is", async () => {
  const [a] = (await matrices()) as [MatrixToCode, MatrixToCode];
  const odd = { ...a, outputs: 16, inputs: 24 };
  expect((await openCodes([odd], options())).size).toBe(0);
});
