/** A frozen causal language model: one that continues a text. */

import type { Tensor } from "../graph/tensor.js";
import { blockLinear, gemm } from "../ops/index.js";
import { familyOf } from "./families.js";
import type { Family } from "./family.js";
import { FrozenModel, type ModelParts } from "./frozen-model.js";
import type { MatrixPlace } from "./weights.js";

export class CausalLM extends FrozenModel<Family> {
  readonly classifier: undefined = undefined;

  /** Parses the config; no weight is read. Throws UserError for unknown families, encoders and unsupported configs. */
  constructor(parts: ModelParts) {
    super(parts, familyOf);
  }

  head(): Tensor {
    return this.family.head(this.weights, this.config);
  }

  /** Where the head lies: a matrix of its own, or the embedding table. */
  get headPlace(): readonly [name: string, place: MatrixPlace] {
    const { source } = this.head();
    if (source.kind !== "weight") throw new Error("internal: a head that is no weight");
    return [source.name, { outputs: this.config.vocabSize, inputs: this.config.hiddenSize }];
  }

  /** Logits [N, V] of rows h [N, D] as generation wants them: of few rows by the head's codes, where it has some. */
  logits(h: Tensor, fewRows: boolean): Tensor {
    const codes = fewRows ? this.weightsFor(fewRows).quantised(...this.headPlace) : undefined;
    return codes === undefined ? gemm(h, this.head(), { transB: true }) : blockLinear(h, codes);
  }

  get parameterCount(): number {
    let count = 0;
    for (const [name, { shape }] of this.checkpoint.weights) {
      if (name === "lm_head.weight" && this.config.tiedHead) continue;
      count += shape.reduce((a, b) => a * b, 1);
    }
    return count;
  }
}
