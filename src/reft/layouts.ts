/** The tensors of each class of edit as Python's libraries keep them, and as ours do. */

import { UserError } from "../errors.js";
import type { FloatTensor } from "../files/safetensors.js";
import type { TensorToSave } from "../files/torch-file.js";
import type { Named } from "./intervention.js";
import { transposed } from "./intervention.js";
import { interventionClass, interventions } from "./interventions.js";
import { OrthonormalParameter } from "./orthonormal.js";
import { elementCount } from "./parameter.js";
import type { PlainEdit } from "./plain-adapter.js";
import { trivialised, untrivialised } from "./trivialised.js";

/** A state dict: tensors by name. */
export type State = ReadonlyMap<string, TensorToSave>;

/** What a state dict says of an edit. */
export type Layout = Pick<PlainEdit, "intervention" | "embedDim" | "rank" | "addBias" | "values">;

/** EasySteer's h + b, which is LobiReFT of rank 1. */
const biasClass = "BiasIntervention";

const withoutRotation = ["NoreftIntervention", "NodireftIntervention"];
/** Those whose state_dict is LoReFT's own: R itself, and the linear layer's tensors under no prefix. */
const compact = ["LoreftIntervention", "SubloreftIntervention"];
const linearSource = [...compact, "DireftIntervention"];

/**
 * Reads the state dict of an edit; every tensor must be used, and have the shape that the others ask for.
 *
 * @param kind the class, by its own name
 * @throws UserError naming the class and the tensor
 */
export function layoutOf(kind: string, state: State, name: string): Layout {
  const tensors = new Tensors(state, name);
  if (kind === biasClass) return biasLayout(tensors);
  checkClass(kind, name);
  const values = withoutRotation.includes(kind)
    ? { ...linear(tensors, "proj_layer", ["proj_layer"]), ...linear(tensors, "learned_source", ["learned_source"]) }
    : {
        rotate_layer: rotation(tensors, "rotate_layer"),
        ...(linearSource.includes(kind)
          ? linear(tensors, "learned_source", ["learned_source", ""])
          : { learned_source: tensors.take("learned_source") }),
      };
  tensors.done();
  return checkedLayout(kind, values, name);
}

function checkClass(kind: string, name: string): void {
  if (Object.hasOwn(interventions, kind)) return;
  throw new UserError(
    `${name} is for ${JSON.stringify(kind.slice(0, 80))}, which is none of ReFT's edits.`,
    `Known are ${[...Object.keys(interventions), biasClass].join(", ")}. Edits of one's own cannot be converted.`,
  );
}

/**
 * Checks tensors under our names: their shapes are those of the class, and R is orthonormal.
 *
 * @throws UserError naming the class and the tensor
 */
export function checkedLayout(kind: string, values: Named<FloatTensor>, name: string): Layout {
  checkClass(kind, name);
  const R = values.rotate_layer?.shape;
  const [embedDim, rank] = R ?? [...(values["proj_layer.weight"]?.shape ?? [])].reverse();
  const addBias = withoutRotation.includes(kind) ? values["proj_layer.bias"] !== undefined : null;
  const Class = interventionClass(kind);
  const made = new Class({
    embedDim: embedDim ?? 0,
    lowRankDimension: rank ?? 0,
    ...(addBias === null ? {} : { addBias }),
  });
  for (const [parameter, { shape }] of Object.entries(made.parameters)) {
    const found = values[parameter];
    if (found?.shape.join() !== shape.join())
      throw new UserError(
        `${name}: "${parameter}" is ${found === undefined ? "missing" : `[${found.shape.join(", ")}]`}; ${kind} of width ${embedDim} and rank ${rank} has [${shape.join(", ")}].`,
        "The file is damaged, or of another class of edit.",
      );
  }
  const [d, r] = [embedDim as number, rank as number];
  if (R !== undefined)
    OrthonormalParameter.fromValue(`rotate_layer of ${name}`, [d, r], values.rotate_layer?.data as Float32Array);
  return { intervention: kind, embedDim: d, rank: r, addBias, values };
}

/** h + v = h + ‖v‖·Rᵀ with R = v/‖v‖ [D, 1]. */
function biasLayout(tensors: Tensors): Layout {
  const { data, shape } = tensors.take("bias", "source_representation");
  tensors.done();
  const norm = Math.sqrt(data.reduce((sum, value) => sum + value * value, 0));
  const d = data.length;
  if (shape.length !== 1 || !(norm > 0))
    throw tensors.bad(`the bias is [${shape.join(", ")}] with norm ${norm}, not a vector that shifts anything`);
  const R = { shape: [d, 1], data: data.map((value) => value / norm) };
  const b = { shape: [1], data: Float32Array.of(norm) };
  return {
    intervention: "LobireftIntervention",
    embedDim: d,
    rank: 1,
    addBias: null,
    values: { rotate_layer: R, learned_source: b },
  };
}

/** W and, where it is there, b of a linear layer, from the first prefix that has a weight; "" is no prefix. */
function linear(tensors: Tensors, ours: string, prefixes: readonly string[]): Record<string, FloatTensor> {
  const names = (part: string): string[] => prefixes.map((prefix) => (prefix === "" ? part : `${prefix}.${part}`));
  const weight = { [`${ours}.weight`]: tensors.take(...names("weight")) };
  return tensors.has(...names("bias")) ? { ...weight, [`${ours}.bias`]: tensors.take(...names("bias")) } : weight;
}

/** R [D, r], stored as such or as torch's parametrisation. */
function rotation(tensors: Tensors, prefix: string): FloatTensor {
  const raw = `${prefix}.parametrizations.weight.original`;
  if (!tensors.has(raw)) return tensors.take(prefix);
  const X = tensors.take(raw);
  return rotationOf(tensors, X, tensors.take(`${prefix}.parametrizations.weight.0.base`));
}

function rotationOf(tensors: Tensors, X: FloatTensor, B: FloatTensor): FloatTensor {
  const [d, r] = X.shape as [number, number];
  if (X.shape.length !== 2 || r >= d || B.shape.join() !== [d, d].join())
    throw tensors.bad(`R is kept as [${X.shape.join(", ")}] and a base [${B.shape.join(", ")}], not [D, r] and [D, D]`);
  return { shape: [d, r], data: trivialised(X.data, B.data, d, r) };
}

/** AdapterHub's projection [r, D] is Rᵀ, plain or parametrised. */
export function hubLayoutOf(kind: string, state: State, name: string): Layout {
  const tensors = new Tensors(state, name);
  const source = linear(tensors, "learned_source", ["learned_source"]);
  const raw = "projection.parametrizations.weight.original";
  const parametrised = tensors.has(raw);
  const P = parametrised ? tensors.take(raw) : tensors.take("projection.weight");
  const [r, d] = P.shape as [number, number];
  if (P.shape.length !== 2) throw tensors.bad(`the projection is [${P.shape.join(", ")}], not [r, D]`);
  const upright = { shape: [d, r], data: transposed(P.data, r, d) };
  const projection = withoutRotation.includes(kind)
    ? { "proj_layer.weight": P }
    : {
        rotate_layer: parametrised
          ? rotationOf(tensors, upright, tensors.take("projection.parametrizations.weight.0.base"))
          : upright,
      };
  tensors.done();
  return checkedLayout(kind, { ...projection, ...source }, name);
}

/** Tensors taken one by one: none may be missing, none left over. */
class Tensors {
  private readonly left: Map<string, TensorToSave>;
  private readonly name: string;

  constructor(state: State, name: string) {
    this.left = new Map(state);
    this.name = name;
    // Buffers of pyvene's, which repeat the width.
    for (const buffer of ["embed_dim", "interchange_dim"]) this.left.delete(buffer);
  }

  has(...names: readonly string[]): boolean {
    return names.some((name) => this.left.has(name));
  }

  /** The floats of the first of these that is there. */
  take(...names: readonly string[]): FloatTensor {
    const name = names.find((n) => this.left.has(n));
    const tensor = name === undefined ? undefined : this.left.get(name);
    if (name === undefined || tensor === undefined)
      throw this.bad(`has no tensor ${names.map((n) => `"${n}"`).join(" or ")}, but ${this.listed()}`);
    this.left.delete(name);
    if (tensor.data instanceof BigInt64Array) throw this.bad(`"${name}" holds whole numbers`);
    if (!tensor.data.every(Number.isFinite)) throw this.bad(`"${name}" holds a NaN or an infinity`);
    return { shape: tensor.shape, data: tensor.data };
  }

  done(): void {
    if (this.left.size > 0) throw this.bad(`has tensors that this class of edit does not: ${this.listed()}`);
  }

  bad(what: string): UserError {
    return new UserError(
      `${this.name}: ${what}.`,
      "The file is damaged, or of another class of edit (--intervention names one).",
    );
  }

  private listed(): string {
    const names = [...this.left.keys()].slice(0, 5).map((name) => JSON.stringify(name.slice(0, 80)));
    return names.length === 0 ? "none is left" : names.join(", ");
  }
}

/**
 * The class of a state dict, where only one class has such tensors.
 *
 * @throws UserError where several have, or none
 */
export function guessedClass(state: State, name: string): string {
  const has = (key: string): boolean => state.has(key);
  const rotated = has("rotate_layer") || has("rotate_layer.parametrizations.weight.original");
  if (rotated && has("weight")) return "LoreftIntervention";
  if (rotated && has("learned_source.weight")) return "DireftIntervention";
  const either = rotated ? "Consreft or Lobireft" : has("proj_layer.weight") ? "Noreft or Nodireft" : undefined;
  if (either === undefined)
    throw new UserError(`${name} holds none of ReFT's edits.`, "Take the folder that ReftModel.save wrote.");
  throw new UserError(
    `${name} is of class ${either}: the tensors do not say which, and there is no config.json.`,
    `Pass --intervention ${either.toLowerCase().replace(" or ", " or --intervention ")}.`,
  );
}

/** The state dict that pyreft keeps for an edit. */
export function pyreftState(edit: PlainEdit): Record<string, TensorToSave> {
  const { intervention, embedDim: d, rank: r } = edit;
  const { rotate_layer: R, ...rest } = stored(edit);
  if (R === undefined) return { ...sizes(d), ...rest };
  if (compact.includes(intervention)) return compactState(edit);
  const { raw, base } = untrivialised(orthonormal(edit), d, r);
  return {
    ...sizes(d),
    ...rest,
    "rotate_layer.parametrizations.weight.original": { shape: [d, r], data: raw },
    "rotate_layer.parametrizations.weight.0.base": { shape: [d, d], data: base },
  };
}

/** The values with linear parts in the type they are computed in, as pyreft saves them. */
function stored({ values, dtype }: PlainEdit): Record<string, TensorToSave> {
  const narrow = { float32: undefined, bfloat16: "BF16", float16: "F16" } as const;
  const as = narrow[dtype];
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [
      name,
      as !== undefined && /\.(weight|bias)$/.test(name) ? { ...value, dtype: as } : value,
    ]),
  );
}

/** The bytes of `pyreftState`, before it is made. */
export function pyreftStateBytes({ values, intervention, embedDim: d, rank: r }: PlainEdit): number {
  const own = Object.values(values).reduce((sum, { shape }) => sum + 4 * elementCount(shape), 0);
  const parametrised = values.rotate_layer !== undefined && !compact.includes(intervention);
  return parametrised ? own + 4 * d * (d + r) : own;
}

/** The state dict with R itself, as EasySteer keeps it for every class and pyreft for LoReFT. */
export function compactState(edit: PlainEdit): Record<string, TensorToSave> {
  const all = stored(edit);
  const { rotate_layer, "learned_source.weight": weight, "learned_source.bias": bias, ...rest } = all;
  if (rotate_layer === undefined) return all;
  const R = { shape: rotate_layer.shape, data: orthonormal(edit) };
  if (weight === undefined || bias === undefined) return { ...rest, rotate_layer: R };
  return { weight, bias, rotate_layer: R };
}

/** v = Rb of a LobiReFT edit, h + bRᵀ, as EasySteer's BiasIntervention keeps it. */
export function biasState({ values, embedDim: d, rank: r }: PlainEdit): Record<string, TensorToSave> {
  const [R, b] = [values.rotate_layer?.data as Float32Array, values.learned_source?.data as Float32Array];
  const data = Float32Array.from({ length: d }, (_, row) => {
    let sum = 0;
    for (let i = 0; i < r; i++) sum += (R[row * r + i] as number) * (b[i] as number);
    return sum;
  });
  return { bias: { shape: [d], data } };
}

function orthonormal({ values, embedDim, rank }: PlainEdit): Float32Array {
  const R = values.rotate_layer?.data as Float32Array;
  return OrthonormalParameter.fromValue("rotate_layer", [embedDim, rank], R).value();
}

function sizes(d: number): Record<string, TensorToSave> {
  const scalar = { shape: [], data: BigInt64Array.of(BigInt(d)) };
  return { embed_dim: scalar, interchange_dim: scalar };
}
