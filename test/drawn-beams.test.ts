/** Beams that are drawn: against transformers where every draw takes the likeliest, and how often each is drawn. */

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { type BeamSearchOptions, searchBeams } from "../src/generate/beams.js";
import { releaseSessions } from "../src/generate/sessions.js";
import { generate, stream } from "../src/generate/text.js";
import { AutoModelForCausalLM, AutoTokenizer } from "../src/load.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { Random } from "../src/reft/random.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { expectClose, golden, goldenJson, tolerance } from "./support.js";

interface Case {
  readonly setting: {
    readonly num_beams: number;
    readonly num_return_sequences: number;
    readonly early_stopping?: boolean | "never";
    readonly length_penalty?: number;
    readonly min_new_tokens?: number;
    readonly repetition_penalty?: number;
    readonly no_repeat_ngram_size?: number;
    readonly temperature?: number;
    readonly top_k?: number;
    readonly top_p?: number;
    readonly min_p?: number;
    readonly typical_p?: number;
  };
  readonly ends: number[];
  readonly prompt: number[];
  readonly beams: { ids: number[]; score: number }[];
}
const recorded = goldenJson<{ newTokens: number; cases: Record<string, Case[]> }>("generate/drawn-beams.json");

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime();
});
afterAll(() => runtime.dispose());

async function open(name: string): Promise<CausalLM> {
  const checkpoint = await openCheckpoint(golden(`families/${name}`));
  return new CausalLM({ id: name, revision: undefined, checkpoint, runtime });
}

function optionsOf({ setting: s, ends }: Case): BeamSearchOptions {
  return {
    maxNewTokens: recorded.newTokens,
    eosTokenIds: ends,
    doSample: true,
    numBeams: s.num_beams,
    numReturnSequences: s.num_return_sequences,
    earlyStopping: s.early_stopping ?? false,
    lengthPenalty: s.length_penalty ?? 1,
    minNewTokens: s.min_new_tokens ?? 0,
    repetitionPenalty: s.repetition_penalty ?? 1,
    noRepeatNgramSize: s.no_repeat_ngram_size ?? 0,
    temperature: s.temperature ?? 1,
    topK: s.top_k ?? 50,
    topP: s.top_p ?? 1,
    minP: s.min_p ?? 0,
    typicalP: s.typical_p ?? 1,
  };
}

describe.each(Object.entries(recorded.cases))("%s: but for chance, transformers'", (name, cases) => {
  let model: CausalLM;
  beforeAll(async () => {
    model = await open(name);
    // Equal noise: the likeliest are drawn, in their order.
    vi.spyOn(Random.prototype, "uniform").mockReturnValue(0.5);
  });
  afterAll(async () => {
    vi.restoreAllMocks();
    await releaseSessions(model);
  });

  test.each(cases.map((c) => [JSON.stringify(c.setting), c] as const))("%s", async (_, c) => {
    const [found] = await searchBeams(model, [c.prompt], optionsOf(c));
    expect(found?.map(({ ids }) => ids)).toEqual(c.beams.map(({ ids }) => ids));
    expectClose(
      found?.map(({ score }) => score) ?? [],
      c.beams.map(({ score }) => score),
      tolerance.model,
      "scores",
    );
  });
});

describe("several draws of one beam", () => {
  const prompts = ["What does a goat say?", "What color is corn?"];
  test("each prompt's are its own; one that takes the likeliest is the greedy answer", async () => {
    const model = await AutoModelForCausalLM.fromPretrained("builtin");
    const tokenizer = await AutoTokenizer.fromPretrained("builtin");
    const common = { template: "chat", maxNewTokens: 12, numReturnSequences: 3 };
    const greedy = await generate(model, tokenizer, prompts, { ...common, numReturnSequences: 1, doSample: false });
    const same = await generate(model, tokenizer, prompts, { ...common, topK: 1 });
    for (const [i, answer] of same.entries())
      expect([answer, ...(answer.alternatives ?? [])].map(({ text }) => text)).toEqual(Array(3).fill(greedy[i]?.text));
    const wild = await generate(model, tokenizer, prompts, { ...common, temperature: 9, topK: 0 });
    const texts = wild.flatMap((answer) => [answer, ...(answer.alternatives ?? [])].map(({ text }) => text));
    expect(texts).toHaveLength(6);
    expect(new Set(texts).size).toBe(6);
    const pieces: string[] = [];
    const steps = stream(model, tokenizer, prompts[0] as string, { ...common, topK: 1 });
    for await (const piece of steps) pieces.push(piece);
    expect(pieces.join("")).toBe(greedy[0]?.text);
    await expect(generate(model, tokenizer, prompts, { ...common, doSample: false })).rejects.toThrow(
      /3 texts cannot come of 1 beam/,
    );
    await model.dispose();
  });
});

describe("draws", () => {
  const options = { numBeams: 2, numReturnSequences: 2, topK: 3, maxNewTokens: 1, eosTokenIds: [] };

  test("pairs come as often as two draws without putting back give them", async () => {
    const model = await open("llama");
    const [first] = await searchBeams(model, [[5, 9, 2]], {
      numBeams: 3,
      numReturnSequences: 3,
      maxNewTokens: 1,
      eosTokenIds: [],
    });
    const ids = first?.map((text) => text.ids[0] as number) as number[];
    const weights = first?.map(({ score }) => Math.exp(score)) as number[];
    const total = weights.reduce((a, b) => a + b, 0);
    const p = weights.map((w) => w / total);
    const counts = new Map<string, number>();
    const runs = 1500;
    for (let seed = 0; seed < runs; seed++) {
      const [pair] = await searchBeams(model, [[5, 9, 2]], { ...options, seed });
      const key = [...(pair ?? [])]
        .map((text) => ids.indexOf(text.ids[0] as number))
        .sort()
        .join();
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    expect([...counts.keys()].sort()).toEqual(["0,1", "0,2", "1,2"]);
    for (const [a, b] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ] as const) {
      const [x, y] = [p[a] as number, p[b] as number];
      const expected = (x * y) / (1 - x) + (x * y) / (1 - y);
      // Five standard errors.
      const error = Math.abs((counts.get(`${a},${b}`) ?? 0) / runs - expected);
      expect(error, `${a},${b}: ${expected}`).toBeLessThan(5 * Math.sqrt((expected * (1 - expected)) / runs));
    }
    await releaseSessions(model);
  });

  test("are the seed's, and a prompt's own", async () => {
    const model = await open("gpt2");
    const longer = { ...options, topK: 20, temperature: 1.5, maxNewTokens: 8 };
    const one = await searchBeams(model, [[5, 9, 2]], { ...longer, seed: 1 });
    expect(await searchBeams(model, [[5, 9, 2]], { ...longer, seed: 1 })).toEqual(one);
    expect(await searchBeams(model, [[5, 9, 2]], { ...longer, seed: 2 })).not.toEqual(one);
    const [beside] = await searchBeams(
      model,
      [
        [5, 9, 2],
        [7, 7, 1, 4],
      ],
      { ...longer, seed: 1 },
    );
    expect(beside?.map(({ ids }) => ids)).toEqual(one[0]?.map(({ ids }) => ids));
    await releaseSessions(model);
  });
});
