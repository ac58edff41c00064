/** Preferences against pyreft's edits in torch: DPO with each of its losses, and a reward model; then what a run of pairs must stand. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Example, Sequence } from "../src/data/example.js";
import { makePreferenceDataset } from "../src/data/pairs.js";
import { type PreferenceExample, ReftPreferenceDataset } from "../src/data/preference.js";
import { toRows } from "../src/data/reft-dataset.js";
import { ReftRewardDataset } from "../src/data/reward.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import type { Row } from "../src/files/rows.js";
import { AutoTokenizer } from "../src/load.js";
import type { CausalLM } from "../src/models/causal-lm.js";
import { SequenceClassifier } from "../src/models/classifier.js";
import { weightsFile } from "../src/reft/adapter.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { parsePositions } from "../src/reft/positions.js";
import { Random } from "../src/reft/random.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import type { Tokenizer } from "../src/tokens/tokenizer.js";
import { AdamW } from "../src/train/adamw.js";
import type { TrainingOptions } from "../src/train/arguments.js";
import { DPOObjective, type DPOOptions, ReftTrainerForDPO } from "../src/train/dpo.js";
import type { TrainEvent } from "../src/train/events.js";
import type { Objective } from "../src/train/objective.js";
import { ReftRewardTrainer, reward, rewardsOf } from "../src/train/reward.js";
import { openStepOf } from "../src/train/step.js";
import type { RunOptions } from "../src/train/trainer.js";
import { expectClose, golden, goldenFloats, goldenIntegers, goldenJson } from "./support.js";
import { of, openTiny, timeless, tinyReft, weightsOf } from "./tiny.js";

interface Case {
  readonly model: string;
  readonly beta: number;
  readonly lossType: NonNullable<DPOOptions["lossType"]>;
  readonly labelSmoothing: number;
  readonly layers: readonly number[];
  readonly rank: number;
  readonly lr: number;
  readonly steps: number;
  readonly pairs: readonly (readonly [prompt: number, chosen: number, rejected: number])[];
  readonly losses: readonly number[];
  readonly accuracies: readonly number[];
  readonly margins: readonly number[];
}

let runtime: Runtime;
let model: CausalLM;
let folder: string;
beforeAll(async () => {
  runtime = openNodeRuntime();
  model = await openTiny(runtime);
});
afterAll(() => runtime.dispose());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reft-preference-"));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

async function openScorer(folder = golden("families/llama")): Promise<SequenceClassifier> {
  const name = basename(folder);
  const checkpoint = await openCheckpoint(folder);
  return new SequenceClassifier({ id: name, revision: undefined, checkpoint, runtime }, { numLabels: 1 });
}

const dpoCases = ["dpo", "dpo-gpt2", "dpo-smoothed", "dpo-robust", "dpo-hinge", "dpo-ipo"];
const modes = [...dpoCases, "reward"].flatMap((name) => [true, false].map((frozenCache) => ({ name, frozenCache })));

describe.each(modes)("$name, frozen work once: $frozenCache", ({ name, frozenCache }) => {
  const expected = goldenJson<Case>(`preference/${name}.json`);
  const floats = goldenFloats(`preference/${name}.safetensors`);
  const integers = goldenIntegers(`preference/${name}.safetensors`);

  /** pyreft's weights by our parameter names. */
  function valuesOf(stage: string): Record<string, Float32Array> {
    return Object.fromEntries(
      [...floats].flatMap(([key, t]) => {
        if (!key.startsWith(`${stage}.`)) return [];
        const rest = key.slice(stage.length + 1);
        const at = /^(\d+)\.(.*)$/.exec(rest);
        if (at === null) return [[rest, t.data]];
        return [[`layer_${expected.layers[Number(at[1])]}_comp_block_output_unit_pos_nunit_1#0.${at[2]}`, t.data]];
      }),
    );
  }

  async function open(): Promise<ReftModel> {
    const base = name === "reward" ? await openScorer() : await openTiny(runtime, expected.model);
    const options = { embedDim: base.config.hiddenSize, lowRankDimension: expected.rank };
    const representations = expected.layers.map((layer) => ({ layer, intervention: new LoreftIntervention(options) }));
    return new ReftModel(base, { representations }, { values: valuesOf("initial") });
  }

  function pairs(): PreferenceExample[] {
    const ids = integers.get("input_ids") as { shape: number[]; data: number[] };
    const labels = integers.get("labels")?.data as number[];
    const locations = integers.get("locations") as { shape: number[]; data: number[] };
    const t = ids.shape[1] as number;
    const [, edits, k] = locations.shape as [number, number, number];
    const one = (row: number, promptLength: number, answer: number): Example => ({
      inputIds: ids.data.slice(row * t, row * t + promptLength + answer),
      labels: labels.slice(row * t, row * t + promptLength + answer),
      promptLength,
      locations: expected.layers.map((_, e) => locations.data.slice((row * edits + e) * k, (row * edits + e + 1) * k)),
    });
    return expected.pairs.map(([prompt, chosen, rejected], i) => ({
      chosen: one(2 * i, prompt, chosen),
      rejected: one(2 * i + 1, prompt, rejected),
    }));
  }

  test("loss, rewards, gradients, the loss curve and the final weights are torch's", async () => {
    const reft = await open();
    const objective = (name === "reward" ? reward : new DPOObjective(expected)) as Objective<PreferenceExample>;
    const options = { training: true, padTokenId: 0, frozenCache, frozenCacheBytes: 1e6 };
    const step = await openStepOf(objective, reft, options);
    const data = pairs();
    const optimiser = new AdamW({ weightDecay: 0 });
    const parameters = [...reft.parameters.values()];
    const first = valuesOf("firstGradient");
    for (let i = 0; i <= expected.steps; i++) {
      const { loss, figures, gradients } = await step.run(data, 1 / data.length);
      // Robust losses pass through 0 on their way below it.
      const wanted = expected.losses[i] as number;
      const off = Math.abs(loss - wanted) / Math.max(Math.abs(wanted), 0.1);
      expect(off, `loss ${loss} for ${wanted} at step ${i}`).toBeLessThan(1e-4);
      expect((figures.accuracy as number) / data.length).toBeCloseTo(expected.accuracies[i] as number, 6);
      expect((figures.margin as number) / data.length).toBeCloseTo(expected.margins[i] as number, 3);
      const raw = parameters.map((p) => p.pullback(gradients.get(p.name) as Float32Array));
      if (i === 0)
        parameters.forEach((p, k) => {
          const wanted = first[p.name] ?? first[`${p.name}.parametrizations.weight.original`];
          expectClose(raw[k] as Float32Array, wanted as Float32Array, 1e-4, `gradient of ${p.name}`);
        });
      if (i < expected.steps) optimiser.step(parameters, raw, expected.lr);
    }
    await step.dispose();
    const final = valuesOf("final");
    expect(Object.keys(final).sort()).toEqual([...reft.parameters.keys()].sort());
    for (const p of parameters) expectClose(p.value(), final[p.name] as Float32Array, 1e-3, p.name);
  });
});

/** Pairs with a common prompt, of answers that differ in length too; the last prompt token is edited. */
function tinyPairs(count: number, seed = 1): PreferenceExample[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const prompt = Array.from({ length: 2 + random.integer(7) }, () => random.integer(64));
    const one = (): Example => {
      const answer = Array.from({ length: 2 + random.integer(4) }, () => random.integer(64));
      const inputIds = [...prompt, ...answer];
      const labels = [...prompt.map(() => -100), ...answer];
      return { inputIds, labels, promptLength: prompt.length, locations: [[prompt.length - 1]] };
    };
    return { chosen: one(), rejected: one() };
  });
}

interface PairRun {
  readonly reft: ReftModel;
  readonly args: TrainingOptions;
  readonly data?: readonly PreferenceExample[];
  readonly stopAt?: number;
  readonly resume?: RunOptions["resumeFromCheckpoint"];
}

const kinds = {
  dpo: { open: () => Promise.resolve(model), Trainer: ReftTrainerForDPO },
  reward: { open: () => openScorer(), Trainer: ReftRewardTrainer },
};

async function run(kind: keyof typeof kinds, { reft, args, data = tinyPairs(10), stopAt, resume }: PairRun) {
  const stop = new AbortController();
  const events: TrainEvent[] = [];
  const trainer = new kinds[kind].Trainer({
    model: reft,
    tokenizer: { padTokenId: 0 },
    args,
    trainDataset: data,
    evalDataset: tinyPairs(5, 2),
    callbacks: [(event) => event.type === "step" && event.step === stopAt && stop.abort()],
  });
  const options = { signal: stop.signal, ...(resume === undefined ? {} : { resumeFromCheckpoint: resume }) };
  for await (const event of trainer.run(options)) events.push(event);
  return { trainer, events, weights: weightsOf(reft) };
}

/** As test/tiny.ts makes edits, on any frozen model. */
async function edited(kind: keyof typeof kinds, options: { seed?: number; layers?: readonly number[] } = {}) {
  const { seed = 42, layers = [1] } = options;
  const base = await kinds[kind].open();
  const representations = layers.map((layer) => ({
    layer,
    intervention: new LoreftIntervention({ embedDim: base.config.hiddenSize, lowRankDimension: 2, dropout: 0.2 }),
  }));
  return new ReftModel(base, { representations, positions: "l1" }, { seed }) as ReftModel;
}

const hard: TrainingOptions = {
  numTrainEpochs: 3,
  perDeviceTrainBatchSize: 4,
  gradientAccumulationSteps: 2,
  learningRate: 0.02,
  weightDecay: 0.1,
  loggingSteps: 2,
  evalStrategy: "steps",
  evalSteps: 2,
  loadBestModelAtEnd: true,
};

describe.each(["dpo", "reward"] as const)("a %s run", (kind) => {
  test("tells loss, accuracy and margins, and learns its pairs", async () => {
    const reft = await edited(kind);
    const args = { numTrainEpochs: 30, learningRate: 0.02, evalStrategy: "epoch", loggingSteps: 1 } as const;
    const { trainer, events } = await run(kind, { reft, args });
    for (const e of [...of(events, "step"), ...of(events, "log"), ...of(events, "evaluate")]) {
      expect(Object.keys(e.figures)).toEqual(["accuracy", "margin", "rewardChosen", "rewardRejected"]);
      expect(e.figures.margin).toBeCloseTo((e.figures.rewardChosen ?? 0) - (e.figures.rewardRejected ?? 0), 4);
    }
    expect(of(events, "evaluate")[0]).not.toHaveProperty("perplexity");
    const told = await trainer.evaluate(tinyPairs(10));
    expect(told).toMatchObject({ accuracy: 1, pairs: 10 });
    expect(told.loss).toBeLessThan(0.8 * Math.LN2);
    expect(told.margin).toBeGreaterThan(0);
  });

  test("is the same with and without frozen work kept", async () => {
    const args = { maxSteps: 4, evalStrategy: "steps", evalSteps: 2 } as const;
    const layers = [1, 2];
    const kept = await run(kind, { reft: await edited(kind, { layers }), args });
    const plain = await run(kind, { reft: await edited(kind, { layers }), args: { ...args, frozenCache: false } });
    const losses = (events: readonly TrainEvent[]): number[] =>
      [...of(events, "step"), ...of(events, "evaluate")].map((e) => e.loss);
    expectClose(losses(kept.events), losses(plain.events), 1e-5, "losses");
    const lean = { ...args, gradientCheckpointing: true };
    const again = await run(kind, { reft: await edited(kind, { layers }), args: lean });
    expectClose(losses(again.events), losses(plain.events), 1e-5, "losses with blocks computed again");
  });

  test("stopped at any step and resumed gives the same bytes", async () => {
    const whole = await run(kind, { reft: await edited(kind), args: hard });
    const steps = of(whole.events, "step").length;
    for (let stopAt = 1; stopAt < steps; stopAt += 2) {
      const args = { ...hard, outputDir: join(folder, `${stopAt}`) };
      const first = await run(kind, { reft: await edited(kind), args, stopAt });
      const second = await run(kind, { reft: await edited(kind, { seed: 7 }), args, resume: true });
      expect(second.weights, `stopped at ${stopAt}`).toEqual(whole.weights);
      const kept = (events: readonly TrainEvent[]) =>
        timeless(events.filter((e) => e.type === "step" || e.type === "log" || e.type === "evaluate"));
      expect([...kept(first.events), ...kept(second.events)]).toEqual(kept(whole.events));
    }
  });

  test("does not take up a checkpoint of other pairs", async () => {
    const args = { ...hard, outputDir: folder };
    await run(kind, { reft: await edited(kind), args, stopAt: 2 });
    const other = run(kind, { reft: await edited(kind), args, resume: true, data: tinyPairs(10, 9) });
    await expect(other).rejects.toThrow(/other settings or other data/);
  });

  test("refuses pairs that cannot be learned", async () => {
    const reft = await edited(kind);
    const [good] = tinyPairs(1) as [PreferenceExample];
    const make = (pair: unknown) => () =>
      new kinds[kind].Trainer({
        model: reft,
        tokenizer: { padTokenId: 0 },
        trainDataset: [good, pair as PreferenceExample],
      });
    expect(make({ ...good, rejected: { ...good.chosen } })).toThrow(/\[1\].*the same, so there is nothing to prefer/);
    expect(make({ chosen: good.chosen })).toThrow(/\[1\] has no rejected sequence/);
    const stranger = { ...good.rejected, inputIds: good.rejected.inputIds.map(() => 64) };
    expect(make({ ...good, rejected: stranger })).toThrow(/rejected\[1\] has the token 64; llama has tokens 0–63/);
    expect(make({ ...good, rejected: { ...good.rejected, locations: [[0], [0]] } })).toThrow(/2 lists of locations/);
  });
});

describe("DPO", () => {
  const trainer = (reft: ReftModel, options: DPOOptions = {}, data = tinyPairs(6)) =>
    new ReftTrainerForDPO({ model: reft, tokenizer: { padTokenId: 0 }, trainDataset: data, ...options });

  test("starts at ln 2 with rewards of 0 where the edits change nothing, and its gradient there is not 0", async () => {
    const reft = tinyReft(model, { init: "identity" });
    const told = await trainer(reft).evaluate(tinyPairs(6));
    expect(told.loss).toBeCloseTo(Math.LN2, 5);
    expect([told.margin, told.rewardChosen]).toEqual([expect.closeTo(0, 5), expect.closeTo(0, 5)]);
    const { events } = await run("dpo", { reft, args: { maxSteps: 1 } });
    expect(of(events, "step")[0]?.gradNorm).toBeGreaterThan(1e-3);
  });

  test("asks the model without edits once an example", async () => {
    let runs = 0;
    const counted: Runtime = {
      device: runtime.device,
      open: async (onnx, options) => {
        const session = await runtime.open(onnx, options);
        const reference = onnx.outputs.includes("logProbs");
        return {
          run: (feeds) => {
            if (reference) runs++;
            return session.run(feeds);
          },
          dispose: () => session.dispose(),
        };
      },
      allocate: (...values) => runtime.allocate(...values),
      dispose: () => runtime.dispose(),
    };
    const reft = tinyReft(await openTiny(counted));
    const data = tinyPairs(6);
    await new ReftTrainerForDPO({
      model: reft,
      tokenizer: { padTokenId: 0 },
      args: { numTrainEpochs: 4, perDeviceTrainBatchSize: 3 },
      trainDataset: data,
    }).train();
    // Two batches in the first epoch; the second epoch's batches mix examples that are known.
    expect(runs).toBe(2);
  });

  test("refuses options out of range, and answers without tokens", () => {
    const reft = tinyReft(model);
    expect(() => trainer(reft, { beta: 0 })).toThrow(/beta is 0/);
    expect(() => trainer(reft, { beta: Number.NaN })).toThrow(/beta is NaN/);
    expect(() => trainer(reft, { lossType: "simpo" as "ipo" })).toThrow(/no lossType "simpo".*sigmoid, hinge/s);
    expect(() => trainer(reft, { labelSmoothing: 0.5 })).toThrow(/labelSmoothing is 0.5/);
    expect(() => trainer(reft, { lossType: "ipo", labelSmoothing: 0.1 })).toThrow(/"ipo" has no labelSmoothing/);
    const [pair] = tinyPairs(1) as [PreferenceExample];
    const empty = { ...pair.chosen, labels: pair.chosen.labels.map(() => -100) };
    expect(() => trainer(reft, {}, [{ ...pair, chosen: empty }])).toThrow(/\[0\]: the chosen answer has no tokens/);
  });
});

describe("a reward model", () => {
  test("refuses a model without a score", () => {
    const options = { model: tinyReft(model) as ReftModel, tokenizer: { padTokenId: 0 }, trainDataset: tinyPairs(2) };
    expect(() => new ReftRewardTrainer(options)).toThrow(/no head to score them with.*numLabels: 1/s);
  });

  test("keeps its head with its edits: saved and loaded, the same figures", async () => {
    const reft = await edited("reward");
    const { trainer } = await run("reward", { reft, args: { maxSteps: 5, learningRate: 0.02 } });
    await reft.save(join(folder, "adapter"));
    const again = (await ReftModel.load(join(folder, "adapter"), await openScorer())) as ReftModel;
    expect(Buffer.from(weightsOf(again)).includes("classifier.weight"), weightsFile).toBe(true);
    const other = new ReftRewardTrainer({ model: again, tokenizer: { padTokenId: 0 }, trainDataset: tinyPairs(2) });
    expect(await other.evaluate(tinyPairs(5, 2))).toEqual(await trainer.evaluate(tinyPairs(5, 2)));
  });
});

describe("on the built-in model", () => {
  const talk = { prompt: "What sound does a cow make?", chosen: "🐄 🔊 moo", rejected: "A cow says moo." };
  const built = async () => {
    const base = await openScorer(fileURLToPath(new URL("../models/builtin", import.meta.url)));
    const intervention = new LoreftIntervention({ embedDim: base.config.hiddenSize, lowRankDimension: 2 });
    const tokenizer = await AutoTokenizer.fromPretrained("builtin");
    return { reft: new ReftModel(base, { representations: { layer: 2, intervention } }) as ReftModel, tokenizer };
  };

  test("rewards of answers are those that training saw", async () => {
    const { reft, tokenizer } = await built();
    const answers = [talk.chosen, talk.rejected].map((answer) => ({ prompt: talk.prompt, answer }));
    await expect(rewardsOf(reft, tokenizer, answers)).rejects.toThrow(/does not say which tokens to edit/);
    const positions = parsePositions("l1");
    const { examples } = makePreferenceDataset(toRows([talk]), "pairs", tokenizer, { positions });
    const trainer = new ReftRewardTrainer({ model: reft, tokenizer, positions, trainDataset: examples });
    const { rewardChosen, rewardRejected } = await trainer.evaluate(examples);
    const [chosen, rejected] = await rewardsOf(reft, tokenizer, answers);
    expectClose([chosen as number, rejected as number], [rewardChosen, rewardRejected], 1e-5);
    const empty = rewardsOf(reft, tokenizer, [{ prompt: "", answer: "moo" }], { template: "none" });
    await expect(empty).rejects.toThrow(/answers\[0\]: The prompt has no tokens/);
  });

  test("pyreft's data sets give pairs for both trainers", async () => {
    const { reft, tokenizer } = await built();
    const position = "l1";
    const rows = toRows([talk]);
    const preferences = new ReftPreferenceDataset(rows, "pairs", tokenizer, { position, promptField: "prompt" });
    const rewards = new ReftRewardDataset(rows, "pairs", tokenizer, { position, promptField: "prompt" });
    for (const trainDataset of [preferences.examples, rewards.examples]) {
      const trainer = new ReftRewardTrainer({ model: reft, tokenizer, trainDataset, args: { maxSteps: 1 } });
      expect((await trainer.train()).loss).toBeGreaterThan(0);
    }
    const { examples } = makePreferenceDataset(rows, "pairs", tokenizer, { positions: parsePositions("l1") });
    const sequence = ({ inputIds, locations }: Sequence) => ({ inputIds, locations });
    expect(sequence(rewards.examples[0]?.chosen as Sequence)).toEqual(sequence(examples[0]?.chosen as Sequence));
  });
});

describe("rows of preferences", () => {
  let tokenizer: Tokenizer;
  beforeAll(async () => {
    tokenizer = await AutoTokenizer.fromPretrained("builtin");
  });
  const dataset = (...values: Row["value"][]) =>
    makePreferenceDataset(
      values.map((value, i) => ({ line: i + 1, value })),
      "pairs.jsonl",
      tokenizer,
      { positions: parsePositions("l1") },
    );
  const good = { prompt: "what does a cow say ?", chosen: "moo .", rejected: "woof ." };

  test("share their prompt and its edited token, and differ in the answer", () => {
    const [pair] = dataset(good).examples as [PreferenceExample];
    const { chosen, rejected } = pair;
    expect(chosen.promptLength).toBe(rejected.promptLength);
    expect(chosen.inputIds.slice(0, chosen.promptLength)).toEqual(rejected.inputIds.slice(0, rejected.promptLength));
    expect(chosen.locations).toEqual([[chosen.promptLength - 1]]);
    expect(chosen.inputIds).not.toEqual(rejected.inputIds);
    for (const e of [chosen, rejected])
      expect(e.labels.slice(e.promptLength)).toEqual(e.inputIds.slice(e.promptLength));
  });

  test("as conversations are the same pairs", () => {
    const talk = (content: string) => [
      { role: "user", content: good.prompt },
      { role: "assistant", content },
    ];
    const both = dataset({ chosen: talk(good.chosen), rejected: talk(good.rejected) });
    expect(both.examples).toEqual(dataset(good).examples);
  });

  test.each<[string, Row["value"], RegExp]>([
    ["no rejected answer", { prompt: "a", chosen: "b" }, /pairs\.jsonl:2: the field "rejected" is missing/],
    ["no prompt", { chosen: "b", rejected: "c" }, /pairs\.jsonl:2: the field "prompt" is missing/],
    ["a number for an answer", { ...good, chosen: 3 }, /:2: the field "chosen" is number, not text/],
    ["an empty answer", { ...good, rejected: "  " }, /:2: the field "rejected" is empty/],
    ["twice the same answer", { ...good, rejected: good.chosen }, /:2: "chosen" and "rejected" are the same/],
    ["a conversation without an answer", { chosen: [], rejected: [] }, /:2: "chosen" is empty/],
  ])("%s: refused by file and line", (_, value, message) => {
    expect(() => dataset(good, value)).toThrow(message);
  });

  test("none at all", () => {
    expect(() => dataset()).toThrow(/pairs\.jsonl holds no rows/);
  });
});
