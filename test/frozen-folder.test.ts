/** Frozen work in a folder, through the trainer: a later run computes none of it and takes the same course; nothing in the folder can spoil a run. */

import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Example } from "../src/data/example.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import type { TrainingOptions } from "../src/train/arguments.js";
import { ReftTrainerForCausalLM } from "../src/train/trainer.js";
import { golden } from "./support.js";
import { of, tinyExamples, tinyReft, train } from "./tiny.js";

/** Examples that went through a frozen graph. */
let computed = 0;
let native: Runtime;
let runtime: Runtime;
let folder: string;

beforeAll(() => {
  native = openNodeRuntime();
  runtime = {
    device: native.device,
    open: async (graph, options) => {
      const session = await native.open(graph, options);
      return {
        run: (feeds) => {
          if (!graph.outputs.includes("loss")) computed += feeds.ids?.shape[0] ?? 0;
          return session.run(feeds);
        },
        dispose: () => session.dispose(),
      };
    },
    allocate: (...values) => native.allocate(...values),
    dispose: () => native.dispose(),
  };
});
afterAll(() => native.dispose());
beforeEach(() => {
  computed = 0;
  folder = mkdtempSync(join(tmpdir(), "reft-frozen-folder-"));
  cpSync(golden("families/llama"), join(folder, "model"), { recursive: true });
});
afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

/** Prompts that begin alike for 40 tokens. */
function examples(): Example[] {
  const beginning = Array.from({ length: 40 }, (_, i) => (i * 11) % 64);
  return tinyExamples(10).map((e) => ({
    inputIds: [...beginning, ...e.inputIds],
    labels: [...beginning.map(() => -100), ...e.labels],
    promptLength: 40 + e.promptLength,
    locations: [[39 + e.promptLength]],
  }));
}

interface Course {
  readonly losses: number[];
  readonly evaluations: number[];
  readonly weights: Uint8Array;
  readonly computed: number;
}

async function course(args: TrainingOptions = {}): Promise<Course> {
  computed = 0;
  const checkpoint = await openCheckpoint(join(folder, "model"));
  const model = new CausalLM({ id: "llama", revision: undefined, checkpoint, runtime });
  const told = await train({
    reft: tinyReft(model),
    data: examples(),
    evalData: examples().slice(3, 7),
    args: {
      numTrainEpochs: 3,
      perDeviceTrainBatchSize: 4,
      learningRate: 0.02,
      evalStrategy: "epoch",
      frozenCacheDir: join(folder, "kept"),
      ...args,
    },
  });
  const evaluations = of(told.events, "evaluate").map((e) => e.loss);
  return { losses: told.losses, evaluations, weights: told.weights, computed };
}

/** The paths of all kept files with an ending. */
function kept(end: string): string[] {
  const place = join(folder, "kept");
  return readdirSync(place, { recursive: true })
    .map((name) => join(place, String(name)))
    .filter((path) => path.endsWith(end))
    .sort();
}

const same = (a: Course, b: Course): void => {
  expect(a.losses).toEqual(b.losses);
  expect(a.evaluations).toEqual(b.evaluations);
  expect(a.weights).toEqual(b.weights);
};

/** As whole steps are: rounding differs by 1e-7 at a step, and is carried on by nine of them. */
const close = (a: Course, b: Course): void => {
  for (const [i, loss] of [...a.losses, ...a.evaluations].entries())
    expect(Math.abs(loss / ([...b.losses, ...b.evaluations][i] as number) - 1)).toBeLessThan(1e-5);
};

test("a second run computes nothing again, and is the first to the bit", async () => {
  const first = await course();
  expect(first.computed).toBe(10);
  // Whatever memory holds; also in another order of examples, and in smaller batches.
  for (const args of [{}, { frozenCacheMemory: 0 }]) {
    const second = await course(args);
    expect(second.computed).toBe(0);
    same(second, first);
  }
  expect((await course({ seed: 7, perDeviceTrainBatchSize: 2 })).computed).toBe(0);
  close(first, await course({ frozenCache: false }));
});

test("an evaluation alone finds what training left, and leaves what training finds", async () => {
  const checkpoint = await openCheckpoint(join(folder, "model"));
  const model = new CausalLM({ id: "llama", revision: undefined, checkpoint, runtime });
  const trainer = new ReftTrainerForCausalLM({
    model: tinyReft(model),
    tokenizer: { padTokenId: 0 },
    args: { frozenCacheDir: join(folder, "kept") },
    trainDataset: examples(),
  });
  const { loss } = await trainer.evaluate(examples());
  expect(computed).toBe(10);
  expect((await trainer.evaluate(examples())).loss).toBe(loss);
  expect(computed).toBe(10);
  expect((await course()).computed).toBe(0);
});

test("other layers, other tokens and other storage are other work; a beginning seen before is not stored again", async () => {
  await course();
  const size = (): number => kept(".data").reduce((sum, path) => sum + readFileSync(path).length, 0);
  const before = size();
  expect((await course({ frozenCacheDtype: "bfloat16" })).computed).toBe(10);
  expect(size() / before).toBeCloseTo(1.5, 5);
  const { layers, kvHeads, headDim, hiddenSize } = new CausalLM({
    id: "llama",
    revision: undefined,
    checkpoint: await openCheckpoint(join(folder, "model")),
    runtime,
  }).config;
  // An edit of layer 1: rows of its output and past of the layers above it; of 40 shared tokens 32 are kept once.
  const past = (layers - 2) * 2 * kvHeads * headDim * 4;
  const own = examples().map(({ inputIds, locations }) => {
    const start = locations[0]?.[0] as number;
    return (start - 32) * past + (inputIds.length - 1 - start) * hiddenSize * 4;
  });
  expect(before).toBe(32 * past + own.reduce((a, b) => a + b, 0));
});

test("bfloat16 storage: the course is the same within 2e-3", async () => {
  const [exact, rounded] = [await course(), await course({ frozenCacheDtype: "bfloat16" })];
  same(await course({ frozenCacheDtype: "bfloat16" }), rounded);
  const off = rounded.losses.map((loss, i) => Math.abs(loss / (exact.losses[i] as number) - 1));
  // Measured: 4e-4 at most over nine steps.
  expect(Math.max(...off)).toBeLessThan(2e-3);
  expect(Math.max(...off)).toBeGreaterThan(0);
});

describe("a run is never the worse for what is in the folder:", () => {
  const damages: readonly [string, () => void, number][] = [
    ["all deleted", () => rmSync(join(folder, "kept"), { recursive: true }), 10],
    ["data cut off", () => kept(".data").forEach((path) => void truncateSync(path, readFileSync(path).length / 2)), 0],
    [
      "a byte in every hundred changed",
      () => {
        for (const path of kept(".data"))
          writeFileSync(
            path,
            readFileSync(path).map((x, i) => (i % 100 === 0 ? x ^ 64 : x)),
          );
      },
      10,
    ],
    ["indexes of garbage", () => kept(".index").forEach((path) => void writeFileSync(path, "garbage ".repeat(99))), 10],
    ["weights written again", () => utimesSync(weightsPath(), 9, 9), 10],
  ];
  const weightsPath = (): string => join(folder, "model", "model.safetensors");

  test.each(damages)("%s", async (_, damage, again) => {
    const first = await course();
    damage();
    const second = await course();
    if (again === 0) expect(second.computed).toBeGreaterThan(0);
    else expect(second.computed).toBe(again);
    close(second, first);
    // And it is mended.
    expect((await course()).computed).toBe(0);
  });

  test("other weights in the place of the old ones, of the same size and time", async () => {
    const first = await course();
    const bytes = readFileSync(weightsPath());
    for (let at = bytes.length - 4000; at < bytes.length; at += 4) bytes.writeFloatLE(bytes.readFloatLE(at) * 1.5, at);
    writeFileSync(weightsPath(), bytes);
    const second = await course();
    expect(second.computed).toBe(10);
    expect(second.losses).not.toEqual(first.losses);
    close(second, await course({ frozenCache: false }));
  });

  test("a limit that is reached, a place that cannot be a folder", async () => {
    const whole = await course({ frozenCache: false });
    close(await course({ frozenCacheDisk: 0.02 }), whole);
    expect((await course({ frozenCacheDisk: 0.02 })).computed).toBeGreaterThan(0);
    close(await course({ frozenCacheDir: join(weightsPath(), "in", "a", "file") }), whole);
  });

  test("two runs at once", async () => {
    const [a, b] = await Promise.all([course(), course()]);
    close(a as Course, b as Course);
    expect((await course()).computed).toBe(0);
  });
});
