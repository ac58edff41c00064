/** One training or evaluation step: the loss of a batch, and its gradients by the edits' parameters. */

import { collateTokens, PADDING_POSITION, type Span, type TokenBatch } from "../data/collate.js";
import type { Example, Sequence } from "../data/example.js";
import { subspaceFactors } from "../data/subspaces.js";
import { productWeightBytes } from "../graph/cost.js";
import type { ModelConfig } from "../models/config.js";
import { type Site, widthAt } from "../models/site.js";
import { toOnnx } from "../onnx/emit.js";
import type { Random } from "../reft/random.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { HostTensor, Session } from "../runtime/runtime.js";
import { FrozenCache } from "./frozen-cache.js";
import { cutOrigin } from "./frozen-keys.js";
import { frozenShape } from "./frozen-pieces.js";
import { FrozenStore } from "./frozen-store.js";
import { type CutStep, cutStep, type GraphOptions, wholeStep } from "./loss-graph.js";
import { int64s, nextToken } from "./next-token.js";
import type { Feeds, Figures, Objective, Outputs } from "./objective.js";
import { frozenScoreBytes, headPartsFor } from "./parts.js";
import { liveSpans, queryPartsOf, wholeSpans } from "./spans.js";

export interface StepResult {
  /** The objective's loss, summed with the weight given: Σ weight · cross entropy over the labelled tokens. */
  readonly loss: number;
  /** The objective's other measures, summed over its terms. */
  readonly figures: Figures;
  /** All outputs of the graph. */
  readonly outputs: Feeds;
  /** By parameter name, the gradient by the parameter's value; empty for an evaluation step. */
  readonly gradients: ReadonlyMap<string, Float32Array>;
}

/** An opened step. It holds native memory until disposed. */
export interface Step<Item = Example> {
  /**
   * @param weight of each labelled token (or other term) in the loss: 1/n for a mean over n
   * @param dropout draws the dropout masks; needed only where an edit drops out
   */
  run(items: readonly Item[], weight: number, dropout?: Random): Promise<StepResult>;
  dispose(): Promise<void>;
}

export interface StepOptions {
  /** Compute gradients, and let edits drop out. */
  readonly training: boolean;
  readonly padTokenId: number;
  /** Compute what no trainable tensor reaches once an example, and keep it. */
  readonly frozenCache: boolean;
  /** Keep only each block's input for the derivative and compute the block again there. Default false. */
  readonly gradientCheckpointing?: boolean;
  /** How often it is to run, where that is known: what is worth its while in a long run is not in a short one. */
  readonly runs?: number | undefined;
  /** Where frozen work is kept: several steps may share it, and whoever made it disposes it. */
  readonly frozenStore?: FrozenStore | undefined;
  /** Without a `frozenStore`: bytes of frozen work kept in memory, default 512 MB; the rest goes to a temporary file. */
  readonly frozenCacheBytes?: number;
}

/** Opens a step over examples. */
export async function openStep(reft: ReftModel, options: StepOptions): Promise<Step> {
  return openStepOf(nextToken, reft, options);
}

/** Opens a step over an objective's items. */
export async function openStepOf<Item>(
  objective: Objective<Item>,
  reft: ReftModel,
  options: StepOptions,
): Promise<Step<Item>> {
  return options.frozenCache ? openCut(objective, reft, options) : openWhole(objective, reft, options);
}

/** Everything in every step. */
async function openWhole<Item>(objective: Objective<Item>, reft: ReftModel, options: StepOptions): Promise<Step<Item>> {
  const sessions = new LazySessions<StepParts>((key) =>
    openGraph(reft, wholeStep(reft, graphOptions(objective, options, key))),
  );
  const batches = objective.batches(reft);
  return {
    run: async (items, weight, dropout) => {
      const spans = wholeSpans(reft, sequencesOf(objective, items), objective);
      const queries = queryPartsOf(reft, spans);
      const { batch, feeds } = await batches.make(items, { ...options, spans, multipleOf: queries }, weight);
      const heads = headPartsFor(reft.model.config, { batch: batch.size, live: batch.length, past: 0 });
      const session = await sessions.get(`${heads} ${queries}`);
      const all = { ...feedsOf(reft, batch, options, dropout), ...feeds, ...tokensOf(batch) };
      return resultOf(objective, items, reft, await session.run(all), options);
    },
    dispose: async () => {
      await Promise.all([sessions.dispose(), batches.dispose()]);
    },
  };
}

/** In how many parts heads come, and tokens in attention. */
type StepParts = `${number} ${number}`;

function graphOptions<Item>(objective: Objective<Item>, options: StepOptions, key: StepParts): GraphOptions {
  const { training, gradientCheckpointing: recomputeBlocks } = options;
  const [headParts = 1, queryParts = 1] = key.split(" ").map(Number);
  return { training, recomputeBlocks, objective, headParts, queryParts };
}

function sequencesOf<Item>(objective: Objective<Item>, items: readonly Item[]): Sequence[] {
  return items.flatMap((item) => objective.sequences(item));
}

/** Frozen work once an example; steps over the live tokens and the layers above the cut. */
async function openCut<Item>(objective: Objective<Item>, reft: ReftModel, options: StepOptions): Promise<Step<Item>> {
  const cutBy = (key: StepParts): CutStep => cutStep(reft, graphOptions(objective, options, key));
  const plain: StepParts = "1 1";
  const cut = cutBy(plain);
  const shape = frozenShape(cut, reft.model.bidirectional, reft.model.config);
  const graphOf = (key: string): Outputs => {
    const [graph, ...parts] = key.split(" ");
    const by = parts.join(" ") as StepParts;
    return (by === plain ? cut : cutBy(by))[graph as FrozenGraph | StepGraph];
  };
  const frozen = new LazySessions<`${FrozenGraph} ${StepParts}`>((key) => openGraph(reft, graphOf(key)));
  const steps = new LazySessions<`${StepGraph} ${StepParts}`>(async (key) => {
    // Both at once are twice the memory: where examples are left, the frozen one is opened again.
    await frozen.dispose();
    // After cached tokens there are few live ones, and packing counts for more.
    return openGraph(reft, graphOf(key), key.startsWith("step ") ? options.runs : 1);
  });
  const store = options.frozenStore ?? new FrozenStore({ memory: options.frozenCacheBytes ?? 512e6 });
  // Keyed by the plain graph: heads and queries in parts give the same but for rounding.
  const shelf = await store.shelf(cutOrigin(cut.frozen, reft.model.runtime.device));
  const cache = new FrozenCache(shape, shelf, async (sequences) => {
    const whole = wholeSpans(reft, sequences, objective);
    const queries = queryPartsOf(reft, whole);
    const batch = collateTokens(sequences, { ...options, spans: whole, multipleOf: queries });
    const spans = liveSpans(reft, sequences, objective);
    const sizes = { batch: batch.size, live: batch.length, past: 0 };
    const heads = headPartsFor(reft.model.config, sizes, frozenScoreBytes);
    const session = await frozen.get(`${looksBack(spans) ? "frozen" : "frozenWithoutPast"} ${heads} ${queries}`);
    return { outputs: await session.run(tokensOf(batch)), length: batch.length };
  });
  const batches = objective.batches(reft);
  const looksBack = (spans: readonly Span[]): boolean => shape.pastLayers.length > 0 && spans.some((s) => s.start > 0);
  return {
    run: async (items, weight, dropout) => {
      const sequences = sequencesOf(objective, items);
      const spans = liveSpans(reft, sequences, objective);
      const past = Math.max(...spans.map((s) => s.start));
      const queries = queryPartsOf(reft, spans);
      const { batch, feeds } = await batches.make(items, { ...options, spans, multipleOf: queries }, weight);
      const fed = await cache.feeds(sequences, spans, batch.length);
      const heads = headPartsFor(reft.model.config, { batch: batch.size, live: batch.length, past });
      const session = await steps.get(`${looksBack(spans) ? "step" : "stepWithoutPast"} ${heads} ${queries}`);
      const all = { ...feedsOf(reft, batch, options, dropout), ...feeds, ...fed, ...positionsOf(batch, spans, past) };
      return resultOf(objective, items, reft, await session.run(all), options);
    },
    dispose: async () => {
      await Promise.all([frozen.dispose(), steps.dispose(), batches.dispose()]);
      if (store !== options.frozenStore) await store.dispose();
    },
  };
}

type FrozenGraph = "frozen" | "frozenWithoutPast";
type StepGraph = "step" | "stepWithoutPast";

/** Graphs by key, each opened when a batch first needs it. */
class LazySessions<Key> {
  private readonly open: (key: Key) => Promise<Session>;
  private readonly opened = new Map<Key, Promise<Session>>();

  constructor(open: (key: Key) => Promise<Session>) {
    this.open = open;
  }

  get(key: Key): Promise<Session> {
    const session = this.opened.get(key) ?? this.open(key);
    this.opened.set(key, session);
    return session;
  }

  async dispose(): Promise<void> {
    const opened = [...this.opened.values()];
    this.opened.clear();
    // One that could not be opened has said so to whoever asked for it.
    for (const session of opened)
      await session.then(
        (s) => s.dispose(),
        () => undefined,
      );
  }
}

/** Opens a graph that takes from its feeds what it has a use for: cut graphs keep only some of a whole step's inputs. */
export async function openGraph(reft: ReftModel, outputs: Outputs, runs = 1): Promise<Session> {
  const model = toOnnx(outputs, reft.model.runtime.device);
  const weightBytes = productWeightBytes(Object.values(outputs));
  const session = await reft.model.runtime.open(model, reft.model.trainingOptions(runs, weightBytes));
  return {
    run: (feeds) => session.run(Object.fromEntries(model.inputs.map(({ name }) => [name, feeds[name] as HostTensor]))),
    dispose: () => session.dispose(),
  };
}

function resultOf<Item>(
  objective: Objective<Item>,
  items: readonly Item[],
  reft: ReftModel,
  outputs: Feeds,
  { training }: StepOptions,
): StepResult {
  const numbers = (name: string): Float32Array => outputs[name]?.data as Float32Array;
  const names = training ? [...reft.parameters.keys()] : [];
  return {
    loss: numbers("loss")[0] as number,
    figures: objective.figures(items, outputs),
    outputs,
    gradients: new Map(names.map((name, i) => [name, numbers(`gradient.${i}`)])),
  };
}

/** Edits and parameters. */
function feedsOf(
  reft: ReftModel,
  batch: TokenBatch,
  { training }: StepOptions,
  dropout: Random | undefined,
): Record<string, HostTensor> {
  const feeds: Record<string, HostTensor> = { ...reft.feeds() };
  const ranks = reft.edits.map(({ intervention }) => intervention.lowRankDimension);
  const factors = reft.edits.some((e) => e.intervention.usesFactors) ? subspaceFactors(batch, ranks) : [];
  reft.edits.forEach(({ site, intervention }, i) => {
    const rows = (batch.editRows.length === 1 ? batch.editRows[0] : batch.editRows[i]) ?? new Int32Array();
    feeds[`rows.${i}`] = int64s(rows);
    const rank = intervention.lowRankDimension;
    if (intervention.usesFactors)
      feeds[`factors.${i}`] = { shape: [rows.length, rank], data: factors[i] as Float32Array };
    const share = training ? reft.dropoutOf(i) : 0;
    if (share > 0) feeds[`dropout.${i}`] = dropoutMask(rows.length, site, reft.model.config, share, dropout);
  });
  return feeds;
}

/** Feeds of whole sequences' tokens. */
export function tokensOf(batch: TokenBatch): Record<string, HostTensor> {
  const shape = [batch.size, batch.length];
  return {
    ids: { shape, data: batch.ids },
    positions: { shape, data: batch.positions },
    keyPositions: { shape, data: batch.keyPositions },
    tokenTypes: { shape, data: batch.tokenTypes ?? new BigInt64Array(batch.size * batch.length) },
  };
}

/** Positions of live tokens, and of their keys after P cached ones: 0 … start − 1, then padding. */
function positionsOf(batch: TokenBatch, spans: readonly Span[], past: number): Record<string, HostTensor> {
  const [b, t] = [batch.size, batch.length];
  const keys = new Int32Array(b * (past + t)).fill(PADDING_POSITION);
  spans.forEach(({ start }, i) => {
    for (let p = 0; p < start; p++) keys[i * (past + t) + p] = p;
    keys.set(batch.keyPositions.subarray(i * t, (i + 1) * t), i * (past + t) + past);
  });
  return {
    positions: { shape: [b, t], data: batch.positions },
    keyPositions: { shape: [b, past + t], data: keys },
  };
}

/** [rows, width] of 0 with probability `share`, else 1/(1 − share); 1 at heads that are not edited. */
function dropoutMask(
  rows: number,
  { component, heads }: Site,
  config: ModelConfig,
  share: number,
  random: Random | undefined,
): HostTensor {
  if (random === undefined) throw new Error("internal: an edit drops out, but no random generator was given");
  const keep = 1 / (1 - share);
  const width = widthAt(component, config);
  const kept = (column: number): boolean => heads?.includes(Math.floor(column / config.headDim)) === false;
  const data = Float32Array.from({ length: rows * width }, (_, n) =>
    kept(n % width) ? 1 : random.uniform() < share ? 0 : keep,
  );
  return { shape: [rows, width], data };
}
