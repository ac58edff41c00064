/** The key/value cache: what each row holds after runs, growth, moves and cuts; that all of its memory is freed. */

import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { openTiny, tinyReft } from "../../test/tiny.js";
import { input, type Tensor } from "../graph/tensor.js";
import type { CausalLM } from "../models/causal-lm.js";
import { toOnnx } from "../onnx/emit.js";
import { add } from "../ops/index.js";
import { openNodeRuntime } from "../runtime/node.js";
import type { HostTensor, Runtime, Session, Store } from "../runtime/runtime.js";
import { searchBeams } from "./beams.js";
import { KeyValueCache } from "./cache.js";
import { generateTokens, type TokenOptions } from "./generate.js";
import { PrefixMemory } from "./prefix.js";
import { releaseSessions } from "./sessions.js";

const shape = { layers: 2, kvHeads: 2, headDim: 3 };
const { layers: L, kvHeads: KV, headDim: HD } = shape;

/** Stores that are not disposed. */
const held = new Set<Store>();
/** Runs that succeed before the runtime breaks. */
let runsLeft = Number.POSITIVE_INFINITY;
let native: Runtime;
let runtime: Runtime;
let model: CausalLM;
/** keys and values as they are fed, and the cache's own as rows. */
let identity: Session;
let reading: Session;

beforeAll(async () => {
  native = openNodeRuntime({ threads: 1 });
  runtime = {
    device: native.device,
    open: async (...values) => {
      const session = await native.open(...values);
      return {
        run: (...fed) => (runsLeft-- > 0 ? session.run(...fed) : Promise.reject(new Error("the run broke"))),
        dispose: () => session.dispose(),
      };
    },
    allocate: (...values) => {
      const store = native.allocate(...values);
      const dispose = store.dispose.bind(store);
      held.add(store);
      return Object.assign(store, {
        dispose: () => {
          held.delete(store);
          dispose();
        },
      });
    },
    dispose: () => native.dispose(),
  };
  model = await openTiny(runtime);
  const [k, v] = ["k", "v"].map((name) => input(name, "float32", ["B", L * KV, "T", HD])) as [Tensor, Tensor];
  const nothing = input("zero", "float32", []);
  identity = await native.open(toOnnx({ keys: add(k, nothing), values: add(v, nothing) }));
  reading = await native.open(toOnnx({ y: add(input("x", "float32", ["N", "M"]), nothing) }));
});
afterAll(() => native.dispose());
beforeEach(() => {
  runsLeft = Number.POSITIVE_INFINITY;
});
afterEach(async () => {
  await releaseSessions(model);
  expect(held.size, "stores that were not disposed").toBe(0);
});

const zero = { shape: [], data: Float32Array.of(0) };
/** A number that says where it comes from; a value is a half more than a key. */
const code = (text: number, layer: number, head: number, part: number, at: number): number =>
  text * 10_000 + layer * 1000 + head * 100 + part * 10 + at / 100;

/** Adds `counts[i]` tokens of text i of a run over T tokens to the rows `places[i]`; padding is −1. */
async function put(
  cache: KeyValueCache,
  texts: readonly number[],
  counts: readonly number[],
  places = texts.map((_, n) => n),
): Promise<void> {
  const T = Math.max(...counts);
  const B = texts.length;
  const make = (more: number): HostTensor => {
    const data = new Float32Array(B * L * KV * T * HD);
    let n = 0;
    for (let b = 0; b < B; b++)
      for (let lh = 0; lh < L * KV; lh++)
        for (let t = 0; t < T; t++)
          for (let part = 0; part < HD; part++) {
            const from = cache.lengths[places[b] as number] as number;
            const real = t < (counts[b] as number);
            data[n++] = real ? code(texts[b] as number, Math.floor(lh / KV), lh % KV, part, from + t) + more : -1;
          }
    return { shape: [B, L * KV, T, HD], data };
  };
  const [k, v] = [make(0), make(0.5)];
  const taken = texts.map((_, from) => ({ row: places[from] as number, from, count: counts[from] as number }));
  await cache.run(identity, { k, v, zero }, T, taken);
}

/** Each row's text, by its keys and values, every one of which is looked at; and by its key positions. */
async function texts(cache: KeyValueCache): Promise<(readonly [text: number, length: number])[]> {
  const found: (readonly [number, number])[] = [];
  const positions = cache.keyPositions(2).data as Int32Array;
  const past: Record<string, Float32Array> = {};
  for (const [name, fed] of Object.entries(cache.feeds())) {
    const [b, h, m, n] = fed.shape as [number, number, number, number];
    const x = fed.store.view(fed.part, [b * h, m * n]);
    past[name] = (await reading.run({ x, zero })).y?.data as Float32Array;
  }
  const c = cache.capacity;
  for (const [row, length] of cache.lengths.entries()) {
    const text = Math.round((past["past.keys.0"]?.[row * KV * HD * c] as number) / 10_000);
    for (let layer = 0; layer < L; layer++)
      for (let head = 0; head < KV; head++)
        for (let part = 0; part < HD; part++)
          for (let at = 0; at < length; at++) {
            const h = row * KV + head;
            const key = code(text, layer, head, part, at);
            expect(past[`past.keys.${layer}`]?.[(h * c + at) * HD + part]).toBe(Math.fround(key));
            expect(past[`past.values.${layer}`]?.[(h * c + at) * HD + part]).toBe(Math.fround(key + 0.5));
          }
    const own = Array.from(positions.subarray(row * (c + 2), (row + 1) * (c + 2)));
    expect(own.slice(0, length)).toEqual(Array.from({ length }, (_, i) => i));
    expect(own.slice(length, c).every((p) => p > 1e6)).toBe(true);
    expect(own.slice(c)).toEqual([length, length + 1]);
    found.push([text, length]);
  }
  return found;
}

describe("rows", () => {
  let cache: KeyValueCache;
  const make = (rows: number, capacity = 4): KeyValueCache => new KeyValueCache(runtime, shape, rows, capacity);
  afterEach(() => {
    cache.dispose();
    // More than once does nothing.
    cache.dispose();
  });

  test("fill from runs of several rows, a token at a time too, and grow", async () => {
    cache = make(3);
    await put(cache, [5, 7, 6], [3, 1, 2], [0, 2, 1]);
    expect(await texts(cache)).toEqual([
      [5, 3],
      [6, 2],
      [7, 1],
    ]);
    await put(cache, [5, 6, 7], [1, 1, 1]);
    expect(cache.capacity).toBe(64);
    cache.reserve(65);
    expect(cache.capacity).toBe(128);
    await put(cache, [5, 6, 7], [70, 1, 1]);
    expect(await texts(cache)).toEqual([
      [5, 74],
      [6, 4],
      [7, 3],
    ]);
  });

  test("go where they are sent: round in a circle, more of them, fewer of them", async () => {
    cache = make(3);
    await put(cache, [1, 2, 3], [1, 2, 3]);
    cache.gather([2, 0, 1]);
    expect(await texts(cache)).toEqual([
      [3, 3],
      [1, 1],
      [2, 2],
    ]);
    cache.gather([1, 1, 0, 2, 0]);
    expect(await texts(cache)).toEqual([
      [1, 1],
      [1, 1],
      [3, 3],
      [2, 2],
      [3, 3],
    ]);
    cache.gather([4, 3]);
    expect(await texts(cache)).toEqual([
      [3, 3],
      [2, 2],
    ]);
    cache.reserve(65);
    cache.remove(0);
    expect(await texts(cache)).toEqual([[2, 2]]);
    cache.remove(0);
    expect(cache.rows).toBe(0);
  });

  test("are cut, and go on from there", async () => {
    cache = make(2);
    await put(cache, [1, 2], [4, 3]);
    cache.truncate(0, 1);
    await put(cache, [1], [2], [0]);
    expect(await texts(cache)).toEqual([
      [1, 3],
      [2, 3],
    ]);
    expect(() => cache.truncate(0, 4)).toThrow("internal: cannot cut 3 cached tokens to 4");
  });

  test("take over another cache's", async () => {
    cache = make(2);
    await put(cache, [1], [2], [0]);
    const alone = make(1, 100);
    await put(alone, [8], [90]);
    cache.adopt(1, alone);
    alone.dispose();
    expect(await texts(cache)).toEqual([
      [1, 2],
      [8, 90],
    ]);
  });

  test("have no room beyond the capacity; a failed run is remembered", async () => {
    cache = make(1);
    await expect(put(cache, [1], [65])).rejects.toThrow("internal: 0 + 65 tokens in a cache of 64");
    expect(cache.intact).toBe(true);
    await expect(cache.run(identity, { zero }, 1, [{ row: 0, from: 0, count: 1 }])).rejects.toThrow("onnxruntime");
    expect([cache.intact, cache.lengths]).toEqual([false, [0]]);
  });
});

describe("memory is freed", () => {
  const prompts = [
    [3, 1, 4, 1, 5],
    [9, 2, 6],
  ];
  const all = async (options: TokenOptions, texts: readonly number[][] = prompts): Promise<number> => {
    let steps = 0;
    for await (const _ of generateTokens(tinyReft(model), texts, { maxNewTokens: 80, eosTokenIds: [], ...options }))
      steps++;
    return steps;
  };
  const beams = (options = {}) =>
    searchBeams(model, prompts, { numBeams: 3, maxNewTokens: 70, eosTokenIds: [], ...options });

  test("at the end, and by a reader that leaves", async () => {
    expect(await all({})).toBe(80);
    for await (const _ of generateTokens(model, prompts, { maxNewTokens: 9 })) break;
    await generateTokens(model, prompts).return();
  });

  test("after an abort: before, and between two tokens", async () => {
    expect(await all({ signal: AbortSignal.abort() })).toBe(0);
    const stop = new AbortController();
    const stopWhen = (_row: number): boolean => {
      stop.abort();
      return false;
    };
    expect(await all({ signal: stop.signal, stopWhen })).toBe(1);
  });

  test.each([0, 1, 3])("after a run that fails, when %i succeeded", async (runs) => {
    runsLeft = runs;
    await expect(all({})).rejects.toThrow("the run broke");
    runsLeft = runs;
    await expect(beams()).rejects.toThrow("the run broke");
  });

  test("when the caller's own rule throws", async () => {
    const stopWhen = (): boolean => {
      throw new Error("the rule broke");
    };
    await expect(all({ stopWhen })).rejects.toThrow("the rule broke");
    await expect(beams({ stopWhen })).rejects.toThrow("the rule broke");
  });

  test("by beams, to the end and aborted", async () => {
    expect(await beams()).toHaveLength(2);
    await beams({ signal: AbortSignal.abort() });
    const stop = new AbortController();
    const stopWhen = (): boolean => {
      stop.abort();
      return false;
    };
    await beams({ signal: stop.signal, stopWhen });
  });

  test("of long prompts read alone, also when a piece of them fails", async () => {
    const long = Array.from({ length: 1500 }, (_, i) => i % 60);
    expect(await all({ maxNewTokens: 1 }, [[1, 2], long])).toBe(1);
    for (const runs of [0, 1, 2]) {
      runsLeft = runs;
      await expect(all({ maxNewTokens: 1 }, [[1, 2], long])).rejects.toThrow("the run broke");
    }
  });

  test("that a conversation kept, when its next prompt fails, begins otherwise, or another call kept its own", async () => {
    const memory = new PrefixMemory();
    const [prompt] = prompts as [number[]];
    const next = [...prompt, 7, 8];
    await all({ memory, maxNewTokens: 1 }, [prompt]);
    expect(held.size).toBe(2);
    runsLeft = 0;
    await expect(all({ memory, maxNewTokens: 1 }, [next])).rejects.toThrow("the run broke");
    runsLeft = Number.POSITIVE_INFINITY;
    expect(held.size).toBe(0);
    await Promise.all([all({ memory, maxNewTokens: 3 }, [prompt]), all({ memory, maxNewTokens: 3 }, [next])]);
    expect(held.size).toBe(2);
    // Kept by another run of the same edits; of other edits nothing holds.
    await all({ maxNewTokens: 1 }, [prompt]);
    memory.take(tinyReft(model), [1, 2, 3], [{ at: [] }] as never)?.dispose();
  });
});
