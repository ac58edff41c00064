/** Tables of tensors in torch.save's files (.bin, .pt), both ways: the zip, the pickle and the storages put together. */
import { invariant, UserError } from "../errors.js";
import { fromFloats, toFloats } from "./floats.js";
import { isTensor, type PickledTensor, type StorageDType, unpickle } from "./pickle.js";
import { readStoredZip, writeStoredZip } from "./torch-zip.js";

/** A tensor in memory, row-major: floats as float32, whole numbers as int64. */
export interface TorchTensor {
  /** How it was stored. */
  readonly dtype: StorageDType;
  readonly shape: readonly number[];
  readonly data: Float32Array | BigInt64Array;
}

const bytesOf: Readonly<Record<StorageDType, number>> = { BF16: 2, F16: 2, F32: 4, F64: 8, I64: 8 };
const damaged =
  "The file is damaged, or no table of tensors: save it again with torch.save(module.state_dict(), path).";

/**
 * Reads a table of tensors; nothing in the file is executed.
 *
 * @param name the file's name for messages
 * @throws UserError for a file that is anything but a table of tensors as torch 1.6 or newer saves it
 */
export function decodeTorch(bytes: Uint8Array, name: string): Map<string, TorchTensor> {
  checkKind(bytes, name);
  const entries = readStoredZip(bytes, name);
  const pickles = [...entries.keys()].filter((path) => /^[^/]+\/data\.pkl$/.test(path));
  const [path] = pickles;
  if (path === undefined || pickles.length > 1)
    throw new UserError(`${name} is a zip with ${pickles.length} data.pkl inside, not one.`, damaged);
  const prefix = path.slice(0, -"data.pkl".length);
  const order = entries.get(`${prefix}byteorder`);
  if (order !== undefined && new TextDecoder().decode(order).trim() !== "little")
    throw new UserError(
      `${name} was saved on a machine with another byte order.`,
      "Load it in torch on an ordinary machine (x86, ARM) and save it again.",
    );
  const table = unpickle(entries.get(path) as Uint8Array, name);
  if (!(table instanceof Map)) throw new UserError(`${name} does not hold a table of tensors.`, damaged);
  return tensorsOf(table, entries, prefix, bytes.length, name);
}

/** What a file that is no zip is, so that the message can say what to do. */
function checkKind(bytes: Uint8Array, name: string): void {
  // A character a byte: TextDecoder's "latin1" is windows-1252, which has others from 0x80 to 0x9f.
  const head = String.fromCharCode(...bytes.subarray(0, 40));
  if (head.startsWith("PK")) return;
  if (head.startsWith("version https://git-lfs"))
    throw new UserError(
      `${name} is a Git LFS pointer (${bytes.length} bytes of text), not the weights.`,
      'Run "git lfs pull" in that folder, or download the file itself.',
    );
  // The pickled magic number 0x1950a86a20f9469cfc6c, as every file of torch before 1.6 begins.
  if (head.startsWith("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"))
    throw new UserError(
      `${name} is in the format of torch before 1.6, which is not read here.`,
      `Save it again: python -c "import torch; p = 'FILE'; torch.save(torch.load(p, map_location='cpu', weights_only=True), p)"`,
    );
  throw new UserError(`${name} is no file of torch.save (${bytes.length} bytes, and not a zip).`, damaged);
}

function tensorsOf(
  table: ReadonlyMap<string, unknown>,
  entries: ReadonlyMap<string, Uint8Array>,
  prefix: string,
  fileBytes: number,
  name: string,
): Map<string, TorchTensor> {
  const found = new Map<string, TorchTensor>();
  // Views may show the same numbers again and again; files that mean well do so once or twice at most.
  let allowed = 2 * fileBytes;
  for (const [key, value] of table) {
    const who = `${name}: ${JSON.stringify(key.slice(0, 80))}`;
    const tensor = value as Parameters<typeof isTensor>[0];
    if (!isTensor(tensor)) throw new UserError(`${who} is no tensor.`, damaged);
    const { dtype } = tensor.storage;
    const count = checkView(tensor, who);
    allowed -= count * bytesOf[dtype];
    if (allowed < 0) throw new UserError(`${who} and others show the same numbers again and again.`, damaged);
    const raw = entries.get(`${prefix}data/${tensor.storage.key}`);
    if (raw?.length !== tensor.storage.size * bytesOf[dtype])
      throw new UserError(
        `${who} wants ${tensor.storage.size} numbers (${dtype}) from an entry of ${raw?.length ?? "no"} bytes.`,
        damaged,
      );
    found.set(key, { dtype, shape: [...tensor.shape], data: numbers(raw, tensor, count) });
  }
  return found;
}

/** The number of elements of a view that lies inside its storage. */
function checkView({ storage, offset, shape, strides }: PickledTensor, who: string): number {
  const count = shape.reduce((product, dim) => product * dim, 1);
  const last = shape.reduce((at, dim, i) => at + (dim - 1) * (strides[i] as number), offset);
  if (count > 0 && last >= storage.size)
    throw new UserError(`${who} ends at number ${last} of a storage of ${storage.size}.`, damaged);
  if (count > storage.size)
    throw new UserError(`${who} has ${count} numbers in a storage of ${storage.size}.`, damaged);
  return count;
}

function numbers(raw: Uint8Array, tensor: PickledTensor, count: number): Float32Array | BigInt64Array {
  const { storage, offset, shape, strides } = tensor;
  const size = bytesOf[storage.dtype];
  const whole = contiguous(shape, strides);
  // A copy, since a typed array needs an aligned start; not slice(), which Node's Buffer overrides.
  const [from, to] = whole ? [offset * size, (offset + count) * size] : [0, raw.length];
  const buffer = new Uint8Array(raw.subarray(from, to)).buffer;
  const data = storage.dtype === "I64" ? new BigInt64Array(buffer) : toFloats(buffer, storage.dtype);
  if (whole) return data;
  const at = places(offset, shape, strides, count);
  return data instanceof BigInt64Array
    ? BigInt64Array.from(at, (i) => data[i] as bigint)
    : Float32Array.from(at, (i) => data[i] as number);
}

function contiguous(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return false;
    step *= shape[i] as number;
  }
  return true;
}

/** Where the elements of a view lie in its storage, in row-major order. */
function places(offset: number, shape: readonly number[], strides: readonly number[], count: number): Float64Array {
  const at = new Float64Array(count);
  const index = shape.map(() => 0);
  let place = offset;
  for (let i = 0; i < count; i++) {
    at[i] = place;
    for (let dim = shape.length - 1; dim >= 0; dim--) {
      const [size, stride] = [shape[dim] as number, strides[dim] as number];
      place += stride;
      index[dim] = (index[dim] as number) + 1;
      if ((index[dim] as number) < size) break;
      place -= size * stride;
      index[dim] = 0;
    }
  }
  return at;
}

/** A tensor to write: int64 for whole numbers, and floats as float32, or rounded to 16 bits where `dtype` is BF16 or F16. */
export type TensorToSave = Omit<TorchTensor, "dtype"> & { readonly dtype?: StorageDType };

/** How a tensor is written: its storage's name in torch, and its bytes. */
function storage({ data, dtype }: TensorToSave): { readonly type: string; readonly bytes: Uint8Array } {
  const raw = (of: TorchTensor["data"] | Uint16Array): Uint8Array =>
    new Uint8Array(of.buffer, of.byteOffset, of.byteLength);
  if (data instanceof BigInt64Array) return { type: "Long", bytes: raw(data) };
  if (dtype === "BF16") return { type: "BFloat16", bytes: raw(fromFloats(data, dtype)) };
  if (dtype === "F16") return { type: "Half", bytes: raw(fromFloats(data, dtype)) };
  return { type: "Float", bytes: raw(data) };
}

/**
 * A file that torch.load(path, weights_only=True) reads as an OrderedDict of tensors; equal input gives equal bytes.
 *
 * @param archive the folder inside the zip; torch names it after the file
 */
export function encodeTorch(tensors: Readonly<Record<string, TensorToSave>>, archive: string): Uint8Array {
  const entries: Record<string, Uint8Array> = {
    [`${archive}/data.pkl`]: pickleTable(tensors),
    [`${archive}/byteorder`]: new TextEncoder().encode("little"),
  };
  Object.values(tensors).forEach((tensor, i) => {
    entries[`${archive}/data/${i}`] = storage(tensor).bytes;
  });
  entries[`${archive}/version`] = new TextEncoder().encode("3\n");
  return writeStoredZip(entries);
}

/** OrderedDict(name → _rebuild_tensor_v2(storage i, 0, shape, strides, False, OrderedDict())), protocol 2, nothing memoised. */
function pickleTable(tensors: Readonly<Record<string, TensorToSave>>): Uint8Array {
  const out: number[] = [0x80, 2];
  const ascii = (text: string): void => void out.push(...new TextEncoder().encode(text));
  const emptyDict = (): void => ascii("ccollections\nOrderedDict\n)R");
  const int32 = (value: number): void => {
    invariant(Number.isInteger(value) && value >= 0 && value < 2 ** 31, `${value} in a pickle`);
    out.push(value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, value >> 24);
  };
  const integer = (value: number): void => {
    ascii("J");
    int32(value);
  };
  const text = (value: string): void => {
    const raw = new TextEncoder().encode(value);
    ascii("X");
    int32(raw.length);
    out.push(...raw);
  };
  const sizes = (values: readonly number[]): void => {
    ascii("(");
    values.forEach(integer);
    ascii("t");
  };
  emptyDict();
  ascii("(");
  Object.entries(tensors).forEach(([name, tensor], i) => {
    const { shape, data } = tensor;
    invariant(shape.reduce((product, dim) => product * dim, 1) === data.length, `${name}: shape and data disagree`);
    text(name);
    ascii("ctorch._utils\n_rebuild_tensor_v2\n((");
    text("storage");
    ascii(`ctorch\n${storage(tensor).type}Storage\n`);
    text(String(i));
    text("cpu");
    integer(data.length);
    ascii("tQ");
    integer(0);
    sizes(shape);
    sizes(shape.map((_, dim) => shape.slice(dim + 1).reduce((product, size) => product * size, 1)));
    out.push(0x89);
    emptyDict();
    ascii("tR");
  });
  ascii("u.");
  return Uint8Array.from(out);
}
