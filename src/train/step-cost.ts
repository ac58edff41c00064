/** What a step costs, counted from its graphs: operations, bytes of weights, bytes fed and fetched. Nothing is opened or run. */

import { collate } from "../data/collate.js";
import type { Example } from "../data/example.js";
import { bytesAt, type Cost, costOf, type Sizes } from "../graph/cost.js";
import { topological } from "../graph/tensor.js";
import type { ReftModel } from "../reft/reft-model.js";
import { cutStep, type Outputs, wholeStep } from "./loss-graph.js";
import { liveSpans, queryPartsIn, queryPartsOf, wholeSpans } from "./spans.js";

/** One graph of a step at given sizes. */
export interface GraphCost extends Cost {
  /** Bytes of its inputs, and of the outputs that are copied back. */
  readonly fedBytes: number;
  readonly fetchedBytes: number;
}

export interface StepCost {
  /** Done in every step. */
  readonly step: GraphCost;
  /** Done once for these examples; undefined where nothing is kept. */
  readonly frozen: GraphCost | undefined;
}

export interface StepCostOptions {
  readonly frozenCache: boolean;
  /** With gradients; default true. */
  readonly training?: boolean;
}

/**
 * The cost of a batch of B examples: T tokens in the step and P cached ones before them, M labels, and `M<i>` rows of the i-th
 * edit. Without `frozenCache` T is all tokens, and P is 0.
 */
export function stepCost(reft: ReftModel, sizes: Sizes, { frozenCache, training = true }: StepCostOptions): StepCost {
  const { T: live = 0, P: past = 0 } = sizes;
  const queryParts = queryPartsIn(reft, live);
  if (!frozenCache)
    return { step: graphCost(wholeStep(reft, { training, queryParts }), sizes, queryParts), frozen: undefined };
  const cut = cutStep(reft, { training, queryParts });
  const looksBack = past > 0 && cut.pastLayers.length > 0;
  const all = queryPartsIn(reft, past + live);
  const once = cutStep(reft, { training, queryParts: all });
  const tokens = Math.ceil((past + live) / all) * all;
  return {
    step: graphCost(looksBack ? cut.step : cut.stepWithoutPast, sizes, queryParts),
    frozen: graphCost(looksBack ? once.frozen : once.frozenWithoutPast, { ...sizes, T: tokens, P: 0 }, all),
  };
}

/** The sizes that these examples have as one batch, padding included. */
export function stepSizes(reft: ReftModel, examples: readonly Example[], { frozenCache }: StepCostOptions): Sizes {
  const spans = frozenCache ? liveSpans(reft, examples) : wholeSpans(reft, examples);
  const batch = collate(examples, { padTokenId: 0, spans, multipleOf: queryPartsOf(reft, spans) });
  const rows = reft.edits.map((_, i) => [`M${i}`, (batch.editRows[i] ?? batch.editRows[0])?.length ?? 0]);
  return {
    B: batch.size,
    T: batch.length,
    P: Math.max(...spans.map((s) => s.start)),
    M: batch.labels.length,
    ...Object.fromEntries(rows),
  };
}

/** @param queryParts so many times the graph's T are a row's tokens */
function graphCost(outputs: Outputs, { T = 0, ...rest }: Sizes, queryParts: number): GraphCost {
  const sizes = { ...rest, T: T / queryParts };
  const ends = Object.values(outputs);
  const total = (bytes: readonly number[]): number => bytes.reduce((a, b) => a + b, 0);
  const fed = topological(ends).filter((t) => t.source.kind === "input");
  return {
    ...costOf(ends, sizes),
    fedBytes: total(fed.map((t) => bytesAt(t.type, sizes))),
    fetchedBytes: total(ends.map((t) => bytesAt(t.type, sizes))),
  };
}
