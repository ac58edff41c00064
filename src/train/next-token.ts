/** The objective of a causal language model: the next token, wherever there is a label. */

import { type CollateOptions, collate } from "../data/collate.js";
import { type Example, NO_LABEL } from "../data/example.js";
import { input } from "../graph/tensor.js";
import { type LabelledRows, nextTokenLoss } from "../models/loss.js";
import type { HostTensor } from "../runtime/runtime.js";
import { checkExamples, labelCount } from "./examples.js";
import type { Feeds, Measured, Objective, Reads } from "./objective.js";

export interface Evaluation extends Measured {
  /** Mean cross entropy over all labelled tokens. */
  readonly loss: number;
  readonly perplexity: number;
  /** Labelled tokens. */
  readonly tokens: number;
}

/** Σ weight · cross entropy over the labelled tokens. */
export const nextToken: Objective<Example, Evaluation> = {
  sequences: (example) => [example],
  reads: (example) => labelledReads(example as Example),
  outputs: ({ reft, hidden }) => ({ loss: nextTokenLoss(hidden, reft.model.head(), labelledRows()) }),
  batches: () => ({
    make: (examples, options, weight) => {
      const { batch, feeds } = labelledFeeds(examples, options);
      const weights = { shape: [batch.labels.length], data: new Float32Array(batch.labels.length).fill(weight) };
      return { batch, feeds: { ...feeds, weights } };
    },
    dispose: async () => {},
  }),
  figures: () => ({}),
  terms: labelCount,
  evaluation: (loss, tokens) => ({ loss, perplexity: Math.exp(loss), tokens }),
  check: checkExamples,
  digest: (e) => [e.inputIds, e.labels, e.locations, e.subspaces, e.coefficients],
  settings: undefined,
};

/** Graph inputs of a loss over labelled tokens. */
export function labelledRows(): LabelledRows {
  return {
    rows: input("labelRows", "int64", ["M"]),
    labels: input("labels", "int64", ["M"]),
    order: input("labelOrder", "int64", ["M"]),
    weights: input("weights", "float32", ["M"]),
  };
}

/** A labelled batch and the feeds of `labelledRows`, save the weights. */
export function labelledFeeds(
  examples: readonly Example[],
  options: CollateOptions,
): { batch: ReturnType<typeof collate>; feeds: Feeds } {
  const batch = collate(examples, options);
  const order = int64s(Array.from(batch.labelRows, (_, i) => i + 1));
  return { batch, feeds: { labelRows: int64s(batch.labelRows), labels: int64s(batch.labels), labelOrder: order } };
}

/** The tokens before the first and before the last labelled one: those predict them. */
export function labelledReads({ labels }: Example): Reads {
  return {
    first: labels.findIndex((y, t) => t > 0 && y !== NO_LABEL) - 1,
    last: labels.findLastIndex((y) => y !== NO_LABEL) - 1,
  };
}

/** Integers as the graph takes them. */
export function int64s(values: ArrayLike<number>): HostTensor {
  return { shape: [values.length], data: BigInt64Array.from(Array.from(values), (v) => BigInt(v)) };
}
