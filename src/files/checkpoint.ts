/** What a checkpoint folder in the Hugging Face layout is: configuration, and where every weight's bytes lie. */
import { UserError } from "../errors.js";
import type { StoredDType } from "./safetensors.js";

/** Where a weight's bytes are: a range of a file, row-major, little-endian. */
export interface WeightLocation {
  /** Absolute, symbolic links resolved. */
  readonly path: string;
  readonly offset: number;
  readonly length: number;
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
}

/** A matrix [outputs, inputs] in block-wise codes, in a file of ours. */
export interface QuantisedMatrix {
  readonly bits: 4 | 8;
  readonly blockSize: number;
  readonly codes: WeightLocation;
  readonly scales: WeightLocation;
}

/** A model as stored on disk; nothing of the weights themselves has been read. */
export interface Checkpoint {
  readonly folder: string;
  readonly config: Readonly<Record<string, unknown>>;
  /** Empty if the folder has no generation_config.json. */
  readonly generationConfig: Readonly<Record<string, unknown>>;
  readonly weights: ReadonlyMap<string, WeightLocation>;
  /** Matrices that are to be read in codes instead. */
  readonly quantised?: QuantisedMatrices;
}

export interface QuantisedMatrices {
  /** By the weight's name. */
  readonly matrices: ReadonlyMap<string, QuantisedMatrix>;
  /** Where rows are rounded to 8 bits, too: as tokens are generated, everywhere, or nowhere. */
  readonly int8Activations: "generation" | "always" | undefined;
}

export const weightsFile: string = "model.safetensors";
export const weightsIndexFile: string = "model.safetensors.index.json";

/**
 * Parses a JSON text that must be an object.
 *
 * @param name the file's name for messages.
 */
export function parseJsonObject(text: string, name: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UserError(`${name} is not JSON: ${(cause as Error).message}.`, "Download it again, or correct it.", {
      cause,
    });
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UserError(`${name} is JSON, but not an object.`, "Download it again, or correct it.");
  }
  return value as Record<string, unknown>;
}

/**
 * Reads the index of a checkpoint in several files: tensor names by the file that holds them.
 *
 * @throws UserError if a file named there is not a plain name ending in .safetensors: a path could lead anywhere.
 */
export function parseWeightIndex(text: string, name: string): Map<string, string[]> {
  const map = parseJsonObject(text, name).weight_map;
  if (typeof map !== "object" || map === null || Array.isArray(map) || Object.keys(map).length === 0) {
    throw new UserError(`${name} has no weight_map, or an empty one.`, "Download it again.");
  }
  const shards = new Map<string, string[]>();
  for (const [tensor, shard] of Object.entries(map)) {
    if (typeof shard !== "string" || !/^\w[\w.-]*\.safetensors$/.test(shard)) {
      throw new UserError(
        `${name} places ${JSON.stringify(tensor)} in ${JSON.stringify(shard)}, which is not a .safetensors file of its folder.`,
        "Do not use this checkpoint unless you know why: download it again from its author.",
      );
    }
    const tensors = shards.get(shard);
    if (tensors === undefined) shards.set(shard, [tensor]);
    else tensors.push(tensor);
  }
  return shards;
}
