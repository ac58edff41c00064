/** The safetensors format, both ways: header checks for files from strangers, F32 writing, float reading. */
import { invariant, UserError } from "../errors.js";
import { type FloatDType, toFloats } from "./floats.js";

export type StoredDType = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** A tensor in a safetensors file; `begin` and `end` are byte offsets in the file, header included. */
export interface StoredTensor {
  readonly dtype: StoredDType;
  readonly shape: readonly number[];
  readonly begin: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** A float tensor in memory: row-major data and its shape. */
export interface FloatTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array;
}

const dtypeBytes: Readonly<Record<StoredDType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

/** The reference implementation's own cap: a JSON text beyond it is an attack on the parser, not a model. */
const maxHeaderBytes = 100_000_000;
const prefixBytes = 8;
const metadataKey = "__metadata__";
const brokenHint = "The file is damaged or not a safetensors file: download or save it again.";

/** A stranger's text made safe to print: quoted, control characters escaped, at most 80 characters. */
function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 79)}…` : text);
}

/**
 * Length in bytes of the JSON header, from the file's first eight bytes (unsigned 64-bit little-endian).
 *
 * @throws UserError if the file is too short to hold what it announces, or the header is over 100 MB.
 */
export function safetensorsHeaderLength(bytes: Uint8Array, fileSize: number, name: string): number {
  if (fileSize < prefixBytes || bytes.length < prefixBytes) {
    throw new UserError(`${name} has ${fileSize} bytes: a safetensors file has at least ${prefixBytes}.`, brokenHint);
  }
  if (new TextDecoder("latin1").decode(bytes.subarray(0, prefixBytes)) === "version ") {
    throw new UserError(
      `${name} is a Git LFS pointer (${fileSize} bytes of text), not the weights.`,
      'Run "git lfs pull" in that folder, or give the model\'s hub id instead.',
    );
  }
  const length = new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(0, true);
  if (length > BigInt(fileSize - prefixBytes)) {
    throw new UserError(`${name} announces a header of ${length} bytes, but has ${fileSize} bytes in all.`, brokenHint);
  }
  if (length > BigInt(maxHeaderBytes)) {
    throw new UserError(
      `${name} announces a header of ${length} bytes; at most ${maxHeaderBytes} are read.`,
      brokenHint,
    );
  }
  return Number(length);
}

/**
 * Reads and checks a safetensors header: every tensor's dtype, shape and byte range, and that the ranges cover the data
 * exactly, as the reference implementation demands.
 *
 * @param bytes the file's beginning: at least 8 + header length bytes.
 * @param fileSize the whole file's size in bytes.
 * @param name the file's name for messages.
 * @throws UserError naming the file and the tensor.
 */
export function parseSafetensorsHeader(bytes: Uint8Array, fileSize: number, name: string): SafetensorsHeader {
  const length = safetensorsHeaderLength(bytes, fileSize, name);
  const dataStart = prefixBytes + length;
  invariant(bytes.length >= dataStart, `the header of ${name} was cut before it was parsed`);
  const header = parseHeaderJson(bytes.subarray(prefixBytes, dataStart), name);
  const tensors = new Map<string, StoredTensor>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [key, value] of Object.entries(header)) {
    if (key === metadataKey) metadata = parseMetadata(value, name);
    else tensors.set(key, parseEntry(key, value, dataStart, fileSize, name));
  }
  checkCoverage(tensors, dataStart, fileSize, name);
  return { tensors, metadata };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseHeaderJson(bytes: Uint8Array, name: string): Record<string, unknown> {
  let text: string;
  let header: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    header = JSON.parse(text);
  } catch (cause) {
    throw new UserError(`The header of ${name} (${bytes.length} bytes) is not JSON.`, brokenHint, { cause });
  }
  if (!isObject(header)) throw new UserError(`The header of ${name} is JSON, but not an object.`, brokenHint);
  const twice = duplicateKey(text);
  if (twice !== undefined) throw new UserError(`The header of ${name} has ${quote(twice)} twice.`, brokenHint);
  return header;
}

/** The first key that an object of this valid JSON text holds twice: JSON.parse would silently keep the last. */
function duplicateKey(json: string): string | undefined {
  const open: Set<string>[] = [];
  for (const [token, quoted, colon] of json.matchAll(/("[^"\\]*(?:\\.[^"\\]*)*")(\s*:)?|[{}]/g)) {
    if (token === "{") open.push(new Set());
    else if (token === "}") open.pop();
    else if (quoted !== undefined && colon !== undefined) {
      const key: string = JSON.parse(quoted);
      const keys = open.at(-1);
      if (keys?.has(key)) return key;
      keys?.add(key);
    }
  }
  return undefined;
}

function parseMetadata(value: unknown, name: string): Readonly<Record<string, string>> {
  if (value === null) return {};
  if (!isObject(value)) throw new UserError(`${metadataKey} in ${name} is not an object.`, brokenHint);
  const entries = Object.entries(value).map(([key, text]): [string, string] => {
    if (typeof text === "string") return [key, text];
    throw new UserError(`${metadataKey} in ${name} holds ${quote(key)} that is not a text.`, brokenHint);
  });
  return Object.fromEntries(entries);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function parseEntry(tensor: string, value: unknown, dataStart: number, fileSize: number, name: string): StoredTensor {
  const who = `Tensor ${quote(tensor)} in ${name}`;
  if (!isObject(value)) throw new UserError(`${who} is not described by an object.`, brokenHint);
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== "string" || !Object.hasOwn(dtypeBytes, dtype)) {
    throw new UserError(
      `${who} has dtype ${quote(String(dtype))}.`,
      `The dtypes known here are ${Object.keys(dtypeBytes).join(", ")}: save the model in one of them.`,
    );
  }
  if (!Array.isArray(shape) || !shape.every(isSize)) {
    throw new UserError(
      `${who} has shape ${quote(JSON.stringify(shape) ?? "none")}, not a list of sizes ≥ 0.`,
      brokenHint,
    );
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    throw new UserError(
      `${who} has data_offsets ${quote(JSON.stringify(offsets) ?? "none")}, not [begin, end].`,
      brokenHint,
    );
  }
  const [first, last] = offsets as [number, number];
  const size = shape.reduce((product: number, dim: number) => product * dim, dtypeBytes[dtype as StoredDType]);
  if (last > fileSize - dataStart) {
    throw new UserError(
      `${who} ends at byte ${last} of the data, but the file holds only ${fileSize - dataStart}.`,
      "The file is truncated: download or copy it again.",
    );
  }
  if (first > last || size !== last - first) {
    throw new UserError(
      `${who} has ${dtype} [${shape.join(", ")}], ${size} bytes, but its range [${first}, ${last}] has ${last - first}.`,
      brokenHint,
    );
  }
  return { dtype: dtype as StoredDType, shape, begin: dataStart + first, end: dataStart + last };
}

/** Ranges must follow one another without overlap or hole and reach the file's end: else bytes could be smuggled in. */
function checkCoverage(
  tensors: ReadonlyMap<string, StoredTensor>,
  start: number,
  fileSize: number,
  name: string,
): void {
  const ordered = [...tensors].sort(([, a], [, b]) => a.begin - b.begin || a.end - b.end);
  let reached = start;
  let previous = "the header";
  for (const [tensor, { begin, end }] of ordered) {
    if (begin < reached) {
      throw new UserError(
        `Tensors ${previous} and ${quote(tensor)} in ${name} overlap by ${reached - begin} bytes.`,
        brokenHint,
      );
    }
    if (begin > reached) {
      throw new UserError(
        `${name} has ${begin - reached} bytes between ${previous} and tensor ${quote(tensor)} that no tensor owns.`,
        brokenHint,
      );
    }
    reached = end;
    previous = quote(tensor);
  }
  if (reached !== fileSize) {
    throw new UserError(
      `${name} has ${fileSize - reached} bytes after its last tensor that no tensor owns.`,
      brokenHint,
    );
  }
}

/**
 * Writes F32 tensors as a safetensors file; equal input gives equal bytes: names sorted, header padded to 8 bytes.
 *
 * @param tensors by name; `data` is row-major and as long as the product of `shape`.
 */
export function encodeSafetensors(
  tensors: Readonly<Record<string, FloatTensor>>,
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  const stored = Object.entries(tensors).map(([name, { shape, data }]) => {
    invariant(shape.reduce((product, dim) => product * dim, 1) === data.length, `${name}: shape and data disagree`);
    return [name, { dtype: "F32", shape }] as const;
  });
  const { header, tensors: places, size } = layOutSafetensors(Object.fromEntries(stored), metadata);
  const bytes = new Uint8Array(size);
  bytes.set(header);
  for (const [name, { begin }] of places) {
    const { data } = tensors[name]!;
    bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), begin);
  }
  return bytes;
}

/** A safetensors file that is yet to be written: its header, where each tensor goes, its size. */
export interface SafetensorsLayout {
  readonly header: Uint8Array;
  readonly tensors: ReadonlyMap<string, StoredTensor>;
  readonly size: number;
}

/** Lays out a file: names sorted, the header padded to 8 bytes. */
export function layOutSafetensors(
  tensors: Readonly<Record<string, Pick<StoredTensor, "dtype" | "shape">>>,
  metadata: Readonly<Record<string, string>> = {},
): SafetensorsLayout {
  const names = Object.keys(tensors).sort();
  const fields: string[] = [];
  // Built as text, not as an object: an object would move keys that look like numbers to the front.
  const pair = (key: string, json: string): string => `${JSON.stringify(key)}:${json}`;
  const notes = Object.keys(metadata).sort();
  if (notes.length > 0) {
    fields.push(pair(metadataKey, `{${notes.map((key) => pair(key, JSON.stringify(metadata[key]))).join(",")}}`));
  }
  let reached = 0;
  const ranges = names.map((name) => {
    const { dtype, shape } = tensors[name]!;
    invariant(name !== metadataKey, `a tensor cannot be named ${metadataKey}`);
    const begin = reached;
    reached += shape.reduce((product, dim) => product * dim, dtypeBytes[dtype]);
    fields.push(pair(name, JSON.stringify({ dtype, shape, data_offsets: [begin, reached] })));
    return { name, dtype, shape, begin, end: reached };
  });
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const length = Math.ceil(json.length / 8) * 8;
  const start = prefixBytes + length;
  const header = new Uint8Array(start).fill(0x20, prefixBytes);
  new DataView(header.buffer).setBigUint64(0, BigInt(length), true);
  header.set(json, prefixBytes);
  const placed = ranges.map(
    ({ name, begin, end, ...rest }) => [name, { ...rest, begin: start + begin, end: start + end }] as const,
  );
  return { header, tensors: new Map(placed), size: start + reached };
}

/**
 * Reads a whole safetensors file of floats; F16, BF16 and F32 keep their exact value, F64 rounds to the nearest float.
 *
 * @throws UserError for a broken file, or a tensor that does not hold floats.
 */
export function decodeSafetensors(
  bytes: Uint8Array,
  name: string,
): { tensors: Map<string, { shape: number[]; data: Float32Array }>; metadata: Readonly<Record<string, string>> } {
  const { tensors, metadata } = parseSafetensorsHeader(bytes, bytes.length, name);
  const decoded = new Map<string, { shape: number[]; data: Float32Array }>();
  for (const [tensor, { dtype, shape, begin, end }] of tensors) {
    if (!isFloat(dtype)) {
      throw new UserError(
        `Tensor ${quote(tensor)} in ${name} has dtype ${dtype}, which does not hold floats.`,
        "Save it as F32, F16, BF16 or F64.",
      );
    }
    // A copy, because a typed array needs an aligned start and the format does not promise one.
    // Not bytes.slice(): Node's Buffer overrides it, and gives a view of memory that it shares with others.
    const data = toFloats(new Uint8Array(bytes.subarray(begin, end)).buffer, dtype);
    decoded.set(tensor, { shape: [...shape], data });
  }
  return { tensors: decoded, metadata };
}

function isFloat(dtype: StoredDType): dtype is FloatDType {
  return dtype === "F32" || dtype === "F64" || dtype === "BF16" || dtype === "F16";
}
