/** NoReFT: Φ(h) = h + (act(hW₁ᵀ + b₁) − hW₂ᵀ [− b₂])W₂: LoReFT without the orthonormality. W₁, W₂ [r, D]. */

import type { Tensor } from "../graph/tensor.js";
import { add, gemm, sub } from "../ops/index.js";
import { Intervention, type Named, type ParameterShape } from "./intervention.js";
import type { Random } from "./random.js";

export class NoreftIntervention extends Intervention {
  readonly name = "NoreftIntervention";

  private get bias(): boolean {
    return this.addBias ?? true;
  }

  get parameters(): Named<ParameterShape> {
    return { ...this.linearShape("proj_layer", this.bias), ...this.linearShape("learned_source") };
  }

  /** Identity: the two linear layers equal. */
  initial(random: Random): Named<Float32Array> {
    const projection = this.linear(random, "proj_layer", this.bias);
    if (this.init === "pyreft") return { ...projection, ...this.linear(random, "learned_source") };
    if (this.actFn !== "linear") this.refuseIdentity();
    const [w, b] = [this.part(projection, "proj_layer.weight"), projection["proj_layer.bias"]];
    return {
      ...projection,
      "learned_source.weight": w.slice(),
      "learned_source.bias": b?.slice() ?? new Float32Array(this.lowRankDimension),
    };
  }

  edit(h: Tensor, p: Named<Tensor>): Tensor {
    const W2 = this.round(this.part(p, "proj_layer.weight"));
    const b2 = this.bias ? [this.round(this.part(p, "proj_layer.bias"))] : [];
    const projected = this.round(gemm(this.round(h), W2, ...b2, { transB: true }));
    const change = this.round(sub(this.source(h, p), projected));
    return add(h, this.round(gemm(change, W2, {})));
  }
}
