/** Forbidden tokens and typical sampling against transformers: greedy, by beams, and one step's probabilities. */

import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { searchBeams } from "../src/generate/beams.js";
import { forbid } from "../src/generate/forbidden.js";
import { generateTokens } from "../src/generate/generate.js";
import type { BeamOptions, GenerateOptions } from "../src/generate/options.js";
import { candidates, GREEDY, penaliseRepetition } from "../src/generate/sampling.js";
import { releaseSessions } from "../src/generate/sessions.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { expectClose, golden, goldenJson, tolerance } from "./support.js";

/** transformers' words. */
interface Options {
  readonly no_repeat_ngram_size?: number;
  readonly bad_words_ids?: number[][];
  readonly suppress_tokens?: number[];
  readonly min_new_tokens?: number;
  readonly repetition_penalty?: number;
  readonly typical_p?: number;
  readonly temperature?: number;
  readonly top_k?: number;
  readonly top_p?: number;
  readonly min_p?: number;
  readonly num_beams?: number;
  readonly num_return_sequences?: number;
}
interface Case {
  readonly options: Options;
  readonly end: number | null;
  readonly prompt: number[];
}
const recorded = goldenJson<{
  newTokens: number;
  cases: Record<
    string,
    {
      greedy: (Case & { ids: number[] })[];
      beams: (Case & { beams: { ids: number[]; score: number }[] })[];
    }
  >;
  probabilities: {
    logits: number[];
    context: number[];
    cases: { settings: Options; probabilities: number[] }[];
  };
}>("generate/forbidden.json");

let runtime: Runtime;
beforeAll(() => {
  runtime = openNodeRuntime();
});
afterAll(() => runtime.dispose());

function optionsOf({ options: o, end }: Case): GenerateOptions & BeamOptions {
  return {
    maxNewTokens: recorded.newTokens,
    eosTokenIds: end === null ? [] : [end],
    noRepeatNgramSize: o.no_repeat_ngram_size ?? 0,
    badWordsIds: o.bad_words_ids ?? [],
    suppressTokens: o.suppress_tokens ?? [],
    minNewTokens: o.min_new_tokens ?? 0,
    repetitionPenalty: o.repetition_penalty ?? 1,
    numBeams: o.num_beams ?? 1,
    numReturnSequences: o.num_return_sequences ?? 1,
  };
}

async function idsOf(model: CausalLM, prompts: readonly number[][], options: GenerateOptions): Promise<number[][]> {
  const rows: number[][] = prompts.map(() => []);
  for await (const step of generateTokens(model, prompts, options)) for (const { row, id } of step) rows[row]?.push(id);
  return rows;
}

describe.each(Object.entries(recorded.cases))("%s", (name, { greedy, beams }) => {
  let model: CausalLM;
  beforeAll(async () => {
    const checkpoint = await openCheckpoint(golden(`families/${name}`));
    model = new CausalLM({ id: name, revision: undefined, checkpoint, runtime });
  });
  afterAll(() => releaseSessions(model));

  test("greedy answers are transformers', alone and beside another prompt", async () => {
    for (const c of greedy) {
      expect(await idsOf(model, [c.prompt], optionsOf(c)), JSON.stringify(c.options)).toEqual([c.ids]);
      const [own] = await idsOf(model, [c.prompt, [1, 2, 3, 4, 5]], optionsOf(c));
      expect(own).toEqual(c.ids);
    }
  });

  test("beams are transformers'", async () => {
    for (const c of beams) {
      const [found] = await searchBeams(model, [c.prompt], optionsOf(c));
      expect(
        found?.map(({ ids }) => ids),
        JSON.stringify(c.options),
      ).toEqual(c.beams.map(({ ids }) => ids));
      expectClose(
        found?.map(({ score }) => score) ?? [],
        c.beams.map(({ score }) => score),
        tolerance.model,
        "scores",
      );
    }
  });

  test("draws hold to it as well", async () => {
    const options = { maxNewTokens: 30, doSample: true, topK: 4, seed: 3, eosTokenIds: [] };
    const [free] = await idsOf(model, [[5, 6]], options);
    const [ids] = await idsOf(model, [[5, 6]], {
      ...options,
      noRepeatNgramSize: 2,
      suppressTokens: [free?.[0] as number],
    });
    const all = [5, 6, ...(ids ?? [])];
    const pairs = all.slice(1).map((id, i) => `${all[i]} ${id}`);
    expect(new Set(pairs).size).toBe(pairs.length);
    expect(ids).not.toContain(free?.[0]);
    expect(ids).toHaveLength(30);
  });
});

const { logits, context, cases } = recorded.probabilities;
test.each(cases.map((c) => [JSON.stringify(c.settings), c] as const))(
  "one step: %s",
  (_, { settings: s, probabilities }) => {
    const own = Float32Array.from(logits);
    const settings = optionsOf({ options: s, end: null, prompt: context });
    forbid(own, context, 0, { ...(settings as Required<GenerateOptions>), eosTokenIds: new Set() });
    const { ids, probabilities: found } = candidates(penaliseRepetition(own, context, s.repetition_penalty ?? 1), {
      ...GREEDY,
      doSample: true,
      temperature: s.temperature ?? 1,
      topK: s.top_k ?? 0,
      topP: s.top_p ?? 1,
      minP: s.min_p ?? 0,
      typicalP: s.typical_p ?? 1,
    });
    const dense = new Float64Array(logits.length);
    for (const [i, id] of ids.entries()) dense[id] = found[i] as number;
    for (const [id, expected] of probabilities.entries()) {
      expect((dense[id] as number) > 0, `token ${id}`).toBe(expected > 0);
      expect(Math.abs((dense[id] as number) - expected)).toBeLessThan(1e-6);
    }
  },
);

describe("refused:", () => {
  const model = (): Promise<CausalLM> =>
    openCheckpoint(golden("families/llama")).then(
      (checkpoint) => new CausalLM({ id: "llama", revision: undefined, checkpoint, runtime }),
    );
  test.each([
    ["half a token", { noRepeatNgramSize: 1.5 }, /noRepeatNgramSize is 1\.5/],
    ["fewer than none", { noRepeatNgramSize: -1 }, /noRepeatNgramSize is -1/],
    ["an empty word", { badWordsIds: [[3], []] }, /a word of no tokens/],
    [
      "a token that there is not",
      { suppressTokens: [64] },
      /suppressTokens names the token 64: the model has tokens 0–63/,
    ],
    ["a word of such", { badWordsIds: [[1, -1]] }, /badWordsIds names the token -1/],
    ["a share above 1", { typicalP: 1.5 }, /typicalP 1\.5 is out of range/],
  ])("%s", async (_, options, message) => {
    await expect(idsOf(await model(), [[1, 2]], options)).rejects.toThrow(message);
  });
  test("all tokens", async () => {
    const suppressTokens = Array.from({ length: 64 }, (_, id) => id);
    await expect(idsOf(await model(), [[1, 2]], { suppressTokens })).rejects.toThrow(
      /after 2 tokens all 64.*forbidden/,
    );
  });
});
