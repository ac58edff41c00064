/** Generation against transformers and pyreft: greedy and penalised ids, alone, in batches, with edits, with reused prefixes. */

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { editFeeds } from "../src/generate/edits.js";
import { generateTokens, type TokenOptions } from "../src/generate/generate.js";
import { PrefixMemory } from "../src/generate/prefix.js";
import { argmax } from "../src/generate/sampling.js";
import { type Generative, releaseSessions, sessionsOf } from "../src/generate/sessions.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { interventionClass } from "../src/reft/interventions.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { golden, goldenFloats, goldenJson } from "./support.js";

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime();
});
afterAll(() => runtime.dispose());

async function open(name: string): Promise<CausalLM> {
  return new CausalLM({
    id: name,
    revision: undefined,
    checkpoint: await openCheckpoint(golden(`families/${name}`)),
    runtime,
  });
}

async function idsOf(target: Generative, prompts: readonly (readonly number[])[], options: TokenOptions) {
  const rows: number[][] = prompts.map(() => []);
  for await (const step of generateTokens(target, prompts, options))
    for (const { row, id } of step) rows[row]?.push(id);
  return rows;
}

interface Answer {
  readonly prompt: number[];
  readonly greedy: number[];
  readonly repetitionPenalty: number[];
}

const recorded = goldenJson<{ newTokens: number; cases: Record<string, Answer[]> }>("generate/ids.json");

describe.each(Object.entries(recorded.cases))("%s", (name, answers) => {
  test("equals transformers, alone and in a batch of different lengths", async () => {
    const model = await open(name);
    const prompts = answers.map((a) => a.prompt);
    const maxNewTokens = recorded.newTokens;
    for (const a of answers) {
      expect(await idsOf(model, [a.prompt], { maxNewTokens })).toEqual([a.greedy]);
      expect(await idsOf(model, [a.prompt], { maxNewTokens, repetitionPenalty: 1.3 })).toEqual([a.repetitionPenalty]);
    }
    expect(await idsOf(model, prompts, { maxNewTokens })).toEqual(answers.map((a) => a.greedy));
    expect(await idsOf(model, prompts, { maxNewTokens, repetitionPenalty: 1.3 })).toEqual(
      answers.map((a) => a.repetitionPenalty),
    );
    await releaseSessions(model);
  });
});

interface Training {
  readonly model: string;
  readonly intervention: string;
  readonly options: { act_fn?: "relu" | "gelu"; add_bias?: boolean };
  readonly rank: number;
  readonly positions: string;
  readonly share: boolean;
  readonly link?: number;
  readonly editLayers: number[];
  readonly newTokens: number;
  readonly answers: { prompt: number[]; locations: number[][]; ids: number[] }[];
  readonly answersAfterTraining: { prompt: number[]; locations: number[][]; ids: number[] }[];
}

// Not the linked ones: at linked sites pyvene writes the first site's edited state over every later one.
const edits = ["loreft-last", "loreft-tied", "loreft-untied", "noreft", "consreft", "lobireft", "direft", "nodireft"];
const cases = ["llama", "gpt2"].flatMap((model) => edits.map((edit) => `${model}-${edit}`));

/** The golden's edited model with its weights before ("initial") or after ("final") training. */
async function edited(name: string, when: "initial" | "final"): Promise<{ reft: ReftModel; golden: Training }> {
  const g = goldenJson<Training>(`training/${name}.json`);
  const Kind = interventionClass(g.intervention);
  const { act_fn: actFn, add_bias: addBias } = g.options;
  const representations = g.editLayers.map((layer) => ({
    layer,
    component: "block_output",
    intervention: new Kind({
      embedDim: 32,
      lowRankDimension: g.rank,
      ...(actFn === undefined ? {} : { actFn }),
      ...(addBias === undefined ? {} : { addBias }),
    }),
    ...(g.link === undefined ? {} : { interventionLinkKey: g.link }),
  }));
  const config = { representations, positions: g.positions, shareWeights: g.share };
  const model = await open(g.model);
  const keys = new ReftModel(model, config).edits.map((e) => e.key);
  const values = Object.fromEntries(
    [...goldenFloats(`training/${name}.safetensors`)].flatMap(([key, { data }]) => {
      const [at, edit, ...rest] = key.split(".");
      return at === when ? [[`${keys[Number(edit)]}.${rest.join(".")}`, data]] : [];
    }),
  );
  return { reft: new ReftModel(model, config, { values }), golden: g };
}

describe.each(cases)("%s", (name) => {
  test.each(["initial", "final"] as const)("answers as pyreft does with %s edits on the prompt", async (when) => {
    const { reft, golden: g } = await edited(name, when);
    const answers = when === "initial" ? g.answers : g.answersAfterTraining;
    const options = { maxNewTokens: g.newTokens };
    const expected = answers.map((a) => a.ids);
    for (const a of answers) {
      expect(await idsOf(reft, [a.prompt], options)).toEqual([a.ids]);
      expect(await idsOf(reft, [a.prompt], { ...options, locations: [a.locations] })).toEqual([a.ids]);
    }
    const prompts = answers.map((a) => a.prompt);
    expect(await idsOf(reft, prompts, options)).toEqual(expected);
    expect(await idsOf(reft, prompts, { ...options, locations: answers.map((a) => a.locations) })).toEqual(expected);
    await releaseSessions(reft);
    await releaseSessions(reft.model);
  });
});

/** The next token by a pass over the whole text, without a cache of earlier steps. */
async function uncached(target: Generative, prompt: readonly number[], n: number, at: (length: number) => number[]) {
  const ids = [...prompt];
  for (let i = 0; i < n; i++) {
    const [next] = await idsOf(target, [ids], { maxNewTokens: 1, locations: [[at(ids.length)]] });
    ids.push(...(next as number[]));
  }
  return ids.slice(prompt.length);
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i);

describe("which tokens are edited", () => {
  let reft: ReftModel;
  const prompts = [
    [5, 9, 33, 2],
    [40, 11, 8, 23, 50, 6, 17],
  ];
  beforeAll(async () => {
    reft = (await edited("llama-loreft-last", "final")).reft;
  });

  test("every prompt token and every generated one", async () => {
    const expected = await Promise.all(prompts.map((p) => uncached(reft, p, 8, upTo)));
    expect(await idsOf(reft, prompts, { maxNewTokens: 8, positions: "all", onGenerated: true })).toEqual(expected);
  });

  test("generated tokens only", async () => {
    const after = (p: readonly number[]) => (n: number) => upTo(n).slice(p.length);
    const expected = await Promise.all(prompts.map((p) => uncached(reft, p, 8, after(p))));
    expect(await idsOf(reft, prompts, { maxNewTokens: 8, onPrompt: false, onGenerated: true })).toEqual(expected);
  });

  test("none at all is the frozen model", async () => {
    const frozen = await idsOf(reft.model, prompts, { maxNewTokens: 8 });
    expect(await idsOf(reft, prompts, { maxNewTokens: 8, locations: [[[]], [[]]] })).toEqual(frozen);
    expect(await idsOf(reft, prompts, { maxNewTokens: 8, onPrompt: false })).toEqual(frozen);
    expect(await idsOf(reft, prompts, { maxNewTokens: 8 })).not.toEqual(frozen);
  });

  test("of an edited model's own graphs only the one that reads its prompt is opened: new tokens cost what they cost without", async () => {
    const opened = vi.spyOn(runtime, "open");
    try {
      await idsOf(reft.model, prompts, { maxNewTokens: 200 });
      const intervention = new LoreftIntervention({ embedDim: 32, lowRankDimension: 2 });
      const target = new ReftModel(reft.model, {
        representations: [{ layer: 0, intervention }],
        positions: "f1+l1",
        shareWeights: true,
      });
      opened.mockClear();
      await idsOf(target, prompts, { maxNewTokens: 200 });
      expect(opened).toHaveBeenCalledTimes(1);
      await idsOf(target, prompts, { maxNewTokens: 200, onGenerated: true });
      expect(opened.mock.calls.length).toBeGreaterThan(1);
    } finally {
      opened.mockRestore();
    }
  });

  test("some rows and not others", async () => {
    const [first] = await idsOf(reft.model, prompts.slice(0, 1), { maxNewTokens: 8 });
    const [, second] = await idsOf(reft, prompts, { maxNewTokens: 8 });
    expect(await idsOf(reft, prompts, { maxNewTokens: 8, locations: [[[]], [[6]]] })).toEqual([first, second]);
  });

  test.each([
    [{ locations: [[[4]], [[0]]] }, "location 4 of row 0 does not exist: its prompt has tokens 0–3"],
    [{ locations: [[[0]]] }, "locations are given for 1 rows, there are 2 prompts"],
    [{ locations: [[[0], [0]], [[0]]] }, "row 0 has locations for 2 edits, the model has 1"],
    [{ positions: "x9" }, "cannot be read"],
    [{ maxNewTokens: 0 }, "maxNewTokens is 0"],
    [{ temperature: -1, doSample: true }, "temperature -1 is out of range"],
    [{ memory: new PrefixMemory() }, "a memory serves one prompt, not 2"],
  ] as [TokenOptions, string][])("refuses %o", async (options, message) => {
    await expect(idsOf(reft, prompts, options)).rejects.toThrow(message);
  });

  test("refuses prompts that are empty or of another vocabulary, and edits of a frozen model", async () => {
    await expect(idsOf(reft, [[1], []], {})).rejects.toThrow("prompt 1 has no tokens");
    await expect(idsOf(reft, [[64]], {})).rejects.toThrow("prompt 0 holds the token 64");
    await expect(idsOf(reft.model, prompts, { positions: "l1" })).rejects.toThrow("this model has no edits");
  });
});

test("a long prompt read in pieces, alone or beside others, is the prompt read at once", async () => {
  const { reft } = await edited("llama-loreft-tied", "final");
  const long = Array.from({ length: 2600 }, (_, i) => (i * i * 7 + (i >> 3)) % 64);
  const n = long.length;
  const ids = new BigInt64Array(long.map(BigInt));
  const positions = Int32Array.from(long, (_, i) => i);
  const edits = reft.edits.map(() => [0, 1, 1500, n - 1]);
  const session = await sessionsOf(reft).get("prefill");
  const { logits } = await session.run({
    ids: { shape: [1, n], data: ids },
    positions: { shape: [1, n], data: positions },
    keyPositions: { shape: [1, n], data: positions },
    last: { shape: [1], data: BigInt64Array.of(BigInt(n - 1)) },
    ...editFeeds(reft, [{ edits: edits.map((at) => ({ at })), start: 0 }], n),
  });
  const expected = argmax(logits?.data as Float32Array);
  const [alone] = await idsOf(reft, [long], { maxNewTokens: 4, locations: [edits] });
  expect(alone?.[0]).toBe(expected);
  const other = [4, 9, 1];
  const locations = [[[2]], edits, [[0]]];
  const three = await idsOf(reft, [other, long, other], { maxNewTokens: 4, locations });
  expect(three[1]).toEqual(alone);
  expect(three[0]).toEqual((await idsOf(reft, [other], { maxNewTokens: 4, locations: [[[2]]] }))[0]);
});

describe("packed weights", () => {
  const prompts = [
    [32, 13, 61],
    [8, 51, 2, 30],
  ];

  /** A model that claims `extra` more bytes of weights, and what its sessions were opened with. */
  async function sized(name: string, extra: number): Promise<{ model: CausalLM; opened: string[] }> {
    const checkpoint = await openCheckpoint(golden(`families/${name}`));
    const [first] = checkpoint.weights.values();
    const unused = { ...(first as NonNullable<typeof first>), length: extra };
    const weights = new Map([...checkpoint.weights, ["unused", unused]]);
    const opened: string[] = [];
    const watched: Runtime = {
      device: runtime.device,
      dispose: () => Promise.resolve(),
      allocate: (...values) => runtime.allocate(...values),
      open: (graph, options) => {
        const { prepack = false, fold = false } = options ?? {};
        opened.push(prepack ? (fold ? "widened, packed" : "packed") : "mapped");
        return runtime.open(graph, options);
      },
    };
    return {
      model: new CausalLM({ id: name, revision: undefined, checkpoint: { ...checkpoint, weights }, runtime: watched }),
      opened,
    };
  }

  test.each([
    ["a small model: at once", "llama", 0, 1, 4, "packed"],
    ["a larger one, one row, a short answer: no", "llama", 2 ** 30, 1, 100, "mapped"],
    ["a larger one, one row that may become long: at once", "llama", 2 ** 30, 1, 200, "packed"],
    ["a larger one, many rows: at once", "llama", 2 ** 30, 2, 40, "packed"],
    ["many rows, few tokens: no", "llama", 2 ** 30, 2, 20, "mapped"],
    ["too large to hold twice: no", "llama", 2 ** 33, 2, 140, "mapped"],
    ["16 bits, a small model: at once", "llama-bf16", 0, 1, 4, "widened, packed"],
    ["16 bits, a larger one, one row, a short answer: no", "llama-bf16", 2 ** 29, 1, 60, "mapped"],
    ["16 bits, a larger one, one row that may become long: at once", "llama-bf16", 2 ** 29, 1, 100, "widened, packed"],
    ["16 bits, a larger one, many rows", "llama-bf16", 2 ** 29, 2, 70, "widened, packed"],
    ["16 bits, too large in 32: no", "llama-bf16", 2 ** 31 + 1, 2, 140, "mapped"],
  ] as const)("%s", async (_, name, extra, rows, maxNewTokens, expected) => {
    const { model, opened } = await sized(name, extra);
    const ids = await idsOf(model, prompts.slice(0, rows), { maxNewTokens });
    expect(opened).toEqual(["mapped", expected]);
    expect(ids).toEqual((await idsOf(await open(name), prompts, { maxNewTokens })).slice(0, rows));
    await idsOf(model, prompts.slice(0, rows), { maxNewTokens });
    expect(opened).toEqual(["mapped", expected]);
    await releaseSessions(model);
  });
});

describe("a row's end", () => {
  test("end tokens, a rule of the caller's and the length end each row by itself", async () => {
    const model = await open("llama");
    const prompts = [[32, 13, 61], [8, 51, 2, 30, 18, 42, 48], [5]];
    const whole = await idsOf(model, prompts, { maxNewTokens: 70 });
    const [end, stop] = [whole[0]?.[5] as number, whole[1]?.[2] as number];
    const ended: Record<number, string> = {};
    const rows: number[][] = [[], [], []];
    const stopWhen = (row: number, id: number): boolean => row === 1 && id === stop;
    for await (const step of generateTokens(model, prompts, { maxNewTokens: 70, eosTokenIds: [end], stopWhen }))
      for (const { row, id, finish } of step) {
        rows[row]?.push(id);
        if (finish !== undefined) ended[row] = finish;
      }
    const cut = (ids: number[], at: number): number[] => ids.slice(0, ids.indexOf(at) + 1 || 70);
    expect(rows[0]).toEqual(cut(whole[0] as number[], end));
    expect(rows[1]).toEqual(cut(whole[1] as number[], stop));
    expect(rows[2]).toEqual(cut(whole[2] as number[], end));
    expect(ended[0]).toBe("eos");
    expect(ended[1]).toBe("stop");
    const least = await idsOf(model, prompts.slice(0, 1), { maxNewTokens: 20, minNewTokens: 9, eosTokenIds: [end] });
    expect(least[0]?.slice(0, 9)).not.toContain(end);
  });

  test("an aborted signal ends it between two steps", async () => {
    const model = await open("llama");
    const aborter = new AbortController();
    const seen: number[] = [];
    for await (const [token] of generateTokens(model, [[3, 4]], { maxNewTokens: 50, signal: aborter.signal })) {
      seen.push(token?.id as number);
      if (seen.length === 3) aborter.abort();
    }
    expect(seen).toHaveLength(3);
    expect(await idsOf(model, [[3, 4]], { signal: AbortSignal.abort() })).toEqual([[]]);
  });

  test("learned positions end: asked for more is refused, the default is cut", async () => {
    const model = await open("gpt2");
    const size = model.config.maxPositionEmbeddings;
    const prompt = upTo(size - 2).map((i) => i % 64);
    expect((await idsOf(model, [prompt], {}))[0]).toHaveLength(3);
    await expect(idsOf(model, [prompt], { maxNewTokens: 4 })).rejects.toThrow(`${size} positions, the prompt has`);
    await expect(idsOf(model, [upTo(size + 1).map(() => 1)], {})).rejects.toThrow("Shorten the prompt");
  });

  test("draws are the seed's, and a row's own", async () => {
    const model = await open("llama");
    const options = { maxNewTokens: 12, temperature: 2, topK: 0 };
    const prompts = [
      [7, 8],
      [9, 10, 11],
    ];
    const rows = await idsOf(model, prompts, { ...options, seed: 5 });
    expect(await idsOf(model, prompts, { ...options, seed: 5 })).toEqual(rows);
    expect(await idsOf(model, prompts, { ...options, seed: 6 })).not.toEqual(rows);
    expect(await idsOf(model, prompts.slice(0, 1), { ...options, seed: 5 })).toEqual(rows.slice(0, 1));
  });
});

describe("a prefix kept from the call before", () => {
  const system = [9, 33, 2, 40, 11, 8, 23];

  async function turns(target: Generative, options: TokenOptions) {
    const memory = new PrefixMemory();
    const reused: number[] = [];
    let ids = [...system, 50, 6];
    for (const said of [[17, 3], [21], [22, 60, 61, 4]]) {
      const [fresh] = await idsOf(target, [ids], options);
      const [next] = await idsOf(target, [ids], { ...options, memory });
      expect(next).toEqual(fresh);
      reused.push(memory.reused);
      ids = [...ids, ...(next as number[]), ...said];
    }
    return reused;
  }

  test("the frozen model computes new tokens only", async () => {
    // 9 prompt tokens and 6 new ones, of which the last was never fed back.
    expect(await turns(await open("llama"), { maxNewTokens: 6 })).toEqual([0, 14, 22]);
  });

  test("an edit at the last prompt token: what follows it is computed again", async () => {
    const { reft } = await edited("llama-loreft-last", "final");
    expect(await turns(reft, { maxNewTokens: 6 })).toEqual([0, 8, 16]);
  });

  test("tokens edited alike in both calls are used again, generated ones that were edited are not", async () => {
    const { reft } = await edited("llama-loreft-last", "final");
    expect(await turns(reft, { maxNewTokens: 6, positions: "0,1" })).toEqual([0, 14, 22]);
    expect(await turns(reft, { maxNewTokens: 6, positions: "0,1", onGenerated: true })).toEqual([0, 9, 17]);
    expect(await turns(reft, { maxNewTokens: 6, positions: "all", onGenerated: true })).toEqual([0, 14, 22]);
  });

  test("another beginning, other values of the edit, or angles that depend on the length: nothing is used", async () => {
    const { reft } = await edited("llama-loreft-last", "final");
    const memory = new PrefixMemory();
    const go = async (ids: number[]): Promise<number> => {
      await idsOf(reft, [ids], { maxNewTokens: 4, memory });
      return memory.reused;
    };
    expect(await go(system)).toBe(0);
    expect(await go([1, ...system])).toBe(0);
    expect(await go([1, ...system])).toBe(7);
    for (const parameter of reft.parameters.values()) if (parameter.name.endsWith("bias")) parameter.raw[0] = 0.5;
    expect(await go([1, ...system])).toBe(0);
    expect(await turns(await open("llama-rope-dynamic"), { maxNewTokens: 6 })).toEqual([0, 0, 0]);
  });
});
