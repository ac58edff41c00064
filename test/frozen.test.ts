/** Frozen work once: steps cut along the frontier give the losses and gradients of whole steps, whatever the model, edits and batch. */

import { type FileHandle, open } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { type Example, NO_LABEL } from "../src/data/example.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { generateTokens } from "../src/generate/generate.js";
import { releaseSessions } from "../src/generate/sessions.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { components, type Place, widthAt } from "../src/models/site.js";
import type { Representation } from "../src/reft/config.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { locate, parsePositions, spreadUnits } from "../src/reft/positions.js";
import { Random } from "../src/reft/random.js";
import { ReftModel } from "../src/reft/reft-model.js";
import { openNodeRuntime } from "../src/runtime/node.js";
import type { Runtime } from "../src/runtime/runtime.js";
import { openStep, type StepOptions, type StepResult } from "../src/train/step.js";
import { ReftTrainerForCausalLM } from "../src/train/trainer.js";
import { golden } from "./support.js";

/** Runs of graphs by what they are: the frozen part, or a step. */
const runs = { frozen: 0, step: 0 };
/** Graphs open now, and at each opening: of what, beside how many, and whether weights are packed for it. */
const live = { frozen: 0, step: 0 };
const openings: { kind: keyof typeof live; beside: typeof live; prepack: boolean }[] = [];
let native: Runtime;
let runtime: Runtime;
beforeAll(() => {
  native = openNodeRuntime();
  runtime = {
    device: native.device,
    open: async (model, options) => {
      const session = await native.open(model, options);
      const kind = model.outputs.includes("loss") ? "step" : "frozen";
      openings.push({ kind, beside: { ...live }, prepack: options?.prepack ?? false });
      live[kind]++;
      return {
        run: (...values) => {
          runs[kind]++;
          return session.run(...values);
        },
        dispose: () => {
          live[kind]--;
          return session.dispose();
        },
      };
    },
    allocate: (...values) => native.allocate(...values),
    dispose: () => native.dispose(),
  };
});
afterAll(() => native.dispose());
afterEach(() => {
  vi.restoreAllMocks();
});

async function openModel(name: string): Promise<CausalLM> {
  const checkpoint = await openCheckpoint(golden(`families/${name}`));
  return new CausalLM({ id: name, revision: undefined, checkpoint, runtime });
}

type SiteName = readonly [layer: number, component: string];

function edited(model: CausalLM, sites: readonly SiteName[], dropout = 0): ReftModel {
  const representations = sites.map(([layer, component]): Representation => {
    const { headDim } = model.config;
    const byHead = component.startsWith("head_");
    const embedDim = byHead ? headDim : widthAt(component as Place, model.config);
    const options = { embedDim, lowRankDimension: 3, dropout };
    return { layer, component, intervention: new LoreftIntervention(options) };
  });
  return new ReftModel(model, { representations }, { seed: 7 });
}

const options = (over: Partial<StepOptions> = {}): StepOptions => ({
  training: true,
  padTokenId: 0,
  frozenCache: true,
  frozenCacheBytes: 1e7,
  ...over,
});

interface Shape {
  readonly prompt: number;
  readonly answer: number;
  /** A rule, or the tokens themselves. */
  readonly at: string | readonly number[];
  readonly shareWeights?: boolean;
  /** Tokens after the answer, without a label. */
  readonly rest?: number;
  /** Labels of prompt tokens too. */
  readonly labelAll?: boolean;
}

function example(random: Random, edits: number, shape: Shape): Example {
  const { prompt, answer, at, shareWeights = false, rest = 0, labelAll = false } = shape;
  const inputIds = Array.from({ length: prompt + answer + rest }, () => Math.floor(random.uniform() * 64));
  const learned = (t: number): boolean => t < prompt + answer && (labelAll || t >= prompt);
  const locations =
    typeof at === "string" ? spreadUnits(locate(parsePositions(at, { shareWeights }), prompt), edits) : [at];
  return {
    inputIds,
    labels: inputIds.map((id, t) => (learned(t) ? id : NO_LABEL)),
    promptLength: prompt,
    locations,
  };
}

/** ‖a − b‖/‖b‖ ≤ 1e-5; nothing may differ where b is 0. */
function expectSame(a: StepResult, b: StepResult, what: string): void {
  expect(Math.abs(a.loss / b.loss - 1), `${what}: losses ${a.loss} and ${b.loss}`).toBeLessThan(1e-5);
  expect([...a.gradients.keys()]).toEqual([...b.gradients.keys()]);
  for (const [name, expected] of b.gradients) {
    const actual = a.gradients.get(name) as Float32Array;
    expect(actual.length).toBe(expected.length);
    const norm = (v: ArrayLike<number>): number => Math.hypot(...Array.from(v));
    const off = norm(expected.map((x, i) => x - (actual[i] as number)));
    if (!(off <= 1e-5 * norm(expected))) expect.fail(`${what}: ${name} is off by ${off} of ${norm(expected)}`);
  }
}

/** Batches that differ in where they are edited and how long they are; every length on both sides of the stretched ropes' 8. */
function batches(edits: number): [string, Example[]][] {
  const random = new Random(3);
  const make = (...shapes: Shape[]): Example[] => shapes.map((s) => example(random, edits, s));
  const both = edits % 2 === 0 ? ["f2+l2"] : [];
  const rules = ["l1", "f1", "all", "l3", ...both].map((at): [string, Example[]] => [
    at,
    make({ prompt: 9, answer: 3, at }, { prompt: 4, answer: 2, at }, { prompt: 12, answer: 6, at }),
  ]);
  return [
    ...rules,
    ["f2+l2 tied", make(...[5, 9].map((prompt) => ({ prompt, answer: 3, at: "f2+l2", shareWeights: true })))],
    ["one example", make({ prompt: 9, answer: 4, at: "l1" })],
    ["one short example", make({ prompt: 2, answer: 1, at: "l1" })],
    ["a past and none", make({ prompt: 8, answer: 3, at: [0, 5] }, { prompt: 10, answer: 3, at: [6, 8] })],
    ["one without an edit", make({ prompt: 8, answer: 3, at: [] }, { prompt: 6, answer: 2, at: [3] })],
    ["none with an edit", make({ prompt: 8, answer: 3, at: [] }, { prompt: 6, answer: 2, at: [] })],
    ["edits in the answer", make({ prompt: 5, answer: 6, at: [7, 9] }, { prompt: 4, answer: 6, at: [8, 2] })],
    ["edits after all labels", make({ prompt: 5, answer: 3, rest: 4, at: [9] }, { prompt: 9, answer: 3, at: [4] })],
    ["labels everywhere", make({ prompt: 6, answer: 3, labelAll: true, at: [4] }, { prompt: 7, answer: 5, at: [6] })],
  ];
}

/** Every batch through a whole step, and twice through a cut one: what comes from the cache is what was computed. */
async function compare(reft: ReftModel, over: Partial<StepOptions> = {}): Promise<void> {
  const whole = await openStep(reft, options({ ...over, frozenCache: false }));
  const cut = await openStep(reft, options(over));
  const data = batches(reft.edits.length);
  const expected = new Map<string, StepResult>();
  for (const [name, examples] of data) expected.set(name, await whole.run(examples, 0.1, new Random(5)));
  for (const pass of ["computed", "cached"])
    for (const [name, examples] of data) {
      const result = await cut.run(examples, 0.1, new Random(5));
      expectSame(result, expected.get(name) as StepResult, `${name}, ${pass}`);
    }
  await whole.dispose();
  await cut.dispose();
}

type Placement = (last: number) => readonly SiteName[];
/** Sites by name, for a model whose last layer is `last`; each family is tried at these. */
const common: Record<string, Placement> = {
  "block_output middle": () => [[1, "block_output"]],
  "all kinds": (last) => [
    [0, "mlp_output"],
    [1, "attention_output"],
    [1, "block_input"],
    [last, "block_output"],
  ],
};
const more: Record<string, Placement> = {
  "block_input first": () => [[0, "block_input"]],
  "block_input last": (last) => [[last, "block_input"]],
  "attention_output first": () => [[0, "attention_output"]],
  "attention_output last": (last) => [[last, "attention_output"]],
  "mlp_output first": () => [[0, "mlp_output"]],
  "mlp_output last": (last) => [[last, "mlp_output"]],
  "block_output last": (last) => [[last, "block_output"]],
  "every layer": (last) => Array.from({ length: last + 1 }, (_, layer): SiteName => [layer, "block_output"]),
  "two at one site": () => [
    [0, "block_output"],
    [0, "block_output"],
  ],
};
/** Every place there is, alone in the middle, and two inside one attention. */
const inside: Record<string, Placement> = {
  ...Object.fromEntries(components.map((component) => [component, () => [[1, component]]])),
  "keys, then queries": () => [
    [1, "query_output"],
    [0, "key_output"],
    [1, "head_value_output"],
  ],
};
const families = ["llama", "gpt2", "qwen3", "mistral", "llama-rope-dynamic", "llama-rope-longrope", "llama-bf16"];
/** Queries, keys and values by matrices of their own, and by one. */
const everywhere = new Set(["llama", "gpt2"]);
const grid = families.flatMap((family) =>
  Object.entries({ ...common, ...(family === "llama" && more), ...(everywhere.has(family) && inside) }).map(
    ([place, sites]) => ({
      family,
      place,
      sites,
    }),
  ),
);

describe("a cut step agrees with a whole one:", () => {
  test.each([...grid, { family: "mistral", place: "two at one site", sites: more["two at one site"] as Placement }])(
    "$family, $place",
    async ({ family, sites }) => {
      const model = await openModel(family);
      await compare(edited(model, sites(model.config.layers - 1)));
    },
  );

  test("with dropout, the masks being the same", async () => {
    await compare(
      edited(
        await openModel("llama"),
        [
          [1, "block_output"],
          [0, "mlp_output"],
        ],
        0.4,
      ),
    );
  });

  test("in evaluation", async () => {
    const reft = edited(await openModel("mistral"), [[0, "block_output"]], 0.4);
    await compare(reft, { training: false });
  });

  test("with everything kept in the file", async () => {
    await compare(edited(await openModel("qwen3"), [[1, "attention_output"]]), { frozenCacheBytes: 0 });
  });

  test("after the parameters have moved", async () => {
    const reft = edited(await openModel("llama"), [[1, "block_output"]]);
    const [[, examples]] = batches(1) as [[string, Example[]]];
    const [whole, cut] = [await openStep(reft, options({ frozenCache: false })), await openStep(reft, options())];
    for (let i = 0; i < 3; i++) {
      const result = await cut.run(examples, 0.1);
      expectSame(result, await whole.run(examples, 0.1), `step ${i}`);
      for (const p of reft.parameters.values())
        p.raw.set(
          p.raw.map((x, j) => x - 0.5 * (p.pullback(result.gradients.get(p.name) as Float32Array)[j] as number)),
        );
    }
    await Promise.all([whole.dispose(), cut.dispose()]);
  });
});

describe("what is kept", () => {
  /** Batches that share examples in other orders, some of them twice; between them, no two are alike. */
  async function mixed(reft: ReftModel) {
    const random = new Random(11);
    const [a, b, c, d] = [9, 5, 12, 7].map((prompt) => example(random, 1, { prompt, answer: 3, at: [prompt - 2] })) as [
      Example,
      Example,
      Example,
      Example,
    ];
    const data = [[a, b], [b, c, a], [c, c], [d, a, d, b], [a], [b, a]];
    const whole = await openStep(reft, options({ frozenCache: false }));
    const expected: StepResult[] = [];
    for (const batch of data) expected.push(await whole.run(batch, 0.1));
    await whole.dispose();
    return { data, expected };
  }

  /** Runs every batch, and says how many runs of the frozen graph that took. */
  async function frozenRuns(
    step: Awaited<ReturnType<typeof openStep>>,
    { data, expected }: Awaited<ReturnType<typeof mixed>>,
  ): Promise<number> {
    const before = runs.frozen;
    for (const [i, batch] of data.entries())
      expectSame(await step.run(batch, 0.1), expected[i] as StepResult, `batch ${i}`);
    return runs.frozen - before;
  }

  async function fileHandles(): Promise<FileHandle> {
    const probe = await open(fileURLToPath(import.meta.url));
    await probe.close();
    return Object.getPrototypeOf(probe) as FileHandle;
  }

  test.each([
    ["in memory", 1e7],
    ["in the file", 0],
    ["partly in memory", 20_000],
  ])("is computed once an example, whatever batch it is in: %s", async (_where, frozenCacheBytes) => {
    const reft = edited(await openModel("llama"), [[0, "block_output"]]);
    const cases = await mixed(reft);
    const step = await openStep(reft, options({ frozenCacheBytes }));
    // a and b, then c, then d.
    expect(await frozenRuns(step, cases)).toBe(3);
    expect(await frozenRuns(step, cases)).toBe(0);
    await step.dispose();
  });

  test("is computed again where the disk is full", async () => {
    const full = Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
    vi.spyOn(await fileHandles(), "write").mockRejectedValue(full);
    const reft = edited(await openModel("llama"), [[0, "block_output"]]);
    const step = await openStep(reft, options({ frozenCacheBytes: 0 }));
    const cases = await mixed(reft);
    expect(await frozenRuns(step, cases)).toBe(cases.data.length);
    expect(await frozenRuns(step, cases)).toBe(cases.data.length);
    await step.dispose();
  });

  test("is computed again where there is no folder for a file", async () => {
    for (const name of ["TMPDIR", "TEMP", "TMP"]) vi.stubEnv(name, "/nowhere/at/all");
    const reft = edited(await openModel("llama"), [[0, "block_output"]]);
    const step = await openStep(reft, options({ frozenCacheBytes: 0 }));
    const cases = await mixed(reft);
    expect(await frozenRuns(step, cases)).toBe(cases.data.length);
    vi.unstubAllEnvs();
    await step.dispose();
  });

  test("is computed again, once, where the file was cut off or overwritten", async () => {
    const handles = await fileHandles();
    let file: FileHandle | undefined;
    const { write } = handles;
    vi.spyOn(handles, "write").mockImplementation(function (this: FileHandle, ...args: unknown[]) {
      file = this;
      return Reflect.apply(write, this, args);
    } as FileHandle["write"]);
    const reft = edited(await openModel("llama"), [[0, "block_output"]]);
    const step = await openStep(reft, options({ frozenCacheBytes: 0 }));
    const cases = await mixed(reft);
    await frozenRuns(step, cases);
    await file?.truncate(100);
    expect(await frozenRuns(step, cases)).toBe(3);
    expect(await frozenRuns(step, cases)).toBe(0);
    await file?.write(Buffer.alloc(100_000, 7), 0, 100_000, 0);
    expect(await frozenRuns(step, cases)).toBe(3);
    await step.dispose();
  });
});

describe("around it", () => {
  test("no frozen graph is open when a step's is opened: the memory of one is free for the other", async () => {
    const random = new Random(3);
    const early = example(random, 1, { prompt: 6, answer: 3, at: [0] });
    const [late, later] = [5, 8].map((prompt) => example(random, 1, { prompt, answer: 3, at: "l1" })) as [
      Example,
      Example,
    ];
    const step = await openStep(edited(await openModel("llama"), [[1, "block_output"]]), options());
    const since = openings.length;
    // A graph that looks back, then more to freeze, then one that does not look back.
    for (const e of [late, later, early, late]) await step.run([e], 0.1);
    expect(openings.slice(since)).toMatchObject([
      { kind: "frozen", beside: { frozen: 0, step: 0 } },
      { kind: "step", beside: { frozen: 0, step: 0 } },
      { kind: "frozen", beside: { frozen: 0, step: 1 } },
      { kind: "frozen", beside: { frozen: 1, step: 1 } },
      { kind: "step", beside: { frozen: 0, step: 1 } },
    ]);
    await step.dispose();
    expect(live).toEqual({ step: 0, frozen: 0 });
  });

  test.each([
    ["float32, 50 steps", "llama", 50, "l1", true],
    ["float32, 49 steps", "llama", 49, "l1", false],
    ["bfloat16, 50 steps", "llama-bf16", 50, "l1", false],
    ["no tokens before the edited, 50 steps", "llama", 50, "f1", false],
  ] as const)("weights are packed for many steps over few tokens: %s", async (_what, model, maxSteps, at, packed) => {
    const reft = edited(await openModel(model), [[1, "block_output"]]);
    const examples = [example(new Random(4), 1, { prompt: 5, answer: 3, at })];
    const since = openings.length;
    const args = { maxSteps, evalStrategy: "steps", evalSteps: maxSteps } as const;
    const trainer = { model: reft, tokenizer: { padTokenId: 0 }, trainDataset: examples, evalDataset: examples };
    await new ReftTrainerForCausalLM({ ...trainer, args }).train();
    const [frozen, step, evaluation] = openings.slice(since);
    expect([frozen?.kind, step?.kind, evaluation?.kind]).toEqual(["frozen", "step", "step"]);
    expect([frozen?.prepack, evaluation?.prepack]).toEqual([false, false]);
    expect(step?.prepack).toBe(packed);
  });

  test("weights too large for two packed copies stay mapped", async () => {
    const model = await openModel("llama");
    expect(model.trainingOptions(1e6, 2 ** 30).prepack).toBe(true);
    expect(model.trainingOptions(1e6, 2 ** 30 + 1).prepack).toBe(false);
  });

  const trainer = (reft: ReftModel, frozenCache: boolean, examples: readonly Example[]): ReftTrainerForCausalLM =>
    new ReftTrainerForCausalLM({
      model: reft,
      tokenizer: { padTokenId: 0 },
      args: {
        frozenCache,
        numTrainEpochs: 3,
        perDeviceTrainBatchSize: 2,
        perDeviceEvalBatchSize: 2,
        evalStrategy: "epoch",
        learningRate: 0.05,
      },
      trainDataset: examples,
      evalDataset: examples.slice(0, 3),
    });

  test("a run's losses, evaluations and answers do not change; evaluations of a run share what is kept", async () => {
    const random = new Random(1);
    const examples = [5, 8, 6, 9].map((prompt) => example(random, 1, { prompt, answer: 4, at: "l1" }));
    const outcome = async (frozenCache: boolean) => {
      const reft = edited(await openModel("llama"), [[1, "block_output"]]);
      const run = trainer(reft, frozenCache, examples);
      const losses: number[] = [];
      const before = runs.frozen;
      for await (const event of run.run())
        if (event.type === "step" || event.type === "evaluate") losses.push(event.loss);
      const frozen = runs.frozen - before;
      losses.push((await run.evaluate(examples)).loss, (await run.evaluate(examples.slice(1))).loss);
      const ids: number[] = [];
      for await (const step of generateTokens(reft, [[3, 1, 4, 1, 5]], { maxNewTokens: 8, positions: "l1" }))
        ids.push(...step.map((s) => s.id));
      await releaseSessions(reft);
      return { losses, ids, frozen };
    };
    const [kept, whole] = [await outcome(true), await outcome(false)];
    expect(kept.ids).toEqual(whole.ids);
    expect(kept.losses.length).toBe(whole.losses.length);
    // Rounding differs by 1e-7 at a step, and is carried on by six of them.
    for (const [i, loss] of kept.losses.entries())
      expect(Math.abs(loss / (whole.losses[i] as number) - 1)).toBeLessThan(1e-5);
    // Two batches to train on, once in three epochs; shuffling makes other batches of the same. Evaluations are cut alike, and
    // find the work on the texts that were trained on.
    expect(kept.frozen).toBe(2);
    expect(whole.frozen).toBe(0);
  });

  test("a stretched rope sees an example's whole length, unlabelled rest included", async () => {
    const reft = edited(await openModel("llama-rope-dynamic"), [[0, "block_output"]]);
    const long = example(new Random(2), 1, { prompt: 6, answer: 2, rest: 6, at: "l1" });
    const cutOff = { ...long, inputIds: long.inputIds.slice(0, 8), labels: long.labels.slice(0, 8) };
    for (const frozenCache of [true, false]) {
      const step = await openStep(reft, options({ training: false, frozenCache }));
      const [a, b] = [await step.run([long], 0.5), await step.run([cutOff], 0.5)];
      expect(a.loss).not.toBeCloseTo(b.loss, 4);
      await step.dispose();
    }
  });
});
