/** Beam search against transformers and pyreft, and pyvene's modes of editing a generation. */

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { readTokenizerFiles } from "../src/files/tokenizer-node.js";
import { type BeamSearchOptions, searchBeams } from "../src/generate/beams.js";
import type { EditOptions } from "../src/generate/edits.js";
import { generateTokens, type TokenOptions } from "../src/generate/generate.js";
import { PrefixMemory } from "../src/generate/prefix.js";
import { type Generative, releaseSessions } from "../src/generate/sessions.js";
import { generate, stream } from "../src/generate/text.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { interventionClass } from "../src/reft/interventions.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { Tokenizer } from "../src/tokens/tokenizer.js";
import { expectClose, golden, goldenFloats, goldenJson, tolerance } from "./support.js";

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime();
});
afterAll(() => runtime.dispose());

async function open(name: string): Promise<CausalLM> {
  const checkpoint = await openCheckpoint(golden(`families/${name}`));
  return new CausalLM({ id: name, revision: undefined, checkpoint, runtime });
}

interface Training {
  readonly model: string;
  readonly intervention: string;
  readonly options: { act_fn?: "relu" | "gelu"; add_bias?: boolean };
  readonly rank: number;
  readonly positions: string;
  readonly share: boolean;
  readonly editLayers: number[];
}

/** A recorded edited model before its training. */
async function edited(name: string): Promise<ReftModel> {
  const g = goldenJson<Training>(`training/${name}.json`);
  const Kind = interventionClass(g.intervention);
  const { act_fn: actFn, add_bias: addBias } = g.options;
  const own = { ...(actFn === undefined ? {} : { actFn }), ...(addBias === undefined ? {} : { addBias }) };
  const representations = g.editLayers.map((layer) => ({
    layer,
    component: "block_output",
    intervention: new Kind({ embedDim: 32, lowRankDimension: g.rank, ...own }),
  }));
  const config = { representations, positions: g.positions, shareWeights: g.share };
  const model = await open(g.model);
  const keys = new ReftModel(model, config).edits.map((e) => e.key);
  const values = Object.fromEntries(
    [...goldenFloats(`training/${name}.safetensors`)].flatMap(([key, { data }]) => {
      const [at, edit, ...rest] = key.split(".");
      return at === "initial" ? [[`${keys[Number(edit)]}.${rest.join(".")}`, data]] : [];
    }),
  );
  return new ReftModel(model, config, { values });
}

interface Setting {
  readonly num_beams: number;
  readonly num_return_sequences: number;
  readonly early_stopping?: boolean | "never";
  readonly length_penalty?: number;
  readonly min_new_tokens?: number;
  readonly repetition_penalty?: number;
}
interface Case {
  readonly setting: Setting;
  readonly ends: number[];
  readonly prompt: number[];
  readonly mode?: keyof typeof modeOptions;
  /** [edits][places] */
  readonly locations?: number[][];
  readonly beams: { ids: number[]; score: number }[];
}
interface Mode {
  readonly mode: keyof typeof modeOptions;
  readonly prompts: number[][];
  /** [edits][rows][places] */
  readonly locations: number[][][] | null;
  readonly ids: number[][];
}
const recorded = goldenJson<{
  newTokens: number;
  window: [number, number];
  plain: Record<string, Case[]>;
  edited: Record<string, Case[]>;
  modes: Record<string, Mode[]>;
}>("generate/beams.json");

/** pyvene's modes in our words; "rows" has locations of its own. */
const modeOptions = {
  prompt: {},
  everywhere: { positions: "all", onGenerated: true },
  generated: { onPrompt: false, onGenerated: true },
  window: { onPrompt: false, onGenerated: recorded.window },
  rows: {},
} as const satisfies Record<string, EditOptions>;

function placesOf({ mode, locations, prompts }: Mode): EditOptions {
  if (mode !== "rows") return {};
  return { locations: prompts.map((_, row) => (locations ?? []).map((rows) => rows[row] as number[])) };
}

function optionsOf({ setting: s, ends }: Case): BeamSearchOptions {
  return {
    maxNewTokens: recorded.newTokens,
    eosTokenIds: ends,
    numBeams: s.num_beams,
    numReturnSequences: s.num_return_sequences,
    earlyStopping: s.early_stopping ?? false,
    lengthPenalty: s.length_penalty ?? 1,
    minNewTokens: s.min_new_tokens ?? 0,
    repetitionPenalty: s.repetition_penalty ?? 1,
  };
}

function expectBeams(found: Awaited<ReturnType<typeof searchBeams>>[number] | undefined, c: Case): void {
  expect(found?.map(({ ids }) => ids)).toEqual(c.beams.map(({ ids }) => ids));
  c.beams.forEach(({ ids, score }, i) => {
    expectClose([found?.[i]?.score ?? Number.NaN], [score], tolerance.model, "score");
    expect(found?.[i]?.finish).toBe(c.ends.includes(ids.at(-1) as number) ? "eos" : "length");
  });
}

const families = goldenJson<{ newTokens: number; cases: Record<string, { prompt: number[]; beams: number[] }[]> }>(
  "generate/ids.json",
);

test.each(Object.entries(families.cases))("%s: three beams, alone and together", async (name, answers) => {
  const model = await open(name);
  const options = { maxNewTokens: families.newTokens, numBeams: 3, eosTokenIds: [] };
  const prompts = answers.map((a) => a.prompt);
  const together = await searchBeams(model, prompts, options);
  expect(together.map(([best]) => best?.ids)).toEqual(answers.map((a) => a.beams));
  for (const [i, prompt] of prompts.entries())
    expect((await searchBeams(model, [prompt], options))[0]?.[0]?.ids).toEqual(together[i]?.[0]?.ids);
  await releaseSessions(model);
});

describe.each(Object.entries(recorded.plain))("%s, with end tokens", (name, cases) => {
  test.each(cases.map((c) => [JSON.stringify(c.setting), c] as const))("%s", async (_, c) => {
    const model = await open(name);
    const options = optionsOf(c);
    const [alone] = await searchBeams(model, [c.prompt], options);
    expectBeams(alone, c);
    const others = [[9, 1, 30, 4, 50, 2], [7]];
    const [, beside] = await searchBeams(model, [others[0] as number[], c.prompt, others[1] as number[]], options);
    expect(beside?.map(({ ids }) => ids)).toEqual(alone?.map(({ ids }) => ids));
    await releaseSessions(model);
  });
});

describe.each(Object.entries(recorded.edited))("%s: beams as pyreft's", (name, cases) => {
  const pairs = cases.flatMap((c, i) => (i % 2 === 0 ? [[c, cases[i + 1] as Case] as const] : []));
  test.each(pairs.map(([a, b]) => [`${a.mode} ${JSON.stringify(a.setting)}`, a, b] as const))("%s", async (_, a, b) => {
    const reft = await edited(name);
    const { mode = "prompt" } = a;
    const options = { ...optionsOf(a), ...modeOptions[mode] };
    for (const c of [a, b]) expectBeams((await searchBeams(reft, [c.prompt], options))[0], c);
    const locations = [a.locations as number[][], b.locations as number[][]];
    const placed = mode === "prompt" ? { ...options, locations } : options;
    const together = await searchBeams(reft, [a.prompt, b.prompt], placed);
    expectBeams(together[0], a);
    expectBeams(together[1], b);
    await releaseSessions(reft);
    await releaseSessions(reft.model);
  });
});

async function idsOf(target: Generative, prompts: readonly (readonly number[])[], options: TokenOptions) {
  const rows: number[][] = prompts.map(() => []);
  for await (const step of generateTokens(target, prompts, options))
    for (const { row, id } of step) rows[row]?.push(id);
  return rows;
}

describe.each(Object.entries(recorded.modes))("%s", (name, modes) => {
  test.each(modes.map((m) => [m.mode, m] as const))("pyvene's mode: %s", async (_, m) => {
    const reft = await edited(name);
    const options: Omit<TokenOptions, "memory" | "stopWhen"> = {
      ...modeOptions[m.mode],
      ...placesOf(m),
      maxNewTokens: recorded.newTokens,
      eosTokenIds: [],
    };
    expect(await idsOf(reft, m.prompts, options)).toEqual(m.ids);
    for (const [row, prompt] of m.prompts.entries()) {
      const { locations, ...rest } = options;
      const own = locations === undefined ? rest : { ...rest, locations: locations.slice(row, row + 1) };
      expect(await idsOf(reft, [prompt], own)).toEqual([m.ids[row]]);
      // One beam, which no other can overtake, goes the way of the likeliest token.
      expect((await searchBeams(reft, [prompt], own))[0]?.[0]?.ids).toEqual(m.ids[row]);
    }
    await releaseSessions(reft);
    await releaseSessions(reft.model);
  });
});

describe("a window of generated tokens", () => {
  const prompts = [
    [5, 9, 33, 2],
    [40, 11, 8, 23, 50, 6, 17],
  ];

  test("all of them is every token, and it may lie beyond the end", async () => {
    const reft = await edited("llama-loreft-last");
    const options = { maxNewTokens: 8, eosTokenIds: [] };
    const all = await idsOf(reft, prompts, { ...options, onGenerated: true });
    expect(await idsOf(reft, prompts, { ...options, onGenerated: [0, Infinity] })).toEqual(all);
    expect(await idsOf(reft, prompts, { ...options, onGenerated: [0, 7] })).toEqual(all);
    const none = await idsOf(reft, prompts, options);
    expect(await idsOf(reft, prompts, { ...options, onGenerated: [7, 90] })).toEqual(none);
    expect(all).not.toEqual(none);
  });

  test("a conversation goes on from the tokens that were not edited", async () => {
    const reft = await edited("llama-loreft-last");
    const memory = new PrefixMemory();
    const options = { maxNewTokens: 6, onPrompt: false, onGenerated: [2, 4], eosTokenIds: [] } as const;
    const [prompt] = prompts as [number[]];
    const [answer] = await idsOf(reft, [prompt], { ...options, memory });
    const next = [...prompt, ...(answer as number[]), 7];
    expect(await idsOf(reft, [next], { ...options, memory })).toEqual(await idsOf(reft, [next], options));
    expect(memory.reused).toBe(prompt.length + 2);
  });

  test.each([[[3, 3]], [[-1, 2]], [[0.5, 2]], [[4, 1]]] as [[number, number]][])("refuses %j", async (onGenerated) => {
    const reft = await edited("llama-loreft-last");
    await expect(idsOf(reft, prompts, { onGenerated })).rejects.toThrow("which holds no token");
    await expect(idsOf(reft.model, prompts, { onGenerated })).rejects.toThrow("this model has no edits");
  });
});

describe("beams", () => {
  test.each([
    [{ numBeams: 0 }, "numBeams is 0"],
    [{ numBeams: 2.5 }, "numBeams is 2.5"],
    [{ numBeams: 2, numReturnSequences: 3 }, "3 texts cannot come of 2 beams"],
    [{ numReturnSequences: 2 }, "2 texts cannot come of 1 beam."],
    [{ numBeams: 2, lengthPenalty: Number.NaN }, "lengthPenalty is NaN"],
    [{ numBeams: 2, temperature: -0.7, doSample: true }, "temperature -0.7 is out of range"],
  ] as [BeamSearchOptions, string][])("refuses %o", async (options, message) => {
    await expect(searchBeams(await open("llama"), [[1, 2]], options)).rejects.toThrow(message);
  });

  test("more beams than tokens, and a length of one", async () => {
    const model = await open("llama");
    const [many] = await searchBeams(model, [[1, 2]], { numBeams: 70, numReturnSequences: 70, maxNewTokens: 2 });
    expect(many).toHaveLength(70);
    expect(new Set(many?.map(({ ids }) => ids.join())).size).toBe(70);
    const [one] = await searchBeams(model, [[1, 2]], { numBeams: 3, numReturnSequences: 3, maxNewTokens: 1 });
    expect(one?.map(({ ids, finish }) => [ids.length, finish])).toEqual(Array(3).fill([1, "length"]));
  });

  test("an aborted signal gives what was growing", async () => {
    const model = await open("llama");
    expect(await searchBeams(model, [[1, 2]], { numBeams: 2, signal: AbortSignal.abort() })).toEqual([
      [{ ids: [], score: 0 }],
    ]);
  });
});

describe("texts by beams", () => {
  const folder = fileURLToPath(new URL("../models/builtin", import.meta.url));
  const heldOut = readFileSync(`${folder}/examples/held-out.jsonl`, "utf8").trim().split("\n");
  const prompts = heldOut.slice(0, 3).map((line) => (JSON.parse(line) as { prompt: string }).prompt);
  let model: CausalLM;
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    model = new CausalLM({ id: "builtin", revision: undefined, checkpoint: await openCheckpoint(folder), runtime });
    tokenizer = Tokenizer.fromFiles(await readTokenizerFiles(folder));
  });
  const chat = { template: "chat", numBeams: 4 } as const;

  test("the best, and the others behind it", async () => {
    const answers = await generate(model, tokenizer, prompts, { ...chat, numReturnSequences: 3 });
    for (const { text, score, alternatives = [] } of answers) {
      expect(alternatives).toHaveLength(2);
      expect(new Set([text, ...alternatives.map((a) => a.text)]).size).toBe(3);
      const scores = [score, ...alternatives.map((a) => a.score)] as number[];
      expect(scores).toEqual([...scores].sort((a, b) => b - a));
    }
    const one = await generate(model, tokenizer, prompts[1] as string, chat);
    expect(one.text).toBe(answers[1]?.text);
    expect(one).not.toHaveProperty("alternatives");
    const plain = await generate(model, tokenizer, prompts[1] as string, { template: "chat" });
    expect(plain).not.toHaveProperty("score");
  });

  test("stop strings end beams; a stream gives the answer in one piece", async () => {
    const { text } = await generate(model, tokenizer, prompts[0] as string, chat);
    const stop = text.slice(Math.floor(text.length / 2), Math.floor(text.length / 2) + 3);
    const options = { ...chat, earlyStopping: true, stopStrings: stop };
    const stopped = await generate(model, tokenizer, prompts[0] as string, options);
    expect(stopped.text).not.toContain(stop);
    const pieces: string[] = [];
    for await (const piece of stream(model, tokenizer, prompts[0] as string, chat)) pieces.push(piece);
    expect(pieces).toEqual([text]);
  });
});
