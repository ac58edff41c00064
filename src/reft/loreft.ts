/** LoReFT: Φ(h) = h + (act(hWᵀ + b) − hR)Rᵀ, where R [D, r] has orthonormal columns (arXiv 2404.03592, eq. 2). */

import type { Tensor } from "../graph/tensor.js";
import { add, gemm, sub } from "../ops/index.js";
import { Intervention, type Named, type ParameterShape, transposed } from "./intervention.js";
import type { Random } from "./random.js";

export class LoreftIntervention extends Intervention {
  readonly name: string = "LoreftIntervention";

  get parameters(): Named<ParameterShape> {
    return { ...this.rotationShape(), ...this.linearShape("learned_source") };
  }

  /** Identity: W = Rᵀ, b = 0, with a linear activation. */
  initial(random: Random, { rotate_layer }: Named<Float32Array>): Named<Float32Array> {
    const { embedDim: d, lowRankDimension: r } = this;
    if (this.init === "pyreft") return this.linear(random, "learned_source");
    if (this.actFn !== "linear") this.refuseIdentity();
    return {
      "learned_source.weight": transposed(rotate_layer as Float32Array, d, r),
      "learned_source.bias": new Float32Array(r),
    };
  }

  edit(h: Tensor, p: Named<Tensor>, _factors?: Tensor): Tensor {
    return add(h, gemm(this.change(h, p), this.part(p, "rotate_layer"), { transB: true }));
  }

  /** act(hWᵀ + b) − hR [M, r]: what is added, in the coordinates of the subspace. */
  protected change(h: Tensor, p: Named<Tensor>): Tensor {
    const R = this.part(p, "rotate_layer");
    return sub(this.source(h, p), gemm(h, R, {}));
  }
}
