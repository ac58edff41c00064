/** A checkpoint's weights by name, as graph tensors that point into its files. */

import { UserError } from "../errors.js";
import type { Checkpoint } from "../files/checkpoint.js";
import { type Tensor, weight } from "../graph/tensor.js";
import type { BlockWeight } from "../ops/index.js";

const storedTypes = { F32: "float32", F16: "float16", BF16: "bfloat16" } as const;

export interface Weights {
  /** The weight `name` below this prefix, of exactly `shape`; a UserError when it is missing, misshapen or of a type we cannot read. */
  get(name: string, shape: readonly number[]): Tensor;
  has(name: string): boolean;
  /** The weight `name` in block-wise codes, where the checkpoint was opened so and the matrix has some. */
  quantised(name: string, place: MatrixPlace): BlockWeight | undefined;
  /** The weights whose names begin with `prefix.` */
  under(prefix: string): Weights;
}

/** A matrix that rows are multiplied with. */
export interface MatrixPlace {
  readonly outputs: number;
  readonly inputs: number;
  /** Stored as [inputs, outputs], as GPT-2 has it. Default: [outputs, inputs]. */
  readonly transposed?: boolean;
}

/** How weights are handed out. */
export interface WeightsOptions {
  /** They are for graphs that see a few rows at once, as decoding does: codes go to kernels made for that. Default false. */
  readonly fewRows?: boolean;
  /** Told of every matrix that is asked for: what could be quantised. */
  readonly onMatrix?: (name: string, place: MatrixPlace) => void;
}

/** Weights of `checkpoint`. Each is one graph tensor however often it is asked for. */
export function weightsOf(
  checkpoint: Checkpoint,
  options: WeightsOptions = {},
  prefix = "",
  known: Map<string, Tensor> = new Map(),
): Weights {
  const full = (name: string): string => (prefix === "" ? name : `${prefix}.${name}`);
  const once = (name: string, make: () => Tensor): Tensor => {
    const tensor = known.get(name) ?? make();
    known.set(name, tensor);
    return tensor;
  };
  return {
    has: (name) => checkpoint.weights.has(full(name)),
    under: (name) => weightsOf(checkpoint, options, full(name), known),
    quantised: (name, place) => {
      options.onMatrix?.(full(name), place);
      return readQuantised(checkpoint, full(name), options, once);
    },
    get: (name, shape) => once(full(name), () => read(checkpoint, full(name), shape)),
  };
}

function readQuantised(
  { quantised }: Checkpoint,
  name: string,
  { fewRows = false }: WeightsOptions,
  once: (name: string, make: () => Tensor) => Tensor,
): BlockWeight | undefined {
  const found = quantised?.matrices.get(name);
  if (quantised === undefined || found === undefined) return undefined;
  const { int8Activations } = quantised;
  const { bits, blockSize } = found;
  const part = (suffix: "codes" | "scales", stored: "uint8" | "float32"): Tensor => {
    const { path, offset, length, shape } = found[suffix];
    const key = `${name}.${suffix}`;
    return once(key, () => weight(key, shape, { path, offset, length, stored }));
  };
  const rounds = int8Activations === "always" || (fewRows && int8Activations === "generation");
  // Exact products of 8 bits have no kernel in the runtime.
  const by = rounds ? "int8" : fewRows && bits === 4 ? "codes" : "gemm";
  return { codes: part("codes", "uint8"), scales: part("scales", "float32"), bits, blockSize, by };
}

function read(checkpoint: Checkpoint, name: string, shape: readonly number[]): Tensor {
  const place = checkpoint.weights.get(name);
  if (place === undefined)
    throw new UserError(
      `${checkpoint.folder} has no weight "${name}" [${shape.join(", ")}].`,
      "The checkpoint is incomplete or of another architecture than its config.json says.",
    );
  if (place.shape.length !== shape.length || place.shape.some((d, i) => d !== shape[i]))
    throw new UserError(
      `the weight "${name}" of ${checkpoint.folder} is [${place.shape.join(", ")}], its config.json asks for [${shape.join(", ")}].`,
      "The config.json belongs to another checkpoint.",
    );
  const stored = (storedTypes as Readonly<Record<string, "float32" | "float16" | "bfloat16">>)[place.dtype];
  if (stored === undefined)
    throw new UserError(
      `the weight "${name}" of ${checkpoint.folder} is stored as ${place.dtype}.`,
      "Supported are F32, F16 and BF16; quantised checkpoints are not read yet.",
    );
  return weight(name, shape, { path: place.path, offset: place.offset, length: place.length, stored });
}
