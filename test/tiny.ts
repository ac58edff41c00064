/** A run small enough to be repeated at every step: a tiny random checkpoint, made-up examples, edits with seeds. */

import type { Example } from "../src/data/example.js";
import { openCheckpoint } from "../src/files/checkpoint-node.js";
import { generateTokens, type NewToken } from "../src/generate/generate.js";
import { CausalLM } from "../src/models/causal-lm.js";
import { adapterFiles, weightsFile } from "../src/reft/adapter.js";
import type { InterventionOptions } from "../src/reft/intervention.js";
import { LoreftIntervention } from "../src/reft/loreft.js";
import { Random } from "../src/reft/random.js";
import { ReftModel } from "../src/reft/reft-model.js";
import type { Runtime } from "../src/runtime/runtime.js";
import type { TrainingOptions } from "../src/train/arguments.js";
import type { TrainEvent } from "../src/train/events.js";
import { openStep, type StepResult } from "../src/train/step.js";
import { ReftTrainerForCausalLM, type RunOptions } from "../src/train/trainer.js";
import { golden } from "./support.js";

/** One of the tiny checkpoints, by its folder's name. */
export async function openTiny(runtime: Runtime, name = "llama"): Promise<CausalLM> {
  return new CausalLM({
    id: name,
    revision: undefined,
    checkpoint: await openCheckpoint(golden(`families/${name}`)),
    runtime,
  });
}

/** LoReFT edits of rank 2, one a layer. */
export function tinyReft(
  model: CausalLM,
  options: { seed?: number; layers?: readonly number[] } & Partial<InterventionOptions> = {},
): ReftModel {
  const { seed = 42, layers = [1], ...rest } = options;
  const representations = layers.map((layer) => ({
    layer,
    intervention: new LoreftIntervention({ embedDim: model.config.hiddenSize, lowRankDimension: 2, ...rest }),
  }));
  return new ReftModel(model, { representations, positions: "l1" }, { seed });
}

/** Examples of 5 to 11 tokens below 64, the last 3 of them the answer; the last prompt token is edited. */
export function tinyExamples(count: number, seed = 1): Example[] {
  const random = new Random(seed);
  return Array.from({ length: count }, () => {
    const promptLength = 2 + random.integer(7);
    const inputIds = Array.from({ length: promptLength + 3 }, () => random.integer(64));
    const labels = inputIds.map((id, i) => (i < promptLength ? -100 : id));
    return { inputIds, labels, promptLength, locations: [[promptLength - 1]] };
  });
}

export interface TinyRun {
  readonly reft: ReftModel;
  readonly args: TrainingOptions;
  readonly data?: readonly Example[];
  readonly evalData?: readonly Example[];
  readonly resume?: RunOptions["resumeFromCheckpoint"];
  /** Cancels in the event of this step. */
  readonly stopAt?: number;
}

export interface Told {
  readonly events: TrainEvent[];
  readonly losses: number[];
  /** The bytes of reft.safetensors afterwards. */
  readonly weights: Uint8Array;
}

/** Runs to the end, or to `stopAt`. */
export async function train({ reft, args, data = tinyExamples(10), evalData, resume, stopAt }: TinyRun): Promise<Told> {
  const stop = new AbortController();
  const events: TrainEvent[] = [];
  const trainer = new ReftTrainerForCausalLM({
    model: reft,
    tokenizer: { padTokenId: 0 },
    args,
    trainDataset: data,
    ...(evalData === undefined ? {} : { evalDataset: evalData }),
    callbacks: [(event) => event.type === "step" && event.step === stopAt && stop.abort()],
  });
  const options = { signal: stop.signal, ...(resume === undefined ? {} : { resumeFromCheckpoint: resume }) };
  for await (const event of trainer.run(options)) events.push(event);
  return { events, losses: of(events, "step").map((e) => e.loss), weights: weightsOf(reft) };
}

/** One step of edits in both layers: loss and gradients. */
export async function tinyStep(model: CausalLM, frozenCache: boolean): Promise<StepResult> {
  const options = { training: true, padTokenId: 0, frozenCache, frozenCacheBytes: 1e7 };
  const step = await openStep(tinyReft(model, { layers: [0, 1] }), options);
  const result = await step.run(tinyExamples(4), 0.1);
  await step.dispose();
  return result;
}

/** Eight tokens after each of two prompts. */
export async function tinyTokens(model: CausalLM): Promise<NewToken[]> {
  const prompts = [
    [5, 9, 2],
    [7, 1, 8, 2, 8],
  ];
  const tokens: NewToken[] = [];
  for await (const step of generateTokens(model, prompts, { maxNewTokens: 8 })) tokens.push(...step);
  return tokens;
}

/** The events of one type. */
export function of<T extends TrainEvent["type"]>(
  events: readonly TrainEvent[],
  type: T,
): Extract<TrainEvent, { type: T }>[] {
  return events.filter((e): e is Extract<TrainEvent, { type: T }> => e.type === type);
}

export function weightsOf(reft: ReftModel): Uint8Array {
  return adapterFiles(reft)[weightsFile] as Uint8Array;
}

/** Everything that makes a run hard to take up again: 3 batches an epoch, the last of 2 examples, in steps of 2 and 1. */
export const hard: TrainingOptions = {
  numTrainEpochs: 3,
  perDeviceTrainBatchSize: 4,
  gradientAccumulationSteps: 2,
  learningRate: 0.02,
  warmupSteps: 2,
  weightDecay: 0.1,
  loggingSteps: 2,
};

/** What events say, without the clock. */
export function timeless(events: readonly TrainEvent[]): object[] {
  return events.map((event) => ({ ...event, seconds: 0, tokensPerSecond: 0 }));
}

/** The loss on examples, without training: any change of the logits changes it. */
export async function lossOf(reft: ReftModel, data: readonly Example[] = tinyExamples(6)): Promise<number> {
  const trainer = new ReftTrainerForCausalLM({ model: reft, tokenizer: { padTokenId: 0 }, trainDataset: data });
  return (await trainer.evaluate(data)).loss;
}
