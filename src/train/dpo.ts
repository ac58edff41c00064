/** Direct preference optimisation (arXiv 2305.18290): answers preferred over others, with the model without its edits as the reference. */

import type { CollateOptions } from "../data/collate.js";
import type { Example } from "../data/example.js";
import type { PreferenceExample } from "../data/preference.js";
import { UserError } from "../errors.js";
import { input, scalar, type Tensor } from "../graph/tensor.js";
import { tokenInputs } from "../models/family.js";
import { crossEntropies } from "../models/loss.js";
import { add, mul, neg, reduceSum, relu, scatterAdd, sub } from "../ops/index.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { HostTensor, Session } from "../runtime/runtime.js";
import { labelCount } from "./examples.js";
import { int64s, labelledFeeds, labelledReads, labelledRows } from "./next-token.js";
import type { BatchMaker, FedBatch, Feeds, Objective, Outputs } from "./objective.js";
import {
  checkPairs,
  differences,
  negLogSigmoid,
  type PairEvaluation,
  pairEvaluation,
  pairFeeds,
  pairFigures,
  sequencesOf,
} from "./pairs.js";
import { frozenScoreBytes, headPartsFor } from "./parts.js";
import { queryPartsOf, wholeSpans } from "./spans.js";
import { openGraph, tokensOf } from "./step.js";
import { ReftTrainer, type TrainerOptions } from "./trainer.js";

export const dpoLossTypes = ["sigmoid", "hinge", "ipo", "robust"] as const;
export type DPOLossType = (typeof dpoLossTypes)[number];

/** TRL's options of the same names. */
export interface DPOOptions {
  /** β: how dearly the edits pay for leaving the model without them. Default 0.1. */
  readonly beta?: number;
  /** Default "sigmoid", DPO's own. */
  readonly lossType?: DPOLossType;
  /** ε: the share of pairs taken to be labelled the wrong way round; for "sigmoid" and "robust". Default 0. */
  readonly labelSmoothing?: number;
}

type Settings = Required<DPOOptions>;

/**
 * Losses [K] of pairs by Δ = [ln π(y_w) − ln π_ref(y_w)] − [ln π(y_l) − ln π_ref(y_l)]; in IPO ln π is a mean over tokens.
 */
const losses: Readonly<Record<DPOLossType, (delta: Tensor, settings: Settings) => Tensor>> = {
  /** −(1 − ε) ln σ(βΔ) − ε ln σ(−βΔ) */
  sigmoid: (delta, { beta, labelSmoothing }) => {
    const x = mul(delta, scalar(beta));
    if (labelSmoothing === 0) return negLogSigmoid(x);
    return add(mul(negLogSigmoid(x), scalar(1 - labelSmoothing)), mul(negLogSigmoid(neg(x)), scalar(labelSmoothing)));
  },
  /** max(0, 1 − βΔ) (arXiv 2305.10425) */
  hinge: (delta, { beta }) => relu(sub(scalar(1), mul(delta, scalar(beta)))),
  /** (Δ − 1/2β)² (arXiv 2310.12036) */
  ipo: (delta, { beta }) => {
    const off = sub(delta, scalar(1 / (2 * beta)));
    return mul(off, off);
  },
  /** [−(1 − ε) ln σ(βΔ) + ε ln σ(−βΔ)]/(1 − 2ε) (arXiv 2403.00409) */
  robust: (delta, { beta, labelSmoothing }) => {
    const x = mul(delta, scalar(beta));
    const clean = mul(negLogSigmoid(x), scalar((1 - labelSmoothing) / (1 - 2 * labelSmoothing)));
    return sub(clean, mul(negLogSigmoid(neg(x)), scalar(labelSmoothing / (1 - 2 * labelSmoothing))));
  },
};

/** ln π(answer) of each sequence [B], or with IPO's weights its mean over tokens. */
function answerLogProbs(hidden: Tensor, head: Tensor): Tensor {
  const { weights, ...labels } = labelledRows();
  const each = mul(neg(crossEntropies(hidden, head, labels)), weights);
  return scatterAdd(input("labelExample", "int64", ["M"]), each, { rows: "B", unique: false });
}

/** The labelled batch of examples and the feeds of `answerLogProbs`. */
function answerFeeds(examples: readonly Example[], options: CollateOptions, lossType: DPOLossType): FedBatch {
  const { batch, feeds } = labelledFeeds(examples, options);
  const counts = examples.map((e) => labelCount([e]));
  const weights = Float32Array.from(batch.labelExample, (b) => (lossType === "ipo" ? 1 / (counts[b] as number) : 1));
  return {
    batch,
    feeds: {
      ...feeds,
      weights: { shape: [weights.length], data: weights },
      labelExample: int64s(batch.labelExample),
    },
  };
}

/** ln π_ref of answers: of the model without its edits, computed when first asked for and kept as long as the example is. */
class Reference {
  private readonly reft: ReftModel;
  private readonly lossType: DPOLossType;
  private readonly known: WeakMap<Example, number>;
  /** By the numbers of parts that heads and queries come in. */
  private readonly sessions = new Map<string, Promise<Session>>();

  constructor(reft: ReftModel, lossType: DPOLossType, known: WeakMap<Example, number>) {
    this.reft = reft;
    this.lossType = lossType;
    this.known = known;
  }

  async of(examples: readonly Example[], padTokenId: number): Promise<Float32Array> {
    const missing = [...new Set(examples.filter((e) => !this.known.has(e)))];
    if (missing.length > 0) {
      const spans = wholeSpans(this.reft, missing);
      const queries = queryPartsOf(this.reft, spans);
      const { batch, feeds } = answerFeeds(missing, { padTokenId, spans, multipleOf: queries }, this.lossType);
      const sizes = { batch: batch.size, live: batch.length, past: 0 };
      const session = await this.session(headPartsFor(this.reft.model.config, sizes, frozenScoreBytes), queries);
      const { logProbs } = await session.run({ ...feeds, ...tokensOf(batch) });
      for (const [i, e] of missing.entries()) this.known.set(e, (logProbs as HostTensor).data[i] as number);
    }
    return Float32Array.from(examples, (e) => this.known.get(e) as number);
  }

  private session(headParts: number, queryParts: number): Promise<Session> {
    const key = `${headParts} ${queryParts}`;
    const session = this.sessions.get(key) ?? openGraph(this.reft, referenceGraph(this.reft, headParts, queryParts));
    this.sessions.set(key, session);
    return session;
  }

  async dispose(): Promise<void> {
    for (const session of this.sessions.values()) await (await session).dispose();
  }
}

function referenceGraph({ model }: ReftModel, headParts: number, queryParts: number): Outputs {
  const { hidden } = model.forward({ ...tokenInputs(queryParts), headParts }, (_site, h) => h);
  return { logProbs: answerLogProbs(hidden, model.head()) };
}

/** DPO as an objective: rewards are β[ln π(y) − ln π_ref(y)]. */
export class DPOObjective implements Objective<PreferenceExample, PairEvaluation> {
  readonly settings: Settings & { readonly objective: "dpo" };
  private readonly known = new WeakMap<Example, number>();

  /** @throws UserError for options out of range */
  constructor(options: DPOOptions = {}) {
    const { beta = 0.1, lossType = "sigmoid", labelSmoothing = 0 } = options;
    if (!(beta > 0 && Number.isFinite(beta)))
      throw new UserError(`beta is ${beta}.`, "Give a number above 0, such as 0.1.");
    if (!dpoLossTypes.includes(lossType))
      throw new UserError(`there is no lossType "${lossType}".`, `Known are ${dpoLossTypes.join(", ")}.`);
    if (!(labelSmoothing >= 0 && labelSmoothing < 0.5))
      throw new UserError(`labelSmoothing is ${labelSmoothing}.`, "Give a share from 0 up to, not including, 0.5.");
    if (labelSmoothing > 0 && (lossType === "hinge" || lossType === "ipo"))
      throw new UserError(
        `lossType "${lossType}" has no labelSmoothing.`,
        'Leave it out, or use "sigmoid" or "robust".',
      );
    this.settings = { objective: "dpo", beta, lossType, labelSmoothing };
  }

  sequences(pair: PreferenceExample): readonly Example[] {
    return sequencesOf(pair);
  }

  reads(sequence: object): ReturnType<typeof labelledReads> {
    return labelledReads(sequence as Example);
  }

  outputs({ reft, hidden }: Parameters<Objective<PreferenceExample>["outputs"]>[0]): Outputs {
    const ratios = sub(answerLogProbs(hidden, reft.model.head()), input("reference", "float32", ["B"]));
    const { beta, lossType } = this.settings;
    const each = losses[lossType](differences(ratios), this.settings);
    return {
      loss: reduceSum(mul(each, input("pairWeights", "float32", ["K"])), { axes: [0] }),
      rewards: mul(ratios, scalar(beta)),
    };
  }

  batches(reft: ReftModel): BatchMaker<PreferenceExample> {
    const { lossType } = this.settings;
    const reference = new Reference(reft, lossType, this.known);
    return {
      make: async (pairs, options, weight) => {
        const examples = pairs.flatMap(sequencesOf);
        const { batch, feeds } = answerFeeds(examples, options, lossType);
        const data = await reference.of(examples, options.padTokenId);
        const more = { reference: { shape: [data.length], data }, ...pairFeeds(pairs.length, weight) };
        return { batch, feeds: { ...feeds, ...more } };
      },
      dispose: () => reference.dispose(),
    };
  }

  figures(_pairs: readonly PreferenceExample[], { rewards }: Feeds): ReturnType<typeof pairFigures> {
    return pairFigures((rewards as HostTensor).data as Float32Array);
  }

  terms(pairs: readonly PreferenceExample[]): number {
    return pairs.length;
  }

  evaluation(...measures: Parameters<typeof pairEvaluation>): PairEvaluation {
    return pairEvaluation(...measures);
  }

  check(pairs: readonly PreferenceExample[], reft: ReftModel, name: string): void {
    checkPairs(pairs, reft, name);
    for (const side of ["chosen", "rejected"] as const) {
      const empty = pairs.findIndex((pair) => labelCount([pair[side]]) === 0);
      if (empty >= 0)
        throw new UserError(
          `${name}[${empty}]: the ${side} answer has no tokens.`,
          "Fill it in, or take the pair out.",
        );
    }
  }

  digest({ chosen, rejected }: PreferenceExample): unknown {
    return [chosen, rejected].map((e) => [e.inputIds, e.labels, e.locations, e.subspaces, e.coefficients]);
  }
}

export interface DPOTrainerOptions extends TrainerOptions<PreferenceExample>, DPOOptions {}

/**
 * Trains edits by direct preference optimisation: −ln σ(β[(ln π(y_w) − ln π_ref(y_w)) − (ln π(y_l) − ln π_ref(y_l))]) for a
 * chosen answer y_w and a rejected one y_l; π_ref is the model without its edits.
 */
export class ReftTrainerForDPO extends ReftTrainer<PreferenceExample, PairEvaluation> {
  /** Checks the arguments and the data; opens nothing yet. Throws UserError for bad arguments, options or data. */
  constructor(options: DPOTrainerOptions) {
    super(options, new DPOObjective(options));
  }
}
