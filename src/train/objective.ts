/** What is learned: the sequences of an item, a loss over their hidden states, and what that loss is a mean over. */

import type { CollateOptions, TokenBatch } from "../data/collate.js";
import type { Sequence } from "../data/example.js";
import type { Tensor } from "../graph/tensor.js";
import type { ReftModel } from "../reft/reft-model.js";
import type { HostTensor } from "../runtime/runtime.js";

/** Outputs of a graph by name. */
export type Outputs = Readonly<Record<string, Tensor>>;
export type Feeds = Readonly<Record<string, HostTensor>>;
/** Measures by name, such as accuracy. */
export type Figures = Readonly<Record<string, number>>;

/** A forward pass with edits, for a loss to be built on. */
export interface Forward {
  readonly reft: ReftModel;
  /** After the final norm, rows of the live tokens [B·T, D]. */
  readonly hidden: Tensor;
  /** The trainable inputs by parameter name. */
  readonly parameters: ReadonlyMap<string, Tensor>;
}

/** The first and the last token of a sequence whose hidden states a loss reads; last is below 0 where it reads none. */
export interface Reads {
  readonly first: number;
  readonly last: number;
}

/** What an evaluation gives back at least. */
export interface Measured {
  readonly loss: number;
  /** Where the loss is a mean over tokens. */
  readonly perplexity?: number;
}

/** A batch, and feeds of the loss's own inputs. */
export interface FedBatch {
  readonly batch: TokenBatch;
  readonly feeds: Feeds;
}

/** Makes batches of items. What it opened for that is freed when it is disposed. */
export interface BatchMaker<Item> {
  /** @param weight of each term in the loss: 1/n for a mean over n */
  make(items: readonly Item[], options: CollateOptions, weight: number): FedBatch | Promise<FedBatch>;
  dispose(): Promise<void>;
}

/** An objective over items: examples, or pairs of them. Trainers differ in nothing else. */
export interface Objective<Item, Evaluation extends Measured = Measured> {
  /** What runs through the model for an item, the same objects every time: frozen work is kept by them. */
  sequences(item: Item): readonly Sequence[];
  reads(sequence: Sequence): Reads;
  /** `loss` [], summed over the batch with the fed weights, and outputs that `figures` are read from. */
  outputs(forward: Forward): Outputs;
  /** Opens what makes the batches of a step. */
  batches(reft: ReftModel): BatchMaker<Item>;
  /** Measures of a batch, each summed over its terms. */
  figures(items: readonly Item[], outputs: Feeds): Figures;
  /** Measures of an evaluation that are no means: from all items, and the outputs of their batches in order. */
  readonly overall?: (items: readonly Item[], outputs: readonly Feeds[]) => Figures;
  /** What the loss of these items is a mean over: labelled tokens, pairs. */
  terms(items: readonly Item[]): number;
  /** What an evaluation tells, from means over `terms` terms and `overall`. */
  evaluation(loss: number, terms: number, figures: Figures): Evaluation;
  /** @throws UserError where an item does not fit the model; `name` is the data set's */
  check(items: readonly Item[], reft: ReftModel, name: string): void;
  /** All of an item that the course of a run depends on, as JSON. */
  digest(item: Item): unknown;
  /** Settings that the course of a run depends on, as JSON; undefined where there are none. */
  readonly settings: unknown;
}
