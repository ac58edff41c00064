/** DiReFT as pyreft's code has it: Φ(h) = h + act(hWᵀ + b)Rᵀ, R [D, r] orthonormal: LoReFT without the subtraction. */

import type { Tensor } from "../graph/tensor.js";
import { add, gemm } from "../ops/index.js";
import { Intervention, type Named, type ParameterShape } from "./intervention.js";
import type { Random } from "./random.js";

export class DireftIntervention extends Intervention {
  readonly name = "DireftIntervention";

  get parameters(): Named<ParameterShape> {
    return { ...this.rotationShape(), ...this.linearShape("learned_source") };
  }

  /** Identity: W = 0, b = 0, where act(0) = 0. */
  initial(random: Random): Named<Float32Array> {
    const { embedDim: d, lowRankDimension: r } = this;
    if (this.init === "pyreft") return this.linear(random, "learned_source");
    if (this.actFn === "sigmoid") this.refuseIdentity();
    return { "learned_source.weight": new Float32Array(d * r), "learned_source.bias": new Float32Array(r) };
  }

  edit(h: Tensor, p: Named<Tensor>): Tensor {
    const R = this.part(p, "rotate_layer");
    return add(h, gemm(this.source(h, p), R, { transB: true }));
  }
}
