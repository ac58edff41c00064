/** Attention in parts, by heads and by stretches of queries: the same numbers as at once, whatever the model; and when it is done. */

import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import type { Example } from "../src/data/example.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { generateTokens } from "../src/generate/generate.js";
import { PrefixMemory } from "../src/generate/prefix.js";
import type * as attention from "../src/models/attention.js";
import { headPartsOf } from "../src/models/attention.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { type Place, widthAt } from "../src/models/site.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { Random } from "../src/reft/random.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { classification } from "../src/train/classification.js";
import { ReftTrainerForDPO } from "../src/train/dpo.js";
import * as parts from "../src/train/parts.js";
import { openStep, openStepOf, type Step, type StepOptions, type StepResult } from "../src/train/step.js";
import { golden } from "./support.js";
import { openTiny, tinyReft } from "./tiny.js";
import { closeAll, open as openClassifier, edits as textEdits, texts } from "./tiny-classifier.js";

/** The numbers of parts asked for; undefined: as the step chooses. */
const wanted = vi.hoisted(() => ({
  parts: undefined as number | undefined,
  queries: undefined as number | undefined,
  asked: [] as object[],
}));
vi.mock("../src/models/attention.js", async (original) => {
  const real = await original<typeof attention>();
  return { ...real, queryPartsFor: (tokens: number) => wanted.queries ?? real.queryPartsFor(tokens) };
});
vi.mock("../src/train/parts.js", async (original) => {
  const real = await original<typeof parts>();
  return {
    ...real,
    headPartsFor: (...values: Parameters<typeof real.headPartsFor>) => {
      wanted.asked.push(values[1]);
      return wanted.parts ?? real.headPartsFor(...values);
    },
  };
});

let native: Runtime;
let runtime: Runtime;
/** How many softmax the graphs have that were opened. */
let opened: number[] = [];
beforeAll(() => {
  native = openNodeRuntime({ threads: 1 });
  runtime = {
    device: native.device,
    open: (model, options) => {
      opened.push(Buffer.from(model.bytes).toString("latin1").split("Softmax").length - 1);
      return native.open(model, options);
    },
    allocate: (...values) => native.allocate(...values),
    dispose: () => native.dispose(),
  };
});
afterAll(async () => {
  await closeAll();
  await native.dispose();
});

const options = (over: Partial<StepOptions> = {}): StepOptions => {
  return { training: true, padTokenId: 0, frozenCache: true, frozenCacheBytes: 1e7, ...over };
};

/** Prompts and answers of so many tokens each; the token edited. */
function examples(...shapes: readonly (readonly [prompt: number, answer: number, at: number])[]): Example[] {
  const random = new Random(9);
  return shapes.map(([prompt, answer, at]) => {
    const inputIds = Array.from({ length: prompt + answer }, () => random.integer(64));
    const labels = inputIds.map((id, t) => (t < prompt ? -100 : id));
    return { inputIds, labels, promptLength: prompt, locations: [[at]] };
  });
}

/** With a past, without, and both. */
const batches = [
  examples([9, 3, 8], [5, 4, 4], [12, 2, 7]),
  examples([6, 3, 0], [4, 2, 0]),
  examples([8, 2, 0], [7, 5, 6]),
];

async function resultsOf<Item>(
  open: () => Promise<Step<Item>>,
  all: readonly (readonly Item[])[],
): Promise<StepResult[]> {
  const step = await open();
  const results: StepResult[] = [];
  for (const items of all) results.push(await step.run(items, 0.1));
  await step.dispose();
  return results;
}

/** ‖a − b‖/‖b‖ ≤ 1e-5 */
function expectSame(a: StepResult, b: StepResult, what: string): void {
  expect(Math.abs(a.loss / b.loss - 1), `${what}: losses ${a.loss} and ${b.loss}`).toBeLessThan(1e-5);
  for (const [name, expected] of b.gradients) {
    const actual = a.gradients.get(name) as Float32Array;
    const off = Math.hypot(...expected.map((x, i) => x - (actual[i] as number)));
    const norm = Math.hypot(...expected);
    if (!(off <= 1e-5 * norm)) expect.fail(`${what}: ${name} is off by ${off} of ${norm}`);
  }
}

/** Compares steps in so many parts, of heads or of queries, with those of all at once. */
async function compare<Item>(
  open: (over: Partial<StepOptions>) => Promise<Step<Item>>,
  all: readonly (readonly Item[])[],
  numbers: readonly number[],
  overs: readonly Partial<StepOptions>[] = [{}],
  of: "parts" | "queries" = "parts",
): Promise<void> {
  try {
    for (const over of overs) {
      wanted.parts = 1;
      wanted.queries = 1;
      const plain = await resultsOf(() => open(over), all);
      for (const n of numbers) {
        wanted[of] = n;
        opened = [];
        const results = await resultsOf(() => open(over), all);
        results.forEach((result, i) => {
          expectSame(result, plain[i] as StepResult, `${JSON.stringify(over)}, ${n} ${of}, batch ${i}`);
        });
      }
    }
  } finally {
    wanted.parts = undefined;
    wanted.queries = undefined;
  }
}

type Sites = readonly (readonly [layer: number, component: Place])[];
function edited(model: CausalLM, sites: Sites): ReftModel {
  const representations = sites.map(([layer, component]) => {
    const embedDim = widthAt(component, model.config);
    return { layer, component, intervention: new LoreftIntervention({ embedDim, lowRankDimension: 2 }) };
  });
  return new ReftModel(model, { representations }, { seed: 7 });
}

describe("losses and gradients do not depend on the number of parts", () => {
  const everywhere: Sites = [
    [0, "block_output"],
    [1, "query_output"],
    [1, "attention_value_output"],
  ];
  const ways = [{}, { frozenCache: false }, { gradientCheckpointing: true }, { training: false }];
  test.each([
    ["llama", everywhere, [2, 4], ways],
    ["llama", [[1, "key_output"]], [4], [{}]],
    ["llama-grouped", everywhere, [2, 4], [{}]],
    ["llama-rope-dynamic", [[0, "block_output"]], [2], [{}]],
    ["gpt2", everywhere, [2], ways.slice(0, 2)],
    ["mistral", everywhere, [4], [{}]],
    ["qwen3", everywhere, [2], [{}]],
  ] as [string, Sites, number[], Partial<StepOptions>[]][])("%s at %j in %j", async (name, sites, numbers, overs) => {
    const reft = edited(await openTiny(runtime, name), sites);
    const open = (over: Partial<StepOptions>) => openStep(reft, options(over));
    await compare(open, batches, numbers, overs);
    await compare(open, batches, [2, 5], overs, "queries");
  });

  test("heads and queries in parts at once", async () => {
    const reft = edited(await openTiny(runtime), everywhere);
    const both = (queries: number, parts: number) => async () => {
      Object.assign(wanted, { queries, parts });
      return openStep(reft, options());
    };
    try {
      const plain = await resultsOf(both(1, 1), batches);
      const results = await resultsOf(both(3, 4), batches);
      results.forEach((result, i) => {
        expectSame(result, plain[i] as StepResult, `batch ${i}`);
      });
    } finally {
      Object.assign(wanted, { queries: undefined, parts: undefined });
    }
  });

  test("an encoder", async () => {
    const reft = textEdits(await openClassifier("encoders/bert", { numLabels: 3 }), [0]);
    const objective = classification(reft.model.classifier, "single_label_classification");
    await compare((over) => openStepOf(objective, reft, options(over)), [texts(4), texts(3, 8)], [2, 4]);
  });

  test("DPO, whose reference attends in parts too", async () => {
    const model = await openTiny(runtime);
    const [chosen, rejected] = [examples([5, 3, 4], [6, 2, 5]), examples([5, 4, 4], [6, 3, 5])];
    const pairs = chosen.map((e, i) => ({ chosen: e, rejected: rejected[i] as Example }));
    const losses = async (n: number): Promise<number[]> => {
      wanted.parts = n;
      opened = [];
      const trainer = new ReftTrainerForDPO({
        model: tinyReft(model),
        tokenizer: { padTokenId: 0 },
        args: { maxSteps: 3, perDeviceTrainBatchSize: 2 },
        trainDataset: pairs,
      });
      const all: number[] = [];
      for await (const event of trainer.run()) if (event.type === "step") all.push(event.loss);
      wanted.parts = undefined;
      return all;
    };
    const [plain, inParts] = [await losses(1), await losses(4)];
    for (const [i, loss] of inParts.entries()) expect(Math.abs(loss / (plain[i] as number) - 1)).toBeLessThan(1e-5);
  });
});

describe("prompts read in stretches", () => {
  const prompt = (length: number, seed: number): number[] => {
    const random = new Random(seed);
    return Array.from({ length }, () => random.integer(64));
  };

  test.each(["llama", "llama-grouped", "gpt2", "mistral", "qwen2-sliding", "llama-rope-dynamic"])(
    "%s continues as where they are read at once, one, several and a conversation",
    async (name) => {
      const target = tinyReft(await openTiny(runtime, name), { layers: [0] });
      const written = async (queries: number): Promise<number[][]> => {
        wanted.queries = queries;
        opened = [];
        const rows: number[][] = [];
        const take = async (prompts: number[][], memory?: PrefixMemory): Promise<void> => {
          const at = rows.length;
          rows.push(...prompts.map(() => []));
          const given = memory === undefined ? {} : { memory };
          const steps = generateTokens(target, prompts, { maxNewTokens: 5, eosTokenIds: [], ...given });
          for await (const step of steps) for (const { row, id } of step) rows[at + row]?.push(id);
        };
        await take([prompt(13, 1)]);
        await take([prompt(7, 2), prompt(12, 3), prompt(3, 4)]);
        const memory = new PrefixMemory();
        await take([prompt(6, 5)], memory);
        await take([[...prompt(6, 5), ...(rows.at(-1) as number[]), ...prompt(7, 6)]], memory);
        return rows;
      };
      try {
        const plain = await written(1);
        expect(plain.map((row) => row.length)).toEqual([5, 5, 5, 5, 5, 5]);
        expect(await written(4)).toEqual(plain);
        expect(Math.max(...opened)).toBeGreaterThanOrEqual(4 * target.model.config.layers);
      } finally {
        wanted.queries = undefined;
      }
    },
  );
});

describe("the number of parts", () => {
  test("of queries is one for short texts, and they are long ones from 256 tokens on", async () => {
    const { queryPartsFor } = await import("../src/models/attention.js");
    expect([1, 255, 256, 5000].map(queryPartsFor)).toEqual([1, 1, 4, 4]);
  });

  test("is one of those that the heads come in", () => {
    expect(headPartsOf({ heads: 9, kvHeads: 3 })).toEqual([1, 3, 9]);
    expect(headPartsOf({ heads: 12, kvHeads: 12 })).toEqual([1, 2, 3, 4, 6, 12]);
    expect(headPartsOf({ heads: 14, kvHeads: 2 })).toEqual([1, 2, 14]);
    expect(headPartsOf({ heads: 32, kvHeads: 4 })).toEqual([1, 4, 8, 16, 32]);
    expect(headPartsOf({ heads: 8, kvHeads: 1 })).toEqual([1, 2, 4, 8]);
    expect(headPartsOf({ heads: 1, kvHeads: 1 })).toEqual([1]);
  });

  test("follows from the size of the scores: one for short texts, the fewest that are small, all heads at most", () => {
    const shape = { heads: 9, kvHeads: 3 };
    const of = (batch: number, live: number, past = 0): number => parts.headPartsFor(shape, { batch, live, past });
    expect([of(8, 128), of(8, 512), of(1, 2048)]).toEqual([1, 1, 1]);
    expect(of(4, 2048)).toBe(3);
    // An edit at the last prompt token: few rows, all keys.
    expect(of(4, 512, 1536)).toBe(1);
    expect(of(4, 4096)).toBe(9);
    expect(of(16, 8192)).toBe(9);
    // Frozen work keeps to a processor's caches.
    const frozen = (live: number): number =>
      parts.headPartsFor(shape, { batch: 1, live, past: 0 }, parts.frozenScoreBytes);
    expect([frozen(256), frozen(512), frozen(1024)]).toEqual([1, 3, 9]);
  });

  test("is asked for with the sizes of each graph's own run, and each graph is opened when first needed", async () => {
    const model = new CausalLM({
      id: "llama",
      revision: undefined,
      checkpoint: await openCheckpoint(golden("families/llama")),
      runtime,
    });
    const reft = edited(model, [[1, "block_output"]]);
    const step = await openStep(reft, options());
    wanted.asked.length = 0;
    opened = [];
    try {
      await step.run(batches[0] as Example[], 0.1);
      expect(wanted.asked).toEqual([
        { batch: 3, live: 13, past: 0 },
        { batch: 3, live: 6, past: 8 },
      ]);
      const one = opened;
      wanted.parts = 4;
      opened = [];
      await step.run(examples([9, 3, 8], [6, 4, 5]), 0.1);
      expect(opened.length).toBe(one.length);
      // A softmax for each part of each layer's heads; the step's graph has the loss's too.
      expect(opened).toEqual(one.map((count, i) => (i === one.length - 1 ? 4 * (count - 1) + 1 : 4 * count)));
      opened = [];
      wanted.parts = 1;
      await step.run(batches[0] as Example[], 0.1);
      expect(opened).toEqual([]);
    } finally {
      wanted.parts = undefined;
      await step.dispose();
    }
  });
});
