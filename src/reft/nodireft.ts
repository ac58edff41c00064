/** NodiReFT, the paper's DiReFT (eq. 3): Φ(h) = h + act(hW₁ᵀ + b₁)W₂, W₁, W₂ [r, D]. */

import type { Tensor } from "../graph/tensor.js";
import { add, gemm } from "../ops/index.js";
import { Intervention, type Named, type ParameterShape } from "./intervention.js";
import type { Random } from "./random.js";

export class NodireftIntervention extends Intervention {
  readonly name = "NodireftIntervention";

  /** pyreft keeps a bias b₂ in its files where asked for, though the formula does not use it. */
  private get bias(): boolean {
    return this.addBias ?? false;
  }

  get parameters(): Named<ParameterShape> {
    return { ...this.linearShape("proj_layer", this.bias), ...this.linearShape("learned_source") };
  }

  /** Identity: W₂ = 0, with W₁ random so that there is a gradient. */
  initial(random: Random): Named<Float32Array> {
    const projection = this.linear(random, "proj_layer", this.bias);
    if (this.init === "identity") projection["proj_layer.weight"]?.fill(0);
    return { ...projection, ...this.linear(random, "learned_source") };
  }

  edit(h: Tensor, p: Named<Tensor>): Tensor {
    const W2 = this.round(this.part(p, "proj_layer.weight"));
    return add(h, this.round(gemm(this.source(h, p), W2, {})));
  }
}
