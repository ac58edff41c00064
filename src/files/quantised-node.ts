/** Quantised copies of checkpoints: made once, kept in a cache folder, mapped from there. */

import { createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { UserError } from "../errors.js";
import type { QuantisedMatrix, WeightLocation } from "./checkpoint.js";
import { openShard } from "./checkpoint-node.js";
import { fileIdentity } from "./file-identity-node.js";
import { type FloatDType, toFloats } from "./floats.js";
import { blockSizeFor, type Quantisation, quantise, transposed } from "./quantise.js";
import { layOutSafetensors, type SafetensorsLayout } from "./safetensors.js";
import { fileError, writeFileAtomic } from "./write-node.js";

/** A weight that is to be read as codes [outputs, inputs]. */
export interface MatrixToCode {
  readonly name: string;
  readonly place: WeightLocation;
  readonly outputs: number;
  readonly inputs: number;
  /** Stored as [inputs, outputs]. */
  readonly transposed: boolean;
}

export interface CodeOptions extends Quantisation {
  /** Where copies are kept; they may be deleted at any time. Default: REFT_CACHE, else `reft` in the user's cache folder. */
  readonly cacheDir?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with the numbers coded so far, of so many. */
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Another number for every change in what codes mean. */
const formatVersion = 1;
/** Numbers that are read, coded and written at once: 64 MB as floats. */
const stretch = 2 ** 24;

function cacheFolder(): string {
  const { REFT_CACHE: own, XDG_CACHE_HOME: cache } = process.env;
  return join(own || join(cache || join(homedir(), ".cache"), "reft"), "quantised");
}

/**
 * The codes of matrices: from the cache, or made now and kept there. A copy is known by its source files (size, time and
 * samples of their content), the matrices and the coding; one that is cut off or of anything else is made anew.
 *
 * @returns by name; matrices whose rows no block divides are left out
 * @throws UserError where a weight is no float matrix, or there is no place for the copy; and the signal's reason
 */
export async function openCodes(
  matrices: readonly MatrixToCode[],
  options: CodeOptions,
): Promise<Map<string, QuantisedMatrix>> {
  const plan = matrices.flatMap((matrix) => {
    const blockSize = blockSizeFor(matrix.inputs, options.blockSize);
    return blockSize === undefined ? [] : [{ ...matrix, bits: options.bits, blockSize }];
  });
  if (plan.length === 0) return new Map();
  for (const { name, place } of plan) floatType(name, place);
  const key = await keyOf(plan);
  const layout = layOutOf(plan, key);
  const folder = options.cacheDir ?? cacheFolder();
  const path = join(folder, `${key}.safetensors`);
  const kept = await codesIn(path, plan, layout);
  if (kept !== undefined) return kept;
  return make(plan, layout, path, options);
}

type Plan = readonly (MatrixToCode & Quantisation)[];

async function make(
  plan: Plan,
  layout: SafetensorsLayout,
  path: string,
  options: CodeOptions,
): Promise<Map<string, QuantisedMatrix>> {
  const fill = (handle: FileHandle): Promise<void> => write(handle, plan, layout, options);
  await writeFileAtomic(path, fill);
  const made = await codesIn(path, plan, layout);
  if (made !== undefined) return made;
  throw new UserError(`${path} was written, but does not hold what was written.`, "Check the disk, or set REFT_CACHE.");
}

function floatType(name: string, { dtype, path }: WeightLocation): FloatDType {
  const known = (["F32", "F16", "BF16", "F64"] as const).find((d) => d === dtype);
  if (known !== undefined) return known;
  throw new UserError(
    `the weight "${name}" of ${path} is stored as ${dtype}: only floats can be quantised.`,
    "Load the model without loadIn4bit and loadIn8bit, or choose another checkpoint.",
  );
}

async function keyOf(plan: Plan): Promise<string> {
  const files = [...new Set(plan.map(({ place }) => place.path))].sort();
  const identities = await Promise.all(files.map((path) => fileIdentity(path))).catch((error: unknown) => {
    throw fileError(error, "read the checkpoint");
  });
  const hash = createHash("sha256").update(JSON.stringify([formatVersion, files, identities, plan]));
  return hash.digest("hex").slice(0, 32);
}

/** A shape of codes and one of scales a matrix. */
function layOutOf(plan: Plan, key: string): SafetensorsLayout {
  const tensors = plan.flatMap(({ name, outputs, inputs, bits, blockSize }) => [
    [`${name}.codes`, { dtype: "U8", shape: [outputs, inputs / blockSize, (blockSize * bits) / 8] }] as const,
    [`${name}.scales`, { dtype: "F32", shape: [outputs, inputs / blockSize] }] as const,
  ]);
  return layOutSafetensors(Object.fromEntries(tensors), { format: "reft-codes", key });
}

/** Where the codes are in a file; undefined where it is not, or not whole, what the layout says. */
async function codesIn(
  path: string,
  plan: Plan,
  layout: SafetensorsLayout,
): Promise<Map<string, QuantisedMatrix> | undefined> {
  const found = await openShard(path).catch(() => undefined);
  const asLaidOut = [...layout.tensors].every(([name, { begin, end, dtype, shape }]) => {
    const own = found?.get(name);
    return (
      own?.offset === begin && own.length === end - begin && own.dtype === dtype && own.shape.join() === shape.join()
    );
  });
  if (found === undefined || !asLaidOut) return undefined;
  const at = (name: string): WeightLocation => found.get(name) as WeightLocation;
  return new Map(
    plan.map(({ name, bits, blockSize }) => [
      name,
      { bits, blockSize, codes: at(`${name}.codes`), scales: at(`${name}.scales`) },
    ]),
  );
}

/** Codes matrix after matrix, and of a large one some rows after some. */
async function write(
  handle: FileHandle,
  plan: Plan,
  { header, tensors }: SafetensorsLayout,
  { signal, onProgress }: CodeOptions,
): Promise<void> {
  const total = plan.reduce((sum, { outputs, inputs }) => sum + outputs * inputs, 0);
  let done = 0;
  await handle.write(header, 0, header.length, 0);
  for (const matrix of plan) {
    const { name, outputs, inputs, bits, blockSize } = matrix;
    const [codesAt, scalesAt] = [tensors.get(`${name}.codes`)?.begin ?? 0, tensors.get(`${name}.scales`)?.begin ?? 0];
    // A transposed one is turned as a whole: GPT-2's largest has 10 million numbers.
    const rows = matrix.transposed ? outputs : Math.max(1, Math.min(outputs, Math.floor(stretch / inputs)));
    for (let from = 0; from < outputs; from += rows) {
      signal?.throwIfAborted();
      const count = Math.min(rows, outputs - from);
      const { codes, scales } = quantise(await rowsOf(matrix, from, count), matrix);
      await handle.write(codes, 0, codes.length, codesAt + (from * inputs * bits) / 8);
      const bytes = new Uint8Array(scales.buffer, scales.byteOffset, scales.byteLength);
      await handle.write(bytes, 0, bytes.length, scalesAt + ((from * inputs) / blockSize) * 4);
      done += count * inputs;
      onProgress?.(done, total);
    }
  }
}

/** Rows of [outputs, inputs] as floats. */
async function rowsOf({ name, place, outputs, inputs, transposed: turned }: MatrixToCode, from: number, count: number) {
  const dtype = floatType(name, place);
  const width = place.length / (outputs * inputs);
  const raw = new ArrayBuffer(count * inputs * width);
  const file = await open(place.path);
  try {
    const { bytesRead } = await file.read(new Uint8Array(raw), 0, raw.byteLength, place.offset + from * inputs * width);
    if (bytesRead !== raw.byteLength)
      throw new UserError(`${place.path} ends within the weight "${name}".`, "Download it again.");
  } finally {
    await file.close();
  }
  const values = toFloats(raw, dtype);
  return turned ? transposed(values, inputs, outputs) : values;
}
