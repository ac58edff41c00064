/** Whole training runs on a tiny checkpoint: how long they are, what a step does, evaluation, early stopping, events. */

import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { decodeSafetensors } from "../src/files/safetensors.js";
import type { CausalLM } from "../src/models/causal-lm.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime, Session } from "../src/runtime/runtime.js";
import type { TrainingOptions } from "../src/train/arguments.js";
import type { TrainEvent } from "../src/train/events.js";
import { ReftTrainerForCausalLM } from "../src/train/trainer.js";
import { expectClose } from "./support.js";
import { hard, of, openTiny, tinyExamples, tinyReft, train, weightsOf } from "./tiny.js";

/** Sessions that are open now. */
let open = 0;
let runtime: Runtime;
let model: CausalLM;
let folder: string;

beforeAll(async () => {
  const inner = openNodeRuntime();
  runtime = {
    device: inner.device,
    dispose: () => inner.dispose(),
    allocate: (...values) => inner.allocate(...values),
    open: async (...values): Promise<Session> => {
      const session = await inner.open(...values);
      open++;
      return {
        run: (feeds) => session.run(feeds),
        dispose: async () => {
          open--;
          await session.dispose();
        },
      };
    },
  };
  model = await openTiny(runtime);
});
afterAll(() => runtime.dispose());

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reft-trainer-"));
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
  expect(open, "sessions left open").toBe(0);
});

describe("how long a run is", () => {
  const sizes: readonly [string, TrainingOptions, { totalSteps: number; epochs: number }][] = [
    ["epochs", { numTrainEpochs: 2, perDeviceTrainBatchSize: 4 }, { totalSteps: 6, epochs: 2 }],
    ["maxSteps overrides epochs", { numTrainEpochs: 2, maxSteps: 1 }, { totalSteps: 1, epochs: 0.5 }],
    ["part of an epoch", { numTrainEpochs: 0.5, perDeviceTrainBatchSize: 2 }, { totalSteps: 3, epochs: 0.6 }],
    ["100 steps by default for few examples", { perDeviceTrainBatchSize: 8 }, { totalSteps: 100, epochs: 50 }],
    [
      "dropLast",
      { numTrainEpochs: 2, perDeviceTrainBatchSize: 4, dataloaderDropLast: true },
      { totalSteps: 4, epochs: 2 },
    ],
  ];
  test.each(sizes)("%s", async (_, args, size) => {
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args,
      trainDataset: tinyExamples(10),
    });
    for await (const event of trainer.run()) {
      expect(event).toMatchObject({ type: "start", examples: 10, step: 0, ...size });
      break;
    }
  });

  test("a run makes as many steps as it says", async () => {
    const { events } = await train({ reft: tinyReft(model), args: { ...hard, maxSteps: 5 } });
    expect(of(events, "step").map((e) => e.step)).toEqual([1, 2, 3, 4, 5]);
    expect(of(events, "step").map((e) => e.epoch)).toEqual([0.5, 1, 1.5, 2, 2.5]);
    expect(events.at(-1)).toMatchObject({ type: "end", reason: "done", step: 5, totalSteps: 5 });
  });
});

describe("steps", () => {
  const values = (bytes: Uint8Array): number[] =>
    [...decodeSafetensors(bytes, "weights").tensors.values()].flatMap((t) => [...t.data]);

  test("two batches of 2 added up are one batch of 4, whatever their lengths", async () => {
    const args = { maxSteps: 6, learningRate: 0.01, weightDecay: 0.1 };
    const data = tinyExamples(4);
    // Unlike numbers of answer tokens: the mean is over tokens, not over batches.
    const labels = (data[0]?.labels ?? []).map(() => -100).with(-1, 5);
    const uneven = data.with(0, { ...(data[0] as (typeof data)[0]), labels });
    const a = await train({ reft: tinyReft(model), data: uneven, args: { ...args, perDeviceTrainBatchSize: 4 } });
    const b = await train({
      reft: tinyReft(model),
      data: uneven,
      args: { ...args, perDeviceTrainBatchSize: 2, gradientAccumulationSteps: 2 },
    });
    expectClose(b.losses, a.losses, 1e-6, "losses");
    expectClose(
      of(b.events, "step").map((e) => e.gradNorm),
      of(a.events, "step").map((e) => e.gradNorm),
      1e-5,
      "norms",
    );
    expectClose(values(b.weights), values(a.weights), 1e-4, "weights");
  });

  test("a batch without answer tokens adds nothing to a step that has some", async () => {
    const data = tinyExamples(2).map((e, i) => (i === 0 ? e : { ...e, labels: e.labels.map(() => -100) }));
    const args = { maxSteps: 2, perDeviceTrainBatchSize: 1, gradientAccumulationSteps: 2 };
    const { losses } = await train({ reft: tinyReft(model), data, args });
    const alone = await train({ reft: tinyReft(model), data: data.slice(0, 1), args });
    expectClose(losses, alone.losses, 1e-6);
  });

  test("the gradient's norm is told before clipping, and clipping bounds what is applied", async () => {
    // Without momentum and with a large ε, AdamW's step is the gradient's size: lr · g / ε.
    const args = {
      maxSteps: 1,
      perDeviceTrainBatchSize: 10,
      adamBeta1: 0,
      adamBeta2: 0,
      adamEpsilon: 1e6,
      lrSchedulerType: "constant",
      learningRate: 1e6,
    } as const;
    const moved = async (maxGradNorm: number): Promise<{ norm: number; told: number }> => {
      const reft = tinyReft(model);
      const before = [...reft.parameters.values()].map((p) => p.raw.slice());
      const { events } = await train({ reft, args: { ...args, maxGradNorm } });
      const squares = [...reft.parameters.values()].flatMap((p, i) =>
        Array.from(p.raw, (x, j) => (x - (before[i]?.[j] as number)) ** 2),
      );
      return { norm: Math.sqrt(squares.reduce((a, b) => a + b, 0)), told: of(events, "step")[0]?.gradNorm as number };
    };
    const free = await moved(0);
    expect(free.norm / free.told).toBeCloseTo(1, 3);
    const clipped = await moved(free.told / 4);
    expect(clipped.told).toBe(free.told);
    expect(clipped.norm / (free.told / 4)).toBeCloseTo(1, 3);
  });

  test("R keeps orthonormal columns to 1e-5, and weight decay moves only what may decay", async () => {
    const args = { maxSteps: 60, learningRate: 0.05, weightDecay: 0.1, lrSchedulerType: "constant" } as const;
    const reft = tinyReft(model, { layers: [0, 1], lowRankDimension: 8 });
    await train({ reft, args });
    for (const [name, p] of reft.parameters) {
      if (!name.endsWith("rotate_layer")) continue;
      const [d, r] = p.shape as [number, number];
      const R = p.value();
      for (let i = 0; i < r; i++)
        for (let j = 0; j < r; j++) {
          let dot = 0;
          for (let k = 0; k < d; k++) dot += (R[k * r + i] as number) * (R[k * r + j] as number);
          expect(Math.abs(dot - (i === j ? 1 : 0)), `RᵀR[${i}, ${j}] of ${name}`).toBeLessThan(1e-5);
        }
    }
    const stepOf = async (weightDecay: number) => {
      const one = tinyReft(model);
      await train({ reft: one, args: { ...args, maxSteps: 1, weightDecay } });
      return one.parameters;
    };
    const [decayed, plain] = [await stepOf(0.5), await stepOf(0)];
    for (const [name, p] of plain)
      if (name.endsWith("rotate_layer")) expect(decayed.get(name)?.raw).toEqual(p.raw);
      else expect(decayed.get(name)?.raw).not.toEqual(p.raw);
  });

  test("the learning rate warms up and falls", async () => {
    const { events } = await train({ reft: tinyReft(model), args: { ...hard, learningRate: 1 } });
    expect(of(events, "step").map((e) => e.learningRate)).toEqual([0, 0.5, 1, 0.75, 0.5, 0.25]);
  });

  test("losses fall", async () => {
    const { losses } = await train({
      reft: tinyReft(model, { lowRankDimension: 8 }),
      args: { maxSteps: 60, learningRate: 0.02 },
    });
    expect(losses.at(-1)).toBeLessThan((losses[0] as number) * 0.8);
  });
});

describe("evaluation", () => {
  const evalData = tinyExamples(7, 2);

  test("is the mean over all answer tokens, whatever the batches, and leaves dropout out", async () => {
    const loss = async (perDeviceEvalBatchSize: number, dropout = 0): Promise<number> => {
      const trainer = new ReftTrainerForCausalLM({
        model: tinyReft(model, { dropout }),
        tokenizer: { padTokenId: 0 },
        args: { perDeviceEvalBatchSize },
        trainDataset: evalData,
      });
      const said = await trainer.evaluate(evalData);
      expect(said.tokens).toBe(21);
      expect(said.perplexity).toBeCloseTo(Math.exp(said.loss), 10);
      return said.loss;
    };
    const all = await loss(7);
    expect(await loss(2)).toBeCloseTo(all, 5);
    expect(await loss(7, 0.5)).toBe(all);
  });

  test("by steps, by epochs, and at the end of an unfinished epoch", async () => {
    const at = async (args: TrainingOptions): Promise<number[]> => {
      const { events } = await train({ reft: tinyReft(model), args: { ...hard, ...args }, evalData });
      return of(events, "evaluate").map((e) => e.step);
    };
    expect(await at({ evalStrategy: "steps", evalSteps: 4 })).toEqual([4]);
    expect(await at({ evalStrategy: "epoch" })).toEqual([2, 4, 6]);
    expect(await at({ evalStrategy: "epoch", maxSteps: 3 })).toEqual([2, 3]);
    expect(await at({})).toEqual([]);
  });

  const overfit: TrainingOptions = {
    ...hard,
    evalStrategy: "steps",
    evalSteps: 1,
    learningRate: 0.5,
    numTrainEpochs: 5,
  };

  test("the best weights come back at the end", async () => {
    const reft = tinyReft(model);
    const { events } = await train({ reft, args: { ...overfit, loadBestModelAtEnd: true }, evalData });
    const told = of(events, "evaluate");
    const lowest = Math.min(...told.map((e) => e.loss));
    expect(told.at(-1)?.loss).toBeGreaterThan(lowest);
    expect(told.findLast((e) => e.best)?.loss).toBe(lowest);
    const trainer = new ReftTrainerForCausalLM({ model: reft, tokenizer: { padTokenId: 0 }, trainDataset: evalData });
    expect((await trainer.evaluate(evalData)).loss).toBe(lowest);
  });

  test("stops after evaluations without gain", async () => {
    const { events } = await train({ reft: tinyReft(model), args: { ...overfit, earlyStoppingPatience: 3 }, evalData });
    const told = of(events, "evaluate").map((e) => e.best);
    expect(told.slice(-3)).toEqual([false, false, false]);
    expect(told.at(-4)).toBe(true);
    expect(events.at(-1)).toMatchObject({ type: "end", reason: "early-stopping", step: told.length });
  });

  test("a gain below the threshold uses up patience, and is still the best", async () => {
    const args = {
      ...hard,
      evalStrategy: "steps",
      evalSteps: 1,
      earlyStoppingPatience: 2,
      earlyStoppingThreshold: 10,
    } as const;
    const { events } = await train({
      reft: tinyReft(model),
      args: { ...args, warmupSteps: 0, learningRate: 1e-3 },
      evalData: tinyExamples(10),
    });
    const told = of(events, "evaluate");
    expect(events.at(-1)).toMatchObject({ reason: "early-stopping", step: 3 });
    expect(told.map((e) => e.best)).toEqual(
      told.map((e, i) => e.loss < Math.min(Infinity, ...told.slice(0, i).map((b) => b.loss))),
    );
    expect(told.filter((e) => e.best).length).toBeGreaterThan(1);
  });
});

describe("events", () => {
  test("come in order to the consumer and to every callback", async () => {
    const args: TrainingOptions = {
      ...hard,
      maxSteps: 2,
      evalStrategy: "steps",
      evalSteps: 2,
      saveStrategy: "steps",
      saveSteps: 2,
      outputDir: folder,
    };
    const heard: TrainEvent[][] = [[], []];
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args,
      trainDataset: tinyExamples(10),
      evalDataset: tinyExamples(3, 2),
      callbacks: heard.map((list) => (event) => void list.push(event)),
    });
    const seen: TrainEvent[] = [];
    for await (const event of trainer.run()) seen.push(event);
    expect(seen.map((e) => e.type)).toEqual(["start", "step", "step", "log", "evaluate", "checkpoint", "end"]);
    expect(heard).toEqual([seen, seen]);
  });

  test("log lines are means since the last one", async () => {
    const { events, losses } = await train({ reft: tinyReft(model), args: hard });
    const means = [0, 2, 4].map((i) => ((losses[i] as number) + (losses[i + 1] as number)) / 2);
    expect(of(events, "log").map((e) => e.loss)).toEqual(means);
    expect(of(events, "log").map((e) => e.step)).toEqual([2, 4, 6]);
  });

  test("the end tells the mean loss, and speeds by the given clock", async () => {
    let clock = 100;
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args: { ...hard, maxSteps: 2 },
      trainDataset: tinyExamples(10),
      now: () => clock++,
    });
    const events: TrainEvent[] = [];
    for await (const event of trainer.run()) events.push(event);
    const steps = of(events, "step");
    expect(steps.map((e) => e.seconds)).toEqual([1, 1]);
    const end = of(events, "end")[0];
    const tokens = steps.reduce((n, e) => n + e.tokens, 0);
    expect(tokens).toBe(tinyExamples(10).reduce((n, e) => n + e.inputIds.length, 0));
    expect(end?.tokensPerSecond).toBe(tokens / (end?.seconds as number));
    expect(end?.loss).toBeCloseTo(((steps[0]?.loss as number) + (steps[1]?.loss as number)) / 2, 12);
  });

  test("log.jsonl has every event but the steps, one a line, resumed runs added", async () => {
    const args = { ...hard, outputDir: folder };
    const first = await train({ reft: tinyReft(model), args, stopAt: 4 });
    const second = await train({ reft: tinyReft(model), args, resume: true });
    const lines = readFileSync(join(folder, "log.jsonl"), "utf8")
      .trimEnd()
      .split("\n")
      .map((l) => JSON.parse(l));
    const expected = [...first.events, ...second.events].filter((e) => e.type !== "step");
    expect(lines.map(({ time, ...event }) => event)).toEqual(expected);
    for (const { time } of lines) expect(time).toBeGreaterThan(1e9);
  });

  test("no logs where none are asked for", async () => {
    await train({ reft: tinyReft(model), args: { ...hard, outputDir: join(folder, "out"), reportTo: [] } });
    expect(existsSync(join(folder, "out"))).toBe(false);
  });

  test("a consumer may leave: the session is closed, the weights stay as they are", async () => {
    const reft = tinyReft(model);
    const trainer = new ReftTrainerForCausalLM({
      model: reft,
      tokenizer: { padTokenId: 0 },
      args: hard,
      trainDataset: tinyExamples(10),
    });
    for await (const event of trainer.run()) {
      if (event.type === "step" && event.step === 3) break;
      if (event.type === "step") expect(open).toBeGreaterThan(0);
    }
    expect(open).toBe(0);
    const three = await train({ reft: tinyReft(model), args: hard, stopAt: 3 });
    expect(weightsOf(reft)).toEqual(three.weights);
  });

  test("a callback that throws ends the run with its error", async () => {
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args: hard,
      trainDataset: tinyExamples(10),
      callbacks: [
        () => {
          throw new Error("mine");
        },
      ],
    });
    await expect(trainer.train()).rejects.toThrow("mine");
    expect(open).toBe(0);
  });

  test("the event loop turns while steps are computed", async () => {
    let turns = 0;
    const timer = setInterval(() => turns++, 0);
    const perStep: number[] = [];
    const data = tinyExamples(400);
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args: { maxSteps: 3, perDeviceTrainBatchSize: 400 },
      trainDataset: data,
      callbacks: [(event) => event.type === "step" && perStep.push(turns)],
    });
    await trainer.train();
    clearInterval(timer);
    expect(perStep[0]).toBeGreaterThan(0);
    expect(perStep).toEqual([...new Set(perStep)]);
  });
});
