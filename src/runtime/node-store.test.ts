/** Memory beside the sessions: fed, filled by runs, copied, freed; what goes wrong arrives where it is used. */

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { Worker } from "node:worker_threads";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { UserError } from "../errors.js";
import { input } from "../graph/tensor.js";
import { toOnnx } from "../onnx/emit.js";
import { add } from "../ops/index.js";
import { openNodeRuntime } from "./node.js";
import type { Block, HostTensor, Runtime, Session, Store } from "./runtime.js";

let runtime: Runtime;
/** y = x + z */
let sum: Session;
beforeAll(async () => {
  runtime = openNodeRuntime({ threads: 1 });
  sum = await runtime.open(toOnnx({ y: add(input("x", "float32", ["N"]), input("z", "float32", ["N"])) }));
});
afterAll(async () => {
  await sum.dispose();
  await runtime.dispose();
});
afterEach(() => {
  vi.restoreAllMocks();
});

const floats = (...values: number[]): HostTensor => ({ shape: [values.length], data: Float32Array.from(values) });
const row = (over: Partial<Block>): Block => {
  return { runs: 1, length: 1, from: 0, fromStride: 0, to: 0, toStride: 0, ...over };
};

/** The first n numbers of a part. */
async function read(store: Store, part: number, n: number): Promise<number[]> {
  const { y } = await sum.run({ x: store.view(part, [n]), z: floats(...new Array<number>(n).fill(0)) });
  return Array.from(y?.data ?? [], Number);
}

/** Puts numbers at the beginning of every part: part p gets those from p·n on. */
async function fill(store: Store, ...values: number[]): Promise<void> {
  const n = values.length / store.parts;
  const keeps = { y: { store, partStride: n, blocks: [row({ length: n })] } };
  const outputs = await sum.run({ x: floats(...values), z: floats(...values.map(() => 0)) }, keeps);
  expect(outputs).toEqual({});
}

test("is zeros at first, and holds what outputs put there, part by part", async () => {
  const store = runtime.allocate(2, 4);
  expect(await read(store, 1, 4)).toEqual([0, 0, 0, 0]);
  await fill(store, 1, 2, 3, 4);
  expect([await read(store, 0, 4), await read(store, 1, 4)]).toEqual([
    [1, 2, 0, 0],
    [3, 4, 0, 0],
  ]);
  store.dispose();
});

test("outputs go where their blocks say: single numbers and runs, with strides", async () => {
  const store = runtime.allocate(1, 8);
  const blocks = [
    row({ runs: 3, length: 1, from: 0, fromStride: 2, to: 1, toStride: 3 }),
    row({ runs: 2, length: 2, from: 1, fromStride: 1, to: 2, toStride: 3 }),
  ];
  await sum.run({ x: floats(1, 2, 3, 4, 5), z: floats(0, 0, 0, 0, 0) }, { y: { store, partStride: 5, blocks } });
  expect(await read(store, 0, 8)).toEqual([0, 1, 2, 3, 3, 3, 4, 5]);
  store.dispose();
});

test("later runs see what earlier calls did, without waiting for them", async () => {
  const [a, b] = [runtime.allocate(1, 4), runtime.allocate(1, 4)];
  await fill(a, 1, 2, 3, 4);
  b.copy(a, [row({ length: 3, from: 1 })]);
  // Within one store too, to a place that overlaps.
  b.copy(b, [row({ length: 3, to: 1 })]);
  const found = read(b, 0, 4);
  a.dispose();
  expect(await found).toEqual([2, 2, 3, 4]);
  b.dispose();
});

test("nothing is written outside: blocks beyond a part, other parts and larger views are ours to refuse", async () => {
  const [store, other, wide] = [runtime.allocate(1, 4), runtime.allocate(2, 4), runtime.allocate(1, 8)];
  const at =
    (block: Partial<Block>, source = wide) =>
    () =>
      store.copy(source, [row(block)]);
  expect(at({ length: 5 })).toThrow("internal: a block to 0 of a part of 4");
  expect(at({ runs: 2, to: 3, toStride: 1 })).toThrow("internal: a block to 3");
  expect(at({ from: 8 })).toThrow("internal: a block from 8 of a part of 8");
  expect(at({}, other)).toThrow("internal: a copy of 2 parts to 1");
  expect(() => store.view(0, [5])).toThrow("internal: a view [5] of a part of 4");
  const keeps = { y: { store, partStride: 1, blocks: [row({ to: 4 })] } };
  await expect(sum.run({ x: floats(1), z: floats(1) }, keeps)).rejects.toThrow("internal: a block to 4");
  expect(at({ runs: 0, length: 99 })).not.toThrow();
  for (const s of [store, other, wide]) s.dispose();
});

describe("failures arrive with the run that needs the memory, and stop no other", () => {
  test("memory that cannot be had", async () => {
    const store = runtime.allocate(2, 2 ** 40);
    const copy = runtime.allocate(2, 4);
    copy.copy(store, [row({})]);
    for (const s of [store, copy]) {
      const failure = await read(s, 0, 1).catch((error: Error) => error);
      expect(failure).toBeInstanceOf(UserError);
      expect((failure as Error).message).toContain("8796094 MB of memory for keys and values cannot be had.");
    }
    const keeps = { y: { store, partStride: 1, blocks: [] } };
    await expect(sum.run({ x: floats(1), z: floats(1) }, keeps)).rejects.toThrow("cannot be had");
    expect((await sum.run({ x: floats(1), z: floats(1) })).y?.data).toEqual(Float32Array.of(2));
    for (const s of [store, copy]) s.dispose();
  });

  test("a store that was disposed, also twice, and a copy of it", async () => {
    const [store, copy] = [runtime.allocate(1, 4), runtime.allocate(1, 4)];
    store.dispose();
    store.dispose();
    copy.copy(store, [row({})]);
    store.copy(copy, [row({})]);
    await expect(read(store, 0, 1)).rejects.toThrow("the store was disposed");
    await expect(read(copy, 0, 1)).rejects.toThrow("a store was copied that was disposed");
    copy.dispose();
  });

  test("a store of another runtime, or of none", async () => {
    const other = openNodeRuntime({ threads: 1 });
    const store = other.allocate(1, 4);
    await expect(read(store, 0, 1)).rejects.toThrow("the store was disposed");
    const none = { parts: 1, length: 4, view: store.view, copy: store.copy, dispose: store.dispose };
    expect(() => runtime.allocate(1, 4).copy(none, [])).toThrow("a store of another runtime");
    await other.dispose();
    // Nothing is asked of a thread that has ended.
    other.allocate(1, 4).dispose();
    store.dispose();
  });

  test("a run that fails leaves a store as it was", async () => {
    const store = runtime.allocate(1, 2);
    await fill(store, 1, 2);
    const keeps = { y: { store, partStride: 2, blocks: [row({ length: 2 })] } };
    await expect(sum.run({ x: floats(7, 8), z: floats(1, 2, 3) }, keeps)).rejects.toThrow("onnxruntime");
    expect(await read(store, 0, 2)).toEqual([1, 2]);
    store.dispose();
  });
});

test("what nobody can reach any more is freed", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const posted = vi.spyOn(Worker.prototype, "postMessage");
  const actions = (name: string): number[] =>
    posted.mock.calls.flatMap(([m]) => (m.action === name ? [m.id as number] : []));
  // In a function of its own, so that no variable here holds it.
  await (async () => read(runtime.allocate(1, 4), 0, 4))();
  const [id] = actions("allocate");
  expect(id).toBeDefined();
  for (let i = 0; i < 50 && !actions("free").includes(id as number); i++) {
    collect();
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  expect(actions("free")).toContain(id);
});
