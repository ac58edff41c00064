/** The training loop: examples in, events out. It never prints; it can be cancelled at any step and resumed. */

import type { Example } from "../data/example.js";
import { UserError } from "../errors.js";
import type { Positions } from "../reft/positions.js";
import { Random } from "../reft/random.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { Tokenizer } from "../tokens/tokenizer.js";
import { AdamW } from "./adamw.js";
import { parseTrainingArguments, type TrainingArguments, type TrainingOptions } from "./arguments.js";
import { chunks } from "./batches.js";
import { restoreAll } from "./checkpoint.js";
import { clipByGlobalNorm, globalNorm } from "./clip.js";
import type { TrainEvent } from "./events.js";
import { fingerprint } from "./fingerprint.js";
import { FrozenStore } from "./frozen-store.js";
import { type Evaluation, nextToken } from "./next-token.js";
import type { Feeds, Figures, Measured, Objective } from "./objective.js";
import { makePlan, type Plan, type PlannedStep } from "./plan.js";
import { firstState, Run } from "./run.js";
import { RunFolder } from "./run-folder.js";
import { schedule } from "./schedule.js";
import { openStepOf, type Step } from "./step.js";

export type { Evaluation } from "./next-token.js";

export type TrainEnd = Extract<TrainEvent, { type: "end" }>;

export interface TrainerOptions<Item = Example> {
  readonly model: ReftModel;
  /** Gives the padding token. */
  readonly tokenizer: Pick<Tokenizer, "padTokenId">;
  readonly args?: TrainingOptions;
  readonly trainDataset: readonly Item[];
  readonly evalDataset?: readonly Item[];
  /** The rule that placed the examples' edits; left with the model where it has none of its own. */
  readonly positions?: Positions;
  /** Called with every event. */
  readonly callbacks?: readonly ((event: TrainEvent) => void)[];
  /** Seconds since 1970; for logs and speeds only. */
  readonly now?: () => number;
}

export interface RunOptions {
  /** A checkpoint folder, or true for the newest in outputDir. */
  readonly resumeFromCheckpoint?: string | true;
  /** Cancels after the step in progress; with an outputDir a checkpoint is written first. */
  readonly signal?: AbortSignal;
}

export interface EvaluateOptions {
  /** Called after every batch with how many items are done. */
  readonly onProgress?: (done: number) => void;
  /** Stops after the batch in progress: its reason is thrown. */
  readonly signal?: AbortSignal;
}

/** Trains edits on the items of an objective: what all trainers share. */
export class ReftTrainer<Item, E extends Measured> {
  readonly model: ReftModel;
  readonly args: TrainingArguments;
  protected readonly objective: Objective<Item, E>;
  private readonly options: TrainerOptions<Item>;
  private readonly plan: Plan<Item>;
  private readonly now: () => number;

  /** Checks the arguments and the data; opens nothing yet. Throws UserError for bad arguments or no data. */
  constructor(options: TrainerOptions<Item>, objective: Objective<Item, E>) {
    this.model = options.model;
    this.options = options;
    this.objective = objective;
    this.args = parseTrainingArguments(options.args ?? {});
    this.now = options.now ?? (() => Date.now() / 1000);
    if (options.trainDataset.length === 0)
      throw new UserError("there are no examples to train on.", "Pass at least one.");
    objective.check(options.trainDataset, this.model, "trainDataset");
    objective.check(options.evalDataset ?? [], this.model, "evalDataset");
    if (this.args.evalStrategy !== "no" && (options.evalDataset?.length ?? 0) === 0)
      throw new UserError(`evalStrategy is "${this.args.evalStrategy}", but there is no evalDataset.`, "Pass one.");
    this.model.positions ??= options.positions;
    this.plan = makePlan(options.trainDataset, this.args, objective);
  }

  /** Runs to the end and returns the last event. */
  async train(options: RunOptions = {}): Promise<TrainEnd> {
    const events = this.run(options);
    for (;;) {
      const { done, value } = await events.next();
      if (done === true) return value;
    }
  }

  /**
   * The run as a stream of events; the last one is also the generator's return value.
   *
   * @throws UserError when the loss is no longer a number: the weights are the last ones with a finite loss, and are in a
   * checkpoint where there is an outputDir
   */
  async *run(options: RunOptions = {}): AsyncGenerator<TrainEvent, TrainEnd> {
    const store = this.frozenStore();
    const opened: Step<Item>[] = [];
    const open = async (training: boolean): Promise<Step<Item>> => {
      const step = await this.openStep(training, store);
      opened.push(step);
      return step;
    };
    let evaluation: Promise<Step<Item>> | undefined;
    try {
      const training = await open(true);
      const loop = this.loop({ training, evaluation: () => (evaluation ??= open(false)) }, options);
      for (;;) {
        const { done, value } = await loop.next();
        for (const callback of this.options.callbacks ?? []) callback(value);
        await this.folder()?.log(value);
        yield value;
        if (done === true) return value;
      }
    } finally {
      for (const step of opened) await step.dispose();
      await store.dispose();
    }
  }

  /** The loss on a data set with the edits as they are now. */
  async evaluate(items: readonly Item[] = this.options.evalDataset ?? [], options: EvaluateOptions = {}): Promise<E> {
    if (items.length === 0) throw new UserError("there are no examples to evaluate on.", "Pass an evalDataset.");
    this.objective.check(items, this.model, "evalDataset");
    const store = this.frozenStore();
    let step: Step<Item> | undefined;
    try {
      step = await this.openStep(false, store);
      const { loss, terms, figures } = await this.measures(items, step, options);
      return this.objective.evaluation(loss, terms, figures);
    } finally {
      await step?.dispose();
      await store.dispose();
    }
  }

  private async measures(
    items: readonly Item[],
    step: Step<Item>,
    { onProgress, signal }: EvaluateOptions = {},
  ): Promise<Measures> {
    const terms = this.objective.terms(items);
    if (terms === 0)
      throw new UserError("the examples have no answer tokens to evaluate.", "Every example needs an answer.");
    let loss = 0;
    let figures: Figures = {};
    let done = 0;
    const outputs: Feeds[] = [];
    const { overall } = this.objective;
    for (const batch of chunks(items, { batchSize: this.args.perDeviceEvalBatchSize, dropLast: false })) {
      signal?.throwIfAborted();
      const result = await step.run(batch, 1 / terms);
      loss += result.loss;
      figures = plus(figures, result.figures, terms);
      if (overall !== undefined) outputs.push(result.outputs);
      done += batch.length;
      onProgress?.(done);
    }
    return { loss, terms, figures: { ...figures, ...overall?.(items, outputs) } };
  }

  private openStep(training: boolean, frozenStore: FrozenStore): Promise<Step<Item>> {
    const { frozenCache, gradientCheckpointing } = this.args;
    const { padTokenId } = this.options.tokenizer;
    const runs = training ? this.plan.totalSteps * this.args.gradientAccumulationSteps : undefined;
    const options = { training, padTokenId, frozenCache, gradientCheckpointing, frozenStore, runs };
    return openStepOf(this.objective, this.model, options);
  }

  /** What training and evaluation keep of frozen work, in one budget. */
  private frozenStore(): FrozenStore {
    const { frozenCacheMemory, frozenCacheDisk, frozenCacheDir, frozenCacheDtype } = this.args;
    const sizes = { memory: frozenCacheMemory * 1e6, disk: frozenCacheDisk * 1e6 };
    return new FrozenStore({ ...sizes, dtype: frozenCacheDtype, folder: frozenCacheDir });
  }

  private folder(): RunFolder | undefined {
    const { outputDir, saveTotalLimit, reportTo } = this.args;
    if (outputDir === undefined) return undefined;
    this.runFolder ??= new RunFolder(outputDir, { limit: saveTotalLimit, reportTo, now: this.now });
    return this.runFolder;
  }
  private runFolder: RunFolder | undefined;

  private async *loop(
    steps: RunSteps<Item>,
    { resumeFromCheckpoint, signal }: RunOptions,
  ): AsyncGenerator<TrainEvent, TrainEnd> {
    const { args, plan } = this;
    const optimiser = new AdamW({
      beta1: args.adamBeta1,
      beta2: args.adamBeta2,
      epsilon: args.adamEpsilon,
      weightDecay: args.weightDecay,
    });
    const run = await this.start(resumeFromCheckpoint, optimiser);
    const rateAt = schedule({ ...args, name: args.lrSchedulerType, totalSteps: plan.totalSteps });
    yield { type: "start", examples: this.options.trainDataset.length, ...plan.size, step: run.state.step };
    while (run.state.step < plan.totalSteps) {
      if (signal?.aborted) return yield* this.stop("aborted", run, optimiser);
      const planned = plan.at(run.state.step);
      const began = this.now();
      const rate = rateAt(run.state.step);
      const { loss, gradNorm, figures } = await this.update(steps.training, planned, optimiser, rate, run);
      const seconds = this.now() - began;
      run.count(loss, planned.tokens, seconds);
      const { epoch } = planned;
      yield {
        type: "step",
        ...at(run, plan),
        epoch,
        loss,
        learningRate: rate,
        gradNorm,
        figures,
        tokens: planned.tokens,
        seconds,
      };
      if (run.state.step % args.loggingSteps === 0) yield run.log(epoch, rate, gradNorm, figures);
      if (due(args.evalStrategy, args.evalSteps, run.state.step, planned, plan)) {
        yield await this.measure(run, epoch, await steps.evaluation());
        if (this.outOfPatience(run)) return yield* this.stop("early-stopping", run, optimiser);
      }
      if (due(args.saveStrategy, args.saveSteps, run.state.step, planned, plan)) yield await this.save(run, optimiser);
    }
    return yield* this.stop("done", run, optimiser);
  }

  private async start(from: string | true | undefined, optimiser: AdamW): Promise<Run> {
    const { model, args, plan, objective } = this;
    const { trainDataset, evalDataset = [] } = this.options;
    const mark = await fingerprint({
      model,
      args,
      totalSteps: plan.totalSteps,
      items: trainDataset.map((item) => objective.digest(item)),
      evaluation: evalDataset.map((item) => objective.digest(item)),
      settings: objective.settings,
    });
    if (from === undefined) return new Run(firstState(mark), undefined, this.now());
    if (from === true && args.outputDir === undefined)
      throw new UserError(
        "there is no outputDir to find a checkpoint in.",
        "Pass an outputDir, or name the checkpoint.",
      );
    const folder = this.folder() ?? new RunFolder(".", { limit: undefined, reportTo: [], now: this.now });
    const { state, best } = await folder.resume(from, model, optimiser, mark);
    return new Run(state, best, this.now());
  }

  /** One optimiser step: gradients of all its batches, clipped, applied. */
  private async update(
    step: Step<Item>,
    planned: PlannedStep<Item>,
    optimiser: AdamW,
    rate: number,
    run: Run,
  ): Promise<{ loss: number; gradNorm: number; figures: Figures }> {
    const parameters = [...this.model.parameters.values()];
    const random = new Random(this.args.seed).fork("dropout").fork(run.state.step);
    let loss = 0;
    let figures: Figures = {};
    let total: Float32Array[] | undefined;
    for (const batch of planned.batches) {
      const result = await step.run(batch, 1 / planned.terms, random);
      const raw = parameters.map((p) => p.pullback(result.gradients.get(p.name) as Float32Array));
      total =
        total === undefined
          ? raw
          : total.map((sum, i) => sum.map((g, j) => g + ((raw[i] as Float32Array)[j] as number)));
      loss += result.loss;
      figures = plus(figures, result.figures, planned.terms);
    }
    const gradients = total ?? [];
    const { maxGradNorm } = this.args;
    const gradNorm = maxGradNorm > 0 ? clipByGlobalNorm(gradients, maxGradNorm) : globalNorm(gradients);
    const said = `the loss became ${loss} (gradient norm ${gradNorm})`;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) throw await this.diverged(run, optimiser, said);
    run.remember(this.model, optimiser);
    optimiser.step(parameters, gradients, rate);
    if (!parameters.every((p) => p.raw.every(Number.isFinite)))
      throw await this.diverged(run, optimiser, "the weights became infinite");
    return { loss, gradNorm, figures };
  }

  /** Goes back to the last weights that gave a finite loss, keeps them, and says so. */
  private async diverged(run: Run, optimiser: AdamW, figures: string): Promise<UserError> {
    const failed = run.state.step + 1;
    const { state, best, parameters, moments } = run.good ?? { state: run.state, best: run.best };
    if (parameters !== undefined) restoreAll(this.model, parameters);
    if (moments !== undefined) optimiser.restore(moments);
    // Where they cannot be written, this message matters more than that one.
    const saved = await this.folder()
      ?.save(this.model, optimiser, state, best)
      .catch(() => undefined);
    return new UserError(
      `${figures} at step ${failed} of ${this.plan.totalSteps}; the weights of step ${state.step}, the last good ones, are kept in ${saved ?? "memory"}.`,
      `Try a lower learningRate than ${this.args.learningRate}, some warm-up, or maxGradNorm 1.`,
    );
  }

  private async measure(run: Run, epoch: number, evaluation: Step<Item>): Promise<TrainEvent> {
    const { loss, terms, figures } = await this.measures(this.options.evalDataset ?? [], evaluation);
    const { perplexity } = this.objective.evaluation(loss, terms, figures);
    const best = run.evaluated(this.score(loss, figures), this.args.earlyStoppingThreshold, this.model);
    const told = perplexity === undefined ? {} : { perplexity };
    return { type: "evaluate", step: run.state.step, epoch, loss, ...told, figures, best };
  }

  /** What is to become lower: the loss, or a measure, negated where more of it is better. */
  private score(loss: number, figures: Figures): number {
    const { metricForBestModel: metric } = this.args;
    if (metric === "loss") return loss;
    const figure = figures[metric];
    if (figure === undefined)
      throw new UserError(
        `metricForBestModel is "${metric}", which is not measured here.`,
        `Measured are ${["loss", ...Object.keys(figures)].join(", ")}.`,
      );
    return lowerIsBetter.has(metric) ? figure : -figure;
  }

  private outOfPatience({ state }: Run): boolean {
    const { earlyStoppingPatience } = this.args;
    return earlyStoppingPatience !== undefined && state.evaluationsWithoutGain >= earlyStoppingPatience;
  }

  private async save(run: Run, optimiser: AdamW): Promise<Extract<TrainEvent, { type: "checkpoint" }>> {
    const folder = await (this.folder() as RunFolder).save(this.model, optimiser, run.state, run.best);
    return { type: "checkpoint", step: run.state.step, folder };
  }

  private async *stop(reason: TrainEnd["reason"], run: Run, optimiser: AdamW): AsyncGenerator<TrainEvent, TrainEnd> {
    let folder: { folder?: string } = {};
    if (reason === "aborted" && this.folder() !== undefined) {
      const event = await this.save(run, optimiser);
      yield event;
      folder = { folder: event.folder };
    }
    if (this.args.loadBestModelAtEnd && reason !== "aborted" && run.best !== undefined)
      restoreAll(this.model, run.best);
    return { type: "end", reason, ...at(run, this.plan), ...run.totals(this.now()), ...folder };
  }
}

/** Trains the edits of a causal language model on prompts and answers (pyreft's ReftTrainerForCausalLM). */
export class ReftTrainerForCausalLM extends ReftTrainer<Example, Evaluation> {
  /** Checks the arguments and the data; opens nothing yet. Throws UserError for bad arguments or no data. */
  constructor(options: TrainerOptions) {
    super(options, nextToken);
  }
}

/** The mean loss over `terms` terms, and the objective's other means. */
interface Measures {
  readonly loss: number;
  readonly terms: number;
  readonly figures: Figures;
}

/** Sums with a batch's share of a mean over `terms` added. */
function plus(sums: Figures, batch: Figures, terms: number): Figures {
  return Object.fromEntries(Object.entries(batch).map(([name, sum]) => [name, (sums[name] ?? 0) + sum / terms]));
}

/** Measures that fall as a model gets better; of all others more is better. */
const lowerIsBetter: ReadonlySet<string> = new Set(["mse"]);

/** A run's steps: evaluation's is opened by the first evaluation and kept, so that later ones find frozen work done. */
interface RunSteps<Item> {
  readonly training: Step<Item>;
  evaluation(): Promise<Step<Item>>;
}

function at(run: Run, plan: Pick<Plan, "totalSteps">): { step: number; totalSteps: number } {
  return { step: run.state.step, totalSteps: plan.totalSteps };
}

function due(
  strategy: "no" | "steps" | "epoch",
  every: number,
  step: number,
  planned: Pick<PlannedStep, "endsEpoch">,
  plan: Pick<Plan, "totalSteps">,
): boolean {
  if (strategy === "steps") return step % every === 0;
  return strategy === "epoch" && (planned.endsEpoch || step === plan.totalSteps);
}
