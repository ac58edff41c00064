/** What an edit is: parameters by name, their first values, and a formula from hidden rows to edited hidden rows. */

import { UserError } from "../errors.js";
import type { Tensor } from "../graph/tensor.js";
import { type ActivationName, activations, gemm, type RoundedDType, roundTo } from "../ops/index.js";
import { linearInit } from "./parameter.js";
import type { Random } from "./random.js";

export type EditDType = RoundedDType;
export const editDTypes: readonly EditDType[] = ["float32", "bfloat16", "float16"];

export interface InterventionOptions {
  /** D, the width of the hidden states that are edited. */
  readonly embedDim: number;
  /** r, the rank of the edit: 0 < r < D. */
  readonly lowRankDimension: number;
  /** The share of h′ that is set to 0 in training, the rest scaled up. Default 0. */
  readonly dropout?: number;
  /** An activation by transformers' name (ACT2FN). Default "linear". */
  readonly actFn?: ActivationName;
  /**
   * What the linear parts are computed in, as pyreft's `dtype` has it: what goes into them, their weights and what comes out are
   * rounded to it; R, and Cons- and LobiReFT, which have no linear part, stay float32. Default "float32" (pyreft: bfloat16).
   */
  readonly dtype?: EditDType;
  /** First values: pyreft's random ones (default), or the ones for which the edit changes nothing, where the formula has such. */
  readonly init?: "pyreft" | "identity";
  /** Whether the projection has a bias (NoReFT, NodiReFT). Default true for NoReFT, false for NodiReFT. */
  readonly addBias?: boolean;
}

/** The shape of a parameter, and whether it must keep orthonormal columns. */
export interface ParameterShape {
  readonly shape: readonly number[];
  readonly orthonormal?: boolean;
}

/** Tensors or arrays by parameter name. */
export type Named<T> = Readonly<Record<string, T>>;

/** An edit. Subclasses give a name, parameter shapes, first values, and the formula. */
export abstract class Intervention {
  /** The name it is saved under; pyreft's class name for pyreft's edits. */
  abstract readonly name: string;
  readonly embedDim: number;
  readonly lowRankDimension: number;
  readonly dropout: number;
  readonly actFn: ActivationName;
  readonly dtype: EditDType;
  readonly init: "pyreft" | "identity";
  readonly addBias: boolean | undefined;

  constructor(options: InterventionOptions) {
    const { embedDim, lowRankDimension, dropout = 0, actFn = "linear", dtype = "float32", init = "pyreft" } = options;
    checkRank(lowRankDimension, embedDim);
    if (!(dropout >= 0 && dropout < 1))
      throw new UserError(`dropout ${dropout} is not in [0, 1).`, "Pass a share such as 0.05.");
    if (!Object.hasOwn(activations, actFn))
      throw new UserError(
        `there is no activation called "${actFn}".`,
        `Supported are ${Object.keys(activations).join(", ")}.`,
      );
    if (!editDTypes.includes(dtype))
      throw new UserError(`there is no dtype "${dtype}" for edits.`, `Supported are ${editDTypes.join(", ")}.`);
    this.embedDim = embedDim;
    this.lowRankDimension = lowRankDimension;
    this.dropout = dropout;
    this.actFn = actFn;
    this.dtype = dtype;
    this.init = init;
    this.addBias = options.addBias;
  }

  /** The parameters by name, in a fixed order. */
  abstract readonly parameters: Named<ParameterShape>;

  /** First values [shape] for every parameter; orthonormal ones are drawn by the caller and left out here. */
  abstract initial(random: Random, orthonormal: Named<Float32Array>): Named<Float32Array>;

  /** Whether `edit` is to be given factors: how strongly each column of the subspace acts on each row. */
  get usesFactors(): boolean {
    return false;
  }

  /** h [M, D] → h′ [M, D]; factors [M, r] are given where `usesFactors`, by each row's example or prompt. */
  abstract edit(h: Tensor, parameters: Named<Tensor>, factors?: Tensor): Tensor;

  /** act(x), by the option `actFn` */
  protected act(x: Tensor): Tensor {
    return activations[this.actFn](x);
  }

  /** x as the option `dtype` can hold it. */
  protected round(x: Tensor): Tensor {
    return this.dtype === "float32" ? x : roundTo(x, { to: this.dtype });
  }

  /** act(hWᵀ + b) [M, r] with W and b of the linear layer `learned_source`, in `dtype`. */
  protected source(h: Tensor, p: Named<Tensor>): Tensor {
    const W = this.round(this.part(p, "learned_source.weight"));
    const b = this.round(this.part(p, "learned_source.bias"));
    const linear = this.round(gemm(this.round(h), W, b, { transB: true }));
    return this.actFn === "linear" ? linear : this.round(this.act(linear));
  }

  /** One of `parameters`, which must be there. */
  protected part<T>(parameters: Named<T>, name: string): T {
    const found = parameters[name];
    if (found === undefined) throw new Error(`internal: ${this.name} was given no ${name}`);
    return found;
  }

  /** pyreft's first values of the linear layer `name`: torch's nn.Linear, D → r. */
  protected linear(random: Random, name: string, bias = true): Record<string, Float32Array> {
    const first = linearInit(this.embedDim, this.lowRankDimension, random);
    return { [`${name}.weight`]: first.weight, ...(bias ? { [`${name}.bias`]: first.bias } : {}) };
  }

  /** Shapes of a linear layer D → r. */
  protected linearShape(name: string, bias = true): Record<string, ParameterShape> {
    const { embedDim: d, lowRankDimension: r } = this;
    return { [`${name}.weight`]: { shape: [r, d] }, ...(bias ? { [`${name}.bias`]: { shape: [r] } } : {}) };
  }

  /** Shape of R [D, r], columns orthonormal. */
  protected rotationShape(): Record<string, ParameterShape> {
    return { rotate_layer: { shape: [this.embedDim, this.lowRankDimension], orthonormal: true } };
  }

  /** Refuses `init: "identity"` where the formula has no identity. */
  protected refuseIdentity(): void {
    if (this.init === "identity")
      throw new UserError(
        `${this.name} has no parameters for which it changes nothing.`,
        'Leave out init: "identity", or use LoreftIntervention.',
      );
  }
}

function checkRank(rank: number, width: number): void {
  const hint = `Pass a whole number from 1 to ${width - 1}; start at 4.`;
  if (!Number.isInteger(rank) || rank < 1) throw new UserError(`rank ${rank} is not a whole number above 0.`, hint);
  if (rank >= width) throw new UserError(`rank ${rank} is not below the hidden size ${width}.`, hint);
}

/** Wᵀ for a parameter saved [D, r]: the transpose as an array, [r, D]. */
export function transposed(values: Float32Array, rows: number, columns: number): Float32Array {
  return Float32Array.from({ length: values.length }, (_, i) => {
    const [row, column] = [i % rows, Math.floor(i / rows)];
    return values[row * columns + column] as number;
  });
}
