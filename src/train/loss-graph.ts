/** The graphs of a training step: loss and gradients over whole examples, or cut along the frontier so that frozen work is fed in. */

import { plus, times } from "../graph/dim.js";
import { frontier, substitute } from "../graph/frontier.js";
import { input, type Tensor, topological } from "../graph/tensor.js";
import type { KeyValues } from "../models/attention.js";
import { pastInputs, pastKeys, pastValues, tokenInputs } from "../models/family.js";
import { gradients, plainValues } from "../ops/index.js";
import type { ReftModel } from "../reft/reft-model.js";
import { nextToken } from "./next-token.js";
import type { Objective, Outputs } from "./objective.js";

export type { Outputs } from "./objective.js";

/** The part of an objective that graphs are made of. */
export type Lossy = Pick<Objective<never>, "outputs">;

/** Outputs: the objective's, `loss` among them, and `gradient.<i>` for the i-th parameter. */
interface Built {
  readonly outputs: Outputs;
  readonly ids: Tensor;
  /** Every layer's keys and values of the live tokens, edits included. */
  readonly live: readonly KeyValues[];
  readonly edited: ReadonlyMap<Tensor, Tensor>;
}

/** Input of the i-th tensor of the cut. */
export const frozenInput = (i: number): string => `frozen.${i}`;

/** What is asked of a step's graph. */
export interface GraphOptions {
  readonly training: boolean;
  /** Keep only each block's input for the derivative. Default false. */
  readonly recomputeBlocks?: boolean | undefined;
  /** In how many parts heads attend, one of `headPartsOf`. Default 1. */
  readonly headParts?: number;
  /** In how many stretches tokens attend, and a multiple of which they are. Default 1. */
  readonly queryParts?: number;
  /** Default: the next token. */
  readonly objective?: Lossy;
}

function build(reft: ReftModel, options: GraphOptions, withPast: boolean): Built {
  const { training, recomputeBlocks = false, headParts = 1, queryParts = 1, objective = nextToken } = options;
  const { tap, parameters, edited } = reft.tap({ training });
  const whole = tokenInputs(queryParts);
  const t = whole.ids.dim(1);
  const past = pastInputs(reft.model.config);
  const tokens = {
    ...whole,
    recomputeBlocks,
    headParts,
    ...(reft.model.bidirectional ? { tokenTypes: input("tokenTypes", "int64", ["B", t]) } : {}),
    ...(withPast ? { past, keyPositions: input("keyPositions", "int32", ["B", plus("P", t)]) } : {}),
  };
  const { hidden, live } = reft.model.forward(tokens, tap);
  const outputs = objective.outputs({ reft, hidden, parameters });
  const slopes = training ? gradients(outputs.loss as Tensor, [...parameters.values()]) : [];
  return {
    // Gradients first: nodes run in the order that outputs ask for them, and logits of a part of the vocabulary are then used up before the next's.
    outputs: { ...uppermostFirst(slopes), ...outputs },
    ids: whole.ids,
    live,
    edited,
  };
}

/**
 * Gradients by name, those with the least under them first: of an upper layer before a lower one, for which the way leads through
 * the upper. The other way round, what upper layers' gradients want would be kept until the lowest is done: with blocks
 * recomputed 2.9 of 4.3 GB, at 30 edited layers of the 135M shape and 4 × 2,048 tokens.
 */
function uppermostFirst(slopes: readonly Tensor[]): Outputs {
  const sizes = slopes.map((g) => topological([g]).length);
  const order = slopes.map((_, i) => i).sort((a, b) => (sizes[a] as number) - (sizes[b] as number));
  return Object.fromEntries(order.map((i) => [`gradient.${i}`, slopes[i] as Tensor]));
}

/** Loss and gradients of whole examples: everything computed in every step. */
export function wholeStep(reft: ReftModel, options: GraphOptions): Outputs {
  return build(reft, options, false).outputs;
}

/** A step in two: a frozen graph runs once an example, a step in every epoch; each with a past and for examples without. */
export interface CutStep {
  /** `frozen.<i>` rows [B·T, width], and `past.keys.<l>`, `past.values.<l>` of the layers that the step looks back at. */
  readonly frozen: Outputs;
  /** The rows alone: nothing above the cut is computed. */
  readonly frozenWithoutPast: Outputs;
  readonly step: Outputs;
  readonly stepWithoutPast: Outputs;
  /** Widths of the cut's tensors. */
  readonly widths: readonly number[];
  readonly pastLayers: readonly number[];
}

/** Cuts the step along its frontier. Models and edits know nothing of it. */
export function cutStep(reft: ReftModel, options: GraphOptions): CutStep {
  const whole = build(reft, options, false);
  // Where every token sees every other, there is no past to feed: only what lies under the edits is kept.
  const cached = reft.model.bidirectional ? whole : build(reft, options, true);
  const cut = frontier(Object.values(whole.outputs), whole.ids);
  const step = fedFrozen(cached);
  const used = new Set(
    topological(Object.values(step)).flatMap((t) => (t.source.kind === "input" ? [t.source.name] : [])),
  );
  const pastLayers = whole.live.flatMap((_, layer) => (used.has(pastKeys(layer)) ? [layer] : []));
  const widths = cut.map((t) => {
    const width = t.dim(-1);
    if (t.shape.length !== 2 || t.dim(0) !== times(whole.ids.dim(0), whole.ids.dim(1)) || typeof width !== "number")
      throw new Error(`internal: a frozen tensor [${t.shape.join(", ")}] is not made of rows`);
    return width;
  });
  // Before the first edited token nothing is edited: there, keys and values are those of the model without its edits.
  const past = pastLayers.flatMap((layer) => {
    const { keys, values } = whole.live[layer] as KeyValues;
    return [[pastKeys(layer), keys] as const, [pastValues(layer), values] as const];
  });
  const edited = past.map(([, t]) => t);
  // What is computed again for the derivative takes along the parameters of the edits in it, though nothing is edited.
  const unedited = substitute(edited, new Map([...plainValues(edited), ...whole.edited]));
  const rows = Object.fromEntries(cut.map((t, i) => [frozenInput(i), t]));
  return {
    frozen: { ...rows, ...Object.fromEntries(past.map(([name], i) => [name, unedited[i] as Tensor])) },
    frozenWithoutPast: rows,
    step,
    stepWithoutPast: fedFrozen(whole),
    widths,
    pastLayers,
  };
}

function fedFrozen({ outputs, ids }: Built): Outputs {
  const names = Object.keys(outputs);
  const cut = frontier(Object.values(outputs), ids);
  const fed = new Map(cut.map((t, i) => [t, input(frozenInput(i), "float32", t.shape)]));
  const replaced = substitute(Object.values(outputs), fed);
  return Object.fromEntries(names.map((name, i) => [name, replaced[i] as Tensor]));
}
