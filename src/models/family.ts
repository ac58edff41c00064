/** What a model family is: a config parser and a forward pass over live tokens. */

import { times } from "../graph/dim.js";
import { input, type Tensor } from "../graph/tensor.js";
import { recomputed } from "../ops/index.js";
import type { KeyValues } from "./attention.js";
import type { ClassifierHead } from "./classifier-heads.js";
import type { ModulePaths } from "./components.js";
import type { ModelConfig, RawConfig } from "./config.js";
import type { Tap } from "./site.js";
import type { Weights } from "./weights.js";

/**
 * The tokens of one call. Training feeds whole examples, prefill a prompt, decoding one token a row and the past.
 * Padding needs no mask of its own: its key position lies beyond every query.
 */
export interface LiveTokens {
  /** int64 [B, T] */
  readonly ids: Tensor;
  /** Absolute positions, int32 [B, T]. */
  readonly positions: Tensor;
  /** Absolute positions of the past's and then the live tokens' keys, int32 [B, P+T]. */
  readonly keyPositions: Tensor;
  /** Cached keys and values, one a layer. */
  readonly past?: readonly KeyValues[];
  /** Segments of a text, int64 [B, T]; for encoders only, all 0 where not given. */
  readonly tokenTypes?: Tensor;
  /** Keep only each block's input for the derivative and compute the block again there (gradient checkpointing). */
  readonly recomputeBlocks?: boolean;
  /** In how many parts heads attend, one of `headPartsOf`: less memory where texts are long. Default 1. */
  readonly headParts?: number;
  /**
   * In how many stretches T queries attend, each to the keys up to its own end: fewer products where texts are long. T is so
   * many times a symbol, and a row's tokens stand in the order of their positions, padding last. Default 1; encoders have one.
   */
  readonly queryParts?: number;
  /** There are a few of them, as in decoding: quantised weights are then read by kernels made for that. */
  readonly fewRows?: boolean;
}

/** Inputs of whole texts, `ids`, `positions` and `keyPositions` [B, n·T], whose tokens attend in n stretches. */
export function tokenInputs(queryParts = 1): LiveTokens {
  const shape = ["B", times(queryParts, "T")];
  const [ids, positions] = [input("ids", "int64", shape), input("positions", "int32", shape)];
  return { ids, positions, keyPositions: input("keyPositions", "int32", shape), queryParts };
}

/** Inputs of a layer's cached keys and values. */
export const pastKeys = (layer: number): string => `past.keys.${layer}`;
export const pastValues = (layer: number): string => `past.values.${layer}`;

/** Each layer's cached keys and values [B, KV, P, hd], as inputs. */
export function pastInputs({ layers, kvHeads, headDim }: ModelConfig): KeyValues[] {
  const past = (name: string): Tensor => input(name, "float32", ["B", kvHeads, "P", headDim]);
  return Array.from({ length: layers }, (_, l) => ({ keys: past(pastKeys(l)), values: past(pastValues(l)) }));
}

/** Runs a block as the tokens ask: plainly, or to be computed again for the derivative. */
export function runBlock(tokens: LiveTokens, block: (h: Tensor) => Tensor, h: Tensor): Tensor {
  return tokens.recomputeBlocks === true ? recomputed((x) => block(x as Tensor), h) : block(h);
}

export interface Decoded {
  /** After the last norm, flat rows [B·T, D]. */
  readonly hidden: Tensor;
  /** The live tokens' keys and values, one a layer. */
  readonly live: readonly KeyValues[];
}

/** What decoders and encoders have in common. */
export interface Body {
  readonly parse: (raw: RawConfig) => ModelConfig;
  /** Its places, by the paths of its modules. */
  readonly paths: ModulePaths;
  readonly forward: (model: Weights, c: ModelConfig, tokens: LiveTokens, tap: Tap) => Decoded;
  /** How it classifies texts. */
  readonly classifier: ClassifierHead;
}

/** A decoder: a token sees those before it, and the last state foretells the next token. */
export interface Family extends Body {
  /** The output head [V, D]: logits are hidden·headᵀ. */
  readonly head: (model: Weights, c: ModelConfig) => Tensor;
}

/** An encoder: every token sees every other, so nothing of a text can be computed before the rest is known. */
export interface Encoder extends Body {
  readonly bidirectional: true;
}
