/** What every frozen model is, whatever is done with it: its config, its weights in their files, and the runtime for its graphs. */

import type { Checkpoint } from "../files/checkpoint.js";
import type { Tensor } from "../graph/tensor.js";
import type { Runtime, SessionOptions } from "../runtime/runtime.js";
import type { Classifier } from "./classifier.js";
import { parseComponent } from "./components.js";
import type { ModelConfig, RawConfig } from "./config.js";
import { type Body, type Decoded, type LiveTokens, tokenInputs } from "./family.js";
import { type Tap, widthAt } from "./site.js";
import { type MatrixPlace, type Weights, weightsOf } from "./weights.js";

export interface ModelParts {
  /** As the user named it: a hub id, a folder, or "builtin". */
  readonly id: string;
  /** The commit on the hub, where it came from there. */
  readonly revision: string | undefined;
  readonly checkpoint: Checkpoint;
  readonly runtime: Runtime;
}

/** Bytes of weights beyond which no second copy is made: it may not fit beside the first. */
const PACK_AT_MOST = 2 ** 32;

/**
 * Weights packed for the processor's products save each product the copy that it makes of them otherwise: 0.3 ns a number, however
 * many rows there are: 8 % of a step of 320 rows, 3–5 % of 500 to 1,000. Packing takes 4–12 ns a number once, and memory: each direction
 * has a packed copy of its own. From so many runs on it pays, where both copies are no more than so many bytes.
 */
const PACKING_PAYS = 50;
const PACK_TO_TRAIN = 2 ** 30;

export abstract class FrozenModel<B extends Body = Body> {
  readonly id: string;
  readonly revision: string | undefined;
  readonly config: ModelConfig;
  readonly checkpoint: Checkpoint;
  /** Bytes of all weights in 32 bits. */
  readonly floatBytes: number;
  /** Whether some weights are stored in other than 32 bits, and widened as they are read. */
  readonly widens: boolean;
  readonly runtime: Runtime;
  protected readonly family: B;
  protected readonly weights: Weights;

  /** Parses the config; no weight is read. Throws UserError for unknown families and unsupported configs. */
  constructor({ id, revision, checkpoint, runtime }: ModelParts, familyOf: (config: RawConfig) => B) {
    this.id = id;
    this.revision = revision;
    this.checkpoint = checkpoint;
    const weights = [...this.checkpoint.weights.values()];
    this.floatBytes = weights.reduce((sum, w) => sum + (w.dtype === "F32" ? 1 : 2) * w.length, 0);
    this.widens = weights.some((w) => w.dtype !== "F32");
    this.runtime = runtime;
    this.family = familyOf(checkpoint.config);
    this.config = this.family.parse(checkpoint.config);
    this.weights = weightsOf(checkpoint);
  }

  /** The matrices of its body by name: what quantising it means. Embeddings, norms, biases and heads stay as they are. */
  matrices(): ReadonlyMap<string, MatrixPlace> {
    const found = new Map<string, MatrixPlace>();
    const weights = weightsOf(this.checkpoint, { onMatrix: (name, place) => found.set(name, place) });
    this.family.forward(weights, this.config, tokenInputs(), (_site, h) => h);
    return found;
  }

  /** How it classifies, with weights to be trained along with the edits; undefined for a model that writes. */
  abstract readonly classifier: Classifier | undefined;

  /** The output head [V, D] of a model that writes: logits of the next token are hidden·headᵀ. */
  abstract head(): Tensor;

  /** Parameters of the frozen model, each counted once. */
  abstract readonly parameterCount: number;

  /** Whether every token sees every other. Then nothing of a text can be computed before all of it is known. */
  get bidirectional(): boolean {
    return "bidirectional" in this.family;
  }

  /** Weights as a graph of few or many rows wants them. */
  protected weightsFor(fewRows = false): Weights {
    return fewRows ? weightsOf(this.checkpoint, { fewRows }) : this.weights;
  }

  /** The forward graph over live tokens, with edits tapped in. */
  forward(tokens: LiveTokens, tap: Tap): Decoded {
    return this.family.forward(this.weightsFor(tokens.fewRows), this.config, tokens, tap);
  }

  /**
   * The embedDim of an edit at a component or path: for `head_` components, the width of one head.
   *
   * @throws UserError where there is no such component
   */
  width(component = "block_output"): number {
    const { place, byHead } = parseComponent(component, this.family.paths, this.config.modelType);
    return byHead ? this.config.headDim : widthAt(place, this.config);
  }

  /** Whether weights are few enough for a copy in 32 bits, packed for the processor's products. */
  get packable(): boolean {
    // Only there is a graph trusted to widen weights as it is opened.
    const widenable = !this.widens || this.runtime.device === "cpu";
    return widenable && this.floatBytes <= PACK_AT_MOST;
  }

  /**
   * Session options for a graph of training. Freed memory is kept for the next tensor: without the arena every activation is mapped
   * and cleared anew, elementwise ops take twice as long, and the heap's holes cost 0.2–0.6 GB.
   *
   * @param runs how often it is to run
   * @param productBytes of the weights that its products read, once for each product
   */
  trainingOptions(runs: number, productBytes: number): SessionOptions {
    const { quantised } = this.checkpoint;
    const packs = !this.widens && quantised === undefined && runs >= PACKING_PAYS && productBytes <= PACK_TO_TRAIN;
    return { prepack: packs || quantised?.int8Activations === "always", arena: true };
  }

  /** Frees native memory and the thread behind the model. */
  dispose(): Promise<void> {
    return this.runtime.dispose();
  }
}
