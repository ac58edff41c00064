/** What can go wrong in a run: bad data, lost losses, damaged checkpoints, folders that cannot be written, full disks. */
import {
  appendFileSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { golden } from "../../test/support.js";
import { of, openTiny, tinyExamples, tinyReft, train, weightsOf } from "../../test/tiny.js";
import type { Example } from "../data/example.js";
import { UserError } from "../errors.js";
import { openCheckpoint } from "../files/checkpoint-node.js";
import { decodeSafetensors, encodeSafetensors } from "../files/safetensors.js";
import { CausalLM } from "../models/causal-lm.js";
import { ReftModel } from "../reft/reft-model.js";
import { openNodeRuntime } from "../runtime/node.js";
import type { Runtime } from "../runtime/runtime.js";
import type { TrainingOptions } from "./arguments.js";
import type { TrainEvent } from "./events.js";
import { ReftTrainerForCausalLM, type TrainerOptions } from "./trainer.js";

/** From the n-th write on, the disk is full. */
const disk = vi.hoisted(() => ({ writes: 0, fullAt: Infinity }));

vi.mock("node:fs/promises", async (original) => {
  const real = await original<typeof import("node:fs/promises")>();
  const write = (): void => {
    if (disk.writes++ >= disk.fullAt) throw Object.assign(new Error("injected"), { code: "ENOSPC", syscall: "write" });
  };
  const open = async (...values: Parameters<typeof real.open>): Promise<unknown> => {
    const handle = await real.open(...values);
    const writeFile = handle.writeFile.bind(handle);
    return Object.assign(handle, {
      writeFile: async (bytes: string) => {
        write();
        await writeFile(bytes);
      },
    });
  };
  const appendFile = async (...values: Parameters<typeof real.appendFile>): Promise<void> => {
    write();
    await real.appendFile(...values);
  };
  return { ...real, open, appendFile };
});

let runtime: Runtime;
let model: CausalLM;
let folder: string;

beforeAll(async () => {
  runtime = openNodeRuntime();
  model = await openTiny(runtime);
});
afterAll(() => runtime.dispose());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "reft-faults-"));
});
afterEach(() => {
  Object.assign(disk, { writes: 0, fullAt: Infinity });
  rmSync(folder, { recursive: true, force: true });
});

const args: TrainingOptions = { maxSteps: 4, perDeviceTrainBatchSize: 4, learningRate: 0.01 };

async function failure(work: () => unknown): Promise<UserError> {
  try {
    await work();
  } catch (error) {
    expect(error, String((error as Error).stack)).toBeInstanceOf(UserError);
    return error as UserError;
  }
  throw new Error("nothing failed");
}

describe("data that does not fit is refused before anything is opened", () => {
  const [good] = tinyExamples(1) as [Example];
  const make = (options: Partial<TrainerOptions>): ReftTrainerForCausalLM =>
    new ReftTrainerForCausalLM({
      model: tinyReft(model, { layers: [0, 1] }),
      tokenizer: { padTokenId: 0 },
      trainDataset: [good],
      ...options,
    });

  const cases: readonly [string, Partial<TrainerOptions>, RegExp][] = [
    ["no examples", { trainDataset: [] }, /no examples to train on/],
    ["no evaluation data", { args: { evalStrategy: "epoch" } }, /evalStrategy is "epoch", but there is no evalDataset/],
    ["an unknown argument", { args: { lr: 1 } as TrainingOptions }, /no training argument "lr"/],
    [
      "another model's tokens",
      { trainDataset: [good, { ...good, inputIds: good.inputIds.map((id, i) => (i === 1 ? 64 : id)) }] },
      /trainDataset\[1\] has the token 64; llama has tokens 0–63/,
    ],
    [
      "labels outside",
      { evalDataset: [{ ...good, labels: good.labels.map(() => -1) }] },
      /evalDataset\[0\].* token -1/,
    ],
    [
      "locations for other edits",
      { trainDataset: [{ ...good, locations: [[0], [1], [2]] }] },
      /trainDataset\[0\] has 3 lists of locations for 2 edits/,
    ],
    ["no answers", { trainDataset: [{ ...good, labels: good.labels.map(() => -100) }] }, /no answer tokens to learn/],
  ];
  test.each(cases)("%s", async (_, options, message) => {
    const { message: said, hint } = await failure(() => make(options).train());
    expect(said).toMatch(message);
    expect(hint).not.toBe("");
  });

  test("an evaluation without examples or answers", async () => {
    expect((await failure(() => make({}).evaluate())).message).toMatch(/no examples to evaluate/);
    const empty = { ...good, labels: good.labels.map(() => -100) };
    expect((await failure(() => make({}).evaluate([empty]))).message).toMatch(/no answer tokens to evaluate/);
  });
});

describe("a loss that is no number", () => {
  /** The tiny model, its loss lost in the n-th run of a training step. */
  const losing = (run: number): CausalLM => {
    let runs = 0;
    const losingRuntime: Runtime = {
      device: runtime.device,
      dispose: async () => undefined,
      allocate: (...values) => runtime.allocate(...values),
      open: async (...values) => {
        const session = await runtime.open(...values);
        return {
          dispose: () => session.dispose(),
          run: async (feeds) => {
            const outputs = await session.run(feeds);
            if (!("loss" in outputs) || ++runs !== run) return outputs;
            return { ...outputs, loss: { shape: [], data: Float32Array.of(Number.NaN) } };
          },
        };
      },
    };
    return new CausalLM({ id: "llama", revision: undefined, checkpoint: model.checkpoint, runtime: losingRuntime });
  };

  test("goes back to the last weights that gave a finite one, in memory and in a checkpoint", async () => {
    const reft = tinyReft(losing(3));
    const { message, hint } = await failure(() => train({ reft, args: { ...args, outputDir: folder } }));
    const kept = join(folder, "checkpoint-1");
    expect(message).toContain("the loss became NaN");
    expect(message).toContain(`at step 3 of 4; the weights of step 1, the last good ones, are kept in ${kept}.`);
    expect(hint).toContain("learningRate");
    const one = await train({ reft: tinyReft(model), args, stopAt: 1 });
    expect(weightsOf(reft)).toEqual(one.weights);
    expect(weightsOf(await ReftModel.load(kept, model))).toEqual(one.weights);
    const whole = await train({ reft: tinyReft(model), args });
    const resumed = await train({ reft: tinyReft(model), args: { ...args, outputDir: folder }, resume: true });
    expect(resumed.weights).toEqual(whole.weights);
  });

  test("without an outputDir, in memory", async () => {
    const reft = tinyReft(losing(3));
    expect((await failure(() => train({ reft, args }))).message).toContain("are kept in memory");
    expect(weightsOf(reft)).toEqual((await train({ reft: tinyReft(model), args, stopAt: 1 })).weights);
  });

  test("on a full disk the message is about the loss all the same", async () => {
    const reft = tinyReft(losing(3));
    disk.fullAt = 1;
    const { message } = await failure(() => train({ reft, args: { ...args, outputDir: folder } }));
    expect(message).toMatch(/the loss became NaN.*are kept in memory/);
  });

  test.each([1e38, 1e39])("a learning rate of %d leaves no weights that are not numbers", async (learningRate) => {
    const reft = tinyReft(model);
    const first = weightsOf(tinyReft(model));
    const told = { ...args, learningRate, lrSchedulerType: "constant", outputDir: folder } as const;
    const { message } = await failure(() => train({ reft, args: told }));
    expect(message).toMatch(/became (NaN|Infinity|infinite).* at step [12] of 4; the weights of step 0/);
    expect(weightsOf(reft)).toEqual(first);
    expect(weightsOf(await ReftModel.load(join(folder, "checkpoint-0"), model))).toEqual(first);
  });

  test("from a base model that holds NaN: the first step says so", async () => {
    const poisoned = join(folder, "model");
    cpSync(golden("families/llama"), poisoned, { recursive: true });
    const file = join(poisoned, "model.safetensors");
    const { tensors, metadata } = decodeSafetensors(readFileSync(file), file);
    tensors.get("model.norm.weight")?.data.fill(Number.NaN);
    writeFileSync(file, encodeSafetensors(Object.fromEntries(tensors), metadata));
    const checkpoint = await openCheckpoint(poisoned);
    const base = new CausalLM({ id: "poisoned", revision: undefined, checkpoint, runtime });
    const reft = tinyReft(base);
    const first = weightsOf(reft);
    const { message } = await failure(() => train({ reft, args }));
    expect(message).toMatch(/the loss became NaN .* at step 1 of 4; the weights of step 0/);
    expect(weightsOf(reft)).toEqual(first);
  });

  test("in an evaluation: never the best", async () => {
    // The evaluation after step 1 is the 2nd run.
    const reft = tinyReft(losing(2));
    const evaluated: TrainingOptions = { ...args, evalStrategy: "steps", evalSteps: 1, loadBestModelAtEnd: true };
    const { events } = await train({ reft, args: evaluated, evalData: tinyExamples(3, 2) });
    const told = of(events, "evaluate");
    expect(told.map((e) => e.best).slice(0, 2)).toEqual([false, true]);
    expect(told[0]?.loss).toBeNaN();
  });
});

describe("resuming", () => {
  const other = tinyExamples(10, 5);
  const settings: TrainingOptions = { ...args, evalStrategy: "steps", evalSteps: 1 };
  const evalData = tinyExamples(3, 2);
  let outputDir: string;
  let checkpoint: string;
  beforeEach(async () => {
    outputDir = join(folder, "run");
    checkpoint = join(outputDir, "checkpoint-2");
    await train({ reft: tinyReft(model), args: { ...settings, outputDir }, evalData, stopAt: 2 });
  });
  const resume = (given: Partial<Parameters<typeof train>[0]> = {}): Promise<UserError> => {
    const reft = given.reft ?? tinyReft(model, { seed: 9 });
    const before = weightsOf(reft);
    return failure(() =>
      train({ reft, args: { ...settings, outputDir }, evalData, resume: checkpoint, ...given }),
    ).then((error) => {
      expect(weightsOf(reft), "the model is as it was").toEqual(before);
      return error;
    });
  };

  const strangers: readonly [string, () => Partial<Parameters<typeof train>[0]>][] = [
    ["other data", () => ({ data: other })],
    ["other evaluation data", () => ({ evalData: other })],
    ["another learning rate", () => ({ args: { ...settings, outputDir, learningRate: 0.02 } })],
    ["another seed", () => ({ args: { ...settings, outputDir, seed: 1 } })],
    ["other edits", () => ({ reft: tinyReft(model, { layers: [2] }) })],
    ["another activation", () => ({ reft: tinyReft(model, { actFn: "relu" }) })],
    ["another dtype", () => ({ reft: tinyReft(model, { dtype: "bfloat16" }) })],
    ["another dropout", () => ({ reft: tinyReft(model, { dropout: 0.1 }) })],
  ];
  test.each(strangers)("a run of %s is refused", async (_, given) => {
    expect((await resume(given())).message).toMatch(/was written by a run with other settings or other data/);
    expect((await resume({ ...given(), resume: true })).message).toMatch(/other settings or other data/);
  });

  test("a run of another model is refused", async () => {
    const { message } = await resume({ reft: tinyReft(await openTiny(runtime, "llama-untied")) });
    expect(message).toMatch(/other settings/);
  });

  test("logs and saves may differ", async () => {
    const given = { ...settings, outputDir, loggingSteps: 1, saveStrategy: "steps", saveSteps: 3 } as const;
    const { events } = await train({ reft: tinyReft(model), args: given, evalData, resume: true });
    expect(events.at(-1)).toMatchObject({ reason: "done" });
  });

  test("where nothing is", async () => {
    expect((await resume({ resume: join(folder, "no") })).message).toMatch(/no.trainer_state\.json does not exist/);
    const empty = { args: { ...settings, outputDir: join(folder, "empty") }, resume: true } as const;
    expect((await resume(empty)).message).toMatch(/has no checkpoint to resume from/);
    expect((await resume({ args: settings, resume: true })).message).toMatch(/no outputDir to find a checkpoint in/);
  });

  const state = () => join(checkpoint, "trainer_state.json");
  const tensors = () => join(checkpoint, "trainer_state.safetensors");
  const edited = (change: (json: Record<string, unknown>) => object): void =>
    writeFileSync(state(), JSON.stringify(change(JSON.parse(readFileSync(state(), "utf8")))));
  const rewritten = (change: (found: ReturnType<typeof decodeSafetensors>["tensors"]) => void): void => {
    const { tensors: found } = decodeSafetensors(readFileSync(tensors()), "state");
    change(found);
    writeFileSync(tensors(), encodeSafetensors(Object.fromEntries(found)));
  };
  const first = (found: ReadonlyMap<string, unknown>, prefix: string): string =>
    [...found.keys()].find((key) => key.startsWith(prefix)) as string;

  const damages: readonly [string, () => void, RegExp][] = [
    ["no JSON", () => writeFileSync(state(), "{"), /trainer_state\.json is not JSON/],
    ["a JSON list", () => writeFileSync(state(), "[]"), /is JSON, but not an object/],
    ["no step", () => edited(({ step: _, ...rest }) => rest), /trainer_state\.json is damaged/],
    ["a wrong type", () => edited((json) => ({ ...json, optimiserStep: "2" })), /is damaged/],
    ["a state of a gigabyte", () => appendFileSync(state(), " ".repeat(1_000_001)), /more than the 1000000/],
    ["an empty tensor file", () => writeFileSync(tensors(), ""), /trainer_state\.safetensors/],
    [
      "a truncated tensor file",
      () => writeFileSync(tensors(), readFileSync(tensors()).subarray(0, -100)),
      /trainer_state\.safetensors/,
    ],
    ["an adapter in its place", () => copyFileSync(join(checkpoint, "reft.safetensors"), tensors()), /no "/],
    ["a parameter missing", () => rewritten((f) => f.delete(first(f, "parameter."))), /has no "/],
    ["a moment missing", () => rewritten((f) => f.delete(first(f, "optimiser."))), /has no "/],
    ["best weights missing", () => rewritten((f) => f.delete(first(f, "best."))), /has no "/],
    [
      "a moment too short",
      () => rewritten((f) => f.set(first(f, "optimiser."), { shape: [1], data: new Float32Array(1) })),
      /has 1 numbers in/,
    ],
    ["a NaN", () => rewritten((f) => f.get([...f.keys()].at(-1) as string)?.data.fill(Number.NaN)), /NaN or infinity/],
  ];
  test.each(damages)("from a damaged checkpoint (%s) leaves the model alone", async (_, damage, message) => {
    damage();
    expect((await resume()).message).toMatch(message);
  });

  test("a damaged newest checkpoint is not passed over in silence", async () => {
    writeFileSync(state(), "{");
    expect((await resume({ resume: true })).message).toMatch(/checkpoint-2.*is not JSON/);
  });
});

describe("a folder that cannot be written", () => {
  test("is found at the start", async () => {
    writeFileSync(join(folder, "file"), "");
    const events: TrainEvent[] = [];
    const trainer = new ReftTrainerForCausalLM({
      model: tinyReft(model),
      tokenizer: { padTokenId: 0 },
      args: { ...args, outputDir: join(folder, "file", "under") },
      trainDataset: tinyExamples(10),
      callbacks: [(event) => void events.push(event)],
    });
    const { message } = await failure(() => trainer.train());
    expect(message).toMatch(/a part of that path is a file/);
    expect(of(events, "step")).toEqual([]);
  });

  test("a full disk while a checkpoint is written: the one before stays whole, and can be resumed", async () => {
    const saving: TrainingOptions = { ...args, outputDir: folder, saveStrategy: "steps", saveSteps: 1, reportTo: [] };
    // Four files a checkpoint: the second one's third file does not fit.
    disk.fullAt = 6;
    const reft = tinyReft(model);
    const { message } = await failure(() => train({ reft, args: saving }));
    expect(message).toMatch(/checkpoint-2.*the disk is full/);
    expect(readdirSync(folder)).toEqual(["checkpoint-1"]);
    disk.fullAt = Infinity;
    const resumed = await train({ reft: tinyReft(model, { seed: 9 }), args: saving, resume: true });
    expect(resumed.weights).toEqual((await train({ reft: tinyReft(model), args })).weights);
  });

  test("a full disk while an adapter is saved: the old one stays", async () => {
    const place = join(folder, "adapter");
    const old = tinyReft(model, { seed: 1 });
    await old.save(place);
    const bytes = readdirSync(place).map((name) => readFileSync(join(place, name)));
    for (const fullAt of [0, 1]) {
      Object.assign(disk, { writes: 0, fullAt });
      const { message } = await failure(() => tinyReft(model, { seed: 2 }).save(place, { overwrite: true }));
      expect(message).toMatch(/the disk is full/);
      expect(readdirSync(place).map((name) => readFileSync(join(place, name)))).toEqual(bytes);
    }
    disk.fullAt = Infinity;
    expect(weightsOf(await ReftModel.load(place, model))).toEqual(weightsOf(old));
    disk.writes = 0;
    disk.fullAt = 1;
    await failure(() => tinyReft(model).save(join(folder, "new")));
    expect(existsSync(join(folder, "new"))).toBe(false);
  });
});
