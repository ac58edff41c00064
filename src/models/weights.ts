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

/** Told of every matrix that is asked for: what could be quantised. */
export type OnMatrix = (name: string, place: MatrixPlace) => void;

/** Weights of `checkpoint`. Each is one graph tensor however often it is asked for. */
export function weightsOf(
  checkpoint: Checkpoint,
  prefix = "",
  known: Map<string, Tensor> = new Map(),
  onMatrix?: OnMatrix,
): Weights {
  const full = (name: string): string => (prefix === "" ? name : `${prefix}.${name}`);
  return {
    has: (name) => checkpoint.weights.has(full(name)),
    under: (name) => weightsOf(checkpoint, full(name), known, onMatrix),
    quantised: (name, place) => {
      onMatrix?.(full(name), place);
      return readQuantised(checkpoint, full(name), known);
    },
    get: (name, shape) => {
      const before = known.get(full(name));
      if (before !== undefined) return before;
      const found = read(checkpoint, full(name), shape);
      known.set(full(name), found);
      return found;
    },
  };
}

function readQuantised({ quantised }: Checkpoint, name: string, known: Map<string, Tensor>): BlockWeight | undefined {
  const found = quantised?.matrices.get(name);
  if (quantised === undefined || found === undefined) return undefined;
  const { bits, blockSize } = found;
  const part = (suffix: "codes" | "scales", stored: "uint8" | "float32"): Tensor => {
    const key = `${name}.${suffix}`;
    const { path, offset, length, shape } = found[suffix];
    const tensor = known.get(key) ?? weight(key, shape, { path, offset, length, stored });
    known.set(key, tensor);
    return tensor;
  };
  const { int8Activations } = quantised;
  return { codes: part("codes", "uint8"), scales: part("scales", "float32"), bits, blockSize, int8Activations };
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
